#pragma once

// A token id, or a list of them: the two forms of `eos_token_id` in Hugging Face's files.

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "common/base/block_key.h"
#include "engine/model/json_fields.h"

namespace tarn::engine {

// Leaves *ids alone where the field is missing or null. INVALID_ARGUMENT unless every id is an
// integer from 0 to vocab_size - 1.
absl::Status GetTokenIds(const JsonFields& fields, const std::string& field, int vocab_size,
                         std::vector<TokenId>* ids);

}  // namespace tarn::engine

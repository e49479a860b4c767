#include "engine/model/token_ids.h"

#include "absl/strings/str_cat.h"

namespace tarn::engine {

absl::Status GetTokenIds(const JsonFields& fields, const std::string& field, int vocab_size,
                         std::vector<TokenId>* ids) {
  if (!fields.Has(field)) return absl::OkStatus();
  nlohmann::json list = fields[field];
  if (!list.is_array()) list = nlohmann::json::array({list});
  ids->clear();
  for (const nlohmann::json& id : list) {
    const bool fits =
        id.is_number_unsigned() && id.get<uint64_t>() < static_cast<uint64_t>(vocab_size);
    if (!fits) {
      return fields.Error(field, absl::StrCat("holds ", id.dump(-1, ' ', true),
                                              ", expected a token id from 0 to ", vocab_size - 1));
    }
    ids->push_back(id.get<TokenId>());
  }
  return absl::OkStatus();
}

}  // namespace tarn::engine

#pragma once

// A model of this folder's tests: the tokenizer that the demo corpus gives, and no weights.

#include <memory>
#include <string>
#include <vector>

#include "engine/request/text_model.h"

namespace tarn::router {

// Called "tiny"; 1024 tokens of vocab, 4096 of context, ChatML, greedy by default.
std::shared_ptr<const engine::TextModel> MakeTestModel();
std::shared_ptr<const engine::TextModel> MakeTestModelWithoutChat();

}  // namespace tarn::router

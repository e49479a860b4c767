#pragma once

// What the two chat forms' tokenizers have in common with the families they come from (Qwen and
// Llama 3). Pure.

#include <string>
#include <vector>

#include "engine/text/chat_template.h"

namespace tarn::engine {

// The family's split expression, as its tokenizer.json has it.
std::string SplitPattern(ChatForm form);

// Special tokens, in the order of their ids.
std::vector<std::string> SpecialTokens(ChatForm form);

std::string EosToken(ChatForm form);
std::string PadToken(ChatForm form);

// Llama 3 puts one in front of every text; ChatML has none: empty.
std::string BosToken(ChatForm form);

bool UsesNfc(ChatForm form);

// Whether a pretoken that is in the vocab is taken whole.
bool IgnoresMerges(ChatForm form);

// A chat template in Jinja, in our own words.
std::string JinjaTemplate(ChatForm form);

}  // namespace tarn::engine

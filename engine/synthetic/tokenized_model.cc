#include "engine/synthetic/tokenized_model.h"

#include <algorithm>
#include <utility>

#include "common/base/status.h"
#include "engine/text/bpe_trainer.h"

namespace tarn::engine {
namespace {

// -1: there is none.
TokenId SpecialToken(const TrainedTokenizer& tokenizer, const std::string& text) {
  const auto& special = tokenizer.special_tokens;
  const auto it = std::find(special.begin(), special.end(), text);
  if (it == special.end()) return -1;
  return static_cast<TokenId>(tokenizer.vocab.size() + (it - special.begin()));
}

void SetTokens(const TrainedTokenizer& tokenizer, SyntheticSpec& spec) {
  const bool chat_ml = tokenizer.form == ChatForm::kChatMl;
  const TokenId end_of_text =
      SpecialToken(tokenizer, chat_ml ? "<|endoftext|>" : "<|end_of_text|>");
  spec.config.eos_token_ids = {tokenizer.eos()};
  if (end_of_text >= 0) spec.config.eos_token_ids.push_back(end_of_text);
  spec.config.bos_token_id = chat_ml ? end_of_text : SpecialToken(tokenizer, "<|begin_of_text|>");
  spec.used_vocab = static_cast<int>(tokenizer.vocab.size());
}

}  // namespace

absl::Status WriteTokenizedModel(const std::string& directory, SyntheticSpec spec,
                                 WriteModelOptions options) {
  const bool qwen = spec.config.architecture == Architecture::kQwen3;
  BpeTrainOptions training;
  training.form = qwen ? ChatForm::kChatMl : ChatForm::kLlama3;
  training.vocab_size = spec.config.vocab_size;
  ASSIGN_OR_RETURN(const TrainedTokenizer tokenizer, TrainBpe(DemoCorpus(), training));
  SetTokens(tokenizer, spec);
  options.add_files = [&tokenizer, more = std::move(options.add_files)](
                          const std::string& staging) -> absl::Status {
    RETURN_IF_ERROR(WriteTokenizerFiles(staging, tokenizer));
    return more ? more(staging) : absl::OkStatus();
  };
  return WriteModel(directory, spec, options);
}

}  // namespace tarn::engine

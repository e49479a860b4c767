#pragma once

// Makes a small byte-level BPE tokenizer, for demos and tests that must not download one.
//
// Training is the plain algorithm (Sennrich et al., 2016): join the most frequent pair of
// neighbours until the vocab is full or no pair is frequent. Deterministic: equal counts go to the
// smaller ids. Pure, apart from WriteTokenizerFiles.

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/text/chat_template.h"
#include "engine/text/tokenizer_file.h"

namespace tarn::engine {

struct BpeTrainOptions {
  ChatForm form = ChatForm::kChatMl;  // whose split expression and special tokens
  // Ids of the result, special ones included. Training may end earlier; then reserved special
  // tokens
  // ("<|reserved_0|>") fill up, so that a model's vocab is what it was planned to be.
  int vocab_size = 2048;
  // 1 joins even what occurs once: right for a corpus of kilobytes, where 2 leaves most words in
  // parts.
  int min_pair_count = 1;
};

struct TrainedTokenizer {
  ChatForm form = ChatForm::kChatMl;
  std::vector<std::string> vocab;                           // by id; byte-level spelling
  std::vector<std::pair<std::string, std::string>> merges;  // best first
  std::vector<std::string> special_tokens;                  // ids follow those of the vocab
  int reserved_count = 0;                                   // of special_tokens, at their end

  int vocab_size() const { return static_cast<int>(vocab.size() + special_tokens.size()); }
  TokenId eos() const;  // <|im_end|> or <|eot_id|>
};

// `corpus` is valid UTF-8, else INVALID_ARGUMENT; also if vocab_size has no room for the 256 bytes
// and the form's special tokens.
absl::StatusOr<TrainedTokenizer> TrainBpe(std::string_view corpus, const BpeTrainOptions& options);

// The contents of tokenizer.json, and of tokenizer_config.json with a chat template in Jinja.
// Hugging Face's libraries read them too.
std::string TokenizerJson(const TrainedTokenizer& tokenizer);
std::string TokenizerConfigJson(const TrainedTokenizer& tokenizer);

// Writes both files into `directory`, which exists. Blocks. UNAVAILABLE: cannot write (names it).
absl::Status WriteTokenizerFiles(const std::string& directory, const TrainedTokenizer& tokenizer);

// A few kilobytes of English, Chinese, code and numbers to train on.
std::string_view DemoCorpus();

}  // namespace tarn::engine

#pragma once

// Tokenizers for tests: one of a few merges that a reader can work out, and ones trained on the
// demo corpus.

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/text/bpe_trainer.h"
#include "engine/text/tokenizer.h"

namespace tarn::engine {

// Ids: the 256 bytes in the alphabet's order, then the merges' results in order, then `words`.
struct SmallTokenizer {
  std::vector<std::pair<std::string, std::string>> merges;  // raw bytes, best first
  std::vector<std::string> words;                           // in the vocab without a merge
  std::vector<AddedToken> added_tokens;
  std::string pattern = R"( ?\p{L}+|\p{N}|\s+|[^\s\p{L}\p{N}]+)";
  bool nfc = false;
  bool ignore_merges = false;
  bool merges_as_pairs = true;  // ["a", "b"] instead of "a b"
};

std::string ToJson(const SmallTokenizer& tokenizer);
std::unique_ptr<Tokenizer> Make(const SmallTokenizer& tokenizer);

// Trained on the demo corpus; made once.
std::shared_ptr<const Tokenizer> DemoTokenizer(ChatForm form);

// What each token stands for.
std::vector<std::string> Pieces(const Tokenizer& tokenizer, std::span<const TokenId> tokens);

}  // namespace tarn::engine

// Encoding speed by kind of text, 220 KB each. With a directory in TARN_TOKENIZER_DIR that
// tokenizer is measured, else the demo's.
//
// Bound: a look-up in the cache a word of five bytes, about 60 ns with the expression's match, is
// 80 MB/s; text that misses the cache pays some 20 ns a byte for its merges.

#include <benchmark/benchmark.h>
#include <glog/logging.h>

#include <cstdlib>
#include <random>

#include "engine/text/bpe_trainer.h"
#include "engine/text/tokenizer.h"

namespace tarn::engine {
namespace {

constexpr size_t kBytes = 220 << 10;

const Tokenizer& Subject() {
  static const std::unique_ptr<Tokenizer> tokenizer = [] {
    const char* directory = std::getenv("TARN_TOKENIZER_DIR");
    absl::StatusOr<std::unique_ptr<Tokenizer>> made;
    if (directory != nullptr) {
      made = Tokenizer::Load(directory);
    } else {
      const auto trained = TrainBpe(DemoCorpus(), {});
      CHECK(trained.ok()) << trained.status();
      made = Tokenizer::FromJson(TokenizerJson(*trained), TokenizerConfigJson(*trained));
    }
    CHECK(made.ok()) << made.status();
    return *std::move(made);
  }();
  return *tokenizer;
}

std::string Repeat(std::string_view part) {
  std::string text;
  while (text.size() < kBytes) text.append(part);
  return text;
}

// Words that no cache has seen.
std::string RandomWords() {
  std::mt19937 random(1);
  std::string text;
  while (text.size() < kBytes) {
    for (int n = 3 + random() % 9; n > 0; --n) text.push_back('a' + random() % 26);
    text.push_back(' ');
  }
  return text;
}

void Encode(benchmark::State& state, const std::string& text) {
  const Tokenizer& tokenizer = Subject();
  size_t tokens = 0;
  for (auto _ : state) tokens = tokenizer.Encode(text).size();
  state.SetBytesProcessed(state.iterations() * text.size());
  state.counters["tokens"] = static_cast<double>(tokens);
}

BENCHMARK_CAPTURE(Encode, prose, Repeat(DemoCorpus()))->UseRealTime()->Threads(1)->Threads(2);
BENCHMARK_CAPTURE(Encode, random_words, RandomWords());
BENCHMARK_CAPTURE(Encode, one_letter, Repeat("a"));
BENCHMARK_CAPTURE(Encode, letters_without_space, Repeat("thewaterofthelake"));
BENCHMARK_CAPTURE(Encode, spaces, Repeat(" "));
BENCHMARK_CAPTURE(Encode, chinese, Repeat("湖水从山上的雪里来"));
BENCHMARK_CAPTURE(Encode, not_utf8, Repeat("\xFF"));

}  // namespace
}  // namespace tarn::engine

// Two ways in: a tokenizer file of the fuzzer's making must load or be refused, and any bytes must
// come back from the demo's tokenizer.

#include <glog/logging.h>

#include <cstddef>
#include <cstdint>

#include "engine/text/bpe_trainer.h"
#include "engine/text/tokenizer.h"

namespace {

const tarn::engine::Tokenizer& Demo() {
  static const auto tokenizer = [] {
    const auto trained = tarn::engine::TrainBpe(tarn::engine::DemoCorpus(),
                                                {.form = tarn::engine::ChatForm::kLlama3});
    return *tarn::engine::Tokenizer::FromJson(tarn::engine::TokenizerJson(*trained), "");
  }();
  return *tokenizer;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  if (input.starts_with('{')) {
    const auto loaded = tarn::engine::Tokenizer::FromJson(input, "");
    if (loaded.ok()) (*loaded)->Encode(input, {.parse_special = true});
    return 0;
  }
  const auto tokens = Demo().Encode(input, {.add_special_tokens = false, .parse_special = true});
  CHECK(Demo().Decode(tokens) == input);
  return 0;
}

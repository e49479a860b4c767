#include "engine/request/resolve.h"

#include <algorithm>
#include <cstdint>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "engine/text/utf8.h"
#include "engine/wire/convert.h"

namespace tarn::engine {
namespace {

absl::Status CheckPrompt(const std::vector<TokenId>& prompt, const ModelConfig& config) {
  if (prompt.empty()) {
    return absl::InvalidArgumentError("prompt: is empty; at least one token is needed");
  }
  for (size_t i = 0; i < prompt.size(); ++i) {
    if (prompt[i] < 0 || prompt[i] >= config.vocab_size) {
      return absl::InvalidArgumentError(absl::StrCat("prompt: token ", i, " is ", prompt[i],
                                                     "; ids are 0 to ", config.vocab_size - 1));
    }
  }
  if (prompt.size() >= static_cast<size_t>(config.max_position)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "prompt: has ", prompt.size(), " tokens; the model's context of ", config.max_position,
        " takes at most ", config.max_position - 1, ", and one for the answer"));
  }
  return absl::OkStatus();
}

absl::StatusOr<int> AnswerLimit(const v1::SamplingParams& sampling, size_t prompt_tokens,
                                const ModelConfig& config) {
  const int room = config.max_position - static_cast<int>(prompt_tokens);
  if (!sampling.has_max_tokens()) return room;
  if (sampling.max_tokens() < 1) {
    return absl::InvalidArgumentError("max_tokens: is 0; at least 1");
  }
  if (sampling.max_tokens() > static_cast<uint32_t>(room)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "max_tokens: is ", sampling.max_tokens(), "; the prompt has ", prompt_tokens,
        " tokens and the model's context is ", config.max_position, ", so at most ", room));
  }
  return static_cast<int>(sampling.max_tokens());
}

absl::Status CheckStop(const v1::SamplingParams& sampling, int vocab_size) {
  if (sampling.stop_size() > kMaxStopStrings) {
    return absl::InvalidArgumentError(
        absl::StrCat("stop: has ", sampling.stop_size(), " strings; at most ", kMaxStopStrings));
  }
  for (int i = 0; i < sampling.stop_size(); ++i) {
    const size_t bytes = sampling.stop(i).size();
    if (bytes == 0 || bytes > static_cast<size_t>(kMaxStopBytes)) {
      return absl::InvalidArgumentError(
          absl::StrCat("stop[", i, "]: has ", bytes, " bytes; 1 to ", kMaxStopBytes));
    }
    RETURN_IF_ERROR(CheckUtf8(absl::StrCat("stop[", i, "]"), sampling.stop(i)));
  }
  if (sampling.stop_token_ids_size() > kMaxStopTokens) {
    return absl::InvalidArgumentError(absl::StrCat(
        "stop_token_ids: has ", sampling.stop_token_ids_size(), " ids; at most ", kMaxStopTokens));
  }
  for (const TokenId id : sampling.stop_token_ids()) {
    if (id < 0 || id >= vocab_size) {
      return absl::InvalidArgumentError(
          absl::StrCat("stop_token_ids: ", id, " is no token; ids are 0 to ", vocab_size - 1));
    }
  }
  return absl::OkStatus();
}

v1::SamplingParams WithDefaults(v1::SamplingParams sampling, const GenerationConfig& defaults,
                                uint64_t drawn_seed) {
  if (!sampling.has_temperature()) sampling.set_temperature(defaults.temperature);
  if (!sampling.has_top_p()) sampling.set_top_p(defaults.top_p);
  if (!sampling.has_top_k()) sampling.set_top_k(defaults.top_k);
  if (!sampling.has_repetition_penalty()) {
    sampling.set_repetition_penalty(defaults.repetition_penalty);
  }
  if (!sampling.has_seed()) sampling.set_seed(drawn_seed);
  return sampling;
}

std::vector<TokenId> EndTokens(const v1::SamplingParams& sampling, const TextModel& model) {
  std::vector<TokenId> tokens(sampling.stop_token_ids().begin(), sampling.stop_token_ids().end());
  if (!sampling.ignore_eos()) {
    const auto& eos = model.generation.eos_token_ids;
    tokens.insert(tokens.end(), eos.begin(), eos.end());
  }
  std::sort(tokens.begin(), tokens.end());
  tokens.erase(std::unique(tokens.begin(), tokens.end()), tokens.end());
  return tokens;
}

}  // namespace

absl::StatusOr<ResolvedRequest> Resolve(std::vector<TokenId> prompt,
                                        const v1::SamplingParams& sampling, const TextModel& model,
                                        uint64_t drawn_seed) {
  RETURN_IF_ERROR(CheckPrompt(prompt, model.config));
  RETURN_IF_ERROR(CheckStop(sampling, model.config.vocab_size));
  ResolvedRequest request;
  ASSIGN_OR_RETURN(request.max_new_tokens, AnswerLimit(sampling, prompt.size(), model.config));
  if (sampling.min_tokens() > static_cast<uint32_t>(request.max_new_tokens)) {
    return absl::InvalidArgumentError(absl::StrCat("min_tokens: is ", sampling.min_tokens(),
                                                   "; at most max_tokens, which is ",
                                                   request.max_new_tokens));
  }
  request.end_tokens = EndTokens(sampling, model);
  ASSIGN_OR_RETURN(request.sampling, FromProto(WithDefaults(sampling, model.generation, drawn_seed),
                                               request.end_tokens, model.config.vocab_size));
  request.prompt = std::move(prompt);
  request.stop.assign(sampling.stop().begin(), sampling.stop().end());
  request.include_stop = sampling.include_stop_str_in_output();
  request.skip_special = !sampling.has_skip_special_tokens() || sampling.skip_special_tokens();
  return request;
}

absl::Status CheckUtf8(const std::string& field, const std::string& text) {
  const size_t valid = ValidUtf8Prefix(text);
  if (valid == text.size()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(field, ": is not valid UTF-8 at byte ", valid, " of ", text.size()));
}

absl::StatusOr<std::vector<TokenId>> EncodePrompt(const std::string& text, const TextModel& model) {
  RETURN_IF_ERROR(CheckUtf8("prompt", text));
  // What stands in a prompt is the caller's own: special tokens in it are meant (as in vLLM).
  return model.tokenizer->Encode(text, {.add_special_tokens = true, .parse_special = true});
}

}  // namespace tarn::engine

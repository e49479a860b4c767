#pragma once

// From what a client asked to what the engine does: defaults filled in, every field checked.
//
// The router's frontends and `tarn run` both use this, so a request means the same to both.
// Plain functions; thread-safe, nothing blocks.

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/request/text_model.h"
#include "engine/sampling/sampling.h"
#include "proto/request.pb.h"

namespace tarn::engine {

struct ResolvedRequest {
  std::vector<TokenId> prompt;
  SamplingParams sampling;
  // Any of them ends the answer: EOS unless ignored, and the client's stop tokens.
  std::vector<TokenId> end_tokens;
  int max_new_tokens = 0;
  std::vector<std::string> stop;
  bool include_stop = false;
  bool skip_special = true;
};

// Limits of a request that are not the model's.
inline constexpr int kMaxStopStrings = 64;
inline constexpr int kMaxStopBytes = 1024;
inline constexpr int kMaxStopTokens = 256;

// Fields that are not set take the model's generation_config.json, then vLLM's defaults; the seed
// takes `drawn_seed`. INVALID_ARGUMENT names the field and its limits: an empty prompt, an id
// outside the vocab, a prompt (with max_tokens) over the context, parameters out of range or NaN.
absl::StatusOr<ResolvedRequest> Resolve(std::vector<TokenId> prompt,
                                        const v1::SamplingParams& sampling, const TextModel& model,
                                        uint64_t drawn_seed);

// INVALID_ARGUMENT that names `field`, unless `text` is valid UTF-8 (says at which byte it is not).
absl::Status CheckUtf8(const std::string& field, const std::string& text);

// The prompt of a text: encoded with the special tokens that the tokenizer's file puts around it.
// INVALID_ARGUMENT: not valid UTF-8.
absl::StatusOr<std::vector<TokenId>> EncodePrompt(const std::string& text, const TextModel& model);

}  // namespace tarn::engine

#pragma once

// Choosing the next token from logits.
//
// Stateless: the random draw is a function of (seed, position) through a counter-based generator
// (Philox4x32-10: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), so the
// same request draws the same tokens whatever batch, node or restart computes it. Plain functions
// and values; thread-safe, nothing blocks.

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "common/base/block_key.h"

namespace tarn::engine {

// Names, meaning and defaults as in vLLM's SamplingParams.
struct SamplingParams {
  float temperature = 1.0f;         // 0 (below 1e-5): greedy. [0, 100]
  float top_p = 1.0f;               // (0, 1]
  int top_k = 0;                    // 0 or -1: all
  float min_p = 0.0f;               // [0, 1]
  float repetition_penalty = 1.0f;  // (0, 100]: over prompt and output tokens
  float presence_penalty = 0.0f;    // [-2, 2]: over output tokens
  float frequency_penalty = 0.0f;   // [-2, 2]: over output tokens
  uint64_t seed = 0;                // always set: the frontend draws one where the user gave none
  int logprobs = -1;                // -1: none; n: of the chosen token and the n most likely. <= 20
  // Tokens that may not be chosen before `min_tokens` output tokens (EOS and stop tokens).
  int min_tokens = 0;
  std::vector<TokenId> forbidden_before_min_tokens;

  // INVALID_ARGUMENT that names the field and its limits; NaN is out of range.
  absl::Status Validate(int vocab_size) const;
};

struct TokenLogprob {
  TokenId token = 0;
  float logprob = 0;
  friend bool operator==(const TokenLogprob&, const TokenLogprob&) = default;
};

struct SampledToken {
  TokenId token = 0;
  // Of the model's own distribution: before penalties, temperature and truncation (vLLM's default).
  // At least -9999; 0 if not asked for.
  float logprob = 0;
  std::vector<TokenLogprob> top_logprobs;  // most likely first; ties: the lower id first
  friend bool operator==(const SampledToken&, const SampledToken&) = default;
};

// Chooses from `logits` (vocab_size long; scratch, is overwritten). `context`: all tokens of the
// sequence so far, of which the first `prompt_length` are the prompt. The draw is keyed by
// (params.seed, context.size()). Order of steps as in vLLM: penalties, min_tokens, temperature,
// min_p, top_k, top_p. Ties between equal logits: the lower id.
//
//   repetition  logit > 0 ? logit / penalty : logit * penalty, once for each token of the context
//   frequency, presence   logit - frequency * count - presence, for tokens of the output
//   min_p       keeps p >= min_p * max(p)
//   top_k       keeps exactly k (vLLM keeps all that tie with the k-th)
//   top_p       keeps a token if those more likely sum to less than top_p of what is left by then
//
// Never fails. NaN counts as the least finite logit, +infinity as the largest; -infinity is never
// chosen, but token 0 is where every logit is -infinity. Equal arguments give equal answers on
// every machine: no step uses libm on a logit. `params` are valid; ids outside the vocabulary are
// ignored.
SampledToken Sample(std::span<float> logits, const SamplingParams& params,
                    std::span<const TokenId> context, int prompt_length);

}  // namespace tarn::engine

#pragma once

// The seam between the router's frontends (gRPC, OpenAI HTTP) and whoever serves a request: tokens
// in, tokens out, the cluster in between. The fake (fake_gateway.h) answers without a cluster.
//
// Loop-only: calls and callbacks run on the router's EventLoop; nothing blocks.

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/base/block_key.h"
#include "common/base/ids.h"
#include "engine/sampling/sampling.h"
#include "router/policy/slo.h"

namespace tarn::router {

enum class FinishReason : uint8_t { kStop, kLength };

// One choice of one request, checked by the frontend.
struct GenerationRequest {
  std::vector<TokenId> prompt;
  engine::SamplingParams sampling;
  std::vector<TokenId> end_tokens;  // EOS unless ignored, and the user's stop tokens
  int max_new_tokens = 0;
  std::string salt;  // of the block keys: tenant and cache salt, see SaltFor
  std::string tenant;
  int priority = 0;
  absl::Time received;
  absl::Time deadline;
  Slo slo;  // from `received`
};

struct GenerationReport {
  int prompt_tokens = 0;
  // Where the prompt came from.
  int computed = 0, local_hbm = 0, local_dram = 0, local_ssd = 0, remote = 0, remote_ssd = 0;
  absl::Duration route, queue, fetch, compute, time_to_first_token, handover, decode, total;
  absl::Duration predicted_time_to_first_token;
  std::string prefill_node, decode_node;
  int attempts = 1;
  int cached_tokens() const { return local_hbm + local_dram + local_ssd + remote + remote_ssd; }
};

// Whoever asked. Gets tokens, then exactly one of OnFinished and OnFailed; nothing once the
// Generation is destroyed.
class GenerationSink {
 public:
  virtual ~GenerationSink() = default;
  virtual void OnTokens(std::span<const engine::SampledToken> tokens) = 0;
  virtual void OnFinished(FinishReason reason, const GenerationReport& report) = 0;
  // `retry_after`: for RESOURCE_EXHAUSTED and UNAVAILABLE, when to come again; zero: no hint.
  virtual void OnFailed(const absl::Status& status, absl::Duration retry_after) = 0;
};

// A request under way. Destroying it cancels it, in whatever state it is, also within a callback.
class Generation {
 public:
  virtual ~Generation() = default;
  // What is known so far; complete once finished. For requests that a stop string ends early.
  virtual GenerationReport Report() const = 0;
};

class Gateway {
 public:
  virtual ~Gateway() = default;

  // Starts a request; callbacks come later than this call. `sink` outlives the Generation.
  virtual std::unique_ptr<Generation> Start(GenerationRequest request, GenerationSink* sink) = 0;

  // OK when there is a prefill node and a decode node to serve with; else says what is missing.
  virtual absl::Status Ready() const = 0;
};

// The salt of a request's block keys. Fields are length-prefixed: no two pairs meet.
std::string SaltFor(const std::string& tenant, const std::string& cache_salt);

}  // namespace tarn::router

#pragma once

// The one-process reference: the same engine, no cluster. One request at a time, nothing shared
// between requests, nothing cached. Every distributed test compares with it (invariant I1).
// Thread-compatible; Generate blocks until the answer is complete.

#include <functional>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/executor.h"

namespace tarn::client {

enum class LocalFinish { kStop, kLength, kEndedByCaller };

struct LocalRequest {
  std::vector<TokenId> prompt;
  engine::SamplingParams sampling;
  std::vector<TokenId> end_tokens;
  int max_new_tokens = 0;
};

class LocalGenerator {
 public:
  // False ends the answer with this token.
  using OnToken = std::function<bool(const engine::SampledToken&)>;

  // `executor` outlives this and has pages for one request in its arena, of `page_count`. Prompts
  // are computed `chunk_tokens` at a time.
  LocalGenerator(engine::ModelExecutor* executor, int page_count, int chunk_tokens);

  // Errors are the executor's; RESOURCE_EXHAUSTED if the request needs more pages than there are.
  absl::StatusOr<LocalFinish> Generate(const LocalRequest& request, const OnToken& on_token);

 private:
  absl::StatusOr<engine::SampledToken> Prefill(const LocalRequest& request,
                                               std::span<const TokenId> context);

  engine::ModelExecutor* const executor_;
  const int chunk_tokens_;
  std::vector<engine::PageIndex> pages_;
};

}  // namespace tarn::client

#include "client/local/local_generator.h"

#include <algorithm>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"

namespace tarn::client {

LocalGenerator::LocalGenerator(engine::ModelExecutor* executor, int page_count, int chunk_tokens)
    : executor_(executor), chunk_tokens_(chunk_tokens), pages_(page_count) {
  std::iota(pages_.begin(), pages_.end(), 0);
}

absl::StatusOr<engine::SampledToken> LocalGenerator::Prefill(const LocalRequest& request,
                                                             std::span<const TokenId> context) {
  for (size_t begin = 0;; begin += chunk_tokens_) {
    const size_t count = std::min<size_t>(chunk_tokens_, context.size() - begin);
    const bool last = begin + count == context.size();
    engine::StepSequence step{.tokens = context.subspan(begin, count),
                              .position = static_cast<int>(begin),
                              .pages = pages_};
    if (last) {
      step.sample = engine::SampleRequest{&request.sampling, context,
                                          static_cast<int>(request.prompt.size())};
    }
    ASSIGN_OR_RETURN(const auto outputs, executor_->Step({&step, 1}));
    if (last) return *outputs.at(0).sampled;
  }
}

absl::StatusOr<LocalFinish> LocalGenerator::Generate(const LocalRequest& request,
                                                     const OnToken& on_token) {
  const size_t block = executor_->layout().block_tokens;
  const size_t needed = (request.prompt.size() + request.max_new_tokens + block - 1) / block;
  if (needed > pages_.size()) {
    return absl::ResourceExhaustedError(
        absl::StrCat("prompt and answer need ", needed, " KV pages, there are ", pages_.size()));
  }
  std::vector<TokenId> context = request.prompt;
  ASSIGN_OR_RETURN(engine::SampledToken token, Prefill(request, context));
  for (int made = 1;; ++made) {
    if (!on_token(token)) return LocalFinish::kEndedByCaller;
    const auto& ends = request.end_tokens;
    if (std::find(ends.begin(), ends.end(), token.token) != ends.end()) return LocalFinish::kStop;
    if (made >= request.max_new_tokens) return LocalFinish::kLength;
    context.push_back(token.token);
    const engine::StepSequence step{
        .tokens = std::span(context).last(1),
        .position = static_cast<int>(context.size()) - 1,
        .pages = pages_,
        .sample = engine::SampleRequest{&request.sampling, context,
                                        static_cast<int>(request.prompt.size())}};
    ASSIGN_OR_RETURN(auto outputs, executor_->Step({&step, 1}));
    token = std::move(*outputs.at(0).sampled);
  }
}

}  // namespace tarn::client

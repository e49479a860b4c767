#include "client/load/workload.h"

#include <algorithm>
#include <cmath>

namespace tarn::client {
namespace {

v1::GenerateRequest MakeRequest(const std::vector<TokenId>& prompt, int output_tokens) {
  v1::GenerateRequest request;
  request.mutable_tokens()->mutable_ids()->Add(prompt.begin(), prompt.end());
  v1::RequestOptions& options = *request.mutable_options();
  options.set_stream(true);
  options.set_detokenize(false);
  v1::SamplingParams& sampling = *options.mutable_sampling();
  sampling.set_temperature(0);
  sampling.set_ignore_eos(true);
  sampling.set_max_tokens(output_tokens);
  return request;
}

void AppendRandom(Random& random, int count, int vocab_size, std::vector<TokenId>& tokens) {
  for (int i = 0; i < count; ++i) {
    tokens.push_back(static_cast<TokenId>(random.UniformInt(0, vocab_size - 1)));
  }
}

// Tokens of one trace block: its id in base vocab_size first, so that ids below vocab_size² never
// share a first pair, then noise that depends on the id alone.
void AppendTraceBlock(int64_t id, int count, const ReplayWorkload& workload,
                      std::vector<TokenId>& tokens) {
  const int64_t vocab = workload.vocab_size;
  Random noise(workload.seed * 1000003 + static_cast<uint64_t>(id));
  for (int i = 0; i < count; ++i) {
    int64_t token = noise.UniformInt(0, vocab - 1);
    if (i == 0) token = id % vocab;
    if (i == 1) token = id / vocab % vocab;
    tokens.push_back(static_cast<TokenId>(token));
  }
}

std::vector<TokenId> TracePrompt(const sim::TraceRequest& request, const ReplayWorkload& workload) {
  const double scale = static_cast<double>(workload.block_tokens) / sim::kTraceBlockTokens;
  int length = std::max(1, static_cast<int>(std::ceil(request.input_tokens * scale)));
  std::vector<TokenId> prompt;
  for (const int64_t id : request.hash_ids) {
    const int left = length - static_cast<int>(prompt.size());
    if (left <= 0) break;
    AppendTraceBlock(id, std::min(left, workload.block_tokens), workload, prompt);
  }
  return prompt;
}

}  // namespace

std::vector<LoadRequest> MakeSyntheticLoad(const SyntheticWorkload& workload) {
  Random random(workload.seed);
  std::vector<TokenId> shared;
  AppendRandom(random, std::min(workload.shared_tokens, workload.input_tokens), workload.vocab_size,
               shared);
  std::vector<LoadRequest> requests;
  absl::Duration at;
  for (int i = 0; i < workload.requests; ++i) {
    std::vector<TokenId> prompt = shared;
    AppendRandom(random, workload.input_tokens - static_cast<int>(shared.size()),
                 workload.vocab_size, prompt);
    requests.push_back({at, MakeRequest(prompt, workload.output_tokens)});
    if (workload.request_rate > 0) {
      // Gaps of a Poisson process are exponential.
      at += absl::Seconds(-std::log(1 - random.UniformDouble()) / workload.request_rate);
    }
  }
  return requests;
}

std::vector<LoadRequest> MakeReplayLoad(const std::vector<sim::TraceRequest>& trace,
                                        const ReplayWorkload& workload) {
  Random random(workload.seed);
  const double scale = static_cast<double>(workload.block_tokens) / sim::kTraceBlockTokens;
  std::vector<LoadRequest> requests;
  for (const sim::TraceRequest& entry : trace) {
    std::vector<TokenId> prompt = TracePrompt(entry, workload);
    int output = std::max(1, static_cast<int>(std::lround(entry.output_tokens * scale)));
    if (workload.max_output_tokens > 0) output = std::min(output, workload.max_output_tokens);
    if (workload.max_context > 0) {
      const int room = workload.max_context - output;
      if (static_cast<int>(prompt.size()) > room) prompt.resize(std::max(1, room));
    }
    absl::Duration at;
    if (workload.speed > 0) {
      at = (entry.at + workload.jitter * random.UniformDouble()) / workload.speed;
    }
    requests.push_back({at, MakeRequest(prompt, output)});
  }
  std::stable_sort(requests.begin(), requests.end(),
                   [](const LoadRequest& a, const LoadRequest& b) { return a.at < b.at; });
  return requests;
}

}  // namespace tarn::client

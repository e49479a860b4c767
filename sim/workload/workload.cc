#include "sim/workload/workload.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "common/base/status.h"
#include "common/runtime/random.h"

namespace tarn::sim {
namespace {

double Exponential(Random& random, double mean) {
  return -mean * std::log(1 - random.UniformDouble());
}

int Tokens(Random& random, double mean) {
  return std::max(1, static_cast<int>(std::lround(Exponential(random, mean))));
}

class SessionMaker {
 public:
  explicit SessionMaker(const SessionOptions& options)
      : options_(options), random_(options.seed), systems_(std::max(1, options.system_prompts)) {
    for (auto& chain : systems_) Extend(&chain, options.system_tokens);
  }

  std::vector<TraceRequest> Make() {
    absl::Duration start;
    while (start < options_.duration) {
      // A generator for each session: one that is longer leaves the others as they are.
      Random session = random_.Fork();
      AddSession(start, session);
      start += absl::Seconds(Exponential(random_, 1 / options_.sessions_per_second));
    }
    std::stable_sort(requests_.begin(), requests_.end(),
                     [](const auto& a, const auto& b) { return a.at < b.at; });
    return std::move(requests_);
  }

 private:
  // New ids until `chain` has all full blocks of `tokens`.
  void Extend(std::vector<int64_t>* chain, int tokens) {
    while (static_cast<int>(chain->size() + 1) * kTraceBlockTokens <= tokens) {
      chain->push_back(next_id_++);
    }
  }

  void AddSession(absl::Duration at, Random& random) {
    std::vector<int64_t> chain = systems_[random.UniformInt(systems_.size())];
    int tokens = options_.system_tokens;
    do {
      tokens += Tokens(random, options_.mean_question_tokens);
      const int answer = Tokens(random, options_.mean_answer_tokens);
      if (tokens + answer > options_.max_tokens) return;
      Extend(&chain, tokens);
      Ask(at, tokens, answer, chain);
      tokens += answer;
      at += absl::Seconds(Exponential(random, absl::ToDoubleSeconds(options_.mean_think_time)));
    } while (random.Chance(1 - 1 / options_.mean_turns));
  }

  void Ask(absl::Duration at, int tokens, int answer, std::vector<int64_t> chain) {
    // The tail has an id that nobody else has: what follows it in the next turn changes it.
    if (static_cast<int>(chain.size()) * kTraceBlockTokens < tokens) chain.push_back(next_id_++);
    requests_.push_back({at, tokens, answer, std::move(chain)});
  }

  const SessionOptions options_;
  Random random_;
  int64_t next_id_ = 0;
  std::vector<std::vector<int64_t>> systems_;
  std::vector<TraceRequest> requests_;
};

double Mean(const std::vector<TraceRequest>& requests, int TraceRequest::*field) {
  double sum = 0;
  for (const TraceRequest& request : requests) sum += request.*field;
  return requests.empty() ? 0 : sum / static_cast<double>(requests.size());
}

}  // namespace

absl::Duration Workload::duration() const {
  return requests.empty() ? absl::ZeroDuration() : requests.back().at - requests.front().at;
}
double Workload::mean_input_tokens() const { return Mean(requests, &TraceRequest::input_tokens); }
double Workload::mean_output_tokens() const { return Mean(requests, &TraceRequest::output_tokens); }

absl::StatusOr<Workload> ReadWorkload(const std::string& path, size_t limit) {
  ASSIGN_OR_RETURN(std::vector<TraceRequest> requests, ReadTrace(path, limit));
  const auto earlier = [](const TraceRequest& a, const TraceRequest& b) { return a.at < b.at; };
  std::stable_sort(requests.begin(), requests.end(), earlier);
  SpreadArrivals(&requests);
  return Workload{path.substr(path.rfind('/') + 1), std::move(requests)};
}

Workload MakeSessions(const SessionOptions& options) {
  return {"sessions", SessionMaker(options).Make()};
}

Workload ScaleRate(const Workload& workload, double factor) {
  Workload scaled = workload;
  for (TraceRequest& request : scaled.requests) request.at /= factor;
  return scaled;
}

}  // namespace tarn::sim

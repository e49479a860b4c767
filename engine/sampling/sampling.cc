#include "engine/sampling/sampling.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <limits>
#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "engine/sampling/exp.h"
#include "engine/sampling/philox.h"

namespace tarn::engine {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kLargest = std::numeric_limits<float>::max();
// Below this a temperature means greedy, as in vLLM.
constexpr float kGreedyBelow = 1e-5f;
// JSON has no -infinity; vLLM's server answers this number as well.
constexpr float kLeastLogprob = -9999.0f;
constexpr int kMaxLogprobs = 20;
// Independent accumulators, so that loops over floats vectorise without reordering a sum.
constexpr size_t kLanes = 16;
constexpr size_t kChunk = 256;

absl::Status CheckRange(const char* field, double value, double low, bool low_included,
                        double high) {
  const bool above = low_included ? value >= low : value > low;  // false for NaN
  if (above && value <= high) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(field, " is ", value, "; must be in ",
                                                 low_included ? "[" : "(", low, ", ", high, "]"));
}

bool InVocabulary(TokenId token, size_t vocab_size) {
  return token >= 0 && static_cast<size_t>(token) < vocab_size;
}

// Each token that occurs in the prompt or the output, once.
void PenaliseRepetition(std::span<float> logits, float penalty, std::span<const TokenId> context) {
  if (penalty == 1.0f) return;
  std::vector<bool> seen(logits.size());
  for (const TokenId token : context) {
    if (!InVocabulary(token, logits.size()) || seen[token]) continue;
    seen[token] = true;
    float& logit = logits[token];
    logit = logit > 0 ? logit / penalty : logit * penalty;
  }
}

void PenaliseOutput(std::span<float> logits, const SamplingParams& params,
                    std::span<const TokenId> output) {
  if (params.presence_penalty == 0 && params.frequency_penalty == 0) return;
  std::vector<TokenId> sorted(output.begin(), output.end());
  std::sort(sorted.begin(), sorted.end());
  for (auto it = sorted.begin(); it != sorted.end();) {
    const auto next = std::upper_bound(it, sorted.end(), *it);
    if (InVocabulary(*it, logits.size())) {
      float& logit = logits[*it];
      logit -= params.frequency_penalty * static_cast<float>(next - it);
      logit -= params.presence_penalty;
    }
    it = next;
  }
}

// NaN becomes the least finite number and +infinity the largest, so that everything below is total.
void MakeComparable(std::span<float> logits) {
  for (float& logit : logits) {
    const float capped = logit < kLargest ? logit : kLargest;  // NaN too, but the next line sees it
    logit = logit != logit ? -kLargest : capped;
  }
}

float Largest(std::span<const float> values) {
  std::array<float, kLanes> lanes;
  lanes.fill(-kInfinity);
  size_t i = 0;
  for (; i + kLanes <= values.size(); i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) {
      lanes[lane] = values[i + lane] > lanes[lane] ? values[i + lane] : lanes[lane];
    }
  }
  float largest = *std::max_element(lanes.begin(), lanes.end());
  for (; i < values.size(); ++i) largest = std::max(largest, values[i]);
  return largest;
}

TokenId FirstEqual(std::span<const float> values, float wanted) {
  return static_cast<TokenId>(std::find(values.begin(), values.end(), wanted) - values.begin());
}

// In double: 150,000 terms in one float would lose the small ones.
double Sum(std::span<const float> values) {
  std::array<double, kLanes> lanes{};
  size_t i = 0;
  for (; i + kLanes <= values.size(); i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) lanes[lane] += values[i + lane];
  }
  double sum = 0;
  for (const double lane : lanes) sum += lane;
  for (; i < values.size(); ++i) sum += values[i];
  return sum;
}

// Logits are from here on relative to the greatest, which is 0, and divided by the temperature.
void Scale(std::span<float> logits, float largest, float temperature) {
  for (float& logit : logits) logit = (logit - largest) / temperature;
}

// p >= min_p * max(p) is exp(logit) >= min_p: the greatest logit is 0.
void KeepMinP(std::span<float> logits, float min_p) {
  if (min_p <= 0) return;
  const float least = static_cast<float>(std::log(static_cast<double>(min_p)));
  for (float& logit : logits) logit = logit >= least ? logit : -kInfinity;
}

// The last token that is kept, in the order "greater logit first, then lower id".
struct Boundary {
  float logit = -kInfinity;
  size_t id = 0;
};

// Finds where the weight of the tokens in front reaches a target, without sorting the vocabulary:
// a histogram over the logit finds the bin, and only that bin is sorted.
class BoundaryFinder {
 public:
  enum class Weight { kCount, kProbability };

  BoundaryFinder(std::span<const float> logits, Weight weight)
      : logits_(logits), weight_(weight), bins_(kBins) {
    for (size_t start = 0; start < logits.size(); start += kChunk) AddChunk(start);
    for (const double bin : bins_) total_ += bin;
  }

  double total() const { return total_; }

  // The last token in front of which there is less than `target`. nullopt: that is all of them.
  std::optional<Boundary> Find(double target) const {
    double before = 0;
    for (size_t bin = 0; bin < kBins; ++bin) {
      if (before + bins_[bin] >= target) return FindInBin(bin, before, target);
      before += bins_[bin];
    }
    return std::nullopt;
  }

 private:
  // The bits of a non-negative float are ordered as its value: sign, 8 of exponent, 5 of mantissa.
  static constexpr int kBinShift = 18;
  static constexpr size_t kBins = size_t{1} << (31 - kBinShift);

  static size_t BinOf(float logit) {
    return std::bit_cast<uint32_t>(std::fabs(logit)) >> kBinShift;
  }

  float WeightOf(float logit) const {
    if (weight_ == Weight::kProbability) return ExpOfNegative(logit);
    return logit == -kInfinity ? 0.0f : 1.0f;
  }

  void AddChunk(size_t start) {
    std::array<float, kChunk> weights;
    const size_t count = std::min(kChunk, logits_.size() - start);
    for (size_t i = 0; i < count; ++i) weights[i] = WeightOf(logits_[start + i]);
    for (size_t i = 0; i < count; ++i) bins_[BinOf(logits_[start + i])] += weights[i];
  }

  Boundary FindInBin(size_t bin, double before, double target) const {
    std::vector<Boundary> members;
    for (size_t id = 0; id < logits_.size(); ++id) {
      if (BinOf(logits_[id]) == bin) members.push_back({logits_[id], id});
    }
    std::sort(members.begin(), members.end(), [](const Boundary& a, const Boundary& b) {
      return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
    });
    Boundary last = members.front();
    for (const Boundary& member : members) {
      if (before >= target) break;
      last = member;
      before += WeightOf(member.logit);
    }
    return last;
  }

  std::span<const float> logits_;
  Weight weight_;
  std::vector<double> bins_;
  double total_ = 0;
};

void KeepUpTo(std::span<float> logits, const Boundary& last) {
  for (size_t id = 0; id < logits.size(); ++id) {
    const bool keep = logits[id] > last.logit || (logits[id] == last.logit && id <= last.id);
    logits[id] = keep ? logits[id] : -kInfinity;
  }
}

void KeepTopK(std::span<float> logits, int top_k) {
  if (top_k <= 0 || static_cast<size_t>(top_k) >= logits.size()) return;
  const BoundaryFinder finder(logits, BoundaryFinder::Weight::kCount);
  if (const auto last = finder.Find(top_k)) KeepUpTo(logits, *last);
}

void KeepTopP(std::span<float> logits, float top_p) {
  if (top_p >= 1.0f) return;
  const BoundaryFinder finder(logits, BoundaryFinder::Weight::kProbability);
  if (const auto last = finder.Find(static_cast<double>(top_p) * finder.total())) {
    KeepUpTo(logits, *last);
  }
}

// The first of `weights` whose running sum exceeds `target`; the last positive one if rounding left
// the sum short.
size_t Walk(std::span<const float> weights, double target) {
  size_t chosen = 0;
  double sum = 0;
  for (size_t i = 0; i < weights.size(); ++i) {
    if (weights[i] <= 0) continue;
    chosen = i;
    sum += weights[i];
    if (sum > target) break;
  }
  return chosen;
}

// Inverse of the cumulative distribution over the ids, chunk by chunk.
TokenId Draw(std::span<float> logits, double uniform) {
  for (float& logit : logits) logit = ExpOfNegative(logit);
  std::vector<double> chunks;
  chunks.reserve(logits.size() / kChunk + 1);
  double total = 0;
  for (size_t start = 0; start < logits.size(); start += kChunk) {
    chunks.push_back(Sum(logits.subspan(start, std::min(kChunk, logits.size() - start))));
    total += chunks.back();
  }
  double target = uniform * total;
  size_t chosen = 0;
  for (size_t i = 0; i < chunks.size(); ++i) {
    if (chunks[i] <= 0) continue;
    chosen = i;
    if (target < chunks[i]) break;
    target -= chunks[i];
  }
  const size_t start = chosen * kChunk;
  const auto weights = logits.subspan(start, std::min(kChunk, logits.size() - start));
  return static_cast<TokenId>(start + Walk(weights, target));
}

TokenId Choose(std::span<float> logits, const SamplingParams& params, size_t position) {
  const float largest = Largest(logits);
  if (largest == -kInfinity) return 0;
  if (params.temperature < kGreedyBelow) return FirstEqual(logits, largest);
  Scale(logits, largest, params.temperature);
  KeepMinP(logits, params.min_p);
  KeepTopK(logits, params.top_k);
  KeepTopP(logits, params.top_p);
  return Draw(logits, PhiloxUniform(params.seed, position));
}

// Log of the sum of exp(logit - largest).
double LogSum(std::span<const float> logits, float largest) {
  std::vector<float> weights(logits.begin(), logits.end());
  for (float& weight : weights) weight = ExpOfNegative(weight - largest);
  return std::log(Sum(weights));
}

void FillLogprobs(std::span<const float> logits, int count, SampledToken& sampled) {
  const float largest = Largest(logits);
  const double log_sum = largest == -kInfinity ? 0 : LogSum(logits, largest);
  const auto logprob = [&](TokenId token) {
    if (logits[token] == -kInfinity) return kLeastLogprob;
    const double value = static_cast<double>(logits[token]) - largest - log_sum;
    return static_cast<float>(std::max(value, static_cast<double>(kLeastLogprob)));
  };
  sampled.logprob = logprob(sampled.token);
  std::vector<TokenId> ids(logits.size());
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<TokenId>(i);
  const auto middle = ids.begin() + std::min<size_t>(count, ids.size());
  std::partial_sort(ids.begin(), middle, ids.end(), [&](TokenId a, TokenId b) {
    return logits[a] != logits[b] ? logits[a] > logits[b] : a < b;
  });
  for (auto it = ids.begin(); it != middle; ++it) {
    sampled.top_logprobs.push_back({*it, logprob(*it)});
  }
}

}  // namespace

absl::Status SamplingParams::Validate(int vocab_size) const {
  RETURN_IF_ERROR(CheckRange("temperature", temperature, 0, true, 100));
  RETURN_IF_ERROR(CheckRange("top_p", top_p, 0, false, 1));
  RETURN_IF_ERROR(CheckRange("top_k", top_k, -1, true, std::numeric_limits<int>::max()));
  RETURN_IF_ERROR(CheckRange("min_p", min_p, 0, true, 1));
  RETURN_IF_ERROR(CheckRange("repetition_penalty", repetition_penalty, 0, false, 100));
  RETURN_IF_ERROR(CheckRange("presence_penalty", presence_penalty, -2, true, 2));
  RETURN_IF_ERROR(CheckRange("frequency_penalty", frequency_penalty, -2, true, 2));
  RETURN_IF_ERROR(CheckRange("logprobs", logprobs, -1, true, kMaxLogprobs));
  RETURN_IF_ERROR(CheckRange("min_tokens", min_tokens, 0, true, std::numeric_limits<int>::max()));
  for (const TokenId token : forbidden_before_min_tokens) {
    RETURN_IF_ERROR(CheckRange("forbidden_before_min_tokens", token, 0, true, vocab_size - 1.0));
  }
  return absl::OkStatus();
}

SampledToken Sample(std::span<float> logits, const SamplingParams& params,
                    std::span<const TokenId> context, int prompt_length) {
  SampledToken sampled;
  if (logits.empty()) return sampled;
  std::vector<float> raw;
  if (params.logprobs >= 0) {
    raw.assign(logits.begin(), logits.end());
    MakeComparable(raw);
  }
  const size_t prompt = std::min<size_t>(std::max(prompt_length, 0), context.size());
  const std::span<const TokenId> output = context.subspan(prompt);
  PenaliseRepetition(logits, params.repetition_penalty, context);
  PenaliseOutput(logits, params, output);
  MakeComparable(logits);
  if (output.size() < static_cast<size_t>(std::max(params.min_tokens, 0))) {
    for (const TokenId token : params.forbidden_before_min_tokens) {
      if (InVocabulary(token, logits.size())) logits[token] = -kInfinity;
    }
  }
  sampled.token = Choose(logits, params, context.size());
  if (params.logprobs >= 0) FillLogprobs(raw, params.logprobs, sampled);
  return sampled;
}

}  // namespace tarn::engine

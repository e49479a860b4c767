#include "sim/planner/planner.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/status.h"
#include "sim/cluster/cluster.h"
#include "sim/cost/step_cost.h"

namespace tarn::sim {
namespace {

// Chunk of coupled nodes: vLLM's and SGLang's usual size.
constexpr int kCoupledChunk = 512;
// Steps of the search from the lower bound up, for each memory and kind.
constexpr int kMaxSteps = 24;

std::string Gib(double bytes) { return absl::StrFormat("%.0f GiB", bytes / (1 << 30)); }

struct Misses {
  double prefill = 0, decode = 0, tpot = 0;
};

// Why requests were not good. Who waits for a decode seat waits for decode nodes, unless prefill
// nodes have no time left: then prompts hold the seats while they queue.
Misses CountMisses(const RunResult& result, const Slo& slo) {
  Misses misses;
  const bool prefill_full = result.prefill.busy > 0.95;
  for (const Outcome& o : result.requests) {
    if (o.good(slo)) continue;
    if (o.ttft > slo.ttft || !o.done()) {
      const bool for_seat = !prefill_full && o.router_wait > o.ttft - o.router_wait;
      ++(for_seat ? misses.decode : misses.prefill);
    } else {
      ++misses.tpot;
    }
  }
  return misses;
}

class Planner {
 public:
  Planner(const Workload& workload, const PlanOptions& options)
      : workload_(workload), options_(options) {}

  absl::Status Search() {
    for (const KvMemory& memory : options_.memories) {
      RETURN_IF_ERROR(SearchSplit(memory));
      RETURN_IF_ERROR(SearchCoupled(memory));
    }
    return absl::OkStatus();
  }
  Plan Finish();

 private:
  struct Tried {
    size_t index;
    Misses misses;
  };
  ClusterConfig ConfigOf(const Shape& shape) const;
  absl::StatusOr<Tried> Try(const Shape& shape);
  absl::Status SearchSplit(const KvMemory& memory);
  absl::Status Trim(Shape shape);
  absl::Status SearchCoupled(const KvMemory& memory);
  std::string LimitOf(const RunResult& result, const PlannedShape& planned,
                      const Misses& misses) const;
  double PriceOf(const Shape& shape) const;
  double BestPrice() const;
  // Whether it was tried, or has no more of anything than one that did not do.
  bool IsDecided(const Shape& shape) const;
  Shape LowerBound(const KvMemory& memory) const;

  const Workload& workload_;
  const PlanOptions& options_;
  Plan plan_;
};

ClusterConfig Planner::ConfigOf(const Shape& shape) const {
  ClusterConfig config;
  config.model = options_.model;
  config.hardware = options_.hardware;
  config.prefill_nodes = shape.prefill_nodes;
  config.decode_nodes = shape.decode_nodes;
  config.coupled_nodes = shape.coupled_nodes;
  if (shape.coupled_nodes > 0) config.chunk_tokens = kCoupledChunk;
  config.slo = options_.slo;
  config.dram_bytes = shape.memory.dram_bytes;
  config.ssd_bytes = shape.memory.ssd_bytes;
  config.seed = options_.seed;
  return config;
}

double Planner::PriceOf(const Shape& shape) const {
  const double memory = shape.memory.dram_bytes / (1 << 30) * options_.dollars_per_dram_gib_hour +
                        shape.memory.ssd_bytes / std::exp2(40) * options_.dollars_per_ssd_tib_hour;
  return shape.nodes() * (options_.hardware.dollars_per_hour + memory);
}

double Planner::BestPrice() const {
  double best = HUGE_VAL;
  for (const PlannedShape& shape : plan_.shapes) {
    if (shape.meets) best = std::min(best, shape.dollars_per_hour);
  }
  return best;
}

bool Planner::IsDecided(const Shape& shape) const {
  return std::any_of(plan_.shapes.begin(), plan_.shapes.end(), [&shape](const auto& planned) {
    const Shape& tried = planned.shape;
    if (tried.memory.dram_bytes != shape.memory.dram_bytes ||
        tried.memory.ssd_bytes != shape.memory.ssd_bytes || tried.coupled_nodes > 0) {
      return false;
    }
    if (planned.meets) {
      return tried.prefill_nodes == shape.prefill_nodes && tried.decode_nodes == shape.decode_nodes;
    }
    return tried.prefill_nodes >= shape.prefill_nodes && tried.decode_nodes >= shape.decode_nodes;
  });
}

std::string Planner::LimitOf(const RunResult& result, const PlannedShape& planned,
                             const Misses& misses) const {
  const std::string seats = result.decode.pages > 0.95
                                ? "KV memory of decode nodes"
                                : absl::StrCat("decode seats (", result.seats, " a node)");
  const std::string prefill =
      absl::StrFormat("prefill compute (%.0f%% busy)", 100 * result.prefill.busy);
  const std::string decode =
      absl::StrFormat("decode steps (%.0f%% busy)", 100 * result.decode.busy);
  if (!planned.meets) {
    if (misses.tpot >= std::max(misses.prefill, misses.decode)) return "TPOT: " + decode;
    if (misses.decode > misses.prefill) return "TTFT: " + seats;
    return result.network_use > 0.8 ? "TTFT: network" : "TTFT: " + prefill;
  }
  const double decode_use = std::max(result.decode.pages, 0.0);
  const std::pair<double, std::string> uses[] = {
      {result.prefill.busy, prefill},
      {result.network_use, absl::StrFormat("network (%.0f%%)", 100 * result.network_use)},
      {decode_use, absl::StrFormat("KV memory (%.0f%% at its highest)", 100 * decode_use)}};
  return std::max_element(std::begin(uses), std::end(uses),
                          [](const auto& a, const auto& b) { return a.first < b.first; })
      ->second;
}

absl::StatusOr<Planner::Tried> Planner::Try(const Shape& shape) {
  if (options_.progress) options_.progress(plan_.shapes.size(), shape.ToText());
  ASSIGN_OR_RETURN(const RunResult result, Simulate(workload_, ConfigOf(shape)));
  PlannedShape planned{.shape = shape,
                       .summary = Summarize(result, options_.slo),
                       .prefill = result.prefill,
                       .decode = result.decode,
                       .network_use = result.network_use};
  planned.meets = planned.summary.good_share >= options_.good_share;
  planned.dollars_per_hour = PriceOf(shape);
  const double tokens = planned.summary.input_tokens + planned.summary.output_tokens;
  const double hours = absl::ToDoubleHours(result.duration);
  if (tokens > 0) {
    planned.dollars_per_million_tokens = planned.dollars_per_hour * hours / (tokens / 1e6);
  }
  const Misses misses = CountMisses(result, options_.slo);
  planned.limit = LimitOf(result, planned, misses);
  plan_.shapes.push_back(std::move(planned));
  return Tried{plan_.shapes.size() - 1, misses};
}

// No fewer nodes can do it: the work over the time in which it comes, were half of all prompts
// reused.
Shape Planner::LowerBound(const KvMemory& memory) const {
  const StepCost cost(options_.model, options_.hardware);
  const double seconds = std::max(1.0, absl::ToDoubleSeconds(workload_.duration()));
  StepWork chunk;
  chunk.AddChunk(0, 2048, false);
  const double tokens = workload_.mean_input_tokens() * workload_.requests.size();
  const double prefill = absl::ToDoubleSeconds(cost.Of(chunk)) * tokens / 2048 / 2 / seconds;
  const double context = workload_.mean_input_tokens() + workload_.mean_output_tokens() / 2;
  const int seats = cost.SeatsWithin(options_.slo.tpot * 0.9, context);
  StepWork step;
  step.AddDecode(seats, seats * context);
  const double answers = workload_.mean_output_tokens() * workload_.requests.size();
  const double decode = absl::ToDoubleSeconds(cost.Of(step)) * answers / seats / seconds;
  return {std::max(1, static_cast<int>(prefill)), std::max(1, static_cast<int>(decode)), 0, memory};
}

// From the lower bound, adds a node of the kind that misses most; then tries with one less of each.
absl::Status Planner::SearchSplit(const KvMemory& memory) {
  Shape shape = LowerBound(memory);
  for (int step = 0; step < kMaxSteps && shape.nodes() <= options_.max_nodes; ++step) {
    if (PriceOf(shape) >= BestPrice()) return absl::OkStatus();
    ASSIGN_OR_RETURN(const Tried tried, Try(shape));
    if (plan_.shapes[tried.index].meets) return Trim(shape);
    const Misses& misses = tried.misses;
    const int more = std::max(1, shape.nodes() / 8);
    (misses.prefill >= misses.decode + misses.tpot ? shape.prefill_nodes : shape.decode_nodes) +=
        more;
  }
  return absl::OkStatus();
}

absl::Status Planner::Trim(Shape shape) {
  for (bool better = true; better;) {
    better = false;
    for (int Shape::*kind : {&Shape::prefill_nodes, &Shape::decode_nodes}) {
      Shape less = shape;
      if (--(less.*kind) < 1 || IsDecided(less)) continue;
      ASSIGN_OR_RETURN(const Tried tried, Try(less));
      if (!plan_.shapes[tried.index].meets) continue;
      shape = less;
      better = true;
    }
  }
  return absl::OkStatus();
}

absl::Status Planner::SearchCoupled(const KvMemory& memory) {
  const Shape least = LowerBound(memory);
  // The best number lies between one that fails and one that does not.
  int low = std::max(1, least.nodes() - 1) - 1, high = options_.max_nodes + 1;
  for (int nodes = low + 1; high - low > 1;) {
    const Shape shape{0, 0, nodes, memory};
    if (PriceOf(shape) >= BestPrice()) {
      high = nodes;
    } else {
      ASSIGN_OR_RETURN(const Tried tried, Try(shape));
      (plan_.shapes[tried.index].meets ? high : low) = nodes;
    }
    nodes = high > options_.max_nodes ? std::min(2 * nodes, options_.max_nodes) : (low + high) / 2;
    if (low == options_.max_nodes) break;
  }
  return absl::OkStatus();
}

Plan Planner::Finish() {
  for (size_t i = 0; i < plan_.shapes.size(); ++i) {
    const PlannedShape& shape = plan_.shapes[i];
    if (!shape.meets) continue;
    if (!plan_.best.has_value() ||
        shape.dollars_per_hour < plan_.shapes[*plan_.best].dollars_per_hour) {
      plan_.best = i;
    }
  }
  if (plan_.best.has_value()) {
    const PlannedShape& best = plan_.shapes[*plan_.best];
    plan_.advice = absl::StrFormat(
        "Cheapest that meets the SLO: %s, %.2f $/h, %.4f $ per million tokens. First to give way: "
        "%s.",
        best.shape.ToText(), best.dollars_per_hour, best.dollars_per_million_tokens, best.limit);
    return std::move(plan_);
  }
  const auto nearest = std::max_element(
      plan_.shapes.begin(), plan_.shapes.end(),
      [](const auto& a, const auto& b) { return a.summary.good_share < b.summary.good_share; });
  plan_.advice = "No shape within the limit of nodes meets the SLO.";
  if (nearest != plan_.shapes.end()) {
    absl::StrAppendFormat(&plan_.advice, " Nearest: %s, %.1f%% of requests good; it lacks: %s.",
                          nearest->shape.ToText(), 100 * nearest->summary.good_share,
                          nearest->limit);
  }
  return std::move(plan_);
}

}  // namespace

std::string Shape::ToText() const {
  std::string text = coupled_nodes > 0 ? absl::StrCat(coupled_nodes, " coupled")
                                       : absl::StrCat(prefill_nodes, "P:", decode_nodes, "D");
  absl::StrAppend(&text, ", DRAM ", Gib(memory.dram_bytes));
  if (memory.ssd_bytes > 0) absl::StrAppend(&text, ", SSD ", Gib(memory.ssd_bytes));
  return text;
}

absl::StatusOr<Plan> MakePlan(const Workload& workload, const PlanOptions& options) {
  if (workload.requests.empty()) return absl::InvalidArgumentError("the workload has no requests");
  if (options.memories.empty()) return absl::InvalidArgumentError("no sizes of DRAM to try");
  Planner planner(workload, options);
  RETURN_IF_ERROR(planner.Search());
  return planner.Finish();
}

}  // namespace tarn::sim

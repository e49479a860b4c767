#include "tests/bench/policy/trace.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "common/base/status.h"
#include "common/runtime/random.h"
#include "sim/workload/workload.h"

namespace tarn {
namespace {

Trace Finish(std::string name, std::vector<TraceRequest> requests) {
  Trace trace{.name = std::move(name), .requests = std::move(requests)};
  std::stable_sort(trace.requests.begin(), trace.requests.end(),
                   [](const auto& a, const auto& b) { return a.arrival < b.arrival; });
  for (const TraceRequest& request : trace.requests) {
    trace.references += request.blocks.size();
    for (uint32_t block : request.blocks) trace.blocks = std::max(trace.blocks, block + 1);
  }
  return trace;
}

// Makes requests at chosen times, with numbers for blocks that nobody has had.
class Maker {
 public:
  explicit Maker(uint64_t seed) : random_(seed) {}

  Random& random() { return random_; }
  std::vector<TraceRequest> Take() { return std::move(requests_); }

  // Adds `count` new blocks.
  void Extend(std::vector<uint32_t>* chain, int64_t count) {
    for (int64_t i = 0; i < count; ++i) chain->push_back(next_++);
  }
  std::vector<uint32_t> Chain(int64_t count) {
    std::vector<uint32_t> chain;
    Extend(&chain, count);
    return chain;
  }
  void Ask(double seconds, std::vector<uint32_t> chain) {
    requests_.push_back({absl::UnixEpoch() + absl::Seconds(seconds), std::move(chain)});
  }
  double Exponential(double mean) { return -mean * std::log(1 - random_.UniformDouble()); }
  // About `median`, times or over e where `spread` is 1.
  double LogNormal(double median, double spread) {
    double sum = 0;
    for (int i = 0; i < 12; ++i) sum += random_.UniformDouble();
    return median * std::exp(spread * (sum - 6));
  }

  void Chats(double seconds, double a_second) {
    const std::vector<uint32_t> system = Chain(2);
    for (double start = 0; start < seconds; start += Exponential(1 / a_second)) {
      std::vector<uint32_t> chain = system;
      double now = start;
      do {
        Extend(&chain, random_.UniformInt(int64_t{1}, int64_t{20}));
        Ask(now, chain);
        now += LogNormal(60, 0.9);
      } while (now < seconds && random_.Chance(0.55));
    }
  }
  void Agents(double seconds, double a_second) {
    const std::vector<uint32_t> system = Chain(8);
    for (double start = 0; start < seconds; start += Exponential(1 / a_second)) {
      std::vector<uint32_t> chain = system;
      Extend(&chain, random_.UniformInt(int64_t{5}, int64_t{40}));
      double now = start;
      const int64_t steps = random_.UniformInt(int64_t{1}, int64_t{30});
      for (int64_t step = 0; step < steps && now < seconds; ++step) {
        Ask(now, chain);
        Extend(&chain, random_.UniformInt(int64_t{1}, int64_t{3}));
        now += LogNormal(8, 0.7);
      }
    }
  }
  void Documents(double seconds, double a_second, double shift_every) {
    const std::vector<uint32_t> system = Chain(3);
    std::vector<std::vector<uint32_t>> documents;
    for (int i = 0; i < 3000; ++i) {
      documents.push_back(system);
      Extend(&documents.back(), random_.UniformInt(int64_t{4}, int64_t{24}));
    }
    double next_shift = shift_every;
    for (double now = 0; now < seconds; now += Exponential(1 / a_second)) {
      if (now > next_shift) {
        next_shift += shift_every;
        for (size_t i = 0; i < documents.size() / 2; ++i) {
          std::swap(documents[i], documents[random_.UniformInt(documents.size())]);
        }
      }
      // Zipf with exponent 0.9, by inversion of the continuous law.
      const double n = static_cast<double>(documents.size());
      const double rank = std::pow(random_.UniformDouble() * (std::pow(n, 0.1) - 1) + 1, 10.0) - 1;
      std::vector<uint32_t> chain =
          documents[std::min(documents.size() - 1, static_cast<size_t>(rank))];
      Extend(&chain, random_.UniformInt(int64_t{1}, int64_t{2}));
      Ask(now, chain);
    }
  }
  void Loops(double seconds, int64_t prompts, double a_second) {
    std::vector<std::vector<uint32_t>> jobs;
    for (int64_t i = 0; i < prompts; ++i) jobs.push_back(Chain(12));
    size_t next = 0;
    for (double now = 0; now < seconds; now += 1 / a_second) {
      Ask(now, jobs[next++ % jobs.size()]);
    }
  }
  void Scan(double seconds, double a_second) {
    for (double now = 0; now < seconds; now += Exponential(1 / a_second)) {
      Ask(now, Chain(random_.UniformInt(int64_t{4}, int64_t{30})));
    }
  }
  void Uniform(double seconds, int64_t chains, double a_second) {
    std::vector<std::vector<uint32_t>> all;
    for (int64_t i = 0; i < chains; ++i) all.push_back(Chain(10));
    for (double now = 0; now < seconds; now += Exponential(1 / a_second)) {
      Ask(now, all[random_.UniformInt(all.size())]);
    }
  }

 private:
  Random random_;
  uint32_t next_ = 0;
  std::vector<TraceRequest> requests_;
};

}  // namespace

absl::StatusOr<Trace> ReadTrace(const std::string& path) {
  ASSIGN_OR_RETURN(const sim::Workload workload, sim::ReadWorkload(path));
  std::vector<TraceRequest> requests;
  for (const sim::TraceRequest& request : workload.requests) {
    requests.push_back(
        {absl::UnixEpoch() + request.at, {request.hash_ids.begin(), request.hash_ids.end()}});
  }
  return Finish("trace", std::move(requests));
}

Trace Chats(uint64_t seed) {
  Maker maker(seed);
  maker.Chats(3600, 2.5);
  return Finish("chats", maker.Take());
}

Trace Agents(uint64_t seed) {
  Maker maker(seed);
  maker.Agents(1800, 0.8);
  return Finish("agents", maker.Take());
}

Trace Documents(uint64_t seed) {
  Maker maker(seed);
  maker.Documents(3000, 4, 1e9);
  return Finish("documents", maker.Take());
}

Trace ShiftingDocuments(uint64_t seed) {
  Maker maker(seed);
  maker.Documents(3000, 4, 400);
  return Finish("shifting documents", maker.Take());
}

Trace LoopsAndScans(uint64_t seed) {
  Maker maker(seed);
  maker.Loops(3000, 400, 2);
  maker.Scan(3000, 2);
  return Finish("loops and scans", maker.Take());
}

Trace Uniform(uint64_t seed) {
  Maker maker(seed);
  maker.Uniform(3000, 2000, 5);
  return Finish("uniform", maker.Take());
}

Trace Mixture(uint64_t seed) {
  Maker maker(seed);
  maker.Chats(3000, 1);
  maker.Agents(3000, 0.2);
  maker.Documents(3000, 1.5, 1e9);
  maker.Scan(3000, 0.7);
  return Finish("mixture", maker.Take());
}

std::vector<Trace> MadeUpTraces(uint64_t seed) {
  return {Chats(seed),         Agents(seed),  Documents(seed), ShiftingDocuments(seed),
          LoopsAndScans(seed), Uniform(seed), Mixture(seed)};
}

}  // namespace tarn

// What the index costs, beside what the machine's memory allows.
//
// The floor is read in the same run, in turns with the subject: as many independent reads of random
// cache lines, by 32 prefetched at a time, in an array of the size of the index, in huge pages. A
// look-up reads one to two lines, so it cannot come closer to it than that; "floor_ratio" is block
// operations per such read. Prompts are chains of 32 blocks on one node, a quarter of them on two.
//
// --benchmark_counters_tabular=true makes a table of it.

#include <benchmark/benchmark.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <memory>
#include <string>

#include "common/runtime/random.h"
#include "kvstore/directory/block_index.h"

namespace tarn::kvstore {
namespace {

constexpr size_t kPrompt = 32;
constexpr int kNodes = 100;

// Of this thread's processor time: others on the machine then only show as fuller caches.
double Seconds() {
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}
double SecondsSince(double start) { return Seconds() - start; }

class Floor {
 public:
  explicit Floor(size_t bytes) : lines_(bytes / 64) {
    size_t rounded = (bytes + kHugePage - 1) / kHugePage * kHugePage;
    memory_ = static_cast<uint64_t*>(std::aligned_alloc(kHugePage, rounded));
    madvise(memory_, rounded, MADV_HUGEPAGE);
    for (size_t i = 0; i < lines_; ++i) memory_[i * 8] = i;
  }
  ~Floor() { std::free(memory_); }
  // Seconds for so many reads.
  double Read(size_t count) {
    double start = Seconds();
    uint64_t sum = 0;
    for (size_t i = 0; i < count / kPrompt; ++i) {
      const uint64_t* at[kPrompt];
      for (const uint64_t*& line : at) {
        state_ = state_ * 6364136223846793005 + 1442695040888963407;
        line = memory_ +
               8 * static_cast<size_t>((static_cast<unsigned __int128>(state_) * lines_) >> 64);
        __builtin_prefetch(line);
      }
      for (const uint64_t* line : at) sum += *line;
    }
    benchmark::DoNotOptimize(sum);
    return SecondsSince(start);
  }

 private:
  static constexpr size_t kHugePage = size_t{2} << 20;
  size_t lines_;
  uint64_t* memory_;
  uint64_t state_ = 1;
};

NodeId NodeOf(size_t number) { return NodeId("node-" + std::to_string(100 + number % kNodes)); }

// Keys are made again from (prompt, block, life), so that they need no memory of their own.
BlockKey KeyOf(uint64_t prompt, uint64_t block, uint64_t life) {
  uint64_t words[2] = {prompt << 16 | block, life};
  for (uint64_t& word : words) {
    word = (word ^ word >> 31) * 0x7FB5D329728EA185;
    word = (word ^ word >> 27) * 0x81DADEF4BC2DD44D;
    word ^= word >> 33;
  }
  words[1] ^= words[0] * 0x9E3779B97F4A7C15;
  BlockKey key;
  std::memcpy(key.bytes.data(), words, sizeof(words));
  return key;
}

class Fixture {
 public:
  Fixture(size_t blocks, size_t max_bytes)
      : index_({.max_bytes = max_bytes}), lives_(blocks / kPrompt) {
    for (size_t i = 0; i < kNodes; ++i) index_.Join({NodeOf(i), Incarnation(1), "h:1"});
    for (size_t prompt = 0; prompt < lives_.size(); ++prompt) Change(prompt, true);
  }
  void Keys(size_t prompt, std::vector<BlockKey>& keys) const {
    keys.clear();
    for (size_t i = 0; i < kPrompt; ++i) keys.push_back(KeyOf(prompt, i, lives_[prompt]));
  }
  // Removes a prompt's blocks and adds as many new ones: 64 operations, not counting the copies.
  void Renew(size_t prompt) {
    Change(prompt, false);
    ++lives_[prompt];
    Change(prompt, true);
  }
  BlockIndex& index() { return index_; }
  size_t prompts() const { return lives_.size(); }

 private:
  void Change(size_t prompt, bool added) {
    Keys(prompt, keys_);
    changes_.resize(kPrompt);
    for (size_t i = 0; i < kPrompt; ++i) {
      changes_[i].added = added;
      changes_[i].key = keys_[i];
      changes_[i].address = {0, (prompt * kPrompt + i) << 12, lives_[prompt]};
    }
    index_.Apply(NodeOf(prompt), changes_);
    if (prompt % 4 == 0) index_.Apply(NodeOf(prompt + 1), changes_);
  }
  BlockIndex index_;
  std::vector<uint32_t> lives_;
  std::vector<BlockKey> keys_;
  std::vector<InventoryChange> changes_;
};

// Kept from one benchmark to the next of the same size.
Fixture& Shared(size_t blocks) {
  static std::unique_ptr<Fixture> fixture;
  static size_t size = 0;
  if (size == blocks) return *fixture;
  fixture = nullptr;
  size = blocks;
  fixture = std::make_unique<Fixture>(blocks, size_t{4} << 30);
  return *fixture;
}

// Arguments: blocks, percent of operations that are updates.
void BM_Mixed(benchmark::State& state) {
  Fixture& fixture = Shared(static_cast<size_t>(state.range(0)));
  Floor floor(fixture.index().Stats().bytes);
  Random random(1);
  const double reads_per_renewal = 2 * (100.0 - static_cast<double>(state.range(1))) /
                                   std::max<double>(1, static_cast<double>(state.range(1)));
  constexpr size_t kTurn = 256;  // prompts
  std::vector<std::vector<BlockKey>> prompts(kTurn);
  double subject = 0, reads = 0, operations = 0, updates = 0, owed = 0;
  for (auto _ : state) {
    for (auto& keys : prompts) fixture.Keys(random.UniformInt(fixture.prompts()), keys);
    double start = Seconds();
    for (const auto& keys : prompts) benchmark::DoNotOptimize(fixture.index().Match(keys));
    operations += kTurn * kPrompt;
    if (state.range(1) > 0) {
      for (owed += kTurn / reads_per_renewal; owed >= 1; --owed) {
        size_t prompt = random.UniformInt(fixture.prompts());
        fixture.Renew(prompt);
        double changes = 2 * kPrompt * (prompt % 4 == 0 ? 2 : 1);
        operations += changes;
        updates += changes;
      }
    }
    double seconds = SecondsSince(start);
    state.SetIterationTime(seconds);
    subject += seconds;
    reads += floor.Read(kTurn * kPrompt);
  }
  double rate = operations / subject;
  double floor_rate = static_cast<double>(state.iterations()) * kTurn * kPrompt / reads;
  state.counters["Mops"] = rate / 1e6;
  state.counters["Mfloor"] = floor_rate / 1e6;
  state.counters["floor_ratio"] = rate / floor_rate;
  state.counters["updates"] = updates / operations;
  BlockIndexStats stats = fixture.index().Stats();
  state.counters["B/block"] = static_cast<double>(stats.bytes) / static_cast<double>(stats.blocks);
  state.counters["B/place"] = static_cast<double>(stats.bytes) / static_cast<double>(stats.places);
}

// Single look-ups, cold, each timed; the clock's own time is taken off.
void BM_LookupLatency(benchmark::State& state) {
  Fixture& fixture = Shared(static_cast<size_t>(state.range(0)));
  const auto prompt = static_cast<size_t>(state.range(1));
  Random random(2);
  std::vector<double> times, clock;
  std::vector<BlockKey> keys;
  for (auto _ : state) {
    fixture.Keys(random.UniformInt(fixture.prompts()), keys);
    std::span<const BlockKey> asked(keys.data(), prompt);
    double start = Seconds();
    benchmark::DoNotOptimize(fixture.index().Match(asked));
    times.push_back(SecondsSince(start));
    start = Seconds();
    clock.push_back(SecondsSince(start));
  }
  auto at = [](std::vector<double>& all, double share) {
    auto place = all.begin() + static_cast<int64_t>(share * static_cast<double>(all.size() - 1));
    std::nth_element(all.begin(), place, all.end());
    return *place;
  };
  double own = at(clock, 0.5);
  state.counters["p50_ns"] = (at(times, 0.5) - own) * 1e9;
  state.counters["p99_ns"] = (at(times, 0.99) - own) * 1e9;
  state.counters["p999_ns"] = (at(times, 0.999) - own) * 1e9;
}
void Mixed(benchmark::internal::Benchmark* bench, int64_t blocks) {
  bench->ArgsProduct({{blocks}, {0, 10, 50}})
      ->UseManualTime()
      ->Iterations(400)
      ->Unit(benchmark::kMicrosecond);
}
void Latency(benchmark::internal::Benchmark* bench, int64_t blocks) {
  bench->ArgsProduct({{blocks}, {1, 32}})->Iterations(100'000);
}
BENCHMARK(BM_Mixed)->Apply([](auto* bench) { Mixed(bench, 1'000'000); });
BENCHMARK(BM_LookupLatency)->Apply([](auto* bench) { Latency(bench, 1'000'000); });
BENCHMARK(BM_Mixed)->Apply([](auto* bench) { Mixed(bench, 10'000'000); });
BENCHMARK(BM_LookupLatency)->Apply([](auto* bench) { Latency(bench, 10'000'000); });

// An index that is as full as it gets: bytes per block, and renewals at that fill.
void BM_Full(benchmark::State& state) {
  const size_t max_bytes = size_t{256} << 20;
  Fixture fixture(max_bytes / 29, max_bytes);
  BlockIndexStats full = fixture.index().Stats();
  Random random(3);
  for (auto _ : state) fixture.Renew(random.UniformInt(fixture.prompts()));
  state.counters["Mops"] =
      benchmark::Counter(static_cast<double>(state.iterations()) * 2 * kPrompt * 1.25 / 1e6,
                         benchmark::Counter::kIsRate);
  state.counters["B/block"] = static_cast<double>(full.bytes) / static_cast<double>(full.blocks);
  state.counters["B/place"] = static_cast<double>(full.bytes) / static_cast<double>(full.places);
  state.counters["refused"] = static_cast<double>(full.refused);
}
BENCHMARK(BM_Full)->Iterations(20'000);

// A prompt of 128k tokens over 100 nodes that hold prefixes of it, each of another length, the
// beginning in HBM and DRAM. Arguments: blocks, and whether each node holds all of it.
void BM_LongMatch(benchmark::State& state) {
  BlockIndex index;
  const auto blocks = static_cast<size_t>(state.range(0));
  Random random(4);
  std::vector<BlockKey> keys;
  for (size_t i = 0; i < blocks; ++i) keys.push_back(KeyOf(1, i, 1));
  for (size_t node = 0; node < kNodes; ++node) {
    index.Join({NodeOf(node), Incarnation(1), "h:1"});
    size_t held = state.range(1) != 0 ? blocks : random.UniformInt(blocks) + 1;
    std::vector<InventoryChange> changes;
    for (size_t i = 0; i < held; ++i) {
      if (i < held / 2) changes.push_back({true, keys[i], Tier::kHbm, {0, i << 12, 1}});
      changes.push_back({true, keys[i], Tier::kDram, {1, i << 12, 1}});
    }
    index.Apply(NodeOf(node), changes);
  }
  // What else there is, and a pass over it before each match, so that the prompt is not cached.
  std::vector<char> other(size_t{32} << 20);
  for (auto _ : state) {
    state.PauseTiming();
    for (size_t i = 0; i < other.size(); i += 64) ++other[i];
    state.ResumeTiming();
    benchmark::DoNotOptimize(index.Match(keys));
  }
  state.counters["places"] = static_cast<double>(index.Stats().places);
}
BENCHMARK(BM_LongMatch)
    ->ArgsProduct({{2048, 8192}, {0, 1}})
    ->Iterations(200)
    ->Unit(benchmark::kMicrosecond);

// A node's life ends: what the loop waits for, and all of the sweep.
void BM_Leave(benchmark::State& state) {
  double worst = 0, sweep = 0;
  for (auto _ : state) {
    Fixture fixture(4'000'000, size_t{4} << 30);
    double start = Seconds();
    fixture.index().Leave(NodeOf(7), Incarnation(1));
    state.SetIterationTime(SecondsSince(start));
    start = Seconds();
    while (fixture.index().sweeping()) {
      double step = Seconds();
      fixture.index().Sweep(4096);
      worst = std::max(worst, SecondsSince(step));
    }
    sweep = SecondsSince(start);
  }
  state.counters["sweep_ms"] = sweep * 1e3;
  state.counters["worst_step_us"] = worst * 1e6;
}
BENCHMARK(BM_Leave)->UseManualTime()->Iterations(2)->Unit(benchmark::kMicrosecond);

// Filling an index from nothing: the mean and the longest call for one message of 64 blocks.
void BM_Fill(benchmark::State& state) {
  double worst = 0;
  for (auto _ : state) {
    BlockIndex index({.max_bytes = size_t{4} << 30});
    index.Join({NodeOf(0), Incarnation(1), "h:1"});
    std::vector<InventoryChange> changes(64);
    for (uint64_t i = 0; i < 4'000'000 / changes.size(); ++i) {
      for (uint64_t k = 0; k < changes.size(); ++k) changes[k].key = KeyOf(i, k, 1);
      double start = Seconds();
      index.Apply(NodeOf(0), changes);
      worst = std::max(worst, SecondsSince(start));
    }
  }
  state.SetItemsProcessed(state.iterations() * 4'000'000);
  state.counters["worst_us"] = worst * 1e6;
}
BENCHMARK(BM_Fill)->Iterations(2)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace tarn::kvstore

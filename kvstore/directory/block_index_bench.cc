// Look-ups of a router: each costs one hash probe a block, so about 100 ns a block once the table
// is larger than the caches.

#include <benchmark/benchmark.h>

#include <string>

#include "common/runtime/random.h"
#include "kvstore/directory/block_index.h"

namespace tarn::kvstore {
namespace {

BlockKey RandomKey(Random& random) {
  BlockKey key;
  random.Fill(std::as_writable_bytes(std::span(key.bytes)));
  return key;
}

// Prompts of 24 blocks in an index of `state.range(0)` blocks, each on one of four nodes or two.
void BM_Match(benchmark::State& state) {
  constexpr size_t kPromptBlocks = 24;
  Random random(1);
  BlockIndex index;
  for (int node = 0; node < 4; ++node) {
    index.Join({NodeId("node-" + std::to_string(node)), Incarnation(1), "h:1"});
  }
  std::vector<std::vector<BlockKey>> prompts(state.range(0) / kPromptBlocks);
  for (size_t i = 0; i < prompts.size(); ++i) {
    for (size_t block = 0; block < kPromptBlocks; ++block) {
      BlockKey key = RandomKey(random);
      prompts[i].push_back(key);
      index.Apply(NodeId("node-" + std::to_string(i % 4)), {true, key, Tier::kHbm, {0, 0, 1}});
      index.Apply(NodeId("node-" + std::to_string(i % 4)), {true, key, Tier::kDram, {1, 0, 1}});
      if (i % 2 == 0) {
        index.Apply(NodeId("node-" + std::to_string(i / 2 % 4)),
                    {true, key, Tier::kDram, {1, 0, 1}});
      }
    }
  }
  size_t next = 0;
  for (auto _ : state) {
    benchmark::DoNotOptimize(index.Match(prompts[next]));
    next = (next + 7919) % prompts.size();
  }
  state.SetItemsProcessed(state.iterations() * kPromptBlocks);
}
BENCHMARK(BM_Match)->Arg(10'000)->Arg(500'000);

}  // namespace
}  // namespace tarn::kvstore

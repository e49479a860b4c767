// Checksum of a payload against memcpy of it, per instruction set.
//
// Bound: the checksum reads each byte once, memcpy reads one and writes one, so cold the checksum
// need not be slower than memcpy; in cache XXH3 with AVX2 takes about 1 cycle for 16 to 32 bytes.

#include <benchmark/benchmark.h>

#include <cstring>
#include <vector>

#include "common/memory/payload_checksum.h"
#include "common/runtime/random.h"

namespace tarn {
namespace {

constexpr size_t kPool = 256 << 20;

// Blocks are taken in turn from a pool that no cache holds (cold) or always the same one (hot).
template <typename Work>
void Walk(benchmark::State& state, bool cold, Work work) {
  const size_t block = state.range(0);
  std::vector<unsigned char> pool(cold ? kPool : block);
  Random(1).Fill(std::as_writable_bytes(std::span(pool)));
  size_t offset = 0;
  for (auto _ : state) {
    work(pool.data() + offset, block);
    offset = offset + 2 * block <= pool.size() ? offset + block : 0;
  }
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * block));
}

void Memcpy(benchmark::State& state, bool cold) {
  std::vector<unsigned char> to(state.range(0));
  Walk(state, cold, [&](const unsigned char* from, size_t size) {
    std::memcpy(to.data(), from, size);
    benchmark::DoNotOptimize(to.data());
    benchmark::ClobberMemory();
  });
}

template <typename Function>
void Checksum(benchmark::State& state, Function checksum, bool cold) {
  Walk(state, cold, [&](const unsigned char* from, size_t size) {
    benchmark::DoNotOptimize(checksum(from, size));
  });
}

BENCHMARK_CAPTURE(Memcpy, cold, true)->Arg(1 << 20);
BENCHMARK_CAPTURE(Checksum, sse2_cold, internal::ChecksumSse2, true)->Arg(1 << 20);
BENCHMARK_CAPTURE(Checksum, avx2_cold, internal::ChecksumAvx2, true)->Arg(1 << 20);
BENCHMARK_CAPTURE(Checksum, avx512_cold, internal::ChecksumAvx512, true)->Arg(1 << 20);
BENCHMARK_CAPTURE(Memcpy, hot, false)->Arg(1 << 20);
BENCHMARK_CAPTURE(Checksum, sse2_hot, internal::ChecksumSse2, false)->Arg(1 << 20);
BENCHMARK_CAPTURE(Checksum, avx2_hot, internal::ChecksumAvx2, false)->Arg(1 << 20);
BENCHMARK_CAPTURE(Checksum, avx512_hot, internal::ChecksumAvx512, false)->Arg(1 << 20);

}  // namespace
}  // namespace tarn

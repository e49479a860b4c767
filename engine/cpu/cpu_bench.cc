// Prints the executor's speed as shares of what this machine can do, measured in the same run: GEMM
// and prefill against multiply-adds in registers, decode against reading memory. Own main, since
// the figures are ratios of one another.
//
//   cpu_bench [--isa=auto|avx2|avx512|avx512_bf16] [--threads=N] [--type=bf16|f32]

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <numeric>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/cpu/cpu_executor.h"
#include "engine/cpu/test_model.h"
#include "glog/logging.h"

namespace tarn::engine {
namespace {

// The shape of Qwen3-0.6B with fewer layers and tokens: 160 M parameters.
SyntheticSpec BenchSpec(DataType type) {
  SyntheticSpec spec = *SyntheticPreset("qwen3-0.6b");
  spec.config.layers = 8;
  spec.config.vocab_size = 32'000;
  spec.config.bos_token_id = -1;
  spec.config.eos_token_ids.clear();
  spec.type = type;
  return spec;
}

double Seconds(const std::function<void()>& body) {
  const auto start = std::chrono::steady_clock::now();
  body();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double BestSeconds(int times, const std::function<void()>& body) {
  double best = 1e30;
  for (int i = 0; i < times; ++i) best = std::min(best, Seconds(body));
  return best;
}

// Of all threads together.
double MeasurePeak(Isa isa, ThreadPool& pool) {
  std::vector<double> rates(static_cast<size_t>(pool.threads()));
  pool.Run(pool.threads(),
           [&](int task, int) { rates[static_cast<size_t>(task)] = PeakFlops(isa, 20'000); });
  return std::accumulate(rates.begin(), rates.end(), 0.0);
}

// Bytes a second of reading memory once, from all threads.
double MeasureBandwidth(ThreadPool& pool) {
  constexpr size_t kBytes = size_t{512} << 20;
  constexpr size_t kPiece = size_t{1} << 20;
  const BigBuffer buffer(kBytes);
  std::fill_n(buffer.data(), kBytes, std::byte{1});
  std::atomic<uint64_t> sink{0};
  const double seconds = BestSeconds(5, [&] {
    pool.Run(kBytes / kPiece, [&](int piece, int) {
      const auto* words = reinterpret_cast<const uint64_t*>(buffer.data() + piece * kPiece);
      uint64_t sum[8] = {};
      for (size_t i = 0; i < kPiece / 8; i += 8) {
        for (size_t j = 0; j < 8; ++j) sum[j] += words[i + j];
      }
      sink += sum[0] + sum[1] + sum[2] + sum[3] + sum[4] + sum[5] + sum[6] + sum[7];
    });
  });
  return kBytes / seconds;
}

struct Machine {
  double flops;
  double bandwidth;
};

void BenchGemm(const CpuModel& model, const Machine& machine) {
  constexpr size_t kStride = 1024 + 16;
  for (int m : {1, 4, 16, 64, 512}) {
    const std::vector<float> floats(static_cast<size_t>(m) * kStride, 0.5f);
    const std::vector<uint16_t> halves(static_cast<size_t>(m) * kStride, 0x3f00);
    std::vector<float> y(static_cast<size_t>(m) * (6144 + 16));
    const bool dot = model.dot() && model.head().type() == PackedType::kBf16;
    const void* x = dot ? static_cast<const void*>(halves.data()) : floats.data();
    double flop = 0;
    double bytes = 0;
    const double seconds = BestSeconds(m < 64 ? 5 : 2, [&] {
      flop = bytes = 0;
      for (const PackedLayer& layer : model.layers()) {
        layer.gate_up.Multiply(model.kernels(), model.pool(), dot, x, kStride, m, y.data(),
                               6144 + 16, false);
        flop += 2.0 * m * layer.gate_up.n() * layer.gate_up.k();
        bytes += static_cast<double>(layer.gate_up.bytes());
      }
    });
    std::printf("gemm m=%-4d %7.1f GFLOP/s, %3.0f%% of peak; %5.1f GB/s of weights, %3.0f%%\n", m,
                flop / seconds * 1e-9, 100 * flop / seconds / machine.flops, bytes / seconds * 1e-9,
                100 * bytes / seconds / machine.bandwidth);
  }
}

std::vector<PageIndex> PagesFrom(int first, int count) {
  std::vector<PageIndex> pages(static_cast<size_t>(count));
  std::iota(pages.begin(), pages.end(), first);
  return pages;
}

void BenchPrefill(TestExecutor& executor, const ModelConfig& config, const Machine& machine) {
  for (int length : {512, 2048}) {
    const std::vector<TokenId> tokens(static_cast<size_t>(length), 7);
    const std::vector<PageIndex> pages = PagesFrom(0, length / 32);
    const StepSequence sequence = {.tokens = tokens, .pages = pages};
    const double seconds = BestSeconds(2, [&] { CHECK(executor->Step({&sequence, 1}).ok()); });
    const double matrices = static_cast<double>(ParameterCount(config)) -
                            static_cast<double>(config.vocab_size) * config.hidden_size;
    // Scores and weighted values: 2 FLOP each for every earlier key, dimension and head.
    const double attention = 2.0 * length * length * config.q_rows() * config.layers;
    const double flop = 2 * matrices * length + attention;
    std::printf("prefill of %-4d %7.0f tokens/s, %3.0f%% of peak (attention is %.0f%% of FLOPs)\n",
                length, length / seconds, 100 * flop / seconds / machine.flops,
                100 * attention / flop);
  }
}

void BenchDecode(TestExecutor& executor, size_t weight_bytes, const Machine& machine) {
  constexpr int kContext = 1000;
  constexpr int kPages = 32;
  const std::vector<TokenId> prompt(kContext, 7);
  const std::vector<TokenId> next = {9};
  SamplingParams greedy;
  greedy.temperature = 0;
  std::vector<TokenId> context(kContext + 1, 7);
  for (int batch : {1, 8, 32}) {
    std::vector<std::vector<PageIndex>> pages;
    std::vector<StepSequence> sequences;
    for (int i = 0; i < batch; ++i) pages.push_back(PagesFrom(i * kPages, kPages));
    for (int i = 0; i < batch; ++i) {
      sequences.push_back(
          {.tokens = next,
           .position = kContext,
           .pages = pages[static_cast<size_t>(i)],
           .sample = SampleRequest{.params = &greedy, .context = context, .prompt_length = 1}});
      const StepSequence fill = {.tokens = prompt, .pages = pages[static_cast<size_t>(i)]};
      if (i == 0 || batch == 32) CHECK(executor->Step({&fill, 1}).ok());
    }
    const double seconds = BestSeconds(5, [&] { CHECK(executor->Step(sequences).ok()); });
    const double token_bytes = static_cast<double>(executor->layout().payload_bytes()) / 32;
    const double bytes = static_cast<double>(weight_bytes) + token_bytes * kContext * batch;
    const double floor = bytes / machine.bandwidth;
    std::printf(
        "decode batch %-3d %7.2f ms, %6.1f tokens/s, %.2f times (weights + KV) / bandwidth\n",
        batch, seconds * 1e3, batch / seconds, seconds / floor);
  }
}

void Main(const CpuOptions& options, DataType type) {
  const SyntheticSpec spec = BenchSpec(type);
  const std::string directory =
      (std::filesystem::temp_directory_path() / absl::StrCat("cpu_bench_", getpid())).string();
  CHECK_EQ(WriteModel(directory, spec), absl::OkStatus());
  const auto loaded = CpuModel::Load(directory, options);
  CHECK(loaded.ok()) << loaded.status();
  const CpuModel& model = **loaded;
  std::printf("%s, weights %s\n", model.info().device.c_str(),
              type == DataType::kF32 ? "F32" : "BF16");
  const Machine machine = {.flops = MeasurePeak(model.isa(), model.pool()),
                           .bandwidth = MeasureBandwidth(model.pool())};
  std::printf("peak %.0f GFLOP/s, read %.1f GB/s\n", machine.flops * 1e-9,
              machine.bandwidth * 1e-9);
  BenchGemm(model, machine);
  TestExecutor executor(*loaded, 32 * 32);
  BenchPrefill(executor, spec.config, machine);
  BenchDecode(executor, model.packed_bytes(), machine);
  std::filesystem::remove_all(directory);
}

}  // namespace
}  // namespace tarn::engine

int main(int argc, char** argv) {
  tarn::engine::CpuOptions options;
  auto type = tarn::engine::DataType::kBf16;
  for (int i = 1; i < argc; ++i) {
    const std::string arg = argv[i];
    const std::string value = arg.substr(std::min(arg.find('=') + 1, arg.size()));
    if (arg.rfind("--isa=", 0) == 0) {
      const auto isa = tarn::engine::ParseIsaChoice(value);
      CHECK(isa.ok()) << isa.status();
      options.isa = *isa;
    } else if (arg.rfind("--threads=", 0) == 0) {
      options.threads = std::atoi(value.c_str());
    } else if (arg == "--type=f32") {
      type = tarn::engine::DataType::kF32;
    } else if (arg != "--type=bf16") {
      std::fprintf(stderr, "unknown argument %s\n", arg.c_str());
      return 2;
    }
  }
  tarn::engine::Main(options, type);
}

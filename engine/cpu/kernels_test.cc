#include "engine/cpu/kernels.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "engine/cpu/packed_matrix.h"
#include "gtest/gtest.h"

namespace tarn::engine {
namespace {

constexpr Isa kIsas[] = {Isa::kAvx2, Isa::kAvx512, Isa::kAvx512Bf16};

uint16_t RoundBf16(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

float Widen(uint16_t x) { return std::bit_cast<float>(static_cast<uint32_t>(x) << 16); }

// A random matrix as a tensor, and its values as the products see them.
struct Matrix {
  Matrix(int rows, int columns, DataType type, uint32_t seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    for (int i = 0; i < rows * columns; ++i) {
      float x = normal(random);
      if (type == DataType::kBf16) {
        halves.push_back(RoundBf16(x));
        x = Widen(halves.back());
      }
      values.push_back(x);
    }
    const void* data = halves.empty() ? static_cast<const void*>(values.data()) : halves.data();
    view = {.type = type,
            .shape = {rows, columns},
            .data = static_cast<const std::byte*>(data),
            .bytes = values.size() * static_cast<size_t>(DataTypeBytes(type))};
  }
  std::vector<float> values;
  std::vector<uint16_t> halves;
  TensorView view;
};

struct GemmCase {
  Isa isa;
  DataType weights;
  bool dot;
};

std::vector<GemmCase> GemmCases() {
  std::vector<GemmCase> cases;
  for (Isa isa : kIsas) {
    if (!KernelsFor(isa).ok()) continue;
    cases.push_back({isa, DataType::kF32, false});
    cases.push_back({isa, DataType::kBf16, false});
    if ((*KernelsFor(isa))->gemm_bf16_dot != nullptr) cases.push_back({isa, DataType::kBf16, true});
  }
  return cases;
}

class GemmTest : public testing::TestWithParam<GemmCase> {
 protected:
  // Rows of floats padded with zeros, as the products read them.
  struct Input {
    Input(const std::vector<float>& values, int rows, int columns)
        : stride(static_cast<size_t>(columns) + 17), floats(static_cast<size_t>(rows) * stride) {
      for (int r = 0; r < rows; ++r) {
        std::memcpy(floats.data() + r * stride, values.data() + r * columns,
                    static_cast<size_t>(columns) * sizeof(float));
      }
      for (float x : floats) halves.push_back(RoundBf16(x));
    }
    size_t stride;
    std::vector<float> floats;
    std::vector<uint16_t> halves;
  };

  std::vector<float> Multiply(const PackedMatrix& w, ThreadPool& pool, const Input& x, int first,
                              int m, float start, bool accumulate) const {
    std::vector<float> y(static_cast<size_t>(m * w.n()), start);
    const size_t offset = static_cast<size_t>(first) * x.stride;
    const void* rows = GetParam().dot ? static_cast<const void*>(x.halves.data() + offset)
                                      : x.floats.data() + offset;
    w.Multiply(**KernelsFor(GetParam().isa), pool, GetParam().dot, rows, x.stride, m, y.data(),
               static_cast<size_t>(w.n()), accumulate);
    return y;
  }
};

TEST_P(GemmTest, AgreesWithDoublePrecision) {
  ThreadPool pool(2);
  for (auto [m, n, k] : {std::array{1, 1, 1}, {3, 17, 5}, {13, 50, 100}, {40, 161, 1027}}) {
    const Matrix w(n, k, GetParam().weights, 1);
    const Matrix x(m, k, DataType::kF32, 2);
    const Input input(x.values, m, k);
    const PackedMatrix packed = PackedMatrix::Pack({&w.view, 1}, pool);
    for (bool accumulate : {false, true}) {
      const std::vector<float> y = Multiply(packed, pool, input, 0, m, 3.0f, accumulate);
      for (int r = 0; r < m; ++r) {
        for (int c = 0; c < n; ++c) {
          double sum = accumulate ? 3 : 0;
          double size = 1;
          for (int i = 0; i < k; ++i) {
            float value = x.values[static_cast<size_t>(r * k + i)];
            if (GetParam().dot) value = Widen(RoundBf16(value));
            const double term =
                static_cast<double>(value) * w.values[static_cast<size_t>(c * k + i)];
            sum += term;
            size += std::abs(term);
          }
          ASSERT_NEAR(y[static_cast<size_t>(r * packed.n() + c)], sum, 1e-5 * size)
              << m << " " << n << " " << k;
        }
      }
    }
  }
}

// Each row alone, in any group of rows, and on any number of threads.
TEST_P(GemmTest, RowsDoNotDependOnTheBatch) {
  constexpr int kRows = 40;
  constexpr int kDepth = 1100;  // more than one block of k
  const Matrix w(200, kDepth, GetParam().weights, 3);
  const Matrix x(kRows, kDepth, DataType::kF32, 4);
  const Input input(x.values, kRows, kDepth);
  ThreadPool one(1);
  ThreadPool two(2);
  const PackedMatrix packed = PackedMatrix::Pack({&w.view, 1}, two);
  const auto n = static_cast<size_t>(packed.n());
  const std::vector<float> all = Multiply(packed, one, input, 0, kRows, 0, false);
  for (int m = 1; m <= kRows; ++m) {
    for (int first : {0, (kRows - m) / 2, kRows - m}) {
      const std::vector<float> some = Multiply(packed, two, input, first, m, 0, false);
      ASSERT_EQ(std::memcmp(some.data(), all.data() + static_cast<size_t>(first) * n,
                            some.size() * sizeof(float)),
                0)
          << m << " rows from " << first;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Kernels, GemmTest, testing::ValuesIn(GemmCases()), [](const auto& info) {
  return std::string(IsaName(info.param.isa)) + "_" +
         std::string(DataTypeName(info.param.weights)) + (info.param.dot ? "_dot" : "");
});

TEST(KernelsTest, RoundingToBf16) {
  const std::vector<float> values = {
      0.0f,     -0.0f, 1.0f, 1.00390625f, 1.01171875f, 3.4e38f, INFINITY, 1e-40f, -2.718281f,
      65504.0f, 0.1f,  7.0f, 1e-3f,       -1.0f,       1e10f,   0.333f,   NAN,    5.5f};
  for (Isa isa : kIsas) {
    if (!KernelsFor(isa).ok()) continue;
    std::vector<uint16_t> rounded(values.size());
    const auto n = static_cast<int>(values.size());
    (*KernelsFor(isa))->to_bf16(values.data(), n, rounded.data());
    std::vector<float> widened(values.size());
    (*KernelsFor(isa))->from_bf16(rounded.data(), n, widened.data());
    for (size_t i = 0; i < values.size(); ++i) {
      if (std::isnan(values[i])) {
        EXPECT_TRUE(std::isnan(widened[i]));
      } else {
        EXPECT_EQ(rounded[i], RoundBf16(values[i])) << values[i];
        EXPECT_EQ(widened[i], Widen(rounded[i]));
      }
    }
  }
}

TEST(KernelsTest, SwigluOverTheWholeRange) {
  for (Isa isa : kIsas) {
    if (!KernelsFor(isa).ok()) continue;
    std::vector<float> gate;
    for (float x = -120; x < 120; x += 0.37f) gate.push_back(x);
    const std::vector<float> up(gate.size(), 2.0f);
    std::vector<float> y = gate;
    (*KernelsFor(isa))->swiglu(y.data(), up.data(), static_cast<int>(y.size()));
    for (size_t i = 0; i < y.size(); ++i) {
      const double expected = 2.0 * gate[i] / (1 + std::exp(-static_cast<double>(gate[i])));
      EXPECT_NEAR(y[i], expected, 1e-6 * std::abs(expected) + 1e-35) << gate[i];
    }
  }
}

TEST(ThreadPoolTest, EveryTaskOnceAndThreadsInRange) {
  for (int threads : {1, 2, 4}) {
    ThreadPool pool(threads);
    ASSERT_EQ(pool.threads(), threads);
    for (int tasks : {0, 1, 2, 3, 100}) {
      for (int repeat = 0; repeat < 50; ++repeat) {
        std::vector<int> runs(static_cast<size_t>(tasks));
        std::vector<int> last(static_cast<size_t>(tasks));
        pool.Run(tasks, [&](int task, int thread) {
          ++runs[static_cast<size_t>(task)];
          last[static_cast<size_t>(task)] = thread;
        });
        EXPECT_EQ(std::accumulate(runs.begin(), runs.end(), 0), tasks);
        for (int thread : last) EXPECT_LT(thread, threads);
        for (int count : runs) EXPECT_EQ(count, 1);
      }
    }
  }
}

}  // namespace
}  // namespace tarn::engine

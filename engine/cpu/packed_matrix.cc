#include "engine/cpu/packed_matrix.h"

#include <glog/logging.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstring>

namespace tarn::engine {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;

int RoundUp(int a, int b) { return (a + b - 1) / b * b; }

uint16_t Bf16At(const TensorView& view, size_t i) {
  uint16_t value;
  std::memcpy(&value, view.data + i * sizeof(value), sizeof(value));
  return value;
}

// Rows [row, row + 16) of `part` to one panel; rows past the end stay zero.
void PackPanel(const TensorView& part, int row, PackedType type, std::byte* panel) {
  const auto rows = static_cast<int>(part.shape[0]);
  const auto k = static_cast<size_t>(part.shape[1]);
  const int count = std::min(kPanel, rows - row);
  for (int r = 0; r < count; ++r) {
    const size_t from = static_cast<size_t>(row + r) * k;
    if (type == PackedType::kBf16) {
      auto* to = reinterpret_cast<uint16_t*>(panel);
      for (size_t i = 0; i < k; ++i) {
        to[(i / 2 * kPanel + static_cast<size_t>(r)) * 2 + i % 2] = Bf16At(part, from + i);
      }
    } else {
      auto* to = reinterpret_cast<float*>(panel);
      for (size_t i = 0; i < k; ++i) to[i * kPanel + static_cast<size_t>(r)] = part.At(from + i);
    }
  }
}

}  // namespace

BigBuffer::BigBuffer(size_t bytes) : bytes_(bytes) {
  const size_t size = (bytes + kHugePage - 1) / kHugePage * kHugePage;
  void* memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(memory != MAP_FAILED) << "no memory for " << bytes << " bytes of weights";
  // Advice only: without huge pages everything works, slower.
  madvise(memory, size, MADV_HUGEPAGE);
  data_ = std::unique_ptr<std::byte[], Unmap>(static_cast<std::byte*>(memory), Unmap{size});
}

void BigBuffer::Unmap::operator()(std::byte* data) const { munmap(data, bytes); }

PackedMatrix PackedMatrix::Pack(std::span<const TensorView> parts, ThreadPool& pool) {
  PackedMatrix matrix;
  const bool bf16 = std::all_of(parts.begin(), parts.end(), [](const TensorView& part) {
    return part.type == DataType::kBf16;
  });
  matrix.type_ = bf16 ? PackedType::kBf16 : PackedType::kF32;
  matrix.k_ = RoundUp(static_cast<int>(parts[0].shape[1]), 2);
  matrix.panel_bytes_ = static_cast<size_t>(matrix.k_) * kPanel * (bf16 ? 2 : 4);
  struct Panel {
    const TensorView* part;
    int row;
  };
  std::vector<Panel> panels;
  for (const TensorView& part : parts) {
    for (int row = 0; row < part.shape[0]; row += kPanel) panels.push_back({&part, row});
  }
  matrix.n_ = static_cast<int>(panels.size()) * kPanel;
  matrix.data_ = BigBuffer(panels.size() * matrix.panel_bytes_);
  pool.Run(static_cast<int>(panels.size()), [&](int i, int) {
    PackPanel(*panels[i].part, panels[i].row, matrix.type_,
              matrix.data_.data() + i * matrix.panel_bytes_);
  });
  return matrix;
}

void PackedMatrix::Multiply(const Kernels& kernels, ThreadPool& pool, bool dot, const void* x,
                            size_t ldx, int m, float* y, size_t ldy, bool accumulate) const {
  const GemmArgs args = {.x = x,
                         .ldx = ldx,
                         .m = m,
                         .w = data_.data(),
                         .panel_bytes = panel_bytes_,
                         .k = k_,
                         .y = y,
                         .ldy = ldy,
                         .accumulate = accumulate};
  const auto gemm = type_ == PackedType::kF32 ? kernels.gemm_f32
                    : dot                     ? kernels.gemm_bf16_dot
                                              : kernels.gemm_bf16;
  // The widest register tile is 8 panels.
  constexpr int kPanelsPerTask = 8;
  const int panels = n_ / kPanel;
  pool.Run((panels + kPanelsPerTask - 1) / kPanelsPerTask, [&](int task, int) {
    const int begin = task * kPanelsPerTask;
    gemm(args, begin, std::min(begin + kPanelsPerTask, panels));
  });
}

}  // namespace tarn::engine

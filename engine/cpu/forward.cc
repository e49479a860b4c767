#include "engine/cpu/forward.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace tarn::engine {
namespace {

size_t RoundUp(size_t a, size_t b) { return (a + b - 1) / b * b; }

// Below this many cycles a loop runs on the caller alone.
constexpr size_t kWorthSharing = 20'000;
constexpr size_t kCyclesPerTask = 10'000;

float* Aligned(float* p) {
  return reinterpret_cast<float*>(RoundUp(reinterpret_cast<uintptr_t>(p), 64));
}

}  // namespace

void Forward::Rows::Resize(size_t rows, size_t width) {
  // One panel more than needed: a stride of a power of two would put all rows into one cache set.
  stride = RoundUp(width, kPanel) + kPanel;
  if (data.size() < rows * stride) data.resize(rows * stride);
}

Forward::Forward(const CpuModel& model, KvArena arena)
    : model_(model), config_(model.config()), arena_(arena) {
  k_column_ = RoundUp(static_cast<size_t>(config_.q_rows()), kPanel);
  v_column_ = k_column_ + RoundUp(static_cast<size_t>(config_.kv_rows()), kPanel);
  up_column_ = RoundUp(static_cast<size_t>(config_.intermediate_size), kPanel);
  scratch_stride_ = RoundUp(AttentionScratch(config_.head_dim), 16) + 16;
  scratch_.resize(scratch_stride_ * static_cast<size_t>(model.pool().threads()));
}

size_t Forward::logits_stride() const { return logits_.stride; }

void Forward::ForRows(size_t rows, size_t cost, const std::function<void(size_t)>& body) {
  const size_t per_task =
      rows * cost < kWorthSharing ? rows : std::max<size_t>(1, kCyclesPerTask / cost);
  const size_t tasks = rows == 0 ? 0 : (rows + per_task - 1) / per_task;
  model_.pool().Run(static_cast<int>(tasks), [&](int task, int) {
    const size_t begin = static_cast<size_t>(task) * per_task;
    for (size_t row = begin; row < std::min(begin + per_task, rows); ++row) body(row);
  });
}

void Forward::Multiply(const PackedMatrix& matrix, Rows& x, size_t rows, Rows& y, bool accumulate) {
  const bool dot = model_.dot() && matrix.type() == PackedType::kBf16;
  const void* input = x.data.data();
  if (dot) {
    rounded_.resize(std::max(rounded_.size(), rows * x.stride));
    ForRows(rows, static_cast<size_t>(matrix.k()) / 4, [&](size_t row) {
      model_.kernels().to_bf16(x.row(row), matrix.k(), rounded_.data() + row * x.stride);
    });
    input = rounded_.data();
  }
  matrix.Multiply(model_.kernels(), model_.pool(), dot, input, x.stride, static_cast<int>(rows),
                  y.data.data(), y.stride, accumulate);
}

void Forward::NormRows(const std::vector<float>& weight) {
  ForRows(count_, weight.size() / 4, [&](size_t row) {
    model_.kernels().rms_norm(hidden_.row(row), weight.data(),
                              static_cast<float>(config_.rms_norm_eps),
                              static_cast<int>(weight.size()), normed_.row(row));
  });
}

void Forward::Embed(std::span<const TokenRow> rows) {
  count_ = rows.size();
  const auto hidden = static_cast<size_t>(config_.hidden_size);
  hidden_.Resize(count_, hidden);
  normed_.Resize(count_, hidden);
  qkv_.Resize(count_, v_column_ + RoundUp(static_cast<size_t>(config_.kv_rows()), kPanel));
  attended_.Resize(count_, static_cast<size_t>(config_.q_rows()));
  gate_up_.Resize(count_, 2 * up_column_);
  const std::vector<double>& frequencies = model_.rope_frequencies();
  const size_t half = frequencies.size();
  cos_.resize(std::max(cos_.size(), count_ * half));
  sin_.resize(std::max(sin_.size(), count_ * half));
  ForRows(count_, hidden * 4 + half * 100, [&](size_t row) {
    model_.Embed(rows[row].token, hidden_.row(row));
    for (size_t i = 0; i < half; ++i) {
      const double angle = rows[row].position * frequencies[i];
      const double factor = config_.rope_scaling.attention_factor;
      cos_[row * half + i] = static_cast<float>(std::cos(angle) * factor);
      sin_[row * half + i] = static_cast<float>(std::sin(angle) * factor);
    }
  });
}

void Forward::ListPayloads(std::span<const StepSequence> batch) {
  payloads_.clear();
  payload_start_.clear();
  const BlockLayout& layout = model_.layout();
  for (const StepSequence& sequence : batch) {
    payload_start_.push_back(payloads_.size());
    for (PageIndex page : sequence.pages) {
      payloads_.push_back(arena_.base + static_cast<size_t>(page) * layout.page_bytes() +
                          layout.payload_offset());
    }
  }
}

void Forward::PlanTiles(std::span<const TokenRow> rows) {
  tiles_.clear();
  const int group = config_.heads / config_.kv_heads;
  const int heads = std::min(group, kMaxQueryRows);
  const int tokens = kMaxQueryRows / heads;
  const int count = static_cast<int>(rows.size());
  for (int first = 0; first < count;) {
    int end = first + 1;
    while (end < count && end - first < tokens && rows[end].sequence == rows[first].sequence) ++end;
    for (int kv_head = 0; kv_head < config_.kv_heads; ++kv_head) {
      for (int head = 0; head < group; head += heads) {
        tiles_.push_back(
            {first, end - first, kv_head * group + head, std::min(heads, group - head)});
      }
    }
    first = end;
  }
  // The last tiles of a prompt see the most keys: taken first, they do not keep one thread waiting.
  std::reverse(tiles_.begin(), tiles_.end());
}

void Forward::Rotate(float* head, size_t row) const {
  const auto half = static_cast<size_t>(config_.head_dim) / 2;
  const float* cos = cos_.data() + row * half;
  const float* sin = sin_.data() + row * half;
  for (size_t i = 0; i < half; ++i) {
    const float low = head[i];
    const float high = head[half + i];
    head[i] = low * cos[i] - high * sin[i];
    head[half + i] = high * cos[i] + low * sin[i];
  }
}

void Forward::StoreKv(int layer, const TokenRow& row, const float* k, const float* v) {
  const BlockLayout& layout = model_.layout();
  const auto dim = static_cast<size_t>(config_.head_dim);
  const size_t block = payload_start_[static_cast<size_t>(row.sequence)] +
                       static_cast<size_t>(row.position / layout.block_tokens);
  // Only this step's sequence writes the page, and the arena is the node's own memory.
  auto* payload = const_cast<std::byte*>(payloads_[block]);
  const size_t slot = static_cast<size_t>(row.position % layout.block_tokens) * dim *
                      static_cast<size_t>(KvTypeBytes(layout.type));
  for (int head = 0; head < config_.kv_heads; ++head) {
    for (int value = 0; value < 2; ++value) {
      const float* from = (value == 0 ? k : v) + static_cast<size_t>(head) * dim;
      std::byte* to = payload + layout.TileOffset(head, layer, value) + slot;
      if (layout.type == KvType::kF32) {
        std::memcpy(to, from, dim * sizeof(float));
      } else {
        model_.kernels().to_bf16(from, config_.head_dim, reinterpret_cast<uint16_t*>(to));
      }
    }
  }
}

void Forward::FinishQkv(int layer, const TokenRow& row, size_t index) {
  const PackedLayer& w = model_.layers()[static_cast<size_t>(layer)];
  float* qkv = qkv_.row(index);
  for (size_t i = 0; i < w.qkv_bias.size(); ++i) qkv[i] += w.qkv_bias[i];
  const auto finish = [&](float* head, const std::vector<float>& norm) {
    if (!norm.empty()) {
      model_.kernels().rms_norm(head, norm.data(), static_cast<float>(config_.rms_norm_eps),
                                config_.head_dim, head);
    }
    Rotate(head, index);
  };
  for (int head = 0; head < config_.heads; ++head) finish(qkv + head * config_.head_dim, w.q_norm);
  for (int head = 0; head < config_.kv_heads; ++head) {
    finish(qkv + k_column_ + head * config_.head_dim, w.k_norm);
  }
  StoreKv(layer, row, qkv + k_column_, qkv + v_column_);
}

void Forward::Attend(int layer, const QueryTile& tile, std::span<const TokenRow> rows, int thread) {
  const BlockLayout& layout = model_.layout();
  const auto first = static_cast<size_t>(tile.first_row);
  const TokenRow& row = rows[first];
  const int kv_head = tile.first_head / (config_.heads / config_.kv_heads);
  const auto column = static_cast<size_t>(tile.first_head) * static_cast<size_t>(config_.head_dim);
  model_.kernels().attention(
      {.q = qkv_.row(first) + column,
       .out = attended_.row(first) + column,
       .ldq = qkv_.stride,
       .ldo = attended_.stride,
       .tokens = tile.tokens,
       .position = row.position,
       .group = tile.heads,
       .head_dim = config_.head_dim,
       .scale = 1.0f / std::sqrt(static_cast<float>(config_.head_dim)),
       .type = layout.type,
       .block_tokens = layout.block_tokens,
       .payloads = payloads_.data() + payload_start_[static_cast<size_t>(row.sequence)],
       .k_offset = layout.TileOffset(kv_head, layer, 0),
       .v_offset = layout.TileOffset(kv_head, layer, 1),
       .scratch = Aligned(scratch_.data() + static_cast<size_t>(thread) * scratch_stride_)});
}

void Forward::AttentionBlock(int layer, std::span<const TokenRow> rows) {
  const PackedLayer& w = model_.layers()[static_cast<size_t>(layer)];
  NormRows(w.input_norm);
  Multiply(w.qkv, normed_, count_, qkv_, false);
  ForRows(count_, qkv_.stride * 2, [&](size_t row) { FinishQkv(layer, rows[row], row); });
  model_.pool().Run(static_cast<int>(tiles_.size()), [&](int tile, int thread) {
    Attend(layer, tiles_[static_cast<size_t>(tile)], rows, thread);
  });
  Multiply(w.o, attended_, count_, hidden_, true);
  if (w.o_bias.empty()) return;
  for (size_t row = 0; row < count_; ++row) {
    for (size_t i = 0; i < w.o_bias.size(); ++i) hidden_.row(row)[i] += w.o_bias[i];
  }
}

void Forward::MlpBlock(int layer) {
  const PackedLayer& w = model_.layers()[static_cast<size_t>(layer)];
  NormRows(w.post_norm);
  Multiply(w.gate_up, normed_, count_, gate_up_, false);
  ForRows(count_, up_column_ * 2, [&](size_t row) {
    float* gate = gate_up_.row(row);
    model_.kernels().swiglu(gate, gate + up_column_, config_.intermediate_size);
  });
  Multiply(w.down, gate_up_, count_, hidden_, true);
}

void Forward::Run(std::span<const StepSequence> batch, std::span<const TokenRow> rows) {
  ListPayloads(batch);
  PlanTiles(rows);
  Embed(rows);
  for (int layer = 0; layer < config_.layers; ++layer) {
    AttentionBlock(layer, rows);
    MlpBlock(layer);
  }
}

std::span<float> Forward::Logits(std::span<const int> chosen) {
  for (size_t i = 0; i < chosen.size(); ++i) {
    model_.kernels().rms_norm(hidden_.row(static_cast<size_t>(chosen[i])),
                              model_.final_norm().data(), static_cast<float>(config_.rms_norm_eps),
                              config_.hidden_size, normed_.row(i));
  }
  logits_.Resize(chosen.size(), static_cast<size_t>(model_.head().n()));
  Multiply(model_.head(), normed_, chosen.size(), logits_, false);
  return {logits_.data.data(), chosen.size() * logits_.stride};
}

}  // namespace tarn::engine

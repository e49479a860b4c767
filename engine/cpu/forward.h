#pragma once

// One pass of a batch of token rows through all layers. Private to the executor.
//
// Reads as the model does: norm, qkv, rope, attention, o, norm, gate and up, down; activations are
// floats, [rows][padded width]. Each step is a loop over independent rows, panels or query tiles.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "engine/cpu/cpu_model.h"
#include "engine/executor.h"

namespace tarn::engine {

// One new token: a row of every activation.
struct TokenRow {
  int sequence = 0;  // index in the batch
  int position = 0;
  TokenId token = 0;
};

// Tokens of one pass: enough for full-speed products, little enough for an L2 of 2 MiB.
inline constexpr int kMaxRows = 512;

class Forward {
 public:
  Forward(const CpuModel& model, KvArena arena);

  // Computes `rows` (at most kMaxRows; a sequence's rows are consecutive, in order of position, and
  // its earlier tokens have KV) and writes their KV.
  void Run(std::span<const StepSequence> batch, std::span<const TokenRow> rows);

  // Logits of the given rows of the last Run, at most kMaxRows; [chosen.size()][logits_stride()].
  std::span<float> Logits(std::span<const int> chosen);
  size_t logits_stride() const;

 private:
  // A row-major matrix of floats; rows are padded so that they do not share cache sets.
  struct Rows {
    std::vector<float> data;
    size_t stride = 0;
    float* row(size_t i) { return data.data() + i * stride; }
    void Resize(size_t rows, size_t width);
  };
  // Consecutive queries of one sequence and heads of one group: what attention does at once.
  struct QueryTile {
    int first_row;
    int tokens;
    int first_head;
    int heads;
  };

  void Embed(std::span<const TokenRow> rows);
  void PlanTiles(std::span<const TokenRow> rows);
  void ListPayloads(std::span<const StepSequence> batch);
  void AttentionBlock(int layer, std::span<const TokenRow> rows);
  void MlpBlock(int layer);
  void FinishQkv(int layer, const TokenRow& row, size_t index);
  void Attend(int layer, const QueryTile& tile, std::span<const TokenRow> rows, int thread);
  void Rotate(float* head, size_t row) const;
  void StoreKv(int layer, const TokenRow& row, const float* k, const float* v);
  void NormRows(const std::vector<float>& weight);
  void Multiply(const PackedMatrix& matrix, Rows& x, size_t rows, Rows& y, bool accumulate);
  // `cost`: cycles a row, roughly; little work is not worth waking threads.
  void ForRows(size_t rows, size_t cost, const std::function<void(size_t row)>& body);

  const CpuModel& model_;
  const ModelConfig& config_;
  KvArena arena_;
  size_t k_column_;  // of the first key head in a row of qkv
  size_t v_column_;
  size_t up_column_;  // of `up` in a row of gate_up

  size_t count_ = 0;  // rows of this pass
  Rows hidden_;       // the residual stream
  Rows normed_;
  Rows qkv_;
  Rows attended_;
  Rows gate_up_;
  Rows logits_;
  std::vector<uint16_t> rounded_;  // BF16 copy of a product's input
  std::vector<float> cos_;         // [rows][head_dim / 2]
  std::vector<float> sin_;
  std::vector<QueryTile> tiles_;
  std::vector<const std::byte*> payloads_;  // of all sequences' blocks
  std::vector<size_t> payload_start_;       // of each sequence in payloads_
  std::vector<float> scratch_;              // attention's, one part a thread
  size_t scratch_stride_ = 0;
};

}  // namespace tarn::engine

#pragma once

// How long one step of a model takes on one node: a roofline for its matrix products and one for
// its attention, which run one after the other. Pure.
//
//   time = max(products / reached FLOP/s, weights / reached bandwidth)
//          + max(attention / reached FLOP/s, KV / reached bandwidth)
//          + all-reduces among the node's GPUs + a fixed overhead
//
// Attention's part grows with the pairs of tokens that see each other, so a chunk late in a long
// prompt costs more than an early one.

#include <cstdint>

#include "absl/time/time.h"
#include "sim/cost/hardware.h"
#include "sim/cost/model_shape.h"

namespace tarn::sim {

// What one step computes, over all its sequences.
struct StepWork {
  int64_t prefill_tokens = 0;
  double prefill_pairs = 0;    // (new token, token that it sees)
  double prefill_context = 0;  // tokens in KV before the chunks
  int decode_tokens = 0;       // sequences that get one token
  double decode_context = 0;   // tokens in KV that they see, itself included
  int samples = 0;             // tokens that pass the output head

  // A chunk of `tokens` of a prompt of which `before` are in KV already.
  void AddChunk(int before, int tokens, bool last);
  void AddDecode(int sequences, double context);
};

class StepCost {
 public:
  StepCost(ModelShape model, HardwareProfile node);

  absl::Duration Of(const StepWork& work) const;

  // Tokens whose KV fits beside the weights; 0 if not even those do.
  double kv_tokens() const;
  // The most sequences of `context` tokens each that one step can serve within `limit`, of those
  // whose KV fits. At least 1.
  int SeatsWithin(absl::Duration limit, double context) const;

  const ModelShape& model() const { return model_; }
  const HardwareProfile& node() const { return node_; }

 private:
  const ModelShape model_;
  const HardwareProfile node_;
  // Of one node, derived once.
  double flops_per_s_, bytes_per_s_;
  double linear_flops_, head_flops_, prefill_pair_flops_, decode_pair_flops_;
  double fixed_bytes_, expert_bytes_, kv_bytes_;
  double sync_s_, sync_s_per_token_, overhead_s_;
};

}  // namespace tarn::sim

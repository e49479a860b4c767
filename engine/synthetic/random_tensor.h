#pragma once

// The tensors of a dense decoder, and their random values.
//
// Scales keep activations near 1 and greedy text alive: projections have standard deviation
// 1/sqrt(columns); queries and keys are larger, so that attention is sharp and the context matters;
// logits have a deviation of about 2.5. Plain values and functions; thread-safe, nothing blocks.

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "engine/model/model_config.h"
#include "engine/model/safetensors.h"

namespace tarn::engine {

struct RandomTensor {
  std::string name;
  std::vector<int64_t> shape;
  float mean = 0;
  float deviation = 0;
  int64_t quiet_from = INT64_MAX;  // elements from here on deviate by a hundredth of it

  int64_t elements() const;
};

// In the order of the layers. Names as Hugging Face has them. `used_vocab`: as in SyntheticSpec.
std::vector<RandomTensor> ListTensors(const ModelConfig& config, int used_vocab = 0);

// Elements `first`... of `tensor`, as many as fit into `out`, in `type`. Bits depend on the seed,
// the name and the index only.
void FillTensor(const RandomTensor& tensor, uint64_t seed, int64_t first, DataType type,
                std::span<std::byte> out);

}  // namespace tarn::engine

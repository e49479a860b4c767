#include "engine/synthetic/random_tensor.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace tarn::engine {
namespace {

constexpr float kLogitDeviation = 2.5f;
// Of a query and of a key: their product over sqrt(head_dim) then deviates by about 3.2.
constexpr float kAttentionGain = 1.8f;

// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", OOPSLA 2014).
// Its state is a counter, so that any element can be had alone.
uint64_t SplitMix(uint64_t key, uint64_t index) {
  uint64_t z = key + (index + 1) * 0x9e3779b97f4a7c15;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

// Nearly normal, mean 0 and deviation 1: the sum of four uniform numbers of 16 bits. Exact in
// integers up to the last multiplication, so equal on every machine.
float Normalish(uint64_t bits) {
  const int32_t sum = static_cast<int32_t>((bits & 0xffff) + ((bits >> 16) & 0xffff) +
                                           ((bits >> 32) & 0xffff) + (bits >> 48));
  constexpr float kScale = 1.0f / 37837.2266f;  // sqrt(4 * 65536^2 / 12)
  return static_cast<float>(sum - 2 * 65535) * kScale;
}

uint16_t ToBf16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// Round to nearest even. Weights are far from the ends of the range, but zero and subnormals occur.
uint16_t ToF16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint16_t sign = static_cast<uint16_t>((bits >> 16) & 0x8000);
  const float magnitude = std::fabs(value);
  if (magnitude < 0x1p-14f) {
    return sign | static_cast<uint16_t>(std::lrint(magnitude * 0x1p24f));
  }
  const uint32_t rebased = (bits & 0x7fffffff) - (112u << 23);
  return sign | static_cast<uint16_t>((rebased + 0xfff + ((rebased >> 13) & 1)) >> 13);
}

template <typename Element, typename Convert>
void Fill(const RandomTensor& tensor, uint64_t key, int64_t first, std::span<std::byte> out,
          Convert convert) {
  for (size_t i = 0; i * sizeof(Element) < out.size(); ++i) {
    const float normal = Normalish(SplitMix(key, first + i));
    const float deviation = first + static_cast<int64_t>(i) < tensor.quiet_from
                                ? tensor.deviation
                                : tensor.deviation * 0.01f;
    const Element element = convert(tensor.mean + deviation * normal);
    std::memcpy(out.data() + i * sizeof(Element), &element, sizeof(Element));
  }
}

class TensorList {
 public:
  TensorList(const ModelConfig& config, int used_vocab)
      : config_(config), used_vocab_(used_vocab) {}

  std::vector<RandomTensor> Build() {
    const float table = kLogitDeviation / std::sqrt(static_cast<float>(config_.hidden_size));
    const std::vector<int64_t> shape = {config_.vocab_size, config_.hidden_size};
    // An embedding that is not the head too may have the deviation of the other activations.
    tensors_.push_back(
        {"model.embed_tokens.weight", shape, 0, config_.tie_word_embeddings ? table : 1.0f});
    for (int layer = 0; layer < config_.layers; ++layer) {
      AddLayer(absl::StrCat("model.layers.", layer, "."));
    }
    AddNorm("model.norm.weight", config_.hidden_size, 1);
    if (!config_.tie_word_embeddings) tensors_.push_back({"lm_head.weight", shape, 0, table});
    RandomTensor& head = tensors_[config_.tie_word_embeddings ? 0 : tensors_.size() - 1];
    if (used_vocab_ > 0) head.quiet_from = int64_t{used_vocab_} * config_.hidden_size;
    return std::move(tensors_);
  }

 private:
  void AddLayer(const std::string& root) {
    const int hidden = config_.hidden_size;
    const bool qk_norm = config_.qk_norm();
    AddNorm(root + "input_layernorm.weight", hidden, 1);
    AddAttention(root + "self_attn.q_proj", config_.q_rows(), hidden, qk_norm ? 1 : kAttentionGain);
    AddAttention(root + "self_attn.k_proj", config_.kv_rows(), hidden,
                 qk_norm ? 1 : kAttentionGain);
    AddAttention(root + "self_attn.v_proj", config_.kv_rows(), hidden, 1);
    AddAttention(root + "self_attn.o_proj", hidden, config_.q_rows(), 1);
    if (qk_norm) {
      AddNorm(root + "self_attn.q_norm.weight", config_.head_dim, kAttentionGain);
      AddNorm(root + "self_attn.k_norm.weight", config_.head_dim, kAttentionGain);
    }
    AddNorm(root + "post_attention_layernorm.weight", hidden, 1);
    AddMatrix(root + "mlp.gate_proj.weight", config_.intermediate_size, hidden, 1);
    AddMatrix(root + "mlp.up_proj.weight", config_.intermediate_size, hidden, 1);
    AddMatrix(root + "mlp.down_proj.weight", hidden, config_.intermediate_size, 1);
  }

  void AddMatrix(const std::string& name, int rows, int columns, float gain) {
    tensors_.push_back({name, {rows, columns}, 0, gain / std::sqrt(static_cast<float>(columns))});
  }

  void AddAttention(const std::string& name, int rows, int columns, float gain) {
    AddMatrix(name + ".weight", rows, columns, gain);
    if (config_.attention_bias) tensors_.push_back({name + ".bias", {rows}, 0, 0.1f});
  }

  // Not all equal: a reader that mixes up two norms must not get away with it.
  void AddNorm(const std::string& name, int size, float mean) {
    tensors_.push_back({name, {size}, mean, 0.1f * mean});
  }

  const ModelConfig& config_;
  const int used_vocab_;
  std::vector<RandomTensor> tensors_;
};

}  // namespace

int64_t RandomTensor::elements() const {
  int64_t product = 1;
  for (const int64_t size : shape) product *= size;
  return product;
}

std::vector<RandomTensor> ListTensors(const ModelConfig& config, int used_vocab) {
  return TensorList(config, used_vocab).Build();
}

void FillTensor(const RandomTensor& tensor, uint64_t seed, int64_t first, DataType type,
                std::span<std::byte> out) {
  const uint64_t key = XXH3_64bits_withSeed(tensor.name.data(), tensor.name.size(), seed);
  switch (type) {
    case DataType::kF32:
      return Fill<float>(tensor, key, first, out, [](float value) { return value; });
    case DataType::kF16:
      return Fill<uint16_t>(tensor, key, first, out, ToF16);
    case DataType::kBf16:
      return Fill<uint16_t>(tensor, key, first, out, ToBf16);
  }
}

}  // namespace tarn::engine

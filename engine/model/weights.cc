#include "engine/model/weights.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/status.h"

namespace tarn::engine {
namespace {

class Binder {
 public:
  explicit Binder(const TensorFiles& files) : files_(files) {}

  // Keeps the first error; the caller asks for it once, at the end.
  void Bind(const std::string& name, std::vector<int64_t> shape, TensorView* view) {
    const TensorView* found = files_.Find(name);
    if (found == nullptr) {
      Fail(absl::StrCat("tensor ", name, " is missing, expected shape [",
                        absl::StrJoin(shape, ", "), "]"));
    } else if (found->shape != shape) {
      Fail(absl::StrCat("tensor ", name, " has shape [", absl::StrJoin(found->shape, ", "),
                        "], config.json asks for [", absl::StrJoin(shape, ", "), "]"));
    } else {
      *view = *found;
    }
  }
  const absl::Status& status() const { return status_; }

 private:
  void Fail(const std::string& what) {
    if (status_.ok()) status_ = absl::InvalidArgumentError(what);
  }

  const TensorFiles& files_;
  absl::Status status_;
};

LayerWeights BindLayer(const ModelConfig& config, int layer, Binder& binder) {
  LayerWeights w;
  const int64_t hidden = config.hidden_size;
  const int64_t q_rows = config.q_rows();
  const int64_t kv_rows = config.kv_rows();
  const int64_t inner = config.intermediate_size;
  const std::string root = absl::StrCat("model.layers.", layer, ".");
  const std::string attention = absl::StrCat(root, "self_attn.");
  binder.Bind(absl::StrCat(root, "input_layernorm.weight"), {hidden}, &w.input_norm);
  binder.Bind(absl::StrCat(attention, "q_proj.weight"), {q_rows, hidden}, &w.q);
  binder.Bind(absl::StrCat(attention, "k_proj.weight"), {kv_rows, hidden}, &w.k);
  binder.Bind(absl::StrCat(attention, "v_proj.weight"), {kv_rows, hidden}, &w.v);
  binder.Bind(absl::StrCat(attention, "o_proj.weight"), {hidden, q_rows}, &w.o);
  if (config.attention_bias) {
    binder.Bind(absl::StrCat(attention, "q_proj.bias"), {q_rows}, &w.q_bias);
    binder.Bind(absl::StrCat(attention, "k_proj.bias"), {kv_rows}, &w.k_bias);
    binder.Bind(absl::StrCat(attention, "v_proj.bias"), {kv_rows}, &w.v_bias);
    binder.Bind(absl::StrCat(attention, "o_proj.bias"), {hidden}, &w.o_bias);
  }
  if (config.qk_norm()) {
    binder.Bind(absl::StrCat(attention, "q_norm.weight"), {config.head_dim}, &w.q_norm);
    binder.Bind(absl::StrCat(attention, "k_norm.weight"), {config.head_dim}, &w.k_norm);
  }
  binder.Bind(absl::StrCat(root, "post_attention_layernorm.weight"), {hidden}, &w.post_norm);
  binder.Bind(absl::StrCat(root, "mlp.gate_proj.weight"), {inner, hidden}, &w.gate);
  binder.Bind(absl::StrCat(root, "mlp.up_proj.weight"), {inner, hidden}, &w.up);
  binder.Bind(absl::StrCat(root, "mlp.down_proj.weight"), {hidden, inner}, &w.down);
  return w;
}

}  // namespace

absl::StatusOr<ModelWeights> BindWeights(const ModelConfig& config, const TensorFiles& files) {
  Binder binder(files);
  ModelWeights weights;
  const std::vector<int64_t> table = {config.vocab_size, config.hidden_size};
  binder.Bind("model.embed_tokens.weight", table, &weights.embedding);
  for (int layer = 0; layer < config.layers; ++layer) {
    weights.layers.push_back(BindLayer(config, layer, binder));
  }
  binder.Bind("model.norm.weight", {config.hidden_size}, &weights.final_norm);
  if (config.tie_word_embeddings) {
    weights.head = weights.embedding;
  } else {
    binder.Bind("lm_head.weight", table, &weights.head);
  }
  RETURN_IF_ERROR(binder.status());
  return weights;
}

}  // namespace tarn::engine

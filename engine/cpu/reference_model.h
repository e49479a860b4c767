#pragma once

// A second opinion on the CPU executor: both architectures as plain loops in double precision, over
// the whole sequence at once, without KV, pages or packing. Written from the published definitions
// and sharing no arithmetic with the executor. Slow: for tests of tiny models.

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/base/block_key.h"
#include "engine/model/model_config.h"
#include "engine/model/safetensors.h"

namespace tarn::engine {

class ReferenceModel {
 public:
  static absl::StatusOr<ReferenceModel> Load(const std::string& model_dir);

  // Logits after each token: [tokens.size()][vocab_size].
  std::vector<std::vector<double>> Logits(const std::vector<TokenId>& tokens) const;

 private:
  using Vector = std::vector<double>;
  using Matrix = std::vector<Vector>;  // [token][feature]

  Vector Tensor(const std::string& name) const;
  bool HasTensor(const std::string& name) const { return files_->Find(name) != nullptr; }
  // Row t of the result: weight * x[t] (+ bias, if the checkpoint has one).
  Matrix Linear(const std::string& name, const Matrix& x) const;
  Matrix Normalise(const std::string& name, const Matrix& x) const;
  // Per head of head_dim: QK-norm where the model has it, then rotation.
  void PrepareHeads(const std::string& norm_name, Matrix& x) const;
  Vector Angles() const;
  Matrix Attention(const Matrix& q, const Matrix& k, const Matrix& v) const;

  ModelConfig config_;
  std::shared_ptr<const TensorFiles> files_;
};

// max |a - b| / max |b|.
double RelativeError(const std::vector<float>& a, const std::vector<double>& b);

}  // namespace tarn::engine

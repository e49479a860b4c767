#include "engine/cpu/reference_model.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"

namespace tarn::engine {
namespace {

constexpr double kPi = 3.14159265358979323846;

double RootMeanSquareInverse(const double* x, size_t n, double eps) {
  double sum = 0;
  for (size_t i = 0; i < n; ++i) sum += x[i] * x[i];
  return 1 / std::sqrt(sum / static_cast<double>(n) + eps);
}

double Silu(double x) { return x / (1 + std::exp(-x)); }

// Llama 3: by wavelength, as in Meta's code.
double StretchLlama3(double frequency, const RopeScaling& s) {
  const double wavelength = 2 * kPi / frequency;
  const double low = s.original_max_position / s.low_freq_factor;
  const double high = s.original_max_position / s.high_freq_factor;
  if (wavelength < high) return frequency;
  if (wavelength > low) return frequency / s.factor;
  const double smooth = (s.original_max_position / wavelength - s.low_freq_factor) /
                        (s.high_freq_factor - s.low_freq_factor);
  return (1 - smooth) * frequency / s.factor + smooth * frequency;
}

// YaRN: the share of extrapolation falls linearly between two dimensions.
double StretchYarn(double frequency, int i, const ModelConfig& c) {
  const RopeScaling& s = c.rope_scaling;
  const auto dimension = [&](double rotations) {
    return c.head_dim * std::log(s.original_max_position / (rotations * 2 * kPi)) /
           (2 * std::log(c.rope_theta));
  };
  double first = dimension(s.beta_fast);
  double last = dimension(s.beta_slow);
  if (s.truncate) {
    first = std::floor(first);
    last = std::ceil(last);
  }
  first = std::max(first, 0.0);
  last = std::min(last, static_cast<double>(c.head_dim - 1));
  if (first == last) last += 0.001;
  const double interpolated = std::min(1.0, std::max(0.0, (i - first) / (last - first)));
  return interpolated * frequency / s.factor + (1 - interpolated) * frequency;
}

}  // namespace

absl::StatusOr<ReferenceModel> ReferenceModel::Load(const std::string& model_dir) {
  ReferenceModel model;
  const std::string file = absl::StrCat(model_dir, "/config.json");
  ASSIGN_OR_RETURN(const std::string text, ReadTextFile(file));
  ASSIGN_OR_RETURN(model.config_, ModelConfig::Parse(text, file));
  ASSIGN_OR_RETURN(model.files_, TensorFiles::Open(model_dir));
  return model;
}

ReferenceModel::Vector ReferenceModel::Tensor(const std::string& name) const {
  const TensorView& view = *files_->Find(name);
  size_t count = 1;
  for (int64_t dim : view.shape) count *= static_cast<size_t>(dim);
  Vector values(count);
  for (size_t i = 0; i < count; ++i) values[i] = view.At(i);
  return values;
}

ReferenceModel::Matrix ReferenceModel::Linear(const std::string& name, const Matrix& x) const {
  const Vector weight = Tensor(absl::StrCat(name, ".weight"));
  const size_t in = x[0].size();
  const size_t out = weight.size() / in;
  const Vector bias = HasTensor(absl::StrCat(name, ".bias")) ? Tensor(absl::StrCat(name, ".bias"))
                                                             : Vector(out, 0.0);
  Matrix y(x.size(), bias);
  for (size_t t = 0; t < x.size(); ++t) {
    for (size_t o = 0; o < out; ++o) {
      for (size_t i = 0; i < in; ++i) y[t][o] += weight[o * in + i] * x[t][i];
    }
  }
  return y;
}

ReferenceModel::Matrix ReferenceModel::Normalise(const std::string& name, const Matrix& x) const {
  const Vector weight = Tensor(name);
  Matrix y = x;
  for (Vector& row : y) {
    const double factor = RootMeanSquareInverse(row.data(), row.size(), config_.rms_norm_eps);
    for (size_t i = 0; i < row.size(); ++i) row[i] *= factor * weight[i];
  }
  return y;
}

ReferenceModel::Vector ReferenceModel::Angles() const {
  Vector angles;
  for (int i = 0; i < config_.head_dim / 2; ++i) {
    const double plain = 1 / std::pow(config_.rope_theta, 2.0 * i / config_.head_dim);
    switch (config_.rope_scaling.kind) {
      case RopeScaling::Kind::kNone:
        angles.push_back(plain);
        break;
      case RopeScaling::Kind::kLinear:
        angles.push_back(plain / config_.rope_scaling.factor);
        break;
      case RopeScaling::Kind::kLlama3:
        angles.push_back(StretchLlama3(plain, config_.rope_scaling));
        break;
      case RopeScaling::Kind::kYarn:
        angles.push_back(StretchYarn(plain, i, config_));
        break;
    }
  }
  return angles;
}

void ReferenceModel::PrepareHeads(const std::string& norm_name, Matrix& x) const {
  const auto dim = static_cast<size_t>(config_.head_dim);
  const Vector angles = Angles();
  const Vector norm = HasTensor(norm_name) ? Tensor(norm_name) : Vector();
  const double magnitude = config_.rope_scaling.attention_factor;
  for (size_t t = 0; t < x.size(); ++t) {
    for (size_t start = 0; start < x[t].size(); start += dim) {
      double* head = x[t].data() + start;
      const double factor = RootMeanSquareInverse(head, dim, config_.rms_norm_eps);
      for (size_t i = 0; i < norm.size(); ++i) head[i] *= factor * norm[i];
      for (size_t i = 0; i < dim / 2; ++i) {
        const double a = head[i];
        const double b = head[i + dim / 2];
        const double angle = static_cast<double>(t) * angles[i];
        head[i] = magnitude * (a * std::cos(angle) - b * std::sin(angle));
        head[i + dim / 2] = magnitude * (b * std::cos(angle) + a * std::sin(angle));
      }
    }
  }
}

ReferenceModel::Matrix ReferenceModel::Attention(const Matrix& q, const Matrix& k,
                                                 const Matrix& v) const {
  const auto dim = static_cast<size_t>(config_.head_dim);
  const auto group = static_cast<size_t>(config_.heads / config_.kv_heads);
  Matrix out(q.size(), Vector(q[0].size(), 0.0));
  for (size_t t = 0; t < q.size(); ++t) {
    for (size_t head = 0; head < static_cast<size_t>(config_.heads); ++head) {
      const size_t kv = head / group * dim;
      Vector weight(t + 1, 0.0);
      for (size_t s = 0; s <= t; ++s) {
        for (size_t d = 0; d < dim; ++d) weight[s] += q[t][head * dim + d] * k[s][kv + d];
        weight[s] /= std::sqrt(static_cast<double>(dim));
      }
      const double top = *std::max_element(weight.begin(), weight.end());
      double sum = 0;
      for (double& w : weight) sum += w = std::exp(w - top);
      for (size_t s = 0; s <= t; ++s) {
        for (size_t d = 0; d < dim; ++d) out[t][head * dim + d] += weight[s] / sum * v[s][kv + d];
      }
    }
  }
  return out;
}

std::vector<std::vector<double>> ReferenceModel::Logits(const std::vector<TokenId>& tokens) const {
  const auto hidden = static_cast<size_t>(config_.hidden_size);
  const Vector embedding = Tensor("model.embed_tokens.weight");
  Matrix stream;
  for (TokenId token : tokens) {
    const auto row = embedding.begin() + static_cast<int64_t>(static_cast<size_t>(token) * hidden);
    stream.emplace_back(row, row + static_cast<int64_t>(hidden));
  }
  const auto add = [&stream](const Matrix& x) {
    for (size_t t = 0; t < x.size(); ++t) {
      for (size_t i = 0; i < x[t].size(); ++i) stream[t][i] += x[t][i];
    }
  };
  for (int layer = 0; layer < config_.layers; ++layer) {
    const std::string root = absl::StrCat("model.layers.", layer, ".");
    Matrix x = Normalise(root + "input_layernorm.weight", stream);
    Matrix q = Linear(root + "self_attn.q_proj", x);
    Matrix k = Linear(root + "self_attn.k_proj", x);
    PrepareHeads(root + "self_attn.q_norm.weight", q);
    PrepareHeads(root + "self_attn.k_norm.weight", k);
    const Matrix mixed = Attention(q, k, Linear(root + "self_attn.v_proj", x));
    add(Linear(root + "self_attn.o_proj", mixed));
    x = Normalise(root + "post_attention_layernorm.weight", stream);
    Matrix gate = Linear(root + "mlp.gate_proj", x);
    const Matrix up = Linear(root + "mlp.up_proj", x);
    for (size_t t = 0; t < gate.size(); ++t) {
      for (size_t i = 0; i < gate[t].size(); ++i) gate[t][i] = Silu(gate[t][i]) * up[t][i];
    }
    add(Linear(root + "mlp.down_proj", gate));
  }
  const Matrix last = Normalise("model.norm.weight", stream);
  return Linear(config_.tie_word_embeddings ? "model.embed_tokens" : "lm_head", last);
}

double RelativeError(const std::vector<float>& a, const std::vector<double>& b) {
  if (a.size() != b.size()) return HUGE_VAL;
  double difference = 0;
  double largest = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    if (!std::isfinite(a[i])) return HUGE_VAL;
    difference = std::max(difference, std::abs(a[i] - b[i]));
    largest = std::max(largest, std::abs(b[i]));
  }
  return difference / largest;
}

}  // namespace tarn::engine

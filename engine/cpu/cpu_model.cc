#include "engine/cpu/cpu_model.h"

#include <filesystem>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "engine/model/fingerprint.h"
#include "engine/model/rope.h"
#include "engine/model/weights.h"

namespace tarn::engine {
namespace {

std::vector<float> Floats(const TensorView& view) {
  if (view.empty()) return {};
  std::vector<float> values(static_cast<size_t>(view.shape[0]));
  for (size_t i = 0; i < values.size(); ++i) values[i] = view.At(i);
  return values;
}

size_t PaddedRows(const TensorView& part) {
  return (static_cast<size_t>(part.shape[0]) + kPanel - 1) / kPanel * kPanel;
}

// Each bias where PackedMatrix puts its part's rows.
std::vector<float> PaddedBias(std::span<const TensorView> parts) {
  std::vector<float> all;
  for (const TensorView& part : parts) {
    if (part.empty()) return {};
    std::vector<float> bias = Floats(part);
    bias.resize(PaddedRows(part));
    all.insert(all.end(), bias.begin(), bias.end());
  }
  return all;
}

PackedLayer PackLayer(const LayerWeights& w, ThreadPool& pool) {
  const TensorView qkv[] = {w.q, w.k, w.v};
  const TensorView qkv_bias[] = {w.q_bias, w.k_bias, w.v_bias};
  const TensorView gate_up[] = {w.gate, w.up};
  return {.input_norm = Floats(w.input_norm),
          .q_norm = Floats(w.q_norm),
          .k_norm = Floats(w.k_norm),
          .post_norm = Floats(w.post_norm),
          .qkv_bias = PaddedBias(qkv_bias),
          .o_bias = Floats(w.o_bias),
          .qkv = PackedMatrix::Pack(qkv, pool),
          .o = PackedMatrix::Pack({&w.o, 1}, pool),
          .gate_up = PackedMatrix::Pack(gate_up, pool),
          .down = PackedMatrix::Pack({&w.down, 1}, pool)};
}

std::map<std::string, uint64_t> HashAll(const TensorFiles& files, ThreadPool& pool) {
  std::vector<std::pair<const std::string*, const TensorView*>> list;
  for (const auto& [name, view] : files.tensors()) list.emplace_back(&name, &view);
  std::vector<uint64_t> hashes(list.size());
  pool.Run(static_cast<int>(list.size()),
           [&](int i, int) { hashes[i] = HashTensor(*list[i].first, *list[i].second); });
  std::map<std::string, uint64_t> by_name;
  for (size_t i = 0; i < list.size(); ++i) by_name[*list[i].first] = hashes[i];
  return by_name;
}

absl::StatusOr<Isa> Resolve(IsaChoice choice) {
  switch (choice) {
    case IsaChoice::kAuto:
      return BestIsa();
    case IsaChoice::kAvx2:
      return Isa::kAvx2;
    case IsaChoice::kAvx512:
      return Isa::kAvx512;
    case IsaChoice::kAvx512Bf16:
      return Isa::kAvx512Bf16;
  }
  return absl::InvalidArgumentError("isa: unknown choice");
}

}  // namespace

absl::StatusOr<IsaChoice> ParseIsaChoice(const std::string& name) {
  static const std::map<std::string, IsaChoice> kChoices = {
      {"auto", IsaChoice::kAuto},
      {"avx2", IsaChoice::kAvx2},
      {"avx512", IsaChoice::kAvx512},
      {"avx512_bf16", IsaChoice::kAvx512Bf16}};
  const auto it = kChoices.find(name);
  if (it != kChoices.end()) return it->second;
  return absl::InvalidArgumentError(
      absl::StrCat("isa: is \"", name, "\", expected auto, avx2, avx512 or avx512_bf16"));
}

absl::StatusOr<std::shared_ptr<const CpuModel>> CpuModel::Load(const std::string& model_dir,
                                                               const CpuOptions& options) {
  std::shared_ptr<CpuModel> model(new CpuModel());
  const std::string config_file = absl::StrCat(model_dir, "/config.json");
  ASSIGN_OR_RETURN(const std::string config_text, ReadTextFile(config_file));
  ASSIGN_OR_RETURN(model->config_, ModelConfig::Parse(config_text, config_file));
  ASSIGN_OR_RETURN(model->isa_, Resolve(options.isa));
  ASSIGN_OR_RETURN(model->kernels_, KernelsFor(model->isa_));
  ASSIGN_OR_RETURN(model->files_, TensorFiles::Open(model_dir));
  model->pool_ = std::make_unique<ThreadPool>(options.threads);
  if (absl::Status packed = model->Pack(config_text); !packed.ok()) {
    return Annotate(packed, model_dir);
  }
  RETURN_IF_ERROR(model->Describe(options, model_dir));
  return model;
}

absl::Status CpuModel::Pack(const std::string& config_text) {
  ASSIGN_OR_RETURN(const ModelWeights weights, BindWeights(config_, *files_));
  info_.fingerprint = CheckpointFingerprint(config_text, HashAll(*files_, *pool_));
  embedding_ = weights.embedding;
  for (const LayerWeights& layer : weights.layers) layers_.push_back(PackLayer(layer, *pool_));
  final_norm_ = Floats(weights.final_norm);
  head_ = PackedMatrix::Pack({&weights.head, 1}, *pool_);
  rope_frequencies_ = RopeFrequencies(config_);
  return absl::OkStatus();
}

absl::Status CpuModel::Describe(const CpuOptions& options, const std::string& model_dir) {
  layout_ = {.layers = config_.layers,
             .kv_heads = config_.kv_heads,
             .head_dim = config_.head_dim,
             .block_tokens = options.block_tokens,
             .type = embedding_.type == DataType::kF32 ? KvType::kF32 : KvType::kBf16};
  RETURN_IF_ERROR(layout_.Validate());
  // What the KV bytes depend on besides the checkpoint. Raise the version when a kernel changes
  // them.
  const std::string numerics = absl::StrCat("cpu 1 ", dot() ? "bf16 dot" : "f32 fma", " kv ",
                                            static_cast<int>(layout_.type));
  info_.fingerprint = CheckpointFingerprint(numerics, {{"checkpoint", info_.fingerprint}});
  const std::filesystem::path path = std::filesystem::path(model_dir).lexically_normal();
  const std::string last = (path.has_filename() ? path : path.parent_path()).filename().string();
  info_.name = options.name.empty() ? last : options.name;
  info_.vocab_size = config_.vocab_size;
  info_.max_context = config_.max_position;
  info_.device = absl::StrCat("cpu ", IsaName(isa_), ", ", pool_->threads(), " threads");
  for (const auto& [name, view] : files_->tensors()) {
    info_.parameter_bytes += static_cast<int64_t>(view.bytes);
  }
  return absl::OkStatus();
}

void CpuModel::Embed(TokenId token, float* out) const {
  const auto hidden = static_cast<size_t>(config_.hidden_size);
  for (size_t i = 0; i < hidden; ++i)
    out[i] = embedding_.At(static_cast<size_t>(token) * hidden + i);
}

size_t CpuModel::packed_bytes() const {
  size_t bytes = head_.bytes();
  for (const PackedLayer& layer : layers_) {
    bytes += layer.qkv.bytes() + layer.o.bytes() + layer.gate_up.bytes() + layer.down.bytes();
  }
  return bytes;
}

}  // namespace tarn::engine

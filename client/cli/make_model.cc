#include <cstdio>
#include <iostream>

#include "absl/strings/str_format.h"
#include "client/cli/commands.h"
#include "common/base/status.h"
#include "engine/synthetic/synthetic_model.h"
#include "engine/synthetic/tokenized_model.h"

namespace tarn::client {
namespace {

std::string Presets() {
  std::string names;
  for (const std::string& name : engine::SyntheticPresetNames()) {
    names += (names.empty() ? "" : ", ") + name;
  }
  return names;
}

class MakeModel : public Command {
 public:
  explicit MakeModel(CommandLine& flags) : flags_(flags) {
    flags.AddPositional("DIR", directory_, "Directory to write");
    flags.Require("DIR");
    flags.Add("--preset", preset_, "Shape: " + Presets());
    flags.AddChoice("--dtype", dtype_, "Type of the weights", {"bf16", "f16", "f32"});
    flags.Add("--seed", seed_, "Same seed, same weights");
    flags.Add("--hidden-size", config_.hidden_size, "Instead of the preset's", {1, 1 << 20});
    flags.Add("--layers", config_.layers, "Instead of the preset's", {1, 1024});
    flags.Add("--heads", config_.heads, "Instead of the preset's", {1, 1024});
    flags.Add("--kv-heads", config_.kv_heads, "Instead of the preset's", {1, 1024});
    flags.Add("--head-dim", config_.head_dim, "Instead of the preset's", {2, 1024});
    flags.Add("--intermediate-size", config_.intermediate_size, "Instead of the preset's",
              {1, 1 << 22});
    flags.Add("--vocab-size", config_.vocab_size, "Instead of the preset's", {1, 1 << 22});
    flags.Add("--max-position", config_.max_position, "Instead of the preset's", {1, 1 << 24});
    flags.AddBytes("--max-shard", shard_bytes_,
                   "Split the weights into files of at most this size");
    flags.Add("--overwrite", overwrite_, "Replace a model that is there");
  }

  int Run() override {
    const absl::Status status = Write();
    return status.ok() ? 0 : Fail(status);
  }

 private:
  absl::Status Write() {
    ASSIGN_OR_RETURN(engine::SyntheticSpec spec, engine::SyntheticPreset(preset_));
    ApplyShape(spec.config);
    if (dtype_ == "f16") spec.type = engine::DataType::kF16;
    if (dtype_ == "f32") spec.type = engine::DataType::kF32;
    spec.seed = seed_;
    spec.max_shard_bytes = static_cast<int64_t>(shard_bytes_);
    int shown = -1;
    engine::WriteModelOptions options{.overwrite = overwrite_};
    options.progress = [&shown](int64_t done, int64_t total) {
      const int percent = static_cast<int>(100 * done / std::max<int64_t>(total, 1));
      if (percent == shown) return;
      shown = percent;
      std::cerr << "\rwriting weights: " << percent << "%" << std::flush;
    };
    const absl::Status written = engine::WriteTokenizedModel(directory_, spec, options);
    if (shown >= 0) std::cerr << std::endl;
    RETURN_IF_ERROR(written);
    std::cout << absl::StreamFormat("%s: %.1f M parameters, random weights (seed %d)\n", directory_,
                                    engine::ParameterCount(spec.config) / 1e6, seed_);
    return absl::OkStatus();
  }

  void ApplyShape(engine::ModelConfig& config) const {
    const auto apply = [&](const char* flag, int from, int& to) {
      if (flags_.Given(flag)) to = from;
    };
    apply("--hidden-size", config_.hidden_size, config.hidden_size);
    apply("--layers", config_.layers, config.layers);
    apply("--heads", config_.heads, config.heads);
    apply("--kv-heads", config_.kv_heads, config.kv_heads);
    apply("--head-dim", config_.head_dim, config.head_dim);
    apply("--intermediate-size", config_.intermediate_size, config.intermediate_size);
    apply("--vocab-size", config_.vocab_size, config.vocab_size);
    apply("--max-position", config_.max_position, config.max_position);
  }

  const CommandLine& flags_;
  engine::ModelConfig config_;
  std::string directory_, preset_ = "demo", dtype_ = "bf16";
  uint64_t seed_ = 1, shard_bytes_ = 0;
  bool overwrite_ = false;
};

}  // namespace

std::unique_ptr<Command> MakeMakeModel(CommandLine& flags) {
  return std::make_unique<MakeModel>(flags);
}

}  // namespace tarn::client

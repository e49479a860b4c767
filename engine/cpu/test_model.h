#pragma once

// Tiny checkpoints on disk and an executor with its own pages, for tests of this folder.

#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "engine/cpu/cpu_executor.h"
#include "engine/synthetic/synthetic_model.h"
#include "glog/logging.h"

namespace tarn::engine {

// QK-norm, tied head, no scaling; sizes that no vector length divides.
inline ModelConfig TinyQwen() {
  ModelConfig config;
  config.architecture = Architecture::kQwen3;
  config.hidden_size = 72;
  config.layers = 3;
  config.heads = 6;
  config.kv_heads = 2;
  config.head_dim = 24;
  config.intermediate_size = 100;
  config.vocab_size = 301;
  config.max_position = 512;
  config.rms_norm_eps = 1e-6;
  config.rope_theta = 10000;
  config.tie_word_embeddings = true;
  return config;
}

// Separate head and Llama 3's rotary scaling; ordinary sizes.
inline ModelConfig TinyLlama() {
  ModelConfig config = TinyQwen();
  config.architecture = Architecture::kLlama;
  config.hidden_size = 128;
  config.layers = 2;
  config.heads = 4;
  config.kv_heads = 4;
  config.head_dim = 32;
  config.intermediate_size = 192;
  config.vocab_size = 400;
  config.rms_norm_eps = 1e-5;
  config.rope_theta = 500000;
  config.rope_scaling = {.kind = RopeScaling::Kind::kLlama3,
                         .factor = 8,
                         .original_max_position = 64,
                         .low_freq_factor = 1,
                         .high_freq_factor = 4};
  config.tie_word_embeddings = false;
  return config;
}

// A directory of its own for each call, below the test's temporary directory.
inline std::string WriteTestModel(const SyntheticSpec& spec) {
  static int count = 0;
  const char* root = std::getenv("TEST_TMPDIR");
  const std::string directory = absl::StrCat(root == nullptr ? "/tmp" : root, "/model_", count++);
  CHECK_EQ(WriteModel(directory, spec, {.overwrite = true}), absl::OkStatus());
  return directory;
}

// A model's executor with `pages` pages, which start out as the bytes of a NaN: whoever reads what
// nobody wrote shows.
class TestExecutor {
 public:
  TestExecutor(const std::string& model_dir, const CpuOptions& options, int pages = 64)
      : TestExecutor(LoadOrDie(model_dir, options), pages) {}

  TestExecutor(std::shared_ptr<const CpuModel> model, int pages) {
    const size_t bytes = model->layout().page_bytes() * static_cast<size_t>(pages);
    memory_.resize(bytes + 4096, std::byte{0xff});
    void* base = memory_.data();
    size_t space = memory_.size();
    CHECK(std::align(4096, bytes, base, space) != nullptr);
    executor_ = std::make_unique<CpuExecutor>(
        std::move(model), KvArena{.base = static_cast<std::byte*>(base), .page_count = pages});
  }

  CpuExecutor& operator*() { return *executor_; }
  CpuExecutor* operator->() { return executor_.get(); }

 private:
  static std::shared_ptr<const CpuModel> LoadOrDie(const std::string& model_dir,
                                                   const CpuOptions& options) {
    auto model = CpuModel::Load(model_dir, options);
    CHECK(model.ok()) << model.status();
    return *model;
  }

  std::vector<std::byte> memory_;
  std::unique_ptr<CpuExecutor> executor_;
};

}  // namespace tarn::engine

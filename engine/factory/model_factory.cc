#include "engine/factory/model_factory.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/base/status.h"
#include "engine/cpu/cpu_executor.h"
#include "engine/cpu/cpu_model.h"
#include "engine/fake/fake_executor.h"

namespace tarn::engine {
namespace {

class CpuOpened : public OpenedModel {
 public:
  explicit CpuOpened(std::shared_ptr<const CpuModel> model) : model_(std::move(model)) {}
  const ModelInfo& info() const override { return model_->info(); }
  const BlockLayout& layout() const override { return model_->layout(); }
  absl::StatusOr<std::unique_ptr<ModelExecutor>> MakeExecutor(KvArena arena) override {
    return std::make_unique<CpuExecutor>(model_, arena);
  }

 private:
  const std::shared_ptr<const CpuModel> model_;
};

class FakeOpened : public OpenedModel {
 public:
  FakeOpened(FakeOptions options, ModelInfo info)
      : options_(std::move(options)), info_(std::move(info)) {}
  const ModelInfo& info() const override { return info_; }
  const BlockLayout& layout() const override { return options_.layout; }
  absl::StatusOr<std::unique_ptr<ModelExecutor>> MakeExecutor(KvArena arena) override {
    return FakeExecutor::Create(options_, arena);
  }

 private:
  const FakeOptions options_;
  const ModelInfo info_;
};

// About a small model on a few cores, so that queues, batches and hits show in measurements.
FakeOptions FakeModel(const ModelOptions& options) {
  FakeOptions fake;
  fake.name = options.served_name.empty() ? "fake" : options.served_name;
  fake.layout = {.layers = 2,
                 .kv_heads = 2,
                 .head_dim = 16,
                 .block_tokens = options.block_tokens,
                 .type = KvType::kBf16};
  fake.max_context = 32768;
  fake.pace = {.per_step = absl::Milliseconds(2),
               .per_prefill_token = absl::Microseconds(20),
               .per_decode_sequence = absl::Microseconds(50),
               .per_context_token = absl::Nanoseconds(5)};
  fake.wait = [](absl::Duration time) { absl::SleepFor(time); };
  return fake;
}

absl::StatusOr<std::unique_ptr<OpenedModel>> OpenFake(const ModelOptions& options) {
  FakeOptions fake = FakeModel(options);
  RETURN_IF_ERROR(Annotate(fake.layout.Validate(), "--block-tokens"));
  // The description does not depend on the arena: ask an executor over a single page.
  std::vector<uint64_t> page(fake.layout.page_bytes() / sizeof(uint64_t));
  ASSIGN_OR_RETURN(const auto probe,
                   FakeExecutor::Create(fake, {reinterpret_cast<std::byte*>(page.data()), 1}));
  ModelInfo info = probe->model();
  return std::make_unique<FakeOpened>(std::move(fake), std::move(info));
}

}  // namespace

absl::StatusOr<std::unique_ptr<OpenedModel>> OpenModel(const ModelOptions& options) {
  if (options.model.empty()) {
    return absl::InvalidArgumentError("--model is empty: give a model directory, or \"fake\"");
  }
  if (options.model == "fake") return OpenFake(options);
  CpuOptions cpu{.name = options.served_name,
                 .block_tokens = options.block_tokens,
                 .threads = options.threads};
  ASSIGN_OR_RETURN(cpu.isa, ParseIsaChoice(options.isa));
  ASSIGN_OR_RETURN(auto model, CpuModel::Load(options.model, cpu));
  return std::make_unique<CpuOpened>(std::move(model));
}

absl::StatusOr<int> PagesIn(uint64_t bytes, const BlockLayout& layout, int min_pages) {
  const uint64_t pages = std::min<uint64_t>(bytes / layout.page_bytes(), INT32_MAX);
  if (pages < static_cast<uint64_t>(min_pages)) {
    return absl::InvalidArgumentError(absl::StrCat("--kv-memory is ", bytes, " bytes: room for ",
                                                   pages, " blocks of ", layout.page_bytes(),
                                                   " bytes; at least ", min_pages));
  }
  return static_cast<int>(pages);
}

}  // namespace tarn::engine

#pragma once

// The executor that runs a CpuModel on this machine's cores.
//
// Keeps no state between steps but scratch memory. Deterministic: the same sequence gives the same
// bits whatever batch, chunking, pages or number of threads (see kernels.h for how). A long step is
// cut into passes of at most kMaxRows tokens, which bounds the scratch.

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/cpu/cpu_model.h"
#include "engine/cpu/forward.h"
#include "engine/executor.h"

namespace tarn::engine {

class CpuExecutor : public ModelExecutor {
 public:
  // `arena` is of model->layout() and outlives the executor. One executor for a model at a time.
  CpuExecutor(std::shared_ptr<const CpuModel> model, KvArena arena);
  ~CpuExecutor() override;

  const ModelInfo& model() const override { return model_->info(); }
  const BlockLayout& layout() const override { return model_->layout(); }
  absl::StatusOr<std::vector<StepOutput>> Step(std::span<const StepSequence> batch) override;

  // As Step, but answers the logits after each sequence's last new token, and samples nothing.
  absl::StatusOr<std::vector<std::vector<float>>> Logits(std::span<const StepSequence> batch);

 private:
  absl::Status Validate(std::span<const StepSequence> batch) const;
  absl::Status ValidateSequence(const StepSequence& sequence) const;

  // Called for different sequences at a time; the logits are scratch.
  using LogitsSink = std::function<void(size_t sequence, std::span<float> logits)>;
  void RunPasses(std::span<const StepSequence> batch,
                 const std::function<bool(const StepSequence&)>& wanted, const LogitsSink& sink);

  std::shared_ptr<const CpuModel> model_;
  KvArena arena_;
  Forward forward_;
};

}  // namespace tarn::engine

#include "engine/cpu/cpu_executor.h"

#include <glog/logging.h>

#include <algorithm>
#include <functional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"

namespace tarn::engine {
namespace {

// Rows of logits at once: bounds their memory (a row of Qwen3 is 600 KB).
constexpr size_t kMaxLogitRows = 64;

std::vector<TokenRow> ListRows(std::span<const StepSequence> batch) {
  std::vector<TokenRow> rows;
  for (size_t s = 0; s < batch.size(); ++s) {
    for (size_t t = 0; t < batch[s].tokens.size(); ++t) {
      rows.push_back(
          {static_cast<int>(s), batch[s].position + static_cast<int>(t), batch[s].tokens[t]});
    }
  }
  return rows;
}

}  // namespace

CpuExecutor::CpuExecutor(std::shared_ptr<const CpuModel> model, KvArena arena)
    : model_(std::move(model)), arena_(arena), forward_(*model_, arena) {
  CHECK(arena_.base != nullptr || arena_.page_count == 0);
}

CpuExecutor::~CpuExecutor() = default;

absl::Status CpuExecutor::ValidateSequence(const StepSequence& sequence) const {
  const ModelInfo& info = model_->info();
  const auto error = [](auto... parts) {
    return absl::InvalidArgumentError(absl::StrCat(parts...));
  };
  if (sequence.tokens.empty()) return error("no new tokens");
  const int64_t end =
      static_cast<int64_t>(sequence.position) + static_cast<int64_t>(sequence.tokens.size());
  if (sequence.position < 0 || end > info.max_context) {
    return error("tokens at positions ", sequence.position, " to ", end - 1,
                 ", the context is 0 to ", info.max_context - 1);
  }
  const int64_t covered =
      static_cast<int64_t>(sequence.pages.size()) * model_->layout().block_tokens;
  if (covered < end) return error("pages cover ", covered, " tokens of ", end);
  for (TokenId token : sequence.tokens) {
    if (token < 0 || token >= info.vocab_size) {
      return error("token ", token, " is not in 0 to ", info.vocab_size - 1);
    }
  }
  for (PageIndex page : sequence.pages) {
    if (page < 0 || page >= arena_.page_count) {
      return error("page ", page, " is not in 0 to ", arena_.page_count - 1);
    }
  }
  if (!sequence.sample.has_value()) return absl::OkStatus();
  const SampleRequest& sample = *sequence.sample;
  if (sample.params == nullptr) return error("sample.params is null");
  if (static_cast<int64_t>(sample.context.size()) != end) {
    return error("sample.context has ", sample.context.size(), " tokens, expected ", end);
  }
  if (sample.prompt_length < 0 || sample.prompt_length > end) {
    return error("sample.prompt_length is ", sample.prompt_length, ", expected 0 to ", end);
  }
  return absl::OkStatus();
}

absl::Status CpuExecutor::Validate(std::span<const StepSequence> batch) const {
  for (size_t i = 0; i < batch.size(); ++i) {
    if (absl::Status status = ValidateSequence(batch[i]); !status.ok()) {
      return Annotate(status, absl::StrCat("sequence ", i));
    }
  }
  return absl::OkStatus();
}

void CpuExecutor::RunPasses(std::span<const StepSequence> batch,
                            const std::function<bool(const StepSequence&)>& wanted,
                            const LogitsSink& sink) {
  const std::vector<TokenRow> rows = ListRows(batch);
  for (size_t begin = 0; begin < rows.size(); begin += kMaxRows) {
    const size_t count = std::min<size_t>(kMaxRows, rows.size() - begin);
    forward_.Run(batch, {rows.data() + begin, count});
    std::vector<int> chosen;
    for (size_t i = 0; i < count; ++i) {
      const StepSequence& sequence = batch[static_cast<size_t>(rows[begin + i].sequence)];
      const int last = sequence.position + static_cast<int>(sequence.tokens.size()) - 1;
      if (rows[begin + i].position == last && wanted(sequence)) {
        chosen.push_back(static_cast<int>(i));
      }
    }
    for (size_t first = 0; first < chosen.size(); first += kMaxLogitRows) {
      const size_t some = std::min(kMaxLogitRows, chosen.size() - first);
      const std::span<float> logits = forward_.Logits({chosen.data() + first, some});
      model_->pool().Run(static_cast<int>(some), [&](int i, int) {
        const auto row = static_cast<size_t>(chosen[first + static_cast<size_t>(i)]);
        sink(static_cast<size_t>(rows[begin + row].sequence),
             logits.subspan(static_cast<size_t>(i) * forward_.logits_stride(),
                            static_cast<size_t>(model_->info().vocab_size)));
      });
    }
  }
}

absl::StatusOr<std::vector<StepOutput>> CpuExecutor::Step(std::span<const StepSequence> batch) {
  RETURN_IF_ERROR(Validate(batch));
  std::vector<StepOutput> outputs(batch.size());
  const auto wanted = [](const StepSequence& sequence) { return sequence.sample.has_value(); };
  RunPasses(batch, wanted, [&](size_t s, std::span<float> logits) {
    const SampleRequest& sample = *batch[s].sample;
    outputs[s].sampled = Sample(logits, *sample.params, sample.context, sample.prompt_length);
  });
  return outputs;
}

absl::StatusOr<std::vector<std::vector<float>>> CpuExecutor::Logits(
    std::span<const StepSequence> batch) {
  RETURN_IF_ERROR(Validate(batch));
  std::vector<std::vector<float>> outputs(batch.size());
  const auto wanted = [](const StepSequence&) { return true; };
  RunPasses(batch, wanted, [&](size_t s, std::span<float> logits) {
    outputs[s].assign(logits.begin(), logits.end());
  });
  return outputs;
}

}  // namespace tarn::engine

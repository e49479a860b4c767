#include <algorithm>
#include <fstream>
#include <iostream>

#include "absl/strings/str_format.h"
#include "client/cli/commands.h"
#include "client/lib/client.h"
#include "client/load/load_runner.h"
#include "client/load/workload.h"
#include "common/base/status.h"

namespace tarn::client {
namespace {

struct ModelShape {
  int vocab_size = 0;
  int max_context = 0;
};

absl::StatusOr<ModelShape> ShapeOf(Client& client, const std::string& name) {
  ASSIGN_OR_RETURN(const v1::ListModelsResponse models, client.ListModels());
  for (const v1::ModelDescriptor& model : models.models()) {
    if (name.empty() || model.name() == name) {
      return ModelShape{static_cast<int>(model.vocab_size()),
                        static_cast<int>(model.max_context())};
    }
  }
  return absl::NotFoundError(name.empty() ? "the router serves no model"
                                          : "the router does not serve " + name);
}

// What bench and replay share: where to, how it is judged, where the figures go.
class LoadFlags {
 public:
  explicit LoadFlags(CommandLine& flags) {
    AddServerFlag(flags, server);
    flags.Add("--model", model, "Model, where there are several");
    flags.Add("--max-concurrency", max_concurrency_, "Requests under way at once; 0: no limit",
              {0, 1 << 20});
    flags.Add("--goodput-ttft-ms", goals_.ttft_ms, "A good request's TTFT, at most; 0: any", {0});
    flags.Add("--goodput-tpot-ms", goals_.tpot_ms, "A good request's TPOT, at most; 0: any", {0});
    flags.Add("--goodput-e2e-ms", goals_.e2e_ms, "A good request's E2E, at most; 0: any", {0});
    flags.Add("--output-json", output_json_, "Write the figures to this file, too");
    flags.Add("--seed", seed, "Same seed, same requests");
  }

  absl::Status Run(Client& client, std::vector<LoadRequest> requests) const {
    for (LoadRequest& request : requests) request.request.mutable_options()->set_model(model);
    const LoadResult result =
        RunLoad(client, requests, {.max_concurrency = max_concurrency_, .progress = &ShowProgress});
    std::cerr << std::endl;
    const Summary summary = Summarize(result.records, result.duration, goals_);
    std::cout << SummaryTable(summary);
    if (!output_json_.empty()) {
      std::ofstream file(output_json_);
      file << SummaryJson(summary) << '\n';
      file.close();
      if (!file) return absl::UnavailableError(output_json_ + ": cannot be written");
    }
    if (summary.failed > 0) {
      return absl::UnknownError(absl::StrFormat("%d requests failed", summary.failed));
    }
    return absl::OkStatus();
  }

  std::string server = "127.0.0.1:9000", model;
  uint64_t seed = 0;

 private:
  static void ShowProgress(size_t ended, size_t failed, size_t all, absl::Duration elapsed) {
    std::cerr << absl::StreamFormat("\r%d of %d requests ended, %d failed, %.0f s", ended, all,
                                    failed, absl::ToDoubleSeconds(elapsed))
              << std::flush;
  }

  std::string output_json_;
  int max_concurrency_ = 0;
  Goals goals_;
};

class Bench : public Command {
 public:
  explicit Bench(CommandLine& flags) : load_(flags) {
    flags.Add("--num-prompts", workload_.requests, "Requests in all", {1, 1 << 24});
    flags.Add("--input-len", workload_.input_tokens, "Tokens of a prompt", {1, 1 << 24});
    flags.Add("--output-len", workload_.output_tokens, "Tokens of an answer", {1, 1 << 24});
    flags.Add("--prefix-len", workload_.shared_tokens, "Of the prompt, the same for all",
              {0, 1 << 24});
    flags.Add("--request-rate", workload_.request_rate,
              "Poisson arrivals a second; 0: closed loop of --max-concurrency", {0});
  }

  int Run() override {
    Client client(load_.server);
    const auto shape = ShapeOf(client, load_.model);
    if (!shape.ok()) return Fail(shape.status());
    workload_.vocab_size = shape->vocab_size;
    workload_.seed = load_.seed;
    const absl::Status status = load_.Run(client, MakeSyntheticLoad(workload_));
    return status.ok() ? 0 : Fail(status);
  }

 private:
  LoadFlags load_;
  SyntheticWorkload workload_;
};

class Replay : public Command {
 public:
  explicit Replay(CommandLine& flags) : load_(flags) {
    flags.AddPositional("TRACE", trace_, "Mooncake's JSONL; - is stdin");
    flags.Require("TRACE");
    flags.Add("--num-prompts", limit_, "Only the first so many requests; 0: all", {0, 1 << 24});
    flags.Add("--block-tokens", workload_.block_tokens,
              "Tokens for each of the trace's blocks of 512: scales all lengths", {2, 512});
    flags.Add("--speed", workload_.speed, "Trace seconds a second; 0: all at once", {0});
    flags.Add("--jitter", workload_.jitter, "Move each arrival by up to this (traces round)");
    flags.Add("--max-output-len", workload_.max_output_tokens, "Cut answers; 0: as the trace says",
              {0, 1 << 24});
  }

  int Run() override {
    const absl::Status status = Send();
    return status.ok() ? 0 : Fail(status);
  }

 private:
  absl::Status Send() {
    ASSIGN_OR_RETURN(const std::string text, ReadInput(trace_));
    const auto trace = sim::ParseTrace(text, limit_);
    if (!trace.ok()) return Annotate(trace.status(), trace_);
    Client client(load_.server);
    ASSIGN_OR_RETURN(const ModelShape shape, ShapeOf(client, load_.model));
    workload_.vocab_size = shape.vocab_size;
    workload_.max_context = shape.max_context;
    workload_.seed = load_.seed;
    return load_.Run(client, MakeReplayLoad(*trace, workload_));
  }

  LoadFlags load_;
  std::string trace_;
  uint64_t limit_ = 0;
  ReplayWorkload workload_;
};

}  // namespace

std::unique_ptr<Command> MakeBench(CommandLine& flags) { return std::make_unique<Bench>(flags); }
std::unique_ptr<Command> MakeReplay(CommandLine& flags) { return std::make_unique<Replay>(flags); }

}  // namespace tarn::client

#include <iostream>

#include "absl/strings/str_format.h"
#include "client/cli/commands.h"
#include "client/cli/shape.h"
#include "common/base/status.h"
#include "common/config/parse.h"
#include "sim/cost/hardware.h"
#include "sim/planner/planner.h"
#include "sim/workload/workload.h"

namespace tarn::client {
namespace {

// What the cluster is asked: a trace, or sessions.
class WorkloadFlags {
 public:
  explicit WorkloadFlags(CommandLine& flags) {
    flags.Add("--trace", trace_, "Mooncake's JSONL; without it, sessions are made up");
    flags.Add("--num-requests", limit_, "Only the first so many of the trace; 0: all", {0});
    flags.Add("--rate", rate_, "Arrivals so many times as fast", {1e-3, 1e3});
    flags.Add("--duration", sessions_.duration, "Sessions: time in which they begin");
    flags.Add("--sessions-per-second", sessions_.sessions_per_second, "Sessions: Poisson rate",
              {1e-6, 1e6});
    flags.Add("--system-prompts", sessions_.system_prompts, "Sessions: prompts that many share",
              {1, 1 << 20});
    flags.Add("--system-tokens", sessions_.system_tokens, "Sessions: length of these",
              {0, 1 << 20});
    flags.Add("--turns", sessions_.mean_turns, "Sessions: mean number of turns", {1, 1000});
    flags.Add("--question-tokens", sessions_.mean_question_tokens, "Sessions: mean", {1, 1e6});
    flags.Add("--answer-tokens", sessions_.mean_answer_tokens, "Sessions: mean", {1, 1e6});
    flags.Add("--think-time", sessions_.mean_think_time, "Sessions: mean, answer to question");
    flags.Add("--seed", sessions_.seed, "Same seed, same plan");
  }

  absl::StatusOr<sim::Workload> Read() const {
    sim::Workload workload;
    if (trace_.empty()) {
      workload = sim::MakeSessions(sessions_);
    } else {
      ASSIGN_OR_RETURN(workload, sim::ReadWorkload(trace_, limit_));
    }
    return rate_ == 1 ? workload : sim::ScaleRate(workload, rate_);
  }
  uint64_t seed() const { return sessions_.seed; }

 private:
  std::string trace_;
  uint64_t limit_ = 0;
  double rate_ = 1;
  sim::SessionOptions sessions_;
};

class PlanCommand : public Command {
 public:
  explicit PlanCommand(CommandLine& flags) : workload_(flags) {
    flags.Add("--model", model_, kModelShapeHelp);
    flags.Add("--hardware", hardware_, kHardwareHelp);
    flags.Add("--ttft", ttft_, "SLO: time to first token");
    flags.Add("--tpot", tpot_, "SLO: mean time between tokens of an answer");
    flags.Add("--good-share", options_.good_share, "Requests that must be within it", {0, 1});
    flags.Add("--max-nodes", options_.max_nodes, "Of a cluster", {1, 1024});
    flags.Add("--dram", dram_, "Bytes of DRAM for KV a node, e.g. 200GiB; several are all tried");
    flags.Add("--ssd", ssd_, "Bytes of SSD for KV a node; several are all tried");
    flags.Add("--node-price", node_price_, "$ an hour of a node; below 0: the profile's");
    flags.Add("--dram-price", options_.dollars_per_dram_gib_hour, "$ per GiB and hour", {0});
    flags.Add("--ssd-price", options_.dollars_per_ssd_tib_hour, "$ per TiB and hour", {0});
    flags.Add("--output-json", output_json_, "Write the figures to this file, too");
    flags.Add("--svg", svg_, "Write a plot to this file: good requests over price");
  }

  int Run() override {
    const absl::Status status = Make();
    return status.ok() ? 0 : Fail(status);
  }

 private:
  absl::Status Make() {
    ASSIGN_OR_RETURN(options_.model, ReadModelShape(model_));
    RETURN_IF_ERROR(SetHardware());
    RETURN_IF_ERROR(SetMemories());
    options_.slo = {ttft_, tpot_};
    options_.seed = workload_.seed();
    options_.progress = [](size_t done, const std::string& shape) {
      std::cerr << absl::StreamFormat("\r%d shapes simulated; now %-40s", done, shape)
                << std::flush;
    };
    ASSIGN_OR_RETURN(const sim::Workload workload, workload_.Read());
    PrintWorkload(workload);
    const auto plan = sim::MakePlan(workload, options_);
    std::cerr << '\n';
    if (!plan.ok()) return plan.status();
    std::cout << sim::PlanTable(*plan) << '\n' << plan->advice << '\n';
    if (!output_json_.empty()) RETURN_IF_ERROR(WriteFile(output_json_, sim::PlanJson(*plan)));
    if (!svg_.empty()) RETURN_IF_ERROR(WriteFile(svg_, sim::PlanSvg(*plan)));
    return absl::OkStatus();
  }

  absl::Status SetHardware() {
    ASSIGN_OR_RETURN(options_.hardware, ReadHardware(hardware_));
    if (node_price_ >= 0) options_.hardware.dollars_per_hour = node_price_;
    return absl::OkStatus();
  }

  // All pairs of the sizes given; else without, with DRAM, and with both, as the profile has them.
  absl::Status SetMemories() {
    const sim::HardwareProfile& node = options_.hardware;
    if (dram_.empty() && ssd_.empty()) {
      options_.memories = {{0, 0}, {node.dram_bytes, 0}};
      if (node.ssd_bytes > 0) options_.memories.push_back({node.dram_bytes, node.ssd_bytes});
      return absl::OkStatus();
    }
    for (const std::string& dram : dram_.empty() ? std::vector<std::string>{"0"} : dram_) {
      for (const std::string& ssd : ssd_.empty() ? std::vector<std::string>{"0"} : ssd_) {
        const auto dram_bytes = ParseByteSize(dram), ssd_bytes = ParseByteSize(ssd);
        if (!dram_bytes.ok()) return Annotate(dram_bytes.status(), "--dram");
        if (!ssd_bytes.ok()) return Annotate(ssd_bytes.status(), "--ssd");
        options_.memories.push_back(
            {static_cast<double>(*dram_bytes), static_cast<double>(*ssd_bytes)});
      }
    }
    return absl::OkStatus();
  }

  void PrintWorkload(const sim::Workload& workload) const {
    const double seconds = absl::ToDoubleSeconds(workload.duration());
    const double requests = static_cast<double>(workload.requests.size());
    std::cout << absl::StreamFormat(
        "%s: %d requests in %.0f s (%.2f/s), %.0f tokens in, %.0f out on average\n%s on nodes of "
        "%s; %.0f%% of requests within TTFT %s, TPOT %s\n\n",
        workload.name, workload.requests.size(), seconds, seconds > 0 ? requests / seconds : 0,
        workload.mean_input_tokens(), workload.mean_output_tokens(), options_.model.name,
        options_.hardware.name, 100 * options_.good_share, absl::FormatDuration(ttft_),
        absl::FormatDuration(tpot_));
  }

  WorkloadFlags workload_;
  std::string model_ = "Qwen3-8B", hardware_ = "h200", output_json_, svg_;
  std::vector<std::string> dram_, ssd_;
  absl::Duration ttft_ = absl::Seconds(5), tpot_ = absl::Milliseconds(50);
  double node_price_ = -1;
  sim::PlanOptions options_;
};

}  // namespace

std::unique_ptr<Command> MakePlan(CommandLine& flags) {
  return std::make_unique<PlanCommand>(flags);
}

}  // namespace tarn::client

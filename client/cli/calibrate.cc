#include <algorithm>
#include <chrono>
#include <iostream>
#include <thread>
#include <vector>

#include "absl/strings/str_format.h"
#include "client/cli/commands.h"
#include "client/cli/shape.h"
#include "client/lib/client.h"
#include "common/base/mean.h"
#include "common/base/status.h"
#include "sim/cost/calibration.h"

namespace tarn::client {
namespace {

// Over all nodes and all times that they were asked.
class Observations {
 public:
  void Add(const v1::NodeStatus& node, const sim::ModelShape& model) {
    const v1::NodeLoad& load = node.load();
    const double block_tokens = node.info().model().layout().block_tokens();
    const double block_bytes = block_tokens * model.kv_bytes_per_token();
    pull_.Add(load.pull_bytes_per_us());
    ssd_read_.Add(load.ssd_read_bytes_per_us());
    dram_.Add(load.dram_pages() * block_bytes);
    ssd_.Add(load.ssd_pages() * block_bytes);
    if (node.info().role() == v1::ROLE_PREFILL) prefill_.Add(load.prefill_us_per_token());
    if (node.info().role() != v1::ROLE_DECODE) return;
    hbm_.Add(load.hbm_pages() * block_bytes);
    // The step time is smoothed over the last steps: it belongs to the batch of now as long as that
    // changes little.
    if (load.running() == 0 || load.step_us() <= 0) return;
    step_.Add(load.step_us());
    batch_.Add(load.running());
    context_.Add(load.hbm_pages_reserved() * block_tokens);
  }

  sim::MeasuredRates Rates() const {
    return {.prefill_us_per_token = prefill_.Or(0),
            .decode_step_us = step_.Or(0),
            .decode_batch = batch_.Or(0),
            .decode_context = context_.Or(0),
            .pull_bytes_per_us = pull_.Or(0),
            .ssd_read_bytes_per_us = ssd_read_.Or(0),
            .hbm_kv_bytes = hbm_.Or(0),
            .dram_bytes = dram_.Or(0),
            .ssd_bytes = ssd_.Or(0)};
  }

 private:
  PositiveMean prefill_, step_, batch_, context_, pull_, ssd_read_, hbm_, dram_, ssd_;
};

std::string Measured(const char* what, double value, const char* unit) {
  if (value <= 0) return absl::StrFormat("  %-22s not measured: kept from --base\n", what);
  return absl::StrFormat("  %-22s %.4g %s\n", what, value, unit);
}

class Calibrate : public Command {
 public:
  explicit Calibrate(CommandLine& flags) {
    AddServerFlag(flags, server_);
    flags.Add("--model", model_, kModelShapeHelp);
    flags.Require("--model");
    flags.Add("--base", base_, "Where the rest comes from; " + std::string(kHardwareHelp));
    flags.Add("--for", duration_, "How long to watch; keep the cluster under load meanwhile");
    flags.Add("--output", output_, "The profile, JSON; without it, to stdout");
  }

  int Run() override {
    const absl::Status status = Watch();
    return status.ok() ? 0 : Fail(status);
  }

 private:
  absl::Status Watch() {
    ASSIGN_OR_RETURN(const sim::ModelShape model, ReadModelShape(model_));
    ASSIGN_OR_RETURN(const sim::HardwareProfile base, ReadHardware(base_));
    Client client(server_);
    Observations observations;
    const int rounds = std::max(1, static_cast<int>(absl::ToInt64Seconds(duration_)));
    for (int round = 1; round <= rounds; ++round) {
      ASSIGN_OR_RETURN(const v1::GetStatusResponse status, client.GetStatus());
      for (const v1::NodeStatus& node : status.nodes()) observations.Add(node, model);
      std::cerr << absl::StreamFormat("\r%d of %d looks", round, rounds) << std::flush;
      if (round < rounds) std::this_thread::sleep_for(std::chrono::seconds(1));
    }
    std::cerr << '\n';
    return Write(base, model, observations.Rates());
  }

  absl::Status Write(const sim::HardwareProfile& base, const sim::ModelShape& model,
                     const sim::MeasuredRates& rates) const {
    if (rates.prefill_us_per_token <= 0 && rates.decode_step_us <= 0) {
      return absl::FailedPreconditionError(
          "no node has measured anything yet: send requests (tarn bench) and try again");
    }
    sim::HardwareProfile profile = sim::Calibrate(base, model, rates);
    profile.name = "calibrated";
    std::cerr << Measured("prefill", rates.prefill_us_per_token, "us a token")
              << Measured("decode step", rates.decode_step_us, "us")
              << Measured("  of sequences", rates.decode_batch, "")
              << Measured("pulls", rates.pull_bytes_per_us, "bytes a us")
              << Measured("SSD reads", rates.ssd_read_bytes_per_us, "bytes a us");
    const std::string json = sim::ToJson(profile);
    if (!output_.empty()) return WriteFile(output_, json);
    std::cout << json << '\n';
    return absl::OkStatus();
  }

  std::string server_ = "127.0.0.1:9000", model_, base_ = "cpu", output_;
  absl::Duration duration_ = absl::Seconds(10);
};

}  // namespace

std::unique_ptr<Command> MakeCalibrate(CommandLine& flags) {
  return std::make_unique<Calibrate>(flags);
}

}  // namespace tarn::client

#include <iostream>

#include "absl/strings/str_format.h"
#include "client/cli/commands.h"
#include "client/lib/client.h"
#include "common/base/status.h"

namespace tarn::client {
namespace {

std::string Ms(double us) { return absl::StrFormat("%.2f", us / 1e3); }

std::string Slo(int64_t us) { return us == 0 ? "none" : Ms(static_cast<double>(us)) + " ms"; }

void PrintPrefill(const v1::ExplainResponse& answer) {
  std::cout << absl::StreamFormat("\n%-16s %-14s %6s %6s %6s %9s %9s %9s %9s %9s %9s %8s\n",
                                  "prefill node", "state", "hbm", "memory", "tiers", "ahead ms",
                                  "queue ms", "fetch ms", "compute", "ttft ms", "tokens", "pulled");
  for (const v1::ExplainedNode& node : answer.nodes()) {
    if (node.role() != v1::ROLE_PREFILL) continue;
    const double ttft = node.ahead_us() + node.queue_us() + node.fetch_us() + node.compute_us();
    std::cout << absl::StreamFormat("%-16s %-14s %6d %6d %6d %9s %9s %9s %9s %9s %9d %8d%s\n",
                                    node.node_id(), node.eligibility(), node.hbm_blocks(),
                                    node.memory_blocks(), node.blocks(), Ms(node.ahead_us()),
                                    Ms(node.queue_us()), Ms(node.fetch_us()), Ms(node.compute_us()),
                                    Ms(ttft), node.compute_tokens(), node.pull_blocks(),
                                    node.node_id() == answer.prefill_node() ? "  <- chosen" : "");
  }
}

void PrintDecode(const v1::ExplainResponse& answer) {
  std::cout << absl::StreamFormat("\n%-16s %-14s %6s %12s %12s\n", "decode node", "state", "memory",
                                  "hand-over ms", "step ms");
  for (const v1::ExplainedNode& node : answer.nodes()) {
    if (node.role() != v1::ROLE_DECODE) continue;
    std::cout << absl::StreamFormat("%-16s %-14s %6d %12s %12s%s\n", node.node_id(),
                                    node.eligibility(), node.memory_blocks(),
                                    Ms(node.handover_us()), Ms(node.step_us()),
                                    node.node_id() == answer.decode_node() ? "  <- chosen" : "");
  }
}

class Explain : public Command {
 public:
  explicit Explain(CommandLine& flags) : sampling_(flags) {
    AddServerFlag(flags, server_);
    flags.AddPositional("PROMPT", prompt_, "The prompt");
    flags.Add("--prompt-file", prompt_file_, "The prompt's file; - is stdin");
    flags.Add("--tenant", tenant_, "Whose blocks may be shared");
    flags.Add("--service-tier", service_tier_, "Class of the request");
  }

  int Run() override {
    const absl::Status status = Ask();
    return status.ok() ? 0 : Fail(status);
  }

 private:
  absl::Status Ask() {
    v1::GenerateRequest request;
    *request.mutable_options()->mutable_sampling() = sampling_.ToProto();
    if (!tenant_.empty()) request.mutable_options()->set_tenant(tenant_);
    if (!service_tier_.empty()) request.mutable_options()->set_service_tier(service_tier_);
    request.set_text(prompt_);
    if (!prompt_file_.empty()) {
      ASSIGN_OR_RETURN(*request.mutable_text(), ReadInput(prompt_file_));
    }
    Client client(server_);
    ASSIGN_OR_RETURN(const v1::ExplainResponse answer, client.Explain(request));
    std::cout << absl::StreamFormat(
        "%d tokens, blocks of %d; %d requests wait in the router; time to first token allowed: %s, "
        "between tokens: %s\n",
        answer.prompt_tokens(), answer.block_tokens(), answer.queued(), Slo(answer.ttft_slo_us()),
        Slo(answer.tpot_slo_us()));
    PrintPrefill(answer);
    PrintDecode(answer);
    if (!answer.held().empty()) std::cout << "\nheld: " << answer.held() << "\n";
    if (!answer.refused().empty()) {
      std::cout << "\nrefused (" << answer.reason() << "): " << answer.refused() << "\n";
    }
    return absl::OkStatus();
  }

  SamplingFlags sampling_;
  std::string server_ = "127.0.0.1:9000";
  std::string prompt_, prompt_file_, tenant_, service_tier_;
};

}  // namespace

std::unique_ptr<Command> MakeExplain(CommandLine& flags) {
  return std::make_unique<Explain>(flags);
}

}  // namespace tarn::client

#include "common/base/status.h"

#include <algorithm>
#include <iostream>

#include "absl/strings/str_format.h"
#include "client/cli/commands.h"
#include "client/lib/client.h"

namespace tarn::client {
namespace {

double Percent(double part, double whole) { return whole > 0 ? 100 * part / whole : 0; }

std::string RoleName(v1::Role role) {
  switch (role) {
    case v1::ROLE_PREFILL:
      return "prefill";
    case v1::ROLE_DECODE:
      return "decode";
    case v1::ROLE_STORE:
      return "store";
    default:
      return "?";
  }
}

// "37/256 (14%)": pages that hold something, of all.
std::string Fill(uint32_t pages, uint32_t free) {
  if (pages == 0) return "-";
  const uint32_t used = pages - std::min(pages, free);
  return absl::StrFormat("%d/%d (%.0f%%)", used, pages, Percent(used, pages));
}

void PrintNode(const v1::NodeStatus& node) {
  const v1::NodeLoad& load = node.load();
  std::string state = node.connected() ? "up" : "not connected";
  if (node.info().role() == v1::ROLE_STORE) state = "up";
  if (load.draining()) state = "draining";
  std::cout << absl::StreamFormat(
      "%-16s %-8s %-14s %9d %18s %18s %18s %8s %7d %7.1f%%\n", node.info().node_id(),
      RoleName(node.info().role()), state, node.indexed_blocks(),
      Fill(load.hbm_pages(), load.hbm_pages_free()),
      Fill(load.dram_pages(), load.dram_pages_free()),
      Fill(load.ssd_pages(), load.ssd_pages_free()),
      absl::StrFormat("%d/%d", load.running(), load.waiting()), load.leaked_pages(),
      Percent(load.hit_tokens(), load.prompt_tokens()));
}

// What there is to say of a node's network, below the table.
void PrintNetwork(const v1::NodeStatus& node) {
  for (const std::string& port : node.info().rdma_ports()) {
    std::cout << absl::StreamFormat("%-16s rdma     %s\n", node.info().node_id(), port);
  }
  for (const std::string& problem : node.load().rdma_problems()) {
    std::cout << absl::StreamFormat("%-16s PROBLEM  rdma: %s\n", node.info().node_id(), problem);
  }
}

class Status : public Command {
 public:
  explicit Status(CommandLine& flags) { AddServerFlag(flags, server_); }

  int Run() override {
    Client client(server_);
    const auto status = client.GetStatus();
    if (!status.ok()) return Fail(status.status());
    std::cout << absl::StreamFormat(
        "router %s, tarn %s, up %s, %s\n", status->router_id(), status->version(),
        absl::FormatDuration(absl::Seconds(status->uptime_us() / 1000000)),
        status->ready() ? "ready" : "not ready");
    std::cout << absl::StreamFormat(
        "requests: %d running, %d in all, %d failed; prompt tokens: %d, of them cached: %d "
        "(%.1f%%); generated: %d\n\n",
        status->requests_running(), status->requests_total(), status->requests_failed(),
        status->prompt_tokens_total(), status->cached_tokens_total(),
        Percent(status->cached_tokens_total(), status->prompt_tokens_total()),
        status->generation_tokens_total());
    std::cout << absl::StreamFormat("%-16s %-8s %-14s %9s %18s %18s %18s %8s %7s %8s\n", "node",
                                    "role", "state", "blocks", "hbm pages used", "dram pages used",
                                    "ssd pages used", "run/wait", "leaked", "hit");
    for (const v1::NodeStatus& node : status->nodes()) PrintNode(node);
    for (const v1::NodeStatus& node : status->nodes()) PrintNetwork(node);
    return 0;
  }

 private:
  std::string server_ = "127.0.0.1:9000";
};

}  // namespace

std::unique_ptr<Command> MakeStatus(CommandLine& flags) { return std::make_unique<Status>(flags); }

}  // namespace tarn::client

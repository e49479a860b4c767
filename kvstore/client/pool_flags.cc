#include "kvstore/client/pool_flags.h"

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/base/status.h"
#include "common/config/parse.h"

namespace tarn::kvstore {
namespace {

absl::StatusOr<std::vector<std::string>> Directories(const std::vector<std::string>& flags) {
  std::vector<std::string> directories;
  for (const std::string& flag : flags) {
    const std::vector<std::string> parts = absl::StrSplit(flag, ',', absl::SkipEmpty());
    for (const std::string& one : parts) {
      const auto address = ParseHostPort(one);
      if (!address.ok()) return Annotate(address.status(), "--directory");
      directories.push_back(one);
    }
  }
  return directories;
}

// "20%" as 0.2.
bool ParsePercent(std::string text, double* fraction) {
  if (text.empty() || text.back() != '%') return false;
  text.pop_back();
  double percent = 0;
  if (!absl::SimpleAtod(text, &percent) || !(percent >= 0 && percent <= 100)) return false;
  *fraction = percent / 100;
  return true;
}

}  // namespace

absl::StatusOr<std::pair<TenantId, PoolNodeOptions::TenantShare>> ParseTenantShare(
    const std::string& text) {
  // The name may hold anything, an "=" as well.
  const size_t equals = text.rfind('=');
  PoolNodeOptions::TenantShare share;
  bool good = equals != std::string::npos && equals > 0;
  if (good) {
    const std::vector<std::string> parts =
        absl::StrSplit(text.substr(equals + 1), absl::MaxSplits("..", 1));
    good = ParsePercent(parts[0], &share.guaranteed);
    if (parts.size() == 2) good = good && ParsePercent(parts[1], &share.limit);
    good = good && share.guaranteed <= share.limit;
  }
  if (!good) {
    return absl::InvalidArgumentError("--tenant-share is \"" + text +
                                      "\"; write NAME=20% or NAME=20%..50%, of 0% to 100%");
  }
  return std::pair(TenantId(text.substr(0, equals)), share);
}

void AddPoolFlags(CommandLine& command_line, PoolFlags& flags) {
  command_line.Add("--node-id", flags.node_id, "Name of this node, unique in the cluster");
  if (flags.node_id.empty()) command_line.Require("--node-id");
  command_line.Add("--advertise-host", flags.advertise_host,
                   "Host that others dial, where --listen has none (0.0.0.0)");
  command_line.Add("--directory", flags.directories,
                   "Directories (tarn-kvstore serves one): host:port, repeated or with commas");
  command_line.AddBytes("--dram", flags.dram,
                        "Memory for KV after its page is reused, or in a store; 0: none");
  command_line.Add("--ssd", flags.ssd,
                   "Folder on a local disk, this node's own, for KV that leaves memory; its blocks "
                   "outlive the process. Empty: none");
  command_line.AddBytes("--ssd-size", flags.ssd_size, "Disk space of --ssd, taken at start");
  command_line.AddBytes("--ssd-write-rate", flags.ssd_write_rate,
                        "Bytes a second written to --ssd at most; 0: no limit");
  command_line.AddChoice("--write-policy", flags.write_policy,
                         "When KV is copied to the tier below: \"through\", as soon as it is here; "
                         "\"back\", when it is about to be evicted: fewer copies, but what was in "
                         "memory only is lost with the process",
                         {"through", "back"});
  command_line.Add(
      "--tenant-share", flags.tenants,
      "NAME=20% guarantees a tenant that much of each tier, NAME=20%..50% limits it as "
      "well; repeated");
  command_line.Add(
      "--transport", flags.transports,
      "How blocks move: \"tcp\", or UCX's list of transports; empty: the best of a pair");
  command_line.Add("--data-port", flags.data_port,
                   "Port on the listen host for blocks over TCP; 0: a free one", {0, 65535});
  command_line.Add("--rdma-devices", flags.rdma_devices,
                   "RDMA ports of the pool: auto, none, or names (mlx5_0:1,mlx5_1:1)");
}

absl::StatusOr<PoolNodeOptions> PoolOptionsFrom(const PoolFlags& flags, const ServerFlags& server) {
  PoolNodeOptions options;
  options.node_id = flags.node_id;
  options.server = server;
  options.advertise_host = flags.advertise_host;
  ASSIGN_OR_RETURN(options.directories, Directories(flags.directories));
  options.dram_bytes = flags.dram;
  options.ssd_path = flags.ssd;
  options.ssd_bytes = flags.ssd.empty() ? 0 : flags.ssd_size;
  options.ssd_bytes_a_second = flags.ssd_write_rate;
  if (flags.write_policy == "back") options.write_policy = WritePolicy::kBack;
  double guaranteed = 0;
  for (const std::string& text : flags.tenants) {
    ASSIGN_OR_RETURN(auto share, ParseTenantShare(text));
    guaranteed += share.second.guaranteed;
    if (!options.tenant_shares.insert(share).second) {
      return absl::InvalidArgumentError("--tenant-share names tenant \"" + share.first.value() +
                                        "\" twice");
    }
  }
  if (guaranteed > 1) {
    return absl::InvalidArgumentError(absl::StrCat("--tenant-share: ", guaranteed * 100,
                                                   "% are guaranteed in all; at most 100%"));
  }
  options.transports = flags.transports;
  options.data_port = flags.data_port;
  options.rdma_devices = flags.rdma_devices;
  return options;
}

}  // namespace tarn::kvstore

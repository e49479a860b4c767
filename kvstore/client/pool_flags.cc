#include "kvstore/client/pool_flags.h"

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

}  // namespace

void AddPoolFlags(CommandLine& command_line, PoolFlags& flags) {
  command_line.Add("--node-id", flags.node_id, "Name of this node, unique in the cluster");
  command_line.Require("--node-id");
  command_line.Add("--advertise-host", flags.advertise_host,
                   "Host that others dial, where --listen has none (0.0.0.0)");
  command_line.Add("--directory", flags.directories,
                   "Directories (tarn-kvstore serves one): host:port, repeated or with commas");
  command_line.AddBytes("--dram", flags.dram, "Memory for KV after its page is reused; 0: none");
  command_line.Add("--ssd", flags.ssd,
                   "Folder on a local disk, this node's own, for KV that leaves memory; its blocks "
                   "outlive the process. Empty: none");
  command_line.AddBytes("--ssd-size", flags.ssd_size, "Disk space of --ssd, taken at start");
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
  options.transports = flags.transports;
  options.data_port = flags.data_port;
  options.rdma_devices = flags.rdma_devices;
  return options;
}

}  // namespace tarn::kvstore

#include "decode_node/server/decode_config.h"

#include "absl/strings/str_split.h"
#include "common/base/status.h"
#include "common/config/parse.h"
#include "engine/factory/model_flags.h"
#include "engine/wire/convert.h"

namespace tarn::decode {
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

void AddFlags(CommandLine& command_line, DecodeConfig& config) {
  AddServerFlags(command_line, config.server);
  engine::AddModelFlags(command_line, config.model);
  command_line.Add("--node-id", config.node_id, "Name of this node, unique in the cluster");
  command_line.Require("--node-id");
  command_line.Add("--advertise-host", config.advertise_host,
                   "Host that others dial, where --listen has none (0.0.0.0)");
  command_line.Add("--directory", config.directories,
                   "Directories (routers serve one): host:port, repeated or with commas");
  command_line.AddBytes("--kv-memory", config.kv_memory, "Memory for the KV of running requests");
  command_line.AddBytes("--dram", config.dram, "Memory for KV after its page is reused; 0: none");
  command_line.Add(
      "--transport", config.transports,
      "How blocks move: \"tcp\", or UCX's list of transports; empty: the best of a pair");
  command_line.Add("--data-port", config.data_port,
                   "Port on the listen host for blocks over TCP; 0: a free one", {0, 65535});
  command_line.Add("--grace", config.grace, "Time for running requests when told to stop");
  command_line.Add("--max-batch", config.sessions.scheduling.max_batch,
                   "Sequences that run or wait for their KV; more are refused", {1, 4096});
  command_line.Add("--chunk-tokens", config.sessions.scheduling.catch_up_tokens,
                   "Tokens of lost KV that one step computes", {1, 1 << 20});
}

absl::StatusOr<kvstore::PoolNodeOptions> PoolOptionsFrom(const DecodeConfig& config,
                                                         const engine::OpenedModel& model) {
  kvstore::PoolNodeOptions options;
  options.node_id = config.node_id;
  options.role = v1::ROLE_DECODE;
  options.model = engine::DescriptorOf(model.info(), model.layout());
  options.server = config.server;
  options.advertise_host = config.advertise_host;
  ASSIGN_OR_RETURN(options.directories, Directories(config.directories));
  ASSIGN_OR_RETURN(options.hbm_pages, engine::PagesIn(config.kv_memory, model.layout()));
  options.dram_bytes = config.dram;
  options.transports = config.transports;
  options.data_port = config.data_port;
  return options;
}

}  // namespace tarn::decode

#pragma once

// What tarn-decode can be told, checked before anything starts.

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/config/command_line.h"
#include "common/config/server_flags.h"
#include "decode_node/session/decode_sessions.h"
#include "engine/factory/model_factory.h"
#include "kvstore/client/pool_node.h"

namespace tarn::decode {

struct DecodeConfig {
  ServerFlags server;
  engine::ModelOptions model;
  DecodeOptions sessions;

  std::string node_id;
  std::string advertise_host;
  std::vector<std::string> directories;  // each "host:port", or several with commas
  uint64_t kv_memory = uint64_t{1} << 30;
  uint64_t dram = 1ull << 30;
  std::string transports;
  int data_port = 0;
  // For requests under way when the server is told to stop.
  absl::Duration grace = absl::Seconds(10);
};

void AddFlags(CommandLine& command_line, DecodeConfig& config);

// INVALID_ARGUMENT names the flag.
absl::StatusOr<kvstore::PoolNodeOptions> PoolOptionsFrom(const DecodeConfig& config,
                                                         const engine::OpenedModel& model);

}  // namespace tarn::decode

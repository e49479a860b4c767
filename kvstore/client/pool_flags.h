#pragma once

// The flags that every node with a pool has.

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "common/config/command_line.h"
#include "common/config/server_flags.h"
#include "kvstore/client/pool_node.h"

namespace tarn::kvstore {

struct PoolFlags {
  std::string node_id;                   // --node-id, required where it has no default
  std::string advertise_host;            // --advertise-host
  std::vector<std::string> directories;  // --directory: each "host:port", or several with commas
  uint64_t dram = 1ull << 30;            // --dram
  std::string ssd;                       // --ssd: a folder of this node's own; empty: no SSD tier
  uint64_t ssd_size = 64ull << 30;       // --ssd-size
  uint64_t ssd_write_rate = 0;           // --ssd-write-rate: bytes a second; 0: no limit
  std::string write_policy = "through";  // --write-policy
  std::vector<std::string> tenants;      // --tenant-share: "NAME=20%" or "NAME=20%..50%"
  std::string transports;                // --transport
  int data_port = 0;                     // --data-port
  std::string rdma_devices = "auto";     // --rdma-devices
};

void AddPoolFlags(CommandLine& command_line, PoolFlags& flags);

// The value of --tenant-share: a tenant's name, then what it is guaranteed of each tier, then maybe
// the most that it may have.
absl::StatusOr<std::pair<TenantId, PoolNodeOptions::TenantShare>> ParseTenantShare(
    const std::string& text);

// What the flags say of a node; role, model and arena are left to the caller. INVALID_ARGUMENT
// names the flag.
absl::StatusOr<PoolNodeOptions> PoolOptionsFrom(const PoolFlags& flags, const ServerFlags& server);

}  // namespace tarn::kvstore

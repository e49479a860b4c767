#pragma once

// The pool's plain values. No proto, no I/O: brains, nodes and simulator share them.

#include <cstdint>
#include <string>

#include "common/base/block_key.h"
#include "common/base/ids.h"

namespace tarn::kvstore {

enum class Tier : uint8_t { kHbm = 1, kDram = 2, kSsd = 3 };

// Which memory of its node a block lies in, and the use of that memory it belongs to.
struct BlockAddress {
  uint32_t region = 0;
  uint64_t offset = 0;
  uint64_t epoch = 0;
  friend bool operator==(const BlockAddress&, const BlockAddress&) = default;
};

// A block on some node. True when the message was sent; the reader verifies.
struct BlockSource {
  NodeId node;
  Incarnation incarnation;
  std::string rpc_address;  // for the handshake
  Tier tier = Tier::kHbm;
  BlockAddress address;
};

// What is known of a block besides its bytes: what policies, quotas and accounts go by. Advice,
// never identity: a block whose traits are lost or wrong is still the same block.
struct BlockTraits {
  TenantId tenant;
  uint32_t position = 0;  // blocks before it in its chain
  uint32_t turn = 0;      // 1: made by a request that began a chain; n + 1: by one that continued a
                          // chain of turn n; 0: not known
  uint32_t new_blocks = 0;  // full blocks that this request had to compute; 0: not known
  friend bool operator==(const BlockTraits&, const BlockTraits&) = default;
};

// Where an acquired block came from.
enum class BlockOrigin : uint8_t {
  kLocalHbm,
  kLocalDram,
  kLocalSsd,
  kRemote,     // memory of another node
  kRemoteSsd,  // staged by it
};
inline constexpr size_t kBlockOrigins = 5;

// One change of what a node holds.
struct InventoryChange {
  bool added = true;  // false: removed
  BlockKey key;
  Tier tier = Tier::kHbm;
  BlockAddress address;  // of an added block
  BlockTraits traits{};  // of an added block, where they are known
};

}  // namespace tarn::kvstore

#pragma once

// Names of KV blocks.
//
// A key is 128 bits of SHA-256, chained over the tokens of a prompt:
//   key[i] = H(key[i-1] ‖ tokens of block i),   key[-1] = H(domain).
// Equal key means equal bytes of KV, whoever computed them: the domain holds whatever else the
// bytes depend on (model, layout, numerics, tenant's salt). So tenants with different salts cannot
// meet each other's blocks. The same 16 bytes are used in router, nodes, directory and on disk.
//
// A block of fewer tokens than the layout's (the tail of a prompt) has a key by the same rule.
// Thread-compatible values; nothing here blocks.

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <ostream>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace tarn {

using TokenId = int32_t;

struct BlockKey {
  std::array<uint8_t, 16> bytes{};

  std::string ToHex() const;
  // The 16 raw bytes, as they travel in protos.
  std::string ToBytes() const {
    return std::string(reinterpret_cast<const char*>(bytes.data()), 16);
  }
  // INVALID_ARGUMENT unless `bytes` has 16 bytes.
  static absl::StatusOr<BlockKey> FromBytes(std::string_view bytes);

  friend auto operator<=>(const BlockKey&, const BlockKey&) = default;
  // Two words; the default calls memcmp, which shows in tables of blocks.
  friend bool operator==(const BlockKey& a, const BlockKey& b) {
    return std::memcmp(a.bytes.data(), b.bytes.data(), sizeof(a.bytes)) == 0;
  }
  template <typename H>
  friend H AbslHashValue(H h, const BlockKey& key) {
    uint64_t word;  // Already uniform: eight of its bytes are hash enough.
    std::memcpy(&word, key.bytes.data(), sizeof(word));
    return H::combine(std::move(h), word);
  }
  friend std::ostream& operator<<(std::ostream& out, const BlockKey& key) {
    return out << key.ToHex();
  }
};

// What a block's bytes depend on besides its tokens.
struct BlockDomain {
  uint64_t model_fingerprint = 0;   // weights, config and numerics of the executor
  uint64_t layout_fingerprint = 0;  // BlockLayout::Fingerprint()
  std::string lora;                 // empty: none
  std::string salt;                 // the tenant's secret and the request's cache salt

  // key[-1]. Fields are length-prefixed: no two domains share an encoding.
  BlockKey Root() const;
};

// The key of the block that holds `tokens` and follows `parent`.
BlockKey ChildKey(const BlockKey& parent, std::span<const TokenId> tokens);

// Keys of all full blocks of `tokens`; a partial last block has none.
std::vector<BlockKey> ChainKeys(const BlockKey& root, std::span<const TokenId> tokens,
                                int block_tokens);

}  // namespace tarn

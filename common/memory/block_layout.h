#pragma once

// How the KV of one block lies in memory, on disk and on the wire: one contiguous extent.
//
//   page    = [header, 64 B][pad to `alignment`][payload][pad to 4 KiB]
//   payload = [kv_head][layer][K,V][token][head_dim]
//
// Each (head, layer, K or V) tile is contiguous for the attention kernel; a tensor-parallel shard
// is a contiguous slice of heads. Moving a block is one read; nothing is gathered or re-laid out.
// A plain value; thread-compatible.

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/status.h"

namespace tarn {

enum class KvType : uint8_t { kF32 = 0, kBf16 = 1 };

// Bytes of one element.
int KvTypeBytes(KvType type);

struct BlockLayout {
  int layers = 0;
  int kv_heads = 0;
  int head_dim = 0;
  int block_tokens = 0;  // a power of two, 16 to 256
  KvType type = KvType::kF32;
  int alignment = 256;  // of the payload in the page: a power of two, 64 to 4096

  // INVALID_ARGUMENT that names the first field out of range.
  absl::Status Validate() const;

  size_t tile_bytes() const;     // one head, one layer, K or V: [token][head_dim]
  size_t payload_bytes() const;  // all tiles
  size_t payload_offset() const { return static_cast<size_t>(alignment); }
  size_t page_bytes() const;  // a multiple of 4096

  // Bytes into the payload of the tile of `kv_head`, `layer`; `value` is 0 for K, 1 for V.
  size_t TileOffset(int kv_head, int layer, int value) const {
    return ((static_cast<size_t>(kv_head) * layers + layer) * 2 + value) * tile_bytes();
  }

  // Equal for equal layouts only; peers compare it when they connect. Covers every field.
  uint64_t Fingerprint() const;
  // "36 layers × 8 heads × 128, bf16, 64 tokens a block (9.0 MiB)".
  std::string ToString() const;

  friend bool operator==(const BlockLayout&, const BlockLayout&) = default;
};

}  // namespace tarn

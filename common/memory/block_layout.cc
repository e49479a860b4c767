#include "common/memory/block_layout.h"

#include <bit>
#include <cstdint>
#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/status.h"

namespace tarn {
namespace {

constexpr size_t kPageGrain = 4096;
// 4 GiB: far above any real block, and small enough that no product below overflows.
constexpr size_t kMaxPayload = size_t{1} << 32;

absl::Status CheckRange(const char* field, int value, int low, int high) {
  if (value >= low && value <= high) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("block layout: ", field, " is ", value, ", must be ", low, " to ", high));
}

absl::Status CheckPowerOfTwo(const char* field, int value, int low, int high) {
  RETURN_IF_ERROR(CheckRange(field, value, low, high));
  if (std::has_single_bit(static_cast<unsigned>(value))) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("block layout: ", field, " is ", value, ", must be a power of two"));
}

// The finalizer of SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number
// generators", OOPSLA 2014): fixed for ever, unlike absl::Hash, and peers on other hosts must
// agree.
uint64_t Mix(uint64_t state, uint64_t value) {
  uint64_t z = (state ^ value) + 0x9e3779b97f4a7c15;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

}  // namespace

int KvTypeBytes(KvType type) { return type == KvType::kF32 ? 4 : 2; }

absl::Status BlockLayout::Validate() const {
  RETURN_IF_ERROR(CheckRange("layers", layers, 1, 1024));
  RETURN_IF_ERROR(CheckRange("kv_heads", kv_heads, 1, 1024));
  RETURN_IF_ERROR(CheckRange("head_dim", head_dim, 1, 4096));
  RETURN_IF_ERROR(CheckPowerOfTwo("block_tokens", block_tokens, 16, 256));
  RETURN_IF_ERROR(CheckRange("type", static_cast<int>(type), 0, 1));
  RETURN_IF_ERROR(CheckPowerOfTwo("alignment", alignment, 64, 4096));
  if (payload_bytes() > kMaxPayload) {
    return absl::InvalidArgumentError(absl::StrCat("block layout: payload is ", payload_bytes(),
                                                   " bytes, the limit is ", kMaxPayload,
                                                   ": use a smaller block_tokens"));
  }
  return absl::OkStatus();
}

size_t BlockLayout::tile_bytes() const {
  return static_cast<size_t>(block_tokens) * head_dim * KvTypeBytes(type);
}

size_t BlockLayout::payload_bytes() const {
  return static_cast<size_t>(kv_heads) * layers * 2 * tile_bytes();
}

size_t BlockLayout::page_bytes() const {
  return (payload_offset() + payload_bytes() + kPageGrain - 1) / kPageGrain * kPageGrain;
}

uint64_t BlockLayout::Fingerprint() const {
  uint64_t state = 0x7461726e6c61796f;  // "tarnlayo"
  for (int field : {layers, kv_heads, head_dim, block_tokens, static_cast<int>(type), alignment}) {
    state = Mix(state, static_cast<uint64_t>(static_cast<uint32_t>(field)));
  }
  return state;
}

std::string BlockLayout::ToString() const {
  const double kib = static_cast<double>(payload_bytes()) / 1024;
  return absl::StrCat(
      layers, " layers × ", kv_heads, " heads × ", head_dim, ", ",
      type == KvType::kF32 ? "f32" : "bf16", ", ", block_tokens, " tokens a block (",
      kib < 1024 ? absl::StrFormat("%.1f KiB", kib) : absl::StrFormat("%.1f MiB", kib / 1024), ")");
}

}  // namespace tarn

#pragma once

// What UcxTransport tells its peers: the encodings of Address() and descriptor().
//
// UCX trusts the bytes that it unpacks. So each encoding carries a magic, its lengths and a
// checksum, and only what passes them reaches UCX. That guards against mistakes, not against an
// attacker, who must be kept from the fabric anyway. Pure functions.

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace tarn {

// A region, as its owner sees it.
struct UcxRegionDescriptor {
  uint64_t base = 0;  // address in the owner
  uint64_t size = 0;  // in bytes; reads beyond are refused by the reader
  // The word behind the last page is `guard` while the region lives and 0 afterwards.
  uint64_t guard_address = 0;
  uint64_t guard = 0;
  std::string rkey;  // packed by UCX

  friend bool operator==(const UcxRegionDescriptor&, const UcxRegionDescriptor&) = default;
};

std::string EncodeRegion(const UcxRegionDescriptor& region);
// INVALID_ARGUMENT says what is wrong with the bytes.
absl::StatusOr<UcxRegionDescriptor> DecodeRegion(std::string_view bytes);

// `worker` is UCX's worker address.
std::string EncodeWorker(std::string_view worker);
absl::StatusOr<std::string> DecodeWorker(std::string_view bytes);

}  // namespace tarn

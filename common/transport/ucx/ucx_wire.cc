#include "common/transport/ucx/ucx_wire.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <cstring>
#include <limits>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"

namespace tarn {
namespace {

constexpr uint64_t kRegionMagic = 0x31474552'58435554;  // "TUCXREG1"
constexpr uint64_t kWorkerMagic = 0x314b5257'58435554;  // "TUCXWRK1"

void AppendWord(std::string& out, uint64_t word) {
  out.append(reinterpret_cast<const char*>(&word), sizeof(word));
}

uint64_t WordAt(std::string_view bytes, size_t index) {
  uint64_t word;
  std::memcpy(&word, bytes.data() + index * sizeof(word), sizeof(word));
  return word;
}

void AppendChecksum(std::string& out) { AppendWord(out, XXH3_64bits(out.data(), out.size())); }

// The bytes without their checksum: a magic, `words` - 1 words, then a payload.
absl::StatusOr<std::string_view> Open(std::string_view bytes, const std::string& what,
                                      uint64_t magic, size_t words) {
  if (bytes.size() < (words + 1) * sizeof(uint64_t)) {
    return absl::InvalidArgumentError(
        absl::StrCat("UCX ", what, " is too short: ", bytes.size(), " bytes"));
  }
  if (WordAt(bytes, 0) != magic) {
    return absl::InvalidArgumentError(absl::StrCat("not a UCX ", what, " of this version"));
  }
  const std::string_view body = bytes.substr(0, bytes.size() - sizeof(uint64_t));
  if (WordAt(bytes.substr(body.size()), 0) != XXH3_64bits(body.data(), body.size())) {
    return absl::InvalidArgumentError(absl::StrCat("UCX ", what, " is damaged: wrong checksum"));
  }
  return body;
}

}  // namespace

std::string EncodeRegion(const UcxRegionDescriptor& region) {
  std::string out;
  for (const uint64_t word :
       {kRegionMagic, region.base, region.size, region.guard_address, region.guard}) {
    AppendWord(out, word);
  }
  out.append(region.rkey);
  AppendChecksum(out);
  return out;
}

absl::StatusOr<UcxRegionDescriptor> DecodeRegion(std::string_view bytes) {
  constexpr size_t kWords = 5;
  ASSIGN_OR_RETURN(const std::string_view body, Open(bytes, "region", kRegionMagic, kWords));
  UcxRegionDescriptor region{.base = WordAt(body, 1),
                             .size = WordAt(body, 2),
                             .guard_address = WordAt(body, 3),
                             .guard = WordAt(body, 4),
                             .rkey = std::string(body.substr(kWords * sizeof(uint64_t)))};
  if (region.size == 0 || region.size > std::numeric_limits<uint64_t>::max() - region.base) {
    return absl::InvalidArgumentError(
        absl::StrCat("UCX region: size ", region.size, " does not fit its base"));
  }
  if (region.guard_address < region.base || region.guard_address - region.base < region.size ||
      region.guard_address % sizeof(uint64_t) != 0) {
    return absl::InvalidArgumentError("UCX region: the guard is not behind it");
  }
  if (region.rkey.empty()) return absl::InvalidArgumentError("UCX region: rkey is missing");
  return region;
}

std::string EncodeWorker(std::string_view worker) {
  std::string out;
  AppendWord(out, kWorkerMagic);
  out.append(worker);
  AppendChecksum(out);
  return out;
}

absl::StatusOr<std::string> DecodeWorker(std::string_view bytes) {
  ASSIGN_OR_RETURN(const std::string_view body, Open(bytes, "address", kWorkerMagic, 1));
  if (body.size() == sizeof(uint64_t)) {
    return absl::InvalidArgumentError("UCX address: worker is missing");
  }
  return std::string(body.substr(sizeof(uint64_t)));
}

}  // namespace tarn

#include "common/transport/ucx/ucx_wire.h"

#include <limits>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "common/transport/sealed.h"

namespace tarn {
namespace {

constexpr uint64_t kRegionMagic = 0x31474552'58435554;  // "TUCXREG1"
constexpr uint64_t kWorkerMagic = 0x314b5257'58435554;  // "TUCXWRK1"

}  // namespace

std::string EncodeRegion(const UcxRegionDescriptor& region) {
  return Seal(kRegionMagic, {region.base, region.size, region.guard_address, region.guard},
              region.rkey);
}

absl::StatusOr<UcxRegionDescriptor> DecodeRegion(std::string_view bytes) {
  ASSIGN_OR_RETURN(Unsealed unsealed, Unseal(bytes, "UCX region", kRegionMagic, 4));
  UcxRegionDescriptor region{.base = unsealed.words[0],
                             .size = unsealed.words[1],
                             .guard_address = unsealed.words[2],
                             .guard = unsealed.words[3],
                             .rkey = std::move(unsealed.text)};
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

std::string EncodeWorker(std::string_view worker) { return Seal(kWorkerMagic, {}, worker); }

absl::StatusOr<std::string> DecodeWorker(std::string_view bytes) {
  ASSIGN_OR_RETURN(Unsealed unsealed, Unseal(bytes, "UCX address", kWorkerMagic, 0));
  if (unsealed.text.empty()) return absl::InvalidArgumentError("UCX address: worker is missing");
  return std::move(unsealed.text);
}

}  // namespace tarn

#include "common/transport/tcp/tcp_wire.h"

#include <limits>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "common/transport/sealed.h"

namespace tarn {
namespace {

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__);
static_assert(sizeof(TcpHello) == 24 && sizeof(TcpRequest) == 32 && sizeof(TcpResponseHead) == 24);

constexpr uint64_t kAddressMagic = 0x31524441'50435454;  // "TTCPADR1"
constexpr uint64_t kRegionMagic = 0x31474552'50435454;   // "TTCPREG1"

}  // namespace

std::string EncodeTcpAddress(const TcpAddress& address) {
  return Seal(kAddressMagic, {address.port, address.token[0], address.token[1]}, address.host);
}

absl::StatusOr<TcpAddress> DecodeTcpAddress(std::string_view bytes) {
  ASSIGN_OR_RETURN(Unsealed unsealed, Unseal(bytes, "TCP address", kAddressMagic, 3));
  const uint64_t port = unsealed.words[0];
  if (port == 0 || port > std::numeric_limits<uint16_t>::max()) {
    return absl::InvalidArgumentError(absl::StrCat("TCP address: port is ", port));
  }
  if (unsealed.text.empty()) return absl::InvalidArgumentError("TCP address: host is missing");
  return TcpAddress{.host = std::move(unsealed.text),
                    .port = static_cast<uint16_t>(port),
                    .token = {unsealed.words[1], unsealed.words[2]}};
}

std::string EncodeTcpRegion(const TcpRegionDescriptor& region) {
  return Seal(kRegionMagic, {region.index, region.size, region.token[0], region.token[1]}, "");
}

absl::StatusOr<TcpRegionDescriptor> DecodeTcpRegion(std::string_view bytes) {
  ASSIGN_OR_RETURN(const Unsealed unsealed, Unseal(bytes, "TCP region", kRegionMagic, 4));
  if (!unsealed.text.empty()) return absl::InvalidArgumentError("TCP region is too long");
  return TcpRegionDescriptor{.index = unsealed.words[0],
                             .size = unsealed.words[1],
                             .token = {unsealed.words[2], unsealed.words[3]}};
}

}  // namespace tarn

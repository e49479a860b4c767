#pragma once

// What TcpTransports say to each other. Private to tcp/.
//
//   reader -> owner   Hello, then Requests
//   owner -> reader   HelloReply, then for each request in turn: ResponseHead, the bytes, Tail
//
// Little-endian, as in memory. The token is drawn at random by each transport and told to peers
// with its address: it keeps out who was not told, and a process that has got the port of a dead
// one. Whoever can listen on the network can learn it.

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace tarn {

using TcpToken = std::array<uint64_t, 2>;

struct TcpHello {
  static constexpr uint64_t kMagic = 0x314f4c45'48504354;  // "TCPHELO1"
  uint64_t magic = kMagic;
  TcpToken token{};
};

struct TcpHelloReply {
  static constexpr uint64_t kMagic = 0x3159454b'4f504354;  // "TCPOKEY1"
  uint64_t magic = kMagic;
};

struct TcpRequest {
  uint64_t id = 0;  // comes back; counts from 1 on each connection
  uint64_t offset = 0;
  uint64_t size = 0;  // 0: asks whether the region is there
  uint64_t region = 0;
};

enum class TcpCode : uint64_t { kOk = 0, kGone = 1, kOutOfBounds = 2 };

struct TcpResponseHead {
  uint64_t id = 0;
  uint64_t size = 0;  // of the bytes that follow: the request's, or 0 with an error
  TcpCode code = TcpCode::kOk;
};

// Behind the bytes, if there are any: whether the region was there until the last one was sent.
struct TcpTail {
  TcpCode code = TcpCode::kOk;
};

// Where a transport listens: Address().
struct TcpAddress {
  std::string host;
  uint16_t port = 0;
  TcpToken token{};

  friend bool operator==(const TcpAddress&, const TcpAddress&) = default;
};

// descriptor() of a region. The token binds it to its transport.
struct TcpRegionDescriptor {
  uint64_t index = 0;
  uint64_t size = 0;
  TcpToken token{};

  friend bool operator==(const TcpRegionDescriptor&, const TcpRegionDescriptor&) = default;
};

std::string EncodeTcpAddress(const TcpAddress& address);
// INVALID_ARGUMENT says what is wrong with the bytes.
absl::StatusOr<TcpAddress> DecodeTcpAddress(std::string_view bytes);
std::string EncodeTcpRegion(const TcpRegionDescriptor& region);
absl::StatusOr<TcpRegionDescriptor> DecodeTcpRegion(std::string_view bytes);

}  // namespace tarn

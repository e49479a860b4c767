#pragma once

// How a TcpTransport is set up.

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/time/time.h"

namespace tarn {

struct TcpOptions {
  std::string listen_host = "127.0.0.1";
  uint16_t listen_port = 0;  // 0: a free one
  // What peers dial instead of `listen_host`, where that is not theirs ("0.0.0.0").
  std::string advertise_host;

  // Of the serving side. Connections beyond are closed at once; each holds some kilobytes.
  size_t max_connections = 1024;
  // Of the reading side: what may be on its way from one peer, at least one read. Bounds how long a
  // peer sends for nothing after a Cancel, and how long a short read waits behind long ones.
  size_t window_bytes = size_t{8} << 20;

  // Connect fails with UNAVAILABLE after this; a stranger who connects has as long to say who it
  // is.
  absl::Duration connect_timeout = absl::Seconds(5);
  // A side that waits for bytes of the other, or for room to send it some, gives up after this long
  // without any.
  absl::Duration stall_timeout = absl::Seconds(10);
};

}  // namespace tarn

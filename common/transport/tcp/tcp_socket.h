#pragma once

// Sockets as the rest of tcp/ uses them: never inherited, no delay, found dead by keepalive.
// Private to tcp/.

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/transport/tcp/tcp_wire.h"

namespace tarn {

// Owns a file descriptor.
class TcpSocket {
 public:
  TcpSocket() = default;
  explicit TcpSocket(int fd) : fd_(fd) {}
  ~TcpSocket();
  TcpSocket(TcpSocket&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  TcpSocket& operator=(TcpSocket&& other) noexcept;

  int fd() const { return fd_; }
  // Of this end.
  uint16_t port() const;

 private:
  int fd_ = -1;
};

// Non-blocking. UNAVAILABLE or INVALID_ARGUMENT with the address and the system's reason. May block
// for the name.
absl::StatusOr<TcpSocket> ListenOnTcp(const std::string& host, uint16_t port);

// The next connection; UNAVAILABLE: there is none now. RESOURCE_EXHAUSTED: no file descriptors.
absl::StatusOr<TcpSocket> AcceptTcp(const TcpSocket& listener);

// A connection to a peer that has accepted our token. Blocks. UNAVAILABLE: nobody there until
// `end`, or somebody else.
absl::StatusOr<TcpSocket> DialTcp(const TcpAddress& address, absl::Time end);

// Of a dialled socket, before it is given to a thread. Block until `end`; UNAVAILABLE.
absl::Status SendAll(const TcpSocket& socket, const void* bytes, size_t size, absl::Time end);
absl::Status ReceiveAll(const TcpSocket& socket, void* bytes, size_t size, absl::Time end);

}  // namespace tarn

#include "common/transport/tcp/tcp_socket.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "common/runtime/real/real_event_loop.h"

namespace tarn {
namespace {

using Addresses = std::unique_ptr<addrinfo, decltype(&freeaddrinfo)>;

absl::Status Failed(const std::string& what, int error) {
  return absl::UnavailableError(absl::StrCat(what, ": ", strerror(error)));
}

absl::StatusOr<Addresses> Resolve(const std::string& host, uint16_t port, int flags) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = flags | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const std::string service = std::to_string(port);
  const int error = getaddrinfo(host.c_str(), service.c_str(), &hints, &found);
  if (error != 0) {
    return absl::UnavailableError(absl::StrCat(host, ": ", gai_strerror(error)));
  }
  return Addresses(found, &freeaddrinfo);
}

void SetOption(int fd, int level, int option, int value) {
  setsockopt(fd, level, option, &value, sizeof(value));
}

// Requests are small and wanted at once. Keepalive: an idle peer whose machine has gone is found
// within half a minute.
void SetConnectionOptions(int fd) {
  SetOption(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  SetOption(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
  SetOption(fd, IPPROTO_TCP, TCP_KEEPIDLE, 15);
  SetOption(fd, IPPROTO_TCP, TCP_KEEPINTVL, 5);
  SetOption(fd, IPPROTO_TCP, TCP_KEEPCNT, 3);
}

TcpSocket NewSocket(const addrinfo& address) {
  return TcpSocket(socket(address.ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
}

absl::Status WaitFor(int fd, short events, absl::Time end) {
  while (true) {
    const absl::Duration left = std::max(end - SteadyNow(), absl::ZeroDuration());
    pollfd waited{fd, events, 0};
    const int count = poll(&waited, 1, static_cast<int>(absl::ToInt64Milliseconds(left)) + 1);
    if (count > 0) return absl::OkStatus();
    if (count == 0 && SteadyNow() >= end) return absl::UnavailableError("no answer in time");
  }
}

absl::StatusOr<TcpSocket> ConnectTo(const addrinfo& address, absl::Time end) {
  TcpSocket socket = NewSocket(address);
  if (socket.fd() < 0) return Failed("socket", errno);
  if (connect(socket.fd(), address.ai_addr, address.ai_addrlen) != 0) {
    if (errno != EINPROGRESS) return Failed("connect", errno);
    RETURN_IF_ERROR(WaitFor(socket.fd(), POLLOUT, end));
    int error = 0;
    socklen_t size = sizeof(error);
    getsockopt(socket.fd(), SOL_SOCKET, SO_ERROR, &error, &size);
    if (error != 0) return Failed("connect", error);
  }
  SetConnectionOptions(socket.fd());
  return socket;
}

absl::Status Greet(const TcpSocket& socket, const TcpToken& token, absl::Time end) {
  const TcpHello hello{.token = token};
  RETURN_IF_ERROR(SendAll(socket, &hello, sizeof(hello), end));
  TcpHelloReply reply;
  RETURN_IF_ERROR(ReceiveAll(socket, &reply, sizeof(reply), end));
  if (reply.magic == TcpHelloReply::kMagic) return absl::OkStatus();
  return absl::UnavailableError("somebody else is there");
}

}  // namespace

TcpSocket::~TcpSocket() {
  if (fd_ >= 0) close(fd_);
}

TcpSocket& TcpSocket::operator=(TcpSocket&& other) noexcept {
  std::swap(fd_, other.fd_);
  return *this;
}

uint16_t TcpSocket::port() const {
  sockaddr_storage address{};
  socklen_t size = sizeof(address);
  if (getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &size) != 0) return 0;
  return ntohs(address.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6&>(address).sin6_port
                                             : reinterpret_cast<sockaddr_in&>(address).sin_port);
}

absl::StatusOr<TcpSocket> ListenOnTcp(const std::string& host, uint16_t port) {
  const std::string where = absl::StrCat("listen on ", host, ":", port);
  const auto addresses = Resolve(host, port, AI_PASSIVE);
  if (!addresses.ok()) return absl::InvalidArgumentError(Message(addresses.status()));
  TcpSocket socket = NewSocket(**addresses);
  if (socket.fd() < 0) return Failed(where, errno);
  SetOption(socket.fd(), SOL_SOCKET, SO_REUSEADDR, 1);
  if (bind(socket.fd(), (*addresses)->ai_addr, (*addresses)->ai_addrlen) != 0 ||
      listen(socket.fd(), SOMAXCONN) != 0) {
    return Failed(where, errno);
  }
  return socket;
}

absl::StatusOr<TcpSocket> AcceptTcp(const TcpSocket& listener) {
  TcpSocket socket(accept4(listener.fd(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
  if (socket.fd() >= 0) {
    SetConnectionOptions(socket.fd());
    return socket;
  }
  const bool full = errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM;
  if (full) return absl::ResourceExhaustedError(absl::StrCat("accept: ", strerror(errno)));
  return Failed("accept", errno);
}

absl::StatusOr<TcpSocket> DialTcp(const TcpAddress& address, absl::Time end) {
  const std::string where = absl::StrCat(address.host, ":", address.port);
  ASSIGN_OR_RETURN(const Addresses addresses, Resolve(address.host, address.port, 0));
  absl::Status status = absl::UnavailableError("no address");
  for (const addrinfo* one = addresses.get(); one != nullptr; one = one->ai_next) {
    absl::StatusOr<TcpSocket> socket = ConnectTo(*one, end);
    status = socket.ok() ? Greet(*socket, address.token, end) : socket.status();
    if (status.ok()) return socket;
  }
  return Annotate(status, where);
}

absl::Status SendAll(const TcpSocket& socket, const void* bytes, size_t size, absl::Time end) {
  const char* from = static_cast<const char*>(bytes);
  while (size > 0) {
    RETURN_IF_ERROR(WaitFor(socket.fd(), POLLOUT, end));
    const ssize_t n = send(socket.fd(), from, size, MSG_NOSIGNAL);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) continue;
    if (n < 0) return Failed("send", errno);
    from += n;
    size -= static_cast<size_t>(n);
  }
  return absl::OkStatus();
}

absl::Status ReceiveAll(const TcpSocket& socket, void* bytes, size_t size, absl::Time end) {
  char* to = static_cast<char*>(bytes);
  while (size > 0) {
    RETURN_IF_ERROR(WaitFor(socket.fd(), POLLIN, end));
    const ssize_t n = recv(socket.fd(), to, size, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) continue;
    if (n < 0) return Failed("receive", errno);
    if (n == 0) return absl::UnavailableError("the peer closed the connection");
    to += n;
    size -= static_cast<size_t>(n);
  }
  return absl::OkStatus();
}

}  // namespace tarn

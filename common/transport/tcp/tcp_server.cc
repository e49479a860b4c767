#include "common/transport/tcp/tcp_server.h"

#include <glog/logging.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <deque>
#include <span>
#include <utility>
#include <vector>

#include "common/base/status.h"

namespace tarn {
namespace {

constexpr size_t kMaxRequests = 128;              // that wait for their answer
constexpr size_t kTurnBytes = size_t{512} << 10;  // sent by one connection, then others
constexpr size_t kMaxParts = 48;                  // of one call of the kernel

// What is sent for bytes that went away while they were being sent; the tail says so.
alignas(64) constexpr std::byte kNothing[size_t{64} << 10] = {};

// Not by the library's sendmsg: ThreadSanitizer would look at bytes that the owner may write
// meanwhile, by design.
ssize_t SendParts(int fd, std::span<iovec> parts) {
  msghdr message{};
  message.msg_iov = parts.data();
  message.msg_iovlen = parts.size();
  return syscall(SYS_sendmsg, fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
}

// One answer on its way out.
struct Answer {
  TcpRequest request;
  TcpResponseHead head;
  TcpTail tail;
  bool decided = false;  // the head is
  size_t sent = 0;       // of all

  size_t body_end() const { return sizeof(head) + head.size; }
  size_t end() const { return head.size == 0 ? sizeof(head) : body_end() + sizeof(tail); }
};

// The parts of one call of the kernel.
class Parts {
 public:
  bool full() const { return count_ == kMaxParts || bytes_ >= kTurnBytes; }
  void Add(const void* from, size_t size) {
    parts_[count_++] = {const_cast<void*>(from), size};
    bytes_ += size;
  }
  size_t room() const { return kTurnBytes - std::min(bytes_, kTurnBytes); }
  std::span<iovec> span() { return {parts_.data(), count_}; }

 private:
  std::array<iovec, kMaxParts> parts_;
  size_t count_ = 0;
  size_t bytes_ = 0;
};

using Bytes = std::optional<std::span<const std::byte>>;

void Decide(Answer& answer, const Bytes& region) {
  const TcpRequest& request = answer.request;
  answer.decided = true;
  answer.head.id = request.id;
  if (!region) {
    answer.head.code = TcpCode::kGone;
  } else if (request.offset > region->size() || request.size > region->size() - request.offset) {
    answer.head.code = TcpCode::kOutOfBounds;
  } else {
    answer.head.size = request.size;
  }
}

// Adds what is left of the answer, as far as there is room; whether all of it was added.
bool AddParts(Answer& answer, const Bytes& region, Parts& parts) {
  if (!answer.decided) Decide(answer, region);
  // Once gone stays gone, for then zeros were sent.
  if (answer.head.size > 0 && !region) answer.tail.code = TcpCode::kGone;
  size_t at = answer.sent;
  if (at < sizeof(answer.head)) {
    parts.Add(reinterpret_cast<const char*>(&answer.head) + at, sizeof(answer.head) - at);
    at = sizeof(answer.head);
  }
  while (at < answer.body_end()) {
    if (parts.full()) return false;
    const size_t size = std::min(answer.body_end() - at, parts.room());
    const size_t offset = answer.request.offset + at - sizeof(answer.head);
    if (region) {
      parts.Add(region->data() + offset, size);
      at += size;
    } else {
      parts.Add(kNothing, std::min(size, sizeof(kNothing)));
      at += std::min(size, sizeof(kNothing));
    }
  }
  if (at == answer.end()) return true;
  if (parts.full()) return false;
  const size_t from = at - answer.body_end();
  parts.Add(reinterpret_cast<const char*>(&answer.tail) + from, sizeof(answer.tail) - from);
  return true;
}

}  // namespace

class TcpServer::Connection : public TcpThread::Handler {
 public:
  Connection(TcpServer& server, TcpSocket socket) : server_(server), socket_(std::move(socket)) {
    server_.thread_.Watch(socket_.fd(), events_, this);
  }
  ~Connection() override { server_.thread_.Unwatch(socket_.fd()); }

  void OnReady(uint32_t events) override {
    if ((events & EPOLLERR) == 0 && Receive() && Send()) return WaitForMore();
    server_.connections_.erase(socket_.fd());  // this
  }

  // Whether the peer has used its time.
  bool TickIsLast() {
    idle_ += TcpThread::kTick;
    if (!greeted_) return idle_ > server_.options_.connect_timeout;
    return !answers_.empty() && idle_ > server_.options_.stall_timeout;
  }
  // Closing then leaves nothing for the kernel to deliver.
  void DropUnsent() {
    const linger now{.l_onoff = 1, .l_linger = 0};
    setsockopt(socket_.fd(), SOL_SOCKET, SO_LINGER, &now, sizeof(now));
  }

 private:
  // Takes what has come; false: the connection is of no use any more.
  bool Receive() {
    if (answers_.size() >= kMaxRequests) return true;
    const ssize_t n =
        recv(socket_.fd(), buffer_.data() + filled_, buffer_.size() - filled_, MSG_DONTWAIT);
    if (n < 0) return errno == EAGAIN || errno == EINTR;
    if (n == 0) return false;
    filled_ += static_cast<size_t>(n);
    return TakeHello() && TakeRequests();
  }

  bool TakeHello() {
    TcpHello hello;
    if (greeted_ || filled_ < sizeof(hello)) return true;
    Take(hello);
    if (hello.magic != TcpHello::kMagic || hello.token != server_.token_) return false;
    greeted_ = true;
    idle_ = absl::ZeroDuration();
    // A fresh connection has room for it.
    const TcpHelloReply reply;
    return send(socket_.fd(), &reply, sizeof(reply), MSG_NOSIGNAL) == sizeof(reply);
  }

  bool TakeRequests() {
    if (!greeted_) return true;
    while (filled_ >= sizeof(TcpRequest) && answers_.size() < kMaxRequests) {
      if (answers_.empty()) idle_ = absl::ZeroDuration();
      Take(answers_.emplace_back().request);
    }
    return true;
  }

  template <typename T>
  void Take(T& value) {
    std::memcpy(&value, buffer_.data(), sizeof(value));
    filled_ -= sizeof(value);
    std::memmove(buffer_.data(), buffer_.data() + sizeof(value), filled_);
  }

  bool Send() {
    blocked_ = false;
    if (answers_.empty()) return true;
    ssize_t n = 0;
    int error = 0;
    server_.regions_.Send([&](const TcpRegions::Lookup& lookup) {
      Parts parts;
      for (Answer& answer : answers_) {
        if (parts.full() || !AddParts(answer, lookup(answer.request.region), parts)) break;
      }
      n = SendParts(socket_.fd(), parts.span());
      error = errno;
    });
    if (n < 0) {
      blocked_ = error == EAGAIN;
      return blocked_ || error == EINTR;
    }
    idle_ = absl::ZeroDuration();
    Sent(static_cast<size_t>(n));
    return TakeRequests();
  }

  void Sent(size_t size) {
    while (size > 0) {
      Answer& first = answers_.front();
      const size_t part = std::min(size, first.end() - first.sent);
      first.sent += part;
      size -= part;
      if (first.sent == first.end()) answers_.pop_front();
    }
  }

  void WaitForMore() {
    const uint32_t events = (answers_.size() < kMaxRequests ? uint32_t{EPOLLIN} : 0) |
                            (blocked_ ? uint32_t{EPOLLOUT} : 0);
    if (std::exchange(events_, events) != events) {
      server_.thread_.Watch(socket_.fd(), events, this);
    }
    if (!answers_.empty() && !blocked_) server_.thread_.Again(socket_.fd());
  }

  TcpServer& server_;
  const TcpSocket socket_;
  uint32_t events_ = EPOLLIN;
  std::array<std::byte, 2048> buffer_;  // of requests that have not come whole or found no room
  size_t filled_ = 0;
  std::deque<Answer> answers_;
  bool greeted_ = false;
  bool blocked_ = false;  // the kernel takes no more now
  absl::Duration idle_;   // since something moved
};

absl::StatusOr<std::unique_ptr<TcpServer>> TcpServer::Start(const TcpOptions& options,
                                                            const TcpToken& token,
                                                            TcpRegions& regions) {
  ASSIGN_OR_RETURN(TcpSocket listener, ListenOnTcp(options.listen_host, options.listen_port));
  return std::unique_ptr<TcpServer>(new TcpServer(options, token, regions, std::move(listener)));
}

TcpServer::TcpServer(const TcpOptions& options, const TcpToken& token, TcpRegions& regions,
                     TcpSocket listener)
    : options_(options), token_(token), regions_(regions), listener_(std::move(listener)) {
  thread_.Post([this] {
    thread_.Watch(listener_.fd(), EPOLLIN, this);
    thread_.EveryTick([this] { Tick(); });
  });
}

TcpServer::~TcpServer() {
  thread_.PostAndWait([this] {
    closing_ = true;
    thread_.Unwatch(listener_.fd());
    connections_.clear();
  });
}

void TcpServer::OnReady(uint32_t) {
  auto socket = AcceptTcp(listener_);
  if (absl::IsResourceExhausted(socket.status())) {
    // Else it would be called again and again; Tick looks after it.
    LOG_EVERY_N(WARNING, 100) << socket.status();
    thread_.Unwatch(listener_.fd());
    return;
  }
  if (!socket.ok()) return;
  if (connections_.size() >= options_.max_connections) {
    LOG_EVERY_N(WARNING, 100) << "a peer is turned away: there are " << connections_.size()
                              << " connections";
    return;
  }
  const int fd = socket->fd();
  connections_[fd] = std::make_unique<Connection>(*this, *std::move(socket));
}

void TcpServer::Tick() {
  if (closing_) return;
  thread_.Watch(listener_.fd(), EPOLLIN, this);
  std::vector<int> last;
  for (const auto& [fd, connection] : connections_) {
    if (!connection->TickIsLast()) continue;
    connection->DropUnsent();
    last.push_back(fd);
  }
  for (const int fd : last) connections_.erase(fd);
}

}  // namespace tarn

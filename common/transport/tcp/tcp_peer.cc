#include "common/transport/tcp/tcp_peer.h"

#include <glog/logging.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"

namespace tarn {
namespace {

// Received at a time: so much stays in a core's second cache for whoever checks it.
constexpr size_t kChunk = size_t{256} << 10;

absl::Status Nonsense(const std::string& what) {
  return absl::UnavailableError(absl::StrCat("the peer does not keep to the protocol: ", what));
}

}  // namespace

TcpPeer::TcpPeer(PeerId id, TcpThread& thread, Reader& reader, TcpSocket socket,
                 std::vector<TcpRegionDescriptor> regions, uint64_t requests, size_t window_bytes)
    : id_(id),
      thread_(thread),
      reader_(reader),
      socket_(std::move(socket)),
      regions_(std::move(regions)),
      window_bytes_(window_bytes),
      requests_(requests) {
  thread_.Watch(socket_.fd(), EPOLLIN, this);
}

TcpPeer::~TcpPeer() { thread_.Unwatch(socket_.fd()); }

bool TcpPeer::HasRoom(size_t size) const {
  if (asked_.empty()) return true;
  return asked_.size() < kMaxAsked && asked_bytes_ + size <= window_bytes_;
}

void TcpPeer::Ask(TransferId transfer, size_t op, const ReadOp& read) {
  if (asked_.empty()) idle_ticks_ = 0;
  asked_.push_back({transfer, op, ++requests_, read.to.size()});
  asked_bytes_ += read.to.size();
  const TcpRequest request{.id = requests_,
                           .offset = read.offset,
                           .size = read.to.size(),
                           .region = regions_[read.region.value()].index};
  outgoing_.append(reinterpret_cast<const char*>(&request), sizeof(request));
}

void TcpPeer::Flush() {
  if (outgoing_.empty()) return;
  const ssize_t n =
      send(socket_.fd(), outgoing_.data(), outgoing_.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  // A broken connection shows when it is received from.
  if (n > 0) outgoing_.erase(0, static_cast<size_t>(n));
  const bool blocked = !outgoing_.empty();
  if (std::exchange(blocked_, blocked) == blocked) return;
  thread_.Watch(socket_.fd(), blocked ? EPOLLIN | EPOLLOUT : EPOLLIN, this);
}

void TcpPeer::OnReady(uint32_t) {
  const absl::Status status = Receive();
  if (!status.ok()) return reader_.OnLost(*this, status);
  reader_.OnRoom(*this);
  Flush();
}

// One call of the kernel and at most one answer: what the loop has asked for comes in between.
absl::Status TcpPeer::Receive() {
  bool answered = false;
  RETURN_IF_ERROR(TakeBuffered(answered));
  if (answered) return absl::OkStatus();
  std::memmove(buffer_.data(), buffer_.data() + begin_, end_ - begin_);
  end_ -= std::exchange(begin_, 0);
  iovec parts[2];
  size_t count = 0;
  size_t body = 0;
  if (next_ == Next::kBody) {
    const std::span<std::byte> place = Place();
    body = place.size();
    parts[count++] = {place.data(), place.size()};
  }
  parts[count++] = {buffer_.data() + end_, buffer_.size() - end_};
  const ssize_t n = readv(socket_.fd(), parts, static_cast<int>(count));
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return absl::OkStatus();
  if (n < 0) return absl::UnavailableError(absl::StrCat("receive: ", strerror(errno)));
  if (n == 0) return absl::UnavailableError("the peer closed the connection");
  idle_ticks_ = 0;
  const size_t in_place = std::min(body, static_cast<size_t>(n));
  end_ += static_cast<size_t>(n) - in_place;
  if (in_place > 0) Placed(in_place);
  return TakeBuffered(answered);
}

// Goes on until an answer is complete or the buffer used up.
absl::Status TcpPeer::TakeBuffered(bool& answered) {
  while (!answered) {
    const size_t before = begin_;
    const Next step = next_;
    if (step == Next::kHead) {
      const size_t waiting = asked_.size();
      RETURN_IF_ERROR(TakeHead());
      answered = asked_.size() < waiting;
    } else if (step == Next::kBody) {
      TakeBody();
    } else if (TcpTail tail; Take(tail)) {
      Answer(tail.code);
      answered = true;
    }
    if (begin_ == before) break;
  }
  // What is left in the buffer wakes nobody.
  if (answered && begin_ < end_) thread_.Again(socket_.fd());
  return absl::OkStatus();
}

absl::Status TcpPeer::TakeHead() {
  TcpResponseHead head;
  if (begin_ < end_ && asked_.empty()) return Nonsense("nothing was asked");
  if (!Take(head)) return absl::OkStatus();
  const Asked& asked = asked_.front();
  if (head.id != asked.request) return Nonsense("an answer out of turn");
  if (head.size != (head.code == TcpCode::kOk ? asked.size : 0)) {
    return Nonsense(absl::StrCat(head.size, " bytes for ", asked.size));
  }
  placed_ = 0;
  if (head.size > 0) {
    next_ = Next::kBody;
  } else {
    Answer(head.code);
  }
  return absl::OkStatus();
}

void TcpPeer::TakeBody() {
  const std::span<std::byte> place = Place();
  const size_t size = std::min(place.size(), end_ - begin_);
  if (size == 0) return;
  std::memcpy(place.data(), buffer_.data() + begin_, size);
  begin_ += size;
  Placed(size);
}

// Of the next bytes of the body, as many as are to be received at a time.
std::span<std::byte> TcpPeer::Place() {
  const Asked& asked = asked_.front();
  const size_t size = std::min(asked.size - placed_, kChunk);
  const std::span<std::byte> to = reader_.PlaceOf(asked.transfer, asked.op);
  if (!to.empty()) return to.subspan(placed_, size);
  unwanted_.resize(size_t{64} << 10);
  return std::span(unwanted_).first(std::min(size, unwanted_.size()));
}

void TcpPeer::Placed(size_t size) {
  const Asked& asked = asked_.front();
  placed_ += size;
  if (placed_ == asked.size) next_ = Next::kTail;
  reader_.OnPlaced(asked.transfer, asked.op, size);
}

void TcpPeer::Answer(TcpCode code) {
  const Asked asked = asked_.front();
  asked_.pop_front();
  asked_bytes_ -= asked.size;
  next_ = Next::kHead;
  reader_.OnAnswered(asked.transfer, asked.op, code);
}

template <typename T>
bool TcpPeer::Take(T& value) {
  if (end_ - begin_ < sizeof(value)) return false;
  std::memcpy(&value, buffer_.data() + begin_, sizeof(value));
  begin_ += sizeof(value);
  return true;
}

}  // namespace tarn

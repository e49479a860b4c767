#pragma once

// What a stream has to send: bounded, one message at gRPC at a time, in order.
// Not thread-safe: the stream's mutex guards it.

#include <cstddef>
#include <deque>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "common/rpc/stream.h"

namespace tarn::internal {

template <typename Out>
class Outbox {
 public:
  explicit Outbox(const StreamOptions& options)
      : max_messages_(options.max_queued_messages), max_bytes_(options.max_queued_bytes) {}

  // RESOURCE_EXHAUSTED at a limit; then the message is not taken. One message may be larger than
  // the limit of bytes if it is alone.
  absl::Status Push(Out message) {
    const size_t size = message.ByteSizeLong();
    if (queue_.size() >= max_messages_) return Full("messages", max_messages_);
    if (!queue_.empty() && bytes_ + size > max_bytes_) return Full("bytes", max_bytes_);
    bytes_ += size;
    queue_.emplace_back(size, std::move(message));
    return absl::OkStatus();
  }

  // The message to write now, valid until Written; null if there is none or one is at gRPC.
  const Out* StartNext() {
    if (writing_ || queue_.empty()) return nullptr;
    writing_ = true;
    return &queue_.front().second;
  }

  void Written() {
    writing_ = false;
    bytes_ -= queue_.front().first;
    queue_.pop_front();
  }

  // Forgets all but the message that gRPC has.
  void DropUnsent() {
    while (queue_.size() > (writing_ ? 1u : 0u)) {
      bytes_ -= queue_.back().first;
      queue_.pop_back();
    }
  }

  bool writing() const { return writing_; }
  bool empty() const { return queue_.empty(); }
  size_t bytes() const { return bytes_; }

 private:
  static absl::Status Full(const char* what, size_t limit) {
    return absl::ResourceExhaustedError("the peer reads too slowly: over " + std::to_string(limit) +
                                        " " + what + " are queued");
  }

  const size_t max_messages_;
  const size_t max_bytes_;
  std::deque<std::pair<size_t, Out>> queue_;
  size_t bytes_ = 0;
  bool writing_ = false;
};

}  // namespace tarn::internal

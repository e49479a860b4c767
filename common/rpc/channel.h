#pragma once

#include <grpcpp/grpcpp.h>

#include <memory>
#include <string>

#include "absl/time/time.h"

namespace tarn {

// The defaults suit peers that fail over: a dead host is noticed within keepalive_time +
// keepalive_timeout, a restarted one is found again within max_reconnect_backoff.
struct ChannelOptions {
  int max_message_bytes = 64 << 20;
  absl::Duration keepalive_time = absl::Seconds(10);
  absl::Duration keepalive_timeout = absl::Seconds(5);
  absl::Duration min_reconnect_backoff = absl::Milliseconds(100);
  absl::Duration max_reconnect_backoff = absl::Seconds(1);
};

// A lazily connected channel to "host:port". Channels to one target are not shared: each has its
// own connection, so that cancelling one never waits for another. Does not block.
std::shared_ptr<grpc::Channel> MakeChannel(const std::string& target,
                                           const ChannelOptions& options = {});

}  // namespace tarn

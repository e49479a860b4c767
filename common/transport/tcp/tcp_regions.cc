#include "common/transport/tcp/tcp_regions.h"

namespace tarn {

uint64_t TcpRegions::Add(std::span<std::byte> bytes) {
  MutexLock lock(mutex_);
  regions_.push_back(bytes);
  return regions_.size() - 1;
}

void TcpRegions::Remove(uint64_t index) {
  MutexLock no_send(send_mutex_);
  MutexLock lock(mutex_);
  regions_[index].reset();
}

void TcpRegions::Close() {
  MutexLock no_send(send_mutex_);
  MutexLock lock(mutex_);
  closed_ = true;
}

void TcpRegions::Send(const std::function<void(const Lookup&)>& send) {
  MutexLock sending(send_mutex_);
  send([this](uint64_t index) -> std::optional<std::span<const std::byte>> {
    MutexLock lock(mutex_);
    if (closed_ || index >= regions_.size()) return std::nullopt;
    return regions_[index];
  });
}

bool TcpRegions::IsLocal(std::span<const std::byte> bytes) {
  if (bytes.empty()) return true;
  MutexLock lock(mutex_);
  for (const auto& region : regions_) {
    if (region && bytes.data() >= region->data() &&
        bytes.data() + bytes.size() <= region->data() + region->size()) {
      return true;
    }
  }
  return false;
}

}  // namespace tarn

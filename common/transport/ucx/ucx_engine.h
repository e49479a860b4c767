#pragma once

// All UCX objects of one transport and the thread that uses them. Private to ucx/.

#include <ucp/api/ucp.h>

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/transport/transport.h"
#include "common/transport/ucx/shared_memory.h"
#include "common/transport/ucx/ucx_options.h"
#include "common/transport/ucx/ucx_reader.h"
#include "common/transport/ucx/ucx_thread.h"

namespace tarn {

class UcxEngine : public std::enable_shared_from_this<UcxEngine> {
 public:
  // INVALID_ARGUMENT: an option that UCX refuses. UNAVAILABLE: no such transport here.
  // RESOURCE_EXHAUSTED: not even shared memory for UCX itself.
  static absl::StatusOr<std::shared_ptr<UcxEngine>> Create(const UcxOptions& options);
  // Stops.
  ~UcxEngine();
  UcxEngine(const UcxEngine&) = delete;
  UcxEngine& operator=(const UcxEngine&) = delete;

  // Ends all transfers with UNAVAILABLE, closes all peers, makes the regions unreadable for theirs,
  // and joins the thread. Idempotent; not callable on the thread.
  void Stop();

  // Runs on the thread; dropped after Stop.
  void Post(std::function<void(UcxReader&)> command);

  // Blocks for as long as the pages take. The region keeps the engine, and so its pages, alive.
  absl::StatusOr<std::unique_ptr<RegisteredMemory>> Allocate(size_t bytes);
  const std::string& address() const { return address_; }

 private:
  struct Region {
    ucp_mem_h handle = nullptr;
    std::span<std::byte> bytes;
  };

  explicit UcxEngine(SharedMemoryKinds shared_memory) : shared_memory_(shared_memory) {}
  absl::Status CreateContext(const UcxOptions& options);
  absl::Status CreateWorker();
  absl::Status MapRegion(size_t bytes, Region& region);
  absl::StatusOr<std::string> PackKey(ucp_mem_h handle);
  bool IsLocal(std::span<const std::byte> bytes) const;

  const SharedMemoryKinds shared_memory_;
  ucp_context_h context_ = nullptr;
  ucp_worker_h worker_ = nullptr;
  std::string address_;

  // Of the thread. Regions stay mapped until the end, also when their owner has freed them: a peer
  // on TCP may still ask for them, and UCX answers from whatever is mapped there.
  std::vector<Region> regions_;
  std::unique_ptr<UcxReader> reader_;

  Mutex mutex_;
  std::unique_ptr<UcxThread> thread_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace tarn

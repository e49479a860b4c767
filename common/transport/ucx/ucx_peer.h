#pragma once

// One connected peer: its endpoint and the keys of its regions. Private to ucx/; progress thread
// only.

#include <ucp/api/ucp.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/transport/transport.h"
#include "common/transport/ucx/mapped_region.h"
#include "common/transport/ucx/owner_process.h"
#include "common/transport/ucx/ucx_wire.h"

namespace tarn {

// What lies behind the last page of a region: tells peers that the region is there.
struct UcxGuard {
  uint64_t value = 0;  // UcxRegionDescriptor::guard while it is, 0 afterwards
  OwnerProcess owner;
};

class UcxPeer {
 public:
  struct Region {
    UcxRegionDescriptor descriptor;
    ucp_rkey_h rkey = nullptr;
    // The region's pages up to its guard, where they are mapped here (shared memory); null over a
    // network.
    const std::byte* mapped = nullptr;
    std::shared_ptr<MappedRegion> mapping;  // that `mapped` lies in; null: UCX's own

    // Of a mapped region.
    const UcxGuard* mapped_guard() const {
      return reinterpret_cast<const UcxGuard*>(mapped +
                                               (descriptor.guard_address - descriptor.base));
    }
    // Of a mapped region: OK while its owner has it.
    absl::Status CheckMappedGuard() const;
  };

  // `on_lost` runs in ucp_worker_progress when UCX finds the peer gone.
  static absl::StatusOr<std::unique_ptr<UcxPeer>> Connect(ucp_worker_h worker, PeerId id,
                                                          const std::string& address,
                                                          std::vector<UcxRegionDescriptor> regions,
                                                          std::function<void()> on_lost);
  // Closed and without reads in flight.
  ~UcxPeer();
  UcxPeer(const UcxPeer&) = delete;
  UcxPeer& operator=(const UcxPeer&) = delete;

  PeerId id() const { return id_; }
  const std::vector<Region>& regions() const { return regions_; }
  ucp_ep_h endpoint() const { return endpoint_; }

  // Why reads must not start; OK if they may.
  const absl::Status& lost() const { return lost_; }

  // Whether it is on this host and its process has ended. Reads a file of /proc.
  bool ProcessGone() const;

  // Takes the peer out of use and makes UCX complete its reads with an error. Idempotent.
  void Close(const absl::Status& why);
  // Whether it can be destroyed; asks UCX how far the close is.
  bool Closed();

  int reads_in_flight = 0;

 private:
  UcxPeer(ucp_worker_h worker, PeerId id, std::function<void()> on_lost);
  absl::Status CreateEndpoint(const std::string& address);
  absl::Status UnpackRegion(UcxRegionDescriptor descriptor);

  const ucp_worker_h worker_;
  const PeerId id_;
  const std::function<void()> on_lost_;
  ucp_ep_h endpoint_ = nullptr;
  std::vector<Region> regions_;
  absl::Status lost_;
  void* close_request_ = nullptr;
};

}  // namespace tarn

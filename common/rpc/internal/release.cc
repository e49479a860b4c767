#include "common/rpc/internal/release.h"

#include <utility>

#include "common/runtime/real/real_event_loop.h"

namespace tarn::internal {

void ReleaseOffGrpcThreads(std::shared_ptr<void> last) {
  // Never destroyed: gRPC's callbacks may come until the process ends.
  static RealEventLoop* const loop = new RealEventLoop("rpc-release");
  loop->Post([last = std::move(last)] {});
}

}  // namespace tarn::internal

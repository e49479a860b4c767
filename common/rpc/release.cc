#include "common/rpc/release.h"

#include <utility>

#include "common/runtime/real/real_event_loop.h"

namespace tarn {

void ReleaseOffGrpcThreads(std::shared_ptr<void> last, std::function<void()> then) {
  // Never destroyed: gRPC's callbacks may come until the process ends.
  static RealEventLoop* const loop = new RealEventLoop("rpc-release");
  loop->Post([last = std::move(last), then = std::move(then)]() mutable {
    last.reset();
    if (then) then();
  });
}

}  // namespace tarn

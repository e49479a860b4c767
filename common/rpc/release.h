#pragma once

#include <functional>
#include <memory>

namespace tarn {

// Drops `last` on a thread of the process's own, later. For what gRPC's callbacks hold: a call's
// context may have the last reference to its channel, and the process's last channel ends gRPC's
// callback threads by joining them. On one of these it would wait for itself, and free what the
// thread still uses (gRPC 1.51, CallbackAlternativeCQ). Thread-safe; does not block.
// `then`, if any, runs on that thread afterwards.
void ReleaseOffGrpcThreads(std::shared_ptr<void> last, std::function<void()> then = nullptr);

}  // namespace tarn

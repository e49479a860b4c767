#pragma once

// Runs something on another thread, and waits for it.

#include <functional>

#include "absl/time/time.h"
#include "common/runtime/event_loop.h"

namespace tarn {

// `post` takes a command and has it run on a thread that is not the caller's. Returns when
// `command` has run there.
void PostAndWait(const std::function<void(std::function<void()>)>& post,
                 const std::function<void()>& command);

// The same on a loop that runs.
void RunOnLoop(EventLoop& loop, const std::function<void()>& task);

// Asks `done` on a loop that runs, every few milliseconds, until it holds. False: it did not within
// `limit`.
bool WaitOnLoop(EventLoop& loop, absl::Duration limit, const std::function<bool()>& done);

}  // namespace tarn

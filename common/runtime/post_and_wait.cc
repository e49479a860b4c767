#include "common/runtime/post_and_wait.h"

#include <glog/logging.h>

#include <future>
#include <utility>

#include "common/base/mutex.h"

namespace tarn {

void PostAndWait(const std::function<void(std::function<void()>)>& post,
                 const std::function<void()>& command) {
  Mutex mutex;
  ConditionVariable changed;
  bool ran = false;
  post([&] {
    command();
    MutexLock lock(mutex);
    ran = true;
    changed.notify_one();
  });
  MutexLock lock(mutex);
  while (!ran) changed.wait(mutex);
}

void RunOnLoop(EventLoop& loop, const std::function<void()>& task) {
  CHECK(!loop.OnLoop());
  PostAndWait([&loop](EventLoop::Task command) { loop.Post(std::move(command)); }, task);
}

bool WaitOnLoop(EventLoop& loop, absl::Duration limit, const std::function<bool()>& done) {
  constexpr absl::Duration kPause = absl::Milliseconds(5);
  std::promise<bool> result;
  const absl::Time end = loop.Now() + limit;
  const std::function<void()> look = [&] {
    if (done()) return result.set_value(true);
    if (loop.Now() >= end) return result.set_value(false);
    loop.PostAfter(kPause, look);
  };
  loop.Post(look);
  return result.get_future().get();
}

}  // namespace tarn

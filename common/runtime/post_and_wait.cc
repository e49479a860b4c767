#include "common/runtime/post_and_wait.h"

#include <glog/logging.h>

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

}  // namespace tarn

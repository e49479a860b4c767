#pragma once

// A fixed team of threads for loops of independent tasks, a few microseconds to milliseconds each.
//
// Idle workers spin for some tens of microseconds, since the next loop of a step follows at once,
// and then sleep: several node processes may share the cores. A worker that is not scheduled in
// time is not waited for; the others do its tasks.

#include <atomic>
#include <cstdint>
#include <functional>
#include <thread>
#include <vector>

namespace tarn::engine {

class ThreadPool {
 public:
  // `threads` includes the caller of Run: one means no further thread. 0: one for each CPU that
  // this process may use.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Runs body(task, thread) for each task of [0, tasks) and returns when all are done. `thread` is
  // below threads() and belongs to one running task at a time: an index for scratch memory. One
  // caller at a time; not from inside a task.
  void Run(int tasks, const std::function<void(int task, int thread)>& body);

 private:
  void Work(int thread);
  void TakeTasks(int thread);

  // Low bit: open to join. Next bits: how many workers have joined. High half: the loop's number.
  std::atomic<uint64_t> gate_{0};
  // Counts loops; idle workers sleep on it.
  std::atomic<uint32_t> loops_{0};
  std::atomic<uint32_t> stopping_{0};
  std::atomic<int> next_task_{0};
  // Written before the gate opens, read by those who joined.
  int tasks_ = 0;
  const std::function<void(int, int)>* body_ = nullptr;
  std::vector<std::thread> workers_;
};

}  // namespace tarn::engine

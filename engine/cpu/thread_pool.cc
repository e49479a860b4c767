#include "engine/cpu/thread_pool.h"

#include <sched.h>

#include <algorithm>

namespace tarn::engine {
namespace {

constexpr uint64_t kOpen = 1;
constexpr uint64_t kJoined = 2;
constexpr uint64_t kLoop = uint64_t{1} << 32;
constexpr uint64_t kJoinedMask = kLoop - kJoined;

// About 30 microseconds: a pause is some 40 to 140 cycles.
constexpr int kSpins = 1000;

int UsableCpus() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) != 0) return 1;
  return std::max(1, CPU_COUNT(&set));
}

}  // namespace

ThreadPool::ThreadPool(int threads) {
  if (threads <= 0) threads = UsableCpus();
  for (int i = 1; i < threads; ++i) workers_.emplace_back([this, i] { Work(i); });
}

ThreadPool::~ThreadPool() {
  stopping_.store(1);
  loops_.fetch_add(1);
  loops_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::TakeTasks(int thread) {
  for (int task = next_task_.fetch_add(1); task < tasks_; task = next_task_.fetch_add(1)) {
    (*body_)(task, thread);
  }
}

void ThreadPool::Run(int tasks, const std::function<void(int, int)>& body) {
  if (tasks <= 1 || workers_.empty()) {
    for (int task = 0; task < tasks; ++task) body(task, 0);
    return;
  }
  tasks_ = tasks;
  body_ = &body;
  next_task_.store(0);
  gate_.fetch_add(kLoop + kOpen);
  loops_.fetch_add(1);
  loops_.notify_all();
  TakeTasks(0);
  // Whoever has joined is finishing a task; nobody joins any more.
  uint64_t gate = gate_.fetch_sub(kOpen) - kOpen;
  for (int spins = 0; (gate & kJoinedMask) != 0; gate = gate_.load()) {
    if (++spins < kSpins) {
      __builtin_ia32_pause();
    } else {
      gate_.wait(gate);
    }
  }
}

void ThreadPool::Work(int thread) {
  uint32_t seen = 0;
  while (stopping_.load() == 0) {
    for (int spins = 0; spins < kSpins && loops_.load() == seen; ++spins) __builtin_ia32_pause();
    loops_.wait(seen);
    seen = loops_.load();
    uint64_t gate = gate_.load();
    while ((gate & kOpen) != 0 && !gate_.compare_exchange_weak(gate, gate + kJoined)) {
    }
    if ((gate & kOpen) == 0) continue;
    TakeTasks(thread);
    if (((gate_.fetch_sub(kJoined) - kJoined) & (kJoinedMask | kOpen)) == 0) gate_.notify_one();
  }
}

}  // namespace tarn::engine

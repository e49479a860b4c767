#pragma once

// A thread that waits on sockets: each has one handler, in between it runs commands. Private to
// tcp/.

#include <cstdint>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/time/time.h"
#include "common/base/mutex.h"

namespace tarn {

class TcpThread {
 public:
  using Command = std::function<void()>;
  static constexpr absl::Duration kTick = absl::Milliseconds(250);

  // What is to be done for one socket. Bounded work a call: others have their turn.
  class Handler {
   public:
    virtual ~Handler() = default;
    // `events` as of epoll(7); 0 after Again.
    virtual void OnReady(uint32_t events) = 0;
  };

  explicit TcpThread(const std::string& name);
  // Runs what was posted so far, then joins. No socket is watched any more.
  ~TcpThread();
  TcpThread(const TcpThread&) = delete;
  TcpThread& operator=(const TcpThread&) = delete;

  // Runs `command` on the thread, in order of posting and before any handler is called again.
  // Thread-safe, does not block.
  void Post(Command command);
  // The same, and waits for its end. Not callable on the thread.
  void PostAndWait(const Command& command);

  // On the thread only, as is all that follows. Calls `handler` for as long as `fd` has one of
  // `events` (level-triggered), or an error; again for a watched one, to change `events`.
  void Watch(int fd, uint32_t events, Handler* handler);
  // Before `fd` is closed. Its handler is not called any more.
  void Unwatch(int fd);
  // Calls the handler of a watched socket once more, after the others.
  void Again(int fd);
  // Runs `command` every kTick from now on, or less often if the thread is held up: who counts
  // ticks does not blame others for that.
  void EveryTick(Command command) { on_tick_.push_back(std::move(command)); }

 private:
  struct Watched {
    int fd = -1;
    Handler* handler = nullptr;
  };

  void Run();
  void RunCommands();
  void Call(uint64_t id, uint32_t events);
  void Tick();

  int epoll_fd_ = -1;
  int command_fd_ = -1;

  Mutex mutex_;
  std::vector<Command> commands_ ABSL_GUARDED_BY(mutex_);

  // Of the thread. Ids are not used again, so an event of a socket that was closed meanwhile finds
  // nobody.
  uint64_t last_id_ = 0;
  absl::flat_hash_map<uint64_t, Watched> watched_;
  absl::flat_hash_map<int, uint64_t> ids_;
  std::vector<uint64_t> again_;
  std::vector<Command> on_tick_;
  absl::Time next_tick_;
  bool stopping_ = false;

  std::thread thread_;  // last: starts when all else is there
};

}  // namespace tarn

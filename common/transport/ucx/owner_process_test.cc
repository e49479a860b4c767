#include "common/transport/ucx/owner_process.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

namespace tarn {
namespace {

// A child that waits to be killed, and who it is.
class Child {
 public:
  Child() {
    int fds[2];
    EXPECT_EQ(pipe(fds), 0);
    pid_ = fork();
    if (pid_ == 0) {
      const OwnerProcess self = OwnerProcess::Self();
      if (write(fds[1], &self, sizeof(self)) != sizeof(self)) _exit(1);
      while (true) pause();
    }
    EXPECT_EQ(read(fds[0], &owner_, sizeof(owner_)), static_cast<ssize_t>(sizeof(owner_)));
    close(fds[0]);
    close(fds[1]);
  }
  ~Child() {
    if (!reaped_) Reap();
  }
  void Kill() {
    EXPECT_EQ(kill(pid_, SIGKILL), 0);
    // Until it is dead; it stays as a zombie.
    siginfo_t info;
    EXPECT_EQ(waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOWAIT), 0);
  }
  void Stop() {
    EXPECT_EQ(kill(pid_, SIGSTOP), 0);
    int status;
    EXPECT_EQ(waitpid(pid_, &status, WUNTRACED), pid_);
  }
  void Reap() {
    kill(pid_, SIGKILL);
    EXPECT_EQ(waitpid(pid_, nullptr, 0), pid_);
    reaped_ = true;
  }
  const OwnerProcess& owner() const { return owner_; }

 private:
  pid_t pid_ = 0;
  bool reaped_ = false;
  OwnerProcess owner_;
};

TEST(OwnerProcess, ThisProcessRuns) {
  EXPECT_NE(OwnerProcess::Self().start_time, 0u);
  EXPECT_FALSE(OwnerProcess::Self().Gone());
}

TEST(OwnerProcess, IsGoneWhenKilledAndNotBefore) {
  Child child;
  EXPECT_FALSE(child.owner().Gone());
  child.Stop();
  EXPECT_FALSE(child.owner().Gone());
  child.Kill();
  EXPECT_TRUE(child.owner().Gone());
  child.Reap();
  EXPECT_TRUE(child.owner().Gone());
}

TEST(OwnerProcess, AnotherProcessWithItsPidIsNotIt) {
  OwnerProcess owner = OwnerProcess::Self();
  owner.start_time -= 1;
  EXPECT_TRUE(owner.Gone());
}

TEST(OwnerProcess, CannotTellInAnotherNamespace) {
  OwnerProcess owner = OwnerProcess::Self();
  owner.start_time -= 1;
  owner.pid_namespace += 1;
  EXPECT_FALSE(owner.Gone());
  owner.pid_namespace = 0;
  EXPECT_FALSE(owner.Gone());
}

}  // namespace
}  // namespace tarn

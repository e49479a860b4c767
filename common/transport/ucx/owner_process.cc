#include "common/transport/ucx/owner_process.h"

#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace tarn {
namespace {

uint64_t PidNamespace() {
  struct stat info {};
  return stat("/proc/self/ns/pid", &info) == 0 ? info.st_ino : 0;
}

struct ProcessState {
  bool runs = false;
  uint64_t start_time = 0;
};

ProcessState ReadState(uint64_t pid) {
  std::ifstream file(absl::StrCat("/proc/", pid, "/stat"));
  std::string line;
  if (!std::getline(file, line)) return {};
  // The name in parentheses may hold anything; what follows it starts with field 3.
  const std::vector<std::string> fields = absl::StrSplit(line.substr(line.rfind(')') + 1), ' ');
  constexpr size_t kState = 1;
  constexpr size_t kStartTime = 20;
  ProcessState state;
  if (fields.size() <= kStartTime) return state;
  state.runs = fields[kState] != "Z" && fields[kState] != "X";
  if (!absl::SimpleAtoi(fields[kStartTime], &state.start_time)) state.runs = false;
  return state;
}

}  // namespace

OwnerProcess OwnerProcess::Self() {
  const auto pid = static_cast<uint64_t>(getpid());
  return {.pid_namespace = PidNamespace(), .pid = pid, .start_time = ReadState(pid).start_time};
}

bool OwnerProcess::Gone() const {
  if (pid_namespace == 0 || pid_namespace != PidNamespace()) return false;
  const ProcessState state = ReadState(pid);
  return !state.runs || state.start_time != start_time;
}

}  // namespace tarn

#pragma once

// The commands of `tarn`. Each binds its flags to a CommandLine and runs to an exit code: 0 done, 1
// failed (the reason is on stderr), 2 bad usage.

#include <functional>
#include <memory>
#include <string>

#include "common/config/command_line.h"
#include "proto/request.pb.h"

namespace tarn::client {

// One command: its flags are bound when it is made, its work is Run.
class Command {
 public:
  virtual ~Command() = default;
  virtual int Run() = 0;
};

using MakeCommand = std::unique_ptr<Command> (*)(CommandLine&);

std::unique_ptr<Command> MakeGenerate(CommandLine& flags);
std::unique_ptr<Command> MakeChat(CommandLine& flags);
std::unique_ptr<Command> MakeRun(CommandLine& flags);
std::unique_ptr<Command> MakeBench(CommandLine& flags);
std::unique_ptr<Command> MakeReplay(CommandLine& flags);
std::unique_ptr<Command> MakeStatus(CommandLine& flags);
std::unique_ptr<Command> MakeExplain(CommandLine& flags);
std::unique_ptr<Command> MakePlan(CommandLine& flags);
std::unique_ptr<Command> MakeCalibrate(CommandLine& flags);
std::unique_ptr<Command> MakeMakeModel(CommandLine& flags);

// Where the router is.
void AddServerFlag(CommandLine& flags, std::string& server);

// How tokens are chosen. A flag that is not given leaves the model's default.
class SamplingFlags {
 public:
  explicit SamplingFlags(CommandLine& flags);
  // Of the flags that were given. After parsing.
  v1::SamplingParams ToProto() const;

 private:
  const CommandLine& flags_;
  double temperature_ = 1, top_p_ = 1, min_p_ = 0;
  double repetition_penalty_ = 1, presence_penalty_ = 0, frequency_penalty_ = 0;
  int top_k_ = 0, max_tokens_ = 16, min_tokens_ = 0, logprobs_ = 0;
  uint64_t seed_ = 0;
  std::vector<std::string> stop_;
  bool ignore_eos_ = false;
};

// Prints "tarn: " and the status' message; returns 1.
int Fail(const absl::Status& status);

// All of a file, or of stdin where `path` is "-".
absl::StatusOr<std::string> ReadInput(const std::string& path);

}  // namespace tarn::client

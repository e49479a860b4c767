// `tarn`, the command line: talks to a router, measures it, or runs a model without one.

#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "client/cli/commands.h"
#include "common/config/process.h"

int main(int argc, char** argv) {
  using namespace tarn;          // NOLINT: main is outside of the namespace
  using namespace tarn::client;  // NOLINT
  InitProcess(argv[0]);
  (void)SetLogLevel("warning");
  CommandLine cli("tarn", "Talks to a tarn cluster, measures it, or runs a model without one.");
  struct Entry {
    const char* name;
    const char* description;
    MakeCommand make;
  };
  const Entry entries[] = {
      {"chat", "Converses with the model", MakeChat},
      {"generate", "Completes a prompt, or a file of prompts", MakeGenerate},
      {"bench", "Load generator: latency, throughput and goodput", MakeBench},
      {"replay", "Replays a request trace with its prefix sharing", MakeReplay},
      {"status", "Nodes, tiers, fill and hits", MakeStatus},
      {"explain", "Where a prompt would be served now, and why", MakeExplain},
      {"plan", "Simulates clusters and recommends the cheapest that meets an SLO", MakePlan},
      {"calibrate", "Writes the hardware profile of a running cluster, for plan", MakeCalibrate},
      {"make-model", "Writes a Hugging Face directory with random weights", MakeMakeModel},
      {"run", "The one-process reference: same engine, no cluster", MakeRun},
  };
  std::vector<std::pair<CommandLine*, std::unique_ptr<Command>>> commands;
  for (const Entry& entry : entries) {
    CommandLine& flags = cli.AddCommand(entry.name, entry.description);
    commands.emplace_back(&flags, entry.make(flags));
  }
  if (const std::optional<int> exit_code = cli.Parse(argc, argv)) return *exit_code;
  for (auto& [flags, command] : commands) {
    if (flags->Chosen()) return command->Run();
  }
  return 2;
}

#pragma once

// How a binary gets its typed config: it has a struct whose fields hold the defaults, binds each
// to a flag, and parses. The same names work in the file given by --config (CLI11's TOML/INI);
// what stands on the command line wins. CLI11 does the work and stays inside.
//
//   struct Config { ServerFlags server; uint64_t dram_bytes = 1 << 30; int batch = 16; };
//   CommandLine cli("tarn-prefill", "Computes KV of prompts.");
//   AddServerFlags(cli, config.server);
//   cli.AddBytes("--dram-bytes", config.dram_bytes, "Size of the DRAM tier");
//   cli.Add("--batch", config.batch, "Sequences in one step", {1, 1024});
//   if (std::optional<int> exit_code = cli.Parse(argc, argv)) return *exit_code;
//
// For main, before threads start. Wrong bindings (a name twice) CHECK-fail.

#include <cstdint>
#include <iosfwd>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "common/config/parse.h"

namespace tarn {

// Inclusive limits of a number; outside of them parsing fails and says so.
struct Range {
  double min = -std::numeric_limits<double>::infinity();
  double max = std::numeric_limits<double>::infinity();
};

class CommandLine {
 public:
  // Has --help, --version and --config.
  CommandLine(const std::string& program, const std::string& description);
  ~CommandLine();
  CommandLine(const CommandLine&) = delete;
  CommandLine& operator=(const CommandLine&) = delete;

  // Bind flag `name` ("--batch") to a field that outlives Parse. The field's value is the default,
  // and --help shows it.
  void Add(const std::string& name, bool& field, const std::string& help);
  void Add(const std::string& name, int& field, const std::string& help, Range range = {});
  void Add(const std::string& name, int64_t& field, const std::string& help, Range range = {});
  void Add(const std::string& name, uint64_t& field, const std::string& help, Range range = {});
  void Add(const std::string& name, double& field, const std::string& help, Range range = {});
  void Add(const std::string& name, std::string& field, const std::string& help);
  // May be given several times, or as a list in the file.
  void Add(const std::string& name, std::vector<std::string>& field, const std::string& help);
  void Add(const std::string& name, absl::Duration& field, const std::string& help);
  void Add(const std::string& name, HostPort& field, const std::string& help);
  void AddBytes(const std::string& name, uint64_t& field, const std::string& help,
                Range range = {});
  // One of `choices`.
  void AddChoice(const std::string& name, std::string& field, const std::string& help,
                 std::vector<std::string> choices);
  // Without a name: by position. `name` is for messages ("TRACE").
  void AddPositional(const std::string& name, std::string& field, const std::string& help);
  void AddPositional(const std::string& name, std::vector<std::string>& field,
                     const std::string& help);

  // Makes what was bound under `name` obligatory.
  void Require(const std::string& name);

  // Whether the user gave `name`, on the command line or in the file. After Parse.
  bool Given(const std::string& name) const;

  // A command with flags of its own ("tarn chat"); owned by this object. If there are any, the
  // user must choose one.
  CommandLine& AddCommand(const std::string& name, const std::string& description);
  // Whether this command was chosen. After Parse.
  bool Chosen() const;

  // Fills the fields. Nothing: go on. Otherwise the exit code to return from main: 0 after --help
  // or --version (printed to `out`), 2 after bad usage (message on `err` names the flag).
  std::optional<int> Parse(int argc, const char* const* argv, std::ostream& out, std::ostream& err);
  // The same with std::cout and std::cerr.
  std::optional<int> Parse(int argc, const char* const* argv);

 private:
  struct Impl;
  explicit CommandLine(std::unique_ptr<Impl> impl);

  std::unique_ptr<Impl> impl_;
};

// tarn's version, as --version prints it.
extern const char kVersion[];

}  // namespace tarn

#include <signal.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "common/base/status.h"
#include "common/config/command_line.h"
#include "common/config/server_flags.h"
#include "common/config/signals.h"
#include "gtest/gtest.h"

namespace tarn {
namespace {

TEST(Parse, ByteSizes) {
  EXPECT_EQ(*ParseByteSize("4096"), 4096u);
  EXPECT_EQ(*ParseByteSize("64KiB"), 65536u);
  EXPECT_EQ(*ParseByteSize("1.5gib"), 3ull << 29);
  EXPECT_EQ(*ParseByteSize("10MB"), 10000000u);
  for (const char* bad :
       {"", "GiB", "-1", "1.5", "1.2.3", "1e3", "4 XB", "99999999999TiB", "1.1B"}) {
    EXPECT_FALSE(ParseByteSize(bad).ok()) << bad;
  }
  for (uint64_t bytes : {0ull, 1ull, 1000ull, 1024ull, 3ull << 30, ~0ull}) {
    EXPECT_EQ(*ParseByteSize(FormatByteSize(bytes)), bytes);
  }
  EXPECT_EQ(FormatByteSize(4ull << 30), "4GiB");
}

TEST(Parse, HostPorts) {
  EXPECT_EQ(*ParseHostPort("127.0.0.1:0"), (HostPort{"127.0.0.1", 0}));
  EXPECT_EQ(*ParseHostPort("[::1]:80"), (HostPort{"::1", 80}));
  EXPECT_EQ((HostPort{"::1", 80}).ToString(), "[::1]:80");
  for (const char* bad :
       {"", "host", ":80", "host:", "host:65536", "host:-1", "::1:80", "[h]:1x"}) {
    EXPECT_FALSE(ParseHostPort(bad).ok()) << bad;
  }
}

TEST(Parse, Durations) {
  EXPECT_EQ(*ParseDuration("1m30s"), absl::Seconds(90));
  EXPECT_EQ(*ParseDuration("inf"), absl::InfiniteDuration());
  for (const char* bad : {"", "30", "-1s", "1 hour"}) EXPECT_FALSE(ParseDuration(bad).ok()) << bad;
}

struct Config {
  int batch = 16;
  uint64_t dram = 1 << 30;
  absl::Duration wait = absl::Seconds(1);
  HostPort peer{"127.0.0.1", 1};
  bool fast = false;
  std::vector<std::string> nodes;
};

class CommandLineTest : public testing::Test {
 protected:
  CommandLineTest() : cli_("tarn-test", "Tests.") {
    cli_.Add("--batch", config_.batch, "Sequences", {1, 1024});
    cli_.AddBytes("--dram", config_.dram, "Bytes", {1024});
    cli_.Add("--wait", config_.wait, "Time");
    cli_.Add("--peer", config_.peer, "Peer");
    cli_.Add("--fast", config_.fast, "Speed");
    cli_.Add("--node", config_.nodes, "Nodes");
  }

  std::optional<int> Parse(std::vector<const char*> arguments) {
    arguments.insert(arguments.begin(), "tarn-test");
    return cli_.Parse(static_cast<int>(arguments.size()), arguments.data(), out_, err_);
  }

  Config config_;
  CommandLine cli_;
  std::ostringstream out_, err_;
};

TEST_F(CommandLineTest, FillsTheFields) {
  EXPECT_EQ(Parse({"--batch", "7", "--dram=2MiB", "--wait", "5s", "--peer", "h:9", "--fast",
                   "--node", "a", "--node", "b"}),
            std::nullopt);
  EXPECT_EQ(config_.batch, 7);
  EXPECT_EQ(config_.dram, 2u << 20);
  EXPECT_EQ(config_.wait, absl::Seconds(5));
  EXPECT_EQ(config_.peer, (HostPort{"h", 9}));
  EXPECT_TRUE(config_.fast);
  EXPECT_EQ(config_.nodes, (std::vector<std::string>{"a", "b"}));
  EXPECT_TRUE(cli_.Given("--batch"));
}

TEST_F(CommandLineTest, HelpAndVersionEndWith0) {
  EXPECT_EQ(Parse({"--help"}), 0);
  EXPECT_NE(out_.str().find("--dram BYTES=1GiB"), std::string::npos) << out_.str();
  EXPECT_EQ(Parse({"--version"}), 0);
}

TEST_F(CommandLineTest, BadUsageEndsWith2AndNamesTheFlag) {
  for (const auto& [flag, value, says] :
       {std::tuple("--batch", "0", "out of range [1, 1024]"), std::tuple("--batch", "x", "x"),
        std::tuple("--dram", "1", "out of range [1KiB"), std::tuple("--dram", "4QB", "4QB"),
        std::tuple("--wait", "soon", "not a duration"), std::tuple("--peer", "h", "host:port"),
        std::tuple("--nonsense", "1", "--nonsense")}) {
    err_.str("");
    EXPECT_EQ(Parse({flag, value}), 2);
    EXPECT_NE(err_.str().find(flag), std::string::npos) << err_.str();
    EXPECT_NE(err_.str().find(says), std::string::npos) << err_.str();
  }
}

TEST_F(CommandLineTest, ReadsAFileAndTheCommandLineWins) {
  const std::string path = std::string(std::getenv("TEST_TMPDIR")) + "/c.toml";
  std::ofstream(path) << "batch = 5\ndram = \"1MiB\"\nwait = \"9s\"\n";
  EXPECT_EQ(Parse({"--config", path.c_str(), "--batch", "6"}), std::nullopt) << err_.str();
  EXPECT_EQ(config_.batch, 6);
  EXPECT_EQ(config_.dram, 1u << 20);
  EXPECT_EQ(config_.wait, absl::Seconds(9));
  std::ofstream(path) << "bacth = 5\n";
  EXPECT_EQ(Parse({"--config", path.c_str()}), 2);
}

TEST(CommandLine, Commands) {
  std::string trace;
  CommandLine cli("tarn", "Tool.");
  CommandLine& chat = cli.AddCommand("chat", "Talks.");
  CommandLine& replay = cli.AddCommand("replay", "Replays.");
  replay.AddPositional("TRACE", trace, "File");
  replay.Require("TRACE");
  std::ostringstream out, err;
  const char* const good[] = {"tarn", "replay", "x.jsonl"};
  EXPECT_EQ(cli.Parse(3, good, out, err), std::nullopt);
  EXPECT_TRUE(replay.Chosen());
  EXPECT_FALSE(chat.Chosen());
  EXPECT_EQ(trace, "x.jsonl");
  EXPECT_EQ(cli.Parse(2, good, out, err), 2);
  EXPECT_EQ(cli.Parse(1, good, out, err), 2);
}

TEST(ReadyFile, HoldsAddressesAndGoes) {
  const std::string path = std::string(std::getenv("TEST_TMPDIR")) + "/ready.json";
  ASSERT_EQ(WriteReadyFile(path, {{"grpc", "127.0.0.1:1"}}), absl::OkStatus());
  std::ifstream file(path);
  const auto json = nlohmann::json::parse(file);
  EXPECT_EQ(json["grpc"], "127.0.0.1:1");
  EXPECT_EQ(json["pid"], getpid());
  RemoveReadyFile(path);
  EXPECT_FALSE(std::ifstream(path).good());
  EXPECT_FALSE(WriteReadyFile("/no/such/folder/x", {}).ok());
}

TEST(ShutdownSignal, WaitsForASignalOrARequest) {
  {
    ShutdownSignal signal;
    signal.Request();
    EXPECT_EQ(signal.Wait(), 0);
  }
  ShutdownSignal signal;
  kill(getpid(), SIGTERM);
  EXPECT_EQ(signal.Wait(), SIGTERM);
}

}  // namespace
}  // namespace tarn

// What a pull of KV blocks from another process on this host costs, next to memcpy.
//
//   transport_bench [--rounds N] [--tls UCX_TLS] [--json FILE]
//
// The owner of a pool of 256 MiB is this program once more. Each round connects anew, so the first
// walk over the pool meets cold page tables, and the second meets them warm; both are cold in
// cache where the pool is larger than that. memcpy walks a region of the same kind in between,
// into the same target. A busy machine moves both alike, so ratios of medians are what to look at;
// ratios of CPU time hold even there. Bound: a pull is one copy by the reader's CPU, so 1.0; with
// verify the checksum reads the block once more, from cache while the block fits there.
//
// Memory: 256 MiB here and there, and 64 MiB to copy into. --tls tells one kind of shared memory
// from the other.

#include <glog/logging.h>
#include <time.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "common/base/mutex.h"
#include "common/memory/block_header.h"
#include "common/runtime/random.h"
#include "common/runtime/real/real_event_loop.h"
#include "common/transport/ucx/child_process.h"
#include "common/transport/ucx/ucx_transport.h"

namespace tarn {
namespace {

constexpr size_t kPoolBytes = size_t{256} << 20;
constexpr size_t kTargetBytes = size_t{64} << 20;
constexpr size_t kBatchBytes = size_t{16} << 20;
constexpr size_t kWindow = 2;  // batches under way
constexpr absl::Duration kLimit = absl::Minutes(1);

// A page of exactly `page` bytes: 4 KiB tiles, one fewer than would fit, and the header.
struct BlockSize {
  const char* name;
  BlockLayout layout;
};
const BlockSize kSizes[] = {
    {"64 KiB", {.layers = 15, .kv_heads = 1, .head_dim = 64, .block_tokens = 16}},
    {"1 MiB", {.layers = 51, .kv_heads = 5, .head_dim = 64, .block_tokens = 16}},
    {"8 MiB", {.layers = 89, .kv_heads = 23, .head_dim = 64, .block_tokens = 16}},
};

BlockLayout LayoutOf(const BlockSize& size) {
  BlockLayout layout = size.layout;
  layout.type = KvType::kBf16;
  CHECK(layout.Validate().ok());
  return layout;
}

BlockIdentity IdentityOf(size_t block) { return {.epoch = block + 1, .token_count = 16}; }

struct Cost {
  double wall = 0;  // seconds
  double cpu = 0;   // of all threads of this process
};

double CpuSeconds() {
  timespec now;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

template <typename Walk>
Cost Measure(Walk&& walk) {
  const auto begin = std::chrono::steady_clock::now();
  const double cpu = CpuSeconds();
  walk();
  return {std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count(),
          CpuSeconds() - cpu};
}

// The other process: a pool that is sealed for whatever block size the reader asks for.
int RunOwner(Channel& channel, const std::string& tls) {
  RealEventLoop loop("owner");
  auto transport = UcxTransport::Create({.tls = tls}, loop);
  CHECK(transport.ok()) << transport.status();
  auto pool = (*transport)->Allocate(kPoolBytes);
  CHECK(pool.ok()) << pool.status();
  Random(1).Fill((*pool)->bytes());
  if (!channel.SendAddress({(*transport)->Address(), {(*pool)->descriptor()}}).ok()) return 1;
  for (auto message = channel.Receive(kLimit); message.ok(); message = channel.Receive(kLimit)) {
    const BlockLayout layout = LayoutOf(kSizes[std::stoul(*message)]);
    const size_t page = layout.page_bytes();
    for (size_t i = 0; i < kPoolBytes / page; ++i) {
      SealBlock(layout, IdentityOf(i), (*pool)->bytes().subspan(i * page, page));
    }
    if (!channel.Send("sealed").ok()) break;
  }
  return 0;
}

// Counts batches down; waited for by main.
class Countdown {
 public:
  explicit Countdown(size_t count) : left_(count) {}
  void Down() {
    MutexLock lock(mutex_);
    if (--left_ == 0) changed_.notify_all();
  }
  void Wait() {
    const auto end = std::chrono::steady_clock::now() + absl::ToChronoNanoseconds(kLimit);
    MutexLock lock(mutex_);
    while (left_ > 0) {
      CHECK(changed_.wait_until(mutex_, end) == std::cv_status::no_timeout) << "a pull hangs";
    }
  }

 private:
  Mutex mutex_;
  ConditionVariable changed_;
  size_t left_ ABSL_GUARDED_BY(mutex_);
};

class Reader {
 public:
  Reader(PeerAddress owner, const std::string& tls) : owner_(std::move(owner)) {
    auto transport = UcxTransport::Create({.tls = tls}, loop_);
    CHECK(transport.ok()) << transport.status();
    transport_ = *std::move(transport);
    target_ = Allocate(kTargetBytes);
    source_ = Allocate(kPoolBytes);
    Random(2).Fill(source_->bytes());
  }

  void Connect() {
    const auto peer = transport_->Connect(owner_);
    CHECK(peer.ok()) << peer.status();
    peer_ = *peer;
  }
  void Disconnect() {
    loop_.Post([this] { transport_->Disconnect(peer_); });
  }

  // Pulls every block of the pool, in order.
  void Pull(const BlockLayout& layout, bool verify) {
    Countdown left(kPoolBytes / kBatchBytes);
    loop_.Post([&] {
      next_ = 0;
      for (size_t i = 0; i < kWindow; ++i) StartNext(layout, verify, left);
    });
    left.Wait();
  }

  // The same with memcpy, from a region of this process.
  void Copy(const BlockLayout& layout, bool verify) {
    const size_t page = layout.page_bytes();
    for (size_t from = 0; from < kPoolBytes; from += page) {
      const auto to = target_->bytes().subspan(from % kTargetBytes, page);
      std::memcpy(to.data(), source_->bytes().data() + from, to.size());
      if (verify) Check(layout, from / page, to);
    }
  }

  void SealSource(const BlockLayout& layout) {
    const size_t page = layout.page_bytes();
    for (size_t i = 0; i < kPoolBytes / page; ++i) {
      SealBlock(layout, IdentityOf(i), source_->bytes().subspan(i * page, page));
    }
  }

 private:
  std::unique_ptr<RegisteredMemory> Allocate(size_t bytes) {
    auto memory = transport_->Allocate(bytes);
    CHECK(memory.ok()) << memory.status();
    return *std::move(memory);
  }

  static void Check(const BlockLayout& layout, size_t block, std::span<const std::byte> page) {
    const absl::Status status = VerifyBlock(layout, IdentityOf(block), page);
    CHECK(status.ok()) << "block " << block << ": " << status;
  }

  void StartNext(const BlockLayout& layout, bool verify, Countdown& left) {
    const size_t begin = next_;
    if (begin == kPoolBytes) return;
    next_ += kBatchBytes;
    const size_t page = layout.page_bytes();
    ReadBatch batch;
    for (size_t from = begin; from < next_; from += page) {
      batch.ops.push_back(
          {RegionIndex(0), from, target_->bytes().subspan(from % kTargetBytes, page)});
    }
    if (verify) {
      batch.verify = [=, this](size_t i) {
        const size_t from = begin + i * page;
        return VerifyBlock(layout, IdentityOf(from / page),
                           target_->bytes().subspan(from % kTargetBytes, page));
      };
    }
    transport_->Read(peer_, std::move(batch), [=, this, &left](std::vector<absl::Status> done) {
      for (const absl::Status& status : done) CHECK(status.ok()) << status;
      StartNext(layout, verify, left);
      left.Down();
    });
  }

  const PeerAddress owner_;
  RealEventLoop loop_{"bench"};
  std::unique_ptr<UcxTransport> transport_;
  std::unique_ptr<RegisteredMemory> target_;
  std::unique_ptr<RegisteredMemory> source_;
  PeerId peer_;
  size_t next_ = 0;  // loop only: the first byte of the next batch
};

// Costs of one walk, by what walked: "pull cold", "memcpy", ...
using Samples = std::map<std::string, std::vector<Cost>>;

void RunRound(Reader& reader, const BlockLayout& layout, Samples& samples) {
  const auto walk = [&](const std::string& name, auto&& walk) {
    samples[name].push_back(Measure(walk));
  };
  for (const bool verify : {false, true}) {
    const std::string suffix = verify ? "+verify" : "";
    reader.Connect();
    walk("pull" + suffix + " first", [&] { reader.Pull(layout, verify); });
    walk("memcpy", [&] { reader.Copy(layout, false); });
    walk("pull" + suffix + " second", [&] { reader.Pull(layout, verify); });
    walk("memcpy+verify", [&] { reader.Copy(layout, true); });
    reader.Disconnect();
  }
}

double Median(const std::vector<Cost>& costs, double Cost::*field) {
  std::vector<double> values;
  for (const Cost& cost : costs) values.push_back(cost.*field);
  std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
  return values[values.size() / 2];
}

// One row of the table: `name` against memcpy, and against memcpy with the same verify.
nlohmann::json Row(const BlockSize& size, const std::string& name, const Samples& samples) {
  const std::vector<Cost>& pull = samples.at(name);
  const bool verify = name.find("verify") != std::string::npos;
  const std::vector<Cost>& copy = samples.at("memcpy");
  const std::vector<Cost>& equal = samples.at(verify ? "memcpy+verify" : "memcpy");
  const double wall = Median(pull, &Cost::wall);
  const double cpu = Median(pull, &Cost::cpu);
  return {{"block", size.name},
          {"walk", name},
          {"gigabytes_per_second", kPoolBytes / wall * 1e-9},
          {"memcpy_gigabytes_per_second", kPoolBytes / Median(copy, &Cost::wall) * 1e-9},
          {"of_memcpy", Median(copy, &Cost::wall) / wall},
          {"of_memcpy_by_cpu", Median(copy, &Cost::cpu) / cpu},
          {"of_same_work", Median(equal, &Cost::wall) / wall},
          {"of_same_work_by_cpu", Median(equal, &Cost::cpu) / cpu}};
}

void Print(const nlohmann::json& rows) {
  std::printf("%-7s %-20s %6s %7s | of memcpy: wall %5s | of the same work: wall %5s\n", "block",
              "walk", "GB/s", "memcpy", "cpu", "cpu");
  for (const auto& row : rows) {
    const auto value = [&](const char* name) { return row.at(name).get<double>(); };
    std::printf("%-7s %-20s %6.2f %7.2f | %15.2f %5.2f | %22.2f %5.2f\n",
                row.at("block").get<std::string>().c_str(),
                row.at("walk").get<std::string>().c_str(), value("gigabytes_per_second"),
                value("memcpy_gigabytes_per_second"), value("of_memcpy"), value("of_memcpy_by_cpu"),
                value("of_same_work"), value("of_same_work_by_cpu"));
  }
}

int Run(int rounds, const std::string& tls, const std::string& json_path) {
  auto owner = ChildProcess::Start(tls);
  CHECK(owner.ok()) << owner.status();
  auto address = (*owner)->channel().ReceiveAddress(kLimit);
  CHECK(address.ok()) << address.status();
  Reader reader(*std::move(address), tls);
  nlohmann::json rows = nlohmann::json::array();
  for (size_t i = 0; i < std::size(kSizes); ++i) {
    const BlockLayout layout = LayoutOf(kSizes[i]);
    CHECK((*owner)->channel().Send(std::to_string(i)).ok());
    CHECK((*owner)->channel().Receive(kLimit).ok());
    reader.SealSource(layout);
    Samples samples;
    for (int round = 0; round < rounds; ++round) RunRound(reader, layout, samples);
    for (const char* name :
         {"pull first", "pull second", "pull+verify first", "pull+verify second"}) {
      rows.push_back(Row(kSizes[i], name, samples));
    }
  }
  Print(rows);
  if (!json_path.empty()) {
    std::ofstream file(json_path);
    file << rows.dump(2) << "\n";
    if (!file.flush()) {
      LOG(ERROR) << "cannot write " << json_path;
      return 1;
    }
  }
  return 0;
}

int Main(int argc, char** argv) {
  if (auto child = ChildRole::FromArguments(argc, argv))
    return RunOwner(*child->channel, child->role);
  CLI::App app{"Pull of KV blocks between two processes, next to memcpy"};
  int rounds = 5;
  std::string tls = UcxOptions{}.tls;
  std::string json_path;
  app.add_option("--rounds", rounds, "Rounds; medians are shown")->check(CLI::Range(1, 1000));
  app.add_option("--tls", tls, "Transports of UCX, e.g. posix,self");
  app.add_option("--json", json_path, "Also write the rows to this file");
  CLI11_PARSE(app, argc, argv);
  return Run(rounds, tls, json_path);
}

}  // namespace
}  // namespace tarn

int main(int argc, char** argv) { return tarn::Main(argc, argv); }

// Metadata through the whole path of a directory in process: gRPC client, loopback socket, parsing,
// index, answer; by 128 keys. Processor time of all threads, client's included: "keys_per_cpu_s" is
// what one core does for both sides. "floor_ratio" is that time over the time of a call with no
// keys, or a message with none, in turns in the same run; "loop_keys_per_s" counts the directory's
// loop alone, which all of its work passes. And what a snapshot of two million blocks costs its
// node.

#include <benchmark/benchmark.h>
#include <glog/logging.h>
#include <sys/resource.h>

#include <cstring>
#include <ctime>
#include <memory>

#include "common/rpc/channel.h"
#include "common/rpc/server.h"
#include "common/runtime/post_and_wait.h"
#include "common/runtime/real/real_event_loop.h"
#include "kvstore/directory/inventory_wire.h"
#include "kvstore/directory/publisher.h"
#include "kvstore/directory/service.h"
#include "kvstore/directory/subscriber.h"

namespace tarn::kvstore {
namespace {

constexpr size_t kBatch = 128;

double CpuSeconds(clockid_t clock = CLOCK_PROCESS_CPUTIME_ID) {
  timespec now;
  clock_gettime(clock, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

BlockKey KeyOf(uint64_t number) {
  uint64_t words[2] = {number * 0x9E3779B97F4A7C15, (number + 7) * 0xD1B54A32D192ED03};
  words[0] ^= words[0] >> 29;
  BlockKey key;
  std::memcpy(key.bytes.data(), words, sizeof(words));
  return key;
}

InventoryChange BlockOf(uint64_t number) {
  return {.added = true, .key = KeyOf(number), .tier = Tier::kSsd, .address = {1, number << 12, 1}};
}

class Directory {
 public:
  Directory() {
    service_ = std::make_unique<DirectoryService>(&loop_);
    auto server = RpcServer::Start({}, {service_.get()});
    CHECK(server.ok()) << server.status();
    rpc_ = std::move(*server);
  }
  ~Directory() {
    rpc_->Shutdown(absl::ZeroDuration());
    RunOnLoop(loop_, [this] { service_.reset(); });
  }
  std::string address() const { return rpc_->address(); }
  EventLoop& loop() { return loop_; }
  double LoopSeconds() {
    double seconds = 0;
    RunOnLoop(loop_, [&] { seconds = CpuSeconds(CLOCK_THREAD_CPUTIME_ID); });
    return seconds;
  }
  DirectoryStats Stats() {
    DirectoryStats stats;
    RunOnLoop(loop_, [&] { stats = service_->Stats(); });
    return stats;
  }

 private:
  RealEventLoop loop_{"directory"};
  std::unique_ptr<DirectoryService> service_;
  std::unique_ptr<RpcServer> rpc_;
};

// A node's stream, with a bounded number of messages that are not acknowledged.
class Stream {
 public:
  explicit Stream(const std::string& address)
      : stub_(v1::Directory::NewStub(MakeChannel(address))), stream_(stub_->Publish(&context_)) {
    v1::InventoryUpdate hello;
    hello.mutable_hello()->set_node_id("node-0");
    hello.mutable_hello()->set_incarnation(1);
    CHECK(stream_->Write(hello));
  }
  ~Stream() {
    context_.TryCancel();
    stream_->Finish();
  }
  void Send(std::vector<InventoryChange> adds) {
    InventoryBatch batch{.snapshot_begin = sequence_ == 0, .adds = std::move(adds)};
    v1::InventoryUpdate update;
    update.set_sequence(++sequence_);
    SetBlocks(batch, &update);
    // Without blocks it would not be acknowledged.
    if (batch.adds.empty()) update.add_removes()->MergeFrom(ToInventoryRemove(BlockOf(0)));
    CHECK(stream_->Write(update));
    if (sequence_ - acknowledged_ > 32) Receive();
  }
  void Receive() {
    v1::InventoryAck ack;
    CHECK(stream_->Read(&ack));
    CHECK(!ack.resend_snapshot());
    acknowledged_ = ack.sequence();
  }
  void Flush() {
    while (acknowledged_ < sequence_) Receive();
  }

 private:
  grpc::ClientContext context_;
  std::unique_ptr<v1::Directory::Stub> stub_;
  std::unique_ptr<grpc::ClientReaderWriter<v1::InventoryUpdate, v1::InventoryAck>> stream_;
  uint64_t sequence_ = 0, acknowledged_ = 0;
};

void BM_Publish(benchmark::State& state) {
  Directory directory;
  Stream stream(directory.address());
  uint64_t next = 0;
  constexpr int kTurn = 200;
  double with_keys = 0, without = 0, loop = 0;
  stream.Send({});
  for (auto _ : state) {
    for (bool full : {true, false}) {
      double cpu = CpuSeconds(), loop_cpu = directory.LoopSeconds();
      for (int message = 0; message < kTurn; ++message) {
        std::vector<InventoryChange> adds;
        for (size_t i = 0; full && i < kBatch; ++i) adds.push_back(BlockOf(next++));
        stream.Send(std::move(adds));
      }
      stream.Flush();
      (full ? with_keys : without) += CpuSeconds() - cpu;
      if (full) loop += directory.LoopSeconds() - loop_cpu;
    }
  }
  state.counters["keys_per_cpu_s"] = static_cast<double>(next) / with_keys;
  state.counters["loop_keys_per_s"] = static_cast<double>(next) / loop;
  state.counters["floor_ratio"] = with_keys / without;
}
BENCHMARK(BM_Publish)->Iterations(40)->UseRealTime();

void BM_Lookup(benchmark::State& state) {
  Directory directory;
  constexpr uint64_t kBlocks = 1'024'000;
  {
    Stream stream(directory.address());
    for (uint64_t next = 0; next < kBlocks;) {
      std::vector<InventoryChange> adds;
      for (size_t i = 0; i < 4096 && next < kBlocks; ++i) adds.push_back(BlockOf(next++));
      stream.Send(std::move(adds));
    }
    stream.Flush();
    auto stub = v1::Directory::NewStub(MakeChannel(directory.address()));
    uint64_t asked = 0, prompt = 0;
    constexpr int kTurn = 200;
    double with_keys = 0, without = 0, loop = 0;
    for (auto _ : state) {
      for (bool full : {true, false}) {
        double cpu = CpuSeconds(), loop_cpu = directory.LoopSeconds();
        for (int call = 0; call < kTurn; ++call) {
          prompt = (prompt + 4093) % (kBlocks / kBatch);
          v1::MatchRequest request;
          for (size_t i = 0; full && i < kBatch; ++i) {
            request.add_keys(KeyOf(prompt * kBatch + i).ToBytes());
          }
          grpc::ClientContext context;
          v1::MatchResponse response;
          CHECK(stub->Match(&context, request, &response).ok());
          if (full) CHECK_EQ(response.nodes(0).blocks(), kBatch);
          asked += full ? kBatch : 0;
        }
        (full ? with_keys : without) += CpuSeconds() - cpu;
        if (full) loop += directory.LoopSeconds() - loop_cpu;
      }
    }
    state.counters["keys_per_cpu_s"] = static_cast<double>(asked) / with_keys;
    state.counters["loop_keys_per_s"] = static_cast<double>(asked) / loop;
    state.counters["floor_ratio"] = with_keys / without;
  }
}
BENCHMARK(BM_Lookup)->Iterations(20)->UseRealTime();

// From connecting to the directory's last acknowledgement, and then to a subscriber that has all of
// it. The node's loop is asked every millisecond: "worst_task_ms" is its longest task in processor
// time.
void BM_Snapshot(benchmark::State& state) {
  const auto blocks = static_cast<uint64_t>(state.range(0));
  for (auto _ : state) {
    Directory directory;
    RealEventLoop loop("node");
    std::unique_ptr<InventoryPublisher> publisher;
    double read_cpu = 0, longest = 0, cpu = CpuSeconds();
    absl::Time start = loop.Now();
    RunOnLoop(loop, [&] {
      InventoryPublisherOptions options;
      options.directories = {directory.address()};
      options.info.set_node_id("node-0");
      options.info.set_incarnation(1);
      publisher = InventoryPublisher::Start(
          options, &loop,
          {.listen = [](const InventoryPublisher::Listener&) {},
           .read = [&](uint64_t cursor, int max, std::vector<InventoryChange>* to) -> uint64_t {
             // From one part to the next: the whole task that sends it.
             double now = CpuSeconds(CLOCK_THREAD_CPUTIME_ID);
             if (read_cpu > 0) longest = std::max(longest, now - read_cpu);
             read_cpu = now;
             uint64_t end = std::min(blocks, cursor + static_cast<uint64_t>(max));
             for (; cursor < end; ++cursor) to->push_back(BlockOf(cursor));
             return end == blocks ? 0 : end;
           }},
          [] { return v1::NodeLoad(); });
    });
    auto wait = [&](const std::function<bool()>& done) {
      bool is = false;
      while (!is) {
        absl::SleepFor(absl::Milliseconds(5));
        RunOnLoop(loop, [&] { is = done(); });
      }
    };
    wait([&] { return publisher->synced() == 1; });
    absl::Time published = loop.Now();
    std::unique_ptr<DirectorySubscriber> subscriber;
    RunOnLoop(loop, [&] {
      subscriber = DirectorySubscriber::Start({.directories = {directory.address()}}, &loop, {});
    });
    wait([&] { return subscriber->current(); });
    CHECK_EQ(subscriber->index().Stats().places, blocks);
    CHECK_EQ(directory.Stats().index.places, blocks);
    state.counters["publish_s"] = absl::ToDoubleSeconds(published - start);
    state.counters["subscribe_s"] = absl::ToDoubleSeconds(loop.Now() - published);
    state.counters["cpu_s"] = CpuSeconds() - cpu;
    state.counters["worst_task_ms"] = longest * 1e3;
    rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    state.counters["peak_MB"] = static_cast<double>(usage.ru_maxrss) / 1024;
    RunOnLoop(loop, [&] {
      subscriber.reset();
      publisher.reset();
    });
  }
}
BENCHMARK(BM_Snapshot)->Arg(2'000'000)->Iterations(1)->UseRealTime()->Unit(benchmark::kSecond);

}  // namespace
}  // namespace tarn::kvstore

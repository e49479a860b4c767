// What a pull of KV blocks from another process costs, next to the limits of the machine.
//
//   transport_bench [--rounds N] [--tls UCX_TLS] [--json FILE]
//
// The owner of a pool of 256 MiB is this program once more. In each round, one after the other:
//   memcpy, nt copy     the same bytes within this process, from a region of the same kind into the
//                       same target, by the C library and past the caches
//   pull first, pull    from the neighbour's memory, right after Connect and once more
//   pull+verify         with the block's checksum
//   socket              the owner writes the same bytes into a TCP connection, unasked
//   tcp, tcp+verify     pulls without shared memory
// So a busy machine moves subject and limit alike; what is shown is the median of each round's
// ratio. Bounds: a pull is one copy by the reader's CPU, so 1.0 of nt copy; TCP has the socket's
// two copies, so 1.0 of that.
//
// Regions have huge pages where the kernel gives them: the first line says how many. Memory: 256
// MiB here and there, and 128 MiB to read into. --tls tells one kind of shared memory from the
// other.

#include <arpa/inet.h>
#include <glog/logging.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

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
#include "common/memory/block_arrival.h"
#include "common/memory/stream_copy.h"
#include "common/runtime/random.h"
#include "common/runtime/real/real_event_loop.h"
#include "common/transport/node/node_transport.h"
#include "common/transport/ucx/child_process.h"

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

std::unique_ptr<NodeTransport> MakeTransport(const NodeTransportOptions& options, EventLoop& loop) {
  auto transport = NodeTransport::Create(options, loop);
  CHECK(transport.ok()) << transport.status();
  return *std::move(transport);
}

std::unique_ptr<RegisteredMemory> Allocate(Transport& transport, size_t bytes) {
  auto memory = transport.Allocate(bytes);
  CHECK(memory.ok()) << memory.status();
  return *std::move(memory);
}

void Seal(const BlockLayout& layout, std::span<std::byte> pool) {
  const size_t page = layout.page_bytes();
  for (size_t i = 0; i < pool.size() / page; ++i) {
    SealBlock(layout, IdentityOf(i), pool.subspan(i * page, page));
  }
}

// One end of a plain TCP connection on this host, as it comes.
class RawSocket {
 public:
  // Connects to `port`.
  static RawSocket Dial(uint16_t port) {
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address = Loopback(port);
    PCHECK(connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0);
    return RawSocket(fd);
  }
  // Waits for the other end, after `tell` was called with the port.
  template <typename Tell>
  static RawSocket Accept(Tell&& tell) {
    const int listener = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address = Loopback(0);
    socklen_t size = sizeof(address);
    PCHECK(bind(listener, reinterpret_cast<sockaddr*>(&address), size) == 0);
    PCHECK(listen(listener, 1) == 0);
    PCHECK(getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size) == 0);
    tell(ntohs(address.sin_port));
    const int fd = accept(listener, nullptr, nullptr);
    PCHECK(fd >= 0);
    close(listener);
    return RawSocket(fd);
  }
  RawSocket(RawSocket&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  ~RawSocket() {
    if (fd_ >= 0) close(fd_);
  }

  void Write(std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const ssize_t n = send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      PCHECK(n > 0);
      bytes = bytes.subspan(static_cast<size_t>(n));
    }
  }
  void Read(std::span<std::byte> bytes) {
    PCHECK(recv(fd_, bytes.data(), bytes.size(), MSG_WAITALL) ==
           static_cast<ssize_t>(bytes.size()));
  }

 private:
  explicit RawSocket(int fd) : fd_(fd) {}
  static sockaddr_in Loopback(uint16_t port) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
  }

  int fd_;
};

// The other process: a pool that is sealed ("seal", size), or written into a socket ("write",
// size), for a block size by its number.
int RunOwner(Channel& channel, const std::string& tls) {
  RealEventLoop loop("owner");
  auto transport = MakeTransport({.ucx = {.tls = tls}}, loop);
  auto pool = Allocate(*transport, kPoolBytes);
  Random(1).Fill(pool->bytes());
  if (!channel.SendAddress({transport->Address(), {pool->descriptor()}}).ok()) return 1;
  const auto port = channel.Receive(kLimit);
  if (!port.ok()) return 1;
  RawSocket socket = RawSocket::Dial(static_cast<uint16_t>(std::stoul(*port)));
  while (true) {
    const auto command = channel.Receive(kLimit);
    const auto size = channel.Receive(kLimit);
    if (!size.ok()) return 0;
    const BlockLayout layout = LayoutOf(kSizes[std::stoul(*size)]);
    if (*command == "seal") {
      Seal(layout, pool->bytes());
      if (!channel.Send("sealed").ok()) return 0;
    } else {
      const size_t page = layout.page_bytes();
      for (size_t at = 0; at < kPoolBytes; at += page)
        socket.Write(pool->bytes().subspan(at, page));
    }
  }
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

// Pulls a pool of a peer, over one of the ways.
class Puller {
 public:
  Puller(const NodeTransportOptions& options, PeerAddress owner)
      : owner_(std::move(owner)),
        transport_(MakeTransport(options, loop_)),
        target_(Allocate(*transport_, kTargetBytes)) {}

  Transport& transport() { return *transport_; }
  std::span<std::byte> target() { return target_->bytes(); }

  void Connect() {
    const auto peer = transport_->Connect(owner_);
    CHECK(peer.ok()) << peer.status();
    peer_ = *peer;
  }
  void Disconnect() {
    loop_.Post([this, peer = peer_] { transport_->Disconnect(peer); });
  }

  // Every block of the pool, in order.
  void Pull(const BlockLayout& layout, bool verify) {
    Countdown left(kPoolBytes / kBatchBytes);
    loop_.Post([&] {
      next_ = 0;
      for (size_t i = 0; i < kWindow; ++i) StartNext(layout, verify, left);
    });
    left.Wait();
  }

 private:
  void StartNext(const BlockLayout& layout, bool verify, Countdown& left) {
    const size_t begin = next_;
    if (begin == kPoolBytes) return;
    next_ += kBatchBytes;
    const size_t page = layout.page_bytes();
    ReadBatch batch;
    for (size_t from = begin; from < next_; from += page) {
      batch.ops.push_back({RegionIndex(0), from, target().subspan(from % kTargetBytes, page)});
    }
    if (verify) {
      batch.arrival = [=, this](size_t i) {
        const size_t from = begin + i * page;
        return std::make_unique<BlockArrival>(layout, IdentityOf(from / page),
                                              target().subspan(from % kTargetBytes, page));
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
  std::unique_ptr<NodeTransport> transport_;
  std::unique_ptr<RegisteredMemory> target_;
  PeerId peer_;
  size_t next_ = 0;  // loop only: the first byte of the next batch
};

// Seconds of one walk over a pool, by round.
using Samples = std::map<std::string, std::vector<double>>;

class Bench {
 public:
  explicit Bench(const std::string& tls)
      : owner_(StartOwner(tls)),
        address_(*owner_->channel().ReceiveAddress(kLimit)),
        mapped_({.ucx = {.tls = tls}}, address_),
        tcp_({.one_sided = false}, address_),
        source_(Allocate(mapped_.transport(), kPoolBytes)),
        socket_(RawSocket::Accept([this](uint16_t port) { Send(std::to_string(port)); })) {
    Random(2).Fill(source_->bytes());
    tcp_.Connect();
  }

  Samples Run(size_t size, int rounds) {
    layout_ = LayoutOf(kSizes[size]);
    Send("seal");
    Send(std::to_string(size));
    CHECK(owner_->channel().Receive(kLimit).ok());
    Samples samples;
    for (int round = 0; round < rounds; ++round) RunRound(size, samples);
    return samples;
  }

 private:
  static std::unique_ptr<ChildProcess> StartOwner(const std::string& tls) {
    auto owner = ChildProcess::Start(tls);
    CHECK(owner.ok()) << owner.status();
    return *std::move(owner);
  }

  void Send(const std::string& message) { CHECK(owner_->channel().Send(message).ok()); }

  void RunRound(size_t size, Samples& samples) {
    const auto walk = [&](const std::string& name, auto&& walk) {
      const auto begin = std::chrono::steady_clock::now();
      walk();
      samples[name].push_back(
          std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
    };
    walk("memcpy", [&] {
      Copy(mapped_.target(), [](auto* to, auto* from, size_t n) { std::memcpy(to, from, n); });
    });
    walk("nt copy", [&] { Copy(mapped_.target(), StreamCopy); });
    mapped_.Connect();
    walk("pull first", [&] { mapped_.Pull(layout_, false); });
    walk("pull", [&] { mapped_.Pull(layout_, false); });
    walk("pull+verify", [&] { mapped_.Pull(layout_, true); });
    mapped_.Disconnect();
    walk("socket", [&] { ReadSocket(size); });
    walk("tcp", [&] { tcp_.Pull(layout_, false); });
    walk("tcp+verify", [&] { tcp_.Pull(layout_, true); });
  }

  template <typename CopyBytes>
  void Copy(std::span<std::byte> target, CopyBytes&& copy) {
    const size_t page = layout_.page_bytes();
    for (size_t from = 0; from < kPoolBytes; from += page) {
      copy(target.data() + from % kTargetBytes, source_->bytes().data() + from, page);
    }
  }

  void ReadSocket(size_t size) {
    Send("write");
    Send(std::to_string(size));
    const size_t page = layout_.page_bytes();
    for (size_t from = 0; from < kPoolBytes; from += page) {
      socket_.Read(tcp_.target().subspan(from % kTargetBytes, page));
    }
  }

  std::unique_ptr<ChildProcess> owner_;
  PeerAddress address_;
  Puller mapped_;
  Puller tcp_;
  std::unique_ptr<RegisteredMemory> source_;
  RawSocket socket_;
  BlockLayout layout_;
};

double Median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
  return values[values.size() / 2];
}

// How fast `name` was as a part of how fast `limit` was, round by round.
double Ratio(const Samples& samples, const std::string& limit, const std::string& name) {
  std::vector<double> ratios;
  for (size_t i = 0; i < samples.at(name).size(); ++i) {
    ratios.push_back(samples.at(limit)[i] / samples.at(name)[i]);
  }
  return Median(std::move(ratios));
}

nlohmann::json Row(const BlockSize& size, const std::string& name, const Samples& samples) {
  return {{"block", size.name},
          {"walk", name},
          {"gigabytes_per_second", kPoolBytes / Median(samples.at(name)) * 1e-9},
          {"of_memcpy", Ratio(samples, "memcpy", name)},
          {"of_nt_copy", Ratio(samples, "nt copy", name)},
          {"of_socket", Ratio(samples, "socket", name)}};
}

void PrintRow(const nlohmann::json& row) {
  const auto value = [&](const char* name) { return row.at(name).get<double>(); };
  std::printf("%-7s %-12s %6.2f %9.2f %10.2f %9.2f\n", row.at("block").get<std::string>().c_str(),
              row.at("walk").get<std::string>().c_str(), value("gigabytes_per_second"),
              value("of_memcpy"), value("of_nt_copy"), value("of_socket"));
}

// Of the shared memory of this process, in MiB.
size_t HugeMegabytes() {
  std::ifstream smaps("/proc/self/smaps_rollup");
  std::string field;
  size_t kilobytes = 0;
  while (smaps >> field) {
    if (field == "ShmemPmdMapped:") smaps >> kilobytes;
  }
  return kilobytes / 1024;
}

int Run(int rounds, const std::string& tls, const std::string& json_path) {
  Bench bench(tls);
  std::printf("%zu MiB of shared memory here are huge pages\n", HugeMegabytes());
  std::printf("%-7s %-12s %6s %9s %10s %9s\n", "block", "walk", "GB/s", "of memcpy", "of nt copy",
              "of socket");
  nlohmann::json rows = nlohmann::json::array();
  for (size_t i = 0; i < std::size(kSizes); ++i) {
    const Samples samples = bench.Run(i, rounds);
    for (const char* name : {"memcpy", "nt copy", "pull first", "pull", "pull+verify", "socket",
                             "tcp", "tcp+verify"}) {
      rows.push_back(Row(kSizes[i], name, samples));
      PrintRow(rows.back());
    }
  }
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
  CLI::App app{"Pull of KV blocks between two processes, next to the machine's limits"};
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

// The SSD tier against the disk it stands on, and against RocksDB's blob files.
//
//   ssd_store_bench DIRECTORY [MIB [RECORDS]]
//
// Subject and reference take turns on files of one size in one directory, so that what else the
// machine does hits both; figures are ratios first. References: io_uring, O_DIRECT, the same pages,
// sizes and depths, nothing verified, by hand and by fio, where that is installed. Bound: a page of
// 1 MiB is checked at some 10 GB/s, that is 0.1 ms of one core, while a disk of 2.4 GB/s takes 0.4
// ms for it.

#include <fcntl.h>
#include <glog/logging.h>
#include <liburing.h>
#include <rocksdb/db.h>
#include <rocksdb/options.h>
#include <rocksdb/statistics.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/memory/block_header.h"
#include "common/runtime/random.h"
#include "common/runtime/real/real_event_loop.h"
#include "kvstore/tier/conformance_harness.h"
#include "kvstore/tier/ssd/slot_file.h"
#include "kvstore/tier/ssd/ssd_index.h"
#include "kvstore/tier/ssd/ssd_store.h"

namespace tarn::kvstore {
namespace {

constexpr int kReadDepth = 32;
constexpr int kWriteDepth = 16;
constexpr int kCalls = 64;  // open at once: as under load, more than the disk has
constexpr int kRounds = 6;
constexpr size_t kTurn = 512;  // slots: long beside what a turn takes to start and to end

const BlockLayout kLayout{.layers = 16,
                          .kv_heads = 8,
                          .head_dim = 64,
                          .block_tokens = 32,
                          .type = KvType::kBf16};  // 1 MiB
const BlockLayout kSmallLayout{.layers = 1, .kv_heads = 1, .head_dim = 16, .block_tokens = 16};

double CpuSeconds() {
  rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) { return t.tv_sec + t.tv_usec * 1e-6; };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

// Bytes, time and CPU time of one side, over all rounds.
struct Meter {
  double bytes = 0;
  double seconds = 0;
  double cpu = 0;

  template <typename Work>
  void Measure(double work_bytes, Work work) {
    const double cpu_begin = CpuSeconds();
    const auto begin = std::chrono::steady_clock::now();
    work();
    seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    cpu += CpuSeconds() - cpu_begin;
    bytes += work_bytes;
  }
  double rate() const { return bytes / seconds; }
};

void Print(const char* what, const Meter& subject, const Meter& raw, const Meter& fio) {
  std::printf("%-28s %6.2f GB/s, CPU %.3f s/GB; io_uring %.2f GB/s (%.3f): ratio %.2f", what,
              subject.rate() / 1e9, subject.cpu / subject.bytes * 1e9, raw.rate() / 1e9,
              raw.cpu / raw.bytes * 1e9, subject.rate() / raw.rate());
  if (fio.bytes > 0) {
    std::printf("; fio %.2f GB/s (%.3f): ratio %.2f", fio.rate() / 1e9, fio.cpu / fio.bytes * 1e9,
                subject.rate() / fio.rate());
  }
  std::printf("\n");
}

// `count` pages of a file of `slots` of its own, at random. What fio counts itself: its start is
// not in it.
void RunFio(const std::string& path, int slots, size_t count, bool write, Meter& meter) {
  const size_t page = kLayout.page_bytes();
  const std::string command = absl::StrCat(
      "fio --name=reference --filename=", path, " --size=", slots * page,
      " --io_size=", count * page, " --bs=", page, " --rw=", write ? "randwrite" : "randread",
      " --iodepth=", write ? kWriteDepth : kReadDepth,
      " --ioengine=io_uring --fixedbufs --direct=1 --thread --output-format=json");
  const std::unique_ptr<FILE, int (*)(FILE*)> pipe(popen(command.c_str(), "r"), &pclose);
  CHECK(pipe != nullptr);
  std::string text;
  char piece[4096];
  while (const size_t size = fread(piece, 1, sizeof(piece), pipe.get())) text.append(piece, size);
  const auto job = nlohmann::json::parse(text.substr(text.find('{'))).at("jobs").at(0);
  CHECK_EQ(job.at("error").get<int>(), 0) << text;
  const auto& side = job.at(write ? "write" : "read");
  const double seconds = side.at("runtime").get<double>() / 1e3;
  meter.bytes += side.at("io_bytes").get<double>();
  meter.seconds += seconds;
  meter.cpu += (job.at("usr_cpu").get<double>() + job.at("sys_cpu").get<double>()) / 100 * seconds;
}

bool HaveFio() {
  if (std::system("command -v fio >/dev/null") == 0) return true;
  std::printf("SKIPPED fio: it is not installed (apt-get install fio)\n");
  return false;
}

// The reference: pages of a file by io_uring, each slot of `order` once.
class RawFile {
 public:
  RawFile(const std::string& path, uint64_t bytes, std::span<std::byte> memory)
      : file_(*SlotFile::Open(path, bytes)), memory_(memory) {
    CHECK_EQ(io_uring_queue_init(64, &ring_, 0), 0);
    iovec buffer{memory.data(), memory.size()};
    fixed_ = io_uring_register_buffers(&ring_, &buffer, 1) == 0;
  }
  ~RawFile() { io_uring_queue_exit(&ring_); }

  void Run(bool write, const std::vector<int32_t>& order) {
    const size_t page = kLayout.page_bytes();
    const size_t depth = write ? kWriteDepth : kReadDepth;
    std::vector<size_t> free(depth);
    std::iota(free.begin(), free.end(), 0);
    size_t started = 0;
    for (size_t ended = 0; ended < order.size();) {
      while (started < order.size() && !free.empty()) {
        io_uring_sqe* entry = io_uring_get_sqe(&ring_);
        std::byte* at = memory_.data() + free.back() * page;
        Prepare(entry, write, at, page, order[started++] * page);
        io_uring_sqe_set_data64(entry, free.back());
        free.pop_back();
      }
      io_uring_submit_and_wait(&ring_, 1);
      io_uring_cqe* cqe;
      while (io_uring_peek_cqe(&ring_, &cqe) == 0) {
        CHECK_EQ(cqe->res, static_cast<int>(page)) << strerror(-cqe->res);
        free.push_back(io_uring_cqe_get_data64(cqe));
        io_uring_cqe_seen(&ring_, cqe);
        ++ended;
      }
    }
  }

 private:
  void Prepare(io_uring_sqe* entry, bool write, std::byte* at, unsigned size, uint64_t offset) {
    const int fd = file_.fd();
    if (write && fixed_) io_uring_prep_write_fixed(entry, fd, at, size, offset, 0);
    if (write && !fixed_) io_uring_prep_write(entry, fd, at, size, offset);
    if (!write && fixed_) io_uring_prep_read_fixed(entry, fd, at, size, offset, 0);
    if (!write && !fixed_) io_uring_prep_read(entry, fd, at, size, offset);
  }

  SlotFile file_;
  const std::span<std::byte> memory_;
  io_uring ring_;
  bool fixed_ = false;
};

// The subject, each slot of `order` once.
class StoreUser {
 public:
  StoreUser(const std::string& directory, int slots, std::span<std::byte> memory)
      : memory_(memory) {
    store_ = *SsdStore::Open({.directory = directory,
                              .capacity_bytes = kLayout.page_bytes() * slots,
                              .layout = kLayout,
                              .read_depth = kReadDepth,
                              .write_depth = kWriteDepth,
                              .memory = {memory}},
                             &driver_.loop());
  }
  ~StoreUser() {
    driver_.OnLoop([this] { store_.reset(); });
  }

  // Pages are sealed once, by page: what is written is the key of its page, over and over.
  void Seal() {
    for (int page = 0; page < kCalls; ++page) SealTestBlock(kLayout, page, Page(page), 1, 32);
  }

  void Run(bool write, const std::vector<int32_t>& order) {
    size_t started = 0;
    size_t ended = 0;
    keys_.resize(store_->slots());
    std::function<void(int)> next = [&](int page) {
      if (started == order.size()) return;
      const int32_t slot = order[started++];
      auto done = [&, page](const absl::Status& status) {
        CHECK(status.ok()) << status;
        if (++ended == order.size()) driver_.Changed();
        next(page);
      };
      if (write) {
        keys_[slot] = page;
        store_->Write(slot, TestRecord(page, 32), Page(page), done);
      } else {
        store_->Read(slot, TestKey(keys_[slot]), Page(page), absl::InfiniteFuture(), done);
      }
    };
    driver_.OnLoop([&] {
      for (int page = 0; page < kCalls; ++page) next(page);
    });
    CHECK(driver_.RunUntil([&] { return ended == order.size(); }));
  }

  BlockStoreStats Stats() {
    BlockStoreStats stats;
    driver_.OnLoop([&] { stats = store_->Stats(); });
    return stats;
  }
  const std::string& io_name() const { return store_->io_name(); }

 private:
  std::span<std::byte> Page(int index) {
    return memory_.subspan(index * kLayout.page_bytes(), kLayout.page_bytes());
  }

  const std::span<std::byte> memory_;
  RealLoopDriver driver_;
  std::vector<int> keys_;
  std::unique_ptr<SsdStore> store_;
};

std::vector<int32_t> Shuffled(int slots, Random& random) {
  std::vector<int32_t> order(slots);
  std::iota(order.begin(), order.end(), 0);
  for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random.UniformInt(i)]);
  return order;
}

void BenchStore(const std::string& directory, int slots) {
  const PlainPages subject_pages(kLayout.page_bytes() * kCalls);
  const PlainPages reference_pages(kLayout.page_bytes() * kReadDepth);
  StoreUser store(directory + "/tier", slots, subject_pages.bytes());
  RawFile raw(directory + "/raw", kLayout.page_bytes() * slots, reference_pages.bytes());
  Random random(1);
  random.Fill(reference_pages.bytes());
  std::printf("%d slots of %zu bytes, %s, depth %d reads, %d writes\n", slots, kLayout.page_bytes(),
              store.io_name().c_str(), kReadDepth, kWriteDepth);
  const bool have_fio = HaveFio();
  int first = 0;
  Meter subject[3];
  Meter reference[3];
  Meter fio[3];
  const auto measure = [&](int kind, bool write) {
    const std::vector<int32_t> order = Shuffled(slots, random);
    if (write) store.Seal();
    for (size_t begin = 0; begin < order.size(); begin += kTurn) {
      const size_t end = std::min(order.size(), begin + kTurn);
      const std::vector<int32_t> turn(order.begin() + begin, order.begin() + end);
      const double bytes = static_cast<double>(kLayout.page_bytes() * turn.size());
      // Each on a file of its own, so that whatever caches below has seen the others meanwhile. Who
      // goes first changes, too.
      for (int i = 0; i < 3; ++i, ++first) {
        if (first % 3 == 0) subject[kind].Measure(bytes, [&] { store.Run(write, turn); });
        if (first % 3 == 1) reference[kind].Measure(bytes, [&] { raw.Run(write, turn); });
        if (first % 3 == 2 && have_fio) {
          RunFio(directory + "/fio", slots, turn.size(), write, fio[kind]);
        }
      }
      ++first;
    }
  };
  measure(0, true);
  for (int round = 0; round < kRounds; ++round) {
    measure(1, true);
    measure(2, false);
  }
  Print("first write (unwritten file)", subject[0], reference[0], fio[0]);
  Print("write", subject[1], reference[1], fio[1]);
  Print("read, verified", subject[2], reference[2], fio[2]);
  const BlockStoreStats stats = store.Stats();
  std::printf("write amplification %.5f\n", static_cast<double>(stats.device_written_bytes) /
                                                static_cast<double>(stats.written_bytes));
}

// The same blocks as values of RocksDB, in its blob files, direct I/O throughout.
void BenchBlobs(const std::string& directory, int slots) {
  rocksdb::Options options;
  options.create_if_missing = true;
  options.statistics = rocksdb::CreateDBStatistics();
  options.compression = rocksdb::kNoCompression;
  options.enable_blob_files = true;
  options.min_blob_size = 4096;
  options.enable_blob_garbage_collection = true;
  options.use_direct_reads = true;
  options.use_direct_io_for_flush_and_compaction = true;
  options.write_buffer_size = 64 << 20;
  options.max_background_jobs = 4;
  rocksdb::DB* opened = nullptr;
  CHECK(rocksdb::DB::Open(options, directory + "/blobs", &opened).ok());
  const std::unique_ptr<rocksdb::DB> db(opened);
  const PlainPages page(kLayout.page_bytes());
  SealTestBlock(kLayout, 1, page.bytes(), 1, 32);
  const double bytes = static_cast<double>(kLayout.page_bytes()) * slots;
  const rocksdb::Slice value(reinterpret_cast<const char*>(page.bytes().data()),
                             page.bytes().size());
  rocksdb::WriteOptions unlogged;
  unlogged.disableWAL = true;  // else every block is written twice
  Random random(2);
  Meter put;
  Meter get;
  for (int round = 0; round < 2; ++round) {
    const std::vector<int32_t> order = Shuffled(slots, random);
    put.Measure(bytes, [&] {
      for (const int32_t slot : order) {
        CHECK(db->Put(unlogged, TestKey(slot).ToBytes(), value).ok());
      }
      CHECK(db->Flush(rocksdb::FlushOptions()).ok());
    });
    get.Measure(bytes, [&] {
      std::vector<std::thread> threads;  // four, for a call takes one until it is done
      for (size_t t = 0; t < 4; ++t) {
        threads.emplace_back([&, t] {
          rocksdb::PinnableSlice found;
          for (size_t i = t; i < order.size(); i += 4) {
            CHECK(db->Get(rocksdb::ReadOptions(), db->DefaultColumnFamily(),
                          TestKey(order[i]).ToBytes(), &found)
                      .ok());
          }
        });
      }
      for (std::thread& thread : threads) thread.join();
    });
  }
  const double written = static_cast<double>(
      options.statistics->getTickerCount(rocksdb::BLOB_DB_BLOB_FILE_BYTES_WRITTEN) +
      options.statistics->getTickerCount(rocksdb::COMPACT_WRITE_BYTES) +
      options.statistics->getTickerCount(rocksdb::FLUSH_WRITE_BYTES));
  std::printf(
      "RocksDB blob files: put %.2f GB/s (CPU %.3f s/GB), get by 4 threads %.2f GB/s (CPU "
      "%.3f s/GB), write amplification %.2f\n",
      put.rate() / 1e9, put.cpu / put.bytes * 1e9, get.rate() / 1e9, get.cpu / get.bytes * 1e9,
      written / put.bytes);
}

void BenchRecover(const std::string& directory, int records) {
  const SsdStoreOptions options{.directory = directory + "/many",
                                .capacity_bytes = kSmallLayout.page_bytes() * records,
                                .layout = kSmallLayout};
  RealLoopDriver driver;
  { CHECK(SsdStore::Open(options, &driver.loop()).ok()); }
  {
    const Superblock superblock{.layout_fingerprint = kSmallLayout.Fingerprint(),
                                .slot_bytes = kSmallLayout.page_bytes(),
                                .layout = kSmallLayout.ToString()};
    const auto index = *SsdIndex::Open(directory + "/many/index", superblock);
    std::vector<SsdIndex::Change> changes;
    for (int slot = 0; slot < records; ++slot) {
      IndexRecord record;
      record.block = TestRecord(slot);
      record.sequence = slot + 1;
      changes.push_back({.slot = slot, .record = Encode(record)});
      if (changes.size() == 256 || slot + 1 == records) {
        CHECK(index->Apply(changes).ok());
        changes.clear();
      }
    }
  }
  for (int round = 0; round < 3; ++round) {
    const auto begin = std::chrono::steady_clock::now();
    std::unique_ptr<SsdStore> store = *SsdStore::Open(options, &driver.loop());
    const auto opened = std::chrono::steady_clock::now();
    bool done = false;
    size_t told = 0;
    driver.OnLoop([&] {
      store->Recover([&](const auto& blocks, double) { told += blocks.size(); },
                     [&](const absl::Status& status) {
                       CHECK(status.ok()) << status;
                       done = true;
                       driver.Changed();
                     });
    });
    CHECK(driver.RunUntil([&] { return done; }));
    CHECK_EQ(told, static_cast<size_t>(records));
    const auto end = std::chrono::steady_clock::now();
    std::printf("start %d: open %.2f s, recover %.2f s: %.2f s for a million blocks\n", round,
                std::chrono::duration<double>(opened - begin).count(),
                std::chrono::duration<double>(end - opened).count(),
                std::chrono::duration<double>(end - begin).count() / records * 1e6);
    driver.OnLoop([&] { store.reset(); });
  }
}

}  // namespace
}  // namespace tarn::kvstore

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "Usage: ssd_store_bench DIRECTORY [MIB [RECORDS]]\n");
    return 2;
  }
  const std::string directory = std::string(argv[1]) + "/ssd_store_bench";
  const int slots = argc > 2 ? std::atoi(argv[2]) : 512;
  const int records = argc > 3 ? std::atoi(argv[3]) : 1'000'000;
  std::filesystem::create_directories(directory);
  tarn::kvstore::BenchStore(directory, slots);
  tarn::kvstore::BenchBlobs(directory, slots);
  tarn::kvstore::BenchRecover(directory, records);
  std::filesystem::remove_all(directory);
}

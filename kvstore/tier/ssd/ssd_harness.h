#pragma once

// SSD stores in a scratch directory, for the conformance suites of block stores and for tests of
// faults.

#include <fcntl.h>
#include <glog/logging.h>
#include <rocksdb/env.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <utility>

#include "kvstore/tier/conformance_harness.h"
#include "kvstore/tier/ssd/fault_io.h"
#include "kvstore/tier/ssd/scratch_directory.h"
#include "kvstore/tier/ssd/ssd_store.h"

namespace tarn::kvstore {

// Flips a bit of a file.
inline void FlipBit(const std::string& path, uint64_t offset) {
  const int fd = open(path.c_str(), O_RDWR);
  PCHECK(fd >= 0) << path;
  char byte = 0;
  PCHECK(pread(fd, &byte, 1, static_cast<off_t>(offset)) == 1);
  byte ^= 1;
  PCHECK(pwrite(fd, &byte, 1, static_cast<off_t>(offset)) == 1);
  // Its direct readers look at the disk.
  PCHECK(fsync(fd) == 0);
  close(fd);
}

class SsdHarness : public PersistentBlockStoreHarness {
 public:
  explicit SsdHarness(SsdStoreOptions::Io io) : io_(io) {}

  LoopDriver& driver() override { return driver_; }
  std::span<std::byte> pages() override { return pages_.bytes(); }
  const std::string& path() const { return directory_.path(); }
  std::string slots_path() const { return path() + "/slots"; }
  FaultControl& faults() { return faults_; }
  rocksdb::Env* env = nullptr;

  SsdStoreOptions Options(const Limits& limits) {
    SsdStoreOptions options{.directory = directory_.path(),
                            .capacity_bytes = layout().page_bytes() * limits.slots + 100,
                            .layout = layout(),
                            .model_fingerprint = 77,
                            .max_reads = limits.max_reads,
                            .max_writes = limits.max_writes,
                            .read_depth = 8,
                            .write_depth = 4,
                            .io = io_,
                            .memory = {pages()}};
    options.index_env = env;
    options.wrap_io = [this](std::unique_ptr<FileIo> io) {
      return std::make_unique<FaultIo>(std::move(io), faults_);
    };
    return options;
  }

  std::unique_ptr<PersistentBlockStore> MakeUnrecovered(const Limits& limits) override {
    faults_.HoldBack(false);
    absl::StatusOr<std::unique_ptr<SsdStore>> store =
        SsdStore::Open(Options(limits), &driver_.loop());
    CHECK(store.ok()) << store.status();
    return *std::move(store);
  }
  void Damage(BlockStore&, int32_t slot, size_t offset) override {
    FlipBit(slots_path(), slot * layout().page_bytes() + offset);
  }
  bool HoldBack(BlockStore&, bool held_back) override {
    faults_.HoldBack(held_back);
    return true;
  }

 private:
  const SsdStoreOptions::Io io_;
  ScratchDirectory directory_;
  PlainPages pages_;
  FaultControl faults_;
  RealLoopDriver driver_;
};

}  // namespace tarn::kvstore

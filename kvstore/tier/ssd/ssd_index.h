#pragma once

// The index of the SSD tier: slot -> record, in RocksDB. Private to ssd/.
//
// By slot and not by key: a slot has one record whatever happens, a scan goes through the file in
// order, and nobody looks a key up here: that is the block table's matter. Nothing is synced, since
// a record that is lost or late costs a miss at most.
//
// Blocks. Thread-compatible: one thread uses it, but for written_bytes.

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kvstore/tier/ssd/index_record.h"

namespace rocksdb {
class DB;
class Env;
class Statistics;
struct Options;
}  // namespace rocksdb

namespace tarn::kvstore {

class SsdIndex {
 public:
  // What happens to one slot. Heat of a record comes after the record.
  struct Change {
    int32_t slot = -1;
    bool erase = false;
    std::optional<std::string> record;  // encoded
    std::optional<SlotHeat> heat;
  };
  // A record with its heat applied; `last_slot` is that of the last record there is.
  using See = std::function<void(int32_t slot, IndexRecord record, int32_t last_slot)>;

  // Opens or makes the index in `directory`. One that is damaged is dropped: then `dropped()`.
  // FAILED_PRECONDITION: another process has it, or it is of another layout, model or format; says
  // what to do. RESOURCE_EXHAUSTED: no space. UNAVAILABLE: cannot be read or written. `env`: for
  // tests, outlives the index.
  static absl::StatusOr<std::unique_ptr<SsdIndex>> Open(const std::string& directory,
                                                        const Superblock& superblock,
                                                        rocksdb::Env* env = nullptr);
  ~SsdIndex();

  // All or nothing. After an error it may be tried again.
  absl::Status Apply(const std::vector<Change>& changes);

  // All records by slot, until `stop` says so. Records that cannot be decoded are erased and
  // counted. DATA_LOSS: the index is damaged.
  absl::Status Scan(const See& see, const std::function<bool()>& stop);

  // Makes it empty, whatever state it is in.
  absl::Status Drop();

  bool dropped() const { return dropped_; }
  uint64_t undecodable() const { return undecodable_; }
  // What the index has written to the device. Thread-safe.
  uint64_t written_bytes() const;

 private:
  SsdIndex(std::string directory, Superblock superblock, rocksdb::Env* env);
  rocksdb::Options MakeOptions() const;
  absl::Status OpenDatabase();
  absl::Status Reopen();
  absl::Status CheckSuperblock();

  const std::string directory_;
  const Superblock superblock_;
  rocksdb::Env* const env_;
  const std::shared_ptr<rocksdb::Statistics> statistics_;
  std::unique_ptr<rocksdb::DB> db_;  // null after a failed write
  bool dropped_ = false;
  uint64_t undecodable_ = 0;
};

}  // namespace tarn::kvstore

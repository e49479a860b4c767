#include "kvstore/tier/ssd/ssd_index.h"

#include <glog/logging.h>
#include <rocksdb/db.h>
#include <rocksdb/env.h>
#include <rocksdb/options.h>
#include <rocksdb/statistics.h>
#include <rocksdb/table.h>
#include <rocksdb/write_batch.h>

#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"

namespace tarn::kvstore {
namespace {

// Keys: what it is, then the slot, big-endian so that they are in order.
constexpr char kRecord = 'r';
constexpr char kHeat = 'h';
constexpr char kSuperblock[] = "superblock";
constexpr size_t kKeySize = 5;

std::string KeyOf(char kind, int32_t slot) {
  const auto number = static_cast<uint32_t>(slot);
  return {kind, static_cast<char>(number >> 24), static_cast<char>(number >> 16),
          static_cast<char>(number >> 8), static_cast<char>(number)};
}

// -1: not a key of this kind.
int32_t SlotOf(char kind, const rocksdb::Slice& key) {
  if (key.size() != kKeySize || key[0] != kind) return -1;
  uint32_t number = 0;
  for (size_t i = 1; i < kKeySize; ++i) number = number << 8 | static_cast<uint8_t>(key[i]);
  return number > INT32_MAX ? -1 : static_cast<int32_t>(number);
}

std::string_view ViewOf(const rocksdb::Slice& slice) { return {slice.data(), slice.size()}; }

bool IsLocked(const rocksdb::Status& status) {
  const std::string text = status.ToString();
  return status.IsIOError() && (text.find("While lock file") != std::string::npos ||
                                text.find("lock hold by current process") != std::string::npos);
}

absl::Status Translate(const rocksdb::Status& status) {
  if (status.ok()) return absl::OkStatus();
  const std::string text = status.ToString();
  if (IsLocked(status)) return absl::FailedPreconditionError(text);
  if (status.IsNoSpace()) return absl::ResourceExhaustedError(text);
  // A file that the manifest names and that is not there.
  const bool missing = status.subcode() == rocksdb::Status::kPathNotFound;
  if (status.IsIOError() && !missing) return absl::UnavailableError(text);
  return absl::DataLossError(text);
}

}  // namespace

SsdIndex::SsdIndex(std::string directory, Superblock superblock, rocksdb::Env* env)
    : directory_(std::move(directory)),
      superblock_(std::move(superblock)),
      env_(env),
      statistics_(rocksdb::CreateDBStatistics()) {}

SsdIndex::~SsdIndex() = default;

rocksdb::Options SsdIndex::MakeOptions() const {
  rocksdb::Options options;
  options.create_if_missing = true;
  if (env_ != nullptr) options.env = env_;
  options.statistics = statistics_;
  options.write_buffer_size = 16 << 20;
  options.max_background_jobs = 2;
  options.compression = rocksdb::kNoCompression;
  options.info_log_level = rocksdb::WARN_LEVEL;
  options.keep_log_file_num = 2;
  options.max_bgerror_resume_count = 0;  // see Apply
  options.stats_dump_period_sec = 0;
  options.stats_persist_period_sec = 0;
  // Scans, and no look-ups: a cache would hold nothing of use.
  rocksdb::BlockBasedTableOptions table;
  table.no_block_cache = true;
  table.block_size = 32 << 10;
  options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  return options;
}

absl::StatusOr<std::unique_ptr<SsdIndex>> SsdIndex::Open(const std::string& directory,
                                                         const Superblock& superblock,
                                                         rocksdb::Env* env) {
  std::unique_ptr<SsdIndex> index(new SsdIndex(directory, superblock, env));
  absl::Status status = index->OpenDatabase();
  if (status.ok()) status = index->CheckSuperblock();
  if (absl::IsDataLoss(status)) {
    LOG(ERROR) << "SSD tier: the index in " << directory << " is damaged (" << Message(status)
               << "): it is dropped, and the tier starts empty";
    status = index->Drop();
  }
  if (!status.ok()) return status;
  return index;
}

absl::Status SsdIndex::OpenDatabase() {
  rocksdb::DB* db = nullptr;
  const rocksdb::Status status = rocksdb::DB::Open(MakeOptions(), directory_, &db);
  db_.reset(db);
  if (IsLocked(status)) {
    return absl::FailedPreconditionError(
        absl::StrCat(directory_, " is in use by another process: give each its own directory (",
                     status.ToString(), ")"));
  }
  return Annotate(Translate(status), absl::StrCat("the index in ", directory_));
}

absl::Status SsdIndex::CheckSuperblock() {
  std::string bytes;
  const rocksdb::Status got = db_->Get(rocksdb::ReadOptions(), kSuperblock, &bytes);
  if (got.IsNotFound()) {
    // Nothing else is written before it, so there is nothing else.
    return Translate(db_->Put(rocksdb::WriteOptions(), kSuperblock, Encode(superblock_)));
  }
  RETURN_IF_ERROR(Translate(got));
  ASSIGN_OR_RETURN(const Superblock found, DecodeSuperblock(bytes));
  if (found == superblock_) return absl::OkStatus();
  const std::string advice = ": use another directory, or remove this one";
  if (found.format != superblock_.format) {
    return absl::FailedPreconditionError(absl::StrCat(directory_, " has format ", found.format,
                                                      ", not ", superblock_.format, advice));
  }
  if (found.model_fingerprint != superblock_.model_fingerprint) {
    return absl::FailedPreconditionError(absl::StrCat(
        directory_, " holds blocks of another model (", absl::Hex(found.model_fingerprint),
        ", this node's is ", absl::Hex(superblock_.model_fingerprint), ")", advice));
  }
  return absl::FailedPreconditionError(
      absl::StrCat(directory_, " holds blocks of another layout: ", found.layout,
                   ", this node's is ", superblock_.layout, advice));
}

absl::Status SsdIndex::Drop() {
  dropped_ = true;
  db_.reset();
  const rocksdb::Status destroyed = rocksdb::DestroyDB(directory_, MakeOptions());
  if (!destroyed.ok()) {
    if (IsLocked(destroyed)) return Translate(destroyed);
    // What is in the way of RocksDB itself, such as a file of its name that is none of its own.
    std::error_code ignored;
    std::filesystem::remove_all(directory_, ignored);
  }
  RETURN_IF_ERROR(OpenDatabase());
  return CheckSuperblock();
}

absl::Status SsdIndex::Apply(const std::vector<Change>& changes) {
  if (db_ == nullptr) RETURN_IF_ERROR(Reopen());
  rocksdb::WriteBatch batch;
  for (const Change& change : changes) {
    const std::string record = KeyOf(kRecord, change.slot);
    const std::string heat = KeyOf(kHeat, change.slot);
    if (change.erase) {
      batch.Delete(record);
      batch.Delete(heat);
    }
    if (change.record.has_value()) batch.Put(record, *change.record);
    if (change.heat.has_value()) batch.Put(heat, Encode(*change.heat));
  }
  const rocksdb::Status status = db_->Write(rocksdb::WriteOptions(), &batch);
  // It takes no more writes after this. Not Resume: in Debian's build, which has its assertions on,
  // that ends the process where it was the log that failed.
  if (!status.ok()) db_.reset();
  return Translate(status);
}

absl::Status SsdIndex::Reopen() {
  const absl::Status status = OpenDatabase();
  if (!absl::IsDataLoss(status)) return status;
  LOG(ERROR) << "SSD tier: the index is damaged after failed writes (" << Message(status)
             << "): it is dropped";
  return Drop();
}

absl::Status SsdIndex::Scan(const See& see, const std::function<bool()>& stop) {
  if (db_ == nullptr) RETURN_IF_ERROR(Reopen());
  rocksdb::ReadOptions options;
  options.readahead_size = 4 << 20;
  options.verify_checksums = true;
  const std::unique_ptr<rocksdb::Iterator> records(db_->NewIterator(options));
  const std::unique_ptr<rocksdb::Iterator> heats(db_->NewIterator(options));
  records->SeekForPrev(KeyOf(kRecord, INT32_MAX));
  const int32_t last = records->Valid() ? SlotOf(kRecord, records->key()) : -1;
  std::vector<Change> bad;
  heats->Seek(KeyOf(kHeat, 0));
  for (records->Seek(KeyOf(kRecord, 0)); records->Valid() && !stop(); records->Next()) {
    const int32_t slot = SlotOf(kRecord, records->key());
    if (slot < 0) break;
    absl::StatusOr<IndexRecord> record = DecodeIndexRecord(ViewOf(records->value()));
    if (!record.ok()) {
      bad.push_back({.slot = slot, .erase = true});
      continue;
    }
    int32_t hot = -1;
    while (heats->Valid() && (hot = SlotOf(kHeat, heats->key())) >= 0 && hot < slot) heats->Next();
    if (hot == slot && heats->Valid()) {
      const absl::StatusOr<SlotHeat> heat = DecodeSlotHeat(ViewOf(heats->value()));
      if (heat.ok() && heat->sequence == record->sequence) {
        record->block.last_use = heat->last_use;
        record->block.uses = heat->uses;
      }
    }
    see(slot, *std::move(record), last);
  }
  RETURN_IF_ERROR(Translate(records->status()));
  RETURN_IF_ERROR(Translate(heats->status()));
  undecodable_ += bad.size();
  return bad.empty() ? absl::OkStatus() : Apply(bad);
}

uint64_t SsdIndex::written_bytes() const {
  return statistics_->getTickerCount(rocksdb::WAL_FILE_BYTES) +
         statistics_->getTickerCount(rocksdb::FLUSH_WRITE_BYTES) +
         statistics_->getTickerCount(rocksdb::COMPACT_WRITE_BYTES);
}

}  // namespace tarn::kvstore

#include "kvstore/tier/ssd/index_writer.h"

#include <glog/logging.h>
#include <pthread.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "common/base/status.h"

namespace tarn::kvstore {
namespace {

constexpr size_t kScanBatch = 4096;
// A batch waits so long for company, or for so many changes.
constexpr auto kBatchDelay = std::chrono::milliseconds(5);
constexpr size_t kBatch = 256;
// One of heat alone.
constexpr auto kHeatDelay = std::chrono::seconds(1);
constexpr size_t kHeatBatch = 4096;

// `later` on top of what waits for its slot.
void Merge(SsdIndex::Change& waiting, SsdIndex::Change later) {
  if (later.erase || later.record.has_value()) {
    waiting = std::move(later);
  } else {
    waiting.heat = later.heat;
  }
}

}  // namespace

IndexWriter::IndexWriter(std::unique_ptr<SsdIndex> index, int slots, int file_slots,
                         absl::Duration retry)
    : index_(std::move(index)), file_slots_(file_slots), retry_(retry), uses_(slots) {
  if (index_->dropped()) ++indexes_dropped_;
  thread_ = std::thread([this] { Run(); });
  pthread_setname_np(thread_.native_handle(), "ssd-index");
}

IndexWriter::~IndexWriter() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    changed_.notify_all();
  }
  thread_.join();
}

void IndexWriter::Recover(OnRecovered recovered, std::function<void(absl::Status)> done) {
  MutexLock lock(mutex_);
  recovered_ = std::move(recovered);
  recover_done_ = std::move(done);
  recovering_ = true;
  changed_.notify_all();
}

void IndexWriter::Taken() {
  MutexLock lock(mutex_);
  --ahead_;
  changed_.notify_all();
}

void IndexWriter::Put(int32_t slot, IndexRecord record) {
  MutexLock lock(mutex_);
  record.sequence = ++last_sequence_;
  uses_[slot] = {record.sequence, record.block.uses};
  Want({.slot = slot, .record = Encode(record)});
}

void IndexWriter::Erase(int32_t slot) {
  MutexLock lock(mutex_);
  Want({.slot = slot, .erase = true});
}

void IndexWriter::Want(SsdIndex::Change change) {
  SsdIndex::Change& waiting = pending_[change.slot];
  if (!waiting.erase && !waiting.record.has_value()) ++urgent_;
  waiting = std::move(change);
  // Else the thread is awake, or wakes by itself soon.
  if (urgent_ == 1 || urgent_ == kBatch) changed_.notify_all();
}

void IndexWriter::Touch(int32_t slot, absl::Time now) {
  MutexLock lock(mutex_);
  Use& use = uses_[slot];
  SsdIndex::Change& change = pending_[slot];
  change.slot = slot;
  change.heat = SlotHeat{use.sequence, now, ++use.uses};
  if (pending_.size() >= kHeatBatch) changed_.notify_all();
}

bool IndexWriter::stopping() const {
  MutexLock lock(mutex_);
  return stopping_;
}

void IndexWriter::Run() {
  while (true) {
    std::vector<SsdIndex::Change> batch = NextBatch();
    if (RunRecover()) continue;
    if (batch.empty()) {
      if (stopping()) return;
      continue;
    }
    const absl::Status status = index_->Apply(batch);
    if (status.ok()) continue;
    ++errors_;
    LOG_EVERY_N(ERROR, 60) << "SSD tier: the index cannot be written (" << status
                           << "); blocks written meanwhile are lost at a restart";
    if (stopping()) return;
    PutBack(std::move(batch));
  }
}

// How long what waits may wait.
std::chrono::nanoseconds IndexWriter::Patience() const {
  if (stopping_ || recovering_) return std::chrono::nanoseconds(0);
  if (failed_) return absl::ToChronoNanoseconds(retry_);
  if (urgent_ >= kBatch || pending_.size() >= kHeatBatch) return std::chrono::nanoseconds(0);
  return urgent_ > 0 ? std::chrono::nanoseconds(kBatchDelay) : kHeatDelay;
}

std::vector<SsdIndex::Change> IndexWriter::NextBatch() {
  MutexLock lock(mutex_);
  const auto begin = std::chrono::steady_clock::now();
  while (Patience() > std::chrono::steady_clock::now() - begin) {
    changed_.wait_until(mutex_, begin + Patience());
  }
  failed_ = false;
  std::vector<SsdIndex::Change> batch;
  if (recovering_) return batch;  // first
  batch.reserve(pending_.size());
  for (auto& [slot, change] : pending_) batch.push_back(std::move(change));
  pending_.clear();
  urgent_ = 0;
  return batch;
}

void IndexWriter::PutBack(std::vector<SsdIndex::Change> changes) {
  MutexLock lock(mutex_);
  failed_ = true;
  for (SsdIndex::Change& change : changes) {
    SsdIndex::Change& waiting = pending_[change.slot];
    SsdIndex::Change later = std::exchange(waiting, std::move(change));
    if (later.slot >= 0) Merge(waiting, std::move(later));
  }
  urgent_ = 0;
  for (const auto& [slot, change] : pending_) {
    urgent_ += change.erase || change.record.has_value() ? 1 : 0;
  }
}

// Records of one scan, handed on in batches.
class IndexWriter::Scan {
 public:
  explicit Scan(IndexWriter& writer) : writer_(writer) {}

  void See(int32_t slot, IndexRecord record, int32_t last_slot) {
    if (slot >= writer_.file_slots_) {
      gone_.push_back({.slot = slot, .erase = true});
      return;
    }
    {
      MutexLock lock(writer_.mutex_);
      writer_.uses_[slot] = {record.sequence, record.block.uses};
      writer_.last_sequence_ = std::max(writer_.last_sequence_, record.sequence);
    }
    batch_.push_back({slot, std::move(record)});
    percent_ = 100.0 * (slot + 1.0) / (last_slot + 1.0);
    if (batch_.size() >= kScanBatch) HandOn();
  }

  void HandOn() {
    if (batch_.empty()) return;
    writer_.WaitForTaken();
    writer_.recovered_(std::exchange(batch_, {}), percent_);
    batch_.reserve(kScanBatch);
  }

  const std::vector<SsdIndex::Change>& gone() const { return gone_; }

 private:
  IndexWriter& writer_;
  std::vector<Recovered> batch_;
  std::vector<SsdIndex::Change> gone_;
  double percent_ = 0;
};

void IndexWriter::WaitForTaken() {
  MutexLock lock(mutex_);
  while (ahead_ >= kAhead && !stopping_) changed_.wait(mutex_);
  ++ahead_;
}

bool IndexWriter::RunRecover() {
  {
    MutexLock lock(mutex_);
    if (!std::exchange(recovering_, false)) return false;
  }
  Scan scan(*this);
  absl::Status status = index_->Scan([&](int32_t slot, IndexRecord record,
                                         int32_t last) { scan.See(slot, std::move(record), last); },
                                     [this] { return stopping(); });
  scan.HandOn();
  if (status.ok() && !scan.gone().empty()) status = index_->Apply(scan.gone());
  records_dropped_ += scan.gone().size() + index_->undecodable();
  if (!scan.gone().empty()) {
    LOG(WARNING) << "SSD tier: " << scan.gone().size()
                 << " blocks of the index lie behind the end of the slot file: dropped";
  }
  if (index_->undecodable() > 0) {
    LOG(WARNING) << "SSD tier: " << index_->undecodable() << " records of the index are damaged:"
                 << " dropped";
  }
  if (absl::IsDataLoss(status)) {
    LOG(ERROR) << "SSD tier: the index is damaged (" << Message(status)
               << "): it is dropped; blocks that were found before serve until the next start";
    ++indexes_dropped_;
    status = index_->Drop();
  }
  if (absl::IsResourceExhausted(status)) status = absl::OkStatus();  // only tidying failed
  recover_done_(status);
  return true;
}

}  // namespace tarn::kvstore

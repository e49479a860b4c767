#include "kvstore/client/write_back.h"

#include <algorithm>
#include <utility>

namespace tarn::kvstore {

WriteBack::WriteBack(int margin, EventLoop* loop, CacheTier* from, std::vector<CacheTier*> below,
                     TierFeeder* feeder)
    : margin_(margin),
      loop_(loop),
      from_(from),
      below_(std::move(below)),
      feeder_(feeder),
      wanted_(from->table().pages(), UINT64_MAX) {}

void WriteBack::OnWent(const BlockKey& key) {
  const bool kept = std::any_of(below_.begin(), below_.end(), [&key](const CacheTier* tier) {
    return tier->Has(key) || tier->Arriving(key);
  });
  if (!kept) ++overtaken_;
  LookSoon();
}

// Later: a block that is being published or evicted is in the middle of that.
void WriteBack::LookSoon() {
  if (timer_ != 0) return;
  timer_ = loop_->PostAfter(absl::ZeroDuration(), [this] {
    timer_ = 0;
    Look();
  });
}

void WriteBack::Look() {
  BlockTable& table = from_->table();
  const int missing = margin_ - table.free_pages();
  if (missing <= 0) return;
  for (int32_t page : table.NextVictims(missing, loop_->Now())) WantCopy(page);
}

void WriteBack::WantCopy(int32_t page) {
  const BlockTable& table = from_->table();
  const CacheTier& to = *below_.front();
  if (to.Has(table.key(page)) || to.Arriving(table.key(page))) return;
  if (std::exchange(wanted_[page], table.epoch(page)) == table.epoch(page)) return;
  BlockRecord record = from_->RecordOf(page);
  record.last_use = table.last_use(page);
  feeder_->Want(record);
}

}  // namespace tarn::kvstore

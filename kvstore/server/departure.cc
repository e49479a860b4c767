#include "kvstore/server/departure.h"

#include <algorithm>
#include <utility>
#include <vector>

namespace tarn::kvstore {

Departure::Departure(const DepartureOptions& options, EventLoop* loop, NodePool* pool,
                     Neighbours neighbours, Done done)
    : options_(options),
      loop_(loop),
      pool_(pool),
      neighbours_(std::move(neighbours)),
      done_(std::move(done)),
      start_(loop->Now()),
      // More than the others have room for would push out what they took first.
      heirlooms_(std::min(options.max_blocks, neighbours_.room())) {
  After(absl::ZeroDuration(), [this] {
    if (Alone()) {
      return Finish({.alone = true, .left = static_cast<size_t>(pool_->Stats().hbm_cached)});
    }
    ReadPart();
  });
}

void Departure::After(absl::Duration delay, std::function<void()> step) {
  timer_ = loop_->PostAfter(delay, std::move(step));
}

bool Departure::Alone() const {
  const std::vector<StoreView> stores = neighbours_.stores(pool_->Stats());
  return std::none_of(stores.begin(), stores.end(), [this](const StoreView& store) {
    return store.node != options_.self && store.weight > 0;
  });
}

bool Departure::Elsewhere(const BlockKey& key) const {
  return HoldersOf(neighbours_, key, options_.self).staying > 0;
}

void Departure::ReadPart() {
  std::vector<InventoryChange> blocks;
  cursor_ = pool_->ReadInventory(cursor_, options_.part_pages, &blocks);
  for (const InventoryChange& block : blocks) List(block);
  if (cursor_ == 0) return BeginOffers();
  After(absl::ZeroDuration(), [this] { ReadPart(); });
}

void Departure::List(const InventoryChange& block) {
  const auto local = pool_->FindLocal(block.key);
  // A block in two tiers is listed once.
  if (!local.has_value() || local->tier != block.tier || Elsewhere(block.key)) return;
  ++only_here_;
  heirlooms_.Add({.key = block.key,
                  .in_memory = local->tier != Tier::kSsd,
                  .worth = local->worth.value_or(0),
                  .last_use = local->last_use,
                  .position = local->traits.position});
}

void Departure::BeginOffers() {
  HandOverOptions options = options_.hand_over;
  options.limit -= loop_->Now() - start_;
  hand_over_ = std::make_unique<HandOver>(options, heirlooms_.Take(), loop_->Now());
  Look();
}

void Departure::Look() {
  const std::vector<BlockKey> offered =
      hand_over_->Next([this](const BlockKey& key) { return Elsewhere(key); }, loop_->Now());
  for (const BlockKey& key : offered) pool_->AnnounceAgain(key);
  if (hand_over_->end() == HandOver::End::kNotYet) {
    return After(options_.poll, [this] { Look(); });
  }
  Finish({.end = hand_over_->end(),
          .taken = hand_over_->taken(),
          .left = only_here_ - hand_over_->taken()});
}

void Departure::Finish(const DepartureOutcome& outcome) { done_(outcome); }

}  // namespace tarn::kvstore

#include "kvstore/directory/block_index.h"

#include <algorithm>
#include <array>
#include <utility>

#include "kvstore/core/draw.h"
#include "kvstore/directory/who.h"

namespace tarn::kvstore {
namespace {

constexpr uint64_t kUnit = 4096;       // of offsets
constexpr size_t kWideBytes = 160;     // an entry of the side table at worst, while it grows
constexpr size_t kSweptPerChange = 8;  // lines
constexpr size_t kMaxLives = 65535;
constexpr size_t kLeastBytes = size_t{4} << 20;

bool IsWide(const BlockAddress& address) {
  constexpr uint64_t kMax = std::numeric_limits<uint32_t>::max();
  return address.region > who::kMaxRegion || address.epoch > kMax || address.offset % kUnit != 0 ||
         address.offset / kUnit > kMax;
}

}  // namespace

BlockIndex::BlockIndex(const BlockIndexOptions& options)
    : pool_(std::make_unique<PiecePool>(std::max(options.max_bytes, kLeastBytes))),
      table_(pool_.get(), options.seed),
      lists_(pool_.get()),
      lives_(1) {}

// Nodes.

void BlockIndex::Join(const IndexedNode& node) {
  Number old = NumberOf(node.node);
  if (old != 0 && lives_[old].info.incarnation == node.incarnation) {
    lives_[old].info = node;
    return;
  }
  if (old != 0) Leave(node.node, lives_[old].info.incarnation);
  if (Number number = NewLife(node); number != 0) numbers_[node.node] = number;
  RankNodes();
}

void BlockIndex::Leave(const NodeId& node, Incarnation incarnation) {
  auto it = numbers_.find(node);
  if (it == numbers_.end() || lives_[it->second].info.incarnation != incarnation) return;
  EndLife(it->second);
  numbers_.erase(it);
}

void BlockIndex::Clear(const NodeId& node) {
  auto it = numbers_.find(node);
  if (it == numbers_.end() || lives_[it->second].places == 0) return;
  IndexedNode info = lives_[it->second].info;
  EndLife(it->second);
  it->second = NewLife(info);
  if (it->second == 0) numbers_.erase(it);
  RankNodes();
}

BlockIndex::Number BlockIndex::NewLife(const IndexedNode& node) {
  if (free_numbers_.empty()) {
    if (lives_.size() > kMaxLives) return 0;
    free_numbers_.push_back(static_cast<Number>(lives_.size()));
    lives_.emplace_back();
  }
  Number number = free_numbers_.back();
  free_numbers_.pop_back();
  lives_[number] = {.info = node, .draw = DrawOf(node.node.value()), .live = true};
  return number;
}

void BlockIndex::EndLife(Number number) {
  Life& life = lives_[number];
  life.live = false;
  places_ -= life.places;
  unswept_ += life.places;
  if (life.places == 0) free_numbers_.push_back(number);
}

void BlockIndex::RankNodes() {
  uint32_t rank = 0;
  for (const auto& [node, number] : numbers_) lives_[number].rank = rank++;
}

BlockIndex::Number BlockIndex::NumberOf(const NodeId& node) const {
  auto it = numbers_.find(node);
  return it == numbers_.end() ? Number{0} : it->second;
}

// Updates.

void BlockIndex::Apply(const NodeId& node, std::span<const InventoryChange> changes) {
  constexpr size_t kAhead = 12;
  Number number = NumberOf(node);
  if (number == 0) return;
  for (size_t i = 0; i < std::min(kAhead, changes.size()); ++i) {
    KeyTable::PrefetchForWrite(table_.Locate(changes[i].key));
  }
  for (size_t i = 0; i < changes.size(); ++i) {
    if (i + kAhead < changes.size()) {
      KeyTable::PrefetchForWrite(table_.Locate(changes[i + kAhead].key));
    }
    changes[i].added ? Add(number, changes[i]) : Remove(number, changes[i]);
    Sweep(kSweptPerChange);
  }
}

void BlockIndex::Add(Number number, const InventoryChange& change) {
  Ref ref = table_.Find(change.key);
  if (ref && sweeping() && !Clean(ref)) ref = Ref();
  Place place = ref ? PlaceOf(ref, number, change.tier) : Place();
  if (place.who == nullptr) place = AddPlace(ref, change.key, number, change.tier);
  if (place.who == nullptr) {
    ++refused_;
  } else if (!SetAddress(place, change.key, change.address)) {
    ++refused_;
    Remove(number, change);
  }
}

void BlockIndex::Remove(Number number, const InventoryChange& change) {
  Ref ref = table_.Find(change.key);
  if (!ref) return;
  std::span<const uint32_t> all = WhoOf(ref);
  uint32_t wanted = who::Make(number, change.tier);
  for (uint32_t at = 0; at < all.size(); ++at) {
    if ((all[at] & who::kPlaceMask) == wanted) return RemovePlace(ref, at);
  }
}

BlockIndex::Place BlockIndex::PlaceOf(const Ref& ref, Number number, Tier tier) {
  uint32_t wanted = who::Make(number, tier);
  if (!who::IsList(ref.who())) {
    bool same = (ref.who() & who::kPlaceMask) == wanted;
    return same ? Place{&ref.who(), &ref.spot()} : Place();
  }
  ListRef list = who::ListOf(ref.who());
  std::span<uint32_t> all = lists_.Who(list);
  for (uint32_t at = 0; at < all.size(); ++at) {
    if ((all[at] & who::kPlaceMask) == wanted) return {&all[at], &lists_.SpotAt(list, at)};
  }
  return {};
}

BlockIndex::Place BlockIndex::AddPlace(Ref ref, const BlockKey& key, Number number, Tier tier) {
  uint32_t added = who::Make(number, tier);
  Place place;
  if (!ref) {
    ref = table_.Insert(key, [this](const Ref& lost) { ForgetAll(lost); });
    if (!ref) return {};
    ref.who() = added;
    place = {&ref.who(), &ref.spot()};
  } else {
    ListRef list = 0;
    if (who::IsList(ref.who())) {
      list = who::ListOf(ref.who());
      if (!lists_.Append(list, added, Spot())) return {};
    } else {
      list = lists_.Create(ref.who(), ref.spot(), added, Spot());
      if (list == 0) return {};
    }
    ref.who() = who::kList | list;
    std::span<uint32_t> all = lists_.Who(list);
    place = {&all.back(), &lists_.SpotAt(list, static_cast<uint32_t>(all.size() - 1))};
  }
  ++lives_[number].places;
  ++places_;
  return place;
}

bool BlockIndex::SetAddress(const Place& place, const BlockKey& key, const BlockAddress& address) {
  bool was_wide = (*place.who & who::kWide) != 0;
  *place.who &= who::kPlaceMask;
  WideKey wide{key, who::NumberOf(*place.who), who::TierOf(*place.who)};
  if (!IsWide(address)) {
    *place.who |= address.region << who::kRegionShift;
    *place.spot = {static_cast<uint32_t>(address.offset / kUnit),
                   static_cast<uint32_t>(address.epoch)};
    if (was_wide) {
      wide_.erase(wide);
      pool_->Discharge(kWideBytes);
    }
    return true;
  }
  if (!was_wide && !pool_->Charge(kWideBytes)) return false;
  *place.who |= who::kWide;
  wide_[wide] = address;
  return true;
}

void BlockIndex::RemovePlace(const Ref& ref, uint32_t at) {
  if (!who::IsList(ref.who())) {
    Forget(ref.who(), ref.key());
    return table_.Erase(ref);
  }
  ListRef list = who::ListOf(ref.who());
  Forget(lists_.Who(list)[at], ref.key());
  lists_.RemoveAt(list, at);
  ref.who() = who::kList | list;
  if (lists_.Who(list).size() > 1) return;
  ref.who() = lists_.Who(list)[0];
  ref.spot() = lists_.SpotAt(list, 0);
  lists_.Destroy(list);
}

void BlockIndex::Forget(uint32_t who, const BlockKey& key) {
  Number number = who::NumberOf(who);
  if ((who & who::kWide) != 0) {
    wide_.erase({key, number, who::TierOf(who)});
    pool_->Discharge(kWideBytes);
  }
  Life& life = lives_[number];
  --life.places;
  --(life.live ? places_ : unswept_);
  if (!life.live && life.places == 0) free_numbers_.push_back(number);
}

void BlockIndex::ForgetAll(const Ref& ref) {
  std::span<const uint32_t> all = WhoOf(ref);
  refused_ += all.size();
  for (uint32_t who : all) Forget(who, ref.key());
  if (who::IsList(ref.who())) lists_.Destroy(who::ListOf(ref.who()));
}

void BlockIndex::Sweep(size_t lines) {
  if (!sweeping()) return;
  table_.Sweep(lines, [this](const Ref& ref) { Clean(ref); });
}

bool BlockIndex::Clean(const Ref& ref) {
  for (uint32_t at = static_cast<uint32_t>(WhoOf(ref).size()); at-- > 0;) {
    bool last = !who::IsList(ref.who());
    if (lives_[who::NumberOf(WhoOf(ref)[at])].live) continue;
    RemovePlace(ref, at);
    if (last) return false;
  }
  return true;
}

// Questions.

std::span<const uint32_t> BlockIndex::WhoOf(const Ref& ref) const {
  if (who::IsList(ref.who())) return lists_.Who(who::ListOf(ref.who()));
  return {&ref.who(), 1};
}

const Spot& BlockIndex::SpotOf(const Ref& ref, uint32_t at) const {
  return who::IsList(ref.who()) ? lists_.SpotAt(who::ListOf(ref.who()), at) : ref.spot();
}

BlockAddress BlockIndex::AddressOf(const Ref& ref, uint32_t at) const {
  uint32_t who = WhoOf(ref)[at];
  if ((who & who::kWide) != 0) {
    return wide_.find({ref.key(), who::NumberOf(who), who::TierOf(who)})->second;
  }
  const Spot& spot = SpotOf(ref, at);
  return {who::RegionOf(who), spot.offset * kUnit, spot.epoch};
}

std::vector<BlockSource> BlockIndex::Sources(const BlockKey& key, const NodeId& reader,
                                             size_t max) const {
  std::vector<BlockSource> sources;
  Ref ref = table_.Find(key);
  if (!ref) return sources;
  std::span<const uint32_t> all = WhoOf(ref);
  const Number own = NumberOf(reader);
  const uint64_t draw = DrawOf(DrawOf(reader.value()), key);
  // (tier and draw, index): numbers, so that a hundred holders cost little.
  std::vector<std::pair<uint64_t, uint32_t>> order;
  for (uint32_t at = 0; at < all.size(); ++at) {
    Number number = who::NumberOf(all[at]);
    if (number == own || !lives_[number].live) continue;
    const uint64_t tier = static_cast<uint64_t>(who::TierOf(all[at]));
    order.emplace_back(tier << 62 | MixBits(draw ^ lives_[number].draw) >> 2, at);
  }
  max = std::min(max, order.size());
  std::partial_sort(order.begin(), order.begin() + static_cast<int64_t>(max), order.end());
  for (size_t i = 0; i < max; ++i) {
    uint32_t who = all[order[i].second];
    const IndexedNode& info = lives_[who::NumberOf(who)].info;
    sources.push_back({info.node, info.incarnation, info.rpc_address, who::TierOf(who),
                       AddressOf(ref, order[i].second)});
  }
  return sources;
}

int BlockIndex::HoldersOf(const BlockKey& key, const NodeId& except) const {
  Ref ref = table_.Find(key);
  if (!ref) return 0;
  Number excepted = NumberOf(except);
  std::vector<Number> holders;
  for (uint32_t who : WhoOf(ref)) {
    Number number = who::NumberOf(who);
    if (number != excepted && lives_[number].live) holders.push_back(number);
  }
  std::sort(holders.begin(), holders.end());
  return static_cast<int>(std::unique(holders.begin(), holders.end()) - holders.begin());
}

uint64_t BlockIndex::Walk(uint64_t cursor, size_t max, Visitor visit) const {
  return table_.Walk(cursor, max, [&](const Ref& ref) {
    InventoryChange change{.added = true, .key = ref.key()};
    std::span<const uint32_t> all = WhoOf(ref);
    for (uint32_t at = 0; at < all.size(); ++at) {
      const Life& life = lives_[who::NumberOf(all[at])];
      if (!life.live) continue;
      change.tier = who::TierOf(all[at]);
      change.address = AddressOf(ref, at);
      visit(life.info, change);
    }
  });
}

BlockIndexStats BlockIndex::Stats() const {
  return {pool_->bytes(), pool_->max_bytes(), table_.size(), places_, unswept_, refused_};
}

size_t BlockIndex::BlocksOf(const NodeId& node) const { return lives_[NumberOf(node)].places; }

}  // namespace tarn::kvstore

#include "kvstore/directory/key_table.h"

#include <glog/logging.h>

#include <algorithm>
#include <bitset>
#include <utility>

namespace tarn::kvstore {

BlockKey KeyTable::Ref::key() const {
  BlockKey key;
  std::memcpy(key.bytes.data(), &line->keys[at], key.bytes.size());
  return key;
}

int KeyTable::FreeIn(const Line& line) {
  for (int at = 0; at < kLineKeys; ++at) {
    if (line.who[at] == 0) return at;
  }
  return -1;
}

KeyTable::Ref KeyTable::Find(const Key& key, const Home& home) {
  if (home.piece == nullptr) return {};
  Ref found = FindIn(home.piece, home.first, key);
  if (found || LineAt(home.piece, home.first)->spilled == 0) return found;
  return FindIn(home.piece, home.second, key);
}

void KeyTable::FindAll(std::span<const BlockKey> keys, std::span<Ref> refs) const {
  std::array<Home, kBatch> homes;
  std::array<size_t, kBatch> spilled;
  size_t spills = 0;
  for (size_t i = 0; i < keys.size(); ++i) {
    homes[i] = Locate(keys[i]);
    if (homes[i].piece != nullptr) __builtin_prefetch(LineAt(homes[i].piece, homes[i].first));
  }
  for (size_t i = 0; i < keys.size(); ++i) {
    refs[i] = {};
    if (homes[i].piece == nullptr) continue;
    refs[i] = FindIn(homes[i].piece, homes[i].first, FromBytes(keys[i]));
    if (refs[i] || LineAt(homes[i].piece, homes[i].first)->spilled == 0) continue;
    __builtin_prefetch(LineAt(homes[i].piece, homes[i].second));
    spilled[spills++] = i;
  }
  for (size_t i : std::span(spilled.data(), spills)) {
    refs[i] = FindIn(homes[i].piece, homes[i].second, FromBytes(keys[i]));
  }
}

KeyTable::Ref KeyTable::Insert(const BlockKey& key, Lost lost) {
  if (!MakeRoom(lost)) return {};
  Key words = FromBytes(key);
  Ref ref = Place(words, HomeOf(Hash(words)));
  if (ref) ++size_;
  return ref;
}

KeyTable::Ref KeyTable::Place(const Key& key, const Home& home) {
  for (int attempt = 0; attempt < 2; ++attempt) {
    for (uint32_t number : {home.first, home.second}) {
      Line* line = LineAt(home.piece, number);
      int at = FreeIn(*line);
      if (at < 0) continue;
      line->keys[at] = key;
      if (number != home.first) ++LineAt(home.piece, home.first)->spilled;
      return RefAt(home.piece, number, at);
    }
    if (!Displace(home)) break;
  }
  return {};
}

void KeyTable::MoveEntry(std::byte* piece, uint32_t from, int from_at, uint32_t to, int to_at) {
  Line* source = LineAt(piece, from);
  Line* target = LineAt(piece, to);
  const Key& key = source->keys[from_at];
  uint32_t first = HomeIn(piece, Hash(key)).first;
  from == first ? ++source->spilled : --target->spilled;
  target->keys[to_at] = key;
  target->who[to_at] = std::exchange(source->who[from_at], 0);
  SpotsAt(piece, to)[to_at] = SpotsAt(piece, from)[from_at];
}

// Breadth first over what could move into its other line, until a line has a free place; then that
// path is moved, the last one first.
bool KeyTable::Displace(const Home& home) {
  // At 0.92 one in twenty lines that can be reached has room.
  constexpr int kMaxSteps = 1024;
  struct Step {
    uint32_t line;
    int16_t from;  // the step whose entry would move here
    int16_t at;    // and where it lies there
  };
  std::array<Step, kMaxSteps> steps;
  steps[0] = {home.first, -1, 0};
  steps[1] = {home.second, -1, 0};
  int count = 2;
  // A line twice on one path would move what is no longer there.
  std::bitset<kLines> seen;
  seen.set(home.first).set(home.second);
  for (int i = 0; i < count; ++i) {
    const Line& line = *LineAt(home.piece, steps[i].line);
    if (int at = FreeIn(line); at >= 0) {
      for (int step = i; steps[step].from >= 0; step = steps[step].from) {
        const Step& source = steps[steps[step].from];
        MoveEntry(home.piece, source.line, steps[step].at, steps[step].line, at);
        at = steps[step].at;
      }
      return true;
    }
    for (int at = 0; at < kLineKeys && count < kMaxSteps; ++at) {
      Home other = HomeIn(home.piece, Hash(line.keys[at]));
      uint32_t target = other.first == steps[i].line ? other.second : other.first;
      if (seen.test(target)) continue;
      seen.set(target);
      __builtin_prefetch(LineAt(home.piece, target), 1);
      steps[count++] = {target, static_cast<int16_t>(i), static_cast<int16_t>(at)};
    }
  }
  return false;
}

void KeyTable::Erase(const Ref& ref) {
  Home home = HomeOf(Hash(ref.line->keys[ref.at]));
  Line* first = LineAt(home.piece, home.first);
  if (ref.line != first) --first->spilled;
  ref.who() = 0;
  --size_;
}

bool KeyTable::TakePiece(std::vector<Piece>& to) {
  std::optional<uint32_t> id = pool_->Take();
  if (id.has_value()) to.push_back({*id, pool_->At(*id)});
  return id.has_value();
}

bool KeyTable::MakeRoom(Lost lost) {
  if (pieces_.empty()) return TakePiece(pieces_);
  if (!next_.empty()) {
    if (++inserts_ >= kInsertsPerPiece) MovePiece(lost);
    return true;
  }
  double slots = static_cast<double>(pieces_.size() * kSlots);
  double used = static_cast<double>(size_);
  return used < kGrowLoad * slots || StartGrowing() || used < kFullLoad * slots;
}

bool KeyTable::StartGrowing() {
  // A new piece may be begun before the old one it takes from is empty, at both ends of a part.
  constexpr size_t kOverlap = 3;
  size_t old = pieces_.size();
  if (pool_->available() <= kOverlap + old / kLeastShare) return false;
  size_t more = std::min(std::max<size_t>(old / 4, 1), pool_->available() - kOverlap);
  while (spare_.size() < more + kOverlap && TakePiece(spare_)) continue;
  if (spare_.size() <= kOverlap) {
    for (const Piece& piece : spare_) pool_->Give(piece.id);
    spare_.clear();
    return false;
  }
  next_.resize(old + spare_.size() - kOverlap);
  inserts_ = 0;
  return true;
}

void KeyTable::MovePiece(Lost lost) {
  inserts_ = 0;
  Piece old = pieces_[moved_];
  for (uint32_t line = 0; line < kLines; ++line) {
    for (int at = 0; at < kLineKeys; ++at) {
      Ref ref = RefAt(old.at, line, at);
      if (ref.who() == 0) continue;
      uint64_t hash = Hash(ref.line->keys[at]);
      Piece& target = next_[Share(hash, next_.size())];
      if (target.at == nullptr) {
        CHECK(!spare_.empty());
        target = spare_.back();
        spare_.pop_back();
      }
      Ref moved = Place(ref.line->keys[at], HomeIn(target.at, hash));
      if (!moved) {
        --size_;
        lost(ref);
        continue;
      }
      moved.who() = ref.who();
      moved.spot() = ref.spot();
    }
  }
  std::memset(old.at, 0, PiecePool::kPieceBytes);
  spare_.push_back(old);
  pieces_[moved_].at = nullptr;
  if (++moved_ == pieces_.size()) FinishGrowing();
}

void KeyTable::FinishGrowing() {
  for (Piece& piece : next_) {
    if (piece.at != nullptr) continue;
    // No key fell into it.
    piece = spare_.back();
    spare_.pop_back();
  }
  pieces_ = std::exchange(next_, {});
  moved_ = 0;
  for (const Piece& piece : spare_) pool_->Give(piece.id);
  spare_.clear();
}

uint64_t KeyTable::EndOfPart(uint64_t cursor) const {
  // The last hash of part i of n: ceil((i + 1) * 2^64 / n) - 1.
  auto end = [](size_t part, size_t parts) {
    unsigned __int128 whole = (static_cast<unsigned __int128>(part) + 1) << 64;
    return static_cast<uint64_t>((whole + parts - 1) / parts - 1);
  };
  size_t part = Share(cursor, pieces_.size());
  if (part >= moved_) return end(part, pieces_.size());
  return std::min(end(Share(cursor, next_.size()), next_.size()), end(moved_ - 1, pieces_.size()));
}

}  // namespace tarn::kvstore

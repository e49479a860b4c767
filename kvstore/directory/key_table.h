#pragma once

// The hash table below BlockIndex: whole 128-bit keys, each with 12 bytes of value.
//
// A line of 64 bytes holds three keys and what a prefix match asks for (`who`); offset and epoch
// lie apart. Each key may lie in two lines of one piece of 512 KiB (cuckoo hashing with buckets:
// Dietzfelbinger and Weidling 2007; three keys a line fill to 95%), so a look-up reads one or two
// lines, and only one where nothing spilled over. 29.3 bytes a key, and 0.91 of the room is used:
// 32.2 bytes when full; 35 before growing, up to 44 just after, while there is memory to grow into.
//
// Growth: pieces partition the hash range. A growing table fills 5/4 as many new pieces in the
// order of that range, one old piece each some hundred insertions (some milliseconds), and uses
// each old one again as a new one. So there is no long pause and no second table.
//
// A key that hashes into a crowd can be refused. Keys are uniform unless somebody forges them, for
// which he would need the seed, or unless they come in the order of another table's Walk with the
// same seed: those crowd into one piece after the other.
// Thread-compatible: const calls may overlap. References are good until the next Insert.

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "common/base/block_key.h"
#include "kvstore/directory/pieces.h"

namespace tarn::kvstore {

// The part of a value that matches do not look at.
struct Spot {
  uint32_t offset = 0;
  uint32_t epoch = 0;
};

class KeyTable {
 public:
  static constexpr int kLineKeys = 3;
  struct Key {
    uint64_t low = 0, high = 0;
    friend bool operator==(const Key&, const Key&) = default;
  };
  struct Line {
    Key keys[kLineKeys];
    uint32_t who[kLineKeys];  // 0: free
    uint32_t spilled;         // keys whose first line this is, and which lie in their second
  };
  static_assert(sizeof(Line) == 64);

  // Where a key's lines are.
  struct Home {
    std::byte* piece = nullptr;  // none: the table is empty
    uint32_t first = 0, second = 0;
  };
  // An entry.
  struct Ref {
    Line* line = nullptr;
    Spot* spots = nullptr;  // of the line
    int at = 0;
    explicit operator bool() const { return line != nullptr; }
    uint32_t& who() const { return line->who[at]; }
    Spot& spot() const { return spots[at]; }
    BlockKey key() const;
  };

  // `pool` outlives the table.
  KeyTable(PiecePool* pool, uint64_t seed) : pool_(pool), seed_(Spread(seed)) {}

  Home Locate(const BlockKey& key) const { return HomeOf(Hash(FromBytes(key))); }
  static void PrefetchForWrite(const Home& home) {
    if (home.piece == nullptr) return;
    __builtin_prefetch(LineAt(home.piece, home.first), 1);
    __builtin_prefetch(LineAt(home.piece, home.second), 1);
    __builtin_prefetch(SpotsAt(home.piece, home.first), 1);
  }
  Ref Find(const BlockKey& key) const { return Find(FromBytes(key), Locate(key)); }
  // The same for many keys, whose lines come from memory side by side.
  static constexpr size_t kBatch = 32;  // at most
  void FindAll(std::span<const BlockKey> keys, std::span<Ref> refs) const;

  // Room for a key that is not there; the caller sets who (not to 0) at once. None when full.
  // Growing calls `lost` for a key that finds no room: only forged ones come to that.
  using Lost = absl::FunctionRef<void(const Ref&)>;
  Ref Insert(const BlockKey& key, Lost lost);
  void Erase(const Ref& ref);

  size_t size() const { return size_; }

  // Calls `visit(ref)` for each key in the next part of the hash range, about `max` of them, and
  // gives where to go on; 0 at the end. Start at 0. Keys may come and go, and the table may grow,
  // in between: what is there all the time is visited exactly once. `visit` changes nothing.
  template <typename Visit>
  uint64_t Walk(uint64_t cursor, size_t max, Visit visit) const;

  // Calls `visit(ref)` for the keys of the next `lines` lines, again and again from the first on.
  // `visit` may Erase what it is shown. For sweeping until nothing is left to be found.
  template <typename Visit>
  void Sweep(size_t lines, Visit visit);

 private:
  // 88 bytes a line; an odd rest of 8 bytes a piece.
  static constexpr uint32_t kLines = PiecePool::kPieceBytes / (sizeof(Line) + 3 * sizeof(Spot));
  static constexpr size_t kSlots = size_t{kLines} * kLineKeys;
  // A piece's fill varies by 1% (its 16,000 keys are a random number), so 0.91 leaves most room for
  // a short search at 0.95. While there is memory to grow into, insertions are to be cheap instead.
  static constexpr double kGrowLoad = 0.84;
  static constexpr double kFullLoad = 0.91;
  static constexpr size_t kInsertsPerPiece = 256;
  // Growing by less than this share is not worth moving everything.
  static constexpr size_t kLeastShare = 16;

  static Key FromBytes(const BlockKey& key) {
    Key words;
    std::memcpy(&words, key.bytes.data(), sizeof(words));
    return words;
  }
  // Neighbouring seeds must give hashes that have nothing to do with each other (splitmix64).
  static uint64_t Spread(uint64_t seed) {
    seed += 0x9E3779B97F4A7C15;
    seed = (seed ^ seed >> 30) * 0xBF58476D1CE4E5B9;
    seed = (seed ^ seed >> 27) * 0x94D049BB133111EB;
    return seed ^ seed >> 31;
  }
  static uint64_t Fold(uint64_t a, uint64_t b) {
    auto product = static_cast<unsigned __int128>(a) * b;
    return static_cast<uint64_t>(product >> 64) ^ static_cast<uint64_t>(product);
  }
  // Twice, so that keys which differ in one byte have nothing in common either.
  uint64_t Hash(const Key& key) const {
    uint64_t both = Fold(key.low ^ seed_, key.high ^ 0xD1B54A32D192ED03);
    return Fold(both ^ 0x9E3779B97F4A7C15, seed_ | 1);
  }
  static size_t Share(uint64_t hash, size_t parts) {
    return static_cast<size_t>((static_cast<unsigned __int128>(hash) * parts) >> 64);
  }
  static Home HomeIn(std::byte* piece, uint64_t hash) {
    uint64_t mixed = hash * 0xE7037ED1A0B428DB;
    auto first = static_cast<uint32_t>(((mixed >> 32) * kLines) >> 32);
    auto second = static_cast<uint32_t>(((mixed & 0xFFFFFFFF) * kLines) >> 32);
    if (second == first) second = first + 1 < kLines ? first + 1 : 0;
    return {piece, first, second};
  }
  Home HomeOf(uint64_t hash) const {
    if (pieces_.empty()) return {};
    size_t piece = Share(hash, pieces_.size());
    if (piece < moved_) return HomeIn(next_[Share(hash, next_.size())].at, hash);
    return HomeIn(pieces_[piece].at, hash);
  }
  static Line* LineAt(std::byte* piece, uint32_t line) {
    return reinterpret_cast<Line*>(piece) + line;
  }
  static Spot* SpotsAt(std::byte* piece, uint32_t line) {
    return reinterpret_cast<Spot*>(piece + size_t{kLines} * sizeof(Line)) + line * kLineKeys;
  }
  static Ref FindIn(std::byte* piece, uint32_t line, const Key& key) {
    const Line* at = LineAt(piece, line);
    for (int i = 0; i < kLineKeys; ++i) {
      if (at->keys[i] == key && at->who[i] != 0) return RefAt(piece, line, i);
    }
    return {};
  }
  static Ref Find(const Key& key, const Home& home);
  static Ref RefAt(std::byte* piece, uint32_t line, int at) {
    return {LineAt(piece, line), SpotsAt(piece, line), at};
  }
  static int FreeIn(const Line& line);

  struct Piece {
    uint32_t id = 0;
    std::byte* at = nullptr;
  };
  bool MakeRoom(Lost lost);
  bool StartGrowing();
  void MovePiece(Lost lost);
  void FinishGrowing();
  bool TakePiece(std::vector<Piece>& to);
  Ref Place(const Key& key, const Home& home);
  bool Displace(const Home& home);
  void MoveEntry(std::byte* piece, uint32_t from, int from_at, uint32_t to, int to_at);
  // The part of the hash range that ends with the piece of `cursor`, last value included.
  uint64_t EndOfPart(uint64_t cursor) const;

  PiecePool* pool_;
  uint64_t seed_;
  std::vector<Piece> pieces_;
  size_t size_ = 0;
  // While growing: the first `moved_` pieces have gone over into next_.
  std::vector<Piece> next_;
  size_t moved_ = 0;
  std::vector<Piece> spare_;
  size_t inserts_ = 0;  // since the last piece was moved
  size_t sweep_piece_ = 0, sweep_line_ = 0;
};

template <typename Visit>
uint64_t KeyTable::Walk(uint64_t cursor, size_t max, Visit visit) const {
  if (pieces_.empty()) return 0;
  uint64_t end = EndOfPart(cursor);
  // As many keys as asked for, if they are spread evenly over the piece.
  size_t parts = kSlots / (max == 0 ? 1 : max) + 1;
  uint64_t step = ~uint64_t{0} / pieces_.size() / parts;
  if (end - cursor > step) end = cursor + step;
  std::byte* piece = HomeOf(cursor).piece;
  for (uint32_t line = 0; line < kLines && piece != nullptr; ++line) {
    for (int at = 0; at < kLineKeys; ++at) {
      Ref ref = RefAt(piece, line, at);
      if (ref.who() == 0) continue;
      uint64_t hash = Hash(ref.line->keys[at]);
      if (hash >= cursor && hash <= end) visit(ref);
    }
  }
  return end + 1;
}

template <typename Visit>
void KeyTable::Sweep(size_t lines, Visit visit) {
  for (; lines > 0 && !pieces_.empty(); --lines) {
    size_t old = pieces_.size() - moved_;
    if (sweep_piece_ >= old + next_.size()) sweep_piece_ = 0;
    const Piece& piece =
        sweep_piece_ < old ? pieces_[moved_ + sweep_piece_] : next_[sweep_piece_ - old];
    for (int at = 0; at < kLineKeys && piece.at != nullptr; ++at) {
      Ref ref = RefAt(piece.at, static_cast<uint32_t>(sweep_line_), at);
      if (ref.who() != 0) visit(ref);
    }
    if (++sweep_line_ < kLines && piece.at != nullptr) continue;
    sweep_line_ = 0;
    ++sweep_piece_;
  }
}

}  // namespace tarn::kvstore

// Longest prefixes by node.

#include <algorithm>
#include <array>
#include <utility>

#include "absl/container/inlined_vector.h"
#include "kvstore/directory/block_index.h"
#include "kvstore/directory/who.h"

namespace tarn::kvstore {
namespace {

// So many leading keys are all looked at: most prompts are not longer, and there a hole is seen.
constexpr int kScanned = KeyTable::kBatch;

// Three runs of each node, by the tiers that count for them.
enum Level { kAny, kMemory, kHbm, kLevels };
constexpr uint8_t kTiers[kLevels] = {0b111, 0b011, 0b001};
constexpr uint8_t BitOf(uint32_t who) {
  return static_cast<uint8_t>(1 << (static_cast<int>(who::TierOf(who)) - 1));
}

}  // namespace

class BlockIndex::Matcher {
 public:
  Matcher(const BlockIndex& index, std::span<const BlockKey> keys)
      : index_(index), keys_(keys), size_(static_cast<int>(keys.size())) {}

  std::vector<NodeMatch> Run() {
    if (size_ == 0) return {};
    Scan();
    if (size_ > kScanned) Gallop();
    return Result();
  }

 private:
  struct Holder {
    Number number;
    std::array<int, kLevels> lead;  // leading keys
  };
  // The search for the end of one run.
  struct Search {
    Number number;
    uint8_t level;
    int* lead;     // so many lead
    int end;       // this key is not there; size_: not known
    int step;      // while the end is not known
    int32_t next;  // with the same probe
    int Probe(int size) const {
      return end < size ? *lead + (end - *lead) / 2 : std::min(*lead + step, size) - 1;
    }
  };

  void Scan();
  void AddHolders(const Ref& ref);
  bool Extend(int key);
  void Gallop();
  void Round(std::vector<Search>& searches, std::vector<int32_t>& first_at);
  std::vector<NodeMatch> Result() const;

  // Notes the tiers at `ref` by node, while `use` runs.
  template <typename Use>
  void WithTiers(const Ref& ref, Use use) {
    std::span<const uint32_t> all = index_.WhoOf(ref);
    for (uint32_t who : all) tiers_[who::NumberOf(who)] |= BitOf(who);
    use();
    for (uint32_t who : all) tiers_[who::NumberOf(who)] = 0;
  }
  void PrefetchList(const Ref& ref) const {
    if (ref && who::IsList(ref.who())) index_.lists_.Prefetch(who::ListOf(ref.who()));
  }

  const BlockIndex& index_;
  const std::span<const BlockKey> keys_;
  const int size_;
  absl::InlinedVector<Holder, 8> holders_;
  absl::InlinedVector<uint8_t, 256> tiers_;  // by number; zeros outside of WithTiers
};

void BlockIndex::Matcher::Scan() {
  std::array<Ref, kScanned> refs;
  auto count = static_cast<size_t>(std::min(size_, kScanned));
  index_.table_.FindAll(keys_.first(count), refs);
  auto missing = [](const Ref& ref) { return !ref; };
  auto found = std::find_if(refs.begin(), refs.begin() + count, missing) - refs.begin();
  for (int i = 0; i < found; ++i) PrefetchList(refs[i]);
  if (found == 0) return;
  tiers_.resize(index_.lives_.size());
  AddHolders(refs[0]);
  for (int i = 0; i < found; ++i) {
    bool any = false;
    WithTiers(refs[i], [&] { any = Extend(i); });
    if (!any) break;
  }
}

void BlockIndex::Matcher::AddHolders(const Ref& ref) {
  for (uint32_t who : index_.WhoOf(ref)) {
    Number number = who::NumberOf(who);
    if (!index_.lives_[number].live || tiers_[number] != 0) continue;
    tiers_[number] = 1;
    holders_.push_back({number, {}});
  }
  for (const Holder& holder : holders_) tiers_[holder.number] = 0;
}

// Lengthens the runs that go up to `key` by it; whether there is one.
bool BlockIndex::Matcher::Extend(int key) {
  bool any = false;
  for (Holder& holder : holders_) {
    uint8_t tiers = tiers_[holder.number];
    for (int level = 0; level < kLevels; ++level) {
      holder.lead[level] += holder.lead[level] == key && (tiers & kTiers[level]) != 0;
    }
    any |= holder.lead[kAny] > key;
  }
  return any;
}

void BlockIndex::Matcher::Gallop() {
  std::vector<Search> searches;
  for (Holder& holder : holders_) {
    for (uint8_t level = 0; level < kLevels; ++level) {
      if (holder.lead[level] < kScanned) continue;
      searches.push_back({holder.number, level, &holder.lead[level], size_, kScanned, -1});
    }
  }
  std::vector<int32_t> first_at(keys_.size(), -1);  // search with this probe
  while (!searches.empty()) Round(searches, first_at);
}

// One probe for each search, those of equal keys together; drops those that have ended.
void BlockIndex::Matcher::Round(std::vector<Search>& searches, std::vector<int32_t>& first_at) {
  std::vector<int> probes;
  std::vector<BlockKey> keys;
  for (size_t i = 0; i < searches.size(); ++i) {
    int probe = searches[i].Probe(size_);
    if (first_at[probe] < 0) {
      probes.push_back(probe);
      keys.push_back(keys_[probe]);
    }
    searches[i].next = std::exchange(first_at[probe], static_cast<int32_t>(i));
  }
  std::vector<Ref> refs(probes.size());
  for (size_t i = 0; i < probes.size(); i += KeyTable::kBatch) {
    size_t count = std::min(KeyTable::kBatch, probes.size() - i);
    index_.table_.FindAll(std::span(keys).subspan(i, count), std::span(refs).subspan(i, count));
  }
  for (const Ref& ref : refs) PrefetchList(ref);
  for (size_t i = 0; i < probes.size(); ++i) {
    int probe = probes[i];
    auto answer = [&] {
      for (int32_t at = std::exchange(first_at[probe], -1); at >= 0; at = searches[at].next) {
        Search& search = searches[at];
        if ((tiers_[search.number] & kTiers[search.level]) == 0) {
          search.end = probe;
          continue;
        }
        *search.lead = probe + 1;
        search.step *= 2;
      }
    };
    refs[i] ? WithTiers(refs[i], answer) : answer();
  }
  std::erase_if(searches, [](const Search& search) { return *search.lead == search.end; });
}

std::vector<NodeMatch> BlockIndex::Matcher::Result() const {
  absl::InlinedVector<const Holder*, 8> order;
  for (const Holder& holder : holders_) order.push_back(&holder);
  std::sort(order.begin(), order.end(), [this](const Holder* a, const Holder* b) {
    return index_.lives_[a->number].rank < index_.lives_[b->number].rank;
  });
  std::vector<NodeMatch> matches;
  matches.reserve(order.size());
  for (const Holder* holder : order) {
    matches.push_back({index_.lives_[holder->number].info.node, holder->lead[kAny],
                       holder->lead[kHbm], holder->lead[kMemory]});
  }
  return matches;
}

std::vector<NodeMatch> BlockIndex::Match(std::span<const BlockKey> keys) const {
  return Matcher(*this, keys).Run();
}

}  // namespace tarn::kvstore

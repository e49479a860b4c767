#include "kvstore/core/reuse_estimator.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <utility>

namespace tarn::kvstore {
namespace {

constexpr int kBuckets = AgeScale::kBuckets;
constexpr int kBucketsPerOctave = 3;
constexpr int64_t kFirstStart = 62'500'000;  // ns, of bucket 1

// Before anything is known: the same share is used in each third of an octave, so the chance a
// second falls with age, and the oldest goes first. The first bucket stands for all ages before.
constexpr double kUnknownHazard = 0.1, kUnknownFirstHazard = 0.5;
// So many blocks weigh as much as what is borrowed. Blocks of one chain share their fate, so they
// are worth far fewer independent observations.
constexpr double kBorrowed = 100;
// A block counts half as having reached an age when it comes there and half when it is used or
// grows older, so those on their way through count half: the actuarial estimate of a life table.
constexpr float kHalf = 0.5;
// Counts halve after so many rests for each key that may be watched.
constexpr int kRestsToFade = 2;

// In nanoseconds.
const std::array<int64_t, kBuckets>& Starts() {
  static const std::array<int64_t, kBuckets> kStarts = [] {
    std::array<int64_t, kBuckets> starts{};
    for (int i = 1; i < kBuckets; ++i) {
      const double octaves = static_cast<double>(i - 1) / kBucketsPerOctave;
      starts[i] = std::llround(static_cast<double>(kFirstStart) * std::exp2(octaves));
    }
    return starts;
  }();
  return kStarts;
}

}  // namespace

int AgeScale::BucketOf(absl::Duration age) {
  const int64_t nanoseconds = absl::ToInt64Nanoseconds(age);
  if (nanoseconds < kFirstStart) return 0;
  // The octave by its bits, then the third.
  const auto octaves = std::bit_width(static_cast<uint64_t>(nanoseconds / kFirstStart)) - 1;
  int bucket = std::min(1 + kBucketsPerOctave * static_cast<int>(octaves), kBuckets - 1);
  while (bucket + 1 < kBuckets && Starts()[bucket + 1] <= nanoseconds) ++bucket;
  return bucket;
}

absl::Duration AgeScale::Start(int bucket) { return absl::Nanoseconds(Starts()[bucket]); }

ReuseEstimator::ReuseEstimator(Options options)
    : options_(std::move(options)), rests_to_fade_(kRestsToFade * options_.watched) {
  const int groups =
      1 + *std::max_element(options_.group_of_class.begin(), options_.group_of_class.end());
  all_.resize(kBuckets);
  groups_.resize(groups * kBuckets);
  classes_.resize(classes() * kBuckets);
  worth_.resize(classes() * kBuckets);
  Refresh();
}

bool ReuseEstimator::Watched(const BlockKey& key) const {
  uint64_t word;  // the other half is the one that hash tables use
  std::memcpy(&word, key.bytes.data() + 8, sizeof(word));
  return (word & (static_cast<uint64_t>(options_.sample_of) - 1)) == 0;
}

void ReuseEstimator::Used(const BlockKey& key, absl::Time now) {
  if (!Watched(key)) return;
  Age(now);
  auto it = by_key_.find(key);
  if (it == by_key_.end()) return;
  const Watch& watch = watches_[it->second];
  Tell(watch.block_class, watch.bucket, &Count::used, 1);
  Tell(watch.block_class, watch.bucket, &Count::reached, kHalf);
  Drop(it->second);
}

void ReuseEstimator::Rested(const BlockKey& key, int block_class, absl::Time now) {
  if (!Watched(key)) return;
  Age(now);
  if (auto it = by_key_.find(key); it != by_key_.end()) Drop(it->second);
  if (by_key_.size() >= static_cast<size_t>(options_.watched)) Drop(Oldest());
  int32_t index;
  if (unused_.empty()) {
    index = static_cast<int32_t>(watches_.size());
    watches_.emplace_back();
  } else {
    index = unused_.back();
    unused_.pop_back();
  }
  watches_[index] = {.key = key, .rested = now, .block_class = static_cast<int16_t>(block_class)};
  by_key_[key] = index;
  Append(index, 0);
  Tell(block_class, 0, &Count::reached, kHalf);
  ++news_;
  if (--rests_to_fade_ == 0) Fade();
}

void ReuseEstimator::Append(int32_t index, int bucket) {
  Watch& watch = watches_[index];
  List& list = by_age_[bucket];
  watch.bucket = static_cast<int8_t>(bucket);
  watch.after = -1;
  watch.before = list.tail;
  (list.tail < 0 ? list.head : watches_[list.tail].after) = index;
  list.tail = index;
}

void ReuseEstimator::Unlink(int32_t index) {
  const Watch& watch = watches_[index];
  List& list = by_age_[watch.bucket];
  (watch.before < 0 ? list.head : watches_[watch.before].after) = watch.after;
  (watch.after < 0 ? list.tail : watches_[watch.after].before) = watch.before;
}

void ReuseEstimator::Drop(int32_t index) {
  Unlink(index);
  by_key_.erase(watches_[index].key);
  unused_.push_back(index);
}

int32_t ReuseEstimator::Oldest() const {
  for (int bucket = kBuckets - 1; bucket > 0; --bucket) {
    if (by_age_[bucket].head >= 0) return by_age_[bucket].head;
  }
  return by_age_[0].head;
}

void ReuseEstimator::Age(absl::Time now) {
  if (now == aged_) return;
  aged_ = now;
  for (int bucket = kBuckets - 2; bucket >= 0; --bucket) {
    if (by_age_[bucket].head < 0) continue;
    const absl::Time latest = now - AgeScale::Start(bucket + 1);
    for (int32_t index; (index = by_age_[bucket].head) >= 0 && watches_[index].rested <= latest;) {
      // It may have passed several ages since.
      const int reached = AgeScale::BucketOf(now - watches_[index].rested);
      for (int i = bucket + 1; i <= reached; ++i) {
        Tell(watches_[index].block_class, i, &Count::reached, kHalf);
        Tell(watches_[index].block_class, i - 1, &Count::reached, kHalf);
      }
      Unlink(index);
      Append(index, std::max(reached, bucket + 1));
    }
  }
}

void ReuseEstimator::Tell(int block_class, int bucket, float Count::*what, float by) {
  all_[bucket].*what += by;
  CountsOf(&groups_, options_.group_of_class[block_class])[bucket].*what += by;
  CountsOf(&classes_, block_class)[bucket].*what += by;
}

void ReuseEstimator::Fade() {
  for (std::vector<Count>* counts : {&all_, &groups_, &classes_}) {
    for (Count& count : *counts) count = {count.reached / 2, count.used / 2};
  }
  rests_to_fade_ = kRestsToFade * options_.watched;
}

ReuseEstimator::Hazards ReuseEstimator::Estimate(const Count* counts, const Hazards& prior) const {
  Hazards hazards;
  for (int i = 0; i < kBuckets; ++i) {
    hazards[i] = (counts[i].used + kBorrowed * prior[i]) / (counts[i].reached + kBorrowed);
  }
  return hazards;
}

void ReuseEstimator::Refresh() {
  Hazards all;
  double borrowed = kUnknownFirstHazard;
  for (int i = 0; i < kBuckets; ++i) {
    if (i == 1) borrowed = kUnknownHazard;
    all[i] = borrowed = (all_[i].used + kBorrowed * borrowed) / (all_[i].reached + kBorrowed);
  }
  std::vector<Hazards> groups;
  for (size_t i = 0; i < groups_.size() / kBuckets; ++i) {
    groups.push_back(
        Estimate(CountsOf(&groups_, static_cast<int>(i)), i > 0 ? groups.back() : all));
  }
  for (int i = 0; i < classes(); ++i) {
    SetWorth(i, Estimate(CountsOf(&classes_, i), groups[options_.group_of_class[i]]));
  }
  news_ = 0;
}

void ReuseEstimator::SetWorth(int block_class, const Hazards& hazards) {
  // What comes of a page kept over some ages, of a block that has reached the first of them.
  struct Spell {
    double uses, seconds, unused;
    double rate() const { return uses / seconds; }
  };
  std::array<Spell, kBuckets> later;  // the nearest last, and of the highest rate
  int spells = 0;
  double* worth = worth_.data() + block_class * kBuckets;
  for (int i = kBuckets - 2; i >= 0; --i) {
    const double width = 1e-9 * static_cast<double>(Starts()[i + 1] - Starts()[i]);
    Spell spell{hazards[i], width * (1 - hazards[i] / 2), 1 - hazards[i]};
    // Worth waiting for what is better than now.
    while (spells > 0 && later[spells - 1].rate() > spell.rate()) {
      const Spell& next = later[--spells];
      spell = {spell.uses + spell.unused * next.uses, spell.seconds + spell.unused * next.seconds,
               spell.unused * next.unused};
    }
    worth[i] = spell.rate();
    later[spells++] = spell;
  }
  worth[kBuckets - 1] = worth[kBuckets - 2];
}

}  // namespace tarn::kvstore

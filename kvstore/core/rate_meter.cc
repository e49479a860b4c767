#include "kvstore/core/rate_meter.h"

#include <glog/logging.h>

#include <algorithm>

namespace tarn::kvstore {
namespace {

constexpr absl::Duration kLongSpell = absl::Milliseconds(20);
constexpr double kWeightOfNew = 0.25;

}  // namespace

void RateMeter::Start(absl::Time now) {
  if (in_flight_++ == 0) {
    spell_start_ = now;
    spell_bytes_ = 0;
  }
}

void RateMeter::Finish(uint64_t bytes, absl::Time now) {
  CHECK_GT(in_flight_, 0);
  --in_flight_;
  spell_bytes_ += bytes;
  absl::Duration spell = now - spell_start_;
  if (in_flight_ > 0 && spell < kLongSpell) return;
  if (spell_bytes_ > 0) {
    double rate =
        static_cast<double>(spell_bytes_) / std::max(1.0, absl::ToDoubleMicroseconds(spell));
    bytes_per_us_ =
        bytes_per_us_ == 0 ? rate : bytes_per_us_ + kWeightOfNew * (rate - bytes_per_us_);
  }
  spell_start_ = now;
  spell_bytes_ = 0;
}

}  // namespace tarn::kvstore

#include "kvstore/core/admission.h"

#include <algorithm>

namespace tarn::kvstore {

AdmissionVerdict PlacedAdmission::Decide(const AdmissionCandidate& candidate) const {
  const int copies = CopiesFor(candidate.uses_a_second, replication_);
  if (candidate.store_pages <= 0) return AdmissionVerdict::kNoRoom;
  if (candidate.holders + candidate.leaving <= 0) return AdmissionVerdict::kGone;
  if (candidate.holders > copies) return AdmissionVerdict::kEnough;
  const auto chosen = ChooseStores(candidate.key, candidate.stores, copies);
  const bool here = std::any_of(chosen.begin(), chosen.end(),
                                [&](size_t i) { return candidate.stores[i].node == self_; });
  return here ? AdmissionVerdict::kTake : AdmissionVerdict::kNotPlace;
}

WriteVerdict WriteAdmission::Decide(const WriteCandidate& candidate, absl::Time now) {
  if (!candidate.free_slot && candidate.worth.has_value() && candidate.victim_worth.has_value() &&
      *candidate.worth <= *candidate.victim_worth * options_.worth_ratio) {
    return WriteVerdict::kNotWorthIt;
  }
  return Spend(candidate.bytes, now) ? WriteVerdict::kWrite : WriteVerdict::kTooFast;
}

bool WriteAdmission::Spend(int64_t bytes, absl::Time now) {
  if (!options_.bytes_a_second.has_value()) return true;
  const auto rate = static_cast<double>(*options_.bytes_a_second);
  const double most = rate * absl::ToDoubleSeconds(options_.burst);
  if (filled_ == absl::InfinitePast()) saved_ = most;
  if (now > filled_) {
    if (filled_ != absl::InfinitePast()) {
      saved_ = std::min(most, saved_ + rate * absl::ToDoubleSeconds(now - filled_));
    }
    filled_ = now;
  }
  if (saved_ < std::min(static_cast<double>(bytes), most)) return false;
  saved_ -= static_cast<double>(bytes);
  return true;
}

}  // namespace tarn::kvstore

#include "kvstore/core/admission.h"

namespace tarn::kvstore {

bool FewCopiesAdmission::Admit(const AdmissionCandidate& candidate) const {
  return candidate.store_pages > 0 && candidate.holders > 0 && candidate.holders < enough_;
}

}  // namespace tarn::kvstore

#include "common/transport/ucx/ucx_status.h"

#include "absl/strings/str_cat.h"

namespace tarn {

absl::Status FromUcx(ucs_status_t status, const std::string& what) {
  const std::string text = absl::StrCat(what, ": ", ucs_status_string(status), " (UCX)");
  switch (status) {
    case UCS_OK:
      return absl::OkStatus();
    case UCS_ERR_INVALID_PARAM:
    case UCS_ERR_INVALID_ADDR:
      return absl::InvalidArgumentError(text);
    case UCS_ERR_NO_MEMORY:
    case UCS_ERR_NO_RESOURCE:
    case UCS_ERR_EXCEEDS_LIMIT:
      return absl::ResourceExhaustedError(text);
    default:
      // All others come from a lost peer or link. What cannot be retried does not get better by a
      // code of its own: the caller takes another replica.
      return absl::UnavailableError(text);
  }
}

}  // namespace tarn

#include "router/session/gateway.h"

#include "absl/strings/str_cat.h"

namespace tarn::router {

std::string SaltFor(const std::string& tenant, const std::string& cache_salt) {
  if (tenant.empty() && cache_salt.empty()) return "";
  return absl::StrCat(tenant.size(), ":", tenant, cache_salt.size(), ":", cache_salt);
}

}  // namespace tarn::router

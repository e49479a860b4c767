#include "common/transport/ucx/ucx_tls.h"

#include <set>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"

namespace tarn {
namespace {

// "rc", "rc_verbs", "dc_x" and so on, or their common name.
bool IsRdma(const std::string& name) {
  const std::string kind = name.substr(0, name.find('_'));
  return kind == "ib" || kind == "rc" || kind == "dc" || kind == "ud";
}

struct List {
  bool excludes = false;
  std::vector<std::string> names;
};

List Parse(const std::string& tls) {
  List list{.excludes = absl::StartsWith(tls, "^")};
  list.names = absl::StrSplit(tls.substr(list.excludes ? 1 : 0), ',', absl::SkipEmpty());
  return list;
}

bool Has(const List& list, const std::string& name) {
  return std::set<std::string>(list.names.begin(), list.names.end()).contains(name);
}

}  // namespace

// A list that excludes single kinds still leaves others: only "ib" is all of them.
bool AllowsRdma(const std::string& tls) {
  const List list = Parse(tls);
  if (list.excludes) return !Has(list, "ib") && !Has(list, "all");
  bool allows = list.names.empty() || Has(list, "all");
  for (const std::string& name : list.names) allows |= IsRdma(name);
  return allows;
}

bool AllowsTcp(const std::string& tls) {
  const List list = Parse(tls);
  if (list.excludes) return !Has(list, "tcp") && !Has(list, "all");
  return list.names.empty() || Has(list, "all") || Has(list, "tcp");
}

absl::StatusOr<std::string> WithoutRdma(const std::string& tls) {
  if (!AllowsRdma(tls)) return tls;
  const List list = Parse(tls);
  if (list.excludes) return absl::StrCat(tls, ",ib");
  if (list.names.empty() || Has(list, "all")) return "^ib";
  std::vector<std::string> left;
  for (const std::string& name : list.names) {
    if (!IsRdma(name)) left.push_back(name);
  }
  if (left.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("transports \"", tls, "\" are RDMA only, and no RDMA device is used"));
  }
  return absl::StrJoin(left, ",");
}

}  // namespace tarn

#include "kvstore/client/handshake.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "common/memory/block_layout.h"
#include "kvstore/wire/convert.h"

namespace tarn::kvstore {
namespace {

std::string DescribeModel(const v1::NodeInfo& info) {
  return absl::StrCat(info.node_id(), " has '", info.model().name(), "' (fingerprint ",
                      absl::Hex(info.model().fingerprint(), absl::kZeroPad16), ")");
}

absl::StatusOr<BlockLayout> LayoutOf(const v1::NodeInfo& info) {
  absl::StatusOr<BlockLayout> layout = FromProto(info.model().layout());
  if (!layout.ok()) return Annotate(layout.status(), "layout of " + info.node_id());
  return layout;
}

}  // namespace

absl::Status CheckCompatible(const v1::NodeInfo& self, const v1::NodeInfo& other) {
  if (self.model().fingerprint() != other.model().fingerprint()) {
    return absl::FailedPreconditionError(
        absl::StrCat("models differ: ", DescribeModel(self), ", ", DescribeModel(other)));
  }
  ASSIGN_OR_RETURN(BlockLayout mine, LayoutOf(self));
  ASSIGN_OR_RETURN(BlockLayout theirs, LayoutOf(other));
  if (mine.Fingerprint() != theirs.Fingerprint()) {
    return absl::FailedPreconditionError(absl::StrCat("block layouts differ: ", self.node_id(),
                                                      " has ", mine.ToString(), ", ",
                                                      other.node_id(), " has ", theirs.ToString()));
  }
  return absl::OkStatus();
}

}  // namespace tarn::kvstore

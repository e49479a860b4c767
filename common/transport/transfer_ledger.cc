#include "common/transport/transfer_ledger.h"

#include <glog/logging.h>

namespace tarn {

TransferLedger::Entry& TransferLedger::Add(TransferId id, Transport::Done done) {
  Entry& entry = entries_[id];
  entry.done = std::move(done);
  return entry;
}

TransferLedger::Entry* TransferLedger::Find(TransferId id) {
  const auto found = entries_.find(id);
  return found == entries_.end() ? nullptr : &found->second;
}

void TransferLedger::Finish(TransferId id, std::vector<absl::Status> statuses) {
  auto node = entries_.extract(id);
  CHECK(!node.empty()) << "transfer " << id << " ended twice";
  loop_.CancelTimer(node.mapped().deadline);
  loop_.CancelTimer(node.mapped().abandon);
  node.mapped().done(std::move(statuses));
}

}  // namespace tarn

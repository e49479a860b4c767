#include "common/transport/fault/fault_transport.h"

#include <glog/logging.h>

#include <map>
#include <set>
#include <utility>
#include <vector>

#include "common/runtime/random.h"

namespace tarn {
namespace {

void FlipBit(std::span<std::byte> bytes, uint64_t bit) {
  if (bytes.empty()) return;
  bit %= bytes.size() * 8;
  bytes[bit / 8] ^= std::byte{1} << (bit % 8);
}

}  // namespace

FaultPlan NoFaults() {
  return [](PeerId, const ReadOp&) { return Fault{}; };
}

FaultPlan SeededFaults(uint64_t seed, const FaultRates& rates) {
  // Every draw is made for every op, so that one rate does not move the faults of another.
  return [random = Random(seed), rates](PeerId, const ReadOp&) mutable {
    Fault fault;
    fault.stall = random.Chance(rates.stall);
    const bool delayed = random.Chance(rates.delay);
    const absl::Duration delay = rates.max_delay * random.UniformDouble();
    if (delayed) fault.delay = delay;
    if (random.Chance(rates.error)) fault.error = rates.error_status;
    const bool corrupt = random.Chance(rates.corrupt);
    const uint64_t bit = random.Next();
    if (corrupt) fault.flip_bit = bit;
    return fault;
  };
}

// The reads under way. Loop only.
class FaultTransport::Reader : public std::enable_shared_from_this<Reader> {
 public:
  Reader(Transport& base, EventLoop& loop, FaultPlan plan)
      : base_(&base), loop_(loop), plan_(std::move(plan)) {}

  void SetPlan(FaultPlan plan) { plan_ = std::move(plan); }

  TransferId Start(PeerId peer, ReadBatch batch, Done done) {
    const TransferId id = ++last_transfer_;
    Transfer& transfer = transfers_[id];
    transfer.peer = peer;
    transfer.batch = std::make_shared<const ReadBatch>(std::move(batch));
    transfer.done = std::move(done);
    const size_t count = transfer.batch->ops.size();
    transfer.statuses.resize(count);
    transfer.left = count;
    std::vector<size_t> now;
    for (size_t i = 0; i < count; ++i) {
      transfer.faults.push_back(plan_(peer, transfer.batch->ops[i]));
      if (!Wait(id, transfer, i)) now.push_back(i);
    }
    if (!transfer.waiting.empty()) EndWaitingAtDeadline(id, transfer);
    if (count == 0) PostFinish(id);
    Begin(id, now);
    return id;
  }

  void Cancel(TransferId id) {
    const auto found = transfers_.find(id);
    if (found == transfers_.end()) return;
    EndWaiting(id, absl::CancelledError("read was cancelled"));
    for (const TransferId part : found->second.parts) base_->Cancel(part);
  }

  void Disconnect(PeerId peer) {
    for (auto& [id, transfer] : transfers_) {
      if (transfer.peer == peer) EndWaiting(id, absl::UnavailableError("peer was disconnected"));
    }
  }

  void Close() {
    for (auto& [id, transfer] : transfers_) {
      EndWaiting(id, absl::UnavailableError("the transport is closed"));
    }
  }

 private:
  struct Transfer {
    PeerId peer;
    std::shared_ptr<const ReadBatch> batch;
    Done done;
    std::vector<Fault> faults;
    std::vector<absl::Status> statuses;
    size_t left = 0;                // ops without a status
    std::set<size_t> waiting;       // ops that are stalled or delayed
    std::vector<TransferId> parts;  // transfers of the base
    std::vector<TimerId> timers;
  };

  // Whether the op does not start with its batch.
  bool Wait(TransferId id, Transfer& transfer, size_t op) {
    const Fault& fault = transfer.faults[op];
    const bool delayed = fault.delay > absl::ZeroDuration();
    if (!fault.stall && !delayed) return false;
    transfer.waiting.insert(op);
    if (fault.stall) return true;
    transfer.timers.push_back(loop_.PostAfter(
        fault.delay, [self = shared_from_this(), id, op] { self->Resume(id, op); }));
    return true;
  }

  void EndWaitingAtDeadline(TransferId id, Transfer& transfer) {
    if (transfer.batch->deadline == absl::InfiniteFuture()) return;
    transfer.timers.push_back(
        loop_.PostAt(transfer.batch->deadline, [self = shared_from_this(), id] {
          self->EndWaiting(id, absl::DeadlineExceededError("read took too long"));
        }));
  }

  void Resume(TransferId id, size_t op) {
    if (transfers_.at(id).waiting.erase(op) > 0) Begin(id, {op});
  }

  // Hands the ops to the base, but for those that fail here.
  void Begin(TransferId id, const std::vector<size_t>& ops) {
    Transfer& transfer = transfers_.at(id);
    std::vector<size_t> read;
    for (const size_t op : ops) {
      if (transfer.faults[op].error.ok()) {
        read.push_back(op);
      } else {
        Settle(id, op, transfer.faults[op].error);
      }
    }
    if (read.empty()) return;
    transfer.parts.push_back(base_->Read(
        transfer.peer, Part(transfer, read),
        [self = shared_from_this(), id, read](const std::vector<absl::Status>& statuses) {
          for (size_t i = 0; i < read.size(); ++i) self->Settle(id, read[i], statuses[i]);
        }));
  }

  static ReadBatch Part(const Transfer& transfer, const std::vector<size_t>& ops) {
    ReadBatch part{.deadline = transfer.batch->deadline};
    std::vector<std::optional<uint64_t>> flips;
    for (const size_t op : ops) {
      part.ops.push_back(transfer.batch->ops[op]);
      flips.push_back(transfer.faults[op].flip_bit);
    }
    // On a thread of the base: it has only what nobody changes.
    part.verify = [batch = transfer.batch, ops, flips = std::move(flips)](size_t i) {
      if (flips[i]) FlipBit(batch->ops[ops[i]].to, *flips[i]);
      return batch->Judge(ops[i]);
    };
    return part;
  }

  void EndWaiting(TransferId id, const absl::Status& why) {
    for (const size_t op : std::exchange(transfers_.at(id).waiting, {})) Settle(id, op, why);
  }

  void Settle(TransferId id, size_t op, absl::Status status) {
    Transfer& transfer = transfers_.at(id);
    transfer.statuses[op] = std::move(status);
    if (--transfer.left == 0) PostFinish(id);
  }

  // By a task, for `done` runs later than Read, and may start other reads.
  void PostFinish(TransferId id) {
    loop_.Post([self = shared_from_this(), id] {
      Transfer transfer = std::move(self->transfers_.extract(id).mapped());
      for (const TimerId timer : transfer.timers) self->loop_.CancelTimer(timer);
      transfer.done(std::move(transfer.statuses));
    });
  }

  Transport* const base_;  // not used after Close
  EventLoop& loop_;
  FaultPlan plan_;
  TransferId last_transfer_ = 0;
  std::map<TransferId, Transfer> transfers_;
};

FaultTransport::FaultTransport(std::unique_ptr<Transport> base, EventLoop& loop, FaultPlan plan)
    : base_(std::move(base)),
      loop_(loop),
      reader_(std::make_shared<Reader>(*base_, loop, std::move(plan))) {}

FaultTransport::~FaultTransport() { reader_->Close(); }

void FaultTransport::SetPlan(FaultPlan plan) {
  CHECK(loop_.OnLoop());
  reader_->SetPlan(std::move(plan));
}

absl::StatusOr<std::unique_ptr<RegisteredMemory>> FaultTransport::Allocate(size_t bytes) {
  return base_->Allocate(bytes);
}

std::string FaultTransport::Address() const { return base_->Address(); }

absl::StatusOr<PeerId> FaultTransport::Connect(const PeerAddress& peer) {
  return base_->Connect(peer);
}

TransferId FaultTransport::Read(PeerId peer, ReadBatch batch, Done done) {
  CHECK(loop_.OnLoop());
  return reader_->Start(peer, std::move(batch), std::move(done));
}

void FaultTransport::Cancel(TransferId transfer) {
  CHECK(loop_.OnLoop());
  reader_->Cancel(transfer);
}

void FaultTransport::Disconnect(PeerId peer) {
  CHECK(loop_.OnLoop());
  reader_->Disconnect(peer);
  base_->Disconnect(peer);
}

}  // namespace tarn

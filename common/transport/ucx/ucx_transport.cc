#include "common/transport/ucx/ucx_transport.h"

#include <glog/logging.h>

#include <chrono>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "common/runtime/real/real_event_loop.h"
#include "common/transport/ucx/mapped_region.h"
#include "common/transport/ucx/ucx_engine.h"
#include "common/transport/ucx/ucx_wire.h"

namespace tarn {
namespace {

// Set once by the progress thread; waited for by the thread that connects. Shared, because the
// waiter may give up first.
class Probe {
 public:
  void Set(absl::Status status) {
    MutexLock lock(mutex_);
    status_ = std::move(status);
    set_ = true;
    changed_.notify_all();
  }
  absl::Status Wait(absl::Duration timeout) {
    const auto end = std::chrono::steady_clock::now() + absl::ToChronoNanoseconds(timeout);
    MutexLock lock(mutex_);
    while (!set_) {
      if (changed_.wait_until(mutex_, end) == std::cv_status::timeout && !set_) {
        return absl::UnavailableError(
            absl::StrCat("peer does not answer within ", absl::FormatDuration(timeout)));
      }
    }
    return status_;
  }

 private:
  Mutex mutex_;
  ConditionVariable changed_;
  bool set_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
};

absl::Status DeadlinePassed() { return absl::DeadlineExceededError("read took too long"); }

absl::Status FirstError(const std::vector<absl::Status>& statuses) {
  for (size_t i = 0; i < statuses.size(); ++i) {
    if (!statuses[i].ok()) return Annotate(statuses[i], absl::StrCat("region ", i));
  }
  return absl::OkStatus();
}

// Ends a transfer that is still under way, and its peer if that does not help.
void EndTransfer(TransferLedger& ledger, const std::weak_ptr<UcxEngine>& weak, TransferId id,
                 const absl::Status& why, absl::Duration abandon_after) {
  TransferLedger::Entry* entry = ledger.Find(id);
  const auto engine = weak.lock();
  if (entry == nullptr || engine == nullptr) return;
  engine->Post([id, why](UcxReader& reader) { reader.End(id, why); });
  if (entry->abandon != 0) return;
  entry->abandon = ledger.loop().PostAfter(abandon_after, [weak, id] {
    if (const auto engine = weak.lock()) {
      engine->Post([id](UcxReader& reader) { reader.Abandon(id); });
    }
  });
}

}  // namespace

absl::StatusOr<std::unique_ptr<UcxTransport>> UcxTransport::Create(const UcxOptions& options,
                                                                   EventLoop& loop) {
  if (options.max_reads_in_flight == 0) {
    return absl::InvalidArgumentError("max_reads_in_flight is 0, must be at least 1");
  }
  ASSIGN_OR_RETURN(auto engine, UcxEngine::Create(options));
  return std::unique_ptr<UcxTransport>(new UcxTransport(options, loop, std::move(engine)));
}

UcxTransport::UcxTransport(const UcxOptions& options, EventLoop& loop,
                           std::shared_ptr<UcxEngine> engine)
    : options_(options),
      loop_(loop),
      engine_(std::move(engine)),
      ledger_(std::make_shared<TransferLedger>(loop)) {}

UcxTransport::~UcxTransport() { engine_->Stop(); }

absl::StatusOr<std::unique_ptr<RegisteredMemory>> UcxTransport::Allocate(size_t bytes) {
  return engine_->Allocate(bytes);
}

std::string UcxTransport::Address() const { return engine_->address(); }

absl::StatusOr<PeerId> UcxTransport::Connect(const PeerAddress& peer) {
  ASSIGN_OR_RETURN(const std::string worker, DecodeWorker(peer.worker));
  std::vector<UcxRegionDescriptor> regions;
  for (const std::string& bytes : peer.regions) {
    ASSIGN_OR_RETURN(UcxRegionDescriptor region, DecodeRegion(bytes));
    regions.push_back(std::move(region));
  }
  const PeerId id(++last_peer_);
  auto probe = std::make_shared<Probe>();
  auto mapped = std::make_shared<std::vector<std::shared_ptr<MappedRegion>>>();
  engine_->Post([=](UcxReader& reader) {
    const absl::Status status = reader.Connect(
        id, worker, regions, [=, &reader](const std::vector<absl::Status>& statuses) {
          *mapped = reader.MappedRegionsOf(id);
          probe->Set(FirstError(statuses));
        });
    if (!status.ok()) probe->Set(status);
  });
  const absl::Status status = probe->Wait(options_.connect_timeout);
  if (status.ok()) {
    const absl::Time end = SteadyNow() + options_.populate_time;
    for (const auto& region : *mapped) region->Populate(end - SteadyNow());
    return id;
  }
  engine_->Post([id, status](UcxReader& reader) { reader.Disconnect(id, status); });
  return status;
}

TransferId UcxTransport::Read(PeerId peer, ReadBatch batch, Done done) {
  CHECK(loop_.OnLoop());
  const TransferId id = ++last_transfer_;
  TransferLedger::Entry& entry = ledger_->Add(id, std::move(done));
  if (batch.deadline != absl::InfiniteFuture()) {
    entry.deadline = loop_.PostAt(batch.deadline, [ledger = ledger_, weak = std::weak_ptr(engine_),
                                                   id, abandon_after = options_.abandon_after] {
      EndTransfer(*ledger, weak, id, DeadlinePassed(), abandon_after);
    });
  }
  const bool late = batch.deadline <= loop_.Now();
  auto shared = std::make_shared<ReadBatch>(std::move(batch));
  engine_->Post([id, peer, late, shared, ledger = ledger_](UcxReader& reader) {
    reader.Start(id, peer, std::move(*shared), [id, ledger](std::vector<absl::Status> statuses) {
      ledger->loop().Post([id, ledger, statuses = std::move(statuses)]() mutable {
        ledger->Finish(id, std::move(statuses));
      });
    });
    if (late) reader.End(id, DeadlinePassed());
  });
  return id;
}

void UcxTransport::Cancel(TransferId transfer) {
  CHECK(loop_.OnLoop());
  EndTransfer(*ledger_, engine_, transfer, absl::CancelledError("read was cancelled"),
              options_.abandon_after);
}

void UcxTransport::Disconnect(PeerId peer) {
  CHECK(loop_.OnLoop());
  engine_->Post([peer](UcxReader& reader) {
    reader.Disconnect(peer, absl::UnavailableError("peer was disconnected"));
  });
}

}  // namespace tarn

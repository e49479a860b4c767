#include "common/transport/tcp/tcp_transport.h"

#include <glog/logging.h>
#include <sys/mman.h>

#include <cstring>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "common/runtime/real/real_event_loop.h"
#include "common/transport/tcp/tcp_engine.h"
#include "common/transport/tcp/tcp_wire.h"
#include "common/transport/ucx/shared_memory.h"

namespace tarn {
namespace {

class ExportImpl : public TcpExport {
 public:
  ExportImpl(std::shared_ptr<TcpRegions> regions, const TcpToken& token, std::span<std::byte> bytes)
      : regions_(std::move(regions)), index_(regions_->Add(bytes)) {
    descriptor_ = EncodeTcpRegion({.index = index_, .size = bytes.size(), .token = token});
  }
  ~ExportImpl() override { regions_->Remove(index_); }

  RegionIndex index() const override { return RegionIndex(static_cast<uint32_t>(index_)); }
  std::string descriptor() const override { return descriptor_; }

 private:
  const std::shared_ptr<TcpRegions> regions_;
  const uint64_t index_;
  std::string descriptor_;
};

class PlainMemory : public RegisteredMemory {
 public:
  PlainMemory(std::span<std::byte> bytes, std::unique_ptr<TcpExport> exported)
      : bytes_(bytes), export_(std::move(exported)) {}
  ~PlainMemory() override {
    export_.reset();
    munmap(bytes_.data(), bytes_.size());
  }

  RegionIndex index() const override { return export_->index(); }
  std::span<std::byte> bytes() const override { return bytes_; }
  std::string descriptor() const override { return export_->descriptor(); }

 private:
  const std::span<std::byte> bytes_;
  std::unique_ptr<TcpExport> export_;
};

absl::Status DeadlinePassed() { return absl::DeadlineExceededError("read took too long"); }

// Asks for each region whether it is there. The connection is not used by others meanwhile.
absl::Status ProbeRegions(const TcpSocket& socket, const std::vector<TcpRegionDescriptor>& regions,
                          absl::Time end) {
  for (size_t i = 0; i < regions.size(); ++i) {
    const TcpRequest request{.id = i + 1, .region = regions[i].index};
    RETURN_IF_ERROR(SendAll(socket, &request, sizeof(request), end));
    TcpResponseHead head;
    RETURN_IF_ERROR(ReceiveAll(socket, &head, sizeof(head), end));
    if (head.id != request.id || head.size != 0) {
      return absl::UnavailableError("the peer does not keep to the protocol");
    }
    if (head.code != TcpCode::kOk) {
      return absl::UnavailableError(absl::StrCat("region ", i, ": the peer has freed it"));
    }
  }
  return absl::OkStatus();
}

// Ends a transfer that is still under way.
void EndTransfer(TransferLedger& ledger, const std::weak_ptr<TcpEngine>& weak, TransferId id,
                 const absl::Status& why) {
  const auto engine = weak.lock();
  if (ledger.Find(id) == nullptr || engine == nullptr) return;
  engine->Post([id, why](TcpReader& reader) { reader.End(id, why); });
}

}  // namespace

absl::StatusOr<std::unique_ptr<TcpTransport>> TcpTransport::Create(const TcpOptions& options,
                                                                   EventLoop& loop) {
  ASSIGN_OR_RETURN(auto engine, TcpEngine::Create(options));
  return std::unique_ptr<TcpTransport>(new TcpTransport(options, loop, std::move(engine)));
}

TcpTransport::TcpTransport(const TcpOptions& options, EventLoop& loop,
                           std::shared_ptr<TcpEngine> engine)
    : options_(options),
      loop_(loop),
      engine_(std::move(engine)),
      ledger_(std::make_shared<TransferLedger>(loop)) {}

TcpTransport::~TcpTransport() { engine_->Stop(); }

absl::StatusOr<std::unique_ptr<RegisteredMemory>> TcpTransport::Allocate(size_t bytes) {
  if (bytes == 0) return absl::InvalidArgumentError("a region of 0 bytes");
  RETURN_IF_ERROR(CheckRegionFits(bytes, SharedMemoryKinds{}, MemoryLimits::Read()));
  void* pages = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (pages == MAP_FAILED) {
    return absl::ResourceExhaustedError(
        absl::StrCat("cannot allocate a region of ", bytes, " bytes: ", strerror(errno)));
  }
  madvise(pages, bytes, MADV_HUGEPAGE);
  // Touched now, so that missing memory shows at start and not in the first read.
  std::memset(pages, 0, bytes);
  const std::span<std::byte> region(static_cast<std::byte*>(pages), bytes);
  return std::make_unique<PlainMemory>(region, Export(region));
}

std::unique_ptr<TcpExport> TcpTransport::Export(std::span<std::byte> bytes) {
  return std::make_unique<ExportImpl>(engine_->regions(), engine_->address().token, bytes);
}

std::string TcpTransport::Address() const { return EncodeTcpAddress(engine_->address()); }

absl::StatusOr<PeerId> TcpTransport::Connect(const PeerAddress& peer) {
  ASSIGN_OR_RETURN(const TcpAddress address, DecodeTcpAddress(peer.worker));
  std::vector<TcpRegionDescriptor> regions;
  for (const std::string& bytes : peer.regions) {
    ASSIGN_OR_RETURN(const TcpRegionDescriptor region, DecodeTcpRegion(bytes));
    if (region.token != address.token) {
      return absl::InvalidArgumentError("TCP region: not of this peer");
    }
    regions.push_back(region);
  }
  const absl::Time end = SteadyNow() + options_.connect_timeout;
  ASSIGN_OR_RETURN(TcpSocket socket, DialTcp(address, end));
  RETURN_IF_ERROR(ProbeRegions(socket, regions, end));
  const PeerId id(++last_peer_);
  auto shared = std::make_shared<TcpSocket>(std::move(socket));
  engine_->Post(
      [=](TcpReader& reader) { reader.AddPeer(id, std::move(*shared), regions, regions.size()); });
  return id;
}

TransferId TcpTransport::Read(PeerId peer, ReadBatch batch, Done done) {
  CHECK(loop_.OnLoop());
  const TransferId id = ++last_transfer_;
  TransferLedger::Entry& entry = ledger_->Add(id, std::move(done));
  const size_t count = batch.ops.size();
  if (batch.deadline <= loop_.Now()) {
    FinishLater(id, std::vector(count, DeadlinePassed()));
    return id;
  }
  if (batch.deadline != absl::InfiniteFuture()) {
    entry.deadline =
        loop_.PostAt(batch.deadline, [ledger = ledger_, weak = std::weak_ptr(engine_), id] {
          EndTransfer(*ledger, weak, id, DeadlinePassed());
        });
  }
  auto shared = std::make_shared<ReadBatch>(std::move(batch));
  engine_->Post([id, peer, shared, ledger = ledger_](TcpReader& reader) {
    reader.Start(id, peer, std::move(*shared), [id, ledger](std::vector<absl::Status> statuses) {
      ledger->loop().Post([id, ledger, statuses = std::move(statuses)]() mutable {
        ledger->Finish(id, std::move(statuses));
      });
    });
  });
  return id;
}

void TcpTransport::FinishLater(TransferId id, std::vector<absl::Status> statuses) {
  loop_.Post([id, ledger = ledger_, statuses = std::move(statuses)]() mutable {
    ledger->Finish(id, std::move(statuses));
  });
}

void TcpTransport::Cancel(TransferId transfer) {
  CHECK(loop_.OnLoop());
  EndTransfer(*ledger_, engine_, transfer, absl::CancelledError("read was cancelled"));
}

void TcpTransport::Disconnect(PeerId peer) {
  CHECK(loop_.OnLoop());
  engine_->Post([peer](TcpReader& reader) {
    reader.RemovePeer(peer, absl::UnavailableError("peer was disconnected"));
  });
}

}  // namespace tarn

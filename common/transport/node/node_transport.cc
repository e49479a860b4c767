#include "common/transport/node/node_transport.h"

#include <glog/logging.h>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "common/transport/sealed.h"

namespace tarn {
namespace {

constexpr uint64_t kAddressMagic = 0x31524441'45444f4e;  // "NODEADR1"
constexpr uint64_t kRegionMagic = 0x31474552'45444f4e;   // "NODEREG1"

// What the two transports say of the same thing; `ucx` is empty without UCX.
struct Pair {
  std::string ucx;
  std::string tcp;
};

std::string EncodePair(uint64_t magic, const Pair& pair) {
  return Seal(magic, {pair.ucx.size()}, pair.ucx + pair.tcp);
}

absl::StatusOr<Pair> DecodePair(uint64_t magic, const std::string& bytes) {
  ASSIGN_OR_RETURN(const Unsealed unsealed, Unseal(bytes, "node's transport", magic, 1));
  const uint64_t split = unsealed.words[0];
  if (split > unsealed.text.size()) {
    return absl::InvalidArgumentError(absl::StrCat("node's transport: ", split, " bytes of ",
                                                   unsealed.text.size(), " are for UCX"));
  }
  return Pair{unsealed.text.substr(0, split), unsealed.text.substr(split)};
}

class NodeMemory : public RegisteredMemory {
 public:
  // `exported` is null where the memory is TCP's own.
  NodeMemory(std::unique_ptr<RegisteredMemory> memory, std::unique_ptr<TcpExport> exported)
      : memory_(std::move(memory)), export_(std::move(exported)) {}

  RegionIndex index() const override { return memory_->index(); }
  std::span<std::byte> bytes() const override { return memory_->bytes(); }
  std::string descriptor() const override {
    if (export_ == nullptr) return EncodePair(kRegionMagic, {"", memory_->descriptor()});
    return EncodePair(kRegionMagic, {memory_->descriptor(), export_->descriptor()});
  }

 private:
  const std::unique_ptr<RegisteredMemory> memory_;
  const std::unique_ptr<TcpExport> export_;  // goes first
};

}  // namespace

absl::StatusOr<std::unique_ptr<NodeTransport>> NodeTransport::Create(
    const NodeTransportOptions& options, EventLoop& loop) {
  std::unique_ptr<UcxTransport> ucx;
  if (options.one_sided) {
    ASSIGN_OR_RETURN(ucx, UcxTransport::Create(options.ucx, loop));
  }
  ASSIGN_OR_RETURN(auto tcp, TcpTransport::Create(options.tcp, loop));
  return std::unique_ptr<NodeTransport>(new NodeTransport(std::move(ucx), std::move(tcp)));
}

absl::StatusOr<std::unique_ptr<RegisteredMemory>> NodeTransport::Allocate(size_t bytes) {
  if (ucx_ == nullptr) {
    ASSIGN_OR_RETURN(auto memory, tcp_->Allocate(bytes));
    return std::make_unique<NodeMemory>(std::move(memory), nullptr);
  }
  ASSIGN_OR_RETURN(auto memory, ucx_->Allocate(bytes));
  auto exported = tcp_->Export(memory->bytes());
  return std::make_unique<NodeMemory>(std::move(memory), std::move(exported));
}

std::string NodeTransport::Address() const {
  return EncodePair(kAddressMagic, {ucx_ == nullptr ? "" : ucx_->Address(), tcp_->Address()});
}

absl::StatusOr<PeerId> NodeTransport::Connect(const PeerAddress& peer) {
  ASSIGN_OR_RETURN(Pair worker, DecodePair(kAddressMagic, peer.worker));
  PeerAddress ucx{std::move(worker.ucx), {}};
  PeerAddress tcp{std::move(worker.tcp), {}};
  for (const std::string& bytes : peer.regions) {
    ASSIGN_OR_RETURN(Pair region, DecodePair(kRegionMagic, bytes));
    ucx.regions.push_back(std::move(region.ucx));
    tcp.regions.push_back(std::move(region.tcp));
  }
  absl::Status why = absl::UnavailableError("one-sided reads are off");
  if (ucx_ != nullptr && !ucx.worker.empty()) {
    const absl::StatusOr<PeerId> id = ucx_->Connect(ucx);
    if (id.ok()) return PeerId(id->value() * 2);
    if (!absl::IsUnavailable(id.status())) return id.status();
    why = id.status();
  }
  const absl::StatusOr<PeerId> id = tcp_->Connect(tcp);
  if (!id.ok()) {
    return absl::Status(id.status().code(),
                        absl::StrCat(Message(id.status()), "; and not by UCX: ", Message(why)));
  }
  LOG(INFO) << "a peer is read over TCP: " << why;
  return PeerId(id->value() * 2 + 1);
}

Transport& NodeTransport::TransportOf(uint64_t id) {
  if (id % 2 == 1 || ucx_ == nullptr) return *tcp_;
  return *ucx_;
}

TransferId NodeTransport::Read(PeerId peer, ReadBatch batch, Done done) {
  const uint64_t id = peer.value();
  return TransportOf(id).Read(PeerId(id / 2), std::move(batch), std::move(done)) * 2 + id % 2;
}

void NodeTransport::Cancel(TransferId transfer) { TransportOf(transfer).Cancel(transfer / 2); }

void NodeTransport::Disconnect(PeerId peer) {
  TransportOf(peer.value()).Disconnect(PeerId(peer.value() / 2));
}

}  // namespace tarn

#include "common/transport/loopback/loopback_transport.h"

#include <glog/logging.h>
#include <sys/mman.h>

#include <cstring>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/base/status.h"

namespace tarn {
namespace internal {

// One region's pages; alive for as long as anyone copies from them.
class LoopbackPages {
 public:
  explicit LoopbackPages(size_t size) : size_(size) {
    void* pages = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages != MAP_FAILED) data_ = static_cast<std::byte*>(pages);
  }
  ~LoopbackPages() {
    if (data_ != nullptr) munmap(data_, size_);
  }
  LoopbackPages(const LoopbackPages&) = delete;
  LoopbackPages& operator=(const LoopbackPages&) = delete;

  bool mapped() const { return data_ != nullptr; }
  std::span<std::byte> bytes() const { return {data_, size_}; }

 private:
  const size_t size_;
  std::byte* data_ = nullptr;
};

// What a transport exports. Thread-safe: readers on other loops look here.
class LoopbackNode {
 public:
  struct Lookup {
    bool known = false;                    // the index was given out
    std::shared_ptr<LoopbackPages> pages;  // null: freed
  };

  uint32_t Add(const std::shared_ptr<LoopbackPages>& pages) {
    MutexLock lock(mutex_);
    regions_.push_back(pages);
    return static_cast<uint32_t>(regions_.size() - 1);
  }
  void Remove(uint32_t index) {
    MutexLock lock(mutex_);
    regions_[index] = nullptr;
  }
  Lookup Find(uint32_t index) {
    MutexLock lock(mutex_);
    if (index >= regions_.size()) return {};
    return {true, regions_[index]};
  }
  bool Contains(std::span<const std::byte> bytes) {
    MutexLock lock(mutex_);
    for (const auto& pages : regions_) {
      if (pages == nullptr) continue;
      const std::span<std::byte> region = pages->bytes();
      if (bytes.data() >= region.data() &&
          bytes.data() + bytes.size() <= region.data() + region.size()) {
        return true;
      }
    }
    return false;
  }
  void Kill() {
    MutexLock lock(mutex_);
    alive_ = false;
  }
  bool alive() {
    MutexLock lock(mutex_);
    return alive_;
  }

 private:
  Mutex mutex_;
  bool alive_ ABSL_GUARDED_BY(mutex_) = true;
  std::vector<std::shared_ptr<LoopbackPages>> regions_ ABSL_GUARDED_BY(mutex_);
};

namespace {

class LoopbackMemory : public RegisteredMemory {
 public:
  LoopbackMemory(std::shared_ptr<LoopbackNode> node, std::shared_ptr<LoopbackPages> pages,
                 const std::string& address)
      : node_(std::move(node)), pages_(std::move(pages)), index_(node_->Add(pages_)) {
    descriptor_ = absl::StrCat(address, "/", index_.value(), "/", pages_->bytes().size());
  }
  ~LoopbackMemory() override { node_->Remove(index_.value()); }

  RegionIndex index() const override { return index_; }
  std::span<std::byte> bytes() const override { return pages_->bytes(); }
  std::string descriptor() const override { return descriptor_; }

 private:
  const std::shared_ptr<LoopbackNode> node_;
  const std::shared_ptr<LoopbackPages> pages_;
  const RegionIndex index_;
  std::string descriptor_;
};

// The owner may write meanwhile, by design: a reader verifies what it got. Byte by byte, for memcpy
// would be instrumented all the same.
#if defined(__SANITIZE_THREAD__)
__attribute__((noinline, no_sanitize_thread)) void CopyRacy(std::byte* to, const std::byte* from,
                                                            size_t size) {
  for (size_t i = 0; i < size; ++i) static_cast<volatile std::byte*>(to)[i] = from[i];
}
#else
void CopyRacy(std::byte* to, const std::byte* from, size_t size) { std::memcpy(to, from, size); }
#endif

// A region of a peer as its descriptor tells: "loopback-NODE/INDEX/SIZE".
struct RemoteRegion {
  uint32_t index = 0;
  uint64_t size = 0;
};

absl::StatusOr<RemoteRegion> ParseRegion(const std::string& descriptor,
                                         const std::string& address) {
  const std::vector<std::string> parts = absl::StrSplit(descriptor, '/');
  RemoteRegion region;
  if (parts.size() != 3 || parts[0] != address || !absl::SimpleAtoi(parts[1], &region.index) ||
      !absl::SimpleAtoi(parts[2], &region.size)) {
    return absl::InvalidArgumentError("not a loopback region of this peer");
  }
  return region;
}

}  // namespace
}  // namespace internal

using internal::LoopbackNode;
using internal::RemoteRegion;

std::string LoopbackFabric::Attach(std::shared_ptr<LoopbackNode> node) {
  MutexLock lock(mutex_);
  std::string address = absl::StrCat("loopback-", ++last_node_);
  nodes_.emplace(address, std::move(node));
  return address;
}

void LoopbackFabric::Detach(const std::string& address) {
  MutexLock lock(mutex_);
  nodes_.erase(address);
}

std::shared_ptr<LoopbackNode> LoopbackFabric::Find(const std::string& address) {
  MutexLock lock(mutex_);
  const auto found = nodes_.find(address);
  return found == nodes_.end() ? nullptr : found->second;
}

// The reading side.
class LoopbackTransport::Reader : public std::enable_shared_from_this<Reader> {
 public:
  Reader(EventLoop& loop, std::shared_ptr<LoopbackNode> self)
      : loop_(loop), self_(std::move(self)) {}

  PeerId AddPeer(std::shared_ptr<LoopbackNode> node, std::vector<RemoteRegion> regions) {
    MutexLock lock(mutex_);
    const PeerId id(++last_peer_);
    peers_.emplace(id, Peer{std::move(node), std::move(regions)});
    return id;
  }

  void RemovePeer(PeerId id) {
    MutexLock lock(mutex_);
    peers_.erase(id);
  }

  TransferId Start(PeerId peer, ReadBatch batch, Done done) {
    const TransferId id = ++last_transfer_;
    transfers_.emplace(id, Transfer{peer, std::move(batch), std::move(done), {}, {}});
    PostStep(id);
    return id;
  }

  void End(TransferId id, const absl::Status& why) {
    const auto found = transfers_.find(id);
    if (found != transfers_.end() && found->second.ended.ok()) found->second.ended = why;
  }

 private:
  struct Peer {
    std::shared_ptr<LoopbackNode> node;
    std::vector<RemoteRegion> regions;
  };
  struct Transfer {
    PeerId peer;
    ReadBatch batch;
    Done done;
    std::vector<absl::Status> statuses;
    absl::Status ended;  // OK: goes on
  };

  void PostStep(TransferId id) {
    loop_.Post([self = shared_from_this(), id] { self->Step(id); });
  }

  // One op a task: what else is on the loop, a Cancel above all, comes in between.
  void Step(TransferId id) {
    Transfer& transfer = transfers_.at(id);
    const size_t index = transfer.statuses.size();
    if (index < transfer.batch.ops.size()) {
      transfer.statuses.push_back(ReadOne(transfer, index));
      PostStep(id);
      return;
    }
    Transfer finished = std::move(transfers_.extract(id).mapped());
    finished.done(std::move(finished.statuses));
  }

  absl::Status ReadOne(const Transfer& transfer, size_t index) {
    RETURN_IF_ERROR(transfer.ended);
    if (!self_->alive()) return absl::UnavailableError("the transport is closed");
    if (loop_.Now() >= transfer.batch.deadline) {
      return absl::DeadlineExceededError("read took too long");
    }
    const ReadOp& op = transfer.batch.ops[index];
    ASSIGN_OR_RETURN(const std::span<const std::byte> from, Locate(transfer.peer, op));
    internal::CopyRacy(op.to.data(), from.data(), op.to.size());
    copying_ = nullptr;
    return transfer.batch.Judge(index);
  }

  // The bytes that `op` asks for; `copying_` keeps them mapped.
  absl::StatusOr<std::span<const std::byte>> Locate(PeerId id, const ReadOp& op) {
    MutexLock lock(mutex_);
    const auto found = peers_.find(id);
    if (found == peers_.end()) {
      return absl::UnavailableError(absl::StrCat("peer ", id.value(), " is not connected"));
    }
    const Peer& peer = found->second;
    if (op.region.value() >= peer.regions.size()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "region ", op.region.value(), ": the peer has ", peer.regions.size(), " regions"));
    }
    const RemoteRegion& region = peer.regions[op.region.value()];
    if (op.offset > region.size || op.to.size() > region.size - op.offset) {
      return absl::InvalidArgumentError(absl::StrCat("offset ", op.offset, " + ", op.to.size(),
                                                     " bytes: region ", op.region.value(), " has ",
                                                     region.size));
    }
    if (!op.to.empty() && !self_->Contains(op.to)) {
      return absl::InvalidArgumentError("`to` is not in a region of this transport");
    }
    copying_ = peer.node->alive() ? peer.node->Find(region.index).pages : nullptr;
    if (copying_ == nullptr) return absl::UnavailableError("the peer or its region is gone");
    return copying_->bytes().subspan(op.offset, op.to.size());
  }

  EventLoop& loop_;
  const std::shared_ptr<LoopbackNode> self_;

  Mutex mutex_;  // Connect may be called from any thread.
  uint64_t last_peer_ ABSL_GUARDED_BY(mutex_) = 0;
  std::map<PeerId, Peer> peers_ ABSL_GUARDED_BY(mutex_);

  // Loop only.
  TransferId last_transfer_ = 0;
  std::map<TransferId, Transfer> transfers_;
  std::shared_ptr<internal::LoopbackPages> copying_;
};

LoopbackTransport::LoopbackTransport(LoopbackFabric& fabric, EventLoop& loop)
    : fabric_(fabric),
      loop_(loop),
      node_(std::make_shared<LoopbackNode>()),
      address_(fabric.Attach(node_)),
      reader_(std::make_shared<Reader>(loop, node_)) {}

LoopbackTransport::~LoopbackTransport() {
  fabric_.Detach(address_);
  node_->Kill();
}

absl::StatusOr<std::unique_ptr<RegisteredMemory>> LoopbackTransport::Allocate(size_t bytes) {
  if (bytes == 0) return absl::InvalidArgumentError("a region of 0 bytes");
  auto pages = std::make_shared<internal::LoopbackPages>(bytes);
  if (!pages->mapped()) {
    return absl::ResourceExhaustedError(
        absl::StrCat("cannot allocate a region of ", bytes, " bytes"));
  }
  return std::make_unique<internal::LoopbackMemory>(node_, std::move(pages), address_);
}

absl::StatusOr<PeerId> LoopbackTransport::Connect(const PeerAddress& peer) {
  if (!absl::StartsWith(peer.worker, "loopback-")) {
    return absl::InvalidArgumentError("not a loopback address");
  }
  std::vector<RemoteRegion> regions;
  for (const std::string& descriptor : peer.regions) {
    ASSIGN_OR_RETURN(regions.emplace_back(), internal::ParseRegion(descriptor, peer.worker));
  }
  auto node = fabric_.Find(peer.worker);
  if (node == nullptr) return absl::UnavailableError("no transport at " + peer.worker);
  for (const RemoteRegion& region : regions) {
    const LoopbackNode::Lookup lookup = node->Find(region.index);
    if (lookup.pages == nullptr) {
      return absl::UnavailableError(absl::StrCat("region ", region.index, " is gone"));
    }
    if (lookup.pages->bytes().size() != region.size) {
      return absl::InvalidArgumentError(absl::StrCat("region ", region.index, ": wrong size"));
    }
  }
  return reader_->AddPeer(std::move(node), std::move(regions));
}

TransferId LoopbackTransport::Read(PeerId peer, ReadBatch batch, Done done) {
  CHECK(loop_.OnLoop());
  return reader_->Start(peer, std::move(batch), std::move(done));
}

void LoopbackTransport::Cancel(TransferId transfer) {
  CHECK(loop_.OnLoop());
  reader_->End(transfer, absl::CancelledError("read was cancelled"));
}

void LoopbackTransport::Disconnect(PeerId peer) {
  CHECK(loop_.OnLoop());
  reader_->RemovePeer(peer);
}

}  // namespace tarn

#include "common/transport/ucx/ucx_engine.h"

#include <glog/logging.h>
#include <sys/mman.h>
#include <ucs/config/global_opts.h>

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "common/runtime/random.h"
#include "common/runtime/real/real_event_loop.h"
#include "common/transport/ucx/mapped_region.h"
#include "common/transport/ucx/shared_memory.h"
#include "common/transport/ucx/ucx_status.h"
#include "common/transport/ucx/ucx_tls.h"
#include "common/transport/ucx/ucx_wire.h"

namespace tarn {
namespace {

constexpr size_t kPage = 4096;
constexpr absl::Duration kStopTimeout = absl::Seconds(10);

UcxGuard* GuardOf(std::span<std::byte> mapped) {
  return reinterpret_cast<UcxGuard*>(mapped.data() + mapped.size() - kPage);
}
void SetGuard(std::span<std::byte> mapped, uint64_t value) {
  __atomic_store_n(&GuardOf(mapped)->value, value, __ATOMIC_SEQ_CST);
}

// The handle that the owner holds. Its memory stays mapped until the engine ends, but empty.
class UcxMemory : public RegisteredMemory {
 public:
  UcxMemory(std::shared_ptr<UcxEngine> engine, RegionIndex index, std::span<std::byte> mapped,
            size_t size, std::string descriptor)
      : engine_(std::move(engine)),
        index_(index),
        mapped_(mapped),
        size_(size),
        descriptor_(std::move(descriptor)) {}

  ~UcxMemory() override {
    SetGuard(mapped_, 0);
    const size_t size = mapped_.size() - kPage;
    // The first gives back shared memory, the second private memory.
    if (madvise(mapped_.data(), size, MADV_REMOVE) != 0) {
      madvise(mapped_.data(), size, MADV_DONTNEED);
    }
  }

  RegionIndex index() const override { return index_; }
  std::span<std::byte> bytes() const override { return mapped_.first(size_); }
  std::string descriptor() const override { return descriptor_; }

 private:
  const std::shared_ptr<UcxEngine> engine_;  // keeps the pages
  const RegionIndex index_;
  const std::span<std::byte> mapped_;
  const size_t size_;
  const std::string descriptor_;
};

absl::Status Modify(ucp_config_t* config, const char* name, const std::string& value) {
  const ucs_status_t status = ucp_config_modify(config, name, value.c_str());
  if (status == UCS_OK) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("UCX refuses ", name, "=\"", value, "\": ", ucs_status_string(status)));
}

absl::Status ConfigureRdma(ucp_config_t* config, const UcxOptions& options) {
  if (!AllowsRdma(options.tls)) {
    const int64_t keepalive = absl::ToInt64Milliseconds(options.keepalive);
    return Modify(config, "KEEPALIVE_INTERVAL", absl::StrCat(keepalive, "ms"));
  }
  // UCX 1.13.1 puts keepalive on an endpoint of UD beside RC, and aborts the process when such an
  // endpoint ends before its peer has answered: docs/decisions/0011-rdma-devices.md.
  RETURN_IF_ERROR(Modify(config, "KEEPALIVE_INTERVAL", "inf"));
  // It believes that the NIC tells the kind of a packet as Mellanox' do, and with all others drops
  // what comes to an IPv4 address. Without the check a message may reach a process that it is not
  // for, after an address has moved; a region's guard shows that.
  RETURN_IF_ERROR(Modify(config, "UD_ETH_DGID_CHECK", "n"));
  // Peers send no messages but a few to connect; UCX would keep 60 MB of buffers for more.
  RETURN_IF_ERROR(Modify(config, "RC_RX_QUEUE_LEN", "512"));
  RETURN_IF_ERROR(Modify(config, "UD_RX_QUEUE_LEN", "512"));
  const int64_t timeout = absl::ToInt64Milliseconds(options.rdma_timeout);
  RETURN_IF_ERROR(Modify(config, "RC_TIMEOUT", absl::StrCat(timeout, "ms")));
  return Modify(config, "RC_RETRY_COUNT", absl::StrCat(options.rdma_retries));
}

absl::Status Configure(ucp_config_t* config, const UcxOptions& options) {
  if (!options.tls.empty()) RETURN_IF_ERROR(Modify(config, "TLS", options.tls));
  if (!options.devices.empty()) RETURN_IF_ERROR(Modify(config, "NET_DEVICES", options.devices));
  // Without this UCX does not use shared memory on endpoints that report the loss of a peer.
  if (SharedMemoryKinds::FromTls(options.tls).any()) {
    RETURN_IF_ERROR(Modify(config, "MM_ERROR_HANDLING", "y"));
  }
  RETURN_IF_ERROR(ConfigureRdma(config, options));
  // All but the heap, whose memory is not zeroed.
  return Modify(config, "ALLOC_PRIO", "md:sysv,md:posix,huge,thp,md:*,mmap");
}

}  // namespace

absl::StatusOr<std::shared_ptr<UcxEngine>> UcxEngine::Create(const UcxOptions& options) {
  std::shared_ptr<UcxEngine> engine(new UcxEngine(SharedMemoryKinds::FromTls(options.tls)));
  RETURN_IF_ERROR(engine->CreateContext(options));
  RETURN_IF_ERROR(engine->CreateWorker());
  UcxEngine* self = engine.get();
  engine->reader_ = std::make_unique<UcxReader>(
      engine->worker_, options.max_reads_in_flight, options.keepalive,
      [self](std::span<const std::byte> bytes) { return self->IsLocal(bytes); });
  MutexLock lock(engine->mutex_);
  engine->thread_ =
      std::make_unique<UcxThread>(engine->worker_, options.poll_time, options.keepalive,
                                  [self] { return self->reader_->Work(); });
  return engine;
}

UcxEngine::~UcxEngine() {
  Stop();
  for (const Region& region : regions_) ucp_mem_unmap(context_, region.handle);
  if (worker_ != nullptr) ucp_worker_destroy(worker_);
  if (context_ != nullptr) ucp_cleanup(context_);
}

absl::Status UcxEngine::CreateContext(const UcxOptions& options) {
  // UCX tells us by status; its own words are for those who look for a cause.
  ucs_global_opts.log_component.log_level =
      options.verbose ? UCS_LOG_LEVEL_WARN : UCS_LOG_LEVEL_FATAL;
  ucp_config_t* config = nullptr;
  RETURN_IF_ERROR(FromUcx(ucp_config_read(nullptr, nullptr, &config), "read UCX configuration"));
  absl::Status status = Configure(config, options);
  if (status.ok()) {
    ucp_params_t params{};
    params.field_mask = UCP_PARAM_FIELD_FEATURES;
    params.features = UCP_FEATURE_RMA | UCP_FEATURE_WAKEUP;
    status = FromUcx(ucp_init(&params, config, &context_), "start UCX");
  }
  ucp_config_release(config);
  return status;
}

absl::Status UcxEngine::CreateWorker() {
  ucp_worker_params_t params{};
  params.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE;
  // One thread at a time: Create's, then the progress thread, then the destructor's.
  params.thread_mode = UCS_THREAD_MODE_SERIALIZED;
  const ucs_status_t status = ucp_worker_create(context_, &params, &worker_);
  // UCX needs some megabytes of shared memory for itself.
  const bool no_memory = status == UCS_ERR_NO_MEMORY || status == UCS_ERR_NO_RESOURCE ||
                         status == UCS_ERR_SHMEM_SEGMENT;
  if (no_memory && shared_memory_.any()) {
    return absl::ResourceExhaustedError(
        absl::StrCat("create UCX worker: ", ucs_status_string(status), ": ",
                     DescribeSharedMemory(shared_memory_, MemoryLimits::Read())));
  }
  RETURN_IF_ERROR(FromUcx(status, "create UCX worker"));
  ucp_address_t* address = nullptr;
  size_t size = 0;
  RETURN_IF_ERROR(FromUcx(ucp_worker_get_address(worker_, &address, &size), "UCX address"));
  address_ = EncodeWorker(std::string_view(reinterpret_cast<const char*>(address), size));
  ucp_worker_release_address(worker_, address);
  return absl::OkStatus();
}

void UcxEngine::Stop() {
  std::unique_ptr<UcxThread> thread;
  {
    MutexLock lock(mutex_);
    thread = std::move(thread_);
  }
  if (thread == nullptr) return;
  thread->PostAndWait([this] {
    for (const Region& region : regions_) SetGuard(region.bytes, 0);
    reader_->EndAll(absl::UnavailableError("the transport is closed"));
    const absl::Time limit = SteadyNow() + kStopTimeout;
    while (!reader_->idle()) {
      CHECK_LT(SteadyNow(), limit) << "UCX does not complete reads of closed endpoints";
      reader_->Work();
      ucp_worker_progress(worker_);
    }
  });
  thread.reset();
  reader_.reset();
}

void UcxEngine::Post(std::function<void(UcxReader&)> command) {
  MutexLock lock(mutex_);
  if (thread_ == nullptr) return;
  thread_->Post([this, command = std::move(command)] { command(*reader_); });
}

absl::Status UcxEngine::MapRegion(size_t bytes, Region& region) {
  ucp_mem_map_params_t params{};
  params.field_mask =
      UCP_MEM_MAP_PARAM_FIELD_LENGTH | UCP_MEM_MAP_PARAM_FIELD_FLAGS | UCP_MEM_MAP_PARAM_FIELD_PROT;
  params.length = bytes;
  params.flags = UCP_MEM_MAP_ALLOCATE;
  params.prot =
      UCP_MEM_MAP_PROT_LOCAL_READ | UCP_MEM_MAP_PROT_LOCAL_WRITE | UCP_MEM_MAP_PROT_REMOTE_READ;
  // At an address of ours, for huge pages; anywhere, if UCX does not take that.
  std::byte* const room = ReserveAligned(bytes);
  ucs_status_t status = UCS_ERR_NO_MEMORY;
  if (room != nullptr) {
    params.field_mask |= UCP_MEM_MAP_PARAM_FIELD_ADDRESS;
    params.address = room;
    params.flags |= UCP_MEM_MAP_FIXED;
    status = ucp_mem_map(context_, &params, &region.handle);
    if (status != UCS_OK) ReleaseReserved(room, bytes);
  }
  if (status != UCS_OK) {
    params.field_mask &= ~uint64_t{UCP_MEM_MAP_PARAM_FIELD_ADDRESS};
    params.flags &= ~uint64_t{UCP_MEM_MAP_FIXED};
    status = ucp_mem_map(context_, &params, &region.handle);
  }
  if (status != UCS_OK) {
    return absl::ResourceExhaustedError(absl::StrCat("UCX cannot allocate a region of ", bytes,
                                                     " bytes: ", ucs_status_string(status)));
  }
  ucp_mem_attr_t attributes{};
  attributes.field_mask = UCP_MEM_ATTR_FIELD_ADDRESS;
  CHECK_EQ(ucp_mem_query(region.handle, &attributes), UCS_OK);
  CHECK_EQ(reinterpret_cast<uintptr_t>(attributes.address) % kPage, 0u);
  region.bytes = {static_cast<std::byte*>(attributes.address), bytes};
  if (!shared_memory_.any() || IsSharedMemory(region.bytes.first(kPage))) return absl::OkStatus();
  ucp_mem_unmap(context_, region.handle);
  return absl::ResourceExhaustedError(
      absl::StrCat("a region of ", bytes, " bytes: UCX has no shared memory for it: ",
                   DescribeSharedMemory(shared_memory_, MemoryLimits::Read())));
}

absl::StatusOr<std::string> UcxEngine::PackKey(ucp_mem_h handle) {
  void* key = nullptr;
  size_t size = 0;
  RETURN_IF_ERROR(FromUcx(ucp_rkey_pack(context_, handle, &key, &size), "pack remote key"));
  std::string packed(static_cast<const char*>(key), size);
  ucp_rkey_buffer_release(key);
  return packed;
}

absl::StatusOr<std::unique_ptr<RegisteredMemory>> UcxEngine::Allocate(size_t bytes) {
  if (bytes == 0) return absl::InvalidArgumentError("a region of 0 bytes");
  RETURN_IF_ERROR(CheckRegionFits(bytes, shared_memory_, MemoryLimits::Read()));
  Region region;
  RegionIndex index;
  absl::StatusOr<std::string> key = absl::UnavailableError("the transport is closed");
  {
    MutexLock lock(mutex_);
    if (thread_ == nullptr) return key.status();
    thread_->PostAndWait([&] {
      const size_t mapped = (bytes + kPage - 1) / kPage * kPage + kPage;
      if (const absl::Status status = MapRegion(mapped, region); !status.ok()) {
        key = status;
        return;
      }
      index = RegionIndex(static_cast<uint32_t>(regions_.size()));
      regions_.push_back(region);
      key = PackKey(region.handle);
    });
  }
  RETURN_IF_ERROR(key.status());
  AskForHugePages(region.bytes);
  // Touched now, so that missing memory shows at start and not in the first read.
  std::memset(region.bytes.data(), 0, region.bytes.size());
  const uint64_t guard = Random::FromEntropy().Next() | 1;
  GuardOf(region.bytes)->owner = OwnerProcess::Self();
  SetGuard(region.bytes, guard);
  const UcxRegionDescriptor descriptor{
      .base = reinterpret_cast<uint64_t>(region.bytes.data()),
      .size = bytes,
      .guard_address = reinterpret_cast<uint64_t>(GuardOf(region.bytes)),
      .guard = guard,
      .rkey = *std::move(key)};
  return std::make_unique<UcxMemory>(shared_from_this(), index, region.bytes, bytes,
                                     EncodeRegion(descriptor));
}

bool UcxEngine::IsLocal(std::span<const std::byte> bytes) const {
  for (const Region& region : regions_) {
    const std::byte* end = region.bytes.data() + region.bytes.size() - kPage;
    if (bytes.data() >= region.bytes.data() && bytes.data() + bytes.size() <= end) return true;
  }
  return false;
}

}  // namespace tarn

#include "common/transport/ucx/ucx_peer.h"

#include <glog/logging.h>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "common/transport/ucx/ucx_status.h"

namespace tarn {

absl::Status UcxPeer::Region::CheckMappedGuard() const {
  const uint64_t guard = __atomic_load_n(&mapped_guard()->value, __ATOMIC_ACQUIRE);
  if (guard == descriptor.guard) return absl::OkStatus();
  return absl::UnavailableError("the peer has freed this region");
}

UcxPeer::UcxPeer(ucp_worker_h worker, PeerId id, std::function<void()> on_lost)
    : worker_(worker), id_(id), on_lost_(std::move(on_lost)) {}

UcxPeer::~UcxPeer() {
  CHECK(endpoint_ == nullptr && close_request_ == nullptr && reads_in_flight == 0);
  for (const Region& region : regions_) ucp_rkey_destroy(region.rkey);
}

absl::StatusOr<std::unique_ptr<UcxPeer>> UcxPeer::Connect(ucp_worker_h worker, PeerId id,
                                                          const std::string& address,
                                                          std::vector<UcxRegionDescriptor> regions,
                                                          std::function<void()> on_lost) {
  std::unique_ptr<UcxPeer> peer(new UcxPeer(worker, id, std::move(on_lost)));
  absl::Status status = peer->CreateEndpoint(address);
  for (UcxRegionDescriptor& region : regions) {
    if (status.ok()) status = peer->UnpackRegion(std::move(region));
  }
  if (status.ok()) return peer;
  peer->Close(status);
  while (!peer->Closed()) ucp_worker_progress(worker);
  return status;
}

absl::Status UcxPeer::CreateEndpoint(const std::string& address) {
  ucp_ep_params_t params{};
  params.field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS | UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE |
                      UCP_EP_PARAM_FIELD_ERR_HANDLER;
  params.address = reinterpret_cast<const ucp_address_t*>(address.data());
  params.err_mode = UCP_ERR_HANDLING_MODE_PEER;
  params.err_handler.arg = this;
  params.err_handler.cb = [](void* arg, ucp_ep_h, ucs_status_t status) {
    auto* peer = static_cast<UcxPeer*>(arg);
    if (!peer->lost_.ok()) return;
    peer->lost_ = absl::UnavailableError(
        absl::StrCat("peer ", peer->id_.value(), " is lost: ", ucs_status_string(status)));
    peer->on_lost_();
  };
  return FromUcx(ucp_ep_create(worker_, &params, &endpoint_), "connect");
}

absl::Status UcxPeer::UnpackRegion(UcxRegionDescriptor descriptor) {
  ucp_rkey_h rkey;
  const ucs_status_t status = ucp_ep_rkey_unpack(endpoint_, descriptor.rkey.data(), &rkey);
  // The address was good: what fails is to reach memory that is gone.
  if (status != UCS_OK) {
    return absl::UnavailableError(
        absl::StrCat("region ", regions_.size(), " cannot be opened: ", ucs_status_string(status)));
  }
  void* base = nullptr;
  if (ucp_rkey_ptr(rkey, descriptor.base, &base) != UCS_OK) base = nullptr;
  Region region{.descriptor = std::move(descriptor), .rkey = rkey};
  region.mapped = static_cast<const std::byte*>(base);
  if (base != nullptr) {
    const size_t size = region.descriptor.guard_address - region.descriptor.base + sizeof(UcxGuard);
    region.mapping = MappedRegion::Duplicate({region.mapped, size});
    if (region.mapping != nullptr) region.mapped = region.mapping->bytes().data();
  }
  regions_.push_back(std::move(region));
  return absl::OkStatus();
}

// All regions have one owner.
bool UcxPeer::ProcessGone() const {
  for (const Region& region : regions_) {
    if (region.mapped != nullptr) return region.mapped_guard()->owner.Gone();
  }
  return false;
}

void UcxPeer::Close(const absl::Status& why) {
  if (lost_.ok()) lost_ = why;
  if (endpoint_ == nullptr) return;
  ucp_request_param_t param{};
  param.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS;
  param.flags = UCP_EP_CLOSE_FLAG_FORCE;
  void* request = ucp_ep_close_nbx(endpoint_, &param);
  endpoint_ = nullptr;
  if (UCS_PTR_IS_PTR(request)) close_request_ = request;
}

bool UcxPeer::Closed() {
  if (endpoint_ != nullptr || reads_in_flight > 0) return false;
  if (close_request_ == nullptr) return true;
  if (ucp_request_check_status(close_request_) == UCS_INPROGRESS) return false;
  ucp_request_free(close_request_);
  close_request_ = nullptr;
  return true;
}

}  // namespace tarn

#include "common/transport/verbs/verbs_source.h"

#include <fcntl.h>
#include <infiniband/verbs.h>
#include <net/if.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"

namespace tarn {
namespace {

// libibverbs' list of devices, which must be freed after what was opened from it is open.
class DeviceList {
 public:
  DeviceList() : devices_(ibv_get_device_list(&count_)), error_(errno) {}
  ~DeviceList() {
    if (devices_ != nullptr) ibv_free_device_list(devices_);
  }
  DeviceList(const DeviceList&) = delete;
  DeviceList& operator=(const DeviceList&) = delete;

  // A kernel without RDMA has no devices, which is no failure.
  absl::Status status() const {
    if (devices_ != nullptr || error_ == ENOSYS || error_ == ENOENT) return absl::OkStatus();
    return absl::UnavailableError(absl::StrCat("libibverbs: ", strerror(error_)));
  }
  std::vector<ibv_device*> devices() const {
    if (devices_ == nullptr) return {};
    return {devices_, devices_ + count_};
  }

 private:
  int count_ = 0;
  ibv_device** const devices_;
  const int error_;
};

struct CloseDevice {
  void operator()(ibv_context* context) const { ibv_close_device(context); }
};
using OpenDevice = std::unique_ptr<ibv_context, CloseDevice>;

absl::StatusOr<OpenDevice> Open(const std::string& name) {
  const DeviceList list;
  RETURN_IF_ERROR(list.status());
  for (ibv_device* device : list.devices()) {
    if (name != ibv_get_device_name(device)) continue;
    errno = 0;
    OpenDevice context(ibv_open_device(device));
    if (context != nullptr) return context;
    return absl::UnavailableError(absl::StrCat(name, " cannot be opened: ", strerror(errno)));
  }
  return absl::UnavailableError(absl::StrCat(name, " is gone"));
}

absl::StatusOr<RawPort> QueryPort(ibv_context* context, int number) {
  ibv_port_attr attributes{};
  if (const int error = ibv_query_port(context, static_cast<uint8_t>(number), &attributes)) {
    return absl::UnavailableError(
        absl::StrCat("port ", number, " cannot be queried: ", strerror(error)));
  }
  return RawPort{.number = number,
                 .state = attributes.state,
                 .physical_state = attributes.phys_state,
                 .link_layer = attributes.link_layer,
                 .active_width = attributes.active_width,
                 .active_speed = attributes.active_speed,
                 .active_mtu = attributes.active_mtu,
                 .lid = attributes.lid};
}

absl::StatusOr<std::vector<RawGid>> QueryGids(ibv_context* context) {
  // Fewer than a device has would fail the call, and so would 64 KiB, which no length of an
  // attribute can say.
  std::vector<ibv_gid_entry> entries(65535 / sizeof(ibv_gid_entry));
  const ssize_t count = ibv_query_gid_table(context, entries.data(), entries.size(), 0);
  if (count < 0) {
    return absl::UnavailableError(
        absl::StrCat("the table of GIDs cannot be read: ", strerror(static_cast<int>(-count))));
  }
  std::vector<RawGid> gids;
  for (ssize_t i = 0; i < count; ++i) {
    const ibv_gid_entry& entry = entries[static_cast<size_t>(i)];
    RawGid gid{.port = static_cast<int>(entry.port_num),
               .index = static_cast<int>(entry.gid_index),
               .type = static_cast<int>(entry.gid_type)};
    std::memcpy(gid.bytes.data(), entry.gid.raw, gid.bytes.size());
    char netdev[IF_NAMESIZE] = "";
    if (entry.ndev_ifindex != 0) if_indextoname(entry.ndev_ifindex, netdev);
    gid.netdev = netdev;
    gids.push_back(std::move(gid));
  }
  return gids;
}

std::optional<RdmaPortEvent::Kind> KindOf(ibv_event_type type) {
  switch (type) {
    case IBV_EVENT_PORT_ACTIVE:
      return RdmaPortEvent::Kind::kActive;
    case IBV_EVENT_PORT_ERR:
      return RdmaPortEvent::Kind::kError;
    case IBV_EVENT_GID_CHANGE:
    case IBV_EVENT_LID_CHANGE:
      return RdmaPortEvent::Kind::kAddressChanged;
    case IBV_EVENT_DEVICE_FATAL:
      return RdmaPortEvent::Kind::kDeviceLost;
    default:
      return std::nullopt;
  }
}

class SystemEvents : public VerbsEvents {
 public:
  explicit SystemEvents(OpenDevice context) : context_(std::move(context)) {}

  int fd() const override { return context_->async_fd; }

  absl::StatusOr<std::optional<RdmaPortEvent>> Next() override {
    ibv_async_event event{};
    if (ibv_get_async_event(context_.get(), &event) != 0) {
      if (errno == EAGAIN || errno == EINTR) return std::nullopt;
      return absl::UnavailableError(absl::StrCat("no more events: ", strerror(errno)));
    }
    ibv_ack_async_event(&event);
    const auto kind = KindOf(event.event_type);
    if (!kind) return std::nullopt;
    const bool of_device = *kind == RdmaPortEvent::Kind::kDeviceLost;
    return RdmaPortEvent{.kind = *kind,
                         .device = ibv_get_device_name(context_->device),
                         .port = of_device ? 0 : event.element.port_num};
  }

 private:
  const OpenDevice context_;
};

class SystemSource : public VerbsSource {
 public:
  absl::StatusOr<std::vector<std::string>> DeviceNames() override {
    const DeviceList list;
    RETURN_IF_ERROR(list.status());
    std::vector<std::string> names;
    for (ibv_device* device : list.devices()) names.push_back(ibv_get_device_name(device));
    return names;
  }

  absl::StatusOr<RawDevice> Query(const std::string& name) override {
    ASSIGN_OR_RETURN(const OpenDevice context, Open(name));
    ibv_device_attr attributes{};
    if (const int error = ibv_query_device(context.get(), &attributes)) {
      return absl::UnavailableError(absl::StrCat("cannot be queried: ", strerror(error)));
    }
    RawDevice device{.name = name};
    device.infiniband = context->device->transport_type == IBV_TRANSPORT_IB;
    for (int number = 1; number <= attributes.phys_port_cnt; ++number) {
      ASSIGN_OR_RETURN(device.ports.emplace_back(), QueryPort(context.get(), number));
    }
    ASSIGN_OR_RETURN(device.gids, QueryGids(context.get()));
    return device;
  }

  absl::StatusOr<std::unique_ptr<VerbsEvents>> OpenEvents(const std::string& name) override {
    ASSIGN_OR_RETURN(OpenDevice context, Open(name));
    const int flags = fcntl(context->async_fd, F_GETFL);
    if (fcntl(context->async_fd, F_SETFL, flags | O_NONBLOCK) != 0) {
      return absl::UnavailableError(absl::StrCat(name, ": events: ", strerror(errno)));
    }
    return std::make_unique<SystemEvents>(std::move(context));
  }
};

}  // namespace

std::unique_ptr<VerbsSource> SystemVerbs() { return std::make_unique<SystemSource>(); }

}  // namespace tarn

#pragma once

// The RDMA ports of a node: chosen when it starts, told to people, watched while it runs.
//
// The log says which ports UCX gets and which not, why, and what to do. A port that goes down is a
// warning, a metric, and a line in `tarn status`; reads over it fail and their blocks are computed.

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/base/mutex.h"
#include "common/metrics/registry.h"
#include "common/transport/ucx/ucx_options.h"
#include "common/transport/verbs/device_choice.h"
#include "common/transport/verbs/port_watcher.h"
#include "common/transport/verbs/rdma_devices.h"

namespace tarn::kvstore {

struct RdmaPortsOptions {
  std::string devices;     // "auto" (or nothing), "none", or names with commas
  std::string transports;  // UCX's list; empty: UcxOptions' own
};

class RdmaPorts {
 public:
  // Looks at this host and starts to watch. `registry` outlives this. INVALID_ARGUMENT: a device
  // that does not exist, with those that do; or transports that need a device, without one.
  static absl::StatusOr<std::unique_ptr<RdmaPorts>> Open(const RdmaPortsOptions& options,
                                                         metrics::Registry* registry);
  // The same over given devices, which nobody watches.
  static absl::StatusOr<std::unique_ptr<RdmaPorts>> Make(const std::vector<RdmaDevice>& devices,
                                                         const RdmaPortsOptions& options,
                                                         metrics::Registry* registry);

  // With what a transport is to be made.
  const UcxOptions& ucx() const { return ucx_; }
  // One line for each port in use.
  const std::vector<std::string>& descriptions() const { return descriptions_; }
  // What is wrong now, one line for each port, with what to do. Thread-safe.
  std::vector<std::string> Problems() const;

  // A port has changed. Thread-safe.
  void OnEvent(const RdmaPortEvent& event);

 private:
  explicit RdmaPorts(metrics::Registry* registry);
  absl::Status Choose(const std::vector<RdmaDevice>& devices, const RdmaPortsOptions& options);
  void Report(const RdmaChoice& choice);
  void Register(const RdmaDevice& device);
  void SetActive(const std::string& port, bool active);
  void Watch(const std::vector<RdmaDevice>& devices);

  metrics::Family<metrics::Gauge>& active_;
  metrics::Family<metrics::Gauge>& speed_;
  // Constant after Make.
  UcxOptions ucx_;
  std::vector<std::string> descriptions_;
  std::map<std::string, metrics::Gauge*> gauges_;  // of active_, by name of port
  std::set<std::string> chosen_;                   // names of ports
  mutable Mutex mutex_;
  std::map<std::string, std::string> problems_ ABSL_GUARDED_BY(mutex_);  // by name of port
  std::unique_ptr<RdmaPortWatcher> watcher_;  // last: its thread uses all the above
};

}  // namespace tarn::kvstore

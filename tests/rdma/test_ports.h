#pragma once

// The RDMA ports that these tests run over: of this host, real or in software.

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/transport/ucx/ucx_options.h"

namespace tarn {

struct TestPorts {
  std::string reader;  // "mlx5_0:1"
  std::string owner;   // another one, if the host has two
  // The interfaces below both, where they are in software: what a test may cut and slow down.
  std::vector<std::string> netdevs;
};

// Nothing on a host without a usable port.
const std::optional<TestPorts>& PortsOfThisHost();

// What a node over `port` runs with: RDMA alone, so that no read takes another way.
UcxOptions OptionsFor(const std::string& port);

#define SKIP_WITHOUT_RDMA() \
  if (!PortsOfThisHost())   \
  GTEST_SKIP() << "no RDMA port here; tests/rdma/run brings a machine with two"

// For as long as it lives, each packet between the two ports suffers: "loss 5%", "delay 20ms".
class CableFault {
 public:
  // Nothing where the cable is real, or this process may not touch it.
  static std::unique_ptr<CableFault> Start(const std::string& netem);
  ~CableFault();

 private:
  CableFault() = default;
};

// Whether both ends are cables that SetCable may cut.
bool CableCanBeCut();
// Cuts or mends the cable at the owner's end.
void SetCable(bool up);

}  // namespace tarn

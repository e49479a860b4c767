#pragma once

// How a UcxTransport is set up.

#include <cstddef>
#include <string>

#include "absl/time/time.h"

namespace tarn {

struct UcxOptions {
  // UCX_TLS, e.g. "shm,self", "rc,shm,self"; empty: the best that both sides have. TCP is left out
  // unless named: over it, a reader that goes away in the middle of a read makes UCX 1.13.1 abort
  // the owner's process (docs/decisions/0004-ucx.md). tcp/ is our own.
  std::string tls = "^tcp";
  // UCX_NET_DEVICES, e.g. "mlx5_0:1"; empty: all.
  std::string devices;
  // Reads handed to UCX at the same time, over all peers; > 0.
  size_t max_reads_in_flight = 64;
  // How long the progress thread polls after the last event before it sleeps.
  absl::Duration poll_time = absl::Microseconds(30);
  // Connect fails with UNAVAILABLE after this.
  absl::Duration connect_timeout = absl::Seconds(5);
  // What Connect may take to fill in the page tables of a neighbour's memory, so that the first
  // reads do not; what is left is filled in as it is read. Huge pages: 0.4 ms a GiB; 4 KiB pages:
  // 0.2 s.
  absl::Duration populate_time = absl::Milliseconds(500);
  // After a deadline or Cancel, a peer that still does not answer is given up, for UCX cannot take
  // back a single read.
  absl::Duration abandon_after = absl::Seconds(2);
  // How often it is looked whether an idle peer on this host lives. A peer over RDMA is not asked:
  // a read from one that is dead ends with UNAVAILABLE.
  absl::Duration keepalive = absl::Seconds(1);
  // RDMA sends again what is not answered in this time, and so often; then the peer is lost. NICs
  // round the time up, up to four times. Not 7 retries, which some drivers take for no end.
  absl::Duration rdma_timeout = absl::Milliseconds(500);
  int rdma_retries = 4;
  // UCX's warnings on stderr, which name what its status codes do not. Of the whole process.
  bool verbose = false;
};

}  // namespace tarn

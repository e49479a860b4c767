// The tests over RDMA ports, and the process that owns blocks in some of them.

#include <glog/logging.h>
#include <gtest/gtest.h>

#include "common/transport/ucx/child_process.h"
#include "tests/rdma/pool_on_port.h"

int main(int argc, char** argv) {
  if (const auto child = tarn::ChildRole::FromArguments(argc, argv)) {
    tarn::RunBlockOwner(*child->channel, child->role);
    return 0;
  }
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}

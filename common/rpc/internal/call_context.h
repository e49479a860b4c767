#pragma once

#include <grpcpp/grpcpp.h>

namespace tarn::internal {

// A call's context, with a destructor that has a name in stacks. It lets go of the channel inside
// libgrpc++, whose counting ThreadSanitizer does not see: bazel/tsan.cc excuses it by this name.
class CallContext : public grpc::ClientContext {
 public:
  ~CallContext() = default;
};

}  // namespace tarn::internal

#include "common/rpc/status.h"

#include <string>

#include "absl/strings/cord.h"
#include "absl/strings/numbers.h"
#include "common/base/status.h"

namespace tarn {
namespace {

constexpr char kPayload[] = "tarn/retry-after-ms";
constexpr char kMetadata[] = "retry-after-ms";

}  // namespace

absl::Status WithRetryAfter(absl::Status status, absl::Duration delay) {
  // Rounded up: coming back too early is refused again.
  const int64_t ms = absl::ToInt64Milliseconds(absl::Ceil(delay, absl::Milliseconds(1)));
  status.SetPayload(kPayload, absl::Cord(std::to_string(ms)));
  return status;
}

std::optional<absl::Duration> RetryAfter(const absl::Status& status) {
  const absl::optional<absl::Cord> payload = status.GetPayload(kPayload);
  int64_t ms = 0;
  if (!payload.has_value() || !absl::SimpleAtoi(std::string(*payload), &ms)) return std::nullopt;
  return absl::Milliseconds(ms);
}

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  return grpc::Status(static_cast<grpc::StatusCode>(status.raw_code()), Message(status));
}

absl::Status FromGrpcStatus(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
}

absl::Status FromGrpcStatus(const grpc::Status& status, const grpc::ClientContext& context) {
  absl::Status result = FromGrpcStatus(status);
  if (result.ok()) return result;
  const auto& metadata = context.GetServerTrailingMetadata();
  const auto found = metadata.find(kMetadata);
  int64_t ms = 0;
  if (found == metadata.end()) return result;
  if (!absl::SimpleAtoi(std::string(found->second.data(), found->second.size()), &ms)) {
    return result;
  }
  return WithRetryAfter(std::move(result), absl::Milliseconds(ms));
}

void AddRetryAfter(const absl::Status& status, grpc::ServerContextBase& context) {
  const std::optional<absl::Duration> delay = RetryAfter(status);
  if (!delay.has_value()) return;
  context.AddTrailingMetadata(kMetadata, std::to_string(absl::ToInt64Milliseconds(*delay)));
}

}  // namespace tarn

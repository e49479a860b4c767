#pragma once

// Helpers around absl::Status, which every fallible call of tarn returns.
//
// What the codes mean here, and what a caller usually does:
//   RESOURCE_EXHAUSTED   queue or tier full         shed, retry later
//   UNAVAILABLE          peer gone                  other replica, else recompute
//   ABORTED              stale epoch or lease       refresh the view, retry once
//   DATA_LOSS            checksum, layout mismatch  drop the block, recompute
//   DEADLINE_EXCEEDED, CANCELLED                    stop work, release pins
//   INVALID_ARGUMENT, FAILED_PRECONDITION           report; a retry cannot help
//
// Debian's absl::string_view is not std::string_view and neither converts to the other: tarn's own
// interfaces use std types, and Message() crosses the border.

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace tarn {

// The status' message as a std::string.
inline std::string Message(const absl::Status& status) {
  return std::string(status.message().data(), status.message().size());
}

// `status` with "`context`: " in front of its message. OK stays OK.
absl::Status Annotate(const absl::Status& status, const std::string& context);

}  // namespace tarn

#define TARN_CONCAT_INNER_(a, b) a##b
#define TARN_CONCAT_(a, b) TARN_CONCAT_INNER_(a, b)

// Returns from the function if the expression's status is not OK.
#define RETURN_IF_ERROR(expr)                                                        \
  do {                                                                               \
    if (absl::Status tarn_status_ = (expr); !tarn_status_.ok()) return tarn_status_; \
  } while (false)

// ASSIGN_OR_RETURN(auto value, MakeValue()); the right side is a StatusOr.
#define ASSIGN_OR_RETURN(lhs, expr) \
  ASSIGN_OR_RETURN_IMPL_(TARN_CONCAT_(tarn_statusor_, __LINE__), lhs, expr)
#define ASSIGN_OR_RETURN_IMPL_(statusor, lhs, expr) \
  auto statusor = (expr);                           \
  if (!statusor.ok()) return statusor.status();     \
  lhs = std::move(statusor).value()

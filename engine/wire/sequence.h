#pragma once

// What PrefillStart and DecodeAdmit have in common, checked: the sequence and how it goes on.
// A bad request is refused here with the field's name and limit, and costs nothing else.

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/executor.h"
#include "proto/common.pb.h"
#include "proto/request.pb.h"

namespace tarn::engine {

struct SequenceSpec {
  std::vector<TokenId> tokens;
  int prompt_length = 0;
  SamplingParams sampling;
  std::vector<TokenId> end_tokens;
  BlockKey root;       // of the keys of its blocks
  std::string tenant;  // whose blocks they are
};

// Works on both protos: they name these fields alike.
// INVALID_ARGUMENT: names field and limit. One token at least must fit behind the given ones.
template <typename Proto>
absl::StatusOr<SequenceSpec> SequenceFrom(const Proto& proto, const ModelInfo& model,
                                          const BlockLayout& layout);

// A time-out of a request. 0 means `otherwise`. INVALID_ARGUMENT unless in [0, 24 h].
absl::StatusOr<absl::Duration> TimeoutFrom(const char* field, int64_t timeout_us,
                                           absl::Duration otherwise);

// Implementation only from here on.
namespace internal {

// The fields by themselves, so that the checks are compiled once.
struct SequenceFields {
  std::vector<TokenId> tokens;
  uint32_t prompt_length = 0;
  const v1::SamplingParams* sampling = nullptr;
  std::vector<TokenId> end_tokens;
  const std::string* salt = nullptr;
  const std::string* lora = nullptr;
  const std::string* tenant = nullptr;
};
absl::StatusOr<SequenceSpec> CheckSequence(SequenceFields fields, const ModelInfo& model,
                                           const BlockLayout& layout);

}  // namespace internal

template <typename Proto>
absl::StatusOr<SequenceSpec> SequenceFrom(const Proto& proto, const ModelInfo& model,
                                          const BlockLayout& layout) {
  return internal::CheckSequence(
      {.tokens = {proto.tokens().begin(), proto.tokens().end()},
       .prompt_length = proto.prompt_length(),
       .sampling = &proto.sampling(),
       .end_tokens = {proto.end_token_ids().begin(), proto.end_token_ids().end()},
       .salt = &proto.salt(),
       .lora = &proto.lora(),
       .tenant = &proto.tenant()},
      model, layout);
}

}  // namespace tarn::engine

#include "engine/model/fingerprint.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace tarn::engine {

uint64_t HashTensor(const std::string& name, const TensorView& tensor) {
  const std::string head = absl::StrCat(name, "\n", std::string(DataTypeName(tensor.type)), "\n",
                                        absl::StrJoin(tensor.shape, ","), "\n");
  const uint64_t seed = XXH3_64bits(head.data(), head.size());
  return XXH3_64bits_withSeed(tensor.data, tensor.bytes, seed);
}

uint64_t CheckpointFingerprint(const std::string& config_text,
                               const std::map<std::string, uint64_t>& hashes) {
  uint64_t state = XXH3_64bits(config_text.data(), config_text.size());
  for (const auto& [name, hash] : hashes) {
    state = XXH3_64bits_withSeed(&hash, sizeof(hash), state);
  }
  return state;
}

}  // namespace tarn::engine

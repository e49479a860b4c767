#pragma once

// 64 bits that name a checkpoint: equal for equal config text and tensors, however they are
// sharded. XXH3 (Yann Collet, github.com/Cyan4973/xxHash): finds mix-ups, not attacks.

#include <cstdint>
#include <map>
#include <string>

#include "engine/model/safetensors.h"

namespace tarn::engine {

// Of one tensor: name, type, shape and all bytes. Thread-safe: tensors can be hashed in parallel.
uint64_t HashTensor(const std::string& name, const TensorView& tensor);

// `hashes`: HashTensor of every tensor, by name.
uint64_t CheckpointFingerprint(const std::string& config_text,
                               const std::map<std::string, uint64_t>& hashes);

}  // namespace tarn::engine

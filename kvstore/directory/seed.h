#pragma once

// Seeds of indexes in servers.

#include "common/runtime/random.h"
#include "kvstore/directory/block_index.h"

namespace tarn::kvstore {

// With a seed that no other index has. It decides nothing but where entries lie, so a replay does
// not need it.
inline BlockIndexOptions WithSeed(BlockIndexOptions options) {
  if (options.seed == 0) options.seed = Random::FromEntropy().Next();
  return options;
}

}  // namespace tarn::kvstore

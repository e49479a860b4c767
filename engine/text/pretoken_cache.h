#pragma once

// Remembers the tokens of pretokens: natural text repeats a few thousand words.
//
// Thread-safe: 64 shards, each under its own lock, held for one look-up. Bounded: pretokens of at
// most 24 bytes and 2,048 of them a shard, about 16 MB in all; a full shard starts afresh, so a
// burst of unusual text costs one refill and not the cache's use for ever.

#include <array>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "common/base/block_key.h"
#include "common/base/mutex.h"

namespace tarn::engine {

class PretokenCache {
 public:
  // Appends the tokens of `pretoken` to `tokens` if they are known.
  bool Append(std::string_view pretoken, std::vector<TokenId>& tokens) const;

  // Remembers `tokens`, unless the pretoken is too long.
  void Put(std::string_view pretoken, std::vector<TokenId> tokens) const;

 private:
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
  };
  struct alignas(64) Shard {
    Mutex mutex;
    std::unordered_map<std::string, std::vector<TokenId>, Hash, std::equal_to<>> tokens
        ABSL_GUARDED_BY(mutex);
  };
  static constexpr size_t kShards = 64;

  mutable std::array<Shard, kShards> shards_;
};

}  // namespace tarn::engine

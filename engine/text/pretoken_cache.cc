#include "engine/text/pretoken_cache.h"

#include <utility>

namespace tarn::engine {
namespace {

constexpr size_t kMaxBytes = 24;
constexpr size_t kMaxEntriesOfShard = 2048;

}  // namespace

bool PretokenCache::Append(std::string_view pretoken, std::vector<TokenId>& tokens) const {
  if (pretoken.size() > kMaxBytes) return false;
  Shard& shard = shards_[Hash()(pretoken) % kShards];
  MutexLock lock(shard.mutex);
  const auto it = shard.tokens.find(pretoken);
  if (it == shard.tokens.end()) return false;
  tokens.insert(tokens.end(), it->second.begin(), it->second.end());
  return true;
}

void PretokenCache::Put(std::string_view pretoken, std::vector<TokenId> tokens) const {
  if (pretoken.size() > kMaxBytes) return;
  Shard& shard = shards_[Hash()(pretoken) % kShards];
  MutexLock lock(shard.mutex);
  if (shard.tokens.size() >= kMaxEntriesOfShard) shard.tokens.clear();
  shard.tokens.emplace(pretoken, std::move(tokens));
}

}  // namespace tarn::engine

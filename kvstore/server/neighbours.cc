#include "kvstore/server/neighbours.h"

#include <set>

namespace tarn::kvstore {

Holders HoldersOf(const Neighbours& neighbours, const BlockKey& key, const NodeId& self) {
  std::set<NodeId> staying, leaving;
  for (const BlockSource& source : neighbours.index().Sources(key, self, kPlacesLookedAt)) {
    (neighbours.about(source.node).leaving ? leaving : staying).insert(source.node);
  }
  return {static_cast<int>(staying.size()), static_cast<int>(leaving.size())};
}

}  // namespace tarn::kvstore

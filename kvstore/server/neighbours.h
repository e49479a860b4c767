#pragma once

// What a store knows of the others, as the directory has it now.

#include <cstddef>
#include <functional>
#include <vector>

#include "kvstore/client/node_pool.h"
#include "kvstore/core/placement.h"
#include "kvstore/directory/block_index.h"

namespace tarn::kvstore {

struct Neighbour {
  bool store = false;    // it computes nothing
  bool leaving = false;  // it serves on, but says that it is about to go
};

// Loop-only; every member is set.
struct Neighbours {
  std::function<const BlockIndex&()> index;
  // The stores that take blocks, this one, with its own figures, among them.
  std::function<std::vector<StoreView>(const NodePoolStats& own)> stores;
  // Of a node that the index names.
  std::function<Neighbour(const NodeId&)> about;
  // How many blocks the other stores could take without giving up much for them.
  std::function<size_t()> room;
};

// Who has a block besides `self`: so many places are looked at, more are as good as these.
inline constexpr size_t kPlacesLookedAt = 32;
struct Holders {
  int staying = 0;
  int leaving = 0;
};
Holders HoldersOf(const Neighbours& neighbours, const BlockKey& key, const NodeId& self);

}  // namespace tarn::kvstore

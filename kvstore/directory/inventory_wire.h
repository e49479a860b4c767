#pragma once

// Inventory messages to protos and back.

#include "absl/status/statusor.h"
#include "common/base/status.h"
#include "kvstore/directory/inventory.h"
#include "kvstore/wire/convert.h"
#include "proto/kvstore.pb.h"

namespace tarn::kvstore {

// The fields that InventoryUpdate and DirectoryUpdate share.
template <typename Update>
void SetBlocks(const InventoryBatch& batch, Update* update) {
  update->set_snapshot_begin(batch.snapshot_begin);
  update->set_snapshot_end(batch.snapshot_end);
  for (const InventoryChange& change : batch.removes) {
    *update->add_removes() = ToInventoryRemove(change);
  }
  for (const InventoryChange& change : batch.adds) *update->add_adds() = ToInventoryAdd(change);
}

template <typename Update>
absl::StatusOr<InventoryBatch> BlocksOf(const Update& update) {
  InventoryBatch batch;
  batch.snapshot_begin = update.snapshot_begin();
  batch.snapshot_end = update.snapshot_end();
  for (const v1::InventoryRemove& remove : update.removes()) {
    ASSIGN_OR_RETURN(InventoryChange change, FromProto(remove));
    batch.removes.push_back(change);
  }
  for (const v1::InventoryAdd& add : update.adds()) {
    ASSIGN_OR_RETURN(InventoryChange change, FromProto(add));
    batch.adds.push_back(change);
  }
  return batch;
}

// Whether the message says anything about blocks.
template <typename Update>
bool CarriesBlocks(const Update& update) {
  return update.snapshot_begin() || update.snapshot_end() || update.removes_size() > 0 ||
         update.adds_size() > 0;
}

}  // namespace tarn::kvstore

#pragma once

// Which blocks of others a store takes over: the seam for admission policies.
//
// Pure and thread-compatible.

#include "kvstore/core/types.h"

namespace tarn::kvstore {

// What is known of a block that some node has just announced.
struct AdmissionCandidate {
  BlockKey key;
  int holders = 0;       // nodes that have it, this store not counted
  int store_pages = 0;   // of this store
  int cached_pages = 0;  // in use by blocks it could drop
};

class AdmissionPolicy {
 public:
  virtual ~AdmissionPolicy() = default;
  virtual bool Admit(const AdmissionCandidate& candidate) const = 0;
};

// Takes what would be lost with one node: blocks with few copies. Pays with network and eviction
// for blocks that are never used again; a policy that learns reuse takes this place.
class FewCopiesAdmission : public AdmissionPolicy {
 public:
  // Admits blocks that fewer than `enough` nodes hold.
  explicit FewCopiesAdmission(int enough) : enough_(enough) {}
  bool Admit(const AdmissionCandidate& candidate) const override;

 private:
  const int enough_;
};

}  // namespace tarn::kvstore

#pragma once

// Pages in the order of a stamp: a set that is quick at its ends.
//
// Policies put nearly every page at an end: one that was just used behind all others, and a parent
// whose last child has just gone, being about as old as that child, before them. Those go into a
// linked list that needs no search. The few that belong between others go into a tree beside it.

#include <cstdint>
#include <tuple>
#include <vector>

#include "absl/container/btree_set.h"

namespace tarn::kvstore {

class PageOrder;

// Room for the links of all pages; a page is in at most one of the orders that share one. At an
// address of its own for life.
class PageLinks {
 public:
  PageLinks() = default;
  PageLinks(const PageLinks&) = delete;
  PageLinks& operator=(const PageLinks&) = delete;

  // Makes room for `page`.
  void Grow(int32_t page) {
    if (static_cast<size_t>(page) >= links_.size()) links_.resize(page + 1);
  }

 private:
  friend class PageOrder;
  struct Link {
    int32_t before = -1;
    int32_t after = -1;
    uint64_t stamp = 0;
    bool in_tree = false;
  };
  std::vector<Link> links_;
};

// Thread-compatible. A page comes at most once, and each with a stamp of its own. O(1) at the ends,
// O(log of those between) elsewhere.
class PageOrder {
 public:
  // `links` outlives this order.
  explicit PageOrder(PageLinks* links) : links_(links) {}

  void Insert(int32_t page, uint64_t stamp);
  void Remove(int32_t page);

  bool empty() const { return head_ < 0 && between_.empty(); }
  // The page with the least stamp, -1 if there is none.
  int32_t First() const;
  // Appends up to `count` pages to `pages`, by stamp.
  void List(int count, std::vector<int32_t>* pages) const;

 private:
  struct Stamped {
    uint64_t stamp;
    int32_t page;
    friend bool operator<(const Stamped& a, const Stamped& b) { return a.stamp < b.stamp; }
  };
  PageLinks::Link& link(int32_t page) const { return links_->links_[page]; }

  PageLinks* links_;
  int32_t head_ = -1;  // of the list, whose stamps rise
  int32_t tail_ = -1;
  absl::btree_set<Stamped> between_;
};

}  // namespace tarn::kvstore

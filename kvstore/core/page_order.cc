#include "kvstore/core/page_order.h"

namespace tarn::kvstore {

void PageOrder::Insert(int32_t page, uint64_t stamp) {
  PageLinks::Link& own = link(page);
  own = {.stamp = stamp};
  if (head_ < 0) {
    head_ = tail_ = page;
  } else if (stamp > link(tail_).stamp) {
    own.before = tail_;
    link(tail_).after = page;
    tail_ = page;
  } else if (stamp < link(head_).stamp) {
    own.after = head_;
    link(head_).before = page;
    head_ = page;
  } else {
    own.in_tree = true;
    between_.insert({stamp, page});
  }
}

void PageOrder::Remove(int32_t page) {
  const PageLinks::Link& own = link(page);
  if (own.in_tree) {
    between_.erase({own.stamp, page});
    return;
  }
  (own.before < 0 ? head_ : link(own.before).after) = own.after;
  (own.after < 0 ? tail_ : link(own.after).before) = own.before;
}

int32_t PageOrder::First() const {
  if (between_.empty()) return head_;
  const Stamped& least = *between_.begin();
  return head_ < 0 || least.stamp < link(head_).stamp ? least.page : head_;
}

void PageOrder::List(int count, std::vector<int32_t>* pages) const {
  int32_t listed = head_;
  auto between = between_.begin();
  for (; count > 0 && (listed >= 0 || between != between_.end()); --count) {
    if (listed >= 0 && (between == between_.end() || link(listed).stamp < between->stamp)) {
      pages->push_back(listed);
      listed = link(listed).after;
    } else {
      pages->push_back(between->page);
      ++between;
    }
  }
}

}  // namespace tarn::kvstore

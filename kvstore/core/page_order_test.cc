#include "kvstore/core/page_order.h"

#include <gtest/gtest.h>

#include <iterator>
#include <map>
#include <vector>

#include "common/runtime/random.h"

namespace tarn::kvstore {
namespace {

std::vector<int32_t> All(const PageOrder& order) {
  std::vector<int32_t> pages;
  order.List(1000, &pages);
  return pages;
}

TEST(PageOrderTest, OrdersByStamp) {
  PageLinks links;
  links.Grow(3);
  PageOrder order(&links);
  EXPECT_EQ(order.First(), -1);
  order.Insert(0, 20);
  order.Insert(1, 40);
  order.Insert(2, 10);
  order.Insert(3, 30);
  EXPECT_EQ(All(order), (std::vector<int32_t>{2, 0, 3, 1}));
  std::vector<int32_t> two;
  order.List(2, &two);
  EXPECT_EQ(two, (std::vector<int32_t>{2, 0}));
}

TEST(PageOrderTest, OrdersShareLinks) {
  PageLinks links;
  links.Grow(1);
  PageOrder one(&links), other(&links);
  one.Insert(0, 1);
  other.Insert(1, 2);
  one.Remove(0);
  other.Insert(0, 1);
  EXPECT_TRUE(one.empty());
  EXPECT_EQ(All(other), (std::vector<int32_t>{0, 1}));
}

TEST(PageOrderTest, AgreesWithAMap) {
  constexpr int32_t kPages = 40;
  for (uint64_t seed = 0; seed < 20; ++seed) {
    Random random(seed);
    PageLinks links;
    links.Grow(kPages);
    PageOrder order(&links);
    std::map<uint64_t, int32_t> model;
    std::map<int32_t, uint64_t> stamps;
    for (int step = 0; step < 2000; ++step) {
      const auto page = static_cast<int32_t>(random.UniformInt(uint64_t{kPages}));
      if (auto it = stamps.find(page); it != stamps.end()) {
        order.Remove(page);
        model.erase(it->second);
        stamps.erase(it);
      } else {
        const uint64_t stamp = random.UniformInt(uint64_t{1'000'000'000});
        if (!model.try_emplace(stamp, page).second) continue;
        stamps[page] = stamp;
        order.Insert(page, stamp);
      }
      std::vector<int32_t> expected;
      for (const auto& entry : model) expected.push_back(entry.second);
      ASSERT_EQ(All(order), expected) << "seed " << seed << " step " << step;
      ASSERT_EQ(order.First(), expected.empty() ? -1 : expected.front());
      ASSERT_EQ(order.empty(), expected.empty());
    }
  }
}

}  // namespace
}  // namespace tarn::kvstore

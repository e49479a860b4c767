#include "common/memory/page_slab.h"

#include <gtest/gtest.h>

#include <vector>

namespace tarn {
namespace {

TEST(PageSlab, IndexOffsetAndBytesAgree) {
  std::vector<std::byte> memory(4096 * 3 + 17);
  const PageSlab slab(memory, 4096);
  ASSERT_EQ(slab.page_count(), 3u);
  for (size_t i = 0; i < slab.page_count(); ++i) {
    EXPECT_EQ(slab.page(i).data(), memory.data() + slab.OffsetOf(i));
    EXPECT_EQ(slab.page(i).size(), 4096u);
    EXPECT_EQ(slab.IndexOf(slab.OffsetOf(i)), i);
    EXPECT_EQ(slab.IndexOf(slab.OffsetOf(i) + 4095), i);
  }
}

TEST(PageSlabDeathTest, OutOfBoundsIsABug) {
  std::vector<std::byte> memory(4096 * 2 + 17);
  const PageSlab slab(memory, 4096);
  EXPECT_DEATH(slab.page(2), "index < page_count");
  EXPECT_DEATH(slab.IndexOf(2 * 4096 + 1), "index < page_count");
  EXPECT_DEATH(PageSlab(memory, 0), "page_bytes > 0");
}

}  // namespace
}  // namespace tarn

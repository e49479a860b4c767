#include "kvstore/core/admission.h"

#include <gtest/gtest.h>

namespace tarn::kvstore {
namespace {

TEST(FewCopiesAdmissionTest, TakesWhatFewHold) {
  FewCopiesAdmission policy(2);
  EXPECT_TRUE(policy.Admit({.holders = 1, .store_pages = 4}));
  EXPECT_FALSE(policy.Admit({.holders = 2, .store_pages = 4}));
}

TEST(FewCopiesAdmissionTest, TakesNothingThatCannotBePulledOrKept) {
  FewCopiesAdmission policy(2);
  EXPECT_FALSE(policy.Admit({.holders = 0, .store_pages = 4}));
  EXPECT_FALSE(policy.Admit({.holders = 1, .store_pages = 0}));
}

}  // namespace
}  // namespace tarn::kvstore

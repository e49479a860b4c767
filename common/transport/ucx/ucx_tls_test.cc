#include "common/transport/ucx/ucx_tls.h"

#include <gtest/gtest.h>

namespace tarn {
namespace {

TEST(UcxTls, KnowsWhatMayUseRdmaDevices) {
  for (const char* tls : {"", "all", "^tcp", "^tcp,rc", "rc,self", "shm,dc_x", "ud_verbs", "ib"}) {
    EXPECT_TRUE(AllowsRdma(tls)) << tls;
  }
  for (const char* tls : {"^ib", "^tcp,ib", "^all", "shm,self", "tcp", "sysv,posix,self"}) {
    EXPECT_FALSE(AllowsRdma(tls)) << tls;
  }
}

TEST(UcxTls, KnowsWhatMayUseTcp) {
  for (const char* tls : {"", "all", "^ib", "tcp,self"}) EXPECT_TRUE(AllowsTcp(tls)) << tls;
  for (const char* tls : {"^tcp", "^ib,tcp", "rc,shm"}) EXPECT_FALSE(AllowsTcp(tls)) << tls;
}

TEST(UcxTls, TakesRdmaAway) {
  const std::pair<const char*, const char*> cases[] = {{"", "^ib"},
                                                       {"all", "^ib"},
                                                       {"^tcp", "^tcp,ib"},
                                                       {"rc,shm,self", "shm,self"},
                                                       {"rc_verbs,tcp", "tcp"},
                                                       {"shm", "shm"},
                                                       {"^ib", "^ib"}};
  for (const auto& [tls, expected] : cases) {
    const auto without = WithoutRdma(tls);
    ASSERT_TRUE(without.ok()) << without.status();
    EXPECT_EQ(*without, expected) << tls;
    EXPECT_FALSE(AllowsRdma(*without)) << *without;
  }
}

TEST(UcxTls, SaysWhenNothingIsLeft) {
  const absl::Status status = WithoutRdma("rc,ud").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(std::string(status.message()).find("\"rc,ud\""), std::string::npos);
}

}  // namespace
}  // namespace tarn

#include "common/transport/tcp/tcp_wire.h"

#include <gtest/gtest.h>

#include <span>

#include "common/runtime/random.h"

namespace tarn {
namespace {

const TcpAddress kAddress{.host = "node-7.example", .port = 4711, .token = {1, 2}};
const TcpRegionDescriptor kRegion{.index = 3, .size = 1 << 20, .token = {1, 2}};

TEST(TcpWire, RoundTrips) {
  EXPECT_EQ(*DecodeTcpAddress(EncodeTcpAddress(kAddress)), kAddress);
  EXPECT_EQ(*DecodeTcpRegion(EncodeTcpRegion(kRegion)), kRegion);
}

TEST(TcpWire, EveryFlippedBitAndEveryTruncationIsRefused) {
  for (const std::string& good : {EncodeTcpAddress(kAddress), EncodeTcpRegion(kRegion)}) {
    for (size_t i = 0; i < good.size() * 8; ++i) {
      std::string bad = good;
      bad[i / 8] = static_cast<char>(bad[i / 8] ^ (1 << i % 8));
      EXPECT_FALSE(DecodeTcpAddress(bad).ok()) << i;
      EXPECT_FALSE(DecodeTcpRegion(bad).ok()) << i;
    }
    for (size_t size = 0; size < good.size(); ++size) {
      EXPECT_FALSE(DecodeTcpAddress(good.substr(0, size)).ok());
      EXPECT_FALSE(DecodeTcpRegion(good.substr(0, size)).ok());
    }
  }
}

TEST(TcpWire, WhatCannotBeDialledIsRefused) {
  EXPECT_FALSE(DecodeTcpAddress(EncodeTcpAddress({.host = "", .port = 1})).ok());
  EXPECT_FALSE(DecodeTcpAddress(EncodeTcpAddress({.host = "a", .port = 0})).ok());
}

TEST(TcpWire, GarbageIsRefused) {
  Random random(1);
  for (int i = 0; i < 1'000; ++i) {
    std::string bytes(random.UniformInt(200), '\0');
    random.Fill(std::as_writable_bytes(std::span(bytes)));
    EXPECT_FALSE(DecodeTcpAddress(bytes).ok());
    EXPECT_FALSE(DecodeTcpRegion(bytes).ok());
  }
}

}  // namespace
}  // namespace tarn

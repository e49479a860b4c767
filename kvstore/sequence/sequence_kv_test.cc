#include "kvstore/sequence/sequence_kv.h"

#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "common/runtime/sim/sim_event_loop.h"
#include "common/transport/loopback/loopback_transport.h"

namespace tarn::kvstore {
namespace {

constexpr int kBlock = 16;

class NoPeers : public PeerDirectory {
 public:
  void Resolve(const BlockSource&, absl::Time, Done done) override {
    done(absl::UnavailableError("no peers"));
  }
  void Stage(const BlockSource&, const BlockKey&, absl::Time, StageDone done) override {
    done(absl::UnavailableError("there are none"));
  }
  void Forget(const BlockSource&) override {}
};

class SequenceKvTest : public testing::Test {
 protected:
  SequenceKvTest() {
    const BlockLayout layout{.layers = 1, .kv_heads = 1, .head_dim = 8, .block_tokens = kBlock};
    pool_ = *NodePool::Create({.layout = layout, .hbm_pages = 16}, &loop_, &transport_, &peers_);
  }

  std::unique_ptr<SequenceKv> Make(int tokens, int reserve, int pages) {
    std::vector<TokenId> ids(tokens);
    for (int i = 0; i < tokens; ++i) ids[i] = i;
    auto kv = std::make_unique<SequenceKv>(pool_.get(), BlockKey(), std::move(ids), reserve);
    kv->reservation() = *pool_->Reserve(RequestId(1), pages, absl::InfiniteFuture());
    return kv;
  }

  // As an executor does it.
  void Compute(SequenceKv& kv, TokenRange range, bool tail = false) {
    kv.Span(range);
    for (const UnsealedBlock& block : kv.Seals(range, tail)) {
      SealBlock(pool_->layout(), block.identity, block.page);
    }
    kv.OnComputed(range);
  }

  SimEventLoop loop_;
  LoopbackFabric fabric_;
  LoopbackTransport transport_{fabric_, loop_};
  NoPeers peers_;
  std::unique_ptr<NodePool> pool_;
};

TEST_F(SequenceKvTest, KeysAreTheChain) {
  const auto kv = Make(40, 0, 3);
  EXPECT_EQ(kv->block_count(), 3);
  EXPECT_EQ(kv->full_block_count(), 2);
  const std::vector<BlockKey> chain = ChainKeys(BlockKey(), kv->tokens(), kBlock);
  EXPECT_EQ(kv->key(0), chain[0]);
  EXPECT_EQ(kv->key(1), chain[1]);
  EXPECT_EQ(kv->key(2), ChildKey(chain[1], kv->tokens().subspan(32)));
  EXPECT_EQ(kv->parent(2), chain[1]);
  EXPECT_EQ(kv->token_count(2), 8);
}

TEST_F(SequenceKvTest, ChunksFillAndPublish) {
  const auto kv = Make(40, 0, 3);
  EXPECT_EQ(kv->Missing(), (std::vector<TokenRange>{{0, 40}}));
  Compute(*kv, {0, 20});
  EXPECT_TRUE(kv->Has(0));
  EXPECT_FALSE(kv->Has(1));
  EXPECT_EQ(pool_->MatchLocal(kv->full_keys()), 1);
  EXPECT_EQ(kv->Missing(), (std::vector<TokenRange>{{20, 40}}));
  const SequenceSpan span = kv->Span({20, 40});
  EXPECT_EQ(span.position, 20);
  EXPECT_EQ(span.tokens.size(), 20u);
  EXPECT_EQ(span.pages.size(), 3u);
  EXPECT_EQ(kv->Seals({20, 40}, false).size(), 1u);
  EXPECT_EQ(kv->Seals({20, 40}, true).size(), 2u);
  Compute(*kv, {20, 40}, true);
  EXPECT_TRUE(kv->Missing().empty());
  EXPECT_EQ(pool_->MatchLocal(kv->full_keys()), 2);
}

TEST_F(SequenceKvTest, AHoleIsMissingByItself) {
  const auto first = Make(48, 0, 3);
  Compute(*first, {0, 48});
  const auto kv = Make(50, 0, 4);
  kv->Put(0, *pool_->HoldCached(kv->reservation(), kv->key(0)));
  kv->Put(2, *pool_->HoldCached(kv->reservation(), kv->key(2)));
  EXPECT_EQ(kv->Missing(), (std::vector<TokenRange>{{16, 32}, {48, 50}}));
}

TEST_F(SequenceKvTest, AppendedTokensContinueTheTailInPlace) {
  const auto kv = Make(30, 40, 3);
  Compute(*kv, {0, 30}, true);
  const TokenId* const data = kv->tokens().data();
  const int32_t tail = kv->page(1).page();
  for (int i = 30; i < 40; ++i) {
    kv->Append(i);
    EXPECT_EQ(kv->Missing(), (std::vector<TokenRange>{{i, i + 1}}));
    Compute(*kv, {i, i + 1});
  }
  EXPECT_EQ(kv->tokens().data(), data);
  EXPECT_EQ(kv->page(1).page(), tail);
  EXPECT_EQ(pool_->MatchLocal(kv->full_keys()), 2);
}

TEST_F(SequenceKvTest, EverythingGoesBackWithTheObject) {
  Make(40, 60, 5)->Span({0, 40});
  EXPECT_EQ(pool_->Stats().hbm_held, 0);
  EXPECT_EQ(pool_->Stats().hbm_reserved, 0);
}

}  // namespace
}  // namespace tarn::kvstore

#include "tests/handover/test_nodes.h"

#include <glog/logging.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <utility>

namespace tarn::test {
namespace {

absl::Duration Pace(int tokens) { return absl::Milliseconds(1) + tokens * absl::Microseconds(10); }

// A node's own view of the others: connects through its own transport.
class Peers : public kvstore::PeerDirectory {
 public:
  Peers(Nodes* nodes, TestNode* self) : nodes_(nodes), self_(self) {}
  void Resolve(const kvstore::BlockSource& source, absl::Time, Done done) override {
    const auto it = nodes_->by_name.find(source.node);
    if (it == nodes_->by_name.end() ||
        it->second->info.incarnation() != source.incarnation.value()) {
      return done(absl::UnavailableError("node " + source.node.value() + " is gone"));
    }
    const TestNode& peer = *it->second;
    done(self_->transport->Connect({peer.transport->Address(), peer.pool->RegionDescriptors()}));
  }
  void Stage(const kvstore::BlockSource& source, const BlockKey& key, absl::Time deadline,
             StageDone done) override {
    nodes_->by_name.at(source.node)
        ->pool->Stage(key, deadline,
                      [done](const absl::StatusOr<kvstore::NodePool::StagedBlock>& block) {
                        block.ok() ? done(block->address) : done(block.status());
                      });
  }
  void Forget(const kvstore::BlockSource&) override {}

 private:
  Nodes* const nodes_;
  TestNode* const self_;
};

}  // namespace

engine::FakeOptions TestModel() {
  engine::FakeOptions options;
  options.layout = {.layers = 1, .kv_heads = 1, .head_dim = 8, .block_tokens = 16};
  options.vocab_size = 1000;
  options.max_context = 2048;
  return options;
}

absl::StatusOr<std::vector<engine::StepOutput>> FlakyExecutor::Step(
    std::span<const engine::StepSequence> batch) {
  int tokens = 0;
  for (const engine::StepSequence& sequence : batch) {
    tokens += static_cast<int>(sequence.tokens.size());
  }
  largest_step = std::max(largest_step, tokens);
  largest_batch = std::max(largest_batch, static_cast<int>(batch.size()));
  if (steps++ == fail_at) return absl::InternalError("the device is on fire");
  return inner_->Step(batch);
}

TestNode::TestNode(Nodes* nodes, const std::string& name, int hbm_pages, int dram_pages)
    : transport(std::make_unique<LoopbackTransport>(nodes->fabric, *nodes->loop)),
      peers(std::make_unique<Peers>(nodes, this)),
      nodes_(nodes) {
  info.set_node_id(name);
  info.set_incarnation(std::hash<std::string>()(name));
  info.set_rpc_address(name + ":1");
  auto made = kvstore::NodePool::Create(
      {.layout = TestModel().layout, .hbm_pages = hbm_pages, .dram_pages = dram_pages}, nodes->loop,
      transport.get(), peers.get());
  CHECK(made.ok()) << made.status();
  pool = *std::move(made);
  auto fake = engine::FakeExecutor::Create(TestModel(), {pool->arena(), hbm_pages});
  CHECK(fake.ok()) << fake.status();
  executor = std::make_unique<FlakyExecutor>(*std::move(fake));
  runner = engine::MakeInlineStepRunner(executor.get(), nodes->loop, Pace);
  nodes->by_name[NodeId(name)] = this;
}

TestNode::~TestNode() { nodes_->by_name.erase(NodeId(info.node_id())); }

std::span<std::byte> TestNode::Page(uint64_t offset) const {
  return {pool->arena() + offset, pool->layout().page_bytes()};
}

void TestNode::ExpectClean() const {
  const kvstore::NodePoolStats stats = pool->Stats();
  EXPECT_EQ(stats.hbm_held, 0) << info.node_id();
  EXPECT_EQ(stats.hbm_reserved, 0) << info.node_id();
  EXPECT_EQ(stats.leaked, 0) << info.node_id();
  EXPECT_EQ(stats.pulls_in_flight, 0) << info.node_id();
}

PrefillNode::PrefillNode(Nodes* nodes, const std::string& name, int hbm_pages, int dram_pages,
                         prefill::PrefillOptions options)
    : TestNode(nodes, name, hbm_pages, dram_pages),
      metrics(registry),
      sessions(std::make_unique<prefill::PrefillSessions>(
          options, nodes->loop, pool.get(), runner.get(), executor->model(), &info, &metrics)) {}

PrefillNode::~PrefillNode() { Kill(); }

void PrefillNode::Kill() {
  nodes_->by_name.erase(NodeId(info.node_id()));
  runner->Stop();
  sessions.reset();
  pool.reset();
  transport.reset();
}

DecodeNode::DecodeNode(Nodes* nodes, const std::string& name, int hbm_pages, int dram_pages,
                       decode::DecodeOptions options)
    : TestNode(nodes, name, hbm_pages, dram_pages),
      metrics(registry),
      sessions(std::make_unique<decode::DecodeSessions>(
          options, nodes->loop, pool.get(), runner.get(), executor->model(), &metrics)) {}

DecodeNode::~DecodeNode() {
  runner->Stop();
  sessions.reset();
}

}  // namespace tarn::test

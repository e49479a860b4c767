#pragma once

// A prefill node and a decode node over one simulated loop: real sessions, real pools, loopback
// transport, fake executor. Its tokens prove that every block was right.

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "common/metrics/registry.h"
#include "common/runtime/sim/sim_event_loop.h"
#include "common/transport/loopback/loopback_transport.h"
#include "decode_node/session/decode_sessions.h"
#include "engine/fake/fake_executor.h"
#include "engine/runner/step_runner.h"
#include "kvstore/client/node_pool.h"
#include "prefill_node/session/prefill_sessions.h"

namespace tarn::test {

engine::FakeOptions TestModel();

// Fails the steps that a test wants to fail.
class FlakyExecutor : public engine::ModelExecutor {
 public:
  explicit FlakyExecutor(std::unique_ptr<engine::FakeExecutor> inner) : inner_(std::move(inner)) {}
  const engine::ModelInfo& model() const override { return inner_->model(); }
  const BlockLayout& layout() const override { return inner_->layout(); }
  absl::StatusOr<std::vector<engine::StepOutput>> Step(
      std::span<const engine::StepSequence> batch) override;

  int steps = 0;
  int fail_at = -1;       // number of the step, from 0
  int largest_step = 0;   // new tokens of a step
  int largest_batch = 0;  // sequences of a step

 private:
  const std::unique_ptr<engine::FakeExecutor> inner_;
};

class TestNode;

// What all nodes of a test share.
struct Nodes {
  explicit Nodes(SimEventLoop* loop) : loop(loop) {}
  SimEventLoop* const loop;
  LoopbackFabric fabric;
  std::map<NodeId, TestNode*> by_name;
};

// What both kinds of node have.
class TestNode {
 public:
  TestNode(Nodes* nodes, const std::string& name, int hbm_pages, int dram_pages);
  virtual ~TestNode();

  // Nothing is held, promised or leaked.
  void ExpectClean() const;
  std::span<std::byte> Page(uint64_t offset) const;

  v1::NodeInfo info;
  std::unique_ptr<LoopbackTransport> transport;
  std::unique_ptr<kvstore::PeerDirectory> peers;
  std::unique_ptr<kvstore::NodePool> pool;
  std::unique_ptr<FlakyExecutor> executor;
  std::unique_ptr<engine::StepRunner> runner;
  metrics::Registry registry;

 protected:
  Nodes* const nodes_;
};

struct PrefillNode : TestNode {
  PrefillNode(Nodes* nodes, const std::string& name, int hbm_pages, int dram_pages,
              prefill::PrefillOptions options);
  ~PrefillNode() override;
  // As when the process dies: nothing is said, reads from it fail.
  void Kill();

  prefill::PrefillMetrics metrics;
  std::unique_ptr<prefill::PrefillSessions> sessions;
};

struct DecodeNode : TestNode {
  DecodeNode(Nodes* nodes, const std::string& name, int hbm_pages, int dram_pages,
             decode::DecodeOptions options);
  ~DecodeNode() override;

  decode::DecodeMetrics metrics;
  std::unique_ptr<decode::DecodeSessions> sessions;
};

}  // namespace tarn::test

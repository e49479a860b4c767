#pragma once

// The smallest router: admits, prefills, relays, and remembers what each request got.

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/sampling/sampling.h"
#include "tests/handover/fake_stream.h"
#include "tests/handover/test_nodes.h"

namespace tarn::test {

struct TestRequest {
  std::vector<TokenId> prompt;
  engine::SamplingParams sampling;
  std::vector<TokenId> end_tokens;
  int max_new_tokens = 20;
  std::string salt;
  absl::Duration timeout = absl::Seconds(60);
  absl::Duration handover_timeout = absl::Seconds(5);
  bool with_plan = true;  // tell the prefill node of what other nodes hold
};

struct TestAnswer {
  std::vector<TokenId> tokens;
  std::optional<v1::FinishReason> finished;
  absl::Status failed;
  std::optional<v1::PrefillDone> prefill;
  std::optional<v1::DecodeHandover> handover;
  int local_blocks = -1;
  bool ended() const { return finished.has_value() || !failed.ok(); }
};

class TestRouter {
 public:
  TestRouter(Nodes* nodes, PrefillNode* prefill, DecodeNode* decode);

  // Goes on as the nodes answer; the result is in answer(id).
  uint64_t Start(TestRequest request);
  void Cancel(uint64_t id);
  // The prefill node is lost: requests without their first token start again at `other`.
  void FailOver(PrefillNode* other);
  // The connection with the prefill node breaks, and nobody takes its place.
  void LosePrefill() { prefill_connection_.reset(); }
  void CloseStreams(const absl::Status& status);

  const TestAnswer& answer(uint64_t id) const { return flights_.at(id).answer; }
  int decode_messages() const { return decode_connection_->messages(); }

  // The decode node hears of no block before the first token is there.
  bool relay_after_done = false;
  // Releases nothing: the prefill node's pins run into their deadline.
  bool never_release = false;
  // Sees announcements before they are relayed.
  std::function<void(v1::BlocksReady&)> on_relay;
  std::function<void(uint64_t id)> on_first_token;

 private:
  struct Flight {
    TestRequest request;
    TestAnswer answer;
    std::vector<v1::BlocksReady> ready;  // not relayed yet
    bool prefilling = false;
    bool released = false;
  };

  void ConnectPrefill(PrefillNode* prefill);
  void StartPrefill(uint64_t id);
  void OnPrefill(const v1::PrefillEvent& event);
  void OnDecode(const v1::DecodeEvent& event);
  void Relay(uint64_t id);
  void Release(uint64_t id);
  void AddPlan(const TestRequest& request, v1::PrefillStart& start) const;
  std::map<BlockKey, kvstore::BlockSource> Inventory() const;

  Nodes* const nodes_;
  PrefillNode* prefill_;
  DecodeNode* const decode_;
  std::unique_ptr<FakeConnection<v1::PrefillCommand, v1::PrefillEvents>> prefill_connection_;
  std::unique_ptr<FakeConnection<v1::DecodeCommand, v1::DecodeEvents>> decode_connection_;
  std::map<uint64_t, Flight> flights_;
  uint64_t last_id_ = 0;
};

// What one process without a cluster answers.
std::vector<TokenId> DirectAnswer(const TestRequest& request);

std::vector<TokenId> RandomPrompt(int length, uint64_t seed);

}  // namespace tarn::test

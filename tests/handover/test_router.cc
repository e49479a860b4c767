#include "tests/handover/test_router.h"

#include <glog/logging.h>

#include <algorithm>
#include <utility>

#include "common/runtime/random.h"
#include "engine/wire/convert.h"
#include "kvstore/wire/convert.h"

namespace tarn::test {
namespace {

BlockKey RootOf(const TestRequest& request, const engine::ModelInfo& model,
                const BlockLayout& layout) {
  return BlockDomain{.model_fingerprint = model.fingerprint,
                     .layout_fingerprint = layout.Fingerprint(),
                     .lora = "",
                     .salt = request.salt}
      .Root();
}

}  // namespace

TestRouter::TestRouter(Nodes* nodes, PrefillNode* prefill, DecodeNode* decode)
    : nodes_(nodes), prefill_(prefill), decode_(decode) {
  ConnectPrefill(prefill);
  decode_connection_ = std::make_unique<FakeConnection<v1::DecodeCommand, v1::DecodeEvents>>(
      nodes->loop, [&](auto stream) { return decode->sessions->Open(stream); },
      [this](const v1::DecodeEvents& events) {
        for (const v1::DecodeEvent& event : events.events()) OnDecode(event);
      });
}

void TestRouter::ConnectPrefill(PrefillNode* prefill) {
  prefill_ = prefill;
  prefill_connection_ = std::make_unique<FakeConnection<v1::PrefillCommand, v1::PrefillEvents>>(
      nodes_->loop, [&](auto stream) { return prefill->sessions->Open(stream); },
      [this](const v1::PrefillEvents& events) {
        for (const v1::PrefillEvent& event : events.events()) OnPrefill(event);
      });
}

uint64_t TestRouter::Start(TestRequest request) {
  const uint64_t id = ++last_id_;
  v1::DecodeCommand command;
  command.set_request_id(id);
  v1::DecodeAdmit* admit = command.mutable_admit();
  admit->mutable_tokens()->Add(request.prompt.begin(), request.prompt.end());
  admit->set_prompt_length(request.prompt.size());
  *admit->mutable_sampling() = engine::ToProto(request.sampling);
  admit->mutable_end_token_ids()->Add(request.end_tokens.begin(), request.end_tokens.end());
  admit->set_max_new_tokens(request.max_new_tokens);
  admit->set_salt(request.salt);
  admit->set_timeout_us(absl::ToInt64Microseconds(request.timeout));
  flights_[id].request = std::move(request);
  decode_connection_->Send(std::move(command));
  return id;
}

void TestRouter::StartPrefill(uint64_t id) {
  Flight& flight = flights_.at(id);
  const TestRequest& request = flight.request;
  flight.prefilling = true;
  v1::PrefillCommand command;
  command.set_request_id(id);
  v1::PrefillStart* start = command.mutable_start();
  start->mutable_tokens()->Add(request.prompt.begin(), request.prompt.end());
  start->set_prompt_length(request.prompt.size());
  *start->mutable_sampling() = engine::ToProto(request.sampling);
  start->mutable_end_token_ids()->Add(request.end_tokens.begin(), request.end_tokens.end());
  start->set_salt(request.salt);
  start->set_timeout_us(absl::ToInt64Microseconds(request.timeout));
  start->set_handover_timeout_us(absl::ToInt64Microseconds(request.handover_timeout));
  if (request.with_plan) AddPlan(request, *start);
  prefill_connection_->Send(std::move(command));
}

std::map<BlockKey, kvstore::BlockSource> TestRouter::Inventory() const {
  std::map<BlockKey, kvstore::BlockSource> inventory;
  for (const auto& [name, node] : nodes_->by_name) {
    if (node == prefill_) continue;
    std::vector<kvstore::InventoryChange> blocks;
    uint64_t cursor = 0;
    do {
      cursor = node->pool->ReadInventory(cursor, 1000, &blocks);
    } while (cursor != 0);
    for (const kvstore::InventoryChange& change : blocks) {
      inventory[change.key] = {name, Incarnation(node->info.incarnation()),
                               node->info.rpc_address(), change.tier, change.address};
    }
  }
  return inventory;
}

void TestRouter::AddPlan(const TestRequest& request, v1::PrefillStart& start) const {
  const BlockLayout& layout = decode_->pool->layout();
  const auto inventory = Inventory();
  const std::vector<BlockKey> keys = ChainKeys(RootOf(request, decode_->executor->model(), layout),
                                               request.prompt, layout.block_tokens);
  for (const BlockKey& key : keys) {
    v1::PlannedBlock* block = start.add_plan();
    const auto it = inventory.find(key);
    if (it != inventory.end()) *block->add_locations() = kvstore::ToProto(it->second);
  }
}

void TestRouter::Cancel(uint64_t id) {
  v1::DecodeCommand command;
  command.set_request_id(id);
  command.mutable_cancel();
  decode_connection_->Send(std::move(command));
  Release(id);
  // What is still on its way from the decode node must not start a prefill.
  flights_.at(id).answer.failed = absl::CancelledError("by the test");
}

void TestRouter::Release(uint64_t id) {
  Flight& flight = flights_.at(id);
  if (prefill_connection_ == nullptr || !flight.prefilling || flight.released || never_release)
    return;
  flight.released = true;
  v1::PrefillCommand command;
  command.set_request_id(id);
  command.mutable_release();
  prefill_connection_->Send(std::move(command));
}

void TestRouter::FailOver(PrefillNode* other) {
  ConnectPrefill(other);
  for (auto& [id, flight] : flights_) {
    flight.ready.clear();
    if (flight.prefilling && flight.answer.tokens.empty() && !flight.answer.ended()) {
      StartPrefill(id);
    }
  }
}

void TestRouter::CloseStreams(const absl::Status& status) {
  prefill_connection_->Close(status);
  decode_connection_->Close(status);
}

void TestRouter::Relay(uint64_t id) {
  for (v1::BlocksReady& ready : std::exchange(flights_.at(id).ready, {})) {
    if (on_relay) on_relay(ready);
    v1::DecodeCommand command;
    command.set_request_id(id);
    *command.mutable_blocks() = ready;
    decode_connection_->Send(std::move(command));
  }
}

void TestRouter::OnPrefill(const v1::PrefillEvent& event) {
  const uint64_t id = event.request_id();
  Flight& flight = flights_.at(id);
  if (flight.answer.ended()) return;
  if (event.has_failed()) {
    Cancel(id);
    flight.answer.failed = engine::FromProto(event.failed());
  } else if (event.has_blocks_ready()) {
    flight.ready.push_back(event.blocks_ready());
    if (!relay_after_done) Relay(id);
  } else {
    flight.answer.prefill = event.done();
    flight.answer.tokens.push_back(event.done().first_token().token());
    if (on_first_token) on_first_token(id);
    Relay(id);
    v1::DecodeCommand command;
    command.set_request_id(id);
    *command.mutable_start()->mutable_first_token() = event.done().first_token();
    decode_connection_->Send(std::move(command));
  }
}

void TestRouter::OnDecode(const v1::DecodeEvent& event) {
  const uint64_t id = event.request_id();
  Flight& flight = flights_.at(id);
  if (flight.answer.ended()) return;
  if (event.has_admitted()) {
    flight.answer.local_blocks = event.admitted().local_blocks();
    StartPrefill(id);
  } else if (event.has_handover()) {
    flight.answer.handover = event.handover();
    Release(id);
  } else if (event.has_tokens()) {
    for (const v1::SampledToken& token : event.tokens().tokens()) {
      flight.answer.tokens.push_back(token.token());
    }
  } else if (event.has_finished()) {
    flight.answer.finished = event.finished().reason();
    Release(id);
  } else {
    flight.answer.failed = engine::FromProto(event.failed());
    Release(id);
  }
}

std::vector<TokenId> DirectAnswer(const TestRequest& request) {
  const engine::FakeOptions model = TestModel();
  const int pages = model.max_context / model.layout.block_tokens;
  std::vector<uint64_t> arena(pages * model.layout.page_bytes() / sizeof(uint64_t));
  auto executor =
      engine::FakeExecutor::Create(model, {reinterpret_cast<std::byte*>(arena.data()), pages});
  CHECK(executor.ok()) << executor.status();
  engine::SamplingParams sampling = request.sampling;
  sampling.forbidden_before_min_tokens = request.end_tokens;
  std::vector<engine::PageIndex> table(pages);
  for (int i = 0; i < pages; ++i) table[i] = pages - 1 - i;
  std::vector<TokenId> tokens = request.prompt;
  const size_t prompt = tokens.size();
  size_t position = 0;
  while (tokens.size() - prompt < static_cast<size_t>(request.max_new_tokens) &&
         tokens.size() < static_cast<size_t>(model.max_context)) {
    const engine::StepSequence step{
        .tokens = std::span<const TokenId>(tokens).subspan(position),
        .position = static_cast<int>(position),
        .pages = table,
        .sample = engine::SampleRequest{&sampling, tokens, static_cast<int>(prompt)}};
    const auto outputs = (*executor)->Step({&step, 1});
    CHECK(outputs.ok()) << outputs.status();
    position = tokens.size();
    tokens.push_back((*outputs)[0].sampled->token);
    const auto& ends = request.end_tokens;
    if (std::find(ends.begin(), ends.end(), tokens.back()) != ends.end()) break;
  }
  return {tokens.begin() + prompt, tokens.end()};
}

std::vector<TokenId> RandomPrompt(int length, uint64_t seed) {
  Random random(seed);
  std::vector<TokenId> prompt;
  for (int i = 0; i < length; ++i) {
    prompt.push_back(static_cast<TokenId>(random.UniformInt(TestModel().vocab_size)));
  }
  return prompt;
}

}  // namespace tarn::test

#include "decode_node/session/decode_sessions.h"

#include <glog/logging.h>

#include <algorithm>
#include <numeric>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "engine/wire/convert.h"
#include "kvstore/sequence/sequence_kv.h"
#include "kvstore/wire/convert.h"

namespace tarn::decode {
namespace {

// Beyond its deadline a request may hold pages while a step or a transfer ends.
constexpr absl::Duration kLeakSlack = absl::Seconds(30);
// Announcements of one block that are remembered while it is on its way.
constexpr size_t kMaxSpareSources = 4;

v1::FinishReason ToProto(FinishReason reason) {
  return reason == FinishReason::kStop ? v1::FINISH_REASON_STOP : v1::FINISH_REASON_LENGTH;
}

}  // namespace

struct DecodeSessions::Seat {
  Seat(kvstore::NodePool* pool, DecodeRequest request_in)
      : request(std::move(request_in)),
        kv(pool, request.sequence.root, std::move(request.sequence.tokens), request.kv_tokens + 1),
        blocks(kv.block_count()) {
    kv.SetTraits({.tenant = TenantId(request.sequence.tenant)});
  }

  struct Block {
    bool pulling = false;
    std::vector<kvstore::BlockSource> sources;  // announced and not yet tried
  };

  RouterId router = 0;
  uint64_t request_id = 0;
  SequenceId id;
  DecodeRequest request;
  kvstore::SequenceKv kv;
  std::vector<Block> blocks;  // of the tokens known at admission
  // By number; after kv: cancelled before pages go.
  std::map<uint64_t, std::unique_ptr<kvstore::NodePool::Ticket>> pulls;
  uint64_t last_pull = 0;

  absl::Time deadline;
  std::optional<TokenId> first_token;  // once started
  absl::Time started;
  bool joined = false;
  bool in_step = false;
  int local_blocks = 0, pulled_blocks = 0;
  int local_tokens = 0, pulled_tokens = 0;
};

DecodeSessions::DecodeSessions(DecodeOptions options, EventLoop* loop, kvstore::NodePool* pool,
                               engine::StepRunner* runner, engine::ModelInfo model,
                               DecodeMetrics* metrics)
    : options_(options),
      loop_(loop),
      pool_(pool),
      runner_(runner),
      model_(std::move(model)),
      metrics_(metrics),
      scheduler_(options.scheduling) {}

DecodeSessions::~DecodeSessions() { loop_->CancelTimer(timer_); }

// Streams.

StreamHandler<v1::DecodeCommand> DecodeSessions::Open(std::shared_ptr<Events> stream) {
  const RouterId id = ++last_router_;
  routers_[id].stream = std::move(stream);
  return {.on_message = [this, id](v1::DecodeCommand command) { OnCommand(id, command); },
          .on_closed = [this, id](const absl::Status&) { OnClosed(id); }};
}

void DecodeSessions::OnClosed(RouterId id) {
  const auto it = routers_.find(id);
  if (it == routers_.end()) return;
  const std::map<uint64_t, SequenceId> requests = it->second.requests;
  for (const auto& [request_id, sequence] : requests) {
    metrics_->requests.With({"cancelled"}).Add();
    Drop(sequence);
  }
  routers_.erase(it);
  Pump();
}

void DecodeSessions::OnCommand(RouterId router, const v1::DecodeCommand& command) {
  const auto it = routers_.find(router);
  if (it == routers_.end()) return;
  const uint64_t request_id = command.request_id();
  const auto known = it->second.requests.find(request_id);
  if (command.has_admit()) {
    Admit(router, request_id, command.admit());
  } else if (command.command_case() == v1::DecodeCommand::COMMAND_NOT_SET) {
    Refuse(router, request_id, absl::InvalidArgumentError("command: none is set"));
  } else if (known != it->second.requests.end()) {
    // Unknown ids are normal: the request has ended while the command was on its way.
    Seat& seat = *seats_.at(known->second);
    if (command.has_blocks()) {
      const absl::Status status = OnBlocks(seat, command.blocks());
      if (!status.ok()) Fail(seat.id, status);
    } else if (command.has_start()) {
      Start(seat, command.start());
    } else {
      metrics_->requests.With({"cancelled"}).Add();
      Drop(seat.id);
    }
  }
  Pump();
}

v1::DecodeEvent* DecodeSessions::AddEvent(RouterId router, uint64_t request_id) {
  v1::DecodeEvent* event = routers_.at(router).outbox.add_events();
  event->set_request_id(request_id);
  return event;
}

void DecodeSessions::Flush() {
  for (auto& [id, router] : routers_) {
    if (router.outbox.events().empty()) continue;
    router.stream->Send(std::exchange(router.outbox, {}));
  }
}

// A request's beginning and end.

absl::StatusOr<std::unique_ptr<DecodeSessions::Seat>> DecodeSessions::MakeSeat(
    const v1::DecodeAdmit& admit) {
  if (draining_) return absl::UnavailableError("the decode node is shutting down");
  ASSIGN_OR_RETURN(DecodeRequest request,
                   ParseRequest(admit, model_, pool_->layout(), options_.default_timeout));
  const int block_tokens = pool_->layout().block_tokens;
  const int pages = (request.kv_tokens + block_tokens - 1) / block_tokens;
  const int all_pages = pool_->Stats().hbm_pages;
  if (pages > all_pages) {
    return absl::InvalidArgumentError(absl::StrCat(
        "max_new_tokens: ", request.max_new_tokens, " after ", request.sequence.tokens.size(),
        " tokens need ", pages, " pages of KV; the node has ", all_pages));
  }
  auto seat = std::make_unique<Seat>(pool_, std::move(request));
  seat->deadline = loop_->Now() + seat->request.timeout;
  ASSIGN_OR_RETURN(seat->id, scheduler_.Add({.tokens = seat->kv.length(),
                                             .max_new_tokens = seat->request.max_new_tokens,
                                             .end_tokens = seat->request.sequence.end_tokens,
                                             .deadline = seat->deadline}));
  auto reservation =
      pool_->Reserve(RequestId(seat->id.value()), pages, seat->deadline + kLeakSlack);
  if (!reservation.ok()) {
    scheduler_.Remove(seat->id);
    return reservation.status();
  }
  seat->kv.reservation() = *std::move(reservation);
  return seat;
}

void DecodeSessions::Admit(RouterId router, uint64_t request_id, const v1::DecodeAdmit& admit) {
  auto& requests = routers_.at(router).requests;
  if (const auto it = requests.find(request_id); it != requests.end()) {
    // The router cannot tell two requests of one id apart: it must lose both.
    return Fail(it->second, absl::InvalidArgumentError("request_id: admitted twice"));
  }
  auto made = MakeSeat(admit);
  if (!made.ok()) return Refuse(router, request_id, made.status());
  Seat& seat = **made;
  seat.router = router;
  seat.request_id = request_id;
  requests[request_id] = seat.id;
  seats_[seat.id] = *std::move(made);
  PullLocal(seat);
}

void DecodeSessions::Refuse(RouterId router, uint64_t request_id, const absl::Status& status) {
  metrics_->requests.With({"refused"}).Add();
  const bool full = absl::IsResourceExhausted(status);
  *AddEvent(router, request_id)->mutable_failed() =
      engine::ToProto(status, full ? scheduler_.RetryHint() : absl::ZeroDuration());
}

void DecodeSessions::Fail(SequenceId id, const absl::Status& status) {
  const Seat& seat = *seats_.at(id);
  metrics_->requests.With({"failed"}).Add();
  *AddEvent(seat.router, seat.request_id)->mutable_failed() = engine::ToProto(status);
  Drop(id);
}

void DecodeSessions::Finish(SequenceId id, FinishReason reason) {
  const Seat& seat = *seats_.at(id);
  metrics_->requests.With({reason == FinishReason::kStop ? "stop" : "length"}).Add();
  AddEvent(seat.router, seat.request_id)->mutable_finished()->set_reason(ToProto(reason));
  Detach(id);
}

void DecodeSessions::Drop(SequenceId id) {
  scheduler_.Remove(id);
  Detach(id);
}

void DecodeSessions::Detach(SequenceId id) {
  std::unique_ptr<Seat> seat = std::move(seats_.extract(id).mapped());
  routers_.at(seat->router).requests.erase(seat->request_id);
  seat->pulls.clear();
  if (seat->in_step) leaving_.push_back(std::move(seat));
}

void DecodeSessions::FailAll(const absl::Status& status) {
  while (!seats_.empty()) Fail(seats_.begin()->first, status);
  Pump();
}

void DecodeSessions::Drain() { draining_ = true; }

// Blocks.

void DecodeSessions::PullLocal(Seat& seat) {
  const int local = pool_->MatchLocal(seat.kv.full_keys());
  std::vector<int> blocks(local);
  std::iota(blocks.begin(), blocks.end(), 0);
  AddEvent(seat.router, seat.request_id)->mutable_admitted()->set_local_blocks(local);
  Pull(seat, std::move(blocks));
}

absl::Status DecodeSessions::OnBlocks(Seat& seat, const v1::BlocksReady& ready) {
  const uint64_t end = static_cast<uint64_t>(ready.first_block()) + ready.blocks_size();
  if (end > seat.blocks.size()) {
    return absl::InvalidArgumentError(absl::StrCat("blocks: number ", end - 1, " of ",
                                                   seat.blocks.size(), " that the tokens have"));
  }
  if (seat.joined) return absl::OkStatus();
  std::vector<int> wanted;
  for (int i = 0; i < ready.blocks_size(); ++i) {
    RETURN_IF_ERROR(
        OnBlock(seat, static_cast<int>(ready.first_block()) + i, ready.blocks(i), wanted));
  }
  Pull(seat, std::move(wanted));
  return absl::OkStatus();
}

absl::Status DecodeSessions::OnBlock(Seat& seat, int block, const v1::ReadyBlock& ready,
                                     std::vector<int>& wanted) {
  if (seat.kv.Has(block)) return absl::OkStatus();
  ASSIGN_OR_RETURN(const BlockKey key, BlockKey::FromBytes(ready.key()));
  ASSIGN_OR_RETURN(kvstore::BlockSource source, kvstore::FromProto(ready.location()));
  if (key != seat.kv.key(block) ||
      ready.token_count() != static_cast<uint32_t>(seat.kv.token_count(block))) {
    metrics_->mismatched_blocks.Add();
    LOG_EVERY_N(WARNING, 100) << "Block " << block << " of request " << seat.request_id
                              << " was announced as " << key << " with " << ready.token_count()
                              << " tokens; it is " << seat.kv.key(block) << ". Computing it here.";
    return absl::OkStatus();
  }
  Seat::Block& state = seat.blocks[block];
  if (state.sources.size() < kMaxSpareSources) state.sources.push_back(std::move(source));
  if (!state.pulling) wanted.push_back(block);
  return absl::OkStatus();
}

void DecodeSessions::Pull(Seat& seat, std::vector<int> blocks) {
  if (blocks.empty()) return;
  std::vector<kvstore::WantedBlock> wanted;
  for (const int block : blocks) {
    Seat::Block& state = seat.blocks[block];
    state.pulling = true;
    wanted.push_back({.key = seat.kv.key(block),
                      .token_count = static_cast<uint32_t>(seat.kv.token_count(block)),
                      .sources = std::exchange(state.sources, {}),
                      .parent = seat.kv.parent(block),
                      .traits = seat.kv.traits(block)});
  }
  const uint64_t pull = ++seat.last_pull;
  seat.pulls[pull] =
      pool_->Acquire(seat.kv.reservation(), std::move(wanted),
                     std::min(seat.deadline, loop_->Now() + options_.pull_timeout),
                     [this, id = seat.id, pull, blocks = std::move(blocks)](Acquired acquired) {
                       OnPulled(id, pull, blocks, std::move(acquired));
                     });
}

void DecodeSessions::OnPulled(SequenceId id, uint64_t pull, const std::vector<int>& blocks,
                              Acquired acquired) {
  Seat& seat = *seats_.at(id);
  std::vector<int> again;
  for (size_t i = 0; i < blocks.size(); ++i) {
    Seat::Block& state = seat.blocks[blocks[i]];
    state.pulling = false;
    if (acquired[i].ok()) {
      Take(seat, blocks[i], *std::move(acquired[i]));
    } else if (!state.sources.empty()) {
      again.push_back(blocks[i]);
    } else {
      VLOG(1) << "Block " << blocks[i] << " is lost: " << acquired[i].status();
    }
  }
  Pull(seat, std::move(again));
  // Last: it owns the callback that runs, and `blocks`.
  const auto ticket = seat.pulls.extract(pull);
  TryJoin(seat);
  Pump();
}

void DecodeSessions::Take(Seat& seat, int block, kvstore::AcquiredBlock acquired) {
  const bool pulled = acquired.origin == kvstore::BlockOrigin::kRemote;
  ++(pulled ? seat.pulled_blocks : seat.local_blocks);
  (pulled ? seat.pulled_tokens : seat.local_tokens) += seat.kv.token_count(block);
  seat.kv.Put(block, std::move(acquired.page));
  seat.blocks[block].sources.clear();
}

// From the first token on.

void DecodeSessions::Start(Seat& seat, const v1::DecodeStart& start) {
  const TokenId token = start.first_token().token();
  if (!start.has_first_token() || token < 0 || token >= model_.vocab_size) {
    return Fail(seat.id, absl::InvalidArgumentError(absl::StrCat(
                             "first_token is missing or not in [0, ", model_.vocab_size - 1, "]")));
  }
  if (seat.first_token) {
    return Fail(seat.id, absl::InvalidArgumentError("start: the request has started"));
  }
  seat.first_token = token;
  seat.started = loop_->Now();
  const std::optional<FinishReason> reason = scheduler_.Start(seat.id, token);
  if (reason) return Finish(seat.id, *reason);
  TryJoin(seat);
}

void DecodeSessions::TryJoin(Seat& seat) {
  if (!seat.first_token || seat.joined || !seat.pulls.empty()) return;
  seat.joined = true;
  seat.kv.Append(*seat.first_token);
  std::vector<TokenRange> missing = seat.kv.Missing();
  int recomputed = -1;  // the first token itself is nobody's loss
  for (const TokenRange& range : missing) recomputed += range.size();
  scheduler_.Join(seat.id, std::move(missing));
  ReportHandover(seat, recomputed);
}

void DecodeSessions::ReportHandover(Seat& seat, int recomputed) {
  const absl::Duration wait = loop_->Now() - seat.started;
  v1::DecodeHandover* handover = AddEvent(seat.router, seat.request_id)->mutable_handover();
  handover->set_pulled_blocks(seat.pulled_blocks);
  handover->set_local_blocks(seat.local_blocks);
  handover->set_recomputed_tokens(recomputed);
  handover->set_pulled_bytes(seat.pulled_blocks * pool_->layout().page_bytes());
  handover->set_wait_us(absl::ToInt64Microseconds(wait));
  metrics_->handover_seconds.Observe(absl::ToDoubleSeconds(wait));
  metrics_->handover_tokens.With({"local"}).Add(seat.local_tokens);
  metrics_->handover_tokens.With({"pulled"}).Add(seat.pulled_tokens);
  metrics_->handover_tokens.With({"recomputed"}).Add(recomputed);
  prompt_tokens_ += seat.kv.length() - 1;
  hit_tokens_ += seat.local_tokens;
}

// The loop's work.

void DecodeSessions::Pump() {
  EndExpired();
  StartStep();
  RearmTimer();
  Flush();
  const SchedulerLoad load = scheduler_.load();
  metrics_->seated.Set(load.seated);
  metrics_->running.Set(load.running);
}

void DecodeSessions::EndExpired() {
  for (const SequenceId id : scheduler_.TakeExpired(loop_->Now())) {
    const Seat& seat = *seats_.at(id);
    metrics_->requests.With({"expired"}).Add();
    *AddEvent(seat.router, seat.request_id)->mutable_failed() =
        engine::ToProto(absl::DeadlineExceededError(absl::StrCat(
            "the answer did not end within ", absl::FormatDuration(seat.request.timeout).c_str())));
    Detach(id);
  }
}

void DecodeSessions::RearmTimer() {
  loop_->CancelTimer(timer_);
  timer_ = 0;
  const absl::Time next = scheduler_.NextDeadline();
  if (next == absl::InfiniteFuture()) return;
  timer_ = loop_->PostAt(next, [this] {
    timer_ = 0;
    Pump();
  });
}

void DecodeSessions::StartStep() {
  if (!step_.empty()) return;
  const std::vector<StepItem> items = scheduler_.PlanStep();
  if (items.empty()) return;
  engine::StepJob work;
  for (const StepItem& item : items) {
    Seat& seat = *seats_.at(item.sequence);
    seat.in_step = true;
    step_.push_back({&seat, item});
    const kvstore::SequenceSpan span = seat.kv.Span(item.tokens);
    engine::StepSequence& sequence = work.sequences.emplace_back();
    sequence = {.tokens = span.tokens, .position = span.position, .pages = span.pages};
    if (item.sample) {
      const engine::SequenceSpec& spec = seat.request.sequence;
      sequence.sample = {&spec.sampling, seat.kv.tokens(), spec.prompt_length};
    }
    for (const kvstore::UnsealedBlock& block : seat.kv.Seals(item.tokens, /*tail=*/false)) {
      work.seals.push_back({block.identity, block.page});
    }
  }
  metrics_->batch_size.Observe(static_cast<double>(items.size()));
  runner_->Submit(std::move(work),
                  [this](engine::StepResult result) { OnStep(std::move(result)); });
}

void DecodeSessions::OnStep(engine::StepResult result) {
  metrics_->step_seconds.Observe(absl::ToDoubleSeconds(result.elapsed));
  const std::vector<InStep> step = std::exchange(step_, {});
  for (const InStep& part : step) part.seat->in_step = false;
  // Those that have ended meanwhile go at the end of this call, with their pages.
  const std::vector<std::unique_ptr<Seat>> leaving = std::exchange(leaving_, {});
  if (result.outputs.ok()) {
    scheduler_.OnStepDone(result.elapsed);
    for (size_t i = 0; i < step.size(); ++i) OnItem(step[i], (*result.outputs)[i]);
  } else {
    FailStep(step, result.outputs.status());
  }
  Pump();
}

void DecodeSessions::FailStep(const std::vector<InStep>& step, const absl::Status& status) {
  LOG(ERROR) << "A step of " << step.size() << " sequences failed: " << status;
  scheduler_.OnStepFailed();
  for (const InStep& part : step) {
    if (!seats_.contains(part.item.sequence)) continue;
    Fail(part.item.sequence, absl::InternalError("the executor failed: " + status.ToString()));
  }
}

void DecodeSessions::OnItem(const InStep& part, const engine::StepOutput& output) {
  Seat& seat = *part.seat;
  // Also of a request that has ended: what is computed is worth keeping.
  seat.kv.OnComputed(part.item.tokens);
  if (!part.item.sample || !seats_.contains(part.item.sequence)) return;
  seat.kv.Append(output.sampled->token);
  metrics_->generation_tokens.Add();
  *AddEvent(seat.router, seat.request_id)->mutable_tokens()->add_tokens() =
      engine::ToProto(*output.sampled);
  const std::optional<FinishReason> reason =
      scheduler_.OnSampled(part.item.sequence, output.sampled->token);
  if (reason) Finish(part.item.sequence, *reason);
}

v1::NodeLoad DecodeSessions::Load() const {
  const SchedulerReport from = scheduler_.Report();
  v1::NodeLoad load;
  load.set_running(from.running);
  load.set_max_running(options_.scheduling.max_batch);
  load.set_waiting(from.seated - from.running);
  load.set_step_us(from.step_us);
  load.set_kv_tokens(from.kv_tokens);
  load.set_next_seat_us(absl::ToInt64Microseconds(scheduler_.RetryHint()));
  *load.mutable_step_time() = kvstore::ToProto(from.step_time);
  load.set_draining(draining_);
  load.set_prompt_tokens(prompt_tokens_);
  load.set_hit_tokens(hit_tokens_);
  return load;
}

}  // namespace tarn::decode

#include "router/session/active_request.h"

#include <glog/logging.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "common/base/status.h"
#include "engine/wire/convert.h"

namespace tarn::router {
namespace {

constexpr absl::Duration kLeastRetry = absl::Milliseconds(100);

std::vector<engine::SampledToken> FromProto(const v1::DecodeTokens& proto) {
  std::vector<engine::SampledToken> tokens;
  tokens.reserve(static_cast<size_t>(proto.tokens_size()));
  for (const v1::SampledToken& token : proto.tokens()) tokens.push_back(engine::FromProto(token));
  return tokens;
}

std::optional<FinishReason> FromProto(v1::FinishReason reason) {
  switch (reason) {
    case v1::FINISH_REASON_STOP:
      return FinishReason::kStop;
    case v1::FINISH_REASON_LENGTH:
      return FinishReason::kLength;
    default:
      return std::nullopt;
  }
}

}  // namespace

ActiveRequest::ActiveRequest(const RequestContext* context, RequestId id, GenerationRequest request,
                             GenerationSink* sink)
    : context_(context),
      id_(id),
      request_(std::move(request)),
      sink_(sink),
      state_(request_.end_tokens, request_.max_new_tokens, context->options.limits),
      tokens_(request_.prompt) {
  report_.prompt_tokens = static_cast<int>(request_.prompt.size());
}

ActiveRequest::~ActiveRequest() {
  if (context_ == nullptr || ended_) return;
  Handle(event::Cancel{});
  End(context_->metrics->requests_cancelled);
}

GenerationReport ActiveRequest::Report() const {
  GenerationReport report = report_;
  report.attempts = state_.attempts();
  if (context_ == nullptr || ended_) return report;
  report.total = Now() - request_.received;
  if (handed_over_ != absl::InfinitePast()) report.decode = Now() - handed_over_;
  return report;
}

void ActiveRequest::Detach() {
  CancelTimers();
  context_ = nullptr;
}

void ActiveRequest::Begin() {
  begun_ = Now();
  if (request_.deadline != absl::InfiniteFuture()) {
    deadline_ = context_->loop->PostAt(request_.deadline, [this] { Handle(event::Deadline{}); });
  }
  Perform(state_.Start());
}

void ActiveRequest::Refuse(const absl::Status& status, absl::Duration retry_after) {
  state_.Start();
  Handle(event::NotChosen{status, retry_after});
}

void ActiveRequest::OnPrefillEvent(v1::PrefillEvent event) {
  const Leg leg = LegOf(event.request_id());
  switch (event.event_case()) {
    case v1::PrefillEvent::kBlocksReady:
      ready_ = std::move(*event.mutable_blocks_ready());
      return Handle(event::BlocksReady{leg});
    case v1::PrefillEvent::kDone: {
      const v1::PrefillDone& done = event.done();
      // What a later leg finds cached is the work of the first.
      if (first_token_ == absl::InfinitePast()) {
        report_.computed = static_cast<int>(done.prompt().computed());
        report_.local_hbm = static_cast<int>(done.prompt().local_hbm());
        report_.local_dram = static_cast<int>(done.prompt().local_dram());
        report_.local_ssd = static_cast<int>(done.prompt().local_ssd());
        report_.remote = static_cast<int>(done.prompt().remote());
        report_.remote_ssd = static_cast<int>(done.prompt().remote_ssd());
        report_.queue = absl::Microseconds(done.queue_us());
        report_.fetch = absl::Microseconds(done.fetch_us());
        report_.compute = absl::Microseconds(done.compute_us());
      }
      return Handle(event::PrefillDone{leg, engine::FromProto(done.first_token())});
    }
    case v1::PrefillEvent::kFailed:
      return Handle(event::PrefillFailed{leg, engine::FromProto(event.failed()),
                                         engine::RetryAfterOf(event.failed())});
    case v1::PrefillEvent::EVENT_NOT_SET:
      return;
  }
}

void ActiveRequest::OnDecodeEvent(v1::DecodeEvent event) {
  const Leg leg = LegOf(event.request_id());
  switch (event.event_case()) {
    case v1::DecodeEvent::kAdmitted:
      return Handle(event::Admitted{leg});
    case v1::DecodeEvent::kHandover:
      if (handed_over_ == absl::InfinitePast() && first_token_ != absl::InfinitePast()) {
        handed_over_ = Now();
        report_.handover = handed_over_ - first_token_;
      }
      return Handle(event::HandedOver{leg});
    case v1::DecodeEvent::kTokens:
      return Handle(event::Tokens{leg, FromProto(event.tokens())});
    case v1::DecodeEvent::kFinished:
      return Handle(event::DecodeFinished{leg, FromProto(event.finished().reason())});
    case v1::DecodeEvent::kFailed:
      return Handle(event::DecodeFailed{leg, engine::FromProto(event.failed()),
                                        engine::RetryAfterOf(event.failed())});
    case v1::DecodeEvent::EVENT_NOT_SET:
      return;
  }
}

void ActiveRequest::OnNodeLost(const NodeId& node) {
  // The pin first: its loss alone may be no loss at all.
  const RequestContext* const context = context_;
  const RequestId id = id_;
  if (state_.has_pin() && state_.prefill_node() == node) {
    Handle(event::PrefillLost{state_.pin_leg()});
    if (context->find(id) != this) return;
  }
  if (state_.has_seat() && state_.decode_node() == node) {
    Handle(event::DecodeLost{state_.seat_leg()});
  }
}

void ActiveRequest::Handle(const Event& event) {
  if (context_ == nullptr) return;
  const int failures = state_.failures(), refusals = state_.refusals(), moves = state_.moves();
  const std::vector<Action> actions = state_.Handle(event);
  context_->metrics->retries_lost.Add(static_cast<uint64_t>(state_.failures() - failures));
  context_->metrics->retries_refused.Add(static_cast<uint64_t>(state_.refusals() - refusals));
  context_->metrics->retries_left.Add(static_cast<uint64_t>(state_.moves() - moves));
  SettlePlacements();
  Perform(actions);
}

void ActiveRequest::Perform(const std::vector<Action>& actions) {
  const RequestContext* const context = context_;
  const RequestId id = id_;
  for (const Action& action : actions) {
    std::visit([this](const auto& a) { Do(a); }, action);
    // The client may have destroyed this object in a callback; what is left is for the client only.
    if (context->find(id) != this) return;
  }
}

void ActiveRequest::Do(const action::Choose& choose) {
  if (choose.after == absl::ZeroDuration()) return Decide(choose.wants_decode);
  const bool wants_decode = choose.wants_decode;
  pause_ = context_->loop->PostAfter(choose.after, [this, wants_decode] { Decide(wants_decode); });
}

void ActiveRequest::Do(const action::Admit& admit) {
  report_.decode_node = admit.node.value();
  if (!context_->nodes->Send(admit.node,
                             MakeAdmit(Context(admit.leg), state_.remaining_tokens()))) {
    PostEvent(event::DecodeLost{admit.leg});
  }
}

void ActiveRequest::Do(const action::StartPrefill& start) {
  if (report_.route == absl::ZeroDuration()) report_.route = Now() - begun_;
  report_.prefill_node = start.node.value();
  v1::PrefillCommand command =
      MakePrefillStart(Context(start.leg), context_->options.handover_timeout);
  AddPlan(context_->index(), keys_, plan_blocks_, start.node, context_->options.max_sources,
          *command.mutable_start());
  if (!context_->nodes->Send(start.node, std::move(command))) {
    PostEvent(event::PrefillLost{start.leg});
  }
}

void ActiveRequest::Do(const action::RelayBlocks& relay) {
  v1::DecodeCommand command;
  command.set_request_id(WireId(id_, relay.leg).value());
  *command.mutable_blocks() = std::move(ready_);
  context_->nodes->Send(relay.node, std::move(command));
}

void ActiveRequest::Do(const action::StartDecode& start) {
  context_->nodes->Send(start.node, MakeDecodeStart(WireId(id_, start.leg), start.first_token));
}

void ActiveRequest::Do(const action::CancelDecode& cancel) {
  context_->nodes->Send(cancel.node, MakeDecodeCancel(WireId(id_, cancel.leg)));
}

void ActiveRequest::Do(const action::ReleasePrefill& release) {
  context_->nodes->Send(release.node, MakePrefillRelease(WireId(id_, release.leg)));
}

void ActiveRequest::Do(const action::EmitTokens& emit) {
  for (const engine::SampledToken& token : emit.tokens) tokens_.push_back(token.token);
  if (first_token_ == absl::InfinitePast()) {
    NoteFirstToken();
  } else {
    const double gap = absl::ToDoubleSeconds(Now() - last_token_);
    for (size_t i = 0; i < emit.tokens.size(); ++i) {
      context_->metrics->inter_token_latency.Observe(gap / static_cast<double>(emit.tokens.size()));
    }
  }
  last_token_ = Now();
  context_->metrics->generation_tokens.Add(emit.tokens.size());
  sink_->OnTokens(emit.tokens);
}

void ActiveRequest::Do(const action::Finish& finish) {
  End(context_->metrics->requests_finished);
  const GenerationReport report = report_;
  sink_->OnFinished(finish.reason, report);
}

void ActiveRequest::Do(const action::Fail& fail) {
  VLOG(1) << "request " << id_ << " failed after " << state_.attempts()
          << " attempts: " << fail.status;
  const bool refused = absl::IsResourceExhausted(fail.status);
  End(refused ? context_->metrics->requests_refused : context_->metrics->requests_failed);
  sink_->OnFailed(fail.status, fail.retry_after);
}

int ActiveRequest::QueuePriority() const {
  return state_.attempts() > 1 ? std::numeric_limits<int>::min() : request_.priority;
}

void ActiveRequest::Decide(bool wants_decode) {
  wants_decode_ = wants_decode;
  const int64_t ahead = context_->queue->TokensAhead(QueuePriority());
  const RouteResult result = Route(wants_decode, ahead);
  if (const auto* hold = std::get_if<Hold>(&result)) return Enqueue(*hold);
  // It would fit, but others were first.
  const auto* decision = std::get_if<RouteDecision>(&result);
  if (decision != nullptr && ahead > 0) {
    const PrefillPrediction& predicted = decision->prefill.predicted;
    return Enqueue({absl::ZeroDuration(), predicted.compute_tokens, predicted.total_us()});
  }
  Follow(result);
}

// What the client was in for when it came: later decisions know more.
void ActiveRequest::NotePrediction(double us) {
  if (predicted_at_ != absl::InfinitePast()) return;
  predicted_at_ = Now();
  report_.predicted_time_to_first_token = absl::Microseconds(us);
}

void ActiveRequest::Enqueue(const Hold& hold) {
  NotePrediction(hold.first_token_us);
  const absl::Status status = context_->queue->Add({.id = id_,
                                                    .tenant = request_.tenant,
                                                    .priority = QueuePriority(),
                                                    .tokens = hold.compute_tokens});
  if (!status.ok()) {
    context_->metrics->refusals.With({"queue_full"}).Add();
    return Handle(event::NotChosen{status, std::max(hold.wait, kLeastRetry)});
  }
  ShowQueue();
  context_->pump(hold.wait);
}

void ActiveRequest::ShowQueue() { context_->metrics->requests_queued.Set(context_->queue->size()); }

std::optional<absl::Duration> ActiveRequest::TryStart() {
  const RouteResult result = Route(wants_decode_, 0);
  if (const auto* hold = std::get_if<Hold>(&result)) return hold->wait;
  context_->queue->Start(id_);
  ShowQueue();
  Follow(result);
  return std::nullopt;
}

void ActiveRequest::Follow(const RouteResult& result) {
  if (const auto* refusal = std::get_if<Refusal>(&result)) {
    context_->metrics->refusals.With({Name(refusal->reason)}).Add();
    return Handle(event::NotChosen{refusal->status, refusal->retry_after});
  }
  const auto& decision = std::get<RouteDecision>(result);
  const PrefillPrediction& predicted = decision.prefill.predicted;
  NotePrediction(predicted.total_us());
  // Own blocks too: should they be gone by then, there is another place.
  plan_blocks_ = predicted.local_blocks + predicted.pull_blocks;
  Place(prefill_placement_, decision.prefill.node,
        {.tokens = predicted.compute_tokens, .attended = predicted.compute_attended});
  event::Chosen chosen{.prefill = decision.prefill.node};
  if (decision.decode.has_value()) {
    Place(decode_placement_, decision.decode->node,
          {.tokens = static_cast<int64_t>(tokens_.size()), .pages = decision.decode->pages});
    chosen.decode = decision.decode->node;
  }
  Handle(chosen);
}

RouteResult ActiveRequest::Route(bool wants_decode, int64_t tokens_ahead) {
  const std::optional<ServedModel>& model = context_->nodes->model();
  if (!model.has_value()) {
    return Refusal{absl::UnavailableError("no node has joined the cluster yet"), absl::Seconds(2)};
  }
  const absl::Time start = Now();
  ExtendKeys(*model, request_.salt, tokens_, keys_);
  const bool begun = first_token_ != absl::InfinitePast();
  const RouteRequest request = {
      .tokens = static_cast<int64_t>(tokens_.size()),
      .max_new_tokens = state_.remaining_tokens(),
      .time_left = request_.deadline - start,
      .slo = SloLeft(start),
      .wants_decode = wants_decode,
      .avoid_prefill = state_.avoid_prefill(),
      .avoid_decode = state_.avoid_decode(),
      .tokens_ahead = tokens_ahead,
      .may_wait = true,
      .max_node_queue = begun ? absl::InfiniteDuration() : context_->options.max_node_queue};
  RouteResult result = Choose(request, context_->nodes->view(), context_->index().Match(keys_),
                              model->block, start, context_->random);
  context_->metrics->routing_time.Observe(absl::ToDoubleSeconds(Now() - start));
  return result;
}

// An answer that has begun is not given up for being late.
Slo ActiveRequest::SloLeft(absl::Time now) const {
  if (first_token_ != absl::InfinitePast()) return {};
  Slo slo = request_.slo;
  slo.ttft -= now - request_.received;
  return slo;
}

void ActiveRequest::SettlePlacements() {
  if (state_.phase() == Phase::kEnded && context_->queue->Remove(id_)) {
    ShowQueue();
    context_->pump(absl::ZeroDuration());
  }
  const Phase phase = state_.phase();
  if (!state_.has_seat()) EndPlacement(decode_placement_);
  if (phase != Phase::kAdmitting && phase != Phase::kPrefilling) EndPlacement(prefill_placement_);
}

void ActiveRequest::Place(std::optional<NodeId>& where, const NodeId& node, const Work& work) {
  EndPlacement(where);
  context_->nodes->view().Place(node, id_, work);
  where = node;
}

void ActiveRequest::EndPlacement(std::optional<NodeId>& where) {
  if (!where.has_value()) return;
  context_->nodes->view().End(*where, id_);
  where.reset();
  if (context_->queue->size() > 0) context_->pump(absl::ZeroDuration());
}

void ActiveRequest::PostEvent(const Event& event) {
  posted_ = context_->loop->PostAt(Now(), [this, event] { Handle(event); });
}

void ActiveRequest::CancelTimers() {
  for (const TimerId timer : {deadline_, pause_, posted_}) context_->loop->CancelTimer(timer);
}

void ActiveRequest::NoteFirstToken() {
  RouterMetrics& metrics = *context_->metrics;
  first_token_ = Now();
  report_.time_to_first_token = first_token_ - request_.received;
  metrics.time_to_first_token.Observe(absl::ToDoubleSeconds(report_.time_to_first_token));
  const double predicted = absl::ToDoubleSeconds(report_.predicted_time_to_first_token);
  metrics.predicted_time_to_first_token.Observe(predicted);
  const double real = absl::ToDoubleSeconds(first_token_ - predicted_at_);
  if (real > 0) metrics.prediction_ratio.Observe(predicted / real);
  metrics.prompt_tokens.Add(static_cast<uint64_t>(report_.prompt_tokens));
  metrics.cached_prompt_tokens.Add(static_cast<uint64_t>(report_.cached_tokens()));
}

void ActiveRequest::End(metrics::Counter& outcome) {
  report_ = Report();
  ended_ = true;
  CancelTimers();
  outcome.Add();
  context_->metrics->e2e_latency.Observe(absl::ToDoubleSeconds(report_.total));
  context_->ended(id_);
}

LegContext ActiveRequest::Context(Leg leg) const {
  return {.wire_id = WireId(id_, leg),
          .request = request_,
          .tokens = tokens_,
          .time_left = request_.deadline - Now()};
}

}  // namespace tarn::router

#include "router/session/request_state.h"

#include <glog/logging.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"

namespace tarn::router {
namespace {

// Whether another node could say something else.
bool HelpsElsewhere(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kOutOfRange:
    case absl::StatusCode::kUnimplemented:
    case absl::StatusCode::kDeadlineExceeded:
      return false;
    default:
      return true;
  }
}

absl::Status Lost(const char* role, const NodeId& node) {
  return absl::UnavailableError(absl::StrCat(role, " node ", node.value(), " was lost"));
}

}  // namespace

const char* Name(Phase phase) {
  switch (phase) {
    case Phase::kChoosing:
      return "choosing";
    case Phase::kAdmitting:
      return "admitting";
    case Phase::kPrefilling:
      return "prefilling";
    case Phase::kHandingOver:
      return "handing over";
    case Phase::kDecoding:
      return "decoding";
    case Phase::kEnded:
      return "ended";
  }
  return "unknown";
}

RequestState::RequestState(std::vector<TokenId> end_tokens, int max_new_tokens,
                           const RequestLimits& limits)
    : end_tokens_(std::move(end_tokens)), max_new_tokens_(max_new_tokens), limits_(limits) {
  CHECK_GT(max_new_tokens, 0);
  std::sort(end_tokens_.begin(), end_tokens_.end());
}

std::vector<Action> RequestState::Start() { return {action::Choose{.wants_decode = true}}; }

std::vector<Action> RequestState::Handle(const Event& event) {
  Actions out;
  if (phase_ == Phase::kEnded) return out;
  std::visit([&](const auto& happened) { On(happened, out); }, event);
  return out;
}

void RequestState::On(const event::Chosen& chosen, Actions& out) {
  if (phase_ != Phase::kChoosing) return;
  next_prefill_ = chosen.prefill;
  if (has_seat()) {
    phase_ = Phase::kPrefilling;
    pin_ = {next_prefill_, ++last_leg_};
    out.push_back(action::StartPrefill{pin_.node, pin_.leg});
  } else if (chosen.decode.has_value()) {
    phase_ = Phase::kAdmitting;
    seat_ = {*chosen.decode, ++last_leg_};
    out.push_back(action::Admit{seat_.node, seat_.leg});
  } else {
    // The seat went while the brain was asked for a prefill node only.
    ChooseAgain(absl::ZeroDuration(), out);
  }
}

void RequestState::On(const event::NotChosen& refused, Actions& out) {
  if (phase_ != Phase::kChoosing) return;
  if (MayWait(refused.status)) return ChooseAgain(limits_.wait, out);
  // What a node said is nearer to the truth than "no node is left".
  if (last_error_.ok()) {
    Fail(refused.status, refused.retry_after, out);
  } else {
    Fail(last_error_, std::max(last_retry_after_, refused.retry_after), out);
  }
}

void RequestState::On(const event::Admitted& admitted, Actions& out) {
  if (!IsSeat(admitted.leg)) return;
  if (phase_ != Phase::kAdmitting) return BreakSeat("admitted a request twice", out);
  phase_ = Phase::kPrefilling;
  pin_ = {next_prefill_, ++last_leg_};
  out.push_back(action::StartPrefill{pin_.node, pin_.leg});
}

void RequestState::On(const event::HandedOver& handed_over, Actions& out) {
  if (!IsSeat(handed_over.leg)) return;
  if (phase_ == Phase::kDecoding) return;
  if (phase_ != Phase::kHandingOver) return BreakSeat("took over blocks before the start", out);
  phase_ = Phase::kDecoding;
  ReleasePin(out);
}

void RequestState::On(const event::Tokens& tokens, Actions& out) {
  if (!IsSeat(tokens.leg)) return;
  if (!Started()) {
    return BreakSeat("sent tokens before the start", out);
  }
  Take(tokens.tokens, out);
}

void RequestState::On(const event::DecodeFinished& finished, Actions& out) {
  if (!IsSeat(finished.leg)) return;
  const NodeId node = std::exchange(seat_, {}).node;
  avoid_decode_.push_back(node);
  // A whole answer ends there. An end that the tokens do not show is none.
  SeatGone(finished.reason.has_value() ? Cause::kFailed : Cause::kLeft,
           absl::UnavailableError(absl::StrCat("decode node ", node.value(), " ended after ",
                                               generated_.size(), " tokens")),
           absl::ZeroDuration(), out);
}

void RequestState::On(const event::DecodeFailed& failed, Actions& out) {
  if (!IsSeat(failed.leg)) return;
  const NodeId node = std::exchange(seat_, {}).node;
  avoid_decode_.push_back(node);
  SeatGone(CauseOf(failed.status), Annotate(failed.status, "decode node " + node.value()),
           failed.retry_after, out);
}

void RequestState::On(const event::DecodeLost& lost, Actions& out) {
  if (!IsSeat(lost.leg)) return;
  const NodeId node = std::exchange(seat_, {}).node;
  SeatGone(Cause::kLost, Lost("decode", node), absl::ZeroDuration(), out);
}

void RequestState::On(const event::BlocksReady& ready, Actions& out) {
  if (!IsPin(ready.leg) || phase_ != Phase::kPrefilling) return;
  out.push_back(action::RelayBlocks{seat_.node, seat_.leg});
}

void RequestState::On(const event::PrefillDone& done, Actions& out) {
  if (!IsPin(done.leg) || phase_ != Phase::kPrefilling) return;
  Actions client;
  Take({done.first_token}, client);
  if (const auto reason = Complete()) {
    ReleaseAll(out);
    out.insert(out.end(), client.begin(), client.end());
    return Finish(*reason, out);
  }
  phase_ = Phase::kHandingOver;
  out.push_back(action::StartDecode{seat_.node, seat_.leg, done.first_token});
  out.insert(out.end(), client.begin(), client.end());
}

void RequestState::On(const event::PrefillFailed& failed, Actions& out) {
  if (!IsPin(failed.leg)) return;
  const NodeId node = std::exchange(pin_, {}).node;
  avoid_prefill_.push_back(node);
  PinGone(CauseOf(failed.status), Annotate(failed.status, "prefill node " + node.value()),
          failed.retry_after, out);
}

void RequestState::On(const event::PrefillLost& lost, Actions& out) {
  if (!IsPin(lost.leg)) return;
  const NodeId node = std::exchange(pin_, {}).node;
  PinGone(Cause::kLost, Lost("prefill", node), absl::ZeroDuration(), out);
}

void RequestState::On(const event::Cancel&, Actions& out) {
  ReleaseAll(out);
  phase_ = Phase::kEnded;
}

void RequestState::On(const event::Deadline&, Actions& out) {
  Fail(absl::DeadlineExceededError(absl::StrCat("the request's time is up while ", Name(phase_),
                                                ", after ", generated_.size(), " tokens")),
       absl::ZeroDuration(), out);
}

void RequestState::ChooseAgain(absl::Duration after, Actions& out) {
  phase_ = Phase::kChoosing;
  out.push_back(action::Choose{.wants_decode = !has_seat(), .after = after});
}

void RequestState::ReleaseAll(Actions& out) {
  ReleasePin(out);
  if (has_seat()) out.push_back(action::CancelDecode{seat_.node, seat_.leg});
  seat_ = {};
}

void RequestState::ReleasePin(Actions& out) {
  if (has_pin()) out.push_back(action::ReleasePrefill{pin_.node, pin_.leg});
  pin_ = {};
}

RequestState::Cause RequestState::CauseOf(const absl::Status& said) {
  if (absl::IsUnavailable(said)) return Cause::kLeft;
  return absl::IsResourceExhausted(said) ? Cause::kFull : Cause::kFailed;
}

void RequestState::SeatGone(Cause cause, const absl::Status& why, absl::Duration retry_after,
                            Actions& out) {
  ReleasePin(out);
  // Only the word that it is over has been lost.
  if (const auto reason = Complete()) return Finish(*reason, out);
  GoOn(cause, why, retry_after, out);
}

void RequestState::PinGone(Cause cause, const absl::Status& why, absl::Duration retry_after,
                           Actions& out) {
  // After the hand-over began the decode node recomputes what it cannot pull any more, or gives up.
  if (phase_ == Phase::kPrefilling) GoOn(cause, why, retry_after, out);
}

void RequestState::BreakSeat(const std::string& what, Actions& out) {
  const absl::Status why =
      absl::InternalError(absl::StrCat("decode node ", seat_.node.value(), " ", what));
  avoid_decode_.push_back(seat_.node);
  out.push_back(action::CancelDecode{seat_.node, seat_.leg});
  seat_ = {};
  SeatGone(Cause::kFailed, why, absl::ZeroDuration(), out);
}

void RequestState::GoOn(Cause cause, const absl::Status& why, absl::Duration retry_after,
                        Actions& out) {
  last_error_ = why;
  last_retry_after_ = retry_after;
  displaced_ |= cause == Cause::kLost || cause == Cause::kLeft;
  absl::Duration after;
  if (IsEnough(cause) || !HelpsElsewhere(why)) {
    // Full nodes are asked again later; that this ends is seen to by the number of waits.
    if (cause != Cause::kFull || !MayWait(why)) return Fail(why, retry_after, out);
    after = limits_.wait;
  }
  // While choosing, an answer is on its way and will find the seat missing.
  if (phase_ != Phase::kChoosing) ChooseAgain(after, out);
}

bool RequestState::IsEnough(Cause cause) {
  switch (cause) {
    case Cause::kLeft:
      return ++moves_ > limits_.max_moves;
    case Cause::kFull:
      return ++refusals_ >= limits_.max_refusals;
    case Cause::kLost:
    case Cause::kFailed:
      break;
  }
  return ++failures_ >= limits_.max_attempts;
}

bool RequestState::MayWait(const absl::Status& why) {
  const bool could_help = absl::IsUnavailable(why) || absl::IsResourceExhausted(why);
  if (!displaced_ || !could_help || waits_ >= limits_.max_waits) return false;
  ++waits_;
  avoid_prefill_.clear();
  avoid_decode_.clear();
  return true;
}

void RequestState::Take(const std::vector<engine::SampledToken>& tokens, Actions& client) {
  action::EmitTokens emit;
  for (const engine::SampledToken& token : tokens) {
    if (Complete().has_value()) break;
    generated_.push_back(token.token);
    emit.tokens.push_back(token);
  }
  if (!emit.tokens.empty()) client.push_back(std::move(emit));
}

std::optional<FinishReason> RequestState::Complete() const {
  if (generated_.empty()) return std::nullopt;
  if (std::binary_search(end_tokens_.begin(), end_tokens_.end(), generated_.back())) {
    return FinishReason::kStop;
  }
  if (remaining_tokens() <= 0) return FinishReason::kLength;
  return std::nullopt;
}

void RequestState::Finish(FinishReason reason, Actions& out) {
  phase_ = Phase::kEnded;
  out.push_back(action::Finish{reason});
}

void RequestState::Fail(const absl::Status& status, absl::Duration retry_after, Actions& out) {
  ReleaseAll(out);
  phase_ = Phase::kEnded;
  out.push_back(action::Fail{status, retry_after});
}

}  // namespace tarn::router

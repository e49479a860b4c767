#pragma once

// The life of one request as a state machine. Pure: an event in, actions out.
//
//   Choosing ─► Admitting ─► Prefilling ─► HandingOver ─► Decoding ─► Ended
//      ▲            │            │              │             │
//      └────────────┴── refused, failed, lost ──┴─────────────┘      cancel, deadline: from
//      anywhere
//
// It holds two things at nodes: a seat (from Admit until the decode node says that it is over, or
// is told) and a pin (from StartPrefill until the prefill node says that it failed, or is told).
// Each is given back exactly once, whatever happens (I3).
//
// Each try at a node is a leg with a number of its own, so what an abandoned leg still says is
// known by its number and ignored.
//
// A lost prefill node leaves the seat; a lost decode node means prefill again, elsewhere, of the
// prompt and all tokens so far. By I1 the tokens continue as if nothing had happened. A node that
// leaves on purpose (UNAVAILABLE, or an end without a reason) is left the same way, and that counts
// as no failure: a long answer outlives any number of planned restarts up to max_moves.
//
// A request that has lost its place once is owed another one: it waits for nodes to come back, or
// for room, where a new one would be refused.

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/base/ids.h"
#include "engine/sampling/sampling.h"
#include "router/session/gateway.h"

namespace tarn::router {

enum class Phase : uint8_t { kChoosing, kAdmitting, kPrefilling, kHandingOver, kDecoding, kEnded };

const char* Name(Phase phase);

// A try at a node; 0 is none.
using Leg = uint32_t;

namespace event {
// The answer to action::Choose.
struct Chosen {
  NodeId prefill;
  std::optional<NodeId> decode;
};
struct NotChosen {
  absl::Status status;
  absl::Duration retry_after;
};
// From the decode node. Lost: the session with the node has ended, and with it the seat.
struct Admitted {
  Leg leg = 0;
};
struct HandedOver {
  Leg leg = 0;
};
struct Tokens {
  Leg leg = 0;
  std::vector<engine::SampledToken> tokens;
};
struct DecodeFinished {
  Leg leg = 0;
  // Nothing: the node gave up. Else the tokens before it must be a whole answer.
  std::optional<FinishReason> reason;
};
// UNAVAILABLE: the node is leaving. RESOURCE_EXHAUSTED: it is full.
struct DecodeFailed {
  Leg leg = 0;
  absl::Status status;
  absl::Duration retry_after;
};
struct DecodeLost {
  Leg leg = 0;
};
// From the prefill node.
struct BlocksReady {
  Leg leg = 0;
};
struct PrefillDone {
  Leg leg = 0;
  engine::SampledToken first_token;
};
struct PrefillFailed {
  Leg leg = 0;
  absl::Status status;
  absl::Duration retry_after;
};
struct PrefillLost {
  Leg leg = 0;
};
// From the client and the clock.
struct Cancel {};
struct Deadline {};
}  // namespace event

using Event =
    std::variant<event::Chosen, event::NotChosen, event::Admitted, event::HandedOver, event::Tokens,
                 event::DecodeFinished, event::DecodeFailed, event::DecodeLost, event::BlocksReady,
                 event::PrefillDone, event::PrefillFailed, event::PrefillLost, event::Cancel,
                 event::Deadline>;

namespace action {
// Ask the brain, after a pause if there is one; answer with Chosen or NotChosen.
struct Choose {
  bool wants_decode = true;
  absl::Duration after;
};
struct Admit {
  NodeId node;
  Leg leg = 0;
};
struct StartPrefill {
  NodeId node;
  Leg leg = 0;
};
// Relay what BlocksReady brought.
struct RelayBlocks {
  NodeId node;
  Leg leg = 0;
};
struct StartDecode {
  NodeId node;
  Leg leg = 0;
  engine::SampledToken first_token;
};
struct CancelDecode {
  NodeId node;
  Leg leg = 0;
};
struct ReleasePrefill {
  NodeId node;
  Leg leg = 0;
};
// To the client. Finish and Fail are the last action of all, and there is one at most.
struct EmitTokens {
  std::vector<engine::SampledToken> tokens;
};
struct Finish {
  FinishReason reason = FinishReason::kStop;
};
struct Fail {
  absl::Status status;
  absl::Duration retry_after;
};
}  // namespace action

using Action =
    std::variant<action::Choose, action::Admit, action::StartPrefill, action::RelayBlocks,
                 action::StartDecode, action::CancelDecode, action::ReleasePrefill,
                 action::EmitTokens, action::Finish, action::Fail>;

struct RequestLimits {
  int max_attempts = 3;  // losses and failures of nodes, plus one
  int max_refusals = 4;  // nodes that may say no before the client hears it
  int max_moves = 20;    // nodes that may leave under it, or turn it away because they do
  // When a node has gone and no other is there, or none with room, there may be one soon: how often
  // to ask again, and how long in between.
  int max_waits = 50;
  absl::Duration wait = absl::Milliseconds(200);
};

// A value: copies live on their own.
class RequestState {
 public:
  // `end_tokens` and `max_new_tokens` (> 0) as in GenerationRequest.
  RequestState(std::vector<TokenId> end_tokens, int max_new_tokens,
               const RequestLimits& limits = {});

  // The first actions. Once.
  std::vector<Action> Start();
  // Any event is legal in any phase. Commands to nodes come before what goes to the client, so that
  // a client may cancel within a callback without anything being left undone.
  std::vector<Action> Handle(const Event& event);

  Phase phase() const { return phase_; }
  // Tokens sent to the client so far.
  const std::vector<TokenId>& generated() const { return generated_; }
  int remaining_tokens() const { return max_new_tokens_ - static_cast<int>(generated_.size()); }
  // Where the request holds something.
  bool has_seat() const { return seat_.leg != 0; }
  bool has_pin() const { return pin_.leg != 0; }
  Leg seat_leg() const { return seat_.leg; }
  Leg pin_leg() const { return pin_.leg; }
  const NodeId& decode_node() const { return seat_.node; }
  const NodeId& prefill_node() const { return pin_.node; }
  // Nodes that refused, failed or are leaving, and are not asked again, or not before a wait. Lost
  // ones are not among them: they are not connected, and welcome when they are back.
  const std::vector<NodeId>& avoid_prefill() const { return avoid_prefill_; }
  const std::vector<NodeId>& avoid_decode() const { return avoid_decode_; }
  int failures() const { return failures_; }
  int refusals() const { return refusals_; }
  int moves() const { return moves_; }
  int waits() const { return waits_; }
  // Whether it has lost its place once, and so waits where others are refused.
  bool displaced() const { return displaced_; }
  int attempts() const { return 1 + failures_ + refusals_ + moves_; }

 private:
  struct Hold {
    NodeId node;
    Leg leg = 0;
  };
  using Actions = std::vector<Action>;

  void On(const event::Chosen& chosen, Actions& out);
  void On(const event::NotChosen& refused, Actions& out);
  void On(const event::Admitted& admitted, Actions& out);
  void On(const event::HandedOver& handed_over, Actions& out);
  void On(const event::Tokens& tokens, Actions& out);
  void On(const event::DecodeFinished& finished, Actions& out);
  void On(const event::DecodeFailed& failed, Actions& out);
  void On(const event::DecodeLost& lost, Actions& out);
  void On(const event::BlocksReady& ready, Actions& out);
  void On(const event::PrefillDone& done, Actions& out);
  void On(const event::PrefillFailed& failed, Actions& out);
  void On(const event::PrefillLost& lost, Actions& out);
  void On(const event::Cancel& cancel, Actions& out);
  void On(const event::Deadline& deadline, Actions& out);

  void ChooseAgain(absl::Duration after, Actions& out);
  void ReleaseAll(Actions& out);
  void ReleasePin(Actions& out);
  // Why a seat or a pin has gone.
  enum class Cause : uint8_t { kLost, kLeft, kFull, kFailed };
  static Cause CauseOf(const absl::Status& said);
  // The seat has gone: goes on elsewhere, or ends.
  void SeatGone(Cause cause, const absl::Status& why, absl::Duration retry_after, Actions& out);
  void PinGone(Cause cause, const absl::Status& why, absl::Duration retry_after, Actions& out);
  // The decode node does what it may not, and still has the seat.
  void BreakSeat(const std::string& what, Actions& out);
  bool IsSeat(Leg leg) const { return has_seat() && seat_.leg == leg; }
  bool IsPin(Leg leg) const { return has_pin() && pin_.leg == leg; }
  bool Started() const { return phase_ == Phase::kHandingOver || phase_ == Phase::kDecoding; }
  // Counts what has happened; true: that is enough.
  bool IsEnough(Cause cause);
  // Whether a wait is owed, and left, and could help; counts it.
  bool MayWait(const absl::Status& why);
  // Asks for a node again, or fails.
  void GoOn(Cause cause, const absl::Status& why, absl::Duration retry_after, Actions& out);
  // Notes tokens for the client; nothing is taken beyond the answer's end.
  void Take(const std::vector<engine::SampledToken>& tokens, Actions& client);
  // Set once the tokens so far are a whole answer.
  std::optional<FinishReason> Complete() const;
  void Finish(FinishReason reason, Actions& out);
  void Fail(const absl::Status& status, absl::Duration retry_after, Actions& out);

  std::vector<TokenId> end_tokens_;  // sorted
  int max_new_tokens_;
  RequestLimits limits_;

  Phase phase_ = Phase::kChoosing;
  Hold seat_, pin_;
  NodeId next_prefill_;  // chosen, waiting for the seat
  Leg last_leg_ = 0;
  std::vector<TokenId> generated_;
  std::vector<NodeId> avoid_prefill_, avoid_decode_;
  int failures_ = 0, refusals_ = 0, moves_ = 0;
  int waits_ = 0;
  absl::Status last_error_;
  bool displaced_ = false;  // a node was lost or has left under it
  absl::Duration last_retry_after_;
};

}  // namespace tarn::router

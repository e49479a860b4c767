#include "router/session/request_state.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>
#include <map>
#include <set>

#include "absl/strings/str_cat.h"

namespace tarn::router {
namespace {

using ::testing::ElementsAre;

constexpr TokenId kEnd = 0;
const NodeId kP0("p0"), kP1("p1"), kD0("d0"), kD1("d1");

template <typename T>
const T* Find(const std::vector<Action>& actions) {
  for (const Action& action : actions) {
    if (const T* found = std::get_if<T>(&action)) return found;
  }
  return nullptr;
}

engine::SampledToken Token(TokenId id) { return {.token = id}; }

// Brings a request to the phase where its first token (1) has come.
class RequestStateTest : public ::testing::Test {
 protected:
  std::vector<Action> Do(const Event& event) { return state_.Handle(event); }
  void Admit() {
    state_.Start();
    seat_ = Find<action::Admit>(Do(event::Chosen{kP0, kD0}))->leg;
    pin_ = Find<action::StartPrefill>(Do(event::Admitted{seat_}))->leg;
  }
  void Prefill() {
    Admit();
    Do(event::PrefillDone{pin_, Token(1)});
  }
  RequestState state_{{kEnd}, 4};
  Leg seat_ = 0, pin_ = 0;
};

TEST_F(RequestStateTest, APlainLife) {
  EXPECT_TRUE(Find<action::Choose>(state_.Start())->wants_decode);
  seat_ = Find<action::Admit>(Do(event::Chosen{kP0, kD0}))->leg;
  auto actions = Do(event::Admitted{seat_});
  pin_ = Find<action::StartPrefill>(actions)->leg;
  EXPECT_EQ(Find<action::StartPrefill>(actions)->node, kP0);
  EXPECT_EQ(Find<action::RelayBlocks>(Do(event::BlocksReady{pin_}))->node, kD0);
  actions = Do(event::PrefillDone{pin_, Token(1)});
  EXPECT_EQ(Find<action::StartDecode>(actions)->first_token.token, 1);
  EXPECT_EQ(Find<action::EmitTokens>(actions)->tokens.size(), 1u);
  EXPECT_EQ(state_.phase(), Phase::kHandingOver);
  EXPECT_EQ(Find<action::ReleasePrefill>(Do(event::HandedOver{seat_}))->leg, pin_);
  Do(event::Tokens{seat_, {Token(2), Token(kEnd)}});
  actions = Do(event::DecodeFinished{seat_, FinishReason::kStop});
  EXPECT_EQ(Find<action::Finish>(actions)->reason, FinishReason::kStop);
  EXPECT_THAT(state_.generated(), ElementsAre(1, 2, kEnd));
  EXPECT_EQ(state_.attempts(), 1);
}

TEST_F(RequestStateTest, AFirstTokenThatEndsNeedsNoDecode) {
  Admit();
  const auto actions = Do(event::PrefillDone{pin_, Token(kEnd)});
  EXPECT_EQ(Find<action::StartDecode>(actions), nullptr);
  EXPECT_NE(Find<action::ReleasePrefill>(actions), nullptr);
  EXPECT_NE(Find<action::CancelDecode>(actions), nullptr);
  EXPECT_EQ(Find<action::Finish>(actions)->reason, FinishReason::kStop);
}

TEST_F(RequestStateTest, ALostPrefillNodeLeavesTheSeat) {
  Admit();
  EXPECT_FALSE(Find<action::Choose>(Do(event::PrefillLost{pin_}))->wants_decode);
  const auto actions = Do(event::Chosen{kP1, std::nullopt});
  EXPECT_EQ(Find<action::StartPrefill>(actions)->node, kP1);
  EXPECT_NE(Find<action::StartPrefill>(actions)->leg, pin_);
  EXPECT_TRUE(Do(event::PrefillDone{pin_, Token(7)}).empty());  // of the lost leg
  EXPECT_EQ(state_.attempts(), 2);
}

TEST_F(RequestStateTest, ALostPrefillNodeAfterItsWorkIsNoLoss) {
  Prefill();
  EXPECT_TRUE(Do(event::PrefillLost{pin_}).empty());
  EXPECT_TRUE(Do(event::HandedOver{seat_}).empty());
  EXPECT_EQ(state_.phase(), Phase::kDecoding);
}

TEST_F(RequestStateTest, ALostDecodeNodeMeansPrefillOfAllTokensSoFar) {
  Prefill();
  Do(event::HandedOver{seat_});
  Do(event::Tokens{seat_, {Token(2)}});
  EXPECT_TRUE(Find<action::Choose>(Do(event::DecodeLost{seat_}))->wants_decode);
  EXPECT_THAT(state_.generated(), ElementsAre(1, 2));
  EXPECT_EQ(state_.remaining_tokens(), 2);
  const Leg seat = Find<action::Admit>(Do(event::Chosen{kP0, kD1}))->leg;
  const Leg pin = Find<action::StartPrefill>(Do(event::Admitted{seat}))->leg;
  EXPECT_TRUE(Do(event::Tokens{seat_, {Token(9)}}).empty());  // of the lost leg
  Do(event::PrefillDone{pin, Token(3)});
  Do(event::Tokens{seat, {Token(4)}});
  EXPECT_THAT(state_.generated(), ElementsAre(1, 2, 3, 4));
}

TEST_F(RequestStateTest, OnlyTheWordOfTheEndIsLost) {
  Prefill();
  Do(event::Tokens{seat_, {Token(2), Token(3), Token(4), Token(5)}});
  EXPECT_EQ(state_.generated().size(), 4u);  // one too many was sent
  const auto actions = Do(event::DecodeLost{seat_});
  EXPECT_EQ(Find<action::Finish>(actions)->reason, FinishReason::kLength);
}

TEST_F(RequestStateTest, RefusalsReachTheClientWithTheirHint) {
  state_.Start();
  const auto refuse = [this](const NodeId& node) {
    const Leg seat = Find<action::Admit>(Do(event::Chosen{kP0, node}))->leg;
    return Do(event::DecodeFailed{seat, absl::ResourceExhaustedError("full"), absl::Seconds(3)});
  };
  EXPECT_NE(Find<action::Choose>(refuse(kD0)), nullptr);
  EXPECT_NE(Find<action::Choose>(refuse(kD1)), nullptr);
  EXPECT_THAT(state_.avoid_decode(), ElementsAre(kD0, kD1));
  const auto actions = Do(event::NotChosen{absl::UnavailableError("none left")});
  EXPECT_TRUE(absl::IsResourceExhausted(Find<action::Fail>(actions)->status));
  EXPECT_EQ(Find<action::Fail>(actions)->retry_after, absl::Seconds(3));
}

TEST_F(RequestStateTest, WaitsForALostNodeToComeBackButNotForEver) {
  state_ = RequestState({kEnd}, 4, {.max_waits = 2, .wait = absl::Seconds(1)});
  Admit();
  Do(event::PrefillLost{pin_});
  const event::NotChosen none{absl::UnavailableError("none")};
  EXPECT_EQ(Find<action::Choose>(Do(none))->after, absl::Seconds(1));
  EXPECT_EQ(Find<action::Choose>(Do(none))->after, absl::Seconds(1));
  const auto actions = Do(none);
  EXPECT_NE(Find<action::CancelDecode>(actions), nullptr);
  EXPECT_TRUE(absl::IsUnavailable(Find<action::Fail>(actions)->status));
}

TEST_F(RequestStateTest, WhatNoNodeCanHelpFailsAtOnce) {
  Admit();
  const auto actions =
      Do(event::PrefillFailed{pin_, absl::InvalidArgumentError("tokens[3] is not in the model")});
  EXPECT_TRUE(absl::IsInvalidArgument(Find<action::Fail>(actions)->status));
}

TEST_F(RequestStateTest, AttemptsAreBounded) {
  Admit();
  for (int failures = 1; failures < 3; ++failures) {
    ASSERT_NE(Find<action::Choose>(Do(event::PrefillLost{pin_})), nullptr);
    pin_ = Find<action::StartPrefill>(Do(event::Chosen{kP0, std::nullopt}))->leg;
  }
  EXPECT_NE(Find<action::Fail>(Do(event::PrefillLost{pin_})), nullptr);
}

// What the nodes and the client know, from the actions alone.
class World {
 public:
  // What the event itself says about holds at nodes.
  void Before(const Event& event) {
    if (const auto* e = std::get_if<event::DecodeFinished>(&event)) seats_.erase(e->leg);
    if (const auto* e = std::get_if<event::DecodeFailed>(&event)) seats_.erase(e->leg);
    if (const auto* e = std::get_if<event::DecodeLost>(&event)) seats_.erase(e->leg);
    if (const auto* e = std::get_if<event::PrefillFailed>(&event)) pins_.erase(e->leg);
    if (const auto* e = std::get_if<event::PrefillLost>(&event)) pins_.erase(e->leg);
    if (std::holds_alternative<event::Chosen>(event)) choosing_ = false;
    if (std::holds_alternative<event::NotChosen>(event)) choosing_ = false;
    cancelled_ |= std::holds_alternative<event::Cancel>(event);
    told_client_ = false;
  }

  void Perform(const Action& action) {
    EXPECT_FALSE(over_) << "an action after the end";
    std::visit([this](const auto& a) { Do(a); }, action);
  }

  void CheckAgainst(const RequestState& state) const {
    EXPECT_EQ(seats_.size(), state.has_seat() ? 1u : 0u);
    EXPECT_EQ(pins_.size(), state.has_pin() ? 1u : 0u);
    EXPECT_EQ(emitted_, static_cast<int>(state.generated().size()));
    EXPECT_GE(state.remaining_tokens(), 0);
    if (state.phase() == Phase::kEnded) {
      EXPECT_TRUE(seats_.empty() && pins_.empty());
      EXPECT_TRUE(over_ || cancelled_);
    } else {
      EXPECT_FALSE(over_);
      // Somebody owes the request an answer: nothing waits for ever.
      EXPECT_EQ(choosing_, state.phase() == Phase::kChoosing);
      EXPECT_EQ(pins_.size() == 1, state.phase() == Phase::kPrefilling || state.has_pin());
      if (state.phase() != Phase::kChoosing) {
        EXPECT_EQ(seats_.size(), 1u);
      }
    }
  }

  Leg seat() const { return seats_.empty() ? 0 : *seats_.begin(); }
  Leg pin() const { return pins_.empty() ? 0 : *pins_.begin(); }

 private:
  void Open(std::set<Leg>& holds, Leg leg) {
    EXPECT_TRUE(holds.empty()) << "two at a time";
    EXPECT_GT(leg, last_leg_) << "a leg used twice";
    last_leg_ = leg;
    holds.insert(leg);
  }
  void ToNode() const { EXPECT_FALSE(told_client_) << "a command after the client was told"; }

  void Do(const action::Choose&) {
    EXPECT_FALSE(choosing_);
    choosing_ = true;
  }
  void Do(const action::Admit& a) {
    ToNode();
    Open(seats_, a.leg);
  }
  void Do(const action::StartPrefill& a) {
    ToNode();
    EXPECT_EQ(seats_.size(), 1u) << "a prefill without a seat";
    Open(pins_, a.leg);
  }
  void Do(const action::RelayBlocks& a) { EXPECT_TRUE(seats_.contains(a.leg)); }
  void Do(const action::StartDecode& a) {
    ToNode();
    EXPECT_TRUE(seats_.contains(a.leg));
  }
  void Do(const action::CancelDecode& a) {
    ToNode();
    EXPECT_EQ(seats_.erase(a.leg), 1u) << "a seat given back twice";
  }
  void Do(const action::ReleasePrefill& a) {
    ToNode();
    EXPECT_EQ(pins_.erase(a.leg), 1u) << "a pin given back twice";
  }
  void Do(const action::EmitTokens& a) {
    told_client_ = true;
    emitted_ += static_cast<int>(a.tokens.size());
  }
  void Do(const action::Finish&) { over_ = true; }
  void Do(const action::Fail&) { over_ = true; }

  std::set<Leg> seats_, pins_;
  Leg last_leg_ = 0;
  int emitted_ = 0;
  bool choosing_ = false, over_ = false, cancelled_ = false, told_client_ = false;
};

// All events that could happen, also those that a correct node would not send.
std::vector<Event> EventsFor(const World& world) {
  std::vector<Event> events = {
      event::Chosen{kP0, kD0},
      event::Chosen{kP0, std::nullopt},
      event::Cancel{},
      event::Deadline{},
      event::NotChosen{absl::UnavailableError("none")},
      event::NotChosen{absl::ResourceExhaustedError("full"), absl::Seconds(1)}};
  for (const Leg leg : {world.seat(), Leg{1000}}) {
    if (leg == 0) continue;
    events.insert(
        events.end(),
        {event::Admitted{leg}, event::HandedOver{leg}, event::Tokens{leg, {Token(1)}},
         event::Tokens{leg, {Token(2), Token(kEnd)}}, event::DecodeLost{leg},
         event::DecodeFinished{leg, FinishReason::kStop}, event::DecodeFinished{leg, std::nullopt},
         event::DecodeFailed{leg, absl::ResourceExhaustedError("full")},
         event::DecodeFailed{leg, absl::InternalError("broken")},
         event::DecodeFailed{leg, absl::InvalidArgumentError("bad")}});
  }
  for (const Leg leg : {world.pin(), Leg{1001}}) {
    if (leg == 0) continue;
    events.insert(events.end(), {event::BlocksReady{leg}, event::PrefillDone{leg, Token(1)},
                                 event::PrefillDone{leg, Token(kEnd)}, event::PrefillLost{leg},
                                 event::PrefillFailed{leg, absl::ResourceExhaustedError("full")},
                                 event::PrefillFailed{leg, absl::InternalError("broken")},
                                 event::PrefillFailed{leg, absl::InvalidArgumentError("bad")}});
  }
  return events;
}

// What later behaviour depends on. (Leg numbers only need to be new; avoided nodes are the
// brain's.)
std::string Digest(const RequestState& state, int waits, bool lost) {
  return absl::StrCat(static_cast<int>(state.phase()), " ", state.has_seat(), state.has_pin(), " ",
                      state.generated().size(), " ",
                      state.generated().empty() ? -1 : state.generated().back(), " ",
                      state.failures(), " ", state.refusals(), " ", waits, lost);
}

bool IsLoss(const Event& event) {
  return std::holds_alternative<event::DecodeLost>(event) ||
         std::holds_alternative<event::PrefillLost>(event);
}

bool GoesWrong(const Event& event) {
  return IsLoss(event) || std::holds_alternative<event::DecodeFailed>(event) ||
         std::holds_alternative<event::PrefillFailed>(event);
}

struct Reached {
  RequestState state;
  World world;
  int waits = 0;
  bool lost = false;  // what went wrong last was a loss
};

TEST(RequestStateSpace, EveryEventInEveryReachableState) {
  const RequestLimits limits = {.max_attempts = 3, .max_refusals = 2, .max_waits = 1};
  Reached start{RequestState({kEnd}, 3, limits), World()};
  for (const Action& action : start.state.Start()) start.world.Perform(action);
  std::set<std::string> seen = {Digest(start.state, 0, false)};
  std::deque<Reached> open = {start};
  std::map<Phase, int> phases;
  int steps = 0;
  while (!open.empty() && !::testing::Test::HasFailure()) {
    const Reached from = std::move(open.front());
    open.pop_front();
    ++phases[from.state.phase()];
    for (const Event& event : EventsFor(from.world)) {
      // The brain answers only when asked.
      const bool answer = std::holds_alternative<event::Chosen>(event) ||
                          std::holds_alternative<event::NotChosen>(event);
      if (answer && from.state.phase() != Phase::kChoosing) continue;
      Reached to = from;
      to.world.Before(event);
      if (GoesWrong(event)) to.lost = IsLoss(event);
      for (const Action& action : to.state.Handle(event)) {
        to.world.Perform(action);
        const auto* choose = std::get_if<action::Choose>(&action);
        if (choose != nullptr && choose->after > absl::ZeroDuration()) ++to.waits;
      }
      to.world.CheckAgainst(to.state);
      ASSERT_FALSE(::testing::Test::HasFailure())
          << "event " << event.index() << " in " << Digest(from.state, from.waits, from.lost);
      ++steps;
      if (seen.insert(Digest(to.state, to.waits, to.lost)).second) open.push_back(std::move(to));
    }
  }
  EXPECT_EQ(phases.size(), 6u) << "some phase was never reached";
  EXPECT_GT(seen.size(), 100u);
  RecordProperty("states", static_cast<int>(seen.size()));
  RecordProperty("steps", steps);
}

}  // namespace
}  // namespace tarn::router

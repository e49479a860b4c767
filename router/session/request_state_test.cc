#include "router/session/request_state.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

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

TEST_F(RequestStateTest, LeavingIsNoFailure) {
  state_ = RequestState({kEnd}, 100, {.max_attempts = 1});
  Prefill();
  Do(event::HandedOver{seat_});
  for (int i = 0; i < 5; ++i) {
    Do(event::Tokens{seat_, {Token(1)}});
    ASSERT_NE(Find<action::Choose>(Do(event::DecodeFailed{seat_, absl::UnavailableError("off")})),
              nullptr);
    seat_ = Find<action::Admit>(Do(event::Chosen{kP0, kD1}))->leg;
    pin_ = Find<action::StartPrefill>(Do(event::Admitted{seat_}))->leg;
    Do(event::PrefillDone{pin_, Token(1)});
  }
  EXPECT_EQ(state_.failures(), 0);
  EXPECT_EQ(state_.moves(), 5);
  EXPECT_EQ(state_.generated().size(), 11u);
}

TEST_F(RequestStateTest, MovesAreBounded) {
  state_ = RequestState({kEnd}, 4, {.max_moves = 1});
  Admit();
  ASSERT_NE(Find<action::Choose>(Do(event::PrefillFailed{pin_, absl::UnavailableError("off")})),
            nullptr);
  pin_ = Find<action::StartPrefill>(Do(event::Chosen{kP1, std::nullopt}))->leg;
  const auto actions = Do(event::PrefillFailed{pin_, absl::UnavailableError("off")});
  EXPECT_TRUE(absl::IsUnavailable(Find<action::Fail>(actions)->status));
}

TEST_F(RequestStateTest, WhoHasLostItsPlaceWaitsForRoom) {
  state_ = RequestState({kEnd}, 4, {.max_refusals = 1, .max_waits = 2, .wait = absl::Seconds(1)});
  Prefill();
  Do(event::DecodeLost{seat_});
  // Neither node's nor the brain's "full" is the end, and whoever was full is asked again.
  seat_ = Find<action::Admit>(Do(event::Chosen{kP0, kD1}))->leg;
  auto actions = Do(event::DecodeFailed{seat_, absl::ResourceExhaustedError("full")});
  EXPECT_EQ(Find<action::Choose>(actions)->after, absl::Seconds(1));
  EXPECT_THAT(state_.avoid_decode(), ElementsAre());
  actions = Do(event::NotChosen{absl::ResourceExhaustedError("full")});
  EXPECT_EQ(Find<action::Choose>(actions)->after, absl::Seconds(1));
  actions = Do(event::NotChosen{absl::ResourceExhaustedError("full")});
  EXPECT_TRUE(absl::IsResourceExhausted(Find<action::Fail>(actions)->status));
}

}  // namespace
}  // namespace tarn::router

// A model check of RequestState: breadth-first over all states that it can reach, with every event
// in each of them, also those that a correct node would not send and those of legs long gone.
//
// What is checked after each event stands in World; that the checks can fail is shown by machines
// that are broken on purpose. Token values are abstracted to "ends the answer" and "does not".

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <functional>
#include <iostream>
#include <map>
#include <set>
#include <string>

#include "absl/strings/str_cat.h"
#include "router/session/request_state.h"

namespace tarn::router {
namespace {

constexpr TokenId kEnd = 0;
constexpr Leg kNeverGiven = 250;
const NodeId kP("p"), kD("d");

engine::SampledToken Token(TokenId id) { return {.token = id}; }

// What the nodes and the client know, from events and actions alone.
class World {
 public:
  explicit World(int max_new_tokens) : max_new_tokens_(max_new_tokens) {}

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
    Must(!over_, "an action after the end");
    std::visit([this](const auto& a) { Do(a); }, action);
  }

  void CheckAgainst(const RequestState& state, const RequestLimits& limits) {
    Must(seats_.size() == (state.has_seat() ? 1u : 0u), "a seat that nobody knows of");
    Must(pins_.size() == (state.has_pin() ? 1u : 0u), "a pin that nobody knows of");
    Must(emitted_ == static_cast<int>(state.generated().size()), "tokens kept from the client");
    Must(state.remaining_tokens() >= 0, "more tokens than asked for");
    // Router ids have room for so many: see Cluster's constructor.
    Must(static_cast<int>(last_leg_) <= 2 * (1 + limits.max_attempts + limits.max_moves) +
                                            limits.max_refusals + limits.max_waits,
         "too many legs");
    if (state.phase() == Phase::kEnded) {
      Must(seats_.empty() && pins_.empty(), "something is held after the end");
      Must(over_ || cancelled_, "an end that the client does not hear of");
      return;
    }
    Must(!over_, "the client was told of an end that is none");
    // Somebody owes the request an answer: nothing waits for ever.
    Must(choosing_ == (state.phase() == Phase::kChoosing), "nobody was asked, or asked twice");
    if (state.phase() == Phase::kPrefilling) Must(pins_.size() == 1, "waits for no prefill node");
    if (state.phase() != Phase::kChoosing) Must(seats_.size() == 1, "waits for no decode node");
  }

  Leg seat() const { return seats_.empty() ? 0 : *seats_.begin(); }
  Leg pin() const { return pins_.empty() ? 0 : *pins_.begin(); }
  Leg old_seat() const { return old_seat_; }
  Leg old_pin() const { return old_pin_; }
  // The first thing that was wrong; empty: nothing.
  const std::string& violation() const { return violation_; }
  void Must(bool holds, const std::string& what) {
    if (!holds && violation_.empty()) violation_ = what;
  }

 private:
  void Open(std::set<Leg>& holds, Leg& old, Leg leg) {
    Must(holds.empty(), "two holds of a kind at a time");
    Must(leg > last_leg_, "a leg used twice");
    if (!holds.empty()) old = *holds.begin();
    last_leg_ = leg;
    holds.insert(leg);
  }
  void Close(std::set<Leg>& holds, Leg& old, Leg leg, const char* what) {
    Must(holds.erase(leg) == 1, absl::StrCat(what, " given back that is not held"));
    old = leg;
  }
  void ToNode() { Must(!told_client_, "a command to a node after the client was told"); }

  void Do(const action::Choose& a) {
    Must(!choosing_, "asks while an answer is on its way");
    Must(a.wants_decode == seats_.empty(), "asks for the wrong nodes");
    choosing_ = true;
  }
  void Do(const action::Admit& a) {
    ToNode();
    Open(seats_, old_seat_, a.leg);
    started_ = false;
  }
  void Do(const action::StartPrefill& a) {
    ToNode();
    Must(seats_.size() == 1, "a prefill without a seat");
    Open(pins_, old_pin_, a.leg);
  }
  void Do(const action::RelayBlocks& a) { Must(seats_.contains(a.leg), "blocks for no seat"); }
  void Do(const action::StartDecode& a) {
    ToNode();
    Must(seats_.contains(a.leg), "starts without a seat");
    Must(!std::exchange(started_, true), "starts twice");
  }
  void Do(const action::CancelDecode& a) {
    ToNode();
    Close(seats_, old_seat_, a.leg, "a seat");
  }
  void Do(const action::ReleasePrefill& a) {
    ToNode();
    Close(pins_, old_pin_, a.leg, "a pin");
  }
  void Do(const action::EmitTokens& a) {
    told_client_ = true;
    emitted_ += static_cast<int>(a.tokens.size());
    Must(!answer_over_, "tokens after the answer's end");
    for (const auto& token : a.tokens) answer_over_ |= token.token == kEnd;
  }
  void Do(const action::Finish& a) {
    Must(a.reason == FinishReason::kStop ? answer_over_ : emitted_ == max_new_tokens_,
         "an answer that is not whole");
    over_ = true;
  }
  void Do(const action::Fail&) { over_ = true; }

  int max_new_tokens_;
  std::set<Leg> seats_, pins_;
  Leg old_seat_ = 0, old_pin_ = 0, last_leg_ = 0;
  int emitted_ = 0;
  bool choosing_ = false, started_ = false, told_client_ = false, answer_over_ = false;
  bool over_ = false, cancelled_ = false;
  std::string violation_;
};

std::vector<Event> DecodeEvents(Leg leg) {
  return {event::Admitted{leg},
          event::HandedOver{leg},
          event::Tokens{leg, {}},
          event::Tokens{leg, {Token(1)}},
          event::Tokens{leg, {Token(1), Token(kEnd)}},
          event::Tokens{leg, {Token(1), Token(1), Token(1), Token(1), Token(1)}},
          event::DecodeLost{leg},
          event::DecodeFinished{leg, FinishReason::kStop},
          event::DecodeFinished{leg, FinishReason::kLength},
          event::DecodeFinished{leg, std::nullopt},
          event::DecodeFailed{leg, absl::ResourceExhaustedError("full"), absl::Seconds(1)},
          event::DecodeFailed{leg, absl::UnavailableError("leaving")},
          event::DecodeFailed{leg, absl::InternalError("broken")},
          event::DecodeFailed{leg, absl::InvalidArgumentError("bad")}};
}

std::vector<Event> PrefillEvents(Leg leg) {
  return {event::BlocksReady{leg},
          event::PrefillDone{leg, Token(1)},
          event::PrefillDone{leg, Token(kEnd)},
          event::PrefillLost{leg},
          event::PrefillFailed{leg, absl::ResourceExhaustedError("full"), absl::Seconds(1)},
          event::PrefillFailed{leg, absl::UnavailableError("leaving")},
          event::PrefillFailed{leg, absl::InternalError("broken")},
          event::PrefillFailed{leg, absl::InvalidArgumentError("bad")}};
}

std::vector<Event> Answers() {
  return {event::Chosen{kP, kD}, event::Chosen{kP, std::nullopt},
          event::NotChosen{absl::UnavailableError("none")},
          event::NotChosen{absl::ResourceExhaustedError("full"), absl::Seconds(1)},
          event::NotChosen{absl::InvalidArgumentError("too long")}};
}

void Append(std::vector<Event>& to, const std::vector<Event>& more) {
  to.insert(to.end(), more.begin(), more.end());
}

// What a node, the brain or the client may say now, however foolish.
std::vector<Event> LiveEvents(const RequestState& state, const World& world) {
  std::vector<Event> events = {event::Cancel{}, event::Deadline{}};
  if (state.phase() == Phase::kChoosing) Append(events, Answers());
  if (world.seat() != 0) Append(events, DecodeEvents(world.seat()));
  if (world.pin() != 0) Append(events, PrefillEvents(world.pin()));
  return events;
}

// What comes too late, or with a number of the other kind: nothing may come of it.
std::vector<Event> StaleEvents(const RequestState& state, const World& world) {
  std::vector<Event> events;
  for (const Leg leg : {Leg{0}, world.old_seat(), world.old_pin(), world.pin(), kNeverGiven}) {
    Append(events, DecodeEvents(leg));
  }
  for (const Leg leg : {Leg{0}, world.old_pin(), world.old_seat(), world.seat(), kNeverGiven}) {
    Append(events, PrefillEvents(leg));
  }
  if (state.phase() != Phase::kChoosing) Append(events, Answers());
  return events;
}

// What later behaviour depends on: neither leg numbers, which only need to be new, nor the nodes to
// avoid, which are the brain's.
std::string Digest(const RequestState& state) {
  const bool ends = !state.generated().empty() && state.generated().back() == kEnd;
  return absl::StrCat(static_cast<int>(state.phase()), " ", state.has_seat(), state.has_pin(),
                      state.displaced(), ends, " ", state.generated().size(), " ", state.failures(),
                      " ", state.refusals(), " ", state.moves(), " ", state.waits());
}

struct Options {
  int max_new_tokens = 3;
  RequestLimits limits = {.max_attempts = 3, .max_refusals = 2, .max_moves = 2, .max_waits = 2};
  // Breaks the machine: changes what it does. Empty: leaves it whole.
  std::function<void(std::vector<Action>&)> fault;
  // What reaches the machine as if its leg were the present one.
  bool lets_stale_legs_through = false;
};

class Explorer {
 public:
  explicit Explorer(Options options) : options_(std::move(options)) {}

  // Stops at the first violation.
  void Run() {
    Reached start{RequestState({kEnd}, options_.max_new_tokens, options_.limits),
                  World(options_.max_new_tokens)};
    for (const Action& action : start.state.Start()) start.world.Perform(action);
    Visit(std::move(start));
    while (!open_.empty() && violation_.empty()) {
      const Reached from = std::move(open_.front());
      open_.pop_front();
      ++phases_[from.state.phase()];
      for (const Event& event : LiveEvents(from.state, from.world)) Try(from, event);
      for (const Event& event : StaleEvents(from.state, from.world)) TryStale(from, event);
    }
  }

  // The most events that can change something before the end comes; -1: there is no such number.
  int LongestLife() {
    std::map<int, int> longest;
    std::set<int> under_way;
    return LongestFrom(0, longest, under_way);
  }

  const std::string& violation() const { return violation_; }
  size_t states() const { return ids_.size(); }
  size_t steps() const { return steps_; }
  const std::map<Phase, int>& phases() const { return phases_; }

 private:
  struct Reached {
    RequestState state;
    World world;
  };

  int Visit(Reached reached) {
    const auto [it, fresh] = ids_.emplace(Digest(reached.state), static_cast<int>(ids_.size()));
    if (fresh) {
      next_.emplace_back();
      open_.push_back(std::move(reached));
    }
    return it->second;
  }

  void Try(const Reached& from, const Event& event) {
    if (!violation_.empty()) return;
    const std::string before = Digest(from.state);
    Reached to = from;
    to.world.Before(event);
    std::vector<Action> actions = to.state.Handle(event);
    if (options_.fault) options_.fault(actions);
    for (const Action& action : actions) to.world.Perform(action);
    to.world.CheckAgainst(to.state, options_.limits);
    const bool ends = std::holds_alternative<event::Cancel>(event) ||
                      std::holds_alternative<event::Deadline>(event);
    to.world.Must(!ends || to.state.phase() == Phase::kEnded, "goes on after its end");
    to.world.Must(Digest(from.state) == before, "a copy is no copy");
    Note(to.world, from.state, event);
    const int id = ids_.at(before);
    const int next = Visit(std::move(to));
    if (next != id) next_[id].insert(next);
  }

  void TryStale(const Reached& from, const Event& event) {
    if (!violation_.empty()) return;
    Reached to = from;
    Event heard = event;
    if (options_.lets_stale_legs_through && from.world.seat() != 0) {
      if (auto* tokens = std::get_if<event::Tokens>(&heard)) tokens->leg = from.world.seat();
    }
    to.world.Must(to.state.Handle(heard).empty(), "answers what is stale");
    to.world.Must(Digest(to.state) == Digest(from.state), "is changed by what is stale");
    Note(to.world, from.state, event);
  }

  void Note(const World& world, const RequestState& state, const Event& event) {
    ++steps_;
    if (world.violation().empty()) return;
    violation_ = absl::StrCat(world.violation(), ": event ", event.index(), " while ",
                              Name(state.phase()), ", state ", Digest(state));
  }

  int LongestFrom(int id, std::map<int, int>& longest, std::set<int>& under_way) {
    if (const auto it = longest.find(id); it != longest.end()) return it->second;
    if (!under_way.insert(id).second) return -1;
    int best = 0;
    for (const int next : next_[id]) {
      const int rest = LongestFrom(next, longest, under_way);
      if (rest < 0) return -1;
      best = std::max(best, rest + 1);
    }
    under_way.erase(id);
    return longest[id] = best;
  }

  const Options options_;
  std::map<std::string, int> ids_;
  std::vector<std::set<int>> next_;  // without those that change nothing
  std::deque<Reached> open_;
  std::map<Phase, int> phases_;
  size_t steps_ = 0;
  std::string violation_;
};

TEST(RequestModel, EveryEventInEveryReachableState) {
  for (const int max_new_tokens : {1, 2, 3}) {
    Explorer explorer({.max_new_tokens = max_new_tokens});
    explorer.Run();
    EXPECT_EQ(explorer.violation(), "");
    EXPECT_EQ(explorer.phases().size(), max_new_tokens == 1 ? 4u : 6u) << "phases not reached";
    const int longest = explorer.LongestLife();
    EXPECT_GT(longest, 10);
    std::cout << "answers of " << max_new_tokens << " tokens: " << explorer.states() << " states, "
              << explorer.steps() << " steps, the longest life takes " << longest << " events\n";
    RecordProperty(absl::StrCat("states", max_new_tokens), static_cast<int>(explorer.states()));
    EXPECT_GT(explorer.states(), 500u);
  }
}

// What Explorer says of a broken machine.
std::string Found(Options options) {
  Explorer explorer(std::move(options));
  explorer.Run();
  return explorer.violation();
}

template <typename T>
void Drop(std::vector<Action>& actions) {
  std::erase_if(actions, [](const Action& action) { return std::holds_alternative<T>(action); });
}

template <typename T>
void Repeat(std::vector<Action>& actions) {
  for (size_t i = actions.size(); i-- > 0;) {
    if (!std::holds_alternative<T>(actions[i])) continue;
    const Action again = actions[i];
    actions.insert(actions.begin() + static_cast<std::ptrdiff_t>(i), again);
  }
}

TEST(RequestModel, BrokenMachinesAreFound) {
  EXPECT_NE(Found({.fault = Drop<action::ReleasePrefill>}), "");
  EXPECT_NE(Found({.fault = Drop<action::CancelDecode>}), "");
  EXPECT_NE(Found({.fault = Drop<action::Choose>}), "");
  EXPECT_NE(Found({.fault = Drop<action::Fail>}), "");
  EXPECT_NE(Found({.fault = Drop<action::EmitTokens>}), "");
  EXPECT_NE(Found({.fault = Repeat<action::ReleasePrefill>}), "");
  EXPECT_NE(Found({.fault = Repeat<action::CancelDecode>}), "");
  EXPECT_NE(Found({.fault = Repeat<action::StartDecode>}), "");
  EXPECT_NE(Found({.fault = Repeat<action::Finish>}), "");
  EXPECT_NE(Found({.lets_stale_legs_through = true}), "");
  EXPECT_NE(Found({.fault = [](auto& actions) { std::reverse(actions.begin(), actions.end()); }}),
            "");
}

}  // namespace
}  // namespace tarn::router

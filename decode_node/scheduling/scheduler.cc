#include "decode_node/scheduling/scheduler.h"

#include <glog/logging.h>

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace tarn::decode {
namespace {

// Weight of the newest step in the smoothed time: about the last ten count.
constexpr double kSmoothing = 0.2;
constexpr absl::Duration kUnknownRetry = absl::Seconds(1);
constexpr absl::Duration kMinRetry = absl::Milliseconds(10);
constexpr absl::Duration kMaxRetry = absl::Minutes(1);

}  // namespace

Scheduler::Scheduler(SchedulerOptions options) : options_(options) {
  CHECK_GT(options_.max_batch, 0);
  CHECK_GT(options_.catch_up_tokens, 0);
}

Scheduler::Sequence& Scheduler::Get(SequenceId sequence) {
  const auto it = sequences_.find(sequence);
  CHECK(it != sequences_.end()) << "sequence " << sequence << " is not here";
  return it->second;
}

absl::StatusOr<SequenceId> Scheduler::Add(SequenceLimits limits) {
  CHECK(limits.tokens > 0 && limits.max_new_tokens > 0);
  if (static_cast<int>(sequences_.size()) >= options_.max_batch) {
    return absl::ResourceExhaustedError(
        absl::StrCat("all ", options_.max_batch, " seats of the decode batch are taken"));
  }
  const SequenceId id(++last_id_);
  deadlines_.insert({limits.deadline, id});
  sequences_[id].limits = std::move(limits);
  return id;
}

absl::Duration Scheduler::RetryHint() const {
  if (pace_.step_us == 0 || sequences_.empty()) return kUnknownRetry;
  int soonest = INT32_MAX;
  for (const auto& [id, sequence] : sequences_) {
    soonest = std::min(soonest, sequence.limits.max_new_tokens - sequence.generated);
  }
  return std::clamp(absl::Microseconds(soonest * pace_.step_us), kMinRetry, kMaxRetry);
}

std::optional<FinishReason> Scheduler::Count(SequenceId id, Sequence& sequence, TokenId token) {
  ++sequence.generated;
  const auto& ends = sequence.limits.end_tokens;
  std::optional<FinishReason> reason;
  if (sequence.generated >= sequence.limits.max_new_tokens) reason = FinishReason::kLength;
  if (std::binary_search(ends.begin(), ends.end(), token)) reason = FinishReason::kStop;
  if (reason) Remove(id);
  return reason;
}

std::optional<FinishReason> Scheduler::Start(SequenceId id, TokenId first_token) {
  Sequence& sequence = Get(id);
  CHECK_EQ(sequence.generated, 0) << "sequence " << id << " has started";
  return Count(id, sequence, first_token);
}

void Scheduler::Join(SequenceId id, std::vector<TokenRange> missing) {
  Sequence& sequence = Get(id);
  CHECK(!sequence.running && sequence.generated == 1);
  CHECK(!missing.empty() && missing.back().end == sequence.limits.tokens + 1);
  sequence.running = true;
  ++running_;
  for (const TokenRange& range : missing) sequence.missing_tokens += range.size();
  sequence.missing = std::move(missing);
}

StepItem Scheduler::NextItem(SequenceId id, const Sequence& sequence, int budget) const {
  const TokenRange next = sequence.missing.front();
  const int count = std::min(next.size(), budget);
  return {id, {next.begin, next.begin + count}, count == sequence.missing_tokens};
}

std::vector<StepItem> Scheduler::PlanStep() {
  CHECK(step_.empty()) << "a step is under way";
  int catch_up = options_.catch_up_tokens;
  for (const auto& [id, sequence] : sequences_) {
    if (!sequence.running) continue;
    if (sequence.missing_tokens == 1) {
      step_.push_back(NextItem(id, sequence, 1));
    } else if (catch_up > 0) {
      step_.push_back(NextItem(id, sequence, catch_up));
      catch_up -= step_.back().tokens.size();
    }
  }
  return step_;
}

void Scheduler::Advance(Sequence& sequence, TokenRange done) {
  TokenRange& next = sequence.missing.front();
  CHECK_EQ(next.begin, done.begin);
  next.begin = done.end;
  if (next.empty()) sequence.missing.erase(sequence.missing.begin());
  sequence.missing_tokens -= done.size();
}

void Scheduler::OnStepDone(absl::Duration elapsed) {
  double tokens = 0, attended = 0;
  for (const StepItem& item : step_) {
    tokens += item.tokens.size();
    attended += AttendedBy(item.tokens.begin, item.tokens.end);
    const auto it = sequences_.find(item.sequence);
    if (it != sequences_.end()) Advance(it->second, item.tokens);
  }
  step_.clear();
  if (tokens > 0) pace_.Add(tokens, attended, elapsed);
}

void Scheduler::Pace::Add(double tokens, double attended, absl::Duration elapsed) {
  step_time.Add(tokens, attended, elapsed);
  const double us = absl::ToDoubleMicroseconds(elapsed);
  step_us = step_us == 0 ? us : step_us + kSmoothing * (us - step_us);
}

int Scheduler::AlikeSteps() const {
  if (running_ == 0) return 0;
  int steps = INT32_MAX;
  for (const auto& [id, sequence] : sequences_) {
    if (!sequence.running) continue;
    if (sequence.missing_tokens != 1) return 0;
    steps = std::min(steps, sequence.limits.max_new_tokens - sequence.generated - 1);
  }
  return steps;
}

void Scheduler::SkipSteps(std::span<const absl::Duration> elapsed) {
  CHECK(step_.empty()) << "a step is under way";
  AddAlike(elapsed, pace_);
  const int steps = static_cast<int>(elapsed.size());
  for (auto& [id, sequence] : sequences_) {
    if (!sequence.running) continue;
    CHECK_EQ(sequence.missing_tokens, 1);
    sequence.generated += steps;
    CHECK_LT(sequence.generated, sequence.limits.max_new_tokens);
    TokenRange& next = sequence.missing.front();
    next = {next.begin + steps, next.end + steps};
  }
}

void Scheduler::AddAlike(std::span<const absl::Duration> elapsed, Pace& pace) const {
  double attended = 0;
  for (const auto& [id, sequence] : sequences_) {
    if (sequence.running) attended += sequence.missing.front().begin;
  }
  for (const absl::Duration step : elapsed) {
    pace.Add(running_, attended, step);
    attended += running_;
  }
}

void Scheduler::OnStepFailed() { step_.clear(); }

std::optional<FinishReason> Scheduler::OnSampled(SequenceId id, TokenId token) {
  Sequence& sequence = Get(id);
  CHECK(sequence.running && sequence.missing_tokens == 0);
  const int length = ContextOf(sequence);
  sequence.missing = {{length, length + 1}};
  sequence.missing_tokens = 1;
  return Count(id, sequence, token);
}

void Scheduler::Remove(SequenceId id) {
  const Sequence& sequence = Get(id);
  deadlines_.erase({sequence.limits.deadline, id});
  if (sequence.running) --running_;
  sequences_.erase(id);
}

std::vector<SequenceId> Scheduler::TakeExpired(absl::Time now) {
  std::vector<SequenceId> expired;
  while (!deadlines_.empty() && deadlines_.begin()->first <= now) {
    expired.push_back(deadlines_.begin()->second);
    Remove(expired.back());
  }
  return expired;
}

absl::Time Scheduler::NextDeadline() const {
  return deadlines_.empty() ? absl::InfiniteFuture() : deadlines_.begin()->first;
}

SchedulerLoad Scheduler::load() const {
  return {
      .seated = static_cast<int>(sequences_.size()), .running = running_, .step_us = pace_.step_us};
}

SchedulerReport Scheduler::ReportAfter(std::span<const absl::Duration> elapsed) const {
  Pace pace = pace_;
  if (!elapsed.empty()) AddAlike(elapsed, pace);
  SchedulerReport report{load()};
  report.step_us = pace.step_us;
  report.step_time = pace.step_time.Fit();
  for (const auto& [id, sequence] : sequences_) {
    if (sequence.running) report.kv_tokens += ContextOf(sequence);
  }
  report.kv_tokens += static_cast<int64_t>(elapsed.size()) * running_;
  return report;
}

}  // namespace tarn::decode

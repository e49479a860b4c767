#include "prefill_node/batching/batcher.h"

#include <glog/logging.h>

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace tarn::prefill {
namespace {

// Weight of the newest step in the smoothed rate: about the last ten count.
constexpr double kSmoothing = 0.2;
constexpr absl::Duration kUnknownRetry = absl::Seconds(1);
constexpr absl::Duration kMinRetry = absl::Milliseconds(10);
constexpr absl::Duration kMaxRetry = absl::Minutes(1);

}  // namespace

Batcher::Batcher(BatcherOptions options) : options_(options) {
  CHECK_GT(options_.chunk_tokens, 0);
  CHECK_GT(options_.max_running, 0);
  CHECK_GE(options_.max_waiting, 1);
}

Batcher::Job& Batcher::Get(JobId job) {
  const auto it = jobs_.find(job);
  CHECK(it != jobs_.end()) << "job " << job << " is not here";
  return it->second;
}

absl::StatusOr<JobId> Batcher::Add(const JobSpec& spec) {
  CHECK_GT(spec.tokens, 0);
  if (static_cast<int>(waiting_.size()) >= options_.max_waiting) {
    return absl::ResourceExhaustedError(absl::StrCat("the prefill queue is full: ", waiting_.size(),
                                                     " of ", options_.max_waiting,
                                                     " requests wait"));
  }
  const JobId id(++last_id_);
  Job& job = jobs_[id];
  job.spec = spec;
  CountMissing(job, {std::clamp(spec.expected_cached, 0, spec.tokens - 1), spec.tokens}, 1);
  waiting_.insert({spec.priority, id});
  SetDeadline(id, job, spec.deadline);
  return id;
}

absl::Duration Batcher::RetryHint() const {
  if (us_per_token_ == 0) return kUnknownRetry;
  // A place is free when the queue's share of one request is computed.
  const double tokens = static_cast<double>(missing_tokens_) / std::max<size_t>(jobs_.size(), 1);
  return std::clamp(absl::Microseconds(tokens * us_per_token_), kMinRetry, kMaxRetry);
}

std::optional<JobId> Batcher::NextToReserve() const {
  if (waiting_.empty() || running() >= options_.max_running) return std::nullopt;
  return waiting_.begin()->second;
}

void Batcher::OnReserved(JobId id) {
  Job& job = Get(id);
  CHECK(job.state == JobState::kWaiting);
  waiting_.erase({job.spec.priority, id});
  job.state = JobState::kFetching;
  ++fetching_;
}

void Batcher::OnFetched(JobId id, std::vector<TokenRange> missing) {
  Job& job = Get(id);
  CHECK(job.state == JobState::kFetching);
  CHECK(!missing.empty() && missing.back().end == job.spec.tokens);
  --fetching_;
  job.state = JobState::kComputing;
  computing_.insert({job.spec.priority, id});
  ForgetMissing(job);
  for (const TokenRange& range : missing) CountMissing(job, range, 1);
  job.missing = std::move(missing);
}

void Batcher::CountMissing(Job& job, TokenRange range, int sign) {
  const double attended = sign * AttendedBy(range.begin, range.end);
  job.missing_tokens += sign * range.size();
  job.missing_attended += attended;
  missing_tokens_ += sign * range.size();
  missing_attended_ += attended;
}

void Batcher::ForgetMissing(Job& job) {
  missing_tokens_ -= job.missing_tokens;
  missing_attended_ -= job.missing_attended;
  job.missing_tokens = 0;
  job.missing_attended = 0;
}

std::vector<Chunk> Batcher::PlanStep() {
  CHECK(step_.empty()) << "a step is under way";
  int budget = options_.chunk_tokens;
  for (const auto& [priority, id] : computing_) {
    if (budget == 0) break;
    const Job& job = Get(id);
    const TokenRange next = job.missing.front();
    const int count = std::min(next.size(), budget);
    budget -= count;
    step_.push_back({id, {next.begin, next.begin + count}, count == job.missing_tokens});
  }
  return step_;
}

void Batcher::OnStepDone(absl::Duration elapsed, absl::Time now) {
  int tokens = 0;
  double attended = 0;
  for (const Chunk& chunk : step_) {
    tokens += chunk.tokens.size();
    attended += AttendedBy(chunk.tokens.begin, chunk.tokens.end);
    const auto it = jobs_.find(chunk.job);
    if (it != jobs_.end()) Advance(chunk.job, it->second, chunk.tokens, now);
  }
  step_.clear();
  if (tokens == 0) return;
  step_time_.Add(tokens, attended, elapsed);
  const double rate = absl::ToDoubleMicroseconds(elapsed) / tokens;
  us_per_token_ = us_per_token_ == 0 ? rate : us_per_token_ + kSmoothing * (rate - us_per_token_);
}

void Batcher::OnStepFailed() { step_.clear(); }

void Batcher::Advance(JobId id, Job& job, TokenRange done, absl::Time now) {
  TokenRange& next = job.missing.front();
  CHECK_EQ(next.begin, done.begin);
  next.begin = done.end;
  if (next.empty()) job.missing.erase(job.missing.begin());
  CountMissing(job, done, -1);
  if (job.missing_tokens > 0) return;
  computing_.erase({job.spec.priority, id});
  job.state = JobState::kHandingOver;
  SetDeadline(id, job, now + job.spec.handover_timeout);
}

void Batcher::SetDeadline(JobId id, Job& job, absl::Time deadline) {
  deadlines_.erase({job.deadline, id});
  job.deadline = deadline;
  deadlines_.insert({deadline, id});
}

void Batcher::Leave(JobId id, Job& job) {
  deadlines_.erase({job.deadline, id});
  waiting_.erase({job.spec.priority, id});
  computing_.erase({job.spec.priority, id});
  if (job.state == JobState::kFetching) --fetching_;
  ForgetMissing(job);
}

void Batcher::Remove(JobId id) {
  Leave(id, Get(id));
  jobs_.erase(id);
}

std::vector<ExpiredJob> Batcher::TakeExpired(absl::Time now) {
  std::vector<ExpiredJob> expired;
  while (!deadlines_.empty() && deadlines_.begin()->first <= now) {
    const JobId id = deadlines_.begin()->second;
    expired.push_back({id, Get(id).state});
    Remove(id);
  }
  return expired;
}

absl::Time Batcher::NextDeadline() const {
  return deadlines_.empty() ? absl::InfiniteFuture() : deadlines_.begin()->first;
}

BatcherLoad Batcher::load() const {
  BatcherLoad load;
  load.waiting = static_cast<int>(waiting_.size());
  load.running = running();
  load.handing_over = static_cast<int>(jobs_.size()) - load.waiting - load.running;
  load.waiting_tokens = missing_tokens_;
  load.us_per_token = us_per_token_;
  return load;
}

BatcherReport Batcher::Report() const {
  BatcherReport report{load()};
  report.waiting_attended = std::max(0.0, missing_attended_);
  report.step_time = step_time_.Fit();
  return report;
}

}  // namespace tarn::prefill

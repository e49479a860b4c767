// Steps, and answers. Prompts are in node_prefill.cc.

#include "sim/cluster/node.h"

#include <glog/logging.h>

#include <algorithm>
#include <utility>

namespace tarn::sim {

// Of steps worked out ahead: what a change of the batch throws away.
constexpr int kMaxRun = 128;

Node::Node(NodeOptions options, const StepCost* cost, kvstore::BlockIndex* index, World* world)
    : options_(std::move(options)),
      cost_(cost),
      world_(world),
      cache_(options_.id, options_.cache, options_.eviction, index),
      batcher_(options_.batching),
      scheduler_(options_.scheduling),
      jobs_(1),
      sequences_(1) {}

bool Node::idle() const {
  const prefill::BatcherLoad load = batcher_.load();
  return !stepping_ && cache_.idle() && load.waiting + load.running + load.handing_over == 0 &&
         scheduler_.load().seated == 0;
}

router::NodeLoad Node::Load() const {
  const prefill::BatcherReport prompts = batcher_.Report();
  router::NodeLoad load;
  load.hbm_pages = cache_.hbm_pages();
  load.hbm_pages_reserved = cache_.hbm_pages_taken();
  load.waiting_tokens = prompts.waiting_tokens;
  load.waiting_attended = prompts.waiting_attended;
  load.step_tokens = options_.batching.chunk_tokens;
  load.step_time = prompts.step_time;
  load.pull_bytes_per_us = pulls_.bytes_per_us();
  load.running = prompts.running;
  if (options_.kind == NodeKind::kDecode) {
    // As far as the steps of the run have ended by now.
    absl::Time end = step_start_;
    size_t done = 0;
    while (done < run_.size() && (end += run_[done]) <= world_->Now()) ++done;
    const decode::SchedulerReport answers = scheduler_.ReportAfter({run_.data(), done});
    load.running = answers.seated;
    load.max_running = options_.scheduling.max_batch;
    load.kv_tokens = answers.kv_tokens;
    load.step_time = answers.step_time;
  }
  return load;
}

// Answers.

bool Node::Admit(Request* request) {
  const int pages =
      (request->input() + request->output() + options_.block_tokens - 1) / options_.block_tokens;
  if (!cache_.Reserve(pages, &request->decode_pages)) return false;
  auto sequence = scheduler_.Add({.tokens = request->input(),
                                  .max_new_tokens = request->output(),
                                  .deadline = absl::InfiniteFuture()});
  changed_ = true;
  if (!sequence.ok()) {
    cache_.Release(world_->Now(), &request->decode_pages);
    return false;
  }
  request->sequence = *sequence;
  sequences_.push_back(request);
  CHECK_EQ(sequences_.size() - 1, sequence->value());
  request->decode_cached_blocks = cache_.Take(request->keys, world_->Now(), &request->decode_pages);
  return true;
}

void Node::Start(Request* request) {
  request->tokens_left = request->output() - 1;
  if (scheduler_.Start(request->sequence, 0).has_value()) Leave(request);
}

void Node::Join(Request* request) {
  const absl::Time now = world_->Now();
  if (options_.kind == NodeKind::kDecode) {
    for (size_t i = 0; i < request->keys.size(); ++i) {
      cache_.Publish(request->keys, static_cast<int>(i), request->new_blocks, now,
                     request->decode_pages);
    }
    cache_.Announce();
  }
  CutRun();
  scheduler_.Join(request->sequence, {{request->input(), request->input() + 1}});
  request->context = request->input();
  context_ += request->context;
  running_.push_back(request);
  MaybeStep();
}

void Node::Leave(Request* request) {
  request->end = Request::End::kDone;
  PageHold& pages =
      options_.kind == NodeKind::kCoupled ? request->prefill_pages : request->decode_pages;
  cache_.Release(world_->Now(), &pages);
  changed_ = true;
  world_->OnFinished(this, request);
}

// Coupled: the answer is computed in the pages of the prompt.
void Node::RunHere(Request* request) {
  auto sequence = scheduler_.Add({.tokens = request->input(),
                                  .max_new_tokens = request->output(),
                                  .deadline = absl::InfiniteFuture()});
  if (!sequence.ok()) {
    unseated_.push_back(request);
    return;
  }
  request->sequence = *sequence;
  sequences_.push_back(request);
  Start(request);
  if (request->end == Request::End::kNone) Join(request);
}

void Node::SeatWaiting() {
  while (!unseated_.empty() && scheduler_.load().seated < options_.scheduling.max_batch) {
    Request* const next = unseated_.front();
    unseated_.erase(unseated_.begin());
    RunHere(next);
  }
}

// Steps.

void Node::Wake(absl::Duration elapsed) {
  stepping_ = true;
  step_start_ = world_->Now();
  step_time_ = elapsed;
  world_->WakeAt(this, step_start_ + elapsed, ++turn_);
}

void Node::MaybeStep() {
  if (stepping_) return;
  std::vector<prefill::Chunk> chunks;
  if (computes_prompts()) chunks = batcher_.PlanStep();
  if (chunks.empty() && running_.empty()) return;
  if (!StartMixedStep(chunks)) StartAlikeSteps();
}

// A single step, if there are prompts in it or the batch changes at its end.
bool Node::StartMixedStep(const std::vector<prefill::Chunk>& chunks) {
  const bool stalled = !chunks.empty() && options_.coupled_step == CoupledStep::kPrefillFirst;
  const bool decode = !running_.empty() && !stalled;
  if (chunks.empty() && options_.skip_steps && scheduler_.AlikeSteps() > 1) return false;
  StepWork work;
  for (const prefill::Chunk& chunk : chunks) {
    work.AddChunk(chunk.tokens.begin, chunk.tokens.size(), chunk.last);
  }
  totals_.prefill_tokens += static_cast<double>(work.prefill_tokens);
  chunks_ = chunks;
  if (decode) {
    items_ = scheduler_.PlanStep();
    work.AddDecode(static_cast<int>(running_.size()),
                   context_ + static_cast<double>(running_.size()));
  }
  Wake(cost_->Of(work));
  return true;
}

void Node::StartAlikeSteps() {
  const int steps = std::min(scheduler_.AlikeSteps(), kMaxRun);
  const int batch = static_cast<int>(running_.size());
  absl::Duration total;
  double context = context_;
  for (int i = 0; i < steps; ++i) {
    StepWork work;
    context += batch;
    work.AddDecode(batch, context);
    run_.push_back(cost_->Of(work));
    total += run_.back();
  }
  Wake(total);
}

void Node::SkipRun(size_t steps) {
  if (steps == 0) return;
  const std::span<const absl::Duration> done(run_.data(), steps);
  scheduler_.SkipSteps(done);
  absl::Time first = step_start_ + done[0], last = step_start_;
  absl::Duration longest;
  for (size_t i = 0; i < steps; ++i) {
    last += done[i];
    if (i > 0) longest = std::max(longest, done[i]);
  }
  const int tokens = static_cast<int>(steps);
  for (Request* request : running_) {
    request->worst_gap = std::max({request->worst_gap, first - request->last_token, longest});
    request->last_token = last;
    request->tokens_left -= tokens;
    request->context += tokens;
  }
  context_ += static_cast<double>(tokens) * static_cast<double>(running_.size());
  totals_.decode_tokens += static_cast<double>(tokens) * static_cast<double>(running_.size());
  totals_.busy += last - step_start_;
  totals_.steps += tokens;
}

void Node::CutRun() {
  if (run_.empty()) return;
  const absl::Time now = world_->Now();
  absl::Time end = step_start_;
  size_t done = 0;
  while (done < run_.size() && end + run_[done] <= now) end += run_[done++];
  SkipRun(done);
  const std::vector<absl::Duration> run = std::exchange(run_, {});
  stepping_ = false;
  ++turn_;
  if (done == run.size()) return;
  // What is under way goes on as a step of its own.
  items_ = scheduler_.PlanStep();
  stepping_ = true;
  step_start_ = end;
  step_time_ = run[done];
  world_->WakeAt(this, end + step_time_, turn_);
}

void Node::EndRun() {
  SkipRun(run_.size());
  run_.clear();
  stepping_ = false;
}

void Node::AdvanceOne(const std::vector<decode::StepItem>& items) {
  const absl::Time now = world_->Now();
  for (const decode::StepItem& item : items) {
    Request* const request = sequences_[item.sequence.value()];
    request->worst_gap = std::max(request->worst_gap, now - request->last_token);
    request->last_token = now;
    --request->tokens_left;
    ++request->context;
    context_ += 1;
    totals_.decode_tokens += 1;
    if (!scheduler_.OnSampled(item.sequence, 0).has_value()) continue;
    running_.erase(std::find(running_.begin(), running_.end(), request));
    context_ -= request->context;
    Leave(request);
  }
}

void Node::OnStepEnd(uint64_t turn) {
  if (turn != turn_ || !stepping_) return;
  changed_ = true;
  if (!run_.empty()) {
    EndRun();
    return MaybeStep();
  }
  const absl::Time now = world_->Now();
  totals_.busy += step_time_;
  ++totals_.steps;
  const std::vector<prefill::Chunk> chunks = std::exchange(chunks_, {});
  const std::vector<decode::StepItem> items = std::exchange(items_, {});
  if (!chunks.empty()) batcher_.OnStepDone(step_time_, now);
  if (!items.empty()) scheduler_.OnStepDone(step_time_);
  // Until all is told, nothing may begin the next step.
  AdvanceOne(items);
  for (const prefill::Chunk& chunk : chunks) OnChunk(chunk);
  stepping_ = false;
  SeatWaiting();
  if (computes_prompts()) StartPrompts();
  MaybeStep();
}

}  // namespace tarn::sim

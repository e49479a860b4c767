#include "prefill_node/session/prefill_sessions.h"

#include <glog/logging.h>

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "engine/wire/convert.h"
#include "kvstore/sequence/sequence_kv.h"
#include "kvstore/wire/convert.h"

namespace tarn::prefill {

using kvstore::BlockOrigin;

// Beyond its deadlines a request may hold pages while a step or a transfer ends.
constexpr absl::Duration kLeakSlack = absl::Seconds(30);

struct PrefillSessions::Job {
  Job(kvstore::NodePool* pool, PrefillRequest request_in)
      : request(std::move(request_in)),
        kv(pool, request.sequence.root, std::move(request.sequence.tokens), 0) {
    kv.SetTraits({.tenant = TenantId(request.sequence.tenant)});
  }

  // The block of the last token is never fetched: its logits are needed.
  int fetchable_blocks() const { return (kv.length() - 1) / kv.block_tokens(); }

  RouterId router = 0;
  uint64_t request_id = 0;
  JobId id;
  PrefillRequest request;
  kvstore::SequenceKv kv;
  std::unique_ptr<kvstore::NodePool::Ticket> fetch;  // after kv: cancelled before pages go
  bool in_step = false;
  bool done = false;  // handing over

  std::vector<int> fetching;  // blocks
  int announced = 0;          // leading blocks
  v1::PromptTokens sources;
  int fetched_blocks = 0;  // from other nodes
  absl::Time received, reserved, fetched;
};

PrefillSessions::PrefillSessions(PrefillOptions options, EventLoop* loop, kvstore::NodePool* pool,
                                 engine::StepRunner* runner, engine::ModelInfo model,
                                 const v1::NodeInfo* self, PrefillMetrics* metrics)
    : options_(options),
      loop_(loop),
      pool_(pool),
      runner_(runner),
      model_(std::move(model)),
      self_(self),
      metrics_(metrics),
      batcher_(options.batching) {}

PrefillSessions::~PrefillSessions() { loop_->CancelTimer(timer_); }

// Streams.

StreamHandler<v1::PrefillCommand> PrefillSessions::Open(std::shared_ptr<Events> stream) {
  const RouterId id = ++last_router_;
  routers_[id].stream = std::move(stream);
  return {.on_message = [this, id](v1::PrefillCommand command) { OnCommand(id, command); },
          .on_closed = [this, id](const absl::Status&) { OnClosed(id); }};
}

void PrefillSessions::OnClosed(RouterId id) {
  const auto it = routers_.find(id);
  if (it == routers_.end()) return;
  const std::map<uint64_t, JobId> jobs = it->second.jobs;
  for (const auto& [request_id, job] : jobs) {
    if (!jobs_.at(job)->done) metrics_->requests.With({"cancelled"}).Add();
    Drop(job);
  }
  routers_.erase(it);
  Pump();
}

void PrefillSessions::OnCommand(RouterId router, const v1::PrefillCommand& command) {
  const auto it = routers_.find(router);
  if (it == routers_.end()) return;
  const uint64_t request_id = command.request_id();
  if (command.has_start()) {
    Start(router, request_id, command.start());
  } else if (command.has_release()) {
    // Unknown ids are normal: the request has failed or expired while the release was on its way.
    const auto job = it->second.jobs.find(request_id);
    if (job != it->second.jobs.end()) {
      if (!jobs_.at(job->second)->done) metrics_->requests.With({"cancelled"}).Add();
      Drop(job->second);
    }
  } else {
    Refuse(router, request_id, absl::InvalidArgumentError("command: neither start nor release"));
  }
  Pump();
}

v1::PrefillEvent* PrefillSessions::AddEvent(RouterId router, uint64_t request_id) {
  v1::PrefillEvent* event = routers_.at(router).outbox.add_events();
  event->set_request_id(request_id);
  return event;
}

void PrefillSessions::Flush() {
  for (auto& [id, router] : routers_) {
    if (router.outbox.events().empty()) continue;
    router.stream->Send(std::exchange(router.outbox, {}));
  }
}

// A request's beginning and end.

void PrefillSessions::Start(RouterId router, uint64_t request_id, const v1::PrefillStart& start) {
  auto& jobs = routers_.at(router).jobs;
  if (const auto it = jobs.find(request_id); it != jobs.end()) {
    // The router cannot tell two requests of one id apart: it must lose both.
    return Fail(it->second, absl::InvalidArgumentError("request_id: started twice"), "failed");
  }
  const absl::StatusOr<JobId> id = Admit(router, request_id, start);
  if (!id.ok()) return Refuse(router, request_id, id.status());
  jobs[request_id] = *id;
}

absl::StatusOr<JobId> PrefillSessions::Admit(RouterId router, uint64_t request_id,
                                             const v1::PrefillStart& start) {
  if (draining_) return absl::UnavailableError("the prefill node is shutting down");
  ASSIGN_OR_RETURN(PrefillRequest request,
                   ParseRequest(start, model_, pool_->layout(), options_.defaults));
  auto job = std::make_unique<Job>(pool_, std::move(request));
  const int pages = pool_->Stats().hbm_pages;
  if (job->kv.block_count() > pages) {
    return absl::InvalidArgumentError(absl::StrCat("tokens: ", job->kv.length(), " need ",
                                                   job->kv.block_count(),
                                                   " pages of KV; the node has ", pages));
  }
  job->router = router;
  job->request_id = request_id;
  job->received = loop_->Now();
  const int planned = static_cast<int>(job->request.plan.size()) * pool_->layout().block_tokens;
  ASSIGN_OR_RETURN(job->id, batcher_.Add({.tokens = job->kv.length(),
                                          .expected_cached = planned,
                                          .priority = job->request.priority,
                                          .deadline = job->received + job->request.timeout,
                                          .handover_timeout = job->request.handover_timeout}));
  const JobId id = job->id;
  jobs_[id] = std::move(job);
  return id;
}

void PrefillSessions::Refuse(RouterId router, uint64_t request_id, const absl::Status& status) {
  metrics_->requests.With({"refused"}).Add();
  const bool full = absl::IsResourceExhausted(status);
  *AddEvent(router, request_id)->mutable_failed() =
      engine::ToProto(status, full ? batcher_.RetryHint() : absl::ZeroDuration());
}

void PrefillSessions::Fail(JobId id, const absl::Status& status, const char* outcome) {
  const Job& job = *jobs_.at(id);
  metrics_->requests.With({outcome}).Add();
  *AddEvent(job.router, job.request_id)->mutable_failed() = engine::ToProto(status);
  Drop(id);
}

void PrefillSessions::Drop(JobId id) {
  batcher_.Remove(id);
  Detach(id);
}

void PrefillSessions::Detach(JobId id) {
  auto node = jobs_.extract(id);
  std::unique_ptr<Job> job = std::move(node.mapped());
  routers_.at(job->router).jobs.erase(job->request_id);
  job->fetch.reset();
  if (job->in_step) leaving_.push_back(std::move(job));
}

void PrefillSessions::FailAll(const absl::Status& status) {
  while (!jobs_.empty()) {
    const JobId id = jobs_.begin()->first;
    // Who has its first token goes on without us: what is not pulled yet is computed again.
    if (jobs_.at(id)->done) {
      Drop(id);
    } else {
      Fail(id, status, "failed");
    }
  }
  Pump();
}

void PrefillSessions::Drain() { draining_ = true; }

// The loop's work.

void PrefillSessions::Pump() {
  EndExpired();
  ReserveForWaiting();
  StartStep();
  RearmTimer();
  Flush();
  const BatcherLoad load = batcher_.load();
  metrics_->waiting.Set(load.waiting);
  metrics_->running.Set(load.running);
  metrics_->waiting_tokens.Set(static_cast<double>(load.waiting_tokens));
}

void PrefillSessions::EndExpired() {
  for (const ExpiredJob& expired : batcher_.TakeExpired(loop_->Now())) {
    if (expired.state == JobState::kHandingOver) {
      metrics_->handovers_expired.Add();
    } else {
      const Job& job = *jobs_.at(expired.job);
      metrics_->requests.With({"expired"}).Add();
      *AddEvent(job.router, job.request_id)->mutable_failed() =
          engine::ToProto(absl::DeadlineExceededError(
              absl::StrCat("prefill of ", job.kv.length(), " tokens did not end within ",
                           absl::FormatDuration(job.request.timeout).c_str())));
    }
    Detach(expired.job);
  }
}

void PrefillSessions::RearmTimer() {
  loop_->CancelTimer(timer_);
  timer_ = 0;
  absl::Time next = batcher_.NextDeadline();
  if (short_of_pages_) next = std::min(next, loop_->Now() + options_.reserve_retry);
  if (next == absl::InfiniteFuture()) return;
  timer_ = loop_->PostAt(next, [this] {
    timer_ = 0;
    Pump();
  });
}

void PrefillSessions::ReserveForWaiting() {
  short_of_pages_ = false;
  while (const std::optional<JobId> id = batcher_.NextToReserve()) {
    Job& job = *jobs_.at(*id);
    if (!Reserve(job)) {
      short_of_pages_ = true;
      return;
    }
    batcher_.OnReserved(*id);
    Fetch(job);
  }
}

bool PrefillSessions::Reserve(Job& job) {
  const absl::Time deadline =
      job.received + job.request.timeout + job.request.handover_timeout + kLeakSlack;
  auto reservation = pool_->Reserve(RequestId(job.request_id), job.kv.block_count(), deadline);
  if (!reservation.ok()) return false;
  job.kv.reservation() = *std::move(reservation);
  job.reserved = loop_->Now();
  metrics_->queue_seconds.Observe(absl::ToDoubleSeconds(job.reserved - job.received));
  return true;
}

// Fetching.

kvstore::FetchPlan PrefillSessions::PlanFetch(const Job& job) const {
  const int limit = job.fetchable_blocks();
  const int planned = std::min(limit, static_cast<int>(job.request.plan.size()));
  std::vector<std::vector<kvstore::SourceId>> sources(limit);
  for (int block = 0; block < limit; ++block) {
    if (const auto local = pool_->FindLocal(job.kv.key(block))) {
      sources[block].push_back({NodeId(), local->tier});
    }
    if (block >= planned) continue;
    for (const kvstore::BlockSource& source : job.request.plan[block]) {
      sources[block].push_back({source.node, source.tier});
    }
  }
  kvstore::FetchCosts costs;
  costs.fetch = [this](const kvstore::SourceId& source, int blocks) {
    return pool_->ExpectPull(source, blocks);
  };
  costs.compute_block = absl::Microseconds(batcher_.load().us_per_token) * job.kv.block_tokens();
  return kvstore::PlanFetch(sources, costs);
}

void PrefillSessions::Fetch(Job& job) {
  const kvstore::FetchPlan plan = PlanFetch(job);
  const int planned = static_cast<int>(job.request.plan.size());
  std::vector<kvstore::WantedBlock> wanted;
  for (int block = 0; block < static_cast<int>(plan.fetch.size()); ++block) {
    if (!plan.fetch[block]) continue;
    job.fetching.push_back(block);
    kvstore::WantedBlock& want = wanted.emplace_back();
    want.key = job.kv.key(block);
    want.token_count = job.kv.token_count(block);
    want.parent = job.kv.parent(block);
    want.traits = job.kv.traits(block);
    if (block < planned) want.sources = std::move(job.request.plan[block]);
  }
  if (wanted.empty()) return StartComputing(job);
  const absl::Time now = loop_->Now();
  // Whoever waits longer than computing takes has lost by the fetch.
  const absl::Duration patience =
      std::min(options_.fetch_timeout, std::max(plan.worth, options_.least_fetch_timeout));
  const absl::Time deadline = std::min(job.received + job.request.timeout, now + patience);
  job.fetch =
      pool_->Acquire(job.kv.reservation(), std::move(wanted), deadline,
                     [this, id = job.id](auto blocks) { OnFetched(id, std::move(blocks)); });
}

void PrefillSessions::OnFetched(JobId id,
                                std::vector<absl::StatusOr<kvstore::AcquiredBlock>> blocks) {
  Job& job = *jobs_.at(id);
  job.fetch.reset();
  for (size_t i = 0; i < blocks.size(); ++i) {
    if (!blocks[i].ok()) continue;
    const int block = job.fetching[i];
    const uint32_t tokens = job.kv.token_count(block);
    v1::PromptTokens& from = job.sources;
    switch (blocks[i]->origin) {
      case BlockOrigin::kLocalHbm:
        from.set_local_hbm(from.local_hbm() + tokens);
        break;
      case BlockOrigin::kLocalDram:
        from.set_local_dram(from.local_dram() + tokens);
        break;
      case BlockOrigin::kLocalSsd:
        from.set_local_ssd(from.local_ssd() + tokens);
        break;
      case BlockOrigin::kRemote:
        from.set_remote(from.remote() + tokens);
        ++job.fetched_blocks;
        break;
      case BlockOrigin::kRemoteSsd:
        from.set_remote_ssd(from.remote_ssd() + tokens);
        ++job.fetched_blocks;
        break;
    }
    job.kv.Put(block, std::move(blocks[i]->page));
  }
  StartComputing(job);
  Pump();
}

void PrefillSessions::StartComputing(Job& job) {
  job.fetched = loop_->Now();
  metrics_->fetch_seconds.Observe(absl::ToDoubleSeconds(job.fetched - job.reserved));
  std::vector<TokenRange> missing = job.kv.Missing();
  uint32_t computed = 0;
  for (const TokenRange& range : missing) computed += range.size();
  job.sources.set_computed(computed);
  job.kv.SetTraits({.tenant = TenantId(job.request.sequence.tenant),
                    .new_blocks = computed / static_cast<uint32_t>(job.kv.block_tokens())});
  prompt_tokens_ += job.kv.length();
  hit_tokens_ += job.kv.length() - computed;
  metrics_->prompt_tokens.With({"computed"}).Add(computed);
  metrics_->prompt_tokens.With({"local_hbm"}).Add(job.sources.local_hbm());
  metrics_->prompt_tokens.With({"local_dram"}).Add(job.sources.local_dram());
  metrics_->prompt_tokens.With({"local_ssd"}).Add(job.sources.local_ssd());
  metrics_->prompt_tokens.With({"remote"}).Add(job.sources.remote());
  metrics_->prompt_tokens.With({"remote_ssd"}).Add(job.sources.remote_ssd());
  batcher_.OnFetched(job.id, std::move(missing));
  Announce(job);
}

// Computing.

void PrefillSessions::StartStep() {
  if (!step_.empty()) return;
  const std::vector<Chunk> chunks = batcher_.PlanStep();
  if (chunks.empty()) return;
  engine::StepJob work;
  int tokens = 0;
  for (const Chunk& chunk : chunks) {
    Job& job = *jobs_.at(chunk.job);
    job.in_step = true;
    step_.push_back({&job, chunk});
    const kvstore::SequenceSpan span = job.kv.Span(chunk.tokens);
    engine::StepSequence& sequence = work.sequences.emplace_back();
    sequence = {.tokens = span.tokens, .position = span.position, .pages = span.pages};
    if (chunk.last) {
      const engine::SequenceSpec& spec = job.request.sequence;
      sequence.sample = {&spec.sampling, job.kv.tokens(), spec.prompt_length};
    }
    for (const kvstore::UnsealedBlock& block : job.kv.Seals(chunk.tokens, chunk.last)) {
      work.seals.push_back({block.identity, block.page});
    }
    tokens += chunk.tokens.size();
  }
  metrics_->step_tokens.Observe(tokens);
  runner_->Submit(std::move(work),
                  [this](engine::StepResult result) { OnStep(std::move(result)); });
}

void PrefillSessions::OnStep(engine::StepResult result) {
  metrics_->step_seconds.Observe(absl::ToDoubleSeconds(result.elapsed));
  const std::vector<InStep> step = std::exchange(step_, {});
  for (const InStep& part : step) part.job->in_step = false;
  // Those that have ended meanwhile go at the end of this call, with their pages.
  const std::vector<std::unique_ptr<Job>> leaving = std::exchange(leaving_, {});
  if (result.outputs.ok()) {
    batcher_.OnStepDone(result.elapsed, loop_->Now());
    for (size_t i = 0; i < step.size(); ++i) OnChunk(step[i], (*result.outputs)[i]);
  } else {
    FailStep(step, result.outputs.status());
  }
  Pump();
}

void PrefillSessions::FailStep(const std::vector<InStep>& step, const absl::Status& status) {
  LOG(ERROR) << "A step of " << step.size() << " prompts failed: " << status;
  batcher_.OnStepFailed();
  for (const InStep& part : step) {
    if (!jobs_.contains(part.chunk.job)) continue;
    Fail(part.chunk.job, absl::InternalError("the executor failed: " + status.ToString()),
         "failed");
  }
}

void PrefillSessions::OnChunk(const InStep& part, const engine::StepOutput& output) {
  // Also of a job that has ended: what is computed is worth keeping.
  part.job->kv.OnComputed(part.chunk.tokens);
  if (!jobs_.contains(part.chunk.job)) return;
  Announce(*part.job);
  if (part.chunk.last) Finish(*part.job, *output.sampled);
}

void PrefillSessions::Announce(Job& job) {
  const int first = job.announced;
  while (job.announced < job.kv.block_count() && job.kv.Has(job.announced)) ++job.announced;
  if (job.announced == first) return;
  v1::BlocksReady* ready = AddEvent(job.router, job.request_id)->mutable_blocks_ready();
  ready->set_first_block(first);
  for (int block = first; block < job.announced; ++block) {
    v1::ReadyBlock* added = ready->add_blocks();
    added->set_key(job.kv.key(block).ToBytes());
    added->set_token_count(job.kv.token_count(block));
    *added->mutable_location() = kvstore::ToProto({.node = NodeId(self_->node_id()),
                                                   .incarnation = Incarnation(self_->incarnation()),
                                                   .rpc_address = self_->rpc_address(),
                                                   .tier = kvstore::Tier::kHbm,
                                                   .address = job.kv.page(block).address()});
  }
}

void PrefillSessions::Finish(Job& job, const engine::SampledToken& token) {
  const absl::Duration compute = loop_->Now() - job.fetched;
  metrics_->compute_seconds.Observe(absl::ToDoubleSeconds(compute));
  metrics_->requests.With({"done"}).Add();
  job.done = true;
  job.kv.reservation() = {};  // what others held already was promised twice
  v1::PrefillDone* done = AddEvent(job.router, job.request_id)->mutable_done();
  *done->mutable_first_token() = engine::ToProto(token);
  *done->mutable_prompt() = job.sources;
  done->set_queue_us(absl::ToInt64Microseconds(job.reserved - job.received));
  done->set_fetch_us(absl::ToInt64Microseconds(job.fetched - job.reserved));
  done->set_compute_us(absl::ToInt64Microseconds(compute));
  done->set_fetched_bytes(job.fetched_blocks * pool_->layout().page_bytes());
}

v1::NodeLoad PrefillSessions::Load() const {
  const BatcherReport from = batcher_.Report();
  v1::NodeLoad load;
  load.set_running(from.running);
  load.set_max_running(options_.batching.max_running);
  load.set_waiting(from.waiting);
  load.set_waiting_tokens(from.waiting_tokens);
  load.set_prefill_us_per_token(from.us_per_token);
  load.set_waiting_attended(from.waiting_attended);
  load.set_step_tokens(options_.batching.chunk_tokens);
  *load.mutable_step_time() = kvstore::ToProto(from.step_time);
  load.set_draining(draining_);
  load.set_prompt_tokens(prompt_tokens_);
  load.set_hit_tokens(hit_tokens_);
  return load;
}

}  // namespace tarn::prefill

// Prompts: pages, fetch or recompute, chunks.

#include <glog/logging.h>

#include <algorithm>
#include <utility>

#include "sim/cluster/node.h"

namespace tarn::sim {

using kvstore::SourceId;
using kvstore::Tier;

namespace {

// Peers that are asked for one block.
constexpr int kMaxPeers = 2;

// Which tier of its node a match has block `block` in.
Tier TierOf(const kvstore::NodeMatch& match, int block) {
  if (block < match.hbm_blocks) return Tier::kHbm;
  return block < match.memory_blocks ? Tier::kDram : Tier::kSsd;
}

}  // namespace

void Node::Prefill(Request* request) {
  const auto job = batcher_.Add({.tokens = request->input(),
                                 .deadline = absl::InfiniteFuture(),
                                 .handover_timeout = absl::InfiniteDuration()});
  CHECK(job.ok()) << job.status();
  request->job = *job;
  jobs_.push_back(request);
  CHECK_EQ(jobs_.size() - 1, job->value());
  changed_ = true;
  StartPrompts();
}

void Node::StartPrompts() {
  while (const auto job = batcher_.NextToReserve()) {
    Request* const request = jobs_[job->value()];
    // A coupled node answers in the same pages.
    const int tokens =
        request->input() + (options_.kind == NodeKind::kCoupled ? request->output() : 0);
    const int pages = (tokens + options_.block_tokens - 1) / options_.block_tokens;
    if (!cache_.Reserve(pages, &request->prefill_pages)) return;
    batcher_.OnReserved(*job);
    BeginFetch(request);
  }
}

std::vector<std::vector<SourceId>> Node::SourcesOf(const Request& request, int fetchable) const {
  // The peers that hold most, the others would only be asked for less.
  std::vector<const kvstore::NodeMatch*> peers;
  for (const kvstore::NodeMatch& match : request.matches) {
    if (options_.pool && match.node != options_.id) peers.push_back(&match);
  }
  std::stable_sort(peers.begin(), peers.end(),
                   [](const auto* a, const auto* b) { return a->blocks > b->blocks; });
  std::vector<std::vector<SourceId>> sources(fetchable);
  for (int block = 0; block < fetchable; ++block) {
    if (request.here[block]) {
      sources[block].push_back({NodeId(), Tier::kHbm});
      continue;
    }
    if (const auto tier = cache_.Below(request.keys[block])) {
      sources[block].push_back({NodeId(), *tier});
    }
    int asked = 0;
    for (const kvstore::NodeMatch* peer : peers) {
      if (peer->blocks <= block || asked++ == kMaxPeers) break;
      sources[block].push_back({peer->node, TierOf(*peer, block)});
    }
  }
  return sources;
}

void Node::BeginFetch(Request* request) {
  const int blocks = static_cast<int>(request->keys.size());
  cache_.Take(request->keys, world_->Now(), &request->prefill_pages);
  cache_.Announce();
  request->here.resize(blocks);
  for (int i = 0; i < blocks; ++i) request->here[i] = cache_.Cached(request->prefill_pages, i);
  // The block of the last token is never fetched: its logits are needed.
  const int fetchable = (request->input() - 1) / options_.block_tokens;
  const auto sources = SourcesOf(*request, fetchable);
  kvstore::FetchCosts costs;
  costs.fetch = [this](const SourceId& source, int count) {
    return world_->ExpectFetch(this, source, count);
  };
  costs.compute_block = absl::Microseconds(batcher_.load().us_per_token) * options_.block_tokens;
  const kvstore::FetchPlan plan = kvstore::PlanFetch(sources, costs);
  for (int i = fetchable; i < blocks; ++i) request->here[i] = false;
  Assign(request, sources, plan, costs);
  if (request->fetches == 0) Compute(request);
}

void Node::Count(Request* request, const SourceId& source) {
  int* const counter = source.node != NodeId()      ? &request->remote_tokens
                       : source.tier == Tier::kHbm  ? &request->hbm_tokens
                       : source.tier == Tier::kDram ? &request->dram_tokens
                                                    : &request->ssd_tokens;
  *counter += options_.block_tokens;
}

// As PlanFetch does it: each block to the source that would have it first.
void Node::Assign(Request* request, const std::vector<std::vector<SourceId>>& sources,
                  const kvstore::FetchPlan& plan, const kvstore::FetchCosts& costs) {
  std::vector<Source> used;
  for (size_t block = 0; block < sources.size(); ++block) {
    request->here[block] = plan.fetch[block];
    if (!plan.fetch[block]) continue;
    Source* best = nullptr;
    absl::Duration least = absl::InfiniteDuration();
    for (const SourceId& source : sources[block]) {
      auto it = std::find_if(used.begin(), used.end(),
                             [&source](const Source& s) { return s.id == source; });
      const int count = it == used.end() ? 0 : it->blocks;
      const absl::Duration time = costs.fetch(source, count + 1);
      if (best != nullptr && time >= least) continue;
      least = time;
      if (it == used.end()) it = used.insert(used.end(), {source, 0});
      best = &*it;
    }
    ++best->blocks;
    Count(request, best->id);
  }
  for (const Source& source : used) {
    if (source.blocks == 0 || source.id == SourceId{NodeId(), Tier::kHbm}) continue;
    ++request->fetches;
    world_->Fetch(this, request, source.id, source.blocks);
  }
}

void Node::OnFetched(Request* request) {
  if (--request->fetches == 0) Compute(request);
}

void Node::Compute(Request* request) {
  std::vector<prefill::TokenRange> missing;
  int computed = 0;
  const int blocks = static_cast<int>(request->here.size());
  for (int i = 0; i < blocks; ++i) {
    if (request->here[i]) continue;
    ++computed;
    const int begin = i * options_.block_tokens;
    const int end = std::min(begin + options_.block_tokens, request->input());
    if (!missing.empty() && missing.back().end == begin) {
      missing.back().end = end;
    } else {
      missing.push_back({begin, end});
    }
  }
  request->new_blocks = static_cast<uint32_t>(computed);
  batcher_.OnFetched(request->job, std::move(missing));
  changed_ = true;
  CutRun();
  MaybeStep();
}

// Blocks are found from the moment that they are complete.
void Node::PublishUpTo(Request* request, int tokens) {
  const int first = request->published;
  while (request->published < static_cast<int>(request->keys.size()) &&
         std::min((request->published + 1) * options_.block_tokens, request->input()) <= tokens) {
    cache_.Publish(request->keys, request->published, request->new_blocks, world_->Now(),
                   request->prefill_pages);
    ++request->published;
  }
  if (request->published == first) return;
  cache_.Announce();
  world_->OnPublished(this, *request, first, request->published);
}

void Node::OnChunk(const prefill::Chunk& chunk) {
  Request* const request = jobs_[chunk.job.value()];
  PublishUpTo(request, chunk.tokens.end);
  if (!chunk.last) return world_->OnComputed(this, request, chunk.tokens.end, false);
  request->first_token = request->last_token = world_->Now();
  request->prefilled = true;
  if (options_.kind == NodeKind::kCoupled) {
    batcher_.Remove(request->job);
    world_->OnComputed(this, request, request->input(), true);
    return RunHere(request);
  }
  world_->OnComputed(this, request, request->input(), true);
}

void Node::EndPrefill(Request* request) {
  batcher_.Remove(request->job);
  cache_.Release(world_->Now(), &request->prefill_pages);
  changed_ = true;
  StartPrompts();
}

}  // namespace tarn::sim

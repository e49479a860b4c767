#include "sim/cluster/cluster.h"

#include <glog/logging.h>

#include <algorithm>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "router/policy/filters.h"
#include "sim/cluster/event_queue.h"
#include "sim/cluster/node.h"
#include "sim/cluster/sim_router.h"
#include "sim/cost/fair_links.h"
#include "sim/cost/step_cost.h"

namespace tarn::sim {
namespace {

// A key for each id of a trace: uniform, as real keys are.
BlockKey KeyOf(int64_t id) {
  auto word = static_cast<uint64_t>(id) + 0x9e3779b97f4a7c15;  // splitmix64
  word = (word ^ (word >> 30)) * 0xbf58476d1ce4e5b9;
  word = (word ^ (word >> 27)) * 0x94d049bb133111eb;
  word ^= word >> 31;
  BlockKey key;
  std::memcpy(key.bytes.data(), &word, sizeof(word));
  std::memcpy(key.bytes.data() + 8, &id, sizeof(id));
  return key;
}

struct Event {
  enum class Kind : uint8_t { kArrival, kStep, kTransfers, kReport, kRetry };
  Kind kind;
  Node* node = nullptr;
  uint64_t turn = 0;
};

// What a transfer is for.
struct Transfer {
  enum class For : uint8_t { kFetch, kHandover, kStore };
  For purpose;
  Request* request;
  Node* node = nullptr;    // kFetch: who fetches
  bool from_peer = false;  // kFetch
  NodeCache* store = nullptr;
  int first = 0, end = 0;  // kStore: blocks
  double bytes = 0;
};

struct NodeLinks {
  FairLinks::Link in, out, host, ssd;
};

class Simulation : public World {
 public:
  Simulation(const Workload& workload, const ClusterConfig& config)
      : workload_(workload),
        config_(config),
        cost_(config.model, config.hardware),
        block_{.tokens = kTraceBlockTokens,
               .bytes = kTraceBlockTokens * config.model.kv_bytes_per_token()},
        index_({.max_bytes = size_t{4} << 30, .seed = 1}),
        router_(config, block_, &index_) {}

  absl::Status Build();
  RunResult Run();

  absl::Time Now() const override { return events_.now(); }
  void WakeAt(Node* node, absl::Time when, uint64_t turn) override {
    events_.Schedule(when, {Event::Kind::kStep, node, turn});
  }
  absl::Duration ExpectFetch(const Node* node, const kvstore::SourceId& source,
                             int blocks) const override;
  void Fetch(Node* node, Request* request, const kvstore::SourceId& source, int blocks) override;
  void OnPublished(Node* node, const Request& request, int first, int end) override;
  void OnComputed(Node* node, Request* request, int tokens, bool last) override;
  void OnFinished(Node* node, Request* request) override;

 private:
  void AddNode(NodeKind kind, int number);
  void AddStore(int number);
  CacheSizes SizesOf(NodeKind kind) const;
  NodeLinks AddLinks();
  int Seats() const;

  void Handle(const Event& event);
  void OnArrival();
  void OnReport();
  void OnRetry();
  // False if it has to wait.
  bool Place(Request* request);
  bool Refuse(Request* request, const router::Refusal& refusal);
  void End(Request* request, Request::End end);

  void StartTransfer(std::initializer_list<FairLinks::Link> path, Transfer transfer);
  void OnTransfers(uint64_t turn);
  void OnTransfer(const Transfer& transfer);
  void ScheduleTransfers();
  void HandOver(Request* request, int tokens);
  void SeatLate(Request* request);
  void TryJoin(Request* request);

  void CollectUse(RunResult* result) const;
  static Outcome OutcomeOf(const Request& request, absl::Duration call_latency);

  const Workload& workload_;
  const ClusterConfig config_;
  const StepCost cost_;
  const router::BlockShape block_;
  kvstore::BlockIndex index_;
  SimRouter router_;
  FairLinks links_;
  EventQueue<Event> events_;

  std::vector<std::unique_ptr<Node>> nodes_;
  std::vector<std::unique_ptr<NodeCache>> stores_;
  std::map<NodeId, NodeLinks> links_of_;
  std::map<NodeId, Node*> by_id_;
  std::deque<Request> requests_;
  std::deque<Request*> waiting_;  // at the router
  bool retrying_ = false;
  size_t arrived_ = 0, ended_ = 0;
  std::vector<Transfer> transfers_{1};  // by flow
  uint64_t transfer_turn_ = 0;
  absl::Time last_end_;
  int seats_ = 0;
  RunResult result_;
};

// Building.

NodeLinks Simulation::AddLinks() {
  const HardwareProfile& node = config_.hardware;
  return {links_.Add(node.network_bytes_per_s), links_.Add(node.network_bytes_per_s),
          links_.Add(node.host_bytes_per_s), links_.Add(std::max(node.ssd_read_bytes_per_s, 1.0))};
}

int Simulation::Seats() const {
  if (config_.max_batch > 0) return config_.max_batch;
  if (config_.coupled() || config_.slo.tpot == absl::InfiniteDuration()) return 4096;
  const double context = workload_.mean_input_tokens() + workload_.mean_output_tokens() / 2;
  return cost_.SeatsWithin(config_.slo.tpot * 0.9, context);
}

CacheSizes Simulation::SizesOf(NodeKind kind) const {
  const HardwareProfile& hardware = config_.hardware;
  const auto pages = [this](double bytes) {
    return static_cast<int>(std::min(bytes / block_.bytes, 1e9));
  };
  CacheSizes sizes;
  if (kind == NodeKind::kStore) return {0, pages(config_.store_dram_bytes), 0};
  sizes.hbm_pages =
      pages(config_.hbm_bytes_for_kv >= 0 ? config_.hbm_bytes_for_kv
                                          : cost_.kv_tokens() * config_.model.kv_bytes_per_token());
  sizes.dram_pages = pages(config_.dram_bytes >= 0 ? config_.dram_bytes : hardware.dram_bytes);
  sizes.ssd_pages = pages(config_.ssd_bytes >= 0 ? config_.ssd_bytes : hardware.ssd_bytes);
  if (hardware.ssd_read_bytes_per_s <= 0) sizes.ssd_pages = 0;
  return sizes;
}

void Simulation::AddNode(NodeKind kind, int number) {
  NodeOptions options;
  options.id = NodeId(absl::StrFormat("%s%03d", kind == NodeKind::kDecode ? "d" : "p", number));
  options.kind = kind;
  options.cache = SizesOf(kind);
  options.eviction = config_.eviction;
  options.batching = {.chunk_tokens = config_.chunk_tokens,
                      .max_running = config_.max_prefills,
                      .max_waiting = 1 << 30};
  options.scheduling = {.max_batch = seats_};
  options.coupled_step = config_.coupled_step;
  options.pool = config_.pool;
  options.skip_steps = config_.skip_steps;
  const auto role =
      kind == NodeKind::kDecode ? router::NodeRole::kDecode : router::NodeRole::kPrefill;
  index_.Join({options.id, Incarnation(1), ""});
  router_.view().Join(options.id, role);
  router_.view().SetConnected(options.id, true);
  links_of_[options.id] = AddLinks();
  nodes_.push_back(std::make_unique<Node>(options, &cost_, &index_, this));
  by_id_[options.id] = nodes_.back().get();
}

void Simulation::AddStore(int number) {
  const NodeId id(absl::StrFormat("s%03d", number));
  index_.Join({id, Incarnation(1), ""});
  router_.view().Join(id, router::NodeRole::kStore);
  links_of_[id] = AddLinks();
  stores_.push_back(
      std::make_unique<NodeCache>(id, SizesOf(NodeKind::kStore), config_.eviction, &index_));
}

absl::Status Simulation::Build() {
  if (cost_.kv_tokens() < kTraceBlockTokens) {
    return absl::InvalidArgumentError(
        absl::StrCat(config_.model.name, " does not fit on a node of ", config_.hardware.name));
  }
  seats_ = Seats();
  for (int i = 0; i < config_.prefill_nodes; ++i) AddNode(NodeKind::kPrefill, i);
  for (int i = 0; i < config_.coupled_nodes; ++i) AddNode(NodeKind::kCoupled, i);
  for (int i = 0; i < config_.decode_nodes; ++i) AddNode(NodeKind::kDecode, i);
  for (int i = 0; i < config_.store_nodes; ++i) AddStore(i);
  return absl::OkStatus();
}

// Running.

RunResult Simulation::Run() {
  const auto& requests = workload_.requests;
  if (requests.empty()) return {};
  const absl::Time start = absl::UnixEpoch() + requests.front().at;
  last_end_ = start;
  events_.Schedule(start, {Event::Kind::kReport});
  events_.Schedule(start, {Event::Kind::kArrival});
  while (!events_.empty()) {
    Handle(events_.Next());
    ++result_.events;
  }
  CHECK_EQ(ended_, requests.size()) << "a request has been lost";
  for (const auto& node : nodes_) CHECK(node->idle()) << node->id() << " holds something";
  result_.duration = last_end_ - start;
  for (const Request& request : requests_) {
    result_.requests.push_back(OutcomeOf(request, config_.call_latency));
  }
  CollectUse(&result_);
  return std::move(result_);
}

void Simulation::Handle(const Event& event) {
  switch (event.kind) {
    case Event::Kind::kArrival:
      return OnArrival();
    case Event::Kind::kStep:
      return event.node->OnStepEnd(event.turn);
    case Event::Kind::kTransfers:
      return OnTransfers(event.turn);
    case Event::Kind::kReport:
      return OnReport();
    case Event::Kind::kRetry:
      return OnRetry();
  }
}

void Simulation::OnArrival() {
  const TraceRequest& spec = workload_.requests[arrived_++];
  if (arrived_ < workload_.requests.size()) {
    events_.Schedule(absl::UnixEpoch() + workload_.requests[arrived_].at, {Event::Kind::kArrival});
  }
  Request& request = requests_.emplace_back();
  request.id = RequestId(arrived_);
  request.spec = &spec;
  request.arrival = Now();
  request.keys.reserve(spec.hash_ids.size());
  for (const int64_t id : spec.hash_ids) request.keys.push_back(KeyOf(id));
  router_.Match(&request);
  // Who waits already was here first.
  if (!waiting_.empty() || !Place(&request)) waiting_.push_back(&request);
}

void Simulation::OnReport() {
  for (const auto& node : nodes_) {
    if (!node->TakeChanged()) continue;
    const router::NodeLoad load = node->Load();
    RoleUse& use = node->kind() == NodeKind::kDecode ? result_.decode : result_.prefill;
    use.pages = std::max(
        use.pages, static_cast<double>(load.hbm_pages_reserved) / std::max(1, load.hbm_pages));
    router_.view().Report(node->id(), load, Now());
  }
  if (!waiting_.empty()) OnRetry();
  if (ended_ == workload_.requests.size()) return;
  events_.Schedule(Now() + config_.report_interval, {Event::Kind::kReport});
}

void Simulation::OnRetry() {
  retrying_ = false;
  while (!waiting_.empty()) {
    Request* const next = waiting_.front();
    router_.Match(next);
    if (!Place(next)) return;
    waiting_.pop_front();
  }
}

bool Simulation::Place(Request* request) {
  const int pages = router::PagesFor(request->input() + request->output(), block_);
  if (config_.coupled() && pages > nodes_.front()->cache().hbm_pages()) {
    End(request, Request::End::kTooLong);
    return true;
  }
  router::RouteResult result = router_.Route(*request, Now());
  if (const auto* refusal = std::get_if<router::Refusal>(&result)) {
    return Refuse(request, *refusal);
  }
  const auto& decision = std::get<router::RouteDecision>(result);
  if (decision.decode.has_value()) {
    Node* const node = by_id_.at(decision.decode->node);
    if (!node->Admit(request)) return false;
    request->decode = node;
    router_.view().Place(node->id(), request->id, {.pages = decision.decode->pages});
  }
  request->prefill = by_id_.at(decision.prefill.node);
  request->router_wait = Now() - request->arrival;
  request->predicted_ttft = Now() - request->arrival + config_.call_latency +
                            absl::Microseconds(decision.prefill.predicted.total_us());
  router_.view().Place(request->prefill->id(), request->id,
                       {.tokens = decision.prefill.predicted.compute_tokens,
                        .pages = router::PagesFor(request->input(), block_)});
  request->prefill->Prefill(request);
  return true;
}

bool Simulation::Refuse(Request* request, const router::Refusal& refusal) {
  if (absl::IsInvalidArgument(refusal.status)) {
    End(request, Request::End::kTooLong);
    return true;
  }
  if (config_.rejection == Rejection::kNever) return false;
  End(request, Request::End::kRejected);
  return true;
}

void Simulation::End(Request* request, Request::End end) {
  CHECK(request->end == Request::End::kNone || request->end == end);
  request->end = end;
  ++ended_;
  last_end_ = Now();
  if (!waiting_.empty() && !std::exchange(retrying_, true)) {
    events_.Schedule(Now(), {Event::Kind::kRetry});
  }
}

// Transfers.

absl::Duration Simulation::ExpectFetch(const Node* node, const kvstore::SourceId& source,
                                       int blocks) const {
  const bool here = source.node == NodeId();
  if (here && source.tier == kvstore::Tier::kHbm) return absl::ZeroDuration();
  const NodeLinks& to = links_of_.at(node->id());
  const NodeLinks& from = here ? to : links_of_.at(source.node);
  double share =
      here ? (source.tier == kvstore::Tier::kSsd ? links_.ShareOf(to.ssd) : links_.ShareOf(to.host))
           : std::min(links_.ShareOf(from.out), links_.ShareOf(to.in));
  if (!here && source.tier == kvstore::Tier::kSsd)
    share = std::min(share, links_.ShareOf(from.ssd));
  const absl::Duration start =
      here ? absl::ZeroDuration() : absl::Microseconds(router::kPullStartUs);
  return start + absl::Seconds(blocks * block_.bytes / share);
}

void Simulation::StartTransfer(std::initializer_list<FairLinks::Link> path, Transfer transfer) {
  const FairLinks::Flow flow = links_.Start(path, transfer.bytes, Now());
  transfers_.push_back(transfer);
  CHECK_EQ(transfers_.size() - 1, flow);
  ScheduleTransfers();
}

void Simulation::ScheduleTransfers() {
  if (links_.flows() == 0) return;
  events_.Schedule(links_.NextEnd(), {Event::Kind::kTransfers, nullptr, ++transfer_turn_});
}

void Simulation::OnTransfers(uint64_t turn) {
  if (turn != transfer_turn_) return;
  const std::vector<FairLinks::Flow> ended = links_.TakeEnded(Now());
  ScheduleTransfers();
  for (const FairLinks::Flow flow : ended) OnTransfer(Transfer(transfers_[flow]));
}

void Simulation::OnTransfer(const Transfer& transfer) {
  switch (transfer.purpose) {
    case Transfer::For::kFetch:
      if (transfer.from_peer) {
        transfer.node->pull_meter().Finish(static_cast<uint64_t>(transfer.bytes), Now());
        result_.fetched_bytes += transfer.bytes;
      }
      return transfer.node->OnFetched(transfer.request);
    case Transfer::For::kHandover:
      result_.handed_bytes += transfer.bytes;
      --transfer.request->handovers;
      return TryJoin(transfer.request);
    case Transfer::For::kStore:
      result_.copied_bytes += transfer.bytes;
      for (int block = transfer.first; block < transfer.end; ++block) {
        transfer.store->Adopt(transfer.request->keys, block, transfer.request->new_blocks, Now());
      }
      transfer.store->Announce();
      return;
  }
}

void Simulation::Fetch(Node* node, Request* request, const kvstore::SourceId& source, int blocks) {
  Transfer transfer{.purpose = Transfer::For::kFetch,
                    .request = request,
                    .node = node,
                    .from_peer = source.node != NodeId(),
                    .bytes = blocks * block_.bytes};
  const NodeLinks& to = links_of_.at(node->id());
  if (!transfer.from_peer) {
    return StartTransfer({source.tier == kvstore::Tier::kSsd ? to.ssd : to.host}, transfer);
  }
  const NodeLinks& from = links_of_.at(source.node);
  node->pull_meter().Start(Now());
  if (source.tier == kvstore::Tier::kSsd) {
    return StartTransfer({from.ssd, from.out, to.in}, transfer);
  }
  StartTransfer({from.out, to.in}, transfer);
}

// Whose prompts go to which store is fixed, so that a store has whole chains.
void Simulation::OnPublished(Node* node, const Request& request, int first, int end) {
  if (stores_.empty() || node->kind() == NodeKind::kDecode) return;
  const uint8_t choice = request.keys[std::min<size_t>(1, request.keys.size() - 1)].bytes[0];
  const size_t store = choice % stores_.size();
  StartTransfer({links_of_.at(node->id()).out,
                 links_of_.at(NodeId(absl::StrFormat("s%03d", static_cast<int>(store)))).in},
                {.purpose = Transfer::For::kStore,
                 .request = const_cast<Request*>(&request),
                 .store = stores_[store].get(),
                 .first = first,
                 .end = end,
                 .bytes = (end - first) * block_.bytes});
}

// Hand-over.

void Simulation::HandOver(Request* request, int tokens) {
  const int from = std::max(request->handed_tokens, request->decode_cached_blocks * block_.tokens);
  if (tokens <= from) return;
  request->handed_tokens = tokens;
  ++request->handovers;
  StartTransfer({links_of_.at(request->prefill->id()).out, links_of_.at(request->decode->id()).in},
                {.purpose = Transfer::For::kHandover,
                 .request = request,
                 .bytes = (tokens - from) * config_.model.kv_bytes_per_token()});
}

void Simulation::OnComputed(Node* node, Request* request, int tokens, bool last) {
  if (last) router_.view().End(node->id(), request->id);
  if (node->kind() == NodeKind::kCoupled) return;
  if (last && request->decode == nullptr) SeatLate(request);
  if (request->end != Request::End::kNone) return;
  if (request->decode == nullptr) return;
  HandOver(request, tokens);
  if (!last) return;
  request->decode->Start(request);
  TryJoin(request);
}

void Simulation::SeatLate(Request* request) {
  auto choice = router_.RouteDecode(*request, Now());
  if (auto* decode = std::get_if<router::DecodeChoice>(&choice)) {
    Node* const node = by_id_.at(decode->node);
    if (node->Admit(request)) {
      request->decode = node;
      router_.view().Place(node->id(), request->id, {.pages = decode->pages});
      return;
    }
  }
  result_.wasted_tokens += request->input() - request->reused_tokens();
  End(request, Request::End::kRejectedLate);
  request->prefill->EndPrefill(request);
}

// Once, when all is computed and handed over.
void Simulation::TryJoin(Request* request) {
  if (!request->prefilled || request->handovers > 0) return;
  request->prefilled = false;
  request->prefill->EndPrefill(request);
  if (request->end == Request::End::kNone) request->decode->Join(request);
}

void Simulation::OnFinished(Node* node, Request* request) {
  router_.view().End(node->id(), request->id);
  End(request, Request::End::kDone);
}

// Results.

void Simulation::CollectUse(RunResult* result) const {
  const double seconds = std::max(1e-9, absl::ToDoubleSeconds(result->duration));
  for (const auto& node : nodes_) {
    RoleUse& use = node->kind() == NodeKind::kDecode ? result->decode : result->prefill;
    ++use.nodes;
    use.busy += absl::ToDoubleSeconds(node->totals().busy) / seconds;
    const NodeLinks& links = links_of_.at(node->id());
    for (const FairLinks::Link link : {links.in, links.out}) {
      result->network_use = std::max(result->network_use, links_.bytes_over(link) / seconds /
                                                              config_.hardware.network_bytes_per_s);
    }
  }
  for (RoleUse* use : {&result->prefill, &result->decode}) {
    if (use->nodes > 0) use->busy /= use->nodes;
  }
  if (config_.coupled()) result->decode = result->prefill;
  result->seats = seats_;
}

Outcome Simulation::OutcomeOf(const Request& request, absl::Duration call_latency) {
  Outcome outcome = {.end = request.end,
                     .input_tokens = request.input(),
                     .output_tokens = request.output(),
                     .blocks = static_cast<int>(request.keys.size()),
                     .matched_blocks = request.matched_blocks,
                     .hbm_tokens = request.hbm_tokens,
                     .dram_tokens = request.dram_tokens,
                     .ssd_tokens = request.ssd_tokens,
                     .remote_tokens = request.remote_tokens,
                     .worst_gap = request.worst_gap,
                     .router_wait = request.router_wait,
                     .predicted_ttft = request.predicted_ttft};
  if (!outcome.done()) return outcome;
  outcome.ttft = request.first_token - request.arrival + call_latency;
  if (request.output() > 1) {
    outcome.tpot = (request.last_token - request.first_token) / (request.output() - 1);
  }
  return outcome;
}

}  // namespace

absl::StatusOr<RunResult> Simulate(const Workload& workload, const ClusterConfig& config) {
  if (absl::Status status = config.Check(); !status.ok()) return status;
  Simulation simulation(workload, config);
  if (absl::Status status = simulation.Build(); !status.ok()) return status;
  return simulation.Run();
}

}  // namespace tarn::sim

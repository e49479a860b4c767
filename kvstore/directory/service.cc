#include "kvstore/directory/service.h"

#include <glog/logging.h>

#include <algorithm>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "common/rpc/server_stream.h"
#include "common/rpc/unary.h"
#include "kvstore/directory/inventory_wire.h"
#include "kvstore/directory/seed.h"
#include "kvstore/wire/convert.h"

namespace tarn::kvstore {
namespace {

// A part of the index: some milliseconds of the loop at most.
constexpr size_t kPartBlocks = 4096;
constexpr size_t kMaxPending = size_t{4} << 20;
constexpr absl::Duration kPendingDelay = absl::Milliseconds(2);
constexpr absl::Duration kSettleDelay = absl::Milliseconds(20);
// A tenth of the loop's time.
constexpr size_t kSweptLines = 4096;
constexpr absl::Duration kSweepDelay = absl::Milliseconds(2);

v1::DirectoryUpdate UpdateAbout(const std::string& node, uint64_t incarnation) {
  v1::DirectoryUpdate update;
  update.set_node_id(node);
  update.set_incarnation(incarnation);
  return update;
}
v1::DirectoryUpdate UpdateAbout(const v1::NodeInfo& info) {
  return UpdateAbout(info.node_id(), info.incarnation());
}

}  // namespace

DirectoryService::DirectoryService(EventLoop* loop, const DirectoryOptions& options)
    : loop_(loop), options_(options), start_(loop->Now()), index_(WithSeed(options.index)) {}

DirectoryService::~DirectoryService() {
  loop_->CancelTimer(sweep_timer_);
  for (const auto& [id, subscriber] : subscribers_) loop_->CancelTimer(subscriber.timer);
}

// Nodes.

grpc::ServerBidiReactor<v1::InventoryUpdate, v1::InventoryAck>* DirectoryService::Publish(
    grpc::CallbackServerContext* context) {
  auto open = [this](std::shared_ptr<AckStream> stream) {
    uint64_t id = ++last_id_;
    publications_[id] = {std::move(stream), NodeId()};
    return StreamHandler<v1::InventoryUpdate>{
        .on_message = [this, id](v1::InventoryUpdate update) { OnUpdate(id, std::move(update)); },
        .on_closed = [this, id](absl::Status status) { EndPublication(id, std::move(status)); }};
  };
  return AcceptStream<v1::InventoryUpdate, v1::InventoryAck>(context, *loop_, {}, open);
}

void DirectoryService::OnUpdate(uint64_t stream, v1::InventoryUpdate update) {
  if (update.has_hello()) {
    if (absl::Status status = OnHello(stream, update.hello()); !status.ok()) {
      return EndPublication(stream, std::move(status));
    }
  }
  auto it = publications_.find(stream);
  if (it == publications_.end()) return;
  auto member = members_.find(it->second.node);
  if (member == members_.end()) {
    return EndPublication(
        stream, absl::FailedPreconditionError("the first message of a stream must carry hello"));
  }
  if (CarriesBlocks(update)) {
    if (absl::Status status = OnBlocks(it->second, member->second, update); !status.ok()) {
      return EndPublication(stream, std::move(status));
    }
  }
  if (update.has_load()) OnLoad(member->second, update.load());
  if (update.goodbye()) EndPublication(stream, absl::OkStatus());
}

absl::Status DirectoryService::OnHello(uint64_t stream, const v1::NodeInfo& info) {
  if (info.node_id().empty()) return absl::InvalidArgumentError("hello.node_id is empty");
  Publication& publication = publications_.at(stream);
  if (!publication.node.value().empty()) {
    return absl::FailedPreconditionError("a second hello on the stream of " +
                                         publication.node.value());
  }
  publication.node = NodeId(info.node_id());
  auto old = members_.find(publication.node);
  if (old != members_.end()) {
    // The earlier stream has not ended yet: it is half dead, or a second node has the same name.
    uint64_t old_stream = old->second.stream;
    bool same_life = old->second.info.incarnation() == info.incarnation();
    publications_.erase(old_stream);
    if (!same_life) RemoveMember(publication.node);
  }
  Member& member = members_[publication.node];
  member.info = info;
  member.stream = stream;
  member.inventory = InventoryState();
  index_.Join({publication.node, Incarnation(info.incarnation()), info.rpc_address()});
  LOG(INFO) << "node " << Describe(info) << " at " << info.rpc_address() << " has joined";
  v1::DirectoryUpdate update = UpdateAbout(info);
  *update.mutable_joined() = info;
  Broadcast(update, false);
  return absl::OkStatus();
}

absl::Status DirectoryService::OnBlocks(Publication& publication, Member& member,
                                        v1::InventoryUpdate& update) {
  ASSIGN_OR_RETURN(InventoryBatch batch, BlocksOf(update));
  batch.sequence = update.sequence();
  v1::InventoryAck ack;
  switch (member.inventory.Apply(batch)) {
    case InventoryState::Outcome::kIgnored:
      return absl::OkStatus();
    case InventoryState::Outcome::kNeedSnapshot:
      ++snapshots_requested_;
      LOG(WARNING) << "gap in the inventory of " << Describe(member.info) << " at "
                   << update.sequence();
      ack.set_sequence(member.inventory.sequence());
      ack.set_resend_snapshot(true);
      publication.stream->Send(std::move(ack));
      return absl::OkStatus();
    case InventoryState::Outcome::kApplied:
      break;
  }
  ++updates_;
  if (batch.snapshot_begin) index_.Clear(publication.node);
  index_.Apply(publication.node, batch.removes);
  index_.Apply(publication.node, batch.adds);
  Sweep();
  PassOn(member, update);
  ack.set_sequence(batch.sequence);
  publication.stream->Send(std::move(ack));
  return absl::OkStatus();
}

void DirectoryService::PassOn(const Member& member, v1::InventoryUpdate& update) {
  v1::DirectoryUpdate passed_on = UpdateAbout(member.info);
  passed_on.set_snapshot_begin(update.snapshot_begin());
  passed_on.set_snapshot_end(update.snapshot_end());
  passed_on.mutable_removes()->Swap(update.mutable_removes());
  passed_on.mutable_adds()->Swap(update.mutable_adds());
  Broadcast(passed_on, true);
}

void DirectoryService::OnLoad(Member& member, const v1::NodeLoad& load) {
  member.load = load;
  member.has_load = true;
  v1::DirectoryUpdate update = UpdateAbout(member.info);
  *update.mutable_load() = load;
  Broadcast(update, false);
}

void DirectoryService::EndPublication(uint64_t id, absl::Status status) {
  auto it = publications_.find(id);
  if (it == publications_.end()) return;
  Publication publication = std::move(it->second);
  publications_.erase(it);
  auto member = members_.find(publication.node);
  if (member != members_.end() && member->second.stream == id) {
    LOG(INFO) << "node " << Describe(member->second.info) << " has left: " << status;
    RemoveMember(publication.node);
  }
  publication.stream->Close(std::move(status));
}

void DirectoryService::RemoveMember(const NodeId& node) {
  auto member = members_.extract(node);
  index_.Leave(node, Incarnation(member.mapped().info.incarnation()));
  Sweep();
  v1::DirectoryUpdate update = UpdateAbout(member.mapped().info);
  update.set_left(true);
  Broadcast(update, false);
}

// Subscribers.

grpc::ServerWriteReactor<v1::DirectoryUpdate>* DirectoryService::Subscribe(
    grpc::CallbackServerContext* context, const v1::SubscribeRequest* request) {
  StreamOptions options;
  options.max_queued_bytes = options_.max_subscriber_bytes;
  Subscriber subscriber{.without_blocks = request->without_blocks()};
  for (const std::string& node : request->known_nodes()) {
    subscriber.known_nodes.emplace_back(node);
  }
  auto open = [this, subscriber](std::shared_ptr<UpdateStream> stream) {
    uint64_t id = ++last_id_;
    subscribers_[id] = subscriber;
    subscribers_[id].stream = std::move(stream);
    Greet(id);
    return WriterHandler{.on_closed = [this, id](const absl::Status&) {
      auto it = subscribers_.find(id);
      loop_->CancelTimer(it->second.timer);
      subscribers_.erase(it);
    }};
  };
  return AcceptWriter<v1::DirectoryUpdate>(context, *loop_, options, open);
}

void DirectoryService::Greet(uint64_t id) {
  Subscriber& subscriber = subscribers_.at(id);
  for (const auto& [node, member] : members_) {
    v1::DirectoryUpdate joined = UpdateAbout(member.info);
    *joined.mutable_joined() = member.info;
    if (member.has_load) *joined.mutable_load() = member.load;
    joined.set_snapshot_begin(!subscriber.without_blocks);
    subscriber.stream->Send(std::move(joined));
  }
  subscriber.has_index = subscriber.without_blocks || index_.block_count() == 0;
  GreetFurther(id);
}

void DirectoryService::GreetFurther(uint64_t id) {
  Subscriber& subscriber = subscribers_.at(id);
  subscriber.timer = 0;
  absl::Duration delay = absl::ZeroDuration();
  if (subscriber.stream->pending_bytes() > kMaxPending) {
    delay = kPendingDelay;
  } else if (!subscriber.has_index) {
    SendPart(subscriber);
  } else if (Settled(subscriber)) {
    v1::DirectoryUpdate caught_up;
    caught_up.set_caught_up(true);
    return subscriber.stream->Send(std::move(caught_up));
  } else {
    delay = kSettleDelay;
  }
  subscriber.timer = loop_->PostAfter(delay, [this, id] { GreetFurther(id); });
}

// What changes between two parts reaches the subscriber as a delta, on the same stream.
void DirectoryService::SendPart(Subscriber& subscriber) {
  std::map<std::pair<std::string_view, uint64_t>, v1::DirectoryUpdate> updates;
  subscriber.cursor = index_.Walk(
      subscriber.cursor, kPartBlocks, [&](const IndexedNode& node, const InventoryChange& change) {
        auto [it, is_new] = updates.try_emplace({node.node.value(), node.incarnation.value()});
        if (is_new) it->second = UpdateAbout(node.node.value(), node.incarnation.value());
        *it->second.add_adds() = ToInventoryAdd(change);
      });
  for (auto& [node, update] : updates) subscriber.stream->Send(std::move(update));
  subscriber.has_index = subscriber.cursor == 0;
}

bool DirectoryService::Settled(const Subscriber& subscriber) const {
  absl::Duration age = loop_->Now() - start_;
  bool known_are_here = std::all_of(subscriber.known_nodes.begin(), subscriber.known_nodes.end(),
                                    [this](const NodeId& node) { return members_.contains(node); });
  if (!known_are_here && age < options_.settle_time) return false;
  return age >= options_.max_settle_time ||
         std::all_of(members_.begin(), members_.end(),
                     [](const auto& member) { return member.second.inventory.complete(); });
}

void DirectoryService::Sweep() {
  if (sweep_timer_ != 0 || !index_.sweeping()) return;
  sweep_timer_ = loop_->PostAfter(kSweepDelay, [this] {
    sweep_timer_ = 0;
    index_.Sweep(kSweptLines);
    Sweep();
  });
}

void DirectoryService::Broadcast(const v1::DirectoryUpdate& update, bool is_blocks) {
  for (const auto& [id, subscriber] : subscribers_) {
    if (is_blocks && subscriber.without_blocks) continue;
    subscriber.stream->Send(update);
  }
}

// Questions.

grpc::ServerUnaryReactor* DirectoryService::Match(grpc::CallbackServerContext* context,
                                                  const v1::MatchRequest* request,
                                                  v1::MatchResponse* response) {
  return HandleUnary<v1::MatchRequest, v1::MatchResponse>(
      context, *loop_, request, response,
      [this](const v1::MatchRequest& asked, const UnaryReply<v1::MatchResponse>& reply) {
        reply(Answer(asked));
      });
}

absl::StatusOr<v1::MatchResponse> DirectoryService::Answer(const v1::MatchRequest& request) const {
  if (static_cast<size_t>(request.keys_size()) > options_.max_keys_per_match) {
    return absl::InvalidArgumentError(absl::StrCat("keys: ", request.keys_size(), " are more than ",
                                                   options_.max_keys_per_match));
  }
  std::vector<BlockKey> keys;
  for (const std::string& bytes : request.keys()) {
    ASSIGN_OR_RETURN(BlockKey key, BlockKey::FromBytes(bytes));
    keys.push_back(key);
  }
  v1::MatchResponse response;
  for (const NodeMatch& match : index_.Match(keys)) {
    v1::MatchResponse::Node* node = response.add_nodes();
    node->set_node_id(match.node.value());
    node->set_blocks(match.blocks);
  }
  return response;
}

DirectoryStats DirectoryService::Stats() const {
  return {members_.size(), subscribers_.size(), index_.Stats(), updates_, snapshots_requested_};
}

}  // namespace tarn::kvstore

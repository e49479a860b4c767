#include "kvstore/directory/subscriber.h"

#include <glog/logging.h>

#include <deque>
#include <utility>

#include "common/base/status.h"
#include "common/rpc/channel.h"
#include "common/rpc/client_stream.h"
#include "kvstore/directory/inventory_wire.h"
#include "kvstore/directory/seed.h"
#include "kvstore/wire/convert.h"
#include "proto/kvstore.grpc.pb.h"

namespace tarn::kvstore {
namespace {

// Blocks of a state that is not in use yet, for on_block.
constexpr size_t kMaxBlocksToTell = 65536;
// A tenth of the loop's time, where a node has left.
constexpr size_t kSweptLines = 4096;
constexpr absl::Duration kSweepDelay = absl::Milliseconds(2);

// What one directory has said.
struct ClusterState {
  explicit ClusterState(const BlockIndexOptions& options) : index(options) {}
  BlockIndex index;
  std::map<NodeId, ClusterNode> nodes;
  std::deque<std::pair<NodeId, InventoryChange>> to_tell;
};

bool SameLife(const ClusterNode& a, const ClusterNode& b) {
  return a.info.incarnation() == b.info.incarnation();
}

class Subscription : public DirectorySubscriber {
 public:
  Subscription(DirectorySubscriberOptions options, EventLoop* loop, ClusterListener listener)
      : options_(std::move(options)), loop_(loop), listener_(std::move(listener)) {
    CHECK(!options_.directories.empty());
    current_ = NewState();
    Connect();
  }
  ~Subscription() override {
    loop_->CancelTimer(timer_);
    loop_->CancelTimer(sweep_timer_);
  }

  const BlockIndex& index() const override { return current_->index; }
  const std::map<NodeId, ClusterNode>& nodes() const override { return current_->nodes; }
  bool has_state() const override { return has_state_; }
  bool current() const override { return reader_ != nullptr && caught_up_; }

 private:
  void Connect() {
    timer_ = 0;
    const std::string& target = options_.directories[turn_ % options_.directories.size()];
    // With nothing known yet, half of a state is better than none.
    if (has_state_ || !current_->nodes.empty()) next_ = NewState();
    caught_up_ = false;
    stub_ = v1::Directory::NewStub(MakeChannel(target));
    v1::SubscribeRequest request;
    request.set_without_blocks(options_.without_blocks);
    for (const auto& [node, known] : current_->nodes) request.add_known_nodes(node.value());
    StreamOptions stream_options;
    stream_options.connect_timeout = absl::Seconds(2);
    reader_ = OpenReader(
        stub_->async(), &v1::Directory::StubInterface::async_interface::Subscribe, request, *loop_,
        stream_options,
        StreamHandler<v1::DirectoryUpdate>{
            .on_message = [this](const v1::DirectoryUpdate& update) { OnUpdate(update); },
            .on_closed = [this](const absl::Status& status) { OnClosed(status); }});
  }

  void OnClosed(const absl::Status& status) {
    LOG_EVERY_N(WARNING, 20) << "directory "
                             << options_.directories[turn_ % options_.directories.size()]
                             << " is lost: " << status;
    reader_.reset();
    next_ = nullptr;
    ++turn_;
    timer_ = loop_->PostAfter(options_.reconnect_backoff, [this] { Connect(); });
  }

  void OnUpdate(const v1::DirectoryUpdate& update) {
    if (update.caught_up()) return CaughtUp();
    ClusterState& state = next_ != nullptr ? *next_ : *current_;
    NodeId node(update.node_id());
    if (update.left()) return Leave(state, node, Incarnation(update.incarnation()));
    if (update.has_joined()) Join(state, update.joined());
    auto it = state.nodes.find(node);
    if (it == state.nodes.end() || it->second.info.incarnation() != update.incarnation()) return;
    if (update.has_load()) {
      it->second.load = update.load();
      it->second.load_at = loop_->Now();
      if (live() && listener_.on_load) listener_.on_load(it->second);
    }
    if (CarriesBlocks(update)) OnBlocks(state, node, update);
  }

  void Join(ClusterState& state, const v1::NodeInfo& info) {
    NodeId id(info.node_id());
    auto old = state.nodes.find(id);
    if (old != state.nodes.end() && old->second.info.incarnation() != info.incarnation()) {
      Leave(state, id, Incarnation(old->second.info.incarnation()));
    }
    bool is_new = !state.nodes.contains(id);
    ClusterNode& node = state.nodes[id];
    node.info = info;
    state.index.Join({id, Incarnation(info.incarnation()), info.rpc_address()});
    if (is_new && live() && listener_.on_joined) listener_.on_joined(node);
  }

  void Leave(ClusterState& state, const NodeId& node, Incarnation incarnation) {
    auto it = state.nodes.find(node);
    if (it == state.nodes.end() || it->second.info.incarnation() != incarnation.value()) return;
    state.index.Leave(node, incarnation);
    Sweep();
    state.nodes.erase(it);
    if (live() && listener_.on_left) listener_.on_left(node, incarnation);
  }

  void OnBlocks(ClusterState& state, const NodeId& node, const v1::DirectoryUpdate& update) {
    absl::StatusOr<InventoryBatch> batch = BlocksOf(update);
    if (!batch.ok()) {
      LOG_EVERY_N(ERROR, 100) << "inventory of " << node << ": " << batch.status();
      return;
    }
    if (batch->snapshot_begin) state.index.Clear(node);
    state.index.Apply(node, batch->removes);
    state.index.Apply(node, batch->adds);
    Sweep();
    if (!listener_.on_block) return;
    if (live()) {
      for (const InventoryChange& change : batch->adds) listener_.on_block(node, change);
      return;
    }
    for (InventoryChange& change : batch->adds) {
      state.to_tell.emplace_back(node, std::move(change));
    }
    while (state.to_tell.size() > kMaxBlocksToTell) state.to_tell.pop_front();
  }

  void CaughtUp() {
    caught_up_ = true;
    has_state_ = true;
    if (next_ != nullptr) Replace();
  }

  // The new state is whole: puts it in place of the old one and tells the difference.
  void Replace() {
    std::unique_ptr<ClusterState> old = std::exchange(current_, std::move(next_));
    for (const auto& [id, node] : old->nodes) {
      auto it = current_->nodes.find(id);
      if (it != current_->nodes.end() && SameLife(it->second, node)) continue;
      if (listener_.on_left) listener_.on_left(id, Incarnation(node.info.incarnation()));
    }
    for (const auto& [id, node] : current_->nodes) {
      auto it = old->nodes.find(id);
      bool known = it != old->nodes.end() && SameLife(it->second, node);
      if (!known && listener_.on_joined) listener_.on_joined(node);
      if (node.load_at != absl::InfinitePast() && listener_.on_load) listener_.on_load(node);
    }
    for (const auto& [node, change] : std::exchange(current_->to_tell, {})) {
      listener_.on_block(node, change);
    }
    Sweep();
  }

  void Sweep() {
    if (sweep_timer_ != 0 || !current_->index.sweeping()) return;
    sweep_timer_ = loop_->PostAfter(kSweepDelay, [this] {
      sweep_timer_ = 0;
      current_->index.Sweep(kSweptLines);
      Sweep();
    });
  }

  std::unique_ptr<ClusterState> NewState() const {
    return std::make_unique<ClusterState>(WithSeed(options_.index));
  }

  bool live() const { return next_ == nullptr; }

  const DirectorySubscriberOptions options_;
  EventLoop* const loop_;
  const ClusterListener listener_;
  size_t turn_ = 0;  // which directory, modulo their number
  std::unique_ptr<v1::Directory::Stub> stub_;
  std::shared_ptr<Reader> reader_;
  std::unique_ptr<ClusterState> current_;
  std::unique_ptr<ClusterState> next_;  // while another directory has not sent all it knows
  bool caught_up_ = false;              // with the one that is followed now
  bool has_state_ = false;
  TimerId timer_ = 0;
  TimerId sweep_timer_ = 0;
};

}  // namespace

std::unique_ptr<DirectorySubscriber> DirectorySubscriber::Start(DirectorySubscriberOptions options,
                                                                EventLoop* loop,
                                                                ClusterListener listener) {
  return std::make_unique<Subscription>(std::move(options), loop, std::move(listener));
}

}  // namespace tarn::kvstore

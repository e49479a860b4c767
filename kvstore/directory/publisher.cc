#include "kvstore/directory/publisher.h"

#include <glog/logging.h>

#include <algorithm>
#include <utility>

#include "common/base/status.h"
#include "common/rpc/channel.h"
#include "common/rpc/client_stream.h"
#include "kvstore/directory/inventory.h"
#include "kvstore/directory/inventory_wire.h"
#include "proto/kvstore.grpc.pb.h"

namespace tarn::kvstore {
namespace {

constexpr absl::Duration kMinBackoff = absl::Milliseconds(50);
// One or two milliseconds of the loop, and a tenth of a megabyte.
constexpr int kPartPlaces = 2048;
// The next part waits while the stream has more than this to send.
constexpr size_t kMaxPending = size_t{4} << 20;
constexpr absl::Duration kPendingDelay = absl::Milliseconds(2);

// The stream to one directory, with its own numbers.
class Link {
 public:
  // `read` gives parts of the inventory, `load` what goes out with hello.
  Link(std::string target, const InventoryPublisherOptions* options, EventLoop* loop,
       const InventoryPublisher::Inventory* inventory, const InventoryPublisher::LoadSource* load,
       std::function<void()> on_closed)
      : target_(std::move(target)),
        options_(options),
        loop_(loop),
        inventory_(inventory),
        load_(load),
        on_closed_(std::move(on_closed)) {
    Connect();
  }
  ~Link() {
    loop_->CancelTimer(timer_);
    loop_->CancelTimer(part_timer_);
  }

  bool open() const { return open_; }
  bool synced() const { return open_ && snapshot_end_ > 0 && acknowledged_ >= snapshot_end_; }

  void Record(const InventoryChange& change) { log_.Record(change); }
  void Flush() { Send(log_.Flush()); }
  void SendLoad(const v1::NodeLoad& load) {
    v1::InventoryUpdate update;
    *update.mutable_load() = load;
    stream_->Send(std::move(update));
  }
  void SayGoodbye() {
    leaving_ = true;
    loop_->CancelTimer(timer_);
    loop_->CancelTimer(part_timer_);
    if (!open_) return stream_.reset();
    v1::InventoryUpdate update;
    update.set_goodbye(true);
    stream_->Send(std::move(update));
  }

 private:
  void Connect() {
    timer_ = 0;
    stub_ = v1::Directory::NewStub(MakeChannel(target_));
    StreamOptions stream_options;
    stream_options.connect_timeout = absl::Seconds(2);
    stream_ =
        OpenStream(stub_->async(), &v1::Directory::StubInterface::async_interface::Publish, *loop_,
                   stream_options,
                   StreamHandler<v1::InventoryAck>{
                       .on_open = [this] { OnOpen(); },
                       .on_message = [this](const v1::InventoryAck& ack) { OnAck(ack); },
                       .on_closed = [this](const absl::Status& status) { OnClosed(status); }});
  }

  void OnOpen() {
    open_ = true;
    backoff_ = kMinBackoff;
    log_ = InventoryLog();
    acknowledged_ = 0;
    v1::InventoryUpdate hello;
    *hello.mutable_hello() = options_->info;
    stream_->Send(std::move(hello));
    SendLoad((*load_)());
    BeginSnapshot();
  }

  void BeginSnapshot() {
    log_.DropRecorded();
    begun_ = false;
    cursor_ = 0;
    snapshot_end_ = 0;
    loop_->CancelTimer(part_timer_);
    SendPart();
  }

  void SendPart() {
    part_timer_ = 0;
    if (!open_) return;
    if (stream_->pending_bytes() > kMaxPending) {
      part_timer_ = loop_->PostAfter(kPendingDelay, [this] { SendPart(); });
      return;
    }
    std::vector<InventoryChange> blocks;
    cursor_ = inventory_->read(cursor_, kPartPlaces, &blocks);
    bool end = cursor_ == 0;
    if (!begun_ || end || !blocks.empty()) {
      std::vector<InventoryBatch> batches = log_.Snapshot(std::move(blocks), !begun_, end);
      if (end) snapshot_end_ = batches.back().sequence;
      begun_ = true;
      Send(batches);
    }
    if (!end) part_timer_ = loop_->PostAfter(absl::ZeroDuration(), [this] { SendPart(); });
  }

  void OnAck(const v1::InventoryAck& ack) {
    acknowledged_ = std::max(acknowledged_, ack.sequence());
    if (ack.resend_snapshot() && !leaving_) BeginSnapshot();
  }

  void OnClosed(const absl::Status& status) {
    LOG_EVERY_N(WARNING, 20) << "stream to directory " << target_ << " has ended: " << status;
    open_ = false;
    loop_->CancelTimer(part_timer_);
    stream_.reset();
    if (leaving_) return on_closed_();
    timer_ = loop_->PostAfter(backoff_, [this] { Connect(); });
    backoff_ = std::min(2 * backoff_, options_->max_backoff);
  }

  void Send(const std::vector<InventoryBatch>& batches) {
    for (const InventoryBatch& batch : batches) {
      v1::InventoryUpdate update;
      update.set_sequence(batch.sequence);
      SetBlocks(batch, &update);
      stream_->Send(std::move(update));
    }
  }

  const std::string target_;
  const InventoryPublisherOptions* const options_;
  EventLoop* const loop_;
  const InventoryPublisher::Inventory* const inventory_;
  const InventoryPublisher::LoadSource* const load_;
  const std::function<void()> on_closed_;
  std::unique_ptr<v1::Directory::Stub> stub_;
  std::shared_ptr<Stream<v1::InventoryUpdate>> stream_;
  InventoryLog log_;
  bool open_ = false;
  bool leaving_ = false;
  // The snapshot of the present stream.
  bool begun_ = false;
  uint64_t cursor_ = 0;
  uint64_t snapshot_end_ = 0;  // its last number; 0: not sent yet
  TimerId part_timer_ = 0;
  uint64_t acknowledged_ = 0;
  absl::Duration backoff_ = kMinBackoff;
  TimerId timer_ = 0;
};

class Publisher : public InventoryPublisher {
 public:
  Publisher(InventoryPublisherOptions options, EventLoop* loop, Inventory inventory,
            LoadSource load)
      : options_(std::move(options)),
        loop_(loop),
        inventory_(std::move(inventory)),
        load_(std::move(load)) {
    inventory_.listen([this](const InventoryChange& change) { Record(change); });
    for (const std::string& directory : options_.directories) {
      links_.push_back(std::make_unique<Link>(directory, &options_, loop_, &inventory_, &load_,
                                              [this] { FinishLeaving(); }));
    }
    load_timer_ = loop_->PostAfter(options_.load_interval, [this] { SendLoad(); });
  }

  ~Publisher() override {
    StopTimers();
    inventory_.listen(nullptr);
  }

  int synced() const override {
    return static_cast<int>(std::count_if(links_.begin(), links_.end(),
                                          [](const auto& link) { return link->synced(); }));
  }

  void TellLoad() override {
    loop_->CancelTimer(load_timer_);
    SendLoad();
  }

  void Leave(absl::Duration grace, std::function<void()> done) override {
    StopTimers();
    left_ = std::move(done);
    for (auto& link : links_) link->SayGoodbye();
    leave_timer_ = loop_->PostAfter(grace, [this] {
      if (left_) std::exchange(left_, nullptr)();
    });
    // Also where no link was open; later than this call.
    finish_timer_ = loop_->PostAfter(absl::ZeroDuration(), [this] { FinishLeaving(); });
  }

 private:
  void Record(const InventoryChange& change) {
    bool any = false;
    for (auto& link : links_) {
      if (!link->open()) continue;
      link->Record(change);
      any = true;
    }
    if (any && flush_timer_ == 0) {
      flush_timer_ = loop_->PostAfter(options_.batch_delay, [this] { Flush(); });
    }
  }

  void Flush() {
    flush_timer_ = 0;
    for (auto& link : links_) {
      if (link->open()) link->Flush();
    }
  }

  void SendLoad() {
    v1::NodeLoad load = load_();
    for (auto& link : links_) {
      if (link->open()) link->SendLoad(load);
    }
    load_timer_ = loop_->PostAfter(options_.load_interval, [this] { SendLoad(); });
  }

  void FinishLeaving() {
    bool open =
        std::any_of(links_.begin(), links_.end(), [](const auto& link) { return link->open(); });
    if (open || !left_) return;
    loop_->CancelTimer(leave_timer_);
    std::exchange(left_, nullptr)();
  }

  void StopTimers() {
    for (TimerId timer : {flush_timer_, load_timer_, leave_timer_, finish_timer_}) {
      loop_->CancelTimer(timer);
    }
  }

  const InventoryPublisherOptions options_;
  EventLoop* const loop_;
  const Inventory inventory_;
  const LoadSource load_;
  std::vector<std::unique_ptr<Link>> links_;
  TimerId flush_timer_ = 0;
  TimerId load_timer_ = 0;
  TimerId leave_timer_ = 0;
  TimerId finish_timer_ = 0;
  std::function<void()> left_;
};

}  // namespace

std::unique_ptr<InventoryPublisher> InventoryPublisher::Start(InventoryPublisherOptions options,
                                                              EventLoop* loop, Inventory inventory,
                                                              LoadSource load) {
  return std::make_unique<Publisher>(std::move(options), loop, std::move(inventory),
                                     std::move(load));
}

}  // namespace tarn::kvstore

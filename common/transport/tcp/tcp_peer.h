#pragma once

// A connection to an owner: what was asked of it, and what comes. Private to tcp/; of the reading
// thread.

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/transport/tcp/tcp_socket.h"
#include "common/transport/tcp/tcp_thread.h"
#include "common/transport/tcp/tcp_wire.h"
#include "common/transport/transport.h"

namespace tarn {

class TcpPeer : private TcpThread::Handler {
 public:
  // Who reads. Called from OnReady.
  class Reader {
   public:
    virtual ~Reader() = default;
    // Where the op's bytes go; empty if nobody wants them any more.
    virtual std::span<std::byte> PlaceOf(TransferId transfer, size_t op) = 0;
    // The op's next bytes are in their place.
    virtual void OnPlaced(TransferId transfer, size_t op, size_t size) = 0;
    virtual void OnAnswered(TransferId transfer, size_t op, TcpCode code) = 0;
    // There is room to ask for more.
    virtual void OnRoom(TcpPeer& peer) = 0;
    // Nothing comes any more. Destroys the peer.
    virtual void OnLost(TcpPeer& peer, const absl::Status& why) = 0;
  };

  // `requests`: how many the connection has seen. Thread and reader outlive it.
  TcpPeer(PeerId id, TcpThread& thread, Reader& reader, TcpSocket socket,
          std::vector<TcpRegionDescriptor> regions, uint64_t requests, size_t window_bytes);
  ~TcpPeer() override;

  PeerId id() const { return id_; }
  const std::vector<TcpRegionDescriptor>& regions() const { return regions_; }

  // Whether `size` bytes more may be asked for now.
  bool HasRoom(size_t size) const;
  // Asks for an op of a transfer: answers come in order. Flush sends.
  void Ask(TransferId transfer, size_t op, const ReadOp& read);
  void Flush();

  // Of a peer that owes an answer: how long it has sent nothing, in ticks.
  int CountIdleTick() { return asked_.empty() ? 0 : ++idle_ticks_; }

 private:
  static constexpr size_t kMaxAsked = 64;

  // What was asked for and has not come whole.
  struct Asked {
    TransferId transfer;
    size_t op;
    uint64_t request;
    size_t size;
  };
  enum class Next { kHead, kBody, kTail };

  void OnReady(uint32_t events) override;
  absl::Status Receive();
  absl::Status TakeBuffered(bool& answered);
  absl::Status TakeHead();
  void TakeBody();
  void Placed(size_t size);
  void Answer(TcpCode code);
  std::span<std::byte> Place();
  template <typename T>
  bool Take(T& value);

  const PeerId id_;
  TcpThread& thread_;
  Reader& reader_;
  const TcpSocket socket_;
  const std::vector<TcpRegionDescriptor> regions_;
  const size_t window_bytes_;

  uint64_t requests_;
  std::string outgoing_;
  bool blocked_ = false;  // outgoing_ waits for the kernel
  std::deque<Asked> asked_;
  size_t asked_bytes_ = 0;
  int idle_ticks_ = 0;

  // Of asked_.front().
  Next next_ = Next::kHead;
  size_t placed_ = 0;
  // Came behind the last body: heads, tails and small bodies.
  std::array<std::byte, 4096> buffer_;
  size_t begin_ = 0;
  size_t end_ = 0;
  std::vector<std::byte> unwanted_;  // where bytes go that nobody wants
};

}  // namespace tarn

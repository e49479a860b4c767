#pragma once

// Prefill and decode nodes in virtual time, behind the router's NodeStreams: deterministic tokens,
// a pace, seats, pins, deadlines, deaths and refusals. For tests of the session and for benchmarks.
// Loop-only. Outlives the cluster that uses it.

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/base/ids.h"
#include "common/runtime/event_loop.h"
#include "router/session/node_streams.h"

namespace tarn::router {

class FakeNodes : public NodeStreams {
 public:
  struct Options {
    absl::Duration latency = absl::Microseconds(100);  // of a message, either way
    absl::Duration prefill_per_token = absl::Microseconds(10);
    absl::Duration step = absl::Milliseconds(1);
    size_t seats = 1000;  // of a decode node
    // Whether seats and pins end by themselves when their time is up, as at real nodes.
    bool deadlines = false;
  };
  // Where something may go wrong: what a hook returns, if not OK, is the node's answer.
  struct Faults {
    std::function<absl::Status()> admit, prefill, decode;
  };

  FakeNodes(EventLoop* loop, const Options& options) : loop_(loop), options_(options) {}

  // A node that is alive. Its address is its id. Roles: ROLE_PREFILL, ROLE_DECODE.
  v1::NodeInfo Add(const std::string& id, v1::Role role, uint64_t incarnation = 1);
  // Its streams break, and new ones find nobody.
  void Kill(const std::string& id);
  void Revive(const std::string& id) {
    dead_.erase(id);
    leaving_.erase(id);
  }
  // Refuses what is new as UNAVAILABLE, until it is revived; GiveUp: and what it has.
  void Leave(const std::string& id) { leaving_.insert(id); }
  void GiveUp(const std::string& id);
  Faults& faults() { return faults_; }

  // What the nodes hold now.
  size_t seats() const;
  size_t pins() const;
  int streams_opened() const { return streams_opened_; }
  // Commands that no node should get.
  const std::vector<std::string>& violations() const { return violations_; }
  // Starts of all prefills, in order.
  const std::vector<v1::PrefillStart>& prefills() const { return prefills_; }

  // The only token that may follow: a function of all before it, so that failovers can be checked.
  // Never 0.
  static int32_t NextToken(const std::vector<int32_t>& tokens);

  std::shared_ptr<Stream<v1::PrefillCommand>> OpenPrefill(
      const std::string& address, StreamHandler<v1::PrefillEvents> handler) override;
  std::shared_ptr<Stream<v1::DecodeCommand>> OpenDecode(
      const std::string& address, StreamHandler<v1::DecodeEvents> handler) override;

 private:
  template <typename Command, typename Events>
  class Peer;
  class PrefillPeer;
  class DecodePeer;
  template <typename P>
  std::shared_ptr<P> Connect(std::vector<std::weak_ptr<P>>& peers, std::shared_ptr<P> peer);

  EventLoop* const loop_;
  const Options options_;
  Faults faults_;
  std::set<std::string> dead_, leaving_;
  std::vector<std::weak_ptr<PrefillPeer>> prefill_peers_;
  std::vector<std::weak_ptr<DecodePeer>> decode_peers_;
  std::vector<v1::PrefillStart> prefills_;
  std::vector<std::string> violations_;
  int streams_opened_ = 0;
};

}  // namespace tarn::router

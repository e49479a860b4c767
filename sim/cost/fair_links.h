#pragma once

// Links that transfers share: every flow gets its max-min fair share of all links on its path.
// Progressive filling: D. Bertsekas, R. Gallager, "Data Networks", 1992, section 6.5.2.
//
// A pure value under virtual time: told `now`, which never goes backwards. Equal calls give equal
// answers. A call takes time in proportion to the flows under way.

#include <array>
#include <cstdint>
#include <initializer_list>
#include <vector>

#include "absl/time/time.h"

namespace tarn::sim {

class FairLinks {
 public:
  using Link = int;
  using Flow = uint64_t;
  static constexpr int kMaxPath = 4;

  Link Add(double bytes_per_s);

  // Starts a transfer over one to kMaxPath links. Flows are numbered from 1.
  Flow Start(std::initializer_list<Link> path, double bytes, absl::Time now);

  // When the next flow will have ended, if nothing else happens. InfiniteFuture without flows.
  absl::Time NextEnd() const { return next_end_; }
  // Forgets the flows that have ended by `now`; in the order of their start.
  std::vector<Flow> TakeEnded(absl::Time now);

  // What one more flow over this link would get of it at least, in bytes a second.
  double ShareOf(Link link) const { return links_[link].bytes_per_s / (links_[link].flows + 1); }
  int flows() const { return static_cast<int>(flows_.size()); }
  // All bytes that flows which have ended brought over the link.
  double bytes_over(Link link) const { return links_[link].bytes; }
  double rate(Flow flow) const;  // of one under way, bytes a second

 private:
  struct LinkState {
    double bytes_per_s = 0;
    double bytes = 0;
    int flows = 0;
    // While shares are worked out.
    double left = 0;
    int open = 0;
  };
  struct FlowState {
    Flow id = 0;
    std::array<Link, kMaxPath> path{};
    int links = 0;
    double bytes = 0;
    double left = 0;
    double rate = 0;
    bool open = false;
  };
  void Drain(absl::Time now);
  void Share();
  bool ShareAlone(FlowState& flow) const;
  void Fill();
  void FindNextEnd();

  std::vector<LinkState> links_;
  std::vector<FlowState> flows_;  // by id
  std::vector<Link> used_;        // scratch
  Flow last_ = 0;
  absl::Time now_ = absl::InfinitePast();
  absl::Time next_end_ = absl::InfiniteFuture();
};

}  // namespace tarn::sim

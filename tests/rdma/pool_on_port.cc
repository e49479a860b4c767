#include "tests/rdma/pool_on_port.h"

#include <glog/logging.h>

#include <chrono>
#include <cstring>
#include <sstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "common/memory/block_header.h"
#include "common/runtime/post_and_wait.h"
#include "common/runtime/random.h"
#include "tests/rdma/test_ports.h"

namespace tarn {
namespace {

using kvstore::AcquiredBlock;
using kvstore::NodePoolStats;
using kvstore::PageRef;
using kvstore::PageReservation;

constexpr uint32_t kTokens = 16;
// 8 KiB of payload: a thousand blocks are 12 MiB, seconds on an emulated machine.
const BlockLayout kLayout{.layers = 2,
                          .kv_heads = 2,
                          .head_dim = 32,
                          .block_tokens = kTokens,
                          .type = KvType::kBf16,
                          .alignment = 64};
constexpr absl::Duration kLimit = absl::Seconds(60);

BlockKey Key(uint32_t number) {
  const auto token = static_cast<TokenId>(number);
  return ChildKey(BlockKey{}, {&token, 1});
}

void FillPayload(uint32_t number, std::span<std::byte> payload) { Random(number).Fill(payload); }

bool HasPayloadOf(uint32_t number, std::span<const std::byte> page) {
  std::vector<std::byte> expected(kLayout.payload_bytes());
  FillPayload(number, expected);
  return std::memcmp(page.data() + kLayout.payload_offset(), expected.data(), expected.size()) == 0;
}

}  // namespace

int PoolOnPort::Outcome::ok() const {
  const auto found = codes.find(absl::StatusCode::kOk);
  return found == codes.end() ? 0 : found->second;
}

void PoolOnPort::Outcome::ExpectOkOr(std::initializer_list<absl::StatusCode> others) const {
  int ended = ok();
  for (const absl::StatusCode code : others) {
    const auto found = codes.find(code);
    if (found != codes.end()) ended += found->second;
  }
  EXPECT_EQ(ended, promises);
  for (const auto& [code, count] : codes) {
    EXPECT_TRUE(ended == promises) << count << " blocks: " << absl::StatusCodeToString(code);
  }
  EXPECT_EQ(damaged, 0);
  EXPECT_EQ(promises_left, promises - ok());
}

void PoolOnPort::Pull::Finish(std::vector<absl::StatusOr<AcquiredBlock>> blocks) {
  for (size_t i = 0; i < blocks.size(); ++i) {
    ++outcome_.codes[blocks[i].status().code()];
    if (!blocks[i].ok()) continue;
    const uint32_t number = first_ + static_cast<uint32_t>(i);
    if (!HasPayloadOf(number, blocks[i]->page.bytes())) ++outcome_.damaged;
  }
  outcome_.took = SteadyNow() - started_;
  outcome_.promises_left = reservation_.remaining();
  blocks.clear();
  reservation_ = PageReservation();
  MutexLock lock(mutex_);
  ended_ = true;
  changed_.notify_all();
}

PoolOnPort::Outcome PoolOnPort::Pull::Wait(absl::Duration limit) {
  const auto end = std::chrono::steady_clock::now() + absl::ToChronoNanoseconds(limit);
  bool ended = false;
  {
    MutexLock lock(mutex_);
    while (!ended_ && changed_.wait_until(mutex_, end) != std::cv_status::timeout) {
    }
    ended = ended_;
  }
  EXPECT_TRUE(ended) << "a pull has not ended";
  pool_->OnLoop([this] {
    ticket_.reset();
    reservation_ = PageReservation();
  });
  return ended ? outcome_ : Outcome();
}

PoolOnPort::PoolOnPort(const std::string& port, int pages) {
  auto transport = UcxTransport::Create(OptionsFor(port), loop_);
  CHECK(transport.ok()) << port << ": " << transport.status();
  transport_ = *std::move(transport);
  OnLoop([&] {
    peers_ = std::make_unique<kvstore::FakePeers>(&loop_, transport_.get(), &cluster_);
    kvstore::NodePoolOptions options{.layout = kLayout, .hbm_pages = pages};
    auto pool = kvstore::NodePool::Create(options, &loop_, transport_.get(), peers_.get());
    CHECK(pool.ok()) << pool.status();
    pool_ = *std::move(pool);
  });
}

PoolOnPort::~PoolOnPort() {
  OnLoop([this] {
    pool_.reset();
    peers_.reset();
  });
  transport_.reset();
  loop_.Stop();
}

void PoolOnPort::OnLoop(const std::function<void()>& task) { RunOnLoop(loop_, task); }

void PoolOnPort::CacheBlocks(uint32_t count) {
  OnLoop([&] {
    auto reservation =
        pool_->Reserve(RequestId(1), static_cast<int>(count), loop_.Now() + absl::Hours(1));
    CHECK(reservation.ok()) << reservation.status();
    for (uint32_t number = 0; number < count; ++number) {
      const PageRef page = pool_->Allocate(*reservation);
      FillPayload(number, page.bytes().subspan(kLayout.payload_offset(), kLayout.payload_bytes()));
      SealBlock(kLayout, pool_->IdentityFor(page, Key(number), kTokens), page.bytes());
      pool_->Publish(page, Key(number), Key(number + count), {});
      places_[number] = page.address();
    }
  });
}

PeerAddress PoolOnPort::address() {
  PeerAddress address{transport_->Address(), {}};
  OnLoop([&] { address.regions = pool_->RegionDescriptors(); });
  return address;
}

void PoolOnPort::SetOwner(const PeerAddress& address, BlockPlaces places) {
  OnLoop([&] {
    owner_ = absl::StrCat("owner-", ++owners_);
    cluster_[owner_] = address;
    owner_places_ = std::move(places);
  });
}

std::unique_ptr<PoolOnPort::Pull> PoolOnPort::Start(uint32_t first, uint32_t count,
                                                    absl::Duration time) {
  auto pull = std::make_unique<Pull>();
  pull->pool_ = this;
  pull->first_ = first;
  pull->started_ = SteadyNow();
  OnLoop([&] {
    auto reservation =
        pool_->Reserve(RequestId(2), static_cast<int>(count), loop_.Now() + absl::Hours(1));
    CHECK(reservation.ok()) << reservation.status();
    pull->outcome_.promises = reservation->remaining();
    pull->reservation_ = *std::move(reservation);
    std::vector<kvstore::WantedBlock> wanted;
    for (uint32_t number = first; number < first + count; ++number) {
      const kvstore::BlockSource source{NodeId(owner_), Incarnation(1), owner_, kvstore::Tier::kHbm,
                                        owner_places_.at(number)};
      wanted.push_back({.key = Key(number), .token_count = kTokens, .sources = {source}});
    }
    pull->ticket_ = pool_->Acquire(pull->reservation_, std::move(wanted), loop_.Now() + time,
                                   [p = pull.get()](auto blocks) { p->Finish(std::move(blocks)); });
  });
  return pull;
}

PoolOnPort::Outcome PoolOnPort::Acquire(uint32_t first, uint32_t count, absl::Duration time) {
  return Start(first, count, time)->Wait(kLimit);
}

NodePoolStats PoolOnPort::Stats() {
  NodePoolStats stats;
  OnLoop([&] { stats = pool_->Stats(); });
  return stats;
}

void PoolOnPort::WaitForBytes(uint64_t bytes) {
  const uint64_t goal = Stats().pulled_bytes + bytes;
  const absl::Time end = SteadyNow() + kLimit;
  while (Stats().pulled_bytes < goal) {
    ASSERT_LT(SteadyNow(), end) << "nothing comes";
    std::this_thread::yield();
  }
}

void PoolOnPort::ExpectQuiet() {
  const absl::Time end = SteadyNow() + kLimit;
  while (Stats().pulls_in_flight > 0 && SteadyNow() < end) std::this_thread::yield();
  const NodePoolStats stats = Stats();
  EXPECT_EQ(stats.pulls_in_flight, 0);
  EXPECT_EQ(stats.hbm_held, 0);
  EXPECT_EQ(stats.hbm_reserved, 0);
  EXPECT_EQ(stats.hbm_free + stats.hbm_cached, stats.hbm_pages);
  EXPECT_EQ(stats.leaked, 0);
}

BlockOwner::BlockOwner(const std::string& port, uint32_t count) {
  auto process = ChildProcess::Start(absl::StrCat("owner ", count, " ", port));
  CHECK(process.ok()) << process.status();
  process_ = *std::move(process);
  auto address = process_->channel().ReceiveAddress(kLimit);
  auto places = process_->channel().Receive(kLimit);
  CHECK(address.ok() && places.ok()) << address.status() << places.status();
  address_ = *std::move(address);
  std::istringstream lines(*places);
  uint32_t number = 0;
  kvstore::BlockAddress place;
  while (lines >> number >> place.region >> place.offset >> place.epoch) places_[number] = place;
  CHECK_EQ(places_.size(), count);
}

void RunBlockOwner(Channel& channel, const std::string& role) {
  std::istringstream words(role);
  std::string name;
  std::string port;
  uint32_t count = 0;
  words >> name >> count >> port;
  PoolOnPort pool(port, static_cast<int>(count));
  pool.CacheBlocks(count);
  std::string places;
  for (const auto& [number, place] : pool.places()) {
    absl::StrAppend(&places, number, " ", place.region, " ", place.offset, " ", place.epoch, "\n");
  }
  if (!channel.SendAddress(pool.address()).ok() || !channel.Send(places).ok()) return;
  (void)channel.Receive(absl::InfiniteDuration());
}

}  // namespace tarn

#include "client/load/load_runner.h"

#include <chrono>
#include <memory>
#include <utility>

#include "absl/time/clock.h"
#include "common/base/mutex.h"
#include "common/base/status.h"

namespace tarn::client {
namespace {

// One request under way. Its callbacks come one at a time.
class Tracker {
 public:
  explicit Tracker(RequestRecord* record) : record_(record), sent_(absl::Now()), last_(sent_) {}

  void OnChunk(const v1::GenerateResponse& chunk) {
    if (chunk.token_ids_size() > 0) {
      const absl::Time now = absl::Now();
      if (record_->output_tokens == 0) {
        record_->ttft_ms = absl::ToDoubleMilliseconds(now - sent_);
      } else {
        record_->itl_ms.push_back(absl::ToDoubleMilliseconds(now - last_));
      }
      record_->output_tokens += chunk.token_ids_size();
      last_ = now;
    }
    if (chunk.has_usage()) {
      record_->prompt_tokens = chunk.usage().prompt_tokens();
      record_->cached_tokens = chunk.usage().cached_tokens();
      record_->predicted_ttft_ms = chunk.usage().times().predicted_ttft_us() / 1000.0;
    }
  }

  void OnDone(const absl::Status& status) {
    record_->ok = status.ok();
    record_->error = Message(status);
    record_->e2e_ms = absl::ToDoubleMilliseconds(last_ - sent_);
  }

 private:
  RequestRecord* const record_;
  const absl::Time sent_;
  absl::Time last_;
};

class Run {
 public:
  Run(Client& client, const std::vector<LoadRequest>& requests, const LoadOptions& options)
      : client_(client), requests_(requests), options_(options), trackers_(requests.size()) {
    result_.records.resize(requests.size());
  }

  LoadResult Execute() {
    start_ = reported_ = absl::Now();
    for (size_t i = 0; i < requests_.size(); ++i) {
      WaitFor(start_ + requests_[i].at, [] { return false; });
      if (options_.max_concurrency > 0) {
        WaitFor(absl::InfiniteFuture(),
                [&] { return i - ended_ < static_cast<size_t>(options_.max_concurrency); });
      }
      Send(i);
    }
    WaitFor(absl::InfiniteFuture(), [&] { return ended_ == requests_.size(); });
    result_.duration = absl::Now() - start_;
    Report(absl::Now());
    return std::move(result_);
  }

 private:
  // Until `condition` holds or `until` has come; reports progress meanwhile.
  template <typename Condition>
  void WaitFor(absl::Time until, Condition condition) {
    mutex_.Lock();
    while (!condition()) {
      const absl::Time now = absl::Now();
      if (now >= until) break;
      if (now - reported_ >= absl::Seconds(1)) {
        mutex_.Unlock();
        Report(now);
        mutex_.Lock();
        continue;
      }
      const absl::Time wake = std::min(until, reported_ + absl::Seconds(1));
      changed_.wait_for(mutex_, absl::ToChronoMicroseconds(wake - now));
    }
    mutex_.Unlock();
  }

  void Send(size_t i) {
    trackers_[i] = std::make_unique<Tracker>(&result_.records[i]);
    Tracker* tracker = trackers_[i].get();
    client_.Start(
        requests_[i].request,
        [tracker](const v1::GenerateResponse& chunk) {
          tracker->OnChunk(chunk);
          return true;
        },
        [this, tracker](const absl::Status& status) {
          tracker->OnDone(status);
          // Notified under the lock: the waiter may destroy this as soon as it sees the count.
          MutexLock lock(mutex_);
          ++ended_;
          if (!status.ok()) ++failed_;
          changed_.notify_all();
        });
  }

  void Report(absl::Time now) {
    reported_ = now;
    if (!options_.progress) return;
    size_t ended, failed;
    {
      MutexLock lock(mutex_);
      ended = ended_;
      failed = failed_;
    }
    options_.progress(ended, failed, requests_.size(), now - start_);
  }

  Client& client_;
  const std::vector<LoadRequest>& requests_;
  const LoadOptions& options_;
  std::vector<std::unique_ptr<Tracker>> trackers_;
  LoadResult result_;
  absl::Time start_, reported_;
  Mutex mutex_;
  ConditionVariable changed_;
  // Written under mutex_; the conditions above read them under it too.
  size_t ended_ = 0, failed_ = 0;
};

}  // namespace

LoadResult RunLoad(Client& client, const std::vector<LoadRequest>& requests,
                   const LoadOptions& options) {
  return Run(client, requests, options).Execute();
}

}  // namespace tarn::client

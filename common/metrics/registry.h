#pragma once

// Metrics in Prometheus form: a Registry that a process passes to whatever it builds, no global.
//
// Everything here is thread-safe. Increments are one atomic operation and never block. References
// that the registry hands out live as long as the registry, which must outlive their users.
// A wrong or repeated name is a bug in our code, and CHECK-fails at start-up.

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "common/base/mutex.h"

namespace tarn::metrics {

// Only grows. By convention its name ends in "_total".
class Counter {
 public:
  void Add(uint64_t amount = 1) { value_.fetch_add(amount, std::memory_order_relaxed); }
  uint64_t Value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> value_{0};
};

// Goes up and down.
class Gauge {
 public:
  void Set(double value) { value_.store(value, std::memory_order_relaxed); }
  void Add(double amount) { value_.fetch_add(amount, std::memory_order_relaxed); }
  double Value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<double> value_{0};
};

// What a histogram has seen. counts[i] is the number in (bounds[i - 1], bounds[i]]; the last of
// the bounds.size() + 1 counts is everything above.
struct HistogramSnapshot {
  std::vector<double> bounds;
  std::vector<uint64_t> counts;
  double sum = 0;

  uint64_t Count() const;
  // The value below which a share `q` in [0, 1] of the observations lies, linear inside a bucket
  // as Prometheus' histogram_quantile does it. NaN if empty; the last bound if it lies above.
  double Quantile(double q) const;
};

class Histogram {
 public:
  explicit Histogram(std::vector<double> bounds);
  void Observe(double value);
  // Not one instant: observations under way may be in the counts and not yet in the sum.
  HistogramSnapshot Snapshot() const;

 private:
  const std::vector<double> bounds_;
  std::vector<std::atomic<uint64_t>> counts_;
  std::atomic<double> sum_{0};
};

// `count` bounds, each `factor` times the one before. Seconds of a request:
// ExponentialBounds(0.001, 2, 16).
std::vector<double> ExponentialBounds(double first, double factor, int count);

// One metric per combination of label values.
template <typename Metric>
class Family {
 public:
  using Values = std::vector<std::string>;

  Family(size_t label_count, size_t max_children, Counter& overflows,
         std::function<std::unique_ptr<Metric>()> make)
      : label_count_(label_count),
        max_children_(max_children),
        overflows_(overflows),
        make_(std::move(make)) {}

  // The metric with these label values, one per label name. Takes a lock: keep the reference where
  // it is used often. Past `max_children` combinations all further ones share the metric whose
  // label values are "other", and tarn_metrics_label_overflows_total counts them.
  Metric& With(const Values& values);

  // Calls `visit(values, metric)` for each, in order of the values.
  void ForEach(const std::function<void(const Values&, const Metric&)>& visit) const;

 private:
  const size_t label_count_;
  const size_t max_children_;
  Counter& overflows_;
  const std::function<std::unique_ptr<Metric>()> make_;
  mutable Mutex mutex_;
  std::map<Values, std::unique_ptr<Metric>> children_ ABSL_GUARDED_BY(mutex_);
};

// Label names of a family, and how many combinations of values it may hold.
struct Labels {
  std::vector<std::string> names;
  size_t max_children = 100;
};

// What a callback reports for one combination of label values.
struct Sample {
  std::vector<std::string> label_values;
  double value = 0;
};

class Registry {
 public:
  Registry();
  ~Registry();
  Registry(const Registry&) = delete;
  Registry& operator=(const Registry&) = delete;

  Counter& AddCounter(const std::string& name, const std::string& help);
  Gauge& AddGauge(const std::string& name, const std::string& help);
  // `bounds` ascend strictly; +Inf is implied.
  Histogram& AddHistogram(const std::string& name, const std::string& help,
                          std::vector<double> bounds);

  Family<Counter>& AddCounterFamily(const std::string& name, const std::string& help,
                                    Labels labels);
  Family<Gauge>& AddGaugeFamily(const std::string& name, const std::string& help, Labels labels);
  Family<Histogram>& AddHistogramFamily(const std::string& name, const std::string& help,
                                        Labels labels, std::vector<double> bounds);

  // Read at each Expose, on the thread that calls it. `read` must be thread-safe, must not block,
  // and what it captures must live as long as the registry.
  void AddCallbackGauge(const std::string& name, const std::string& help,
                        std::function<double()> read);
  void AddCallbackCounter(const std::string& name, const std::string& help,
                          std::function<double()> read);
  void AddCallbackGaugeFamily(const std::string& name, const std::string& help,
                              std::vector<std::string> label_names,
                              std::function<std::vector<Sample>()> read);

  // The text exposition format, version 0.0.4, ordered by name. Serve it as kContentType.
  std::string Expose() const;
  static constexpr char kContentType[] = "text/plain; version=0.0.4; charset=utf-8";

 private:
  struct Entry;

  template <typename Metric>
  Family<Metric>& AddFamily(const std::string& name, const std::string& help, const char* type,
                            Labels labels, std::function<std::unique_ptr<Metric>()> make);
  void AddCallback(const std::string& name, const std::string& help, const char* type,
                   std::vector<std::string> label_names, std::function<std::vector<Sample>()> read);
  void Insert(const std::string& name, std::shared_ptr<const Entry> entry);

  Counter label_overflows_;
  mutable Mutex mutex_;
  std::map<std::string, std::shared_ptr<const Entry>> entries_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace tarn::metrics

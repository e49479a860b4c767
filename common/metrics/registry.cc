#include "common/metrics/registry.h"

#include <glog/logging.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "common/metrics/text_format.h"

namespace tarn::metrics {

uint64_t HistogramSnapshot::Count() const {
  uint64_t count = 0;
  for (uint64_t bucket : counts) count += bucket;
  return count;
}

double HistogramSnapshot::Quantile(double q) const {
  const double rank = std::clamp(q, 0.0, 1.0) * static_cast<double>(Count());
  if (Count() == 0) return std::numeric_limits<double>::quiet_NaN();
  double below = 0;
  for (size_t i = 0; i < bounds.size(); ++i) {
    const double inside = static_cast<double>(counts[i]);
    if (inside > 0 && below + inside >= rank) {
      // The first bucket starts at 0, as long as that is below its bound.
      const double low = i == 0 ? std::min(0.0, bounds[0]) : bounds[i - 1];
      return low + (bounds[i] - low) * (rank - below) / inside;
    }
    below += inside;
  }
  return bounds.empty() ? std::numeric_limits<double>::quiet_NaN() : bounds.back();
}

Histogram::Histogram(std::vector<double> bounds)
    : bounds_(std::move(bounds)), counts_(bounds_.size() + 1) {
  CHECK(std::is_sorted(bounds_.begin(), bounds_.end(), std::less_equal<double>()))
      << "histogram bounds must ascend strictly";
}

void Histogram::Observe(double value) {
  // NaN goes to the last bucket; it would poison the sum for ever.
  const auto bound =
      std::isnan(value) ? bounds_.end() : std::lower_bound(bounds_.begin(), bounds_.end(), value);
  counts_[bound - bounds_.begin()].fetch_add(1, std::memory_order_relaxed);
  if (!std::isnan(value)) sum_.fetch_add(value, std::memory_order_relaxed);
}

HistogramSnapshot Histogram::Snapshot() const {
  HistogramSnapshot snapshot;
  snapshot.bounds = bounds_;
  snapshot.counts.reserve(counts_.size());
  for (const auto& count : counts_) {
    snapshot.counts.push_back(count.load(std::memory_order_relaxed));
  }
  snapshot.sum = sum_.load(std::memory_order_relaxed);
  return snapshot;
}

std::vector<double> ExponentialBounds(double first, double factor, int count) {
  CHECK(first > 0 && factor > 1 && count > 0);
  std::vector<double> bounds;
  bounds.reserve(count);
  for (double bound = first; count > 0; --count, bound *= factor) bounds.push_back(bound);
  return bounds;
}

template <typename Metric>
Metric& Family<Metric>::With(const Values& values) {
  CHECK_EQ(values.size(), label_count_) << "one value per label name";
  MutexLock lock(mutex_);
  auto found = children_.find(values);
  if (found == children_.end()) {
    const bool full = children_.size() >= max_children_;
    if (full) overflows_.Add();
    // The shared one comes on top of max_children_.
    found = children_.try_emplace(full ? Values(label_count_, "other") : values).first;
    if (found->second == nullptr) found->second = make_();
  }
  return *found->second;
}

template <typename Metric>
void Family<Metric>::ForEach(const std::function<void(const Values&, const Metric&)>& visit) const {
  std::vector<std::pair<Values, const Metric*>> children;
  {
    MutexLock lock(mutex_);
    children.reserve(children_.size());
    for (const auto& [values, metric] : children_) children.emplace_back(values, metric.get());
  }
  for (const auto& [values, metric] : children) visit(values, *metric);
}

template class Family<Counter>;
template class Family<Gauge>;
template class Family<Histogram>;

namespace {

void Write(TextWriter& out, const std::vector<std::string>& values, const Counter& counter) {
  out.Sample("", values, static_cast<double>(counter.Value()));
}

void Write(TextWriter& out, const std::vector<std::string>& values, const Gauge& gauge) {
  out.Sample("", values, gauge.Value());
}

void Write(TextWriter& out, const std::vector<std::string>& values, const Histogram& histogram) {
  const HistogramSnapshot snapshot = histogram.Snapshot();
  uint64_t cumulated = 0;
  for (size_t i = 0; i < snapshot.counts.size(); ++i) {
    cumulated += snapshot.counts[i];
    const bool last = i == snapshot.bounds.size();
    out.Bucket(values, last ? std::numeric_limits<double>::infinity() : snapshot.bounds[i],
               static_cast<double>(cumulated));
  }
  out.Sample("_sum", values, snapshot.sum);
  out.Sample("_count", values, static_cast<double>(cumulated));
}

}  // namespace

struct Registry::Entry {
  std::string help;
  std::string type;
  std::vector<std::string> label_names;
  std::function<void(TextWriter&)> write;
  std::shared_ptr<void> family;  // owns what AddFamily returned a reference to
};

Registry::Registry() {
  auto entry = std::make_shared<Entry>();
  entry->help = "Uses of label values past a family's limit, counted under the value other.";
  entry->type = "counter";
  entry->write = [this](TextWriter& out) { Write(out, {}, label_overflows_); };
  Insert("tarn_metrics_label_overflows_total", std::move(entry));
}

Registry::~Registry() = default;

void Registry::Insert(const std::string& name, std::shared_ptr<const Entry> entry) {
  CHECK(IsMetricName(name)) << "\"" << name << "\" is no metric name: [a-zA-Z_:][a-zA-Z0-9_:]*";
  for (const std::string& label : entry->label_names) {
    CHECK(IsLabelName(label)) << "\"" << label << "\" is no label name of " << name;
    CHECK(entry->type != "histogram" || label != "le") << name << " must not have the label le";
  }
  MutexLock lock(mutex_);
  CHECK(entries_.emplace(name, std::move(entry)).second) << name << " is registered twice";
}

template <typename Metric>
Family<Metric>& Registry::AddFamily(const std::string& name, const std::string& help,
                                    const char* type, Labels labels,
                                    std::function<std::unique_ptr<Metric>()> make) {
  auto family = std::make_shared<Family<Metric>>(labels.names.size(), labels.max_children,
                                                 label_overflows_, std::move(make));
  auto entry = std::make_shared<Entry>();
  entry->help = help;
  entry->type = type;
  entry->label_names = std::move(labels.names);
  entry->write = [family = family.get()](TextWriter& out) {
    family->ForEach([&out](const auto& values, const auto& metric) { Write(out, values, metric); });
  };
  entry->family = family;
  Insert(name, std::move(entry));
  return *family;
}

Family<Counter>& Registry::AddCounterFamily(const std::string& name, const std::string& help,
                                            Labels labels) {
  return AddFamily<Counter>(name, help, "counter", std::move(labels),
                            [] { return std::make_unique<Counter>(); });
}

Family<Gauge>& Registry::AddGaugeFamily(const std::string& name, const std::string& help,
                                        Labels labels) {
  return AddFamily<Gauge>(name, help, "gauge", std::move(labels),
                          [] { return std::make_unique<Gauge>(); });
}

Family<Histogram>& Registry::AddHistogramFamily(const std::string& name, const std::string& help,
                                                Labels labels, std::vector<double> bounds) {
  return AddFamily<Histogram>(
      name, help, "histogram", std::move(labels),
      [bounds = std::move(bounds)] { return std::make_unique<Histogram>(bounds); });
}

Counter& Registry::AddCounter(const std::string& name, const std::string& help) {
  return AddCounterFamily(name, help, {}).With({});
}

Gauge& Registry::AddGauge(const std::string& name, const std::string& help) {
  return AddGaugeFamily(name, help, {}).With({});
}

Histogram& Registry::AddHistogram(const std::string& name, const std::string& help,
                                  std::vector<double> bounds) {
  return AddHistogramFamily(name, help, {}, std::move(bounds)).With({});
}

void Registry::AddCallback(const std::string& name, const std::string& help, const char* type,
                           std::vector<std::string> label_names,
                           std::function<std::vector<Sample>()> read) {
  auto entry = std::make_shared<Entry>();
  entry->help = help;
  entry->type = type;
  entry->label_names = std::move(label_names);
  entry->write = [read = std::move(read)](TextWriter& out) {
    for (const Sample& sample : read()) out.Sample("", sample.label_values, sample.value);
  };
  Insert(name, std::move(entry));
}

void Registry::AddCallbackGauge(const std::string& name, const std::string& help,
                                std::function<double()> read) {
  AddCallback(name, help, "gauge", {}, [read = std::move(read)] {
    return std::vector<Sample>{{{}, read()}};
  });
}

void Registry::AddCallbackCounter(const std::string& name, const std::string& help,
                                  std::function<double()> read) {
  AddCallback(name, help, "counter", {}, [read = std::move(read)] {
    return std::vector<Sample>{{{}, read()}};
  });
}

void Registry::AddCallbackGaugeFamily(const std::string& name, const std::string& help,
                                      std::vector<std::string> label_names,
                                      std::function<std::vector<Sample>()> read) {
  AddCallback(name, help, "gauge", std::move(label_names), std::move(read));
}

std::string Registry::Expose() const {
  std::map<std::string, std::shared_ptr<const Entry>> entries;
  {
    // Callbacks run without the lock: they may take locks of their own.
    MutexLock lock(mutex_);
    entries = entries_;
  }
  std::string text;
  for (const auto& [name, entry] : entries) {
    TextWriter writer(name, entry->help, entry->type, entry->label_names, text);
    entry->write(writer);
  }
  return text;
}

}  // namespace tarn::metrics

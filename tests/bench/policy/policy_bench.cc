// Block hit rates of eviction policies, by capacity: a table, and a plot.
//
// By hand: bazel run --config=release //tests/bench/policy:policy_bench -- TRACE

#include <CLI/CLI.hpp>
#include <array>
#include <fstream>
#include <iostream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "kvstore/core/learned.h"
#include "kvstore/core/lru.h"
#include "kvstore/core/s3_fifo.h"
#include "sim/report/chart.h"
#include "tests/bench/policy/replay.h"
#include "tests/bench/policy/trace.h"

namespace tarn {
namespace {

struct Row {
  int pages = 0;
  double lru = 0, s3_fifo = 0, learned = 0, belady = 0;
  double lru_ns = 0, s3_fifo_ns = 0, learned_ns = 0;  // a reference

  // Of the way from LRU to the optimum, in percent.
  double Closed(double rate) const {
    return belady > lru ? 100 * (rate - lru) / (belady - lru) : 0;
  }
};

template <typename Policy>
TableReplay Replay(const Trace& trace, int pages) {
  return ReplayThroughTable(trace, pages, std::make_unique<Policy>(pages));
}

Row Measure(const Trace& trace, int pages) {
  const TableReplay lru = Replay<kvstore::LruPolicy>(trace, pages);
  const TableReplay s3_fifo = Replay<kvstore::S3FifoPolicy>(trace, pages);
  const TableReplay learned = Replay<kvstore::LearnedPolicy>(trace, pages);
  return {.pages = pages,
          .lru = lru.hit_rate,
          .s3_fifo = s3_fifo.hit_rate,
          .learned = learned.hit_rate,
          .belady = BeladyHitRate(trace, pages),
          .lru_ns = lru.ns,
          .s3_fifo_ns = s3_fifo.ns,
          .learned_ns = learned.ns};
}

// Figures of one trace at these capacities, printed as they come.
std::vector<Row> Print(const Trace& trace, const std::vector<int>& capacities) {
  std::cout << absl::StrFormat("\n%s: %d requests, %d block references, %d distinct\n", trace.name,
                               trace.requests.size(), trace.references, trace.blocks);
  std::cout << "| blocks | LRU | S3-FIFO | learned | Belady | gap closed: S3-FIFO, learned "
               "| ns a reference: LRU, S3-FIFO, learned |\n|---|---|---|---|---|---|---|\n";
  std::vector<Row> rows;
  for (int pages : capacities) {
    const Row row = Measure(trace, pages);
    std::cout << absl::StrFormat(
        "| %d | %.2f | %.2f | %.2f | %.2f | %.1f%%, %.1f%% | %.0f, %.0f, %.0f |\n", pages,
        100 * row.lru, 100 * row.s3_fifo, 100 * row.learned, 100 * row.belady,
        row.Closed(row.s3_fifo), row.Closed(row.learned), row.lru_ns, row.s3_fifo_ns,
        row.learned_ns);
    std::cout.flush();
    rows.push_back(row);
  }
  return rows;
}

sim::ChartLine Line(const std::string& name, const std::vector<Row>& rows, double Row::*rate,
                    int color, double blocks_per_page) {
  sim::ChartLine line{.name = name, .dashed = blocks_per_page > 1, .color = color};
  for (const Row& row : rows) {
    line.points.emplace_back(row.pages / blocks_per_page, 100 * row.*rate);
  }
  return line;
}

// `rows` at the capacities of BF16, `int8` at twice as many blocks: the same bytes.
sim::Chart Plot(const std::vector<Row>& rows, const std::vector<Row>& int8) {
  sim::Chart chart{.title = "Block hit rate by eviction policy (conversation trace)",
                   .x_label = "capacity, in blocks of 512 tokens of BF16 KV",
                   .y_label = "% of block references"};
  chart.lines = {Line("LRU", rows, &Row::lru, 0, 1),
                 Line("S3-FIFO", rows, &Row::s3_fifo, 1, 1),
                 Line("learned", rows, &Row::learned, 2, 1),
                 Line("Belady", rows, &Row::belady, 3, 1),
                 Line("LRU, INT8 KV", int8, &Row::lru, 0, 2),
                 Line("learned, INT8 KV", int8, &Row::learned, 2, 2)};
  return chart;
}

int Run(const std::string& path, const std::string& svg, uint64_t seed, bool made_up) {
  const std::vector<int> capacities = {1'000, 3'000, 6'000, 10'000, 30'000, 100'000};
  absl::StatusOr<Trace> trace = ReadTrace(path);
  if (trace.ok()) {
    const std::vector<Row> rows = Print(*trace, capacities);
    if (!svg.empty()) {
      std::vector<int> twice;
      for (int pages : capacities) twice.push_back(2 * pages);
      std::cout << "\nThe same bytes with INT8 KV, twice the blocks:";
      std::ofstream file(svg);
      file << ToSvg(Plot(rows, Print(*trace, twice)));
      if (!file.flush()) {
        std::cerr << "cannot write " << svg << "\n";
        return 1;
      }
    }
  } else {
    std::cout << "SKIPPED: " << trace.status().message() << "\n";
  }
  if (!made_up) return 0;
  for (const Trace& other : MadeUpTraces(seed)) Print(other, {1'000, 3'000, 6'000, 10'000});
  return 0;
}

}  // namespace
}  // namespace tarn

int main(int argc, char** argv) {
  CLI::App app("Block hit rates of eviction policies");
  std::string trace = "../shared/traces/conversation_trace.jsonl", svg;
  uint64_t seed = 1;
  bool made_up = false;
  app.add_option("trace", trace, "JSON lines with timestamp and hash_ids")->capture_default_str();
  app.add_option("--svg", svg, "where to write a plot");
  app.add_flag("--made-up", made_up, "also workloads of other shapes, made up by seed");
  app.add_option("--seed", seed, "of these")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  return tarn::Run(trace, svg, seed, made_up);
}

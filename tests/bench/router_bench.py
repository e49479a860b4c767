#!/usr/bin/python3
"""What the router costs: CPU time of its process and of its decision, per request, on a live cluster.

Usage: router_bench.py [--requests N] [--json FILE]   (after bazel build --config=release //...)
A tiny model answers, so the router is busy; the load goes through gRPC with token ids."""
import argparse
import json
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from testing.cluster import Cluster, make_model, run, scratch  # noqa: E402


def cpu_seconds(process):
    with open("/proc/%d/stat" % process.process.pid, encoding="ascii") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(cluster, requests, prompt, answer):
    router = cluster.router
    before, cpu = router.metrics(), cpu_seconds(router)
    figures = os.path.join(scratch(), "figures.json")
    run("bench", "--server", cluster.server, "--num-prompts", requests, "--input-len", prompt,
        "--prefix-len", prompt // 2, "--output-len", answer, "--max-concurrency", 16,
        "--output-json", figures)
    cpu = cpu_seconds(router) - cpu
    after = router.metrics()
    name = "tarn_router_routing_seconds_"
    decisions = after[name + "count"] - before[name + "count"]
    with open(figures, encoding="utf-8") as f:
        seen = json.load(f)
    return {"prompt_tokens": prompt, "answer_tokens": answer,
            "router_cpu_us_per_request": 1e6 * cpu / requests,
            "decision_us": 1e6 * (after[name + "sum"] - before[name + "sum"]) / decisions,
            "requests_per_second": seen["request_throughput"],
            "median_ttft_ms": seen["median_ttft_ms"], "failed": seen["failed"]}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--json")
    arguments = parser.parse_args()
    rows = []
    with Cluster(make_model("tiny", max_position=4096)) as cluster:
        measure(cluster, 50, 256, 4)  # connections, first predictions
        for prompt, answer in ((256, 1), (256, 16), (2048, 1)):
            rows.append(measure(cluster, arguments.requests, prompt, answer))
    print("%8s %8s %18s %12s %10s %10s" % ("prompt", "answer", "router CPU, us", "decision, us",
                                           "req/s", "TTFT, ms"))
    for row in rows:
        print("%8d %8d %18.0f %12.1f %10.1f %10.1f" % (
            row["prompt_tokens"], row["answer_tokens"], row["router_cpu_us_per_request"],
            row["decision_us"], row["requests_per_second"], row["median_ttft_ms"]))
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as f:
            json.dump(rows, f, indent=2)


if __name__ == "__main__":
    main()

#!/usr/bin/python3
"""Replays the first 300 requests of a public trace: no error, and the reported hit rate is the
trace's own prefix sharing, counted here independently.

TARN_TRACE names Mooncake's conversation_trace.jsonl; without it, the same is done with a trace that
is made here."""
import json
import os
import random
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from testing.cluster import Cluster, make_model, run, scratch  # noqa: E402

REQUESTS = 300
BLOCK = 16  # tokens of a KV block, and of one of the trace's blocks of 512


def shared_tokens(trace):
    """Prompt tokens, and those of them in full blocks that an earlier request had, from the front.

    The block with a prompt's last token is computed anyway: its logits are needed."""
    seen, total, shared = set(), 0, 0
    for request in trace:
        length = max(1, -(-request["input_length"] * BLOCK // 512))
        total += length
        usable = request["hash_ids"][:(length - 1) // BLOCK]
        hits = 0
        for block in usable:
            if block not in seen:
                break
            hits += 1
        shared += hits * BLOCK
        seen.update(request["hash_ids"][:length // BLOCK])
    return total, shared


def made_up_trace(count):
    """Conversations whose turns extend each other behind a common first block."""
    rng, trace, ids = random.Random(5), [], iter(range(1, 10**6))
    conversations = [[0]]
    for i in range(count):
        history = rng.choice(conversations)
        blocks = history + [next(ids) for _ in range(rng.randrange(1, 20))]
        conversations.append(blocks)
        trace.append({"timestamp": i * 100, "output_length": rng.randrange(1, 400),
                      "input_length": 512 * (len(blocks) - 1) + rng.randrange(1, 513),
                      "hash_ids": blocks})
    return trace


class ReplayTest(unittest.TestCase):
    def replay(self, trace):
        path = os.path.join(scratch(), "trace.jsonl")
        with open(path, "w", encoding="utf-8") as f:
            f.writelines(json.dumps(request) + "\n" for request in trace)
        longest = max(r["input_length"] + r["output_length"] for r in trace) * BLOCK // 512
        model = make_model("tiny", max_position=longest + 64)
        memory = ["--kv-memory", "512MiB", "--block-tokens", BLOCK]
        figures = os.path.join(scratch(), "figures.json")
        with Cluster(model, prefill_flags=memory, decode_flags=memory) as cluster:
            run("replay", path, "--server", cluster.server, "--block-tokens", BLOCK, "--speed", 0,
                "--max-concurrency", 1, "--output-json", figures, timeout=600)
            cluster.assert_clean()
        with open(figures, encoding="utf-8") as f:
            return json.load(f)

    def check(self, trace):
        total, shared = shared_tokens(trace)
        self.assertGreater(shared, 0.05 * total)
        figures = self.replay(trace)
        self.assertEqual(figures["failed"], 0)
        self.assertEqual(figures["completed"], len(trace))
        self.assertEqual(figures["total_input_tokens"], total)
        self.assertEqual(figures["cached_input_tokens"], shared)
        print("hit rate %.2f%% of %d prompt tokens" % (100 * shared / total, total))

    def test_made_up_trace(self):
        self.check(made_up_trace(60))

    def test_public_trace(self):
        path = os.environ.get("TARN_TRACE", "")
        if not os.path.exists(path):
            self.skipTest("TARN_TRACE does not name conversation_trace.jsonl")
        with open(path, encoding="utf-8") as f:
            trace = [json.loads(line) for _, line in zip(range(REQUESTS), f)]
        self.check(trace)


if __name__ == "__main__":
    unittest.main(verbosity=2)

#!/usr/bin/python3
"""The cluster's tokens equal the one-process run's: cold, cached here, cached elsewhere, alone and
16 at a time, in chunks of 64 and 2,048, streamed and not (invariant I1)."""
import os
import signal
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from testing.cluster import Cluster, make_model, reference  # noqa: E402
from end_to_end.prompts import prompts  # noqa: E402


class EqualityTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.model = make_model("demo")
        cls.requests = prompts()
        cls.expected = reference(cls.model, cls.requests)

    def assert_equal(self, answers, what):
        self.assertEqual(len(answers), len(self.expected))
        for i, (got, want) in enumerate(zip(answers, self.expected)):
            self.assertNotIn("error", got, "%s: request %d" % (what, i))
            for field in ("token_ids", "text", "finish_reason", "prompt_tokens"):
                self.assertEqual(got[field], want[field], "%s: request %d (%s), cached %s" % (
                    what, i, field, got["cached_tokens"]))

    def test_reference_is_not_degenerate(self):
        self.assertGreaterEqual(len(self.requests), 50)
        lengths = [answer["prompt_tokens"] for answer in self.expected]
        self.assertEqual(min(lengths), 1)
        self.assertEqual(max(lengths), 3000)
        # Different prompts have different answers, or equality would say little.
        distinct = {tuple(answer["token_ids"]) for answer in self.expected}
        self.assertGreater(len(distinct), 0.8 * len(self.expected))

    def test_reference_does_not_depend_on_its_own_chunks(self):
        some = self.requests[::7]
        again = reference(self.model, some, "--chunk-tokens", 48)
        self.assertEqual([a["token_ids"] for a in again],
                         [a["token_ids"] for a in self.expected[::7]])

    def run_cluster(self, chunk):
        with Cluster(self.model, prefill=1, decode=1,
                     prefill_flags=["--chunk-tokens", chunk]) as cluster:
            cold = cluster.generate(self.requests)
            self.assert_equal(cold, "cold, one at a time")
            cached = cluster.generate(self.requests, "--no-stream")
            self.assert_equal(cached, "cached, not streamed")
            self.assertGreater(sum(a["cached_tokens"] for a in cached),
                               0.8 * sum(a["prompt_tokens"] for a in cached))
            self.assert_equal(cluster.generate(self.requests, "--concurrency", 16),
                              "cached, 16 at a time")

            # The node that computed everything goes; a fresh one pulls from whoever has it.
            second = cluster.start_node("prefill", 1)
            self.assertEqual(cluster.processes["prefill-0"].kill(signal.SIGTERM), 0)
            cluster.wait_until("the router to see one prefill node",
                               lambda: "prefill-0" not in cluster.router.http("/api/status"))
            elsewhere = cluster.generate(self.requests, "--concurrency", 16)
            self.assert_equal(elsewhere, "cached on another node, 16 at a time")
            self.assertEqual({a["prefill_node"] for a in elsewhere}, {"prefill-1"})
            remote = second.metrics().get('tarn_kv_block_hits_total{origin="remote"}', 0)
            self.assertGreater(remote, 0, "nothing was pulled from another node")
            cluster.assert_clean()

    def test_chunk_2048(self):
        self.run_cluster(2048)

    def test_chunk_64(self):
        self.run_cluster(64)

    def test_cold_16_at_a_time_on_two_and_two_nodes(self):
        with Cluster(self.model, prefill=2, decode=2) as cluster:
            answers = cluster.generate(self.requests, "--concurrency", 16)
            self.assert_equal(answers, "cold, 16 at a time")
            self.assertEqual({a["prefill_node"] for a in answers}, {"prefill-0", "prefill-1"})
            self.assert_equal(cluster.generate(self.requests, "--concurrency", 16),
                              "warm, 16 at a time")
            cluster.assert_clean()


if __name__ == "__main__":
    unittest.main(verbosity=2)

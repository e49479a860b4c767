#!/usr/bin/python3
"""kill -9 and SIGTERM in mid-stream, under load of 16 streams: see README.md.

No request fails, the tokens are those of the one-process run, and afterwards nothing is held."""
import http.client
import json
import os
import random
import signal
import subprocess
import sys
import threading
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from testing.cluster import (Cluster, binary, free_port, make_model, read_answers,  # noqa: E402
                             reference, scratch, total, write_requests)
from testing.load import Load  # noqa: E402

STREAMS = 16
MEMORY = ["--kv-memory", "96MiB", "--dram", "64MiB"]


def make_requests():
    """Streams of some seconds: short and long prompts, greedy and seeded; a third share a prefix."""
    rng = random.Random(11)
    shared = [rng.randrange(3, 1000) for _ in range(500)]
    requests = []
    for i in range(STREAMS):
        prompt = [rng.randrange(3, 1000) for _ in range(rng.choice([20, 250, 900, 1500]))]
        request = {"tokens": shared + prompt if i % 3 == 0 else prompt, "ignore_eos": True,
                   "max_tokens": rng.choice([600, 900, 1200]), "temperature": 0}
        if i % 2:
            request.update(temperature=0.8, top_p=0.95, seed=i)
        requests.append(request)
    return requests


def retries(router, cause):
    return router.metrics().get('tarn_router_retries_total{cause="%s"}' % cause, 0)


class FailoverTestCase(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.model = make_model("tiny", max_position=4096)
        cls.requests = make_requests()
        cls.expected = reference(cls.model, cls.requests)
        cls.cluster = None
        try:
            cls.cluster = cls.make_cluster()
        except BaseException:
            cls.tearDownClass()
            raise

    @classmethod
    def tearDownClass(cls):
        if cls.cluster is not None:
            cls.cluster.stop()

    def tearDown(self):
        # What one scenario left behind must not be the next one's failure.
        for name, process in self.cluster.processes.items():
            if not process.alive():
                self.cluster.restart(name)
        self.await_routers()

    def assert_exact(self, answers, what):
        for i, got in answers:
            self.assertNotIn("error", got, "%s: request %d" % (what, i))
            self.assertEqual(got["token_ids"], self.expected[i]["token_ids"],
                             "%s: request %d, %s to %s" % (what, i, got["prefill_node"],
                                                           got["decode_node"]))

    def load(self, router=None):
        return Load(self.cluster, self.requests, STREAMS, router)

    def await_busy(self, process, metric):
        """Until the process has work in hand, so that what follows is in mid-stream."""
        self.cluster.wait_until("%s to be busy" % process.name,
                                lambda: process.metrics().get(metric, 0) > 0, timeout=60)

    def await_routers(self):
        """Until each router sees every prefill and decode node, connected and willing."""
        def seen(router):
            nodes = json.loads(router.http("/api/status"))["nodes"]
            return sum(1 for n in nodes if n.get("connected")
                       and not n.get("load", {}).get("draining")) >= len(self.cluster.nodes())
        for router in self.cluster.routers:
            self.cluster.wait_until("%s to see all nodes" % router.name, lambda r=router: seen(r))

    def more_rounds(self, load, rounds=1):
        load.await_rounds(self.cluster, len(load.answers) // STREAMS + rounds, STREAMS)


class NodesTest(FailoverTestCase):
    """Two of each: prefill and decode nodes, stores, directories; one router."""

    @classmethod
    def make_cluster(cls):
        return Cluster(cls.model, prefill=2, decode=2, prefill_flags=MEMORY, decode_flags=MEMORY,
                       store_flags=["--dram", "64MiB"],
                       directory_ports=[free_port(), free_port()],
                       store_ports=[free_port(), free_port()])

    def end(self, name, number, busy=None):
        """One process ends under load in mid-stream, and comes back."""
        victim = self.cluster.processes[name]
        load = self.load()
        try:
            self.more_rounds(load)
            if busy:
                self.await_busy(victim, busy)
            status = victim.kill(number)
            self.more_rounds(load, 2)
            self.cluster.restart(name)
            self.await_routers()
            self.more_rounds(load, 2)
        finally:
            answers = load.stop()
        self.assertEqual(status, 0 if number == signal.SIGTERM else -number, victim.log_tail())
        self.assert_exact(answers, "%s ended by %d" % (name, number))
        self.cluster.assert_clean()

    def end_until_noticed(self, name, busy):
        """Kills until a request has lost something: what is busy may be done when the signal comes."""
        before = retries(self.cluster.router, "lost")
        for _ in range(5):
            self.end(name, signal.SIGKILL, busy)
            if retries(self.cluster.router, "lost") > before:
                return
        self.fail("no request was ever in the hands of %s" % name)

    def test_prefill_killed(self):
        self.end_until_noticed("prefill-0", "tarn_prefill_requests_running")

    def test_prefill_terminated(self):
        self.end("prefill-1", signal.SIGTERM, "tarn_prefill_requests_running")

    def test_decode_killed(self):
        self.end_until_noticed("decode-0", "tarn_decode_requests_running")

    def test_decode_terminated(self):
        self.end("decode-1", signal.SIGTERM, "tarn_decode_requests_running")

    def test_store_killed(self):
        self.end("store-0", signal.SIGKILL)

    def test_store_terminated(self):
        self.end("store-0", signal.SIGTERM)

    def test_directory_killed(self):
        self.end("directory-0", signal.SIGKILL)

    def test_directory_terminated(self):
        self.end("directory-0", signal.SIGTERM)

    def test_drain_is_announced(self):
        """A node that drains is listed, gets nothing new, and finishes what it has."""
        request = {"tokens": [7, 8, 9], "max_tokens": 2500, "ignore_eos": True, "temperature": 0}
        expected = reference(self.model, [request])
        answers = []
        client = threading.Thread(target=lambda: answers.extend(self.cluster.generate([request])))
        client.start()
        busy = "tarn_decode_requests_running"
        nodes = [self.cluster.processes["decode-%d" % i] for i in range(2)]
        self.cluster.wait_until("a decode node to be busy",
                                lambda: any(n.metrics()[busy] > 0 for n in nodes))
        victim, other = sorted(nodes, key=lambda node: -node.metrics()[busy])
        victim.process.send_signal(signal.SIGTERM)
        self.cluster.wait_until("the router to hear", lambda: victim.name in self.draining())
        others = self.cluster.generate(self.requests[:4], "--concurrency", 4)
        client.join(timeout=120)
        self.assertFalse(client.is_alive())
        self.assertEqual(victim.process.wait(60), 0)
        self.assertEqual(answers[0]["token_ids"], expected[0]["token_ids"])
        self.assertEqual(answers[0]["decode_node"], victim.name)
        self.assert_exact(enumerate(others), "beside a node that drains")
        self.assertEqual({answer["decode_node"] for answer in others}, {other.name})
        self.cluster.assert_clean()

    def draining(self):
        nodes = json.loads(self.cluster.router.http("/api/status"))["nodes"]
        return [n["info"].get("node_id", n["info"].get("nodeId")) for n in nodes
                if n.get("load", {}).get("draining")]

    def test_decode_out_of_time(self):
        """What is still running at the end of --drain-timeout goes on at the other node."""
        self.give_up("decode-0", "decode", 0, "tarn_decode_requests_running")

    def test_every_decode_node_in_turn(self):
        """A rolling restart that gives running requests no time."""
        moved = retries(self.cluster.router, "left")
        for index in (0, 1):
            self.hurry("decode", index)
        load = self.load()
        try:
            self.more_rounds(load)
            for index in (0, 1, 0, 1):
                name = "decode-%d" % index
                self.await_busy(self.cluster.processes[name], "tarn_decode_requests_running")
                self.assertEqual(self.cluster.processes[name].kill(signal.SIGTERM), 0)
                self.cluster.restart(name)
                self.await_routers()
        finally:
            answers = load.stop()
        self.assert_exact(answers, "rolling restart")
        self.assertGreater(retries(self.cluster.router, "left"), moved)
        self.cluster.assert_clean()
        for index in (0, 1):
            self.replace("decode", index)

    def give_up(self, name, role, index, busy):
        moved = retries(self.cluster.router, "left")
        self.hurry(role, index)
        self.end(name, signal.SIGTERM, busy)
        self.assertGreater(retries(self.cluster.router, "left"), moved)
        self.replace(role, index)

    def hurry(self, role, index):
        self.replace(role, index, "--drain-timeout", "50ms")

    def replace(self, role, index, *flags):
        self.cluster.processes["%s-%d" % (role, index)].kill(signal.SIGTERM)
        self.cluster.start_node(role, index, *flags)
        self.await_routers()


class ClientsTest(FailoverTestCase):
    """Clients that vanish, stand still or have no time, beside 16 streams that must not notice."""

    @classmethod
    def make_cluster(cls):
        return Cluster(cls.model, prefill=2, decode=2, prefill_flags=MEMORY, decode_flags=MEMORY)

    def beside_load(self, story):
        load = self.load()
        try:
            self.more_rounds(load)
            story()
            self.more_rounds(load)
        finally:
            answers = load.stop()
        self.assert_exact(answers, "beside " + self.id())
        self.cluster.assert_clean()

    def start_client(self):
        """A client with all streams at once, and where it will write its answers."""
        out = os.path.join(scratch(), "answers.jsonl")
        client = subprocess.Popen(
            [binary("tarn"), "generate", "--server", self.cluster.server, "--input",
             write_requests(self.requests), "--output", out, "--concurrency", str(STREAMS)],
            stdin=subprocess.DEVNULL)
        self.cluster.wait_until(
            "the streams of load and client",
            lambda: self.cluster.router.metrics()["tarn_router_requests_in_flight"] > STREAMS)
        return client, out

    def await_tokens(self, count):
        """Until the cluster has generated so many more, whoever's they are."""
        def made():
            return self.cluster.router.metrics()["tarn_generation_tokens_total"]
        before = made()
        self.cluster.wait_until("%d tokens" % count, lambda: made() >= before + count)

    def test_killed(self):
        def story():
            for _ in range(3):
                client, _ = self.start_client()
                client.kill()
                self.assertEqual(client.wait(10), -signal.SIGKILL, "it was done before")
        cancelled = 'tarn_router_requests_total{outcome="cancelled"}'
        before = self.cluster.router.metrics().get(cancelled, 0)
        self.beside_load(story)
        self.assertGreater(self.cluster.router.metrics()[cancelled], before)

    def test_stutters(self):
        """Its answers wait for it, and it gets every token. (Who stands still for 15 s is taken for
        dead: that is how long gRPC's pings wait.)"""
        def story():
            client, out = self.start_client()
            try:
                for _ in range(8):
                    client.send_signal(signal.SIGSTOP)
                    self.await_tokens(500)
                    client.send_signal(signal.SIGCONT)
                    self.await_tokens(500)
                self.assertEqual(client.wait(120), 0)
            finally:
                client.kill()
                client.wait(10)
            self.assert_exact(list(enumerate(read_answers(out))), "the client that stood still")
        self.beside_load(story)

    def test_deadlines(self):
        """Whenever the time is up, or is seen to be too short: an error that says so; else the whole
        answer."""
        requests = [dict(request, timeout_ms=int(1.17 ** i))
                    for i, request in enumerate(4 * self.requests)]

        def story():
            answers = self.cluster.generate(requests, "--concurrency", STREAMS, check=False)
            late = 0
            for i, answer in enumerate(answers):
                if "error" in answer:
                    self.assertIn(answer["code"], (4, 8), answer)  # DEADLINE_, RESOURCE_EXHAUSTED
                    late += 1
                else:
                    self.assert_exact([(i % STREAMS, answer)], "in time")
            print("%d of %d were late" % (late, len(answers)))
            self.assertGreater(late, 0)
        self.beside_load(story)


class RoutersTest(FailoverTestCase):
    """Two routers over the same nodes."""

    @classmethod
    def make_cluster(cls):
        return Cluster(cls.model, prefill=2, decode=2, prefill_flags=MEMORY, decode_flags=MEMORY,
                       routers=2)

    def in_flight(self, router):
        return router.metrics()["tarn_router_requests_in_flight"]

    def generate_in_background(self, router):
        """All streams at once through one router, which may die: gives a thread, and a list that it
        fills."""
        answers = []

        def run():
            answers.extend(self.cluster.generate(self.requests, "--concurrency", STREAMS,
                                                 check=False, router=router))
        thread = threading.Thread(target=run)
        thread.start()
        self.cluster.wait_until("%s to have %d streams" % (router.name, STREAMS),
                                lambda: self.in_flight(router) == STREAMS)
        return thread, answers

    def join(self, thread):
        thread.join(timeout=120)
        self.assertFalse(thread.is_alive(), "the client does not end")

    def test_one_killed(self):
        """The other's streams do not notice, and the nodes free what the dead one's requests held."""
        first, second = self.cluster.routers
        load = self.load(second)
        try:
            self.more_rounds(load)
            thread, lost = self.generate_in_background(first)
            first.kill(signal.SIGKILL)
            self.join(thread)
            self.more_rounds(load, 2)
        finally:
            answers = load.stop()
        self.assertTrue(any("error" in answer for answer in lost), "it was killed too late")
        self.assert_exact(answers, "through the other router")
        self.assertEqual(total(second, "tarn_router_retries_total"), 0)
        self.cluster.assert_clean()

    def test_one_terminated(self):
        """Its streams finish; who comes later is sent elsewhere."""
        first, second = self.cluster.routers
        load = self.load(second)
        try:
            thread, answers = self.generate_in_background(first)
            first.process.send_signal(signal.SIGTERM)
            self.cluster.wait_until("readiness to go", lambda: self.get(first, "/ready")[0] == 503)
            status, headers, body = self.complete(first)
            self.assertEqual(status, 503, body)
            self.assertIn("use another", body)
            self.assertGreaterEqual(int(headers["retry-after"]), 1)
            self.join(thread)
            self.assertEqual(first.process.wait(30), 0, first.log_tail())
            self.more_rounds(load)
        finally:
            others = load.stop()
        self.assert_exact(enumerate(answers), "through the router that drained")
        self.assertEqual(len(answers), STREAMS)
        self.assert_exact(others, "through the other router")
        self.cluster.assert_clean()

    def ask(self, router, method, path, body=None):
        connection = http.client.HTTPConnection(router.address["http"], timeout=30)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            headers = {name.lower(): value for name, value in response.getheaders()}
            return response.status, headers, response.read().decode()
        finally:
            connection.close()

    def get(self, router, path):
        return self.ask(router, "GET", path)

    def complete(self, router):
        return self.ask(router, "POST", "/v1/completions", json.dumps({"prompt": "a", "max_tokens": 2}))


if __name__ == "__main__":
    unittest.main(verbosity=2)

#!/usr/bin/python3
"""The pool when tiers are small, nodes die and bits flip: see README.md."""
import json
import os
import random
import signal
import sys
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from testing.cluster import Cluster, free_port, make_model, reference, scratch, total  # noqa: E402
from testing.load import Load  # noqa: E402

BLOCK = 32
PROMPT_BLOCKS = 12
PROMPTS = 20


def make_prompts(count=PROMPTS, seed=1, tail=5):
    """Prompts that share nothing, each of some full blocks and a tail."""
    rng = random.Random(seed)
    return [{"tokens": [rng.randrange(3, 1000) for _ in range(PROMPT_BLOCKS * BLOCK + tail)],
             "max_tokens": 4, "ignore_eos": True, "temperature": 0} for _ in range(count)]


def page_bytes(model):
    """Of the block layout: 64 B of header padded to 256, K and V of all layers, padded to 4 KiB."""
    with open(os.path.join(model, "config.json"), encoding="utf-8") as f:
        config = json.load(f)
    head = config.get("head_dim", config["hidden_size"] // config["num_attention_heads"])
    payload = (config["num_hidden_layers"] * config["num_key_value_heads"] * head * 2 * BLOCK *
               (2 if config.get("torch_dtype") == "bfloat16" else 4))
    return -(-(256 + payload) // 4096) * 4096


class PoolScenariosTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.model = make_model("demo")
        cls.page = page_bytes(cls.model)
        cls.requests = make_prompts()
        cls.expected = reference(cls.model, cls.requests)

    def pages(self, count):
        return "%dB" % (count * self.page)

    def assert_exact(self, answers, what):
        for i, got in answers:
            self.assertNotIn("error", got, "%s: request %d" % (what, i))
            self.assertEqual(got["token_ids"], self.expected[i]["token_ids"],
                             "%s: request %d, cached %s" % (what, i, got["cached_tokens"]))

    def generate(self, cluster, what, *flags, requests=None):
        answers = cluster.generate(requests or self.requests, *flags)
        self.assert_exact(list(enumerate(answers)), what)
        return answers

    def small_memory(self, ssd=None, dram=PROMPTS * PROMPT_BLOCKS // 10):
        """Flags of a prefill node whose memory holds a fraction of what is asked for."""
        flags = ["--kv-memory", self.pages(2 * PROMPT_BLOCKS), "--dram", self.pages(dram)]
        if ssd:
            flags += ["--ssd", ssd, "--ssd-size", self.pages(4 * PROMPTS * PROMPT_BLOCKS)]
        return flags

    def decode_flags(self):
        # Seats, and nothing that would answer for the prefill node's tiers.
        return ["--kv-memory", self.pages(16 * PROMPT_BLOCKS), "--dram", "0"]

    def test_small_dram(self):
        with Cluster(self.model, prefill_flags=self.small_memory(os.path.join(scratch(), "ssd")),
                     decode_flags=self.decode_flags(), store_flags=["--store=false"]) as cluster:
            prefill = cluster.processes["prefill-0"]
            cold = self.generate(cluster, "cold")
            self.assertEqual(sum(a["cached_tokens"] for a in cold), 0)
            blocks = PROMPTS * PROMPT_BLOCKS
            cluster.wait_until(
                "all blocks on the SSD",
                lambda: prefill.metrics()['tarn_kv_blocks{tier="ssd",state="cached"}'] >= blocks)
            for answer in self.generate(cluster, "warm"):
                self.assertGreaterEqual(answer["cached_tokens"], PROMPT_BLOCKS * BLOCK)
            metrics = prefill.metrics()
            from_ssd = metrics['tarn_kv_block_hits_total{origin="ssd"}']
            self.assertGreater(from_ssd, 0.5 * blocks, metrics)
            self.assertEqual(total(prefill, "tarn_kv_verify_failures_total"), 0)
            cluster.assert_clean()

    def test_killed_owner(self):
        with Cluster(self.model, prefill=2, decode=1) as cluster:
            self.generate(cluster, "cold", "--concurrency", 4)
            before = sum(a["cached_tokens"] for a in self.generate(cluster, "warm"))
            self.assertGreater(before, 0.9 * PROMPTS * PROMPT_BLOCKS * BLOCK)
            load = Load(cluster, self.requests)
            load.await_rounds(cluster, 1, PROMPTS)
            self.assertEqual(cluster.processes["prefill-0"].kill(), -signal.SIGKILL)
            load.await_rounds(cluster, len(load.answers) // PROMPTS + 2, PROMPTS)
            self.assert_exact(load.stop(), "while the owner dies")
            cluster.start_node("prefill", 0)
            self.generate(cluster, "after the restart", "--concurrency", 4)
            after = sum(a["cached_tokens"] for a in self.generate(cluster, "warm again"))
            self.assertGreater(after, 0.9 * PROMPTS * PROMPT_BLOCKS * BLOCK, "hits came back")
            cluster.assert_clean()

    def test_power_cut(self):
        ssd = os.path.join(scratch(), "ssd")
        flags = {"prefill_flags": self.small_memory(ssd), "decode_flags": self.decode_flags(),
                 "store_flags": ["--store=false"]}
        blocks = PROMPTS * PROMPT_BLOCKS
        with Cluster(self.model, **flags) as cluster:
            self.generate(cluster, "cold")
            cluster.wait_until(
                "all blocks on the SSD",
                lambda: cluster.processes["prefill-0"].metrics()[
                    'tarn_kv_blocks{tier="ssd",state="cached"}'] >= blocks)
            # The index is written in batches; what was not yet written is only a miss.
            time.sleep(1.5)
            for process in cluster.processes.values():
                process.process.send_signal(signal.SIGKILL)
            for process in cluster.processes.values():
                process.process.wait(30)
        started = time.monotonic()
        with Cluster(self.model, **flags) as cluster:
            first = cluster.generate(self.requests[:1])
            print("first answer %.1f s after the start, %d tokens cached" % (
                time.monotonic() - started, first[0]["cached_tokens"]))
            self.assert_exact([(0, first[0])], "first")
            answers = self.generate(cluster, "after the power cut")
            hit = sum(1 for a in answers if a["cached_tokens"] >= PROMPT_BLOCKS * BLOCK)
            self.assertGreaterEqual(hit, 0.9 * PROMPTS, [a["cached_tokens"] for a in answers])
            cluster.assert_clean()

    def test_directories_restart(self):
        ports = [free_port(), free_port()]
        with Cluster(self.model, prefill=2, decode=1, directory_ports=ports) as cluster:
            self.generate(cluster, "cold", "--concurrency", 4)
            load = Load(cluster, self.requests)
            for i in range(2):
                load.await_rounds(cluster, len(load.answers) // PROMPTS + 1, PROMPTS)
                cluster.kill_directory(i)
                load.await_rounds(cluster, len(load.answers) // PROMPTS + 1, PROMPTS)
                cluster.start_directory(i)
            load.await_rounds(cluster, len(load.answers) // PROMPTS + 1, PROMPTS)
            for i in range(2):
                cluster.kill_directory(i)
            load.await_rounds(cluster, len(load.answers) // PROMPTS + 1, PROMPTS)
            for i in range(2):
                cluster.start_directory(i)
            load.await_rounds(cluster, len(load.answers) // PROMPTS + 1, PROMPTS)
            self.assert_exact(load.stop(), "while directories restart")
            for i in range(2):
                directory = cluster.processes["directory-%d" % i]
                cluster.wait_until("directory %d to know three nodes" % i,
                                   lambda d=directory: d.metrics()["tarn_directory_nodes"] == 3)
            cached = sum(a["cached_tokens"] for a in self.generate(cluster, "afterwards"))
            self.assertGreater(cached, 0.9 * PROMPTS * PROMPT_BLOCKS * BLOCK)
            cluster.assert_clean()

    def test_flipped_bits(self):
        ssd = os.path.join(scratch(), "ssd")
        rng = random.Random(7)
        dram = PROMPTS * PROMPT_BLOCKS // 2
        with Cluster(self.model, prefill_flags=self.small_memory(ssd, dram=dram),
                     decode_flags=self.decode_flags(), store_flags=["--store=false"]) as cluster:
            prefill = cluster.processes["prefill-0"]
            self.generate(cluster, "cold")
            blocks = PROMPTS * PROMPT_BLOCKS
            cluster.wait_until(
                "all blocks on the SSD",
                lambda: prefill.metrics()['tarn_kv_blocks{tier="ssd",state="cached"}'] >= blocks)
            slab = slab_of(prefill.process.pid, dram * self.page)
            flip_memory(prefill.process.pid, slab, dram * self.page, 500, rng)
            flip_file(os.path.join(ssd, "slots"), blocks * self.page, 500, rng)
            for round_ in range(2):
                self.generate(cluster, "with flipped bits, round %d" % round_)
            failures = total(prefill, "tarn_kv_verify_failures_total")
            print("%d damaged blocks were read and refused" % failures)
            # Some 500 flips over as many slots as blocks: most of them are hit, and each damaged copy is
            # read once, then it is dropped.
            self.assertGreater(failures, 0.5 * blocks)
            self.assertLessEqual(failures, 1000)
            again = total(prefill, "tarn_kv_verify_failures_total")
            self.generate(cluster, "once more")
            self.assertLess(total(prefill, "tarn_kv_verify_failures_total") - again, 20)
            cluster.assert_clean()

    def test_two_tenants(self):
        requests = make_prompts(6, seed=1)
        with Cluster(self.model) as cluster:
            for tenant in ("alice", "bob"):
                mine = [dict(r, tenant=tenant) for r in requests]
                answers = self.generate(cluster, tenant + " cold", requests=mine)
                self.assertEqual(sum(a["cached_tokens"] for a in answers), 0,
                                 "%s sees what others have" % tenant)
                answers = self.generate(cluster, tenant + " warm", requests=mine)
                self.assertGreater(min(a["cached_tokens"] for a in answers), 0)
            cluster.assert_clean()


    def flood(self, *share):
        """How many tokens of Alice's prompt are found after Bob has used memory up many times, and how many
        blocks of hers that came from the prefill node itself."""
        mine = [dict(r, tenant="alice") for r in self.requests[:1]]
        dram = 2 * PROMPT_BLOCKS + 4
        flags = ["--kv-memory", self.pages(2 * PROMPT_BLOCKS), "--dram", self.pages(dram), *share]
        # The decode node forgets both of them: it would answer for the prefill node's tiers.
        decode = ["--kv-memory", self.pages(2 * PROMPT_BLOCKS), "--dram", "0"]
        with Cluster(self.model, prefill_flags=flags, decode_flags=decode,
                     store_flags=["--store=false"]) as cluster:
            prefill = cluster.processes["prefill-0"]
            self.generate(cluster, "alice cold", requests=mine)
            cluster.wait_until(
                "all her blocks in DRAM",
                lambda: prefill.metrics()['tarn_kv_blocks{tier="dram",state="cached"}'] >=
                PROMPT_BLOCKS)
            for i in range(0, len(self.flood_requests), 10):
                his = [dict(r, tenant="bob") for r in self.flood_requests[i:i + 10]]
                for got, want in zip(cluster.generate(his), self.flood_expected[i:i + 10]):
                    self.assertEqual(got.get("token_ids"), want["token_ids"], "bob: %s" % got)
            before = self.own_hits(prefill, "alice")
            answers = self.generate(cluster, "alice after the flood", requests=mine)
            cluster.assert_clean()
            return (sum(a["cached_tokens"] for a in answers), self.own_hits(prefill, "alice") - before)

    @staticmethod
    def own_hits(process, tenant):
        return sum(value for key, value in process.metrics().items()
                   if key.startswith("tarn_kv_tenant_hit_blocks_total") and
                   'tenant="%s"' % tenant in key and 'origin="remote' not in key)

    def test_tenant_flood(self):
        # Bob's blocks are more than five times what the prefill node's memory holds.
        self.flood_requests = make_prompts(24, seed=3)
        self.flood_expected = reference(self.model, self.flood_requests)
        tokens, blocks = self.flood("--tenant-share", "alice=50%")
        print("her share: %d tokens hit, %d blocks at the prefill node" % (tokens, blocks))
        self.assertGreaterEqual(tokens, PROMPT_BLOCKS * BLOCK)
        self.assertGreaterEqual(blocks, PROMPT_BLOCKS)
        # With no share at all both would have half. Where it is his, she is left with the rest.
        tokens, blocks = self.flood("--tenant-share", "bob=90%")
        print("his share: %d tokens hit, %d blocks at the prefill node" % (tokens, blocks))
        self.assertLess(blocks, 0.75 * PROMPT_BLOCKS)


def slab_of(pid, size):
    """Where the process maps shared memory of about this size (its DRAM tier)."""
    best = None
    with open("/proc/%d/maps" % pid, encoding="utf-8") as f:
        for line in f:
            span, mode, *rest = line.split()
            begin, end = (int(x, 16) for x in span.split("-"))
            shared = mode[3] == "s" and mode[1] == "w"
            if shared and size <= end - begin <= size + (4 << 20):
                if best is None or end - begin < best[1] - best[0]:
                    best = (begin, end)
    if best is None:
        raise LookupError("no shared mapping of %d bytes in process %d" % (size, pid))
    return best[0]


def flip_memory(pid, begin, size, count, rng):
    with open("/proc/%d/mem" % pid, "r+b", buffering=0) as memory:
        for _ in range(count):
            at = begin + rng.randrange(size)
            memory.seek(at)
            byte = memory.read(1)[0]
            memory.seek(at)
            memory.write(bytes([byte ^ (1 << rng.randrange(8))]))


def flip_file(path, size, count, rng):
    with open(path, "r+b", buffering=0) as file:
        for _ in range(count):
            at = rng.randrange(size)
            file.seek(at)
            byte = file.read(1)
            file.seek(at)
            file.write(bytes([byte[0] ^ (1 << rng.randrange(8))]))
        os.fsync(file.fileno())


if __name__ == "__main__":
    unittest.main(verbosity=2)

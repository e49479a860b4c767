"""A whole tarn cluster on this machine, for tests: real processes on free ports of loopback.

    with Cluster(model, prefill=2) as cluster:
        answers = cluster.generate(requests)

Every wait is bounded; everything that was started is stopped at the end, also after a failure.
"""
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request

BINARIES = {
    "tarn": "client/cli/tarn",
    "tarn-router": "router/server/tarn-router",
    "tarn-prefill": "prefill_node/server/tarn-prefill",
    "tarn-decode": "decode_node/server/tarn-decode",
    "tarn-kvstore": "kvstore/server/tarn-kvstore",
}


def binary(name):
    """In Bazel's runfiles, which are the test's working directory; or in bazel-bin by hand."""
    for root in (".", "bazel-bin"):
        path = os.path.join(root, BINARIES[name])
        if os.path.exists(path):
            return os.path.abspath(path)
    raise FileNotFoundError("%s: build it first (bazel build --config=release //...)" % name)


def scratch():
    return tempfile.mkdtemp(prefix="tarn-", dir=os.environ.get("TEST_TMPDIR"))


def free_port():
    """A port of loopback that nobody had a moment ago, for what must come back at one address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run(*arguments, timeout=300, check=True, stdin=None):
    """Runs `tarn ARGUMENTS`; returns the finished process with its output as text."""
    result = subprocess.run([binary("tarn"), *map(str, arguments)], text=True, timeout=timeout,
                            input=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            check=False)
    if check and result.returncode != 0:
        raise RuntimeError("tarn %s: exit %d\n%s" % (arguments[0], result.returncode,
                                                     result.stderr))
    return result


def make_model(preset="tiny", **shape):
    """A model directory with random weights, e.g. make_model("tiny", max_position=16384)."""
    path = os.path.join(scratch(), "model")
    flags = ["--%s=%s" % (name.replace("_", "-"), value) for name, value in shape.items()]
    run("make-model", path, "--preset", preset, *flags)
    return path


def write_requests(requests):
    path = os.path.join(scratch(), "requests.jsonl")
    with open(path, "w", encoding="utf-8") as f:
        for request in requests:
            f.write(json.dumps(request) + "\n")
    return path


def read_answers(path):
    with open(path, encoding="utf-8") as f:
        return [json.loads(line) for line in f]


def reference(model, requests, *flags, timeout=600):
    """The one-process run of the same requests (invariant I1's oracle)."""
    out = os.path.join(scratch(), "answers.jsonl")
    run("run", "--model", model, "--input", write_requests(requests), "--output", out, *flags,
        timeout=timeout)
    return read_answers(out)


class Process:
    """One tarn process; `address` maps "grpc" and "http" to host:port once it is ready."""

    def __init__(self, name, program, flags, directory, port=0):
        self.name, self.program, self.flags, self.port = name, program, flags, port
        self.ready_file = os.path.join(directory, name + ".ready")
        self.log = os.path.join(directory, name + ".log")
        # A killed process of this name leaves its file behind.
        if os.path.exists(self.ready_file):
            os.remove(self.ready_file)
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [binary(program), "--ready-file", self.ready_file, "--listen", "127.0.0.1:%d" % port,
                 "--http-listen", "127.0.0.1:0", *map(str, flags)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.address = None

    def await_ready(self, timeout=60):
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if os.path.exists(self.ready_file):
                with open(self.ready_file, encoding="utf-8") as f:
                    self.address = json.load(f)
                return self
            if self.process.poll() is not None:
                raise RuntimeError("%s ended with %d\n%s" % (self.name, self.process.returncode,
                                                             self.log_tail()))
            time.sleep(0.02)
        raise TimeoutError("%s is not ready after %d s\n%s" % (self.name, timeout, self.log_tail()))

    def alive(self):
        return self.process.poll() is None

    def kill(self, number=signal.SIGKILL, timeout=30):
        """Sends a signal and waits for the end; returns the exit status."""
        if self.alive():
            self.process.send_signal(number)
        return self.process.wait(timeout)

    def http(self, path, timeout=10):
        with urllib.request.urlopen("http://%s%s" % (self.address["http"], path),
                                    timeout=timeout) as response:
            return response.read().decode()

    def metrics(self):
        """{"name{labels}": value} of /metrics."""
        values = {}
        for line in self.http("/metrics").splitlines():
            match = re.match(r"([^#\s]\S*(?:\{.*\})?) (\S+)$", line)
            if match:
                values[match.group(1)] = float(match.group(2))
        return values

    def log_tail(self, lines=30):
        with open(self.log, encoding="utf-8", errors="replace") as f:
            return "".join(f.readlines()[-lines:])


def total(process, name):
    """The sum of a metric over its labels."""
    return sum(value for key, value in process.metrics().items() if key.split("{")[0] == name)


class Cluster:
    def __init__(self, model, prefill=1, decode=1, prefill_flags=(), decode_flags=(),
                 router_flags=(), store_flags=(), directory_ports=(), store_ports=(), routers=1):
        """`directory_ports` and `store_ports`: a directory at each, without and with a store, instead
        of the one with a store."""
        self.model = model
        self.directory = scratch()
        self.processes = {}
        self.flags = {"prefill": list(prefill_flags), "decode": list(decode_flags)}
        try:
            self.ports = list(directory_ports)
            if directory_ports or store_ports:
                self.directories = ["127.0.0.1:%d" % port for port in [*self.ports, *store_ports]]
                for i in range(len(self.ports)):
                    self.start_directory(i)
                for i, port in enumerate(store_ports):
                    self._start("store-%d" % i, "tarn-kvstore",
                                ["--node-id", "store-%d" % i, *self._directory_flags(),
                                 *store_flags], port).await_ready()
            else:
                self.store = self._start("kvstore", "tarn-kvstore",
                                         ["--node-id", "kvstore", "--dram", "256MiB", *store_flags])
                self.directories = [self.store.await_ready().address["grpc"]]
            for i in range(prefill):
                self.start_node("prefill", i, wait=False)
            for i in range(decode):
                self.start_node("decode", i, wait=False)
            for process in self.processes.values():
                process.await_ready()
            self.routers = [
                self._start("router-%d" % i if i else "router", "tarn-router",
                            ["--model", model, *self._directory_flags(), *router_flags])
                for i in range(routers)]
            for router in self.routers:
                router.await_ready()
        except BaseException:
            self.stop()
            raise

    def _directory_flags(self):
        return [word for address in self.directories for word in ("--directory", address)]

    def start_directory(self, index):
        name = "directory-%d" % index
        self._start(name, "tarn-kvstore", ["--node-id", name, "--store=false"],
                    self.ports[index]).await_ready()

    def kill_directory(self, index):
        self.processes["directory-%d" % index].kill()

    def _start(self, name, program, flags, port=0):
        process = Process(name, program, flags, self.directory, port)
        self.processes[name] = process
        return process

    def start_node(self, role, index, *flags, wait=True):
        name = "%s-%d" % (role, index)
        process = self._start(name, "tarn-" + role,
                              ["--node-id", name, "--model", self.model,
                               *self._directory_flags(), *self.flags[role], *flags])
        return process.await_ready() if wait else process

    def restart(self, name):
        """A new life of a process that has ended, with the flags and the port of the old one."""
        old = self.processes[name]
        assert not old.alive(), name
        process = self._start(name, old.program, old.flags, old.port)
        self.routers = [process if router is old else router for router in self.routers]
        return process.await_ready()

    def nodes(self):
        return [p for name, p in self.processes.items()
                if name.startswith(("prefill", "decode")) and p.alive()]

    @property
    def router(self):
        return self.routers[0]

    @property
    def server(self):
        return self.router.address["grpc"]

    def generate(self, requests, *flags, timeout=600, check=True, router=None):
        out = os.path.join(scratch(), "answers.jsonl")
        server = (router or self.router).address["grpc"]
        run("generate", "--server", server, "--input", write_requests(requests),
            "--output", out, *flags, timeout=timeout, check=check)
        return read_answers(out)

    def wait_until(self, what, condition, timeout=30):
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError("%s: not within %d s" % (what, timeout))
            time.sleep(0.05)

    def assert_clean(self, timeout=15):
        """Everything alive, and nothing held: pages, promises, pulls, requests."""
        for name, process in self.processes.items():
            assert process.alive() or process.process.returncode in (0, -signal.SIGKILL), \
                "%s ended with %s\n%s" % (name, process.process.returncode, process.log_tail())
        self.wait_until("pages and requests back to zero", lambda: not self.held(), timeout)

    def held(self):
        """What is still held anywhere, as {"process metric": value}; empty when all is clean."""
        zero = re.compile(
            r"tarn_kv_leaked_pages|tarn_kv_pulls_in_flight|"
            r'tarn_kv_blocks{.*state="(held|reserved)"|'
            r"tarn_router_requests_in_flight|tarn_http_streams_open|"
            r"tarn_prefill_requests_(running|waiting)|tarn_decode_requests_(running|seated)")
        found = {}
        for process in self.processes.values():
            if process.alive():
                for key, value in process.metrics().items():
                    if zero.match(key) and value != 0:
                        found["%s %s" % (process.name, key)] = value
        return found

    def stop(self):
        for process in reversed(list(self.processes.values())):
            if process.alive():
                process.process.send_signal(signal.SIGTERM)
        for process in self.processes.values():
            try:
                process.process.wait(20)
            except subprocess.TimeoutExpired:
                process.process.kill()
                process.process.wait(10)
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind is not None:
            for process in self.processes.values():
                print("---- %s\n%s" % (process.name, process.log_tail()))
        self.stop()

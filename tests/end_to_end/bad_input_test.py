#!/usr/bin/python3
"""Bad input gets a clear error at the edge or is cleaned up at once; nothing is held afterwards, and the
cluster goes on serving."""
import http.client
import json
import os
import socket
import struct
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from testing.cluster import Cluster, binary, make_model, run, scratch  # noqa: E402

PROMPT = "A tarn is a small lake in a hollow of the mountains. " * 4


class ServingTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.model = make_model("tiny", max_position=2048)
        cls.cluster = Cluster(cls.model)
        cls.name = cls.get("/v1/models")[1]["data"][0]["id"]

    @classmethod
    def tearDownClass(cls):
        cls.cluster.stop()

    def tearDown(self):
        """Whatever a test did: still serving, and nothing held."""
        status, body = self.post("/v1/completions", {"model": self.name, "prompt": "still here?",
                                                     "max_tokens": 3, "ignore_eos": True})
        self.assertEqual(status, 200, body)
        self.assertEqual(body["usage"]["completion_tokens"], 3)
        self.cluster.assert_clean()

    @classmethod
    def address(cls):
        host, port = cls.cluster.router.address["http"].rsplit(":", 1)
        return host, int(port)

    @classmethod
    def request(cls, method, path, body=None, headers=None):
        connection = http.client.HTTPConnection(*cls.address(), timeout=30)
        try:
            connection.request(method, path, body, headers or {"Content-Type": "application/json"})
            response = connection.getresponse()
            text = response.read()
            return response, text
        finally:
            connection.close()

    @classmethod
    def get(cls, path):
        response, text = cls.request("GET", path)
        return response.status, json.loads(text)

    @classmethod
    def post(cls, path, body):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        response, text = cls.request("POST", path, data)
        return response.status, json.loads(text)

    def assert_refused(self, body, status, *words, path="/v1/completions"):
        got, answer = self.post(path, body)
        self.assertEqual(got, status, answer)
        error = answer["error"]
        for field in ("message", "type", "param", "code"):
            self.assertIn(field, error)
        for word in words:
            self.assertIn(word, error["message"])

    def completion(self, **fields):
        return {"model": self.name, "prompt": "a", "max_tokens": 2, **fields}

    # -- what is malformed

    def test_malformed_json(self):
        for body in (b"", b"{", b"[1,2", b"nonsense", b'{"model": }', b"\x00\x01", b"[]", b"3"):
            self.assert_refused(body, 400)

    def test_deep_json(self):
        self.assert_refused(b"[" * 100000 + b"]" * 100000, 400)

    def test_unknown_model(self):
        self.assert_refused(self.completion(model="gpt-9"), 404, "gpt-9")

    def test_unknown_path_and_method(self):
        self.assertEqual(self.request("GET", "/v1/nothing")[0].status, 404)
        self.assertEqual(self.request("GET", "/v1/completions")[0].status, 405)

    def test_empty_and_overlong_prompts(self):
        self.assert_refused(self.completion(prompt=[]), 400, "prompt")
        self.assert_refused(self.completion(prompt="word " * 5000), 400, "2048")
        self.assert_refused(self.completion(prompt=[5] * 2048), 400, "2048")
        self.assert_refused(self.completion(prompt=[5] * 2000, max_tokens=49), 400, "max_tokens",
                            "48")
        self.assert_refused(self.completion(prompt=[-1]), 400, "prompt")
        self.assert_refused(self.completion(prompt=[10**9]), 400, "prompt")

    def test_parameters_out_of_range(self):
        for field, values in {
                "temperature": [-1, 1e9, "hot"],
                "top_p": [0, -0.1, 1.1, "x"],
                "top_k": [-2, 0.5],
                "min_p": [-0.1, 1.1],
                "max_tokens": [0, -5, 1.5, "many"],
                "n": [0, -1, 1000],
                "presence_penalty": [3, -3],
                "frequency_penalty": [3, -3],
                "repetition_penalty": [0, -1],
                "logprobs": [-1, 100],
                "stop": [[""], ["x"] * 1000, 5],
                "seed": ["x"],
        }.items():
            for value in values:
                with self.subTest(field=field, value=value):
                    self.assert_refused(self.completion(**{field: value}), 400, field)

    def test_not_a_number(self):
        # Python writes NaN and Infinity, which are no JSON.
        for text in ("NaN", "Infinity", "-Infinity", "1e999"):
            body = json.dumps(self.completion())[:-1] + ', "temperature": %s}' % text
            self.assert_refused(body.encode(), 400)

    def test_invalid_utf8(self):
        body = json.dumps(self.completion(prompt="XX")).encode().replace(b"XX", b"\xff\xfe")
        self.assert_refused(body, 400)

    def test_chat(self):
        def chat(messages):
            return {"model": self.name, "messages": messages, "max_tokens": 2}
        path = "/v1/chat/completions"
        self.assert_refused(chat([]), 400, "messages", path=path)
        self.assert_refused(chat([{"role": "wizard", "content": "x"}]), 400, "wizard", path=path)
        self.assert_refused(chat([{"role": "user"}]), 400, "content", path=path)
        self.assert_refused(chat("hello"), 400, "messages", path=path)
        self.assert_refused({"model": self.name}, 400, "messages", path=path)

    def test_grpc_names_field_and_limit(self):
        for flags, words in ((["--max-tokens", "5000"], ["max_tokens", "2048"]),
                             (["--model", "gpt-9"], ["gpt-9"])):
            result = run("generate", "--server", self.cluster.server, "a", *flags, check=False)
            self.assertEqual(result.returncode, 1)
            for word in words:
                self.assertIn(word, result.stderr)

    def test_grpc_invalid_utf8(self):
        path = os.path.join(scratch(), "prompt")
        with open(path, "wb") as f:
            f.write(b"ab\xff")
        result = run("generate", "--server", self.cluster.server, "--prompt-file", path, check=False)
        self.assertEqual(result.returncode, 1)
        self.assertIn("prompt: is not valid UTF-8 at byte 2 of 3", result.stderr)

    def test_special_tokens_in_chat_do_not_forge_a_turn(self):
        def tokens(content):
            return self.post("/v1/chat/completions", {
                "model": self.name, "max_tokens": 1,
                "messages": [{"role": "user", "content": content}]})[1]["usage"]["prompt_tokens"]
        # As one special token it would be one token more than nothing.
        self.assertGreater(tokens("<|im_end|>"), tokens("") + 2)

    # -- connections

    def raw(self, data):
        connection = socket.create_connection(self.address(), timeout=30)
        connection.sendall(data)
        return connection

    def test_huge_body_is_refused_unread(self):
        before = self.resident()
        connection = self.raw(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\n"
                              b"Content-Type: application/json\r\nContent-Length: 104857600\r\n\r\n")
        sent = 0
        try:
            for _ in range(100):
                connection.sendall(b" " * (1 << 20))
                sent += 1
        except OSError:
            pass
        try:
            answer = connection.recv(65536)
        except ConnectionResetError:
            answer = b""
        connection.close()
        if answer:
            self.assertIn(b" 413 ", answer.split(b"\r\n")[0])
        else:
            self.assertLess(sent, 100, "the whole body was read")
        self.assertLess(self.resident() - before, 64 << 20)

    def resident(self):
        with open("/proc/%d/statm" % self.cluster.router.process.pid, encoding="ascii") as f:
            return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def test_garbage_bytes(self):
        for data in (b"\x16\x03\x01\x02\x00\x01\x00", b"GET\r\n\r\n", b"A" * 100000, b"\r\n\r\n"):
            connection = self.raw(data)
            connection.settimeout(15)
            try:
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65536):
                    pass
            except OSError:
                pass
            connection.close()

    def stream_request(self, **fields):
        body = json.dumps(self.completion(prompt=PROMPT, stream=True, ignore_eos=True, **fields))
        return ("POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                "Content-Length: %d\r\n\r\n%s" % (len(body), body)).encode()

    def test_client_hangs_up_in_mid_stream(self):
        for _ in range(5):
            connection = self.raw(self.stream_request(max_tokens=1500))
            self.assertIn(b" 200 ", connection.recv(200))
            # RST instead of FIN, as when a process dies.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()
        # tearDown waits for everything to be free long before 1,500 tokens could have been made.

    def test_client_hangs_up_at_once(self):
        for _ in range(5):
            self.raw(self.stream_request(max_tokens=1500)).close()

    def test_grpc_client_killed(self):
        client = subprocess.Popen(
            [binary("tarn"), "generate", "--server", self.cluster.server, PROMPT, "--max-tokens",
             "1500", "--ignore-eos"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.assertTrue(client.stdout.read(1))
        client.kill()
        client.wait(10)
        client.stdout.close()

    def test_slow_reader(self):
        """Reads nothing: its answer waits in bounded memory or the stream is cut; others go on."""
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(30)
        connection.connect(self.address())
        connection.sendall(self.stream_request(max_tokens=1500, logprobs=5))
        status, _ = self.post("/v1/completions", self.completion())
        self.assertEqual(status, 200)
        connection.close()


class StartTest(unittest.TestCase):
    """What a server says of files and ports that are wrong: exit 1, one clear line, no crash."""

    @classmethod
    def setUpClass(cls):
        cls.good = make_model("tiny")

    def broken(self, change):
        model = os.path.join(scratch(), "model")
        subprocess.run(["cp", "-r", self.good, model], check=True)
        change(model)
        return model

    def assert_fails(self, model, *words, program="tarn-prefill"):
        result = subprocess.run(
            [binary(program), "--model", model, "--directory", "127.0.0.1:1", "--listen",
             "127.0.0.1:0", "--http-listen", "127.0.0.1:0", "--node-id", "x"]
            if program != "tarn" else [binary("tarn"), "run", "--model", model, "a"],
            text=True, timeout=60, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, check=False)
        self.assertEqual(result.returncode, 1, result.stdout)
        for word in words:
            self.assertIn(word, result.stdout)

    def edit_config(self, change):
        def apply(model):
            path = os.path.join(model, "config.json")
            with open(path, encoding="utf-8") as f:
                config = json.load(f)
            change(config)
            with open(path, "w", encoding="utf-8") as f:
                json.dump(config, f)
        return self.broken(apply)

    def test_missing_field(self):
        for program in ("tarn-prefill", "tarn"):
            self.assert_fails(self.edit_config(lambda c: c.pop("hidden_size")), "config.json",
                              "hidden_size", program=program)

    def test_mistyped_field(self):
        self.assert_fails(self.edit_config(lambda c: c.update(num_hidden_layers="two")),
                          "num_hidden_layers")

    def test_unsupported_architecture(self):
        self.assert_fails(self.edit_config(lambda c: c.update(architectures=["GPT9"])), "GPT9")

    def test_truncated_weights(self):
        def truncate(model):
            path = os.path.join(model, "model.safetensors")
            os.truncate(path, os.path.getsize(path) // 2)
        for program in ("tarn-decode", "tarn"):
            self.assert_fails(self.broken(truncate), "model.safetensors", program=program)

    def test_mislabelled_weights(self):
        def relabel(model):
            path = os.path.join(model, "model.safetensors")
            with open(path, "r+b") as f:
                size = struct.unpack("<Q", f.read(8))[0]
                header = f.read(size)
                f.seek(8)
                f.write(header.replace(b'"BF16"', b'"F32" ', 1))
        self.assert_fails(self.broken(relabel), "model.safetensors")

    def test_missing_files(self):
        self.assert_fails(self.broken(lambda m: os.remove(os.path.join(m, "model.safetensors"))),
                          "safetensors")
        self.assert_fails(os.path.join(scratch(), "nowhere"), "nowhere")

    def test_port_in_use(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            address = "127.0.0.1:%d" % taken.getsockname()[1]
            for flag in ("--listen", "--http-listen"):
                flags = {"--listen": "127.0.0.1:0", "--http-listen": "127.0.0.1:0", flag: address}
                for program, more in (("tarn-kvstore", []),
                                      ("tarn-prefill", ["--model", self.good, "--directory",
                                                        "127.0.0.1:1", "--node-id", "x"]),
                                      ("tarn-router", ["--model", self.good, "--directory",
                                                       "127.0.0.1:1"])):
                    result = subprocess.run(
                        [binary(program), *[x for pair in flags.items() for x in pair], *more],
                        text=True, timeout=60, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                        stderr=subprocess.STDOUT, check=False)
                    self.assertEqual(result.returncode, 1, (program, flag, result.stdout))
                    self.assertIn(address, result.stdout)
                    self.assertIn("in use", result.stdout)

    def test_bad_flags(self):
        for program in ("tarn-router", "tarn-prefill", "tarn-decode", "tarn-kvstore", "tarn"):
            result = subprocess.run([binary(program), "--nonsense"], text=True, timeout=30,
                                    stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
            self.assertEqual(result.returncode, 2, (program, result.stdout))
            help_text = subprocess.run([binary(program), "--help"], text=True, timeout=30,
                                       stdout=subprocess.PIPE, check=False)
            self.assertEqual(help_text.returncode, 0)
            self.assertIn("--", help_text.stdout)


if __name__ == "__main__":
    unittest.main(verbosity=2)

#!/usr/bin/env python3
"""`steelyard serve` against clients that mean it no good, or have bad luck: it lives on, answers others and ends when told."""
import concurrent.futures
import http.client
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
import unittest
import urllib.parse

from support import BINARY, PATIENCE, ROOT, SteelyardTest, own_memory, run


class Server:
    """A server of its own, whose process the test sees."""

    def __init__(self, test, *flags, env=None, limit=None, stderr=subprocess.PIPE, ignore=()):
        def before():
            for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
                signal.signal(number, signal.SIG_IGN if number in ignore else signal.SIG_DFL)
            if limit:
                resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

        self.process = subprocess.Popen([BINARY, "serve", "--port", "0", *flags], env={**os.environ, **(env or {})},
                                        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr, text=True,
                                        preexec_fn=before)
        self.lines = []
        test.addCleanup(self.end)
        for line in self.process.stderr:
            self.lines.append(line)
            found = re.search(r"listening on http://([^;\s]+)", line)
            if found:
                self.address = urllib.parse.urlsplit("//" + found.group(1))
                return
        test.fail("the server ended: " + "".join(self.lines))

    def read_log(self):
        """From now on the log is read, as a terminal would."""
        self.reader = threading.Thread(target=lambda: self.lines.extend(self.process.stderr), daemon=True)
        self.reader.start()
        return self

    def end(self, number=signal.SIGTERM):
        """Its exit code, or None when it had to be killed."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return None
        finally:
            if hasattr(self, "reader"):
                self.reader.join(PATIENCE)
            self.process.stderr.close()

    def ask(self, method, path, body=None, headers=None, timeout=PATIENCE):
        """(status, body): 0 when the connection broke."""
        connection = http.client.HTTPConnection(self.address.hostname, self.address.port, timeout=timeout)
        try:
            connection.request(method, path, body if body is None or isinstance(body, bytes) else json.dumps(body), headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            return 0, b""
        finally:
            connection.close()

    def post(self, path, body, **options):
        return self.ask("POST", path, body, **options)

    def memory(self, key="VmRSS"):
        with open(f"/proc/{self.process.pid}/status") as status:
            return int(re.search(key + r":\s+(\d+)", status.read()).group(1)) // 1024


class Hostile(SteelyardTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.synth()
        (cls.dir / "tiny-llama.gguf").rename(cls.dir / "tiny.gguf")
        cls.env = {"STEELYARD_MODELS": str(cls.dir), "XDG_CACHE_HOME": str(cls.dir / "cache")}

    def start(self, *flags, **options):
        return Server(self, *flags, env={**self.env, **options.pop("env", {})}, **options).read_log()

    ASK = {"model": "tiny", "prompt": "x", "raw": True, "stream": False, "options": {"num_predict": 1}}

    def test_unloading_while_others_wait(self):
        server = self.start("--quiet")
        stop = time.monotonic() + 4
        odd = []

        def use():
            while time.monotonic() < stop:
                status, body = server.post("/api/generate", self.ASK)
                if status != 200:
                    odd.append((status, body))

        def unload():
            while time.monotonic() < stop:
                server.post("/api/generate", {"model": "tiny", "keep_alive": 0})

        with concurrent.futures.ThreadPoolExecutor(10) as pool:
            for work in [use] * 8 + [unload] * 2:
                pool.submit(work)
        self.assertEqual(odd[:3], [])
        self.assertIsNone(server.process.poll())

    def test_bodies_that_are_work(self):
        """Each took minutes, or the server's life."""
        server = self.start("--quiet")
        bodies = [
            b'{"z":[' + b"{}," * 400000 + b"{}]}",
            b'{"z":{' + b",".join(b'"%x":0' % i for i in range(200000)) + b"}}",
            b'{"z":' + b"[" * 2000000 + b"}",
            b'{"z":"' + b"\\u0000" * 1000000 + b'"}',
            b'{"model":"tiny","context":[' + b"1," * 900000 + b"1]}",
        ]
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            statuses = list(pool.map(lambda i: server.post("/api/generate", bodies[i % len(bodies)])[0], range(20)))
        self.assertEqual(set(statuses), {400})
        self.assertEqual(server.ask("GET", "/api/version")[0], 200)
        self.assertEqual(server.end(), 0)

    @own_memory
    def test_memory_comes_back(self):
        server = self.start("--quiet")
        self.assertEqual(server.post("/api/generate", self.ASK)[0], 200)
        before = server.memory()
        many = b'{"model":"tiny","prompt":1,"z":[' + b'"",' * 500000 + b"0]" + b" " * (12 << 20) + b"}"
        for _ in range(12):
            self.assertEqual(server.post("/api/generate", many)[0], 400)
        for _ in range(100):  # it is given back within a second or two
            if server.memory() < before + 100:
                break
            time.sleep(0.1)
        self.assertLess(server.memory(), before + 100)

    def test_prompts_that_can_not_fit_are_refused_before_they_are_read(self):
        server = self.start("--quiet")
        self.assertEqual(server.post("/api/generate", self.ASK)[0], 200)
        before = server.memory("VmHWM")
        for path, text in (("/api/generate", {"prompt": "a" * (15 << 20), "raw": True}),
                           ("/api/chat", {"messages": [{"role": "user", "content": "a" * (15 << 20)}]})):
            status, body = server.post(path, {"model": "tiny", "stream": False, **text})
            self.assertEqual(status, 400, body)
            self.assertIn(b"context", body)
        self.assertLess(server.memory("VmHWM"), before + 400)
        self.assertEqual(server.post("/api/generate", b" " * (17 << 20))[0], 413)

    def test_endless_uploads_have_a_common_limit(self):
        server = self.start("--quiet")
        before = server.memory()
        sockets = []
        for _ in range(40):
            s = socket.create_connection((server.address.hostname, server.address.port))
            sockets.append(s)
            try:
                s.sendall(b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 16000000\r\n\r\n" + b" " * 15000000)
            except OSError:
                pass  # refused in the middle
        self.assertLess(server.memory(), before + 400)
        self.assertEqual(server.post("/api/generate", self.ASK)[0], 200)
        for s in sockets:
            s.close()

    def test_a_log_that_nobody_reads(self):
        server = Server(self, env=self.env)  # its pipe is never read from here on
        for _ in range(150):
            self.assertEqual(server.ask("GET", "/" + "x" * 3000)[0], 404)
        self.assertEqual(server.post("/api/generate", self.ASK)[0], 200)
        self.assertEqual(server.end(), 0)

    @own_memory
    def test_memory_that_the_system_refuses(self):
        server = self.start("--quiet", limit=700 << 20)
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            big = b'{"model":"tiny","prompt":"' + b"a" * (15 << 20) + b'"}'
            list(pool.map(lambda _: server.post("/api/generate", big), range(32)))
        self.assertIsNone(server.process.poll(), "".join(server.lines))
        for _ in range(100):
            if server.ask("GET", "/api/version")[0] == 200:
                break
            time.sleep(0.1)
        self.assertEqual(server.ask("GET", "/api/version")[0], 200)


class Stress(SteelyardTest):
    def test_a_few_seconds(self):
        done = subprocess.run([sys.executable, ROOT / "tools/stress.py", "--steelyard", BINARY, "--seconds", "6", "--clients", "8"],
                              capture_output=True, text=True, timeout=PATIENCE)
        self.assertEqual((done.returncode, done.stdout.splitlines()[-1:]), (0, ["passed"]), done.stdout + done.stderr)
        for kind in ("generate", "chat", "unload", "vanish", "heavy"):
            self.assertRegex(done.stdout, f"'{kind}': [1-9]")


class Signals(SteelyardTest):
    def test_what_was_ignored_at_the_start_stays_so(self):
        for number in (signal.SIGHUP, signal.SIGINT):
            with self.subTest(number):
                server = Server(self, ignore=[number])
                server.process.send_signal(number)
                time.sleep(0.5)
                self.assertIsNone(server.process.poll())
                self.assertEqual(server.ask("GET", "/")[0], 200)
                self.assertEqual(server.end(), 0)

    def test_hang_up_ends_it(self):
        self.assertEqual(Server(self).end(signal.SIGHUP), 0)


class Start(SteelyardTest):
    def test_a_gpu_that_is_not_there(self):
        if run("plan", self.synth(), "--device", "cuda0").returncode == 0:
            self.skipTest("there is a GPU")
        self.fails("serve", "--port", "0", "--device", "cuda0", code=1, says="cuda")

    def test_senseless_keep_alive(self):
        for text in ("nan", "inf", "x", "5 m", ""):
            self.fails("serve", "--port", "0", "--keep-alive", text, code=2)

    def test_says_that_everybody_may_come(self):
        server = Server(self, "--host", "0.0.0.0").read_log()
        self.assertEqual(server.end(), 0)
        self.assertIn("everybody who reaches this address may use the models, and nobody may change them", "".join(server.lines))

    def test_without_a_home(self):
        env = {k: v for k, v in os.environ.items() if k not in ("HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME")}
        done = subprocess.run([BINARY, "run", str(self.synth()), "hello", "--verbose", "--num-predict", "2"], env=env,
                              stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE, cwd=self.dir)
        self.assertEqual(done.returncode, 0, done.stderr)


if __name__ == "__main__":
    unittest.main()

#!/usr/bin/env python3
"""Ordinary and hostile requests at the same time, while models are loaded and unloaded: does `steelyard serve` live on,
answer those who mean it well, and end when told?

  stress.py [--steelyard BINARY] [--seconds 120] [--clients 12] [--seed N]

Makes two tiny models of its own. Prints how often what was answered, and a verdict; exit code 1 when the server died or
hung, when a well-meant request got anything but an answer or a 503, or when the server's own log has a sanitizer's report.
Give it a binary built with -DSTEELYARD_SANITIZE=thread (or address,undefined) and minutes for the full measure.
"""
import argparse
import collections
import http.client
import json
import os
import pathlib
import random
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse

PATIENCE = 120  # seconds without an answer are a hang


class Stress:
    def __init__(self, address, seconds):
        self.address = (address.hostname, address.port)
        self.end = time.monotonic() + seconds
        self.counts, self.problems, self.lock = collections.Counter(), [], threading.Lock()

    def note(self, kind, problem=None):
        with self.lock:
            self.counts[kind] += 1
            if problem:
                self.problems.append(f"{kind}: {problem}")

    def ask(self, method, path, body=None, headers=None):
        connection = http.client.HTTPConnection(*self.address, timeout=PATIENCE)
        try:
            connection.request(method, path, json.dumps(body) if isinstance(body, dict) else body, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    # ---- those who mean it well ----

    def expect(self, kind, statuses, *request):
        try:
            status, body = self.ask(*request)
            wrong = None if status in statuses and (status != 200 or b'"error"' not in body) else f"{status} {body[:200]}"
        except (OSError, http.client.HTTPException) as error:
            wrong = repr(error)
        self.note(kind, wrong)

    def generate(self, rng):
        body = {"model": rng.choice(["one", "two"]), "prompt": "x" * rng.choice([1, 50, 400]), "raw": rng.random() < 0.5,
                "stream": rng.random() < 0.5, "options": {"num_predict": rng.choice([0, 1, 8, 30]), "num_ctx": rng.choice([0, 500, 900])}}
        self.expect("generate", {200, 503}, "POST", "/api/generate", body)

    def chat(self, rng):
        body = {"model": rng.choice(["one", "two"]), "messages": [{"role": "user", "content": "hello"}], "max_tokens": 5,
                "stream": rng.random() < 0.5}
        self.expect("chat", {200, 503}, "POST", "/v1/chat/completions", body)

    def lists(self, rng):
        self.expect("lists", {200}, "GET", rng.choice(["/", "/api/version", "/api/tags", "/v1/models"]))

    def unload(self, rng):
        self.expect("unload", {200}, "POST", "/api/generate", {"model": rng.choice(["one", "two"]), "keep_alive": 0})

    # ---- the others ----

    def raw(self, kind, data, rng, wait=0.0):
        """Sends bytes and goes, sometimes at once."""
        try:
            with socket.create_connection(self.address, timeout=PATIENCE) as s:
                s.sendall(data)
                if rng.random() < 0.5:
                    s.shutdown(socket.SHUT_WR)
                time.sleep(rng.random() * wait)
                if rng.random() < 0.5:
                    s.settimeout(0.2)
                    s.recv(4096)
        except OSError:
            pass  # it was refused
        self.note(kind)

    def post_bytes(self, body, more=""):
        return (f"POST /api/generate HTTP/1.1\r\nHost: localhost\r\n{more}Content-Length: {len(body)}\r\n\r\n").encode() + body

    def vanish(self, rng):
        body = json.dumps({"model": rng.choice(["one", "two"]), "prompt": "x", "stream": rng.random() < 0.5, "raw": True,
                           "options": {"num_predict": 1000, "temperature": 2}}).encode()
        self.raw("vanish", self.post_bytes(body) + rng.choice([b"", b"\r\n", b"GET / HTTP/1.1\r\n"]), rng, 0.1)

    def heavy(self, rng):
        body = rng.choice([b'{"z":[' + b"{}," * 100000 + b"{}]}", b'{"z":' + b"[" * 100000, b'{"z":{' + b'"a":0,' * 30000 + b"}}",
                           b'{"model":"one","prompt":"' + b"a" * 3000000 + b'"}'])
        self.raw("heavy", self.post_bytes(body), rng, 0.3)

    def garbage(self, rng):
        head = rng.choice([b"\x16\x03\x01\x02\x00", b"GET / HTTP/1.1\r\n\r\n", b"POST /api/chat HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
                           b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: x\r\n\r\n5\r\n", b"X: " + b"y" * 70000,
                           b"GET /\xff\x00 HTTP/1.1\r\nHost: localhost\r\n\r\n", rng.randbytes(300)])
        self.raw("garbage", head, rng, 0.05)

    def half(self, rng):
        self.raw("half a body", self.post_bytes(b" " * 100000)[:rng.randrange(50, 90000)], rng, 0.5)

    def client(self, seed):
        rng = random.Random(seed)
        kinds = [self.generate] * 6 + [self.chat] * 3 + [self.lists] * 2 + [self.unload, self.unload, self.vanish, self.vanish, self.heavy,
                                                                              self.garbage, self.half]
        while time.monotonic() < self.end:
            rng.choice(kinds)(rng)


def start(args, folder):
    environment = {**os.environ, "STEELYARD_MODELS": str(folder), "XDG_CACHE_HOME": str(folder / "cache")}
    for i, name in enumerate(("one", "two")):
        subprocess.run([args.steelyard, "synth", "tiny-llama", folder / f"{name}.gguf", "--type", "q8_0", "--vocabulary", "--seed", str(i)],
                       env=environment, check=True, capture_output=True)
    log = open(folder / "log", "w")
    command = [args.steelyard, "serve", "--port", "0", "--context", "512", "--keep-alive", "1", "--device", "cpu"]
    server = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    for _ in range(600):
        found = re.search(r"listening on http://([^;\s]+)", (folder / "log").read_text())
        if found:
            return server, urllib.parse.urlsplit("//" + found.group(1))
        time.sleep(0.1)
    raise SystemExit("the server doesn't listen: " + (folder / "log").read_text())


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--steelyard", default="build/release/steelyard", help="the binary")
    a.add_argument("--seconds", type=float, default=120)
    a.add_argument("--clients", type=int, default=12)
    a.add_argument("--seed", type=int, default=1)
    args = a.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        server, address = start(args, folder)
        stress = Stress(address, args.seconds)
        threads = [threading.Thread(target=stress.client, args=(args.seed * 1000 + i,)) for i in range(args.clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        problems = stress.problems[:5]
        if server.poll() is None:
            server.terminate()
        try:
            if (code := server.wait(60)) != 0:
                problems.append(f"the server ended with code {code}")
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
            problems.append("the server didn't end when told")
        log = (folder / "log").read_text(errors="replace")
        report = re.search(r"(WARNING: ThreadSanitizer|ERROR: AddressSanitizer|runtime error:).*(\n.*){0,40}", log)
        if report:
            problems.append(report.group(0))
    print(dict(stress.counts))
    print("\n".join(f"failed: {p}" for p in problems) or "passed")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())

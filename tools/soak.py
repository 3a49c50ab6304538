#!/usr/bin/env python3
"""Mixed load on `steelyard serve` for a while: is every request answered, and does memory stay flat?

  soak.py MODEL [MODEL ...] [--seconds 240] [--clients 8] [--device cuda0]

Serves the models at once; clients mix both dialects, lengths, streams, chats (where a model has a template) and
broken-off streams. Prints a line every few seconds (answers, resident MiB of the server, its MiB of GPU memory where
nvidia-smi shows them) and a verdict; exit code 1 when a request failed, a model went without an answer for a minute, or memory grew after the first third.
"""
import argparse
import collections
import json
import os
import pathlib
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

WORDS = "the quick brown fox jumps over lazy dogs while seven wizards brew strange potions in quiet towers".split()
PATIENCE = 60  # seconds without an answer from a model that is asked all the time
GROWTH = 24.0  # MiB that allocators and caches may still take after the first third


def post(address, path, body):
    request = urllib.request.Request(address + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    return urllib.request.urlopen(request, timeout=4 * PATIENCE)


def takes_chat(address, model):
    """Whether the model has a chat template; loads it."""
    body = {"model": model, "messages": [{"role": "user", "content": "hello"}], "options": {"num_predict": 1}, "stream": False}
    try:
        post(address, "/api/chat", body).read()
        return True
    except urllib.error.HTTPError as error:
        text = error.read().decode()
        if error.code == 400 and "no chat template" in text:
            return False
        raise SystemExit(f"{model} doesn't answer: {text}")


class Load:
    def __init__(self, address, models, context):
        self.address, self.models = address, models
        self.longest = max(context - 512, 16)  # characters of a prompt: a token each at worst, and room for template and answer
        self.chatty = [model for model in models if takes_chat(address, model)]
        self.stop = threading.Event()
        self.lock = threading.Lock()
        self.counts = collections.Counter()
        self.failures = []
        self.last = {model: time.monotonic() for model in models}
        self.longest_gap = 0.0

    def done(self, model, kind):
        with self.lock:
            now = time.monotonic()
            self.longest_gap = max(self.longest_gap, now - self.last[model])
            self.last[model] = now
            self.counts[kind] += 1

    def body(self, rng, model):
        text = " ".join(rng.choices(WORDS, k=rng.choice([3, 20, 200, 700])))[:self.longest]
        options = {"num_predict": rng.choice([1, 8, 40, 120]), "seed": rng.randrange(1 << 30), "temperature": rng.choice([0, 0.8])}
        if model not in self.chatty or rng.random() < 0.5:
            return "/api/generate", {"model": model, "prompt": text, "raw": True, "options": options, "stream": rng.random() < 0.7}
        messages = [{"role": "user", "content": text}]
        if rng.random() < 0.5:
            return "/api/chat", {"model": model, "messages": messages, "options": options, "stream": rng.random() < 0.7}
        return "/v1/chat/completions", {"model": model, "messages": messages, "max_tokens": options["num_predict"],
                                        "temperature": options["temperature"], "stream": rng.random() < 0.7}

    def client(self, seed):
        rng = random.Random(seed)
        while not self.stop.is_set():
            model = rng.choice(self.models)
            path, body = self.body(rng, model)
            try:
                with post(self.address, path, body) as answer:
                    if body["stream"] and rng.random() < 0.2:
                        answer.readline()  # and hang up
                        self.done(model, "broken off")
                        continue
                    text = answer.read().decode()
                if '"error"' in text:
                    raise ValueError(text[-300:])
                self.done(model, path)
            except urllib.error.HTTPError as error:
                self.failures.append(f"{path} of {model}: {error}: {error.read().decode()[:200]}")
            except (urllib.error.URLError, OSError, ValueError) as error:
                if not self.stop.is_set():
                    self.failures.append(f"{path} of {model}: {error}")


def resident_mib(pid):
    with open(f"/proc/{pid}/status") as status:
        return int(re.search(r"VmRSS:\s+(\d+)", status.read()).group(1)) / 1024


def gpu_mib(pid):
    """GPU memory of the process, or of all where the driver doesn't tell processes apart; 0 without nvidia-smi."""
    def ask(query):
        command = ["nvidia-smi", query, "--format=csv,noheader,nounits"]
        return [line.split(",") for line in subprocess.run(command, capture_output=True, text=True).stdout.splitlines()]
    try:
        own = [int(used) for owner, used in ask("--query-compute-apps=pid,used_memory") if int(owner) == pid]
        return float(sum(own) or sum(int(used) for used, in ask("--query-gpu=memory.used")))
    except (OSError, ValueError):
        return 0.0


def start_server(args, folder):
    for i, model in enumerate(args.models):
        os.symlink(pathlib.Path(model).resolve(), folder / f"soak{i}.gguf")
    command = [args.steelyard, "serve", "--port", "0", "--quiet", "--keep-alive", "-1", "--context", str(args.context)]
    command += ["--device", args.device] if args.device else []
    server = subprocess.Popen(command, env={**os.environ, "STEELYARD_MODELS": str(folder)}, stderr=subprocess.PIPE, text=True)
    for line in server.stderr:
        sys.stderr.write(line)
        found = re.search(r"listening on (http://\S+);", line)
        if found:
            threading.Thread(target=lambda: [sys.stderr.write(rest) for rest in server.stderr], daemon=True).start()
            return server, found.group(1)
    raise SystemExit("the server ended before it listened")


def soak(args, server, load):
    threads = [threading.Thread(target=load.client, args=(i,)) for i in range(args.clients)]
    for thread in threads:
        thread.start()
    start, samples = time.monotonic(), []
    while time.monotonic() - start < args.seconds and server.poll() is None:
        time.sleep(min(5.0, args.seconds / 6))
        sample = (time.monotonic() - start, resident_mib(server.pid), gpu_mib(server.pid))
        samples.append(sample)
        print(f"{sample[0]:5.0f} s: {sum(load.counts.values())} answers, {sample[1]:.1f} MiB resident, {sample[2]:.0f} MiB on GPUs", flush=True)
    load.stop.set()
    for thread in threads:
        thread.join()
    return samples


def verdict(args, server, load, samples):
    settled = [s for s in samples if s[0] >= args.seconds / 3] or samples[-1:]
    growth = [max(s[i] for s in settled) - settled[0][i] for i in (1, 2)]
    problems = load.failures[:5]
    if server.poll() is not None:
        problems.append(f"the server ended with code {server.returncode}")
    if load.longest_gap > PATIENCE:
        problems.append(f"a model gave no answer for {load.longest_gap:.0f} s")
    if max(growth) > GROWTH:
        problems.append(f"memory grew by {growth[0]:.1f} MiB on the host and {growth[1]:.0f} MiB on GPUs")
    print(f"{dict(load.counts)}; after the first third memory grew by {growth[0]:.1f} MiB (host), {growth[1]:.0f} MiB (GPUs); "
          f"longest time without an answer of a model {load.longest_gap:.1f} s; {len(load.failures)} failures")
    print("\n".join(f"failed: {p}" for p in problems) or "passed")
    return 1 if problems else 0


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("models", nargs="+", help="GGUF files, served at the same time")
    a.add_argument("--steelyard", default="build/release/steelyard", help="the binary")
    a.add_argument("--seconds", type=float, default=240)
    a.add_argument("--clients", type=int, default=8)
    a.add_argument("--context", type=int, default=8192)
    a.add_argument("--device", help="as `steelyard serve` takes it")
    args = a.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        server, address = start_server(args, pathlib.Path(folder))
        try:
            load = Load(address, [f"soak{i}" for i in range(len(args.models))], args.context)
            return verdict(args, server, load, soak(args, server, load))
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    sys.exit(main())

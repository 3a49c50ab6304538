#!/usr/bin/env python3
"""Steelyard against llama.cpp (through llama-cpp-python) on this CPU: same file, same threads, alternating pairs, medians.

  python3 -m venv /tmp/peer && CMAKE_ARGS=-DGGML_NATIVE=ON /tmp/peer/bin/pip install \\
      --no-binary llama-cpp-python llama-cpp-python==0.3.36        # builds it for this CPU, about 10 minutes
  /tmp/peer/bin/python bench/against_peer.py MODEL.gguf [MODEL.gguf ...] --steelyard build/release/steelyard

Tests: pp512 reads a prompt of 512 tokens, tg128 generates 128, tg64@2048 generates 64 with 2048 in the state already. Token ids
are random; the head is computed for the last token of a prompt and for every generated one. Steelyard samples its tokens, the peer
isn't made to. The peer gets what makes it fast: its weights repacked, batches of 512, state in f16 only as far as a sliding
window sees, and flash attention or not, whichever was faster in its warm-up, separately for each test. Both sides run each test
once or more before it counts. The side that isn't measured waits without using the CPU.

--cpu-time: for a machine that does other things too. One thread a side, and seconds of CPU time instead of the clock's: what the
other programs take doesn't count (what they cost in caches and memory bandwidth does).
"""
import argparse
import json
import os
import platform
import random
import re
import resource
import statistics
import subprocess
import sys
import time

TESTS = ("pp512", "tg128", "tg64@2048")
BATCH = 512


def parse_test(name):
    """ "tg64@2048" -> ("tg", 64, 2048)"""
    found = re.fullmatch(r"(pp|tg)(\d+)(?:@(\d+))?", name)
    if not found:
        raise argparse.ArgumentTypeError(f"{name} is no test; tests look like pp512, tg128, tg64@2048")
    return found[1], int(found[2]), int(found[3] or 0)


def test_list(names):
    for name in names.split(","):
        parse_test(name)
    return names.split(",")


class Peer:
    """One loaded model in llama.cpp; measure(test) is tokens/s of one run."""

    def __init__(self, model, threads, tests, clock):
        import llama_cpp

        self.lib, self.clock = llama_cpp, clock
        llama_cpp.llama_log_set(QUIET, None)
        llama_cpp.llama_backend_init()
        params = llama_cpp.llama_model_default_params()
        params.n_gpu_layers = 0
        self.model = llama_cpp.llama_model_load_from_file(model.encode(), params)
        if not self.model:
            raise SystemExit(f"the peer can't load {model}")
        self.vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))
        longest = max(count + depth for _, count, depth in map(parse_test, tests))
        self.contexts = {flash: self.context(threads, flash, longest) for flash in (0, 1)}
        self.filled, self.best = {0: 0, 1: 0}, {}  # per context: tokens in its state that a test may start behind
        self.random = random.Random(7)
        self.batch = llama_cpp.llama_batch_init(BATCH, 0, 1)

    def context(self, threads, flash, longest):
        params = self.lib.llama_context_default_params()
        params.n_ctx = longest
        params.n_batch = params.n_ubatch = BATCH
        params.n_threads = params.n_threads_batch = threads
        params.flash_attn_type = flash
        params.swa_full = False  # layers with a sliding window keep and read only the window
        return self.lib.llama_init_from_model(self.model, params)

    def decode(self, ctx, first, count):
        b = self.batch
        b.n_tokens = count
        for i in range(count):
            b.token[i], b.pos[i], b.n_seq_id[i] = self.random.randrange(self.vocabulary), first + i, 1
            b.seq_id[i][0], b.logits[i] = 0, i == count - 1
        if self.lib.llama_decode(ctx, b):
            raise SystemExit("the peer failed to decode")
        self.lib.llama_synchronize(ctx)

    def prompt(self, ctx, first, count):
        for at in range(first, first + count, BATCH):
            self.decode(ctx, at, min(BATCH, first + count - at))

    def fill(self, flash, depth):
        """Leaves exactly `depth` tokens in the state."""
        memory = self.lib.llama_get_memory(self.contexts[flash])
        if self.filled[flash] == depth:
            self.lib.llama_memory_seq_rm(memory, 0, depth, -1)
            return
        self.lib.llama_memory_clear(memory, True)
        self.prompt(self.contexts[flash], 0, depth)
        self.filled[flash] = depth

    def once(self, test, flash):
        kind, count, depth = parse_test(test)
        self.fill(flash, depth)
        start = self.clock()
        if kind == "pp":
            self.prompt(self.contexts[flash], depth, count)
        else:
            for i in range(count):
                self.decode(self.contexts[flash], depth + i, 1)
        return count / (self.clock() - start)

    def measure(self, test):
        if test not in self.best:  # warm-up, which also says whether flash attention is faster
            self.best[test] = max((0, 1), key=lambda flash: max(self.once(test, flash) for _ in range(2)))
        return self.once(test, self.best[test])


def serve_peer(args):
    """Worker: a test's name a line on stdin -> a JSON line on stdout."""
    peer = Peer(args.serve_peer, args.threads, args.tests, time.process_time if args.cpu_time else time.perf_counter)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        speed = peer.measure(line.strip())
        print(json.dumps({"speed": speed, "flash": peer.best[line.strip()]}), flush=True)


class PeerProcess:
    def __init__(self, model, args):
        command = [sys.executable, os.path.abspath(__file__), "--serve-peer", model, "--threads", str(args.threads)]
        command += ["--tests", ",".join(args.tests)] + ["--cpu-time"] * args.cpu_time
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.flash = {}
        self.read()

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("the peer ended early")
        return json.loads(line)

    def measure(self, test):
        self.process.stdin.write(test + "\n")
        self.process.stdin.flush()
        answer = self.read()
        self.flash[test] = answer["flash"]
        return answer["speed"]

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def steelyard_bench(args, model, tests, repeat):
    """The results of one process, which measures each test after its own warm-up."""
    command = [args.steelyard, "bench", model, "--threads", str(args.threads), "--tests", ",".join(tests), "--json"]
    done = subprocess.run([*command, "--repeat", str(repeat)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
    return {r["test"]: r["tokens_per_second"] for r in json.loads(done.stdout)["results"]}


def steelyard_cpu_speed(args, model, test):
    """Tokens per second of CPU time: what some more runs of the test, four seconds or so, add to a process."""

    def spent(repeat):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        found = steelyard_bench(args, model, [test], repeat)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime, found[test]

    count = parse_test(test)[1]
    once, speed = spent(1)
    more = max(2, round(4 * speed / count))
    return more * count / (spent(1 + more)[0] - once)


def measure_steelyard(args, model):
    if args.cpu_time:
        return {test: steelyard_cpu_speed(args, model, test) for test in args.tests}
    return steelyard_bench(args, model, args.tests, 1)


def spread(values):
    return (max(values) - min(values)) / statistics.median(values)


def compare(args, model):
    peer = PeerProcess(model, args)
    runs = {test: {"steelyard": [], "peer": []} for test in args.tests}
    for test in args.tests:
        peer.measure(test)  # loads, warms and picks flash attention

    def run_peer():
        for test in args.tests:
            runs[test]["peer"].append(peer.measure(test))

    def run_steelyard():
        if not args.peer_only:
            found = measure_steelyard(args, model)
            for test in args.tests:
                runs[test]["steelyard"].append(found[test])

    for i in range(args.pairs):
        for side in (run_steelyard, run_peer) if i % 2 == 0 else (run_peer, run_steelyard):
            side()
    peer.close()
    rows = []
    for test, both in runs.items():
        row = {"model": os.path.basename(model), "test": test, "runs": both, "peer_flash_attention": bool(peer.flash[test])}
        for side, values in both.items():
            if values:
                row[side], row[side + "_spread"] = statistics.median(values), spread(values)
        if both["steelyard"]:
            row["ratio"] = row["steelyard"] / row["peer"]
        rows.append(row)
    return rows


def machine():
    name, flags = platform.machine(), set()
    try:
        for line in open("/proc/cpuinfo"):
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                name = value.strip()
            if key.strip() == "flags":
                flags = set(value.split())
    except OSError:
        pass
    wanted = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8")
    return {"cpu": name, "cores": os.cpu_count(), "features": [f for f in wanted if f in flags]}


def show(rows, args):
    m = machine()
    print(f"{m['cpu']}, {m['cores']} cores ({' '.join(m['features'])}), {args.threads} thread{'s' * (args.threads > 1)}"
          f"{', CPU time' * args.cpu_time}, median of {args.pairs} pairs")
    print("| file | test | Steelyard tok/s | peer tok/s | ratio | spread Steelyard / peer | peer's flash attention |")
    print("|---|---|---|---|---|---|---|")
    for r in rows:
        steelyard = f"{r['steelyard']:.1f}" if "steelyard" in r else "–"
        ratio = f"{r['ratio']:.2f}×" if "ratio" in r else "–"
        own = f"{r['steelyard_spread']:.0%}" if "steelyard" in r else "–"
        flash = "on" if r["peer_flash_attention"] else "off"
        print(f"| {r['model']} | {r['test']} | {steelyard} | {r['peer']:.1f} | {ratio} | {own} / {r['peer_spread']:.0%} | {flash} |")


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("models", nargs="*", help="GGUF files")
    a.add_argument("--steelyard", default="build/release/steelyard", help="the binary")
    a.add_argument("--threads", type=int, default=os.cpu_count())
    a.add_argument("--pairs", type=int, default=5)
    a.add_argument("--tests", type=test_list, default=list(TESTS), help="default " + ",".join(TESTS))
    a.add_argument("--cpu-time", action="store_true", help="one thread, CPU seconds: for a machine that isn't quiet")
    a.add_argument("--peer-only", action="store_true", help="measure only the peer")
    a.add_argument("--json", action="store_true")
    a.add_argument("--serve-peer", metavar="MODEL", help=argparse.SUPPRESS)
    args = a.parse_args()
    if args.cpu_time:
        args.threads = 1
    if args.serve_peer:
        return serve_peer(args)
    if not args.models:
        a.error("MODEL is missing")
    rows = [row for model in args.models for row in compare(args, model)]
    if not args.json:
        return show(rows, args)
    print(json.dumps({"machine": machine(), "threads": args.threads, "cpu_time": args.cpu_time, "results": rows}))


try:
    import llama_cpp

    @llama_cpp.llama_log_callback
    def QUIET(level, message, data):
        pass

except ImportError:
    if "--help" not in sys.argv and "-h" not in sys.argv:
        raise SystemExit("llama-cpp-python is not installed here; --help says how to build it")

if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""How far Steelyard's logits are from the judge's (tools/reference.py) on the first tokens of the GPL-3 text.

  fidelity.py                                   both real models from the cache, all modes, table; exit code 1 if a bar is missed
  fidelity.py --models smollm2 --modes fast --tokens 300
  PEER/bin/python tools/fidelity.py --modes exact fast peer      llama.cpp too, in the environment of bench/against_peer.py

Nothing is downloaded: the models come from --models-dir (default ${XDG_CACHE_HOME:-~/.cache}/steelyard/models, where ./demo.sh and
./test.sh put them). Needs numpy. Bars, mean KL(judge || Steelyard) in nat: exact 1e-5; fast and invariant what llama.cpp's
int8 activations reach on the same text, goal half of it.
"""
import argparse
import os
import subprocess
import sys
import tempfile

import numpy as np

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import reference

MODELS = {  # name: (file, bar of fast, goal of fast)
    "smollm2": ("SmolLM2-135M-Instruct.Q4_1.gguf", 0.0033, 0.00165),
    "gemma3-270m": ("gemma-3-270m-q4_k_m.gguf", 0.0050, 0.0025),
}
EXACT = 1e-5
DECODE = "fast-decode"  # a token a step, so the kernels of generation
PEER = "peer"  # llama.cpp through llama-cpp-python, on the same ids
MODES = ("exact", "fast", DECODE, "invariant", PEER)


def find_models(directory, names):
    """Paths of the files, wherever below the directory they lie."""
    found = {}
    for folder, _, files in os.walk(directory):
        for name in names:
            if MODELS[name][0] in files:
                found[name] = os.path.join(folder, MODELS[name][0])
    return found


def tokens_of(args, model):
    command = [args.steelyard, "tokenize", model, args.text, "--bos"]
    out = subprocess.run(command, check=True, capture_output=True, text=True)
    return [int(t) for t in out.stdout.split()][: args.tokens]


def steelyard_logits(args, model, mode, target):
    command = [args.steelyard, "eval", model, args.text, "--tokens", str(args.tokens), "--save-logits", target]
    command += ["--mode", "fast", "--batch", "1"] if mode == DECODE else ["--mode", mode, "--batch", str(args.batch)]
    command += ["--device", args.device]
    command += ["--threads", str(args.threads)] if args.threads else []
    subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, **args.environment})
    return np.load(target, mmap_mode="r")


def peer_logits(args, model, ids, target):
    import llama_cpp

    params = dict(n_gpu_layers=0, n_ctx=len(ids), n_batch=len(ids), n_ubatch=512, logits_all=True, verbose=False)
    peer = llama_cpp.Llama(model, n_threads=args.threads, n_threads_batch=args.threads, **params)
    peer.eval(ids)
    np.save(target, peer.scores[: len(ids)])
    return np.load(target, mmap_mode="r")


def judge_logits(model, ids, target):
    loaded = reference.Model(model)
    out = np.lib.format.open_memmap(target, "w+", np.float32, (len(ids), loaded.vocabulary))
    loaded.logits(ids, out)
    return out


def check(args, name, model, folder):
    """Prints a row per mode; True when all bars hold."""
    ids = tokens_of(args, model)
    judge = judge_logits(model, ids, os.path.join(folder, "judge.npy"))
    own = reference.perplexity(judge, ids)
    held = True
    for mode in args.modes:
        target = os.path.join(folder, "candidate.npy")
        logits = peer_logits(args, model, ids, target) if mode == PEER else steelyard_logits(args, model, mode, target)
        r = reference.compare(judge, logits)
        _, bar, goal = MODELS[name]
        bar, goal = (EXACT, EXACT) if mode == "exact" else (bar, goal)
        verdict = "–" if mode == PEER else "goal" if r["mean_kl"] <= goal else "bar" if r["mean_kl"] <= bar else "MISSED"
        held &= verdict != "MISSED"
        ppl = f"{reference.perplexity(logits, ids):.3f} ({own:.3f})"
        numbers = f"{r['mean_kl']:.2e} | {r['p99_kl']:.2e} | {r['top1']:.1%} | {ppl} | {bar:.1e} / {goal:.1e}"
        print(f"| {name} | {mode} | {numbers} | {verdict} |", flush=True)
    return held


def main():
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--steelyard", default="build/release/steelyard", help="the binary")
    a.add_argument("--models-dir", default=os.path.join(cache, "steelyard", "models"))
    a.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    a.add_argument("--modes", nargs="+", choices=MODES, default=[m for m in MODES if m != PEER])
    a.add_argument("--text", default="/usr/share/common-licenses/GPL-3")
    a.add_argument("--tokens", type=int, default=1000)
    a.add_argument("--batch", type=int, default=64, help="tokens a step; other kernels serve other sizes")
    a.add_argument("--device", default="auto", help="as `steelyard eval` takes it")
    a.add_argument("--threads", type=int)
    a.add_argument("--env", nargs="*", default=[], metavar="NAME=VALUE", help="for Steelyard, e.g. to choose the kernels")
    args = a.parse_args()
    args.environment = dict(pair.split("=", 1) for pair in args.env)
    found = find_models(args.models_dir, args.models)
    for name in set(args.models) - set(found):
        print(f"skipped {name}: {MODELS[name][0]} is not below {args.models_dir}")
    print("| model | mode | mean KL | p99 | same top token | perplexity (judge) | bar / goal | reached |")
    print("|---|---|---|---|---|---|---|---|")
    held = True
    for name, model in found.items():
        with tempfile.TemporaryDirectory() as folder:
            held &= check(args, name, model, folder)
    return 0 if held and found else 1


if __name__ == "__main__":
    sys.exit(main())

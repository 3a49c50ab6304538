#!/usr/bin/env python3
"""`steelyard doctor`: on this machine, on GPUs that aren't here, and over other programs' logs."""
import csv
import http.server
import io
import json
import os
import pathlib
import pty
import select
import threading
import unittest
import urllib.request

from support import BINARY, PATIENCE, ROOT, SteelyardTest, run

LOGS = pathlib.Path(__file__).parent / "data" / "logs"
STAGES_ONE_STREAM, LAYERS_ON_CPU = 16, 11


class Logs(SteelyardTest):
    def test_two_gpus_that_take_turns(self):
        done = run("doctor", "--log", LOGS / "two_gpus.log")
        self.assertEqual(done.returncode, STAGES_ONE_STREAM, done.stderr)
        self.assertRegex(done.stdout, r"you get 14\.0 tokens/s; this machine's limit for this file is 36\.\d")
        self.assertIn("1. GPUs that take turns → predicted", done.stdout)
        self.assertNotIn("someone", done.stdout)

    def test_as_json_and_from_a_pipe(self):
        done = run("doctor", "--log", "-", "--json", input=(LOGS / "partly_on_cpu_2024.log").read_text())
        self.assertEqual(done.returncode, LAYERS_ON_CPU, done.stderr)
        self.assertIn('"cause": "layers_on_cpu"', done.stdout)

    def test_what_is_no_log(self):
        nothing = self.dir / "nothing.log"
        nothing.write_text("hello\n")
        self.fails("doctor", "--log", nothing, code=1, says="holds no line of a model")
        self.fails("doctor", "--log", self.dir / "none.log", code=1, says="there is no file")
        self.fails("doctor", "model", "--log", nothing, code=2, says="leave model out")
        self.fails("doctor", "--apply", code=2, says="needs a model")


class Models(SteelyardTest):
    def doctor(self, *flags, env=None):
        """Its facts; the machine may be busy or have a limit, so any finding may be there."""
        done = run("doctor", self.synth(), "--json", "--depth", "16", "--context", "256", *flags, env={"XDG_CACHE_HOME": str(self.dir), **(env or {})})
        self.assertTrue(done.returncode == 0 or 10 < done.returncode < 100, f"{done.returncode}: {done.stderr}")
        facts = json.loads(done.stdout)
        self.assertEqual(facts["exit_code"], done.returncode)
        return facts

    def causes(self, facts):
        return [finding["cause"] for finding in facts["findings"]]

    def test_on_the_cpu(self):
        facts = self.doctor("--device", "cpu")
        self.assertGreater(facts["tokens_per_second"], 0)
        self.assertGreater(facts["limit_tokens_per_second"], 0)
        cpu = next(d for d in facts["devices"] if d["device"] == "CPU")
        parts = {line["part"]: line for line in cpu["step"]}
        self.assertGreater(parts["weights"]["bytes"], 0)
        self.assertGreater(parts["KV state"]["bytes"], 0)
        token = 1 / facts["tokens_per_second"]
        self.assertAlmostEqual(sum(line["seconds"] for line in cpu["step"]), token, delta=token / 100)
        self.assertEqual(cpu["holds"]["weights"] > 0, True)

    def test_a_fake_gpu_that_is_held_back_and_shared(self):
        env = self.fake_gpu(memory=1 << 30, nvml=f"throttle=4 clock=900 clock_most=1800 width=4 width_most=16 foreign={6 << 29} pid=1")
        facts = self.doctor(env=env)
        causes = self.causes(facts)
        for cause in ("power_cap", "slow_link", "gpu_shared"):
            self.assertIn(cause, causes)
        gpu = facts["devices"][0]
        self.assertEqual(gpu["device"], "CUDA0")
        self.assertEqual(gpu["health"]["clock_mhz"], 900)
        self.assertEqual(gpu["others"][0]["bytes"], 6 << 29)

    def test_a_healthy_fake_gpu_has_none_of_that(self):
        causes = self.causes(self.doctor(env=self.fake_gpu()))
        for cause in ("power_cap", "heat", "slow_link", "gpu_shared", "layers_on_cpu", "gpu_unused"):
            self.assertNotIn(cause, causes)

    def test_layers_on_the_cpu_and_the_change_applied(self):
        facts = self.doctor("--placement", "cuda0:0-0,cpu:1-", "--apply", env=self.fake_gpu())
        self.assertIn("layers_on_cpu" if facts["layers"] - facts["layers_on_gpu"] > 1 else "head_on_cpu", self.causes(facts))
        self.assertGreater(facts["applied"]["tokens_per_second"], 0)

    def test_two_fake_gpus_in_stages(self):
        facts = self.doctor("--placement", "stages", env=self.fake_gpu(devices=2))
        self.assertEqual(facts["split"], "stages")
        self.assertIn("stages_one_stream", self.causes(facts))

    def test_the_machine_alone(self):
        done = run("doctor", env={"XDG_CACHE_HOME": str(self.dir)})
        self.assertTrue(done.returncode == 0 or 10 < done.returncode < 100, done.stderr)
        self.assertIn("machine\n", done.stdout)


class Top(SteelyardTest):
    def test_a_running_server(self):
        model = self.synth()
        base = self.serve("--quiet", "--device", "cpu", env={"STEELYARD_MODELS": str(self.dir), "XDG_CACHE_HOME": str(self.dir)})
        body = json.dumps({"model": model.stem, "prompt": "x", "options": {"num_predict": 8}}).encode()
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(urllib.request.Request(base + "/api/generate", body), timeout=PATIENCE) as answer:
            answer.read()
        top = self.ok_json("top", "--host", base, "--once", "--json", "--interval", "0.2")
        self.assertEqual(top["server"], base)
        self.assertEqual(top["models"][0]["name"].split(":")[0], model.stem)
        self.assertGreater(top["models"][0]["memory"]["CPU"]["weights"], 0)
        self.assertGreater(top["host"]["resident_bytes"], 1 << 20)
        with opener.open(base + "/metrics/history", timeout=PATIENCE) as answer:
            self.assertGreaterEqual(len(json.load(answer)["points"]), 1)
        with opener.open(base + "/metrics", timeout=PATIENCE) as answer:
            self.assertRegex(answer.read().decode(), r"steelyard_step_generated_tokens_total\{model=\S+\} [1-9]")

    def test_gpus_without_a_server(self):
        env = self.fake_gpu(devices=2, nvml="temperature=77 throttle=64")
        top = self.ok_json("top", "--host", "127.0.0.1:1", "--once", "--json", "--interval", "0.1", env=env)
        self.assertIsNone(top["server"])
        self.assertEqual([(gpu["celsius"], gpu["too_hot"]) for gpu in top["gpus"]], [(77, True)] * 2)

    def test_needs_a_terminal(self):
        self.fails("top", code=1, says="draws on a terminal")
        self.fails("top", "--json", code=2, says="goes with --once")

    def test_draws_and_ends(self):
        """In a terminal of 80 x 24: something readable comes, q ends it, and the terminal is given back."""
        pid, terminal = pty.fork()
        if pid == 0:
            os.environ.update(TERM="xterm", LINES="24", COLUMNS="80")
            os.execv(BINARY, [BINARY, "top", "--host", "127.0.0.1:1"])
        seen = b""
        while b"q quit" not in seen:
            self.assertTrue(select.select([terminal], [], [], PATIENCE)[0], seen)
            seen += os.read(terminal, 4096)
        os.write(terminal, b"smfq")
        try:
            while piece := os.read(terminal, 4096):
                seen += piece
        except OSError:  # the other end has closed
            pass
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), 0)
        self.assertIn(b"steelyard top", seen)
        self.assertIn(b"\x1b[?1049l", seen)


class Bench(SteelyardTest):
    def test_exports_and_comparison(self):
        flags = ("bench", self.synth(), "--tests", "tg8", "--repeat", "2", "--device", "cpu")
        env = {"XDG_CACHE_HOME": str(self.dir)}
        before = self.dir / "before.json"
        before.write_text(self.ok(*flags, "--json", env=env).stdout)
        self.assertRegex(self.ok(*flags, "--against", before, env=env).stdout, r"tg8 .*[+-]\d+\.\d % \(\d+\.\d before")
        table = self.ok(*flags, "--markdown", env=env).stdout.splitlines()
        self.assertEqual(len({line.count("|") for line in table}), 1)
        rows = list(csv.DictReader(io.StringIO(self.ok(*flags, "--csv", env=env).stdout)))
        self.assertEqual((rows[0]["n_gen"], rows[0]["n_prompt"], rows[0]["backends"]), ("8", "0", "CPU"))
        self.fails(*flags, "--csv", "--json", code=2, says="three forms")
        self.fails(*flags, "--against", self.synth(), code=1, says="isn't what")


class Documents(SteelyardTest):
    def test_what_the_page_shows_is_what_comes(self):
        page = (ROOT / "docs" / "why-is-it-slow.md").read_text()
        readme = (ROOT / "README.md").read_text()
        shown = run("doctor", "--log", LOGS / "two_gpus.log").stdout
        self.assertIn(shown, page)
        for line in shown.splitlines()[:2]:
            self.assertIn(line, readme)


class FakeOllama(http.server.BaseHTTPRequestHandler):
    """Eight ninths of a model of 33 layers on the GPU, 12 tokens/s."""
    loads_each_time = False

    def answer(self, value, status=200):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        model = {"name": "m:latest", "model": "m:latest", "size": 9 << 30, "size_vram": 8 << 30, "context_length": 8192}
        if self.path == "/api/ps":
            return self.answer({"models": [model]})
        if self.path == "/api/tags":
            return self.answer({"models": [{"name": "m:latest", "size": 8 << 30}]})
        self.answer({"error": "no"}, 404)

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if asked["model"] != "m:latest":
            return self.answer({"error": f"model '{asked['model']}' not found"}, 404)
        if self.path == "/api/show":
            return self.answer({"details": {"quantization_level": "Q4_K_M"},
                                "model_info": {"general.architecture": "llama", "llama.block_count": 32, "llama.embedding_length": 4096}})
        self.answer({"response": "x", "done": True, "eval_count": 64, "eval_duration": int(64e9 / 12),
                     "load_duration": int(4e9) if self.loads_each_time else 1000000})

    def log_message(self, *_):
        pass


class Ollama(SteelyardTest):
    def ask(self, *flags, **fake):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Fake", (FakeOllama,), fake))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        return run("doctor", *flags, "--ollama", f"http://127.0.0.1:{server.server_port}", "--json")

    def test_layers_on_the_cpu(self):
        done = self.ask()
        facts = json.loads(done.stdout)
        self.assertAlmostEqual(facts["tokens_per_second"], 12, delta=0.1)
        self.assertEqual((facts["layers"], facts["layers_on_gpu"], facts["context"]), (33, 29, 8192))
        found = next(f for f in facts["findings"] if f["cause"] == "layers_on_cpu")
        self.assertIn("num_ctx", found["change"])
        self.assertNotIn("reloads", [f["cause"] for f in facts["findings"]])

    def test_loads_each_time(self):
        facts = json.loads(self.ask(loads_each_time=True).stdout)
        self.assertIn("reloads", [f["cause"] for f in facts["findings"]])

    def test_what_the_server_refuses(self):
        done = self.ask("other")
        self.assertEqual(done.returncode, 1)
        self.assertIn("model 'other' not found", done.stderr)
        self.fails("doctor", "--ollama", "http://127.0.0.1:1", code=1, says="doesn't answer")


if __name__ == "__main__":
    unittest.main()

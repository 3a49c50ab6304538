#!/usr/bin/env python3
"""`steelyard plan` without the model's file: by a shape, and by the header of a file on a web server; and limits of memory that hold for
the whole program."""
import http.server
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import threading
import time
import unittest
import urllib.request
import xml.etree.ElementTree

from support import BINARY, NO_GPU, PATIENCE, SteelyardTest, own_memory, run


class Shapes(SteelyardTest):
    def test_a_shape_is_planned_as_its_file(self):
        by_shape = self.ok_json("plan", "tiny-llama", "--type", "q8_0", "--devices", "24GiB", "--json")
        by_file = self.ok_json("plan", self.synth(), "--devices", "24GiB", "--json")
        self.assertEqual(by_shape["devices"][0], by_file["devices"][0])

    def test_a_large_shape_takes_no_space(self):
        scratch = self.dir / "scratch"
        scratch.mkdir()
        done = self.ok("plan", "qwen2.5-32b", "--type", "q4_k_m", "--devices", "24GiB", env={"TMPDIR": str(scratch)})
        self.assertIn("planned by the shape of qwen2.5-32b", done.stderr)
        self.assertRegex(done.stdout, r"\nfits: \d\.\d+ GiB left; longest context that fits: \d+\n\Z")
        self.assertEqual(list(scratch.iterdir()), [])

    def test_a_large_shape_that_does_not_fit(self):
        done = run("plan", "qwen2.5-32b", "--devices", "12GiB")
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stdout, r"\ndoesn't fit: the model needs .* where 12\.00 GiB is available; even --context 256 .*\n\Z")

    def test_a_type_goes_with_a_shape(self):
        self.fails("plan", "no-such-shape", "--type", "q8_0", code=2, says="--type goes with a shape")
        self.fails("plan", "tiny-llama", "--type", "q9", code=2, says="q9")


class Devices(SteelyardTest):
    """`plan --devices LIST`: several devices that nobody need own."""

    def test_the_case_that_people_ask_about(self):
        done = self.ok("plan", "qwen2.5-32b", "--type", "q4_k_m", "--devices", "2x16GiB@448GB/s,pcie4x16", "--parallel", "4")
        self.assertTrue(done.stdout.startswith("on paper: `steelyard run` and `serve` choose so among the devices that are there"), done.stdout)
        self.assertRegex(done.stdout, r"\n  64 repeating layers \+ output layer: CUDA0")
        self.assertRegex(done.stdout, r"2 stages: CUDA0 3[1-4], CUDA1 3[1-4]")
        self.assertRegex(done.stdout, r"\d+\.\d tokens/s for one stream, \d+ % of the \d+\.\d")
        self.assertRegex(done.stdout, r"\d+(\.\d)? tokens/s for 4 streams together")
        self.assertRegex(done.stdout, r"CUDA1 alone: needs 2\d\.\d+ GiB, where 16\.00 GiB is there: \d+\.\d+ GiB too much")

    def test_json_adds_up(self):
        told = self.ok_json("plan", self.synth(), "--devices", "3090,3060+cpu:64GiB@80GB/s", "--json")
        self.assertTrue(told["on_paper"] and told["fits"])
        for device in told["devices"]:
            self.assertEqual(device["total_bytes"], sum(line["bytes"] for line in device["lines"]))
        self.assertGreater(told["placement"]["predicted"]["tokens_per_second"], 0)
        stages = told["placement"]["stages"]
        self.assertTrue(stages[0]["embedding"] and stages[-1]["output_layer"])
        self.assertGreater(len(told["runners_up"]), 2)

    def test_one_named_card_holds_what_its_size_does(self):
        by_name = self.ok_json("plan", self.synth(), "--devices", "3090", "--json")["devices"][0]
        by_size = self.ok_json("plan", self.synth(), "--devices", "24GiB", "--json")["devices"][0]
        lines = [{line["purpose"]: line["bytes"] for line in device["lines"]} for device in (by_name, by_size)]
        self.assertEqual(*lines)

    def test_what_does_not_fit_says_by_how_much_and_what_would(self):
        asked = ("plan", "qwen2.5-32b", "--type", "q4_k_m", "--devices", "12GiB,8GiB")
        done = run(*asked)
        self.assertEqual(done.returncode, 1)
        self.assertIn("as much as fits:\n  64 repeating layers + output layer: CUDA", done.stdout)
        self.assertRegex(done.stdout, r"\ndoesn't fit: \d\.\d+ GiB for \d+ of the 64 repeating layers .* with 20\.00 GiB in all; [^\n]*\n\Z")
        advice = re.search(r"would fit with (--context \d+)(?: |\n)", run(*asked[:-1], "12GiB,11GiB", "--context", "16384").stdout)
        self.assertTrue(advice)
        self.ok(*asked[:-1], "12GiB,11GiB", *advice.group(1).split())

    def test_a_picture(self):
        for devices, code in (("2x3090", 0), ("2x8GiB", 1)):
            picture = self.dir / "map.svg"
            done = run("plan", "qwen2.5-32b", "--type", "q4_k_m", "--devices", devices, "--svg", picture)
            self.assertEqual(done.returncode, code, done.stderr)
            root = xml.etree.ElementTree.parse(picture).getroot()
            texts = [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]
            self.assertIn("CUDA1", texts)
            self.assertEqual("lacking" in texts, code == 1)
        self.fails("plan", self.synth(), "--devices", "2x3090", "--svg", "/nowhere/map.svg", code=1, says="map.svg")
        self.fails("plan", self.synth(), "--svg", "map.svg", code=2, says="--devices 2x3090")

    def test_what_is_wrong_is_said(self):
        for devices, says in (("rtx3091", "neither a card nor a size"), ("2x3090,pcie9", "no link that is known"),
                              ("12GiB,3090", "for all or for none"), ("", "no size")):
            self.fails("plan", self.synth(), "--devices", devices, code=2, says=says)
        self.fails("plan", self.synth(), "--devices", "2x3090", "--memory-limit", "4G", code=2, says="--memory-limit is for one device")
        self.fails("plan", self.synth(), "--devices", "2x3090", "--device", "cpu", code=2, says="can't go with it")

    def test_devices_that_are_here_can_be_named(self):
        for command in (("run", self.synth(), "hi"), ("serve",), ("plan", self.synth()), ("bench", self.synth())):
            with self.subTest(command=command[0]):
                self.fails(*command, "--devices", "cuda0,cpu", env=NO_GPU, code=1, says="CUDA0.*no CUDA")
        self.fails("run", self.synth(), "hi", "--devices", "cuda0,cuda0", code=2, says="cuda0 is named twice")
        self.fails("run", self.synth(), "hi", "--memory", "10GiB", code=2, says="write cuda0=10GiB")
        self.assertIn("on CPU", self.ok("plan", self.synth(), "--devices", "cpu").stdout)
        needs = "needs .*where 9.0 MiB"
        self.fails("run", self.synth(), "hi", "--memory", "cpu=9M", env=NO_GPU, code=1, says=needs)

    def test_other_programs_flags_for_several_devices_lead_to_placement(self):
        for command in (("run", self.synth(), "hi"), ("serve",)):
            for flags in (("--tensor-split", "1,1"), ("--ngl", "9"), ("--device", "cuda0,cuda1")):
                with self.subTest(command=command[0], flags=flags):
                    self.fails(*command, *flags, code=2, says="--placement")


class WholeProgram(SteelyardTest):
    """--memory-limit is for all models of a server together, and its plans say what is there already."""

    def rounds(self, limit):
        """Asks two models in turn, twice; (most resident MiB, what the server wrote)."""
        store = self.dir / "store"
        store.mkdir(exist_ok=True)
        for name in ("one", "two"):
            if not (store / f"{name}.gguf").exists():
                shutil.copy(self.synth(), store / f"{name}.gguf")
        log = self.dir / f"log-{limit}"
        with log.open("w") as errors:
            server = subprocess.Popen([BINARY, "serve", "--port", "0", "--context", "4096", "--parallel", "4", "--memory-limit", limit],
                                      stdin=subprocess.DEVNULL, stderr=errors, env={**os.environ, "STEELYARD_MODELS": str(store)})
        self.addCleanup(server.wait, PATIENCE)
        self.addCleanup(server.terminate)
        deadline = time.monotonic() + PATIENCE
        while "listening on " not in log.read_text() and time.monotonic() < deadline:
            time.sleep(0.05)
        base = re.search(r"http://[\d.:]+", log.read_text()).group(0)
        for model in ("one", "two") * 2:
            body = json.dumps({"model": model, "prompt": "hello", "stream": False, "options": {"num_predict": 2}}).encode()
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            self.assertTrue(json.load(opener.open(base + "/api/generate", body, timeout=PATIENCE))["done"])
        status = pathlib.Path(f"/proc/{server.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+) kB", status).group(1)) / 1024, log.read_text()

    def test_two_models_that_fit_together(self):
        resident, log = self.rounds("400M")
        self.assertRegex(log, r"\n  other models +(\d+\.\d MiB) +\1  loaded already\n")
        self.assertNotIn("unloaded", log)
        self.assertLess(resident, 400)

    @own_memory
    def test_two_models_of_which_one_fits(self):
        resident, log = self.rounds("75M")
        self.assertGreaterEqual(log.count("unloaded"), 3)
        self.assertLess(resident, 75 + 8, log)  # the process grows a little with what it has done


class Web(http.server.BaseHTTPRequestHandler):
    """Serves server.files, with ranges or without; /moved/X leads to /X; counts what it sends."""

    def do_GET(self):
        if self.path.startswith("/moved/"):
            self.send_response(302)
            self.send_header("Location", self.path[len("/moved"):])
            self.send_header("Content-Length", "0")
            return self.end_headers()
        name = self.path.split("?")[0].lstrip("/").removeprefix("plain/")
        if name not in self.server.files:
            self.send_response(404)
            self.send_header("Content-Length", "0")
            return self.end_headers()
        data, first, last = self.server.files[name], 0, None
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if asked and "plain" not in self.path:
            first, last = int(asked[1]), min(int(asked[2]), len(data) - 1)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        else:
            last = len(data) - 1
            self.send_response(200)
        self.send_header("Content-Length", str(last + 1 - first))
        self.end_headers()
        try:
            for at in range(first, last + 1, 1 << 16):
                self.wfile.write(data[at:min(at + (1 << 16), last + 1)])
                self.server.sent += min(1 << 16, last + 1 - at)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def log_message(self, *_):
        pass


class Urls(SteelyardTest):
    def setUp(self):
        super().setUp()
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Web)
        self.server.files, self.server.sent = {}, 0
        thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        thread.start()
        self.addCleanup(self.server.server_close)
        self.addCleanup(self.server.shutdown)
        self.base = f"http://127.0.0.1:{self.server.server_port}"

    def plan(self, url, *flags):
        return self.ok_json("plan", url, "--devices", "24GiB", "--json", *flags)

    def test_only_the_header_is_read(self):
        model = pathlib.Path(self.synth())
        data = model.read_bytes() + bytes(64 << 20)  # what follows the tensors isn't looked at
        self.server.files["model.gguf"] = data
        local = self.plan(model)
        for path in ("model.gguf", "moved/model.gguf", "plain/model.gguf", "model.gguf?download=true"):
            with self.subTest(path=path):
                self.server.sent = 0
                self.assertEqual(self.plan(f"{self.base}/{path}")["devices"][0], local["devices"][0])
                self.assertLess(self.server.sent, 16 << 20)
        self.assertTrue(self.ok_json("plan", f"{self.base}/model.gguf", "--devices", "2x3090", "--json")["fits"])

    def test_a_long_header_is_read_in_pieces(self):
        model = pathlib.Path(self.synth())
        data = model.read_bytes()
        # A megabyte and more of metadata before the rest: one more entry, of text.
        key, text = b"test.long", b"x" * (3 << 20)
        entry = len(key).to_bytes(8, "little") + key + (8).to_bytes(4, "little") + len(text).to_bytes(8, "little") + text
        entries = int.from_bytes(data[16:24], "little") + 1
        pad = -len(entry) % 32
        entry = entry.replace(text, text + b"x" * pad).replace(len(text).to_bytes(8, "little"), (len(text) + pad).to_bytes(8, "little"), 1)
        self.server.files["long.gguf"] = data[:16] + entries.to_bytes(8, "little") + entry + data[24:]
        self.assertEqual(self.plan(f"{self.base}/long.gguf")["devices"][0], self.plan(model)["devices"][0])

    def test_what_is_wrong_is_said(self):
        model = pathlib.Path(self.synth()).read_bytes()
        self.server.files.update({"page.gguf": b"<!doctype html><html>", "cut.gguf": model[:200]})
        self.fails("plan", f"{self.base}/none.gguf", code=1, says=r"there is nothing at http://.*/none\.gguf \(HTTP 404\)")
        self.fails("plan", f"{self.base}/page.gguf", code=1, says="is not a GGUF file: it doesn't begin with GGUF")
        self.fails("plan", f"{self.base}/cut.gguf", code=1, says="ends within its header")
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            port = closed.getsockname()[1]
        self.fails("plan", f"http://127.0.0.1:{port}/model.gguf", code=1, says="can't be read: .*connect")


if __name__ == "__main__":
    unittest.main()

#!/usr/bin/env python3
"""--device: choosing, refusing, planning on paper; and, where there is a GPU, the commands on it."""
import json
import pathlib
import re
import shutil
import threading
import time
import unittest
import urllib.error
import urllib.request

from server_test import Server
from support import NO_GPU, PATIENCE, SMOLLM2, SteelyardTest, need, run

QUESTION = "What is the capital of France?"
# What `run` says of an answer that --num-predict ends.
CUT = "note: the answer was cut after 2 tokens (num_predict)\n"


def plan_and_actual(purpose, table):
    """MiB of a line of the memory table."""
    units = {"B": 1 / 2**20, "KiB": 1 / 1024, "MiB": 1, "GiB": 1024}
    found = re.search(purpose + r" +([\d.]+) (\w+) +([\d.]+) (\w+)", table).groups()
    return float(found[0]) * units[found[1]], float(found[2]) * units[found[3]]


class Choice(SteelyardTest):
    def test_unknown_devices_are_refused(self):
        for name in ("tpu0", "cuda-1", "cuda1x", "gpu", ""):
            self.fails("run", self.synth(), "hello", "--device", name, code=2, says="is no device: give auto, cpu or cuda0")

    def test_a_gpu_that_is_not_there_is_refused(self):
        for command in (("run", "hello"), ("bench",)):
            self.fails(command[0], self.synth(), *command[1:], "--device", "cuda0", env=NO_GPU, code=1,
                       says="CUDA0 can't be used: no CUDA: ")
        self.fails("plan", self.synth(), "--device", "cuda0", env=NO_GPU, code=1, says="say how large it is with --devices")

    def test_the_cpu_takes_over_and_says_why(self):
        done = self.ok("run", self.synth(), "hello", "--num-predict", "2", "--verbose", env=NO_GPU)
        self.assertIn("no CUDA: ", done.stderr)
        self.assertIn("using the CPU", done.stderr)
        self.assertEqual(self.ok("run", self.synth(), "hello", "--num-predict", "2", env=NO_GPU).stderr, CUT)

    def test_the_cpu_can_be_asked_for(self):
        done = self.ok("run", self.synth(), "hello", "--num-predict", "2", "--verbose", "--device", "CPU")
        self.assertNotIn("CUDA", done.stderr)

    def test_rows_of_a_bench_name_their_device(self):
        done = self.ok_json("bench", self.synth(), "--tests", "pp16,tg8", "--repeat", "1", "--json", "--device", "cpu")
        self.assertEqual([row["device"] for row in done["results"]], ["CPU", "CPU"])
        self.assertEqual(done["devices"][0]["device"], "CPU")
        self.assertGreaterEqual(done["devices"][0]["threads"], 1)


class OnAFakeGpu(SteelyardTest):
    def setUp(self):
        self.env = self.with_fake()

    def with_fake(self, **fake):
        return {**self.fake_gpu(**fake), "XDG_CACHE_HOME": str(self.dir / self.id())}

    def with_failure(self, text):
        return self.with_fake(fail=text)

    def test_is_chosen_and_its_plan_is_true(self):
        done = self.ok("run", self.synth(), "hello", "--num-predict", "30", "--verbose", env=self.env)
        self.assertIn("measuring the limits of CUDA0: Fake GPU", done.stderr)
        self.assertIn("on CUDA0", done.stderr)
        self.assertRegex(done.stderr, r"generation .* tokens/s, .* of the measured limit")
        gpu, host = done.stderr.rsplit("CUDA0  ", 1)[1].split("CPU  ")
        for purpose in ("weights", "KV state", "workspace"):
            planned, actual = plan_and_actual(purpose, gpu)
            self.assertGreaterEqual(actual, planned)
            self.assertLess(actual, planned + 2.01)
        self.assertRegex(host, r"staging +(\S+ [KM]iB) +\1 ")

    def test_the_cpu_takes_over_where_a_model_does_not_fit(self):
        done = self.ok("run", self.synth(), "hello", "--num-predict", "2", env=self.with_fake(memory=64 << 20))
        self.assertRegex(done.stderr, r"^CUDA0 isn't used: the model needs .* of memory on CUDA0.*; using the CPU\n" + re.escape(CUT) + "$")
        self.fails("run", self.synth(), "hello", "--device", "cuda0", env=self.with_fake(memory=64 << 20),
                   code=1, says="of memory on CUDA0")

    def test_the_cpu_can_be_asked_for(self):
        done = self.ok("run", self.synth(), "hello", "--num-predict", "2", "--verbose", "--device", "cpu",
                       env=self.with_failure("device_get 1 999"))
        self.assertNotIn("CUDA", done.stderr)

    def test_there_is_one(self):
        self.fails("run", self.synth(), "hello", "--device", "cuda1", env=self.env, code=1, says="there is no CUDA1: the driver lists 1 GPU")

    def test_there_are_two(self):
        env = self.with_fake(devices=2)
        done = self.ok("run", self.synth(), "hello", "--num-predict", "2", "--verbose", "--device", "cuda1", env=env)
        self.assertIn("on CUDA1", done.stderr)
        self.fails("run", self.synth(), "hello", "--device", "cuda2", env=env, code=1, says="there is no CUDA2: the driver lists 2 GPUs")

    def test_memory_that_another_program_took_is_said(self):
        # The plan was made with the memory free; then an allocation fails.
        self.fails("run", self.synth(), "hello", "--device", "cuda0", env=self.with_failure("memory_create 2 2"), code=1,
                   says="CUDA0 has no memory for the .*close other programs")

    def test_a_lost_device_fails_the_request_with_the_reason(self):
        done = run("run", self.synth(), "hello", "--num-predict", "50", "--device", "cuda0", env=self.with_failure("event_query 20 719"))
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, r"error: CUDA0 is lost: waiting for a step failed with FAKE_ERROR \(719\)\n$")

    def test_a_gpu_that_is_lost_while_loading_is_said(self):
        self.fails("run", self.synth(), "hello", "--device", "cuda0", env=self.with_failure("event_query 1 719"), code=1,
                   says="CUDA0 is lost")

    def test_bench_probe_and_plan(self):
        rows = self.ok_json("bench", self.synth(), "--tests", "pp16,tg8,tg8x3", "--repeat", "1", "--json", env=self.env)
        self.assertEqual([row["device"] for row in rows["results"]], ["CUDA0"] * 3)
        limits = self.ok_json("probe", "--device", "cuda0", "--json", env=self.env)["ceilings"][0]
        self.assertEqual(limits["device"], "Fake GPU")
        self.assertGreater(limits["launch_seconds"], 0)
        self.assertIn("on CUDA0", self.ok("plan", self.synth(), env=self.env).stdout)

    def test_a_server_lives_on_when_its_gpu_is_lost(self):
        models = self.dir / "models"
        models.mkdir(exist_ok=True)
        shutil.copy(self.synth(), models / "tiny.gguf")
        address = self.serve(env={**self.with_failure("event_query 20 719"), "STEELYARD_MODELS": str(models)})

        def ask():
            body = json.dumps({"model": "tiny", "prompt": "hello", "stream": False, "options": {"num_predict": 60}})
            request = urllib.request.Request(address + "/api/generate", body.encode(), {"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)

        with self.assertRaises(urllib.error.HTTPError) as lost:
            ask()
        self.assertIn("CUDA0 is lost", lost.exception.read().decode())
        self.assertTrue(ask()["done"])  # on the CPU


class Stages(SteelyardTest):
    """One model's layers over several devices; what the fake GPUs compute is worth nothing, but all the rest is there."""

    def ask(self, placement, *more, tokens=9, **fake):
        env = {**self.fake_gpu(**{"devices": 2, **fake}), "XDG_CACHE_HOME": str(self.dir / "cache")}
        return run("run", self.synth(), "hello", "--num-predict", tokens, "--verbose", "--placement", placement, *more, env=env)

    def test_layers_lie_where_they_were_put(self):
        for placement, layers in (("cuda0:0-0,cuda1:1-", "CUDA0 1, CUDA1 4"), ("cuda1:0-2,cuda0:3-3", "CUDA1 3, CUDA0 2"),
                                  ("cuda0:0-0,cpu:1-", "CUDA0 1, CPU 4"),
                                  ("stages", "CUDA0 2, CUDA1 3"), ("ranks", "CUDA0+CUDA1 5"), ("cuda1+cuda0", "CUDA1+CUDA0 5")):
            with self.subTest(placement):
                done = self.ask(placement)
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertIn(f"\nrepeating layers + output layer: {layers}\n", done.stderr)
                self.assertRegex(done.stderr, r"links +(\S+ [KM]iB) +\1 ")
                self.assertIn("cut after 9 tokens", done.stderr)
        # A fake GPU samples nothing, so the CPU gets no second token from it.
        for placement, layers in (("cpu:0-0,cuda1:1-", "CPU 1, CUDA1 4"), ("cpu:0-0,cuda0+cuda1:1-", "CPU 1, CUDA0+CUDA1 4")):
            done = self.ask(placement, tokens=1)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn(f"\nrepeating layers + output layer: {layers}\n", done.stderr)

    def test_what_is_wrong_with_a_placement_is_said(self):
        self.fails("run", self.synth(), "hello", "--placement", "cuda0", code=2, says="'cuda0' is no placement: give auto, single, stages, ranks, or")
        self.fails("run", self.synth(), "hello", "--placement", "ranks", "--device", "cpu", code=1, says="--device cpu names one device")
        self.fails("run", self.synth(), "hello", "--placement", "cpu:0-7", code=1, says="don't go on from layer 0 of 0 to 3")

    def test_stages_need_two_devices(self):
        for command in (("run", self.synth(), "hello"), ("plan", self.synth()), ("plan", self.synth(), "--json")):
            self.fails(*command, "--placement", "stages", env=NO_GPU, code=1, says="no two devices here .* leave --placement out")
            self.fails(*command, "--placement", "ranks", env=NO_GPU, code=1, says="no two GPUs here .* leave --placement out")

    def test_ranks_need_a_model_that_divides(self):
        done = self.ask("ranks", devices=3)
        self.assertEqual(done.returncode, 0, done.stderr)  # over as many as divide it
        self.assertRegex(done.stderr, r"\nrepeating layers \+ output layer: CUDA\d\+CUDA\d 5\n")
        done = self.ask("cuda0+cuda1+cuda2", devices=3)
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, "error: the model can't be divided over 3 devices: \\d+ heads don't divide by 3")

    def test_a_model_too_large_for_one_gpu_is_laid_over_both(self):
        whole = int(re.search(r"needs ([\d.]+) MiB", self.ask("single", "--device", "cuda0", memory=64 << 20).stderr).group(1).split(".")[0])
        done = self.ask("auto", "--context", "65536", memory=(whole + 70) << 20)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertRegex(done.stderr, r"\nrepeating layers \+ output layer: .*CUDA1")

    def test_what_was_chosen_is_said_with_its_reason(self):
        for streams, devices in ((1, 2), (1, 1)):
            done = self.ask("auto", devices=devices)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertRegex(done.stderr, r"(?m)^placement: CUDA0 alone \(.*CUDA0 5\), \d+(\.\d)? tokens/s predicted; .+: \d+")

    def test_only_the_named_devices_are_used(self):
        done = self.ask("auto", "--devices", "cuda1")
        self.assertRegex(done.stderr, r"(?m)^CUDA1: Fake GPU")
        self.assertNotIn("CUDA0", done.stderr)
        self.assertIn("the GPU holds the whole model", self.ask("stages", "--devices", "cuda1,cpu").stderr)
        for devices, says in (("cuda0,cuda2", "CUDA2, which isn't here: the driver lists 2 GPUs"), ("auto", "names no device")):
            self.assertIn(says, self.ask("auto", "--devices", devices).stderr)
        self.assertIn("leave one of them out", self.ask("auto", "--devices", "cuda0", "--device", "cuda0").stderr)
        full = self.ask("auto", "--devices", "cuda0", memory=64 << 20)
        self.assertEqual(full.returncode, 1)
        self.assertRegex(full.stderr, r"no device that --devices names can hold the model \(CUDA0 isn't used: .*needs")

    def test_memory_of_a_device_is_limited(self):
        need = self.ask("single", memory=1 << 30)
        self.assertEqual(need.returncode, 0, need.stderr)
        done = self.ask("auto", "--memory", "cuda0=64MiB", memory=1 << 30)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertRegex(done.stderr, r"(?m)^placement: CUDA1 alone .*; CUDA0 alone: needs .* is there")

    def test_bench_holds_several_devices_against_their_limit(self):
        env = {**self.fake_gpu(devices=2), "XDG_CACHE_HOME": str(self.dir / "cache")}
        for placement, device in (("cuda0:0-1,cuda1:2-", "CUDA0,CUDA1"), ("cuda0+cuda1", "CUDA0+CUDA1")):
            told = self.ok_json("bench", self.synth(), "--tests", "pp16,tg4,tg4x2", "--repeat", "1", "--placement", placement, "--json", env=env)
            self.assertEqual([row["device"] for row in told["results"]], [device] * 3)
            self.assertEqual([row["limit"] is not None for row in told["results"]], [True] * 3)
            self.assertLessEqual({"CUDA0", "CUDA1"}, {d["device"] for d in told["devices"]})

    def test_a_lost_gpu_ends_the_answer_with_the_reason(self):
        for after in (3, 8, 15, 30):
            for placement in ("cuda0:0-0,cuda1:1-", "ranks"):
                with self.subTest(after=after, placement=placement):
                    done = self.ask(placement, fail=f"event_query {after} 719")
                    self.assertEqual(done.returncode, 1)
                    self.assertRegex(done.stderr, r"error: .*CUDA[01] is lost[^\n]*\n$")


class KernelFile(SteelyardTest):
    """Kernels that can't be used cost one line, and the CPU goes on."""

    def cpu_takes_over(self, kernels, says):
        env = {**self.fake_gpu(), "STEELYARD_CUDA_KERNELS": str(kernels)}
        done = self.ok("run", self.synth(), "hello", "--num-predict", "2", "--verbose", env=env)
        self.assertRegex(done.stderr, re.compile(f"^no CUDA: .*{says}.*; using the CPU$", re.M))
        self.fails("run", self.synth(), "hello", "--device", "cuda0", env=env, code=1, says=f"CUDA0 can't be used: no CUDA: .*{says}")

    def test_missing(self):
        self.cpu_takes_over("/nonexistent/steelyard_kernels.bin", "/nonexistent/steelyard_kernels.bin")

    def test_cut_foreign_or_no_such_file(self):
        good = pathlib.Path(self.fake_gpu()["STEELYARD_CUDA_KERNELS"]).read_bytes()
        bad = self.dir / "bad.bin"
        other = good[:16] + bytes([good[16] ^ 1]) + good[17:]  # its id's first digit
        for content, says in ((good[:-100], "is damaged"), (other, "was built for another version of Steelyard"),
                              (b"GGUF", "is no file of Steelyard's kernels"), (b"", "bad.bin")):
            bad.write_bytes(content)
            self.cpu_takes_over(bad, says)

    def test_kernels_of_no_gpu_here(self):
        """Whole and this build's, but none of its images is for the GPU that is there."""
        good = pathlib.Path(self.fake_gpu()["STEELYARD_CUDA_KERNELS"]).read_bytes()
        bad = self.dir / "other_gpu.bin"
        bad.write_bytes(good.replace(b"fake kernels", b"other things"))
        env = {**self.fake_gpu(), "STEELYARD_CUDA_KERNELS": str(bad)}
        done = self.ok("run", self.synth(), "hello", "--num-predict", "2", "--verbose", env=env)
        self.assertRegex(done.stderr, "this build has no kernels for CUDA0.*; using the CPU")


class ServerOnAGpu(SteelyardTest):
    def test_a_load_does_not_hold_up_the_end(self):
        """A GPU that takes a second for each copy, so that the load would take half a minute."""
        model = self.synth()
        env = {**self.fake_gpu(slow="copy_to_device 1000"), "STEELYARD_MODELS": str(self.dir), "XDG_CACHE_HOME": str(self.dir)}
        server = Server(self, env=env).read_log()
        answers = []
        ask = {"model": model.stem, "prompt": "x", "stream": False}
        client = threading.Thread(target=lambda: answers.append(server.post("/api/generate", ask)[0]))
        client.start()
        for _ in range(600):
            if any("Fake GPU" in line for line in list(server.lines)):
                break
            time.sleep(0.1)
        time.sleep(0.5)
        self.assertEqual(server.end(), 0)
        client.join(PATIENCE)
        self.assertIn(answers, ([503], [0]))
        log = "".join(server.lines)
        self.assertIn("Fake GPU", log)
        self.assertNotIn("loaded in", log)


class OnPaper(SteelyardTest):
    def test_plans_for_a_gpu_that_is_not_here(self):
        plan = self.ok_json("plan", self.synth(), "--devices", "24GiB", "--json")
        gpu, host = plan["devices"]
        self.assertEqual((gpu["device"], host["device"]), ("CUDA0", "CPU"))
        purposes = [line["purpose"] for line in gpu["lines"]]
        self.assertEqual(purposes, ["weights", "KV state", "workspace", "executables", "context", "reserve"])
        self.assertRegex(gpu["lines"][0]["note"], r"repeating layers \+ output layer: (\d+)/\1 on CUDA0")
        self.assertEqual(plan["rows_per_step"], min(2048, plan["context"]))

    def test_a_limit_says_how_large_it_is(self):
        text = self.ok("plan", self.synth(), "--device", "cuda0", "--memory-limit", "8G", env=NO_GPU).stdout
        self.assertIn("CUDA0", text)

    def test_says_what_would_fit(self):
        done = run("plan", self.synth(), "--devices", "64MiB")
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stdout, r"doesn't fit: the model needs .* of memory on CUDA0, where 64\.0 MiB is available")

    def test_a_cpu_has_no_such_size(self):
        self.fails("plan", self.synth(), "--devices", "24GiB", "--device", "cpu", code=2, says="--devices describes a GPU")
        self.fails("plan", self.synth(), "--devices", "big", code=2, says="neither a card nor a size")


class OnTheGpu(SteelyardTest):
    labels = "gpu"

    def setUp(self):
        self.need_gpu()

    def test_answers_a_question(self):
        done = self.ok("run", need(SMOLLM2), QUESTION, "--temperature", "0", "--num-predict", "40", "--device", "cuda0")
        self.assertIn("Paris", done.stdout)

    def test_is_chosen_and_measured(self):
        done = self.ok("run", need(SMOLLM2), QUESTION, "--num-predict", "20", "--verbose")
        self.assertIn("31/31 on CUDA0", done.stderr)
        self.assertRegex(done.stderr, r"% of the measured limit")

    def test_plan_and_reality_agree(self):
        done = self.ok("run", need(SMOLLM2), QUESTION, "--num-predict", "2", "--verbose")
        gpu = done.stderr.rsplit("CUDA0  ", 1)[1].split("CPU  ")[0]
        planned, actual = plan_and_actual("total", gpu)
        self.assertLess(abs(planned - actual), max(64, planned / 100), gpu)

    def test_same_greedy_answer_as_the_cpu_in_exact_mode(self):
        flags = [need(SMOLLM2), QUESTION, "--temperature", "0", "--num-predict", "24", "--mode", "exact"]
        self.assertEqual(self.ok("run", *flags, "--device", "cuda0").stdout, self.ok("run", *flags, "--device", "cpu").stdout)

    def test_same_seed_same_answer(self):
        flags = ["run", need(SMOLLM2), QUESTION, "--num-predict", "24", "--seed", "5", "--device", "cuda0"]
        self.assertEqual(self.ok(*flags).stdout, self.ok(*flags).stdout)

    def test_bench_and_probe(self):
        limits = self.ok_json("probe", "--device", "cuda0", "--json")["ceilings"][0]
        for key in ("read_bytes_per_second", "to_device_bytes_per_second", "from_device_bytes_per_second", "launch_seconds"):
            self.assertGreater(limits[key], 0, json.dumps(limits))
        rows = self.ok_json("bench", need(SMOLLM2), "--tests", "pp512,tg32,tg16x4", "--repeat", "2", "--json", "--device", "cuda0")
        for row in rows["results"]:
            self.assertEqual(row["device"], "CUDA0")
            self.assertGreater(row["achieved_over_limit"], 0)
            self.assertLess(row["achieved_over_limit"], 1.05)


if __name__ == "__main__":
    unittest.main()

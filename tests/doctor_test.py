#!/usr/bin/env python3
"""`steelyard doctor`: on this machine, on GPUs that aren't here, and over other programs' logs."""
import json
import pathlib
import unittest

from support import SteelyardTest, run

LOGS = pathlib.Path(__file__).parent / "data" / "logs"
STAGES_ONE_STREAM, LAYERS_ON_CPU, POWER_CAP, GPU_SHARED = 16, 11, 27, 30


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


if __name__ == "__main__":
    unittest.main()

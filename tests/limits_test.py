#!/usr/bin/env python3
"""The measured limits: what is kept, what raises it, and that no command claims more than all of it."""
import json
import pathlib
import unittest

from support import SteelyardTest


class Limits(SteelyardTest):
    def setUp(self):
        super().setUp()
        self.cache = self.dir / self.id()
        self.env = {"XDG_CACHE_HOME": str(self.cache)}

    def kept(self):
        (path,) = self.cache.rglob("ceilings-*.json")
        return path, json.loads(path.read_text())

    def scale(self, factor):
        """Makes what is kept too low or too high; quiet, so that nobody measures again by himself."""
        path, limits = self.kept()
        for key in ("cached_reads", "multiply_per_second"):
            limits[key] = {name: factor * rate for name, rate in limits[key].items()}
        limits["read_bytes_per_second"] *= factor
        limits["load"] = limits["spread"] = 0
        path.write_text(json.dumps(limits))
        return limits

    def probe(self, *flags):
        return self.ok_json("probe", "--device", "cpu", "--threads", "1", "--json", *flags, env=self.env)["ceilings"][0]

    def test_a_limit_that_is_too_low_is_said_and_raised(self):
        self.probe()
        low = self.scale(1e-4)
        done = self.ok("bench", self.synth(), "--threads", "1", "--device", "cpu", "--tests", "pp32,tg16", "--repeat", "2", env=self.env)
        self.assertRegex(done.stdout, r"the limit was \d+ % too low and is raised")
        self.assertIn("100.0 %", done.stdout)
        high = self.kept()[1]
        self.assertGreater(high["read_bytes_per_second"], 2 * low["read_bytes_per_second"])
        self.assertTrue(high["raised_at"])
        told = self.ok_json("bench", self.synth(), "--threads", "1", "--device", "cpu", "--tests", "tg16", "--repeat", "2", "--json", env=self.env)
        self.assertLessEqual(told["results"][0]["achieved_over_limit"], 1)

    def test_an_answer_raises_it_too(self):
        self.probe()
        low = self.scale(1e-4)
        done = self.ok("run", self.synth(), "hello", "--threads", "1", "--device", "cpu", "--num-predict", "1500", "--verbose",
                       "--temperature", "0", env=self.env)
        self.assertRegex(done.stderr, r"100 % of the measured limit\n +the limit was \d+ % too low and is raised")
        self.assertGreater(self.kept()[1]["read_bytes_per_second"], 2 * low["read_bytes_per_second"])

    def test_the_best_ever_seen_stays(self):
        self.probe()
        high = self.scale(1e3)
        again = self.probe("--again")
        self.assertAlmostEqual(again["read_bytes_per_second"], high["read_bytes_per_second"], delta=1e-6 * high["read_bytes_per_second"])

    def test_other_kernels_have_limits_of_their_own(self):
        self.probe()
        self.ok("probe", "--device", "cpu", "--threads", "1", env={**self.env, "STEELYARD_CPU_ISA": "portable"})
        self.assertEqual(len(list(self.cache.rglob("ceilings-*.json"))), 2)

    def test_what_was_not_measured_is_null(self):
        told = self.ok_json("run", self.synth(), "hello", "--num-predict", "1", "--json", env=self.env)
        for key in ("prompt_achieved_over_limit", "generation_achieved_over_limit", "generated_tokens_per_second"):
            self.assertIsNone(told[key], key)
        self.assertEqual(told["prompt_tokens_read"], told["prompt_tokens"])
        self.assertEqual(list(pathlib.Path(self.cache).rglob("ceilings-*.json")), [])

    def test_the_table_says_when_it_was_measured(self):
        text = self.ok("probe", "--device", "cpu", "--threads", "1", env=self.env).stdout
        self.assertRegex(text, r"\n1 thread: measured [^\n]+\.\n")
        self.assertIn("  of 64.0 MiB", text)


if __name__ == "__main__":
    unittest.main()

#!/usr/bin/env python3
"""tools/soak.py for a few seconds on small models: it passes where all is well, and says what isn't."""
import os
import subprocess
import sys
import unittest

import support
from support import PATIENCE, ROOT, SteelyardTest


class Soak(SteelyardTest):
    def soak(self, device, env=None, models=None):
        """Two models, the second without a chat template, unless told otherwise."""
        models = models or [self.synth(), self.synth("tiny-gemma3", "--no-template")]
        command = [sys.executable, ROOT / "tools/soak.py", *models, "--steelyard", support.BINARY, "--seconds", "6", "--clients", "4",
                   "--context", "2048", "--device", device]
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, env={**os.environ, **(env or {})})

    def passes(self, device):
        done = self.soak(device)
        self.assertEqual((done.returncode, done.stdout.splitlines()[-1:]), (0, ["passed"]), done.stdout + done.stderr)
        for path in ("/api/generate", "/api/chat", "/v1/chat/completions"):
            self.assertRegex(done.stdout, f"'{path}': [1-9]")


class OnTheCpu(Soak):
    def test_passes(self):
        self.passes("cpu")

    def test_says_what_failed(self):
        done = self.soak("cuda0", env=self.fake_gpu(fail="event_query 50 719"))
        self.assertEqual(done.returncode, 1, done.stdout + done.stderr)
        self.assertIn("CUDA0 is lost", done.stdout)

    def test_a_model_that_does_not_load_ends_it(self):
        broken = self.dir / "broken.gguf"
        broken.write_bytes(b"GGUF")
        done = self.soak("cpu", models=[broken])
        self.assertEqual(done.returncode, 1, done.stdout + done.stderr)
        self.assertRegex(done.stderr, "soak0 doesn't answer: .*error")


class OnTheGpu(Soak):
    labels = "gpu"

    def setUp(self):
        self.need_gpu()

    def test_passes(self):
        self.passes("cuda0")


if __name__ == "__main__":
    unittest.main()

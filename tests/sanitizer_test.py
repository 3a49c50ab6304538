#!/usr/bin/env python3
"""The kernels under NVIDIA's compute-sanitizer, on the op tests' small shapes: no bad access, no race, no uninitialised read."""
import os
import pathlib
import re
import shutil
import subprocess
import unittest

import support
from support import SteelyardTest

# Every head dimension of the kernel for one row, with and without norms, windows, sinks and caps; both kinds of blocks.
SHAPES = "*OpShapes.FastMode*/llama:*OpShapes.FastMode*/qwen3:*OpShapes.FastMode*/gemma2:*OpShapes.FastMode*/wide_heads"
TYPES = "*OpTypes.FastModeStaysNearTheReference/Q4_K:*OpTypes.FastModeStaysNearTheReference/Q6_K"
CLEAN = re.compile(r"ERROR SUMMARY: 0 errors|RACECHECK SUMMARY: 0 hazards displayed \(0 errors, 0 warnings\)")
NOT_WATCHED = "Internal Sanitizer Error"  # a launch that it had no memory for: nothing is known of it


class KernelsOnTheGpu(SteelyardTest):
    labels = "gpu slow"

    def setUp(self):
        self.need_gpu()
        self.tool = shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path="/usr/local/cuda/bin")
        if not self.tool:
            self.skipTest("compute-sanitizer isn't installed; it comes with the CUDA toolkit")

    def clean(self, tool, *options):
        binary = pathlib.Path(support.BINARY).parent / "device_test"
        done = subprocess.run([self.tool, "--tool", tool, *options, binary, f"--gtest_filter={SHAPES}:{TYPES}"], text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=1500,
                              env={**os.environ, "STEELYARD_TEST_DEVICE": "cuda0"})
        tail = "\n".join(done.stdout.splitlines()[-60:])
        self.assertEqual(done.returncode, 0, tail)
        self.assertRegex(done.stdout, CLEAN, tail)
        self.assertNotIn(NOT_WATCHED, done.stdout)
        if "Hopper kernels" in done.stdout:  # the one kernel that waits for other blocks was among them
            self.assertIn("one kernel a step of one row", done.stdout)

    def test_memcheck(self):
        self.clean("memcheck")

    def test_racecheck(self):
        self.clean("racecheck")

    def test_initcheck(self):
        self.clean("initcheck")

    def test_synccheck(self):
        self.clean("synccheck", "--num-cuda-barriers", "1024")  # the rings have more than it expects


if __name__ == "__main__":
    unittest.main()

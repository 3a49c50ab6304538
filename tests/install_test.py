#!/usr/bin/env python3
"""`cmake --install` into a directory of its own: the program runs from there."""
import os
import pathlib
import shutil
import subprocess
import unittest

from support import BINARY, PATIENCE, SteelyardTest


class Install(SteelyardTest):
    def test_runs_where_it_was_installed(self):
        build = pathlib.Path(BINARY).parent
        if not shutil.which("cmake") or not (build / "cmake_install.cmake").exists():
            self.skipTest(f"{build} can't be installed from: it is no build directory, or there is no cmake")
        prefix = self.dir / "prefix"
        done = subprocess.run(["cmake", "--install", build, "--prefix", prefix], capture_output=True, text=True,
                              timeout=PATIENCE)
        self.assertEqual(done.returncode, 0, done.stderr)
        program = prefix / "bin" / "steelyard"
        env = {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}"}
        answer = subprocess.run(["steelyard", "run", str(self.synth()), "hello", "-n", "2", "--json"], cwd="/", env=env,
                                stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE)
        self.assertEqual(answer.returncode, 0, answer.stderr)
        self.assertTrue(list(prefix.glob("share/doc/*/README.md")))
        self.assertEqual((prefix / "lib" / "steelyard" / "steelyard_kernels.bin").exists(),
                         (build / "steelyard_kernels.bin").exists())


if __name__ == "__main__":
    unittest.main()

#!/usr/bin/env python3
"""The scripts' choice of a CUDA compiler, on machines that aren't here."""
import os
import pathlib
import stat
import subprocess
import tempfile
import unittest

from support import ROOT, SMOLLM2, need

OPEN_MODULE = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build  (dvs@U22)\nGCC version: 13\n"
CLOSED_MODULE = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023\n"


class CudaCompiler(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory(prefix="steelyard-test-")
        self.addCleanup(directory.cleanup)
        self.dir = pathlib.Path(directory.name)

    def shell(self, commands, path=()):
        """Output of bash commands after the scripts' functions were read; nothing of this machine's CUDA is seen."""
        environment = {"PATH": ":".join([*map(str, path), "/usr/bin", "/bin"]), "HOME": str(self.dir),
                       "XDG_CACHE_HOME": str(self.dir / "cache"), "CUDA_HOME": str(self.dir / "cuda")}
        done = subprocess.run(["bash", "-c", f'set -euo pipefail; . "{ROOT}/scripts/common.sh"; {commands}'],
                              capture_output=True, text=True, env=environment, timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout.strip()

    def tool(self, path, output):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\ncat <<'END'\n{output}\nEND\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return path

    def test_reads_the_drivers_version(self):
        for text, version in ((OPEN_MODULE, "580.65.06"), (CLOSED_MODULE, "535.104.05"), ("what?\n", "")):
            file = self.dir / "version"
            file.write_text(text)
            self.assertEqual(self.shell(f"driver_version {file}"), version)
        self.assertEqual(self.shell(f"driver_version {self.dir}/nothing"), "")

    def test_decides_what_to_do(self):
        for driver, installed, fetched, state in (("", "", "", "none"), ("", "/x/nvcc", "", "none"),
                                                  ("535.104.05", "/x/nvcc", "", "old"), ("580.65.06", "", "", "fetch"),
                                                  ("580.65.06", "/x/nvcc", "", "ready"), ("600.1", "", "/y/nvcc", "ready")):
            self.assertEqual(self.shell(f"cuda_state '{driver}' '{installed}' '{fetched}'"), state, (driver, installed))

    def test_an_older_installed_compiler_does_not_count(self):
        self.assertEqual(self.shell("installed_nvcc"), "")
        nvcc = self.tool(self.dir / "cuda/bin/nvcc", "Cuda compilation tools, release 12.4, V12.4.131")
        self.assertEqual(self.shell("installed_nvcc"), "")
        self.tool(nvcc, "Cuda compilation tools, release 13.1, V13.1.80")
        self.assertEqual(self.shell("installed_nvcc"), str(nvcc))

    def test_compiles_for_the_gpus_that_are_here(self):
        self.assertEqual(self.shell("cuda_arguments"), "-DSTEELYARD_CUDA_ARCHITECTURES=80;90a")
        self.tool(self.dir / "bin/nvidia-smi", "9.0\n9.0\n8.6")
        fetched = self.tool(self.dir / "cache/steelyard/cuda-13.0/nvidia/cu13/bin/nvcc", "")
        self.assertEqual(self.shell("cuda_arguments", [self.dir / "bin"]),
                         f"-DSTEELYARD_NVCC={fetched}\n-DSTEELYARD_CUDA_ARCHITECTURES=86;90a")


class Models(unittest.TestCase):
    def test_a_model_in_the_cache_of_the_old_name_is_taken_over(self):
        have = need(SMOLLM2)
        with tempfile.TemporaryDirectory(prefix="steelyard-test-") as directory:
            old = pathlib.Path(directory, "strata/models")
            old.mkdir(parents=True)
            (old / have.name).symlink_to(have)
            environment = {**os.environ, "XDG_CACHE_HOME": directory, "PIP_INDEX_URL": "http://127.0.0.1:1/none"}
            done = subprocess.run([ROOT / "scripts/fetch_model.sh", "smollm2"], capture_output=True, text=True,
                                  env=environment, timeout=300)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual(done.stdout.strip(), f"{directory}/steelyard/models/{have.name}")
            self.assertIn("taken over from", done.stderr)
            self.assertTrue((old / have.name).exists())


class FetchedCompiler(unittest.TestCase):
    labels = "slow"

    def test_compiles_a_kernel_with_nothing_of_cuda_installed(self):
        with tempfile.TemporaryDirectory(prefix="steelyard-test-") as directory:
            path = [p for p in os.environ["PATH"].split(":") if not pathlib.Path(p, "nvcc").exists()]
            environment = {**os.environ, "XDG_CACHE_HOME": directory, "CUDA_HOME": f"{directory}/none", "PATH": ":".join(path)}
            done = subprocess.run(["bash", "-c", f'set -euo pipefail; . "{ROOT}/scripts/common.sh"; fetch_nvcc; fetched_nvcc'],
                                  capture_output=True, text=True, env=environment, timeout=900)
            if "couldn't download" in done.stderr:
                self.skipTest("the package registry can't be reached, or there is no pip")
            self.assertEqual(done.returncode, 0, done.stderr)
            # This machine may have what is missing: every header must be the compiler's own or the host compiler's.
            kernel = pathlib.Path(directory, "k.cu")
            kernel.write_text("#include <cuda_bf16.h>\n#include <cuda_fp16.h>\n")
            headers = subprocess.run([done.stdout.strip(), "-std=c++20", "-arch=sm_90a", "-M", kernel], capture_output=True, text=True,
                                     check=True, env=environment).stdout.replace("\\\n", " ").split()
            self.assertEqual([h for h in headers if h.startswith("/") and not h.startswith((directory, "/usr/include/", "/usr/lib/"))], [])


if __name__ == "__main__":
    unittest.main()

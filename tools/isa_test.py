#!/usr/bin/env python3
"""No instruction of a newer CPU outside the files that are chosen at run time: flags, and what their objects export."""
import os
import pathlib
import re
import shutil
import subprocess
import unittest

BUILD = pathlib.Path(os.environ.get("STEELYARD_BINARY", "build/release/steelyard")).resolve().parent
KERNELS = re.compile(r"src/device/.*/cpu/kernels_(avx2|avx512|avx512vnni|avx512bf16)\.cc\.o$")


def objects_with_flags():
    """(object, its compiler flags) of every C++ object in the build."""
    found, name = [], None
    for line in (BUILD / "build.ninja").read_text().splitlines():
        if line.startswith("build "):
            name = line.split(":")[0].split()[1]
        elif line.startswith("  FLAGS = ") and name and name.endswith(".o"):
            found.append((name, line))
    return found


class InstructionSets(unittest.TestCase):
    def setUp(self):
        if not (BUILD / "build.ninja").exists():
            self.skipTest(f"{BUILD} was not made by Ninja")

    def test_only_kernel_files_have_the_flags(self):
        flagged = {name for name, flags in objects_with_flags() if re.search(r"-m(avx|fma|f16c|bmi|arch)", flags)}
        self.assertEqual({name for name in flagged if not KERNELS.search(name)}, set())
        if os.uname().machine == "x86_64":
            self.assertEqual(len(flagged), 4)

    def test_kernel_files_export_only_their_table(self):
        """The linker keeps one copy of an inline function: none may come from a file with such flags."""
        if not shutil.which("nm"):
            self.skipTest("there is no nm here")
        for name, _ in objects_with_flags():
            if not KERNELS.search(name):
                continue
            listed = subprocess.run(["nm", "-C", "--defined-only", "--extern-only", BUILD / name],
                                    check=True, capture_output=True, text=True).stdout
            names = {line.split(" ", 2)[2] for line in listed.splitlines()}
            tables = {n for n in names if re.fullmatch(r"steelyard::cpu::kAvx\w+Kernels", n)}
            self.assertEqual(len(tables), 1, name)
            self.assertEqual({n for n in names - tables if "asan" not in n}, set(), name)


if __name__ == "__main__":
    unittest.main()

#!/usr/bin/env python3
"""check_rooms.py finds what it should find, in a small tree made for it, and nothing in the project itself."""
import pathlib
import tempfile
import unittest

import check_rooms


class CheckRooms(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.root = pathlib.Path(directory.name)
        self.write("base/CMakeLists.txt", "steelyard_room(base LIBS fmt::fmt)\n")
        self.write("device/CMakeLists.txt", "# kernels\nsteelyard_room(device ROOMS base SUBDIRS cpu)\n")
        self.write("plan/CMakeLists.txt", "steelyard_room(plan ROOMS base\n  device LIBS other)\n")

    def write(self, name, text):
        path = self.root / "src" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def test_allowed_includes_pass(self):
        self.write("base/a.h", '#include <vector>\n#include "base/b.h"\n')
        self.write("device/cuda/k.cu", "#include <cuda_runtime.h>\n")
        self.write("plan/p.cc", '#include "device/target.h"\n#include "base/a.h"\n// #include "device/device.h"\n')
        self.assertEqual(check_rooms.find_violations(self.root), [])

    def test_finds_an_upward_include(self):
        self.write("base/a.h", '#include <vector>\n\n#include "plan/plan.h"\n')
        (violation,) = check_rooms.find_violations(self.root)
        self.assertIn("src/base/a.h:3", violation)
        self.assertIn("plan/plan.h", violation)

    def test_plan_sees_no_running_device(self):
        self.write("plan/p.cc", '#include "device/device.h"\n')
        (violation,) = check_rooms.find_violations(self.root)
        self.assertIn("plan may see of device only", violation)

    def test_cuda_headers_stay_in_device_cuda(self):
        self.write("device/cpu/k.cc", "#  include <cuda_fp16.h>\n")
        (violation,) = check_rooms.find_violations(self.root)
        self.assertIn("only device/cuda", violation)

    def test_finds_a_path_that_is_not_from_src(self):
        self.write("base/a.cc", '#include "a.h"\n')
        self.assertIn("from src/", check_rooms.find_violations(self.root)[0])

    def test_finds_a_directory_that_is_no_room(self):
        self.write("attic/a.h", "")
        self.assertIn("attic/ is no room", check_rooms.find_violations(self.root)[0])

    def test_finds_a_circle(self):
        self.write("base/CMakeLists.txt", "steelyard_room(base ROOMS plan)\n")
        self.assertIn("circle", check_rooms.find_violations(self.root)[0])

    def test_the_project_follows_its_own_rule(self):
        root = pathlib.Path(check_rooms.__file__).resolve().parent.parent
        self.assertEqual(check_rooms.find_violations(root), [])


if __name__ == "__main__":
    unittest.main()

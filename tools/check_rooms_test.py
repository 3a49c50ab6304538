#!/usr/bin/env python3
"""check_rooms.py finds what it should find, in a small tree made for it, and nothing in the project itself."""
import pathlib
import tempfile
import unittest

import check_rooms


class CheckRooms(unittest.TestCase):
    """Rooms base, device and plan; the arrows that a test doesn't use are used by a file of their own."""

    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.root = pathlib.Path(directory.name)
        self.write("base/CMakeLists.txt", "steelyard_room(base LIBS fmt::fmt)\n")
        self.write("base/used.h", "")
        self.write("device/CMakeLists.txt", "# kernels\nsteelyard_room(device ROOMS base SUBDIRS cpu)\n")
        self.write("device/user.cc", '#include "base/used.h"\n')
        self.write("plan/CMakeLists.txt", "steelyard_room(plan ROOMS base\n  device LIBS other)\n")
        self.write("plan/user.cc", '#include "base/used.h"\n#include "device/target.h"\n')

    def only_violation(self):
        (violation,) = check_rooms.find_violations(self.root)
        return violation

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
        violation = self.only_violation()
        self.assertIn("src/base/a.h:3", violation)
        self.assertIn("plan/plan.h", violation)

    def test_plan_sees_no_running_device(self):
        self.write("plan/p.cc", '#include "device/device.h"\n')
        self.assertIn("plan may see of device only ceilings.h, target.h", self.only_violation())
        self.write("plan/p.cc", '#include "device/ceilings.h"\n')
        self.assertEqual(check_rooms.find_violations(self.root), [])

    def test_cuda_headers_stay_in_device_cuda(self):
        self.write("device/cpu/k.cc", "#  include <cuda_fp16.h>\n")
        self.assertIn("only device/cuda", self.only_violation())

    def test_finds_a_path_that_is_not_from_src(self):
        self.write("base/a.cc", '#include "a.h"\n')
        self.assertIn("from src/", self.only_violation())

    def test_finds_a_directory_that_is_no_room(self):
        self.write("attic/a.h", "")
        self.assertIn("attic/ is no room", self.only_violation())

    def test_finds_a_circle(self):
        self.write("base/CMakeLists.txt", "steelyard_room(base ROOMS plan)\n")
        self.write("base/a.cc", '#include "plan/plan.h"\n')
        self.assertIn("circle", self.only_violation())

    def test_finds_an_arrow_that_nothing_uses(self):
        self.write("device/user.cc", '// #include "base/used.h"\n')
        self.assertIn("no file of device includes base", self.only_violation())

    def test_an_arrow_of_tests_alone_is_listed_as_such(self):
        self.write("device/user.cc", "")
        for name in ("user_test.cc", "testing.h", "testing/harness.h"):
            self.write(f"device/{name}", '#include "base/used.h"\n')
            self.assertIn("only tests of device include base", self.only_violation())
            self.write("device/CMakeLists.txt", "steelyard_room(device TEST_ROOMS base SUBDIRS cpu)\n")
            self.assertEqual(check_rooms.find_violations(self.root), [])
            self.write("device/CMakeLists.txt", "steelyard_room(device ROOMS base SUBDIRS cpu)\n")
            self.write(f"device/{name}", "")

    def test_an_arrow_of_tests_is_not_for_the_others(self):
        self.write("device/CMakeLists.txt", "steelyard_room(device TEST_ROOMS base)\n")
        self.write("device/user_test.cc", '#include "base/used.h"\n')
        self.assertIn("only the tests of device may", self.only_violation())

    def test_finds_an_arrow_of_tests_that_no_test_uses(self):
        self.write("plan/CMakeLists.txt", "steelyard_room(plan ROOMS device TEST_ROOMS base)\n")
        self.write("plan/user.cc", '#include "device/target.h"\n')
        self.assertIn("no test of plan includes base", self.only_violation())

    def test_finds_names_got_through_another_header(self):
        self.write("base/names.h", """
            namespace steelyard {
            class Forward;
            template <typename T> struct alignas(8) Point final : Base { int half; };
            enum class Kind : int { one };
            using Id = std::int32_t;
            inline constexpr int kMost = 3;
            std::vector<std::pair<int, int>> pairs_of(const Point& p = {}, int n = 2);
            inline int twice(int n) { return 2 * n; }
            }""")
        for use in ("Point<int> p;", "Kind k;", "Id i = 0;", "int x = kMost;", "auto p = pairs_of({});", "f(steelyard::twice(2));"):
            self.write("device/a.cc", f"namespace steelyard {{ void f() {{ {use} }} }}")
            violation = self.only_violation()
            self.assertIn("src/device/a.cc: uses ", violation)
            self.assertIn('include "base/names.h" here', violation)

    def test_what_is_included_here_or_in_the_own_header_is_not_borrowed(self):
        self.write("base/names.h", "namespace steelyard { struct Point {}; }")
        self.write("device/a.cc", '#include "base/names.h"\nnamespace steelyard { Point p; }')
        self.write("device/b.h", '#include "base/names.h"\n')
        self.write("device/b.cc", '#include "device/b.h"\nnamespace steelyard { Point p; }')
        self.write("device/b_test.cc", '#include "device/b.h"\nnamespace steelyard { Point p; }')
        self.assertEqual(check_rooms.find_violations(self.root), [])
        self.write("device/c.cc", '#include "device/b.h"\nnamespace steelyard { Point p; }')
        self.assertIn("src/device/c.cc: uses Point", self.only_violation())

    def test_a_name_that_means_something_else_is_not_borrowed(self):
        self.write("base/names.h", "namespace steelyard { struct Point {}; int size_of(int n); }")
        self.write("base/inner.h", "namespace steelyard::base { struct Hidden {}; }")
        self.write("plan/twice.h", "namespace steelyard::plan { struct Two {}; }")
        self.write("base/twice.h", "namespace steelyard { struct Two {}; }")
        for use in ("// Point\n", 'auto t = "Point";', "int n = x.size_of(1);", "n = Own::size_of(1);", "int size_of(long n);",
                    "struct Point;", "struct A { struct Point {}; Point p; };", "Hidden h;", "Two t;", "std::Point p;"):
            self.write("device/a.cc", f"namespace steelyard {{ {use} }}")
            self.assertEqual(check_rooms.find_violations(self.root), [], use)

    def test_finds_a_type_that_is_defined_twice(self):
        self.write("base/a.h", "namespace steelyard { struct Part {}; struct Part::Inner {}; }")
        self.write("plan/b.h", "namespace steelyard { struct Other {}; struct Part; struct Part::Deep {}; }")
        self.assertEqual(check_rooms.find_violations(self.root), [])
        self.write("plan/c.h", "namespace steelyard { class Part final {}; }")
        self.assertIn("steelyard::Part is defined in plan/c.h too", self.only_violation())

    def test_finds_a_table_that_says_something_else(self):
        rows = {"base": "–", "device": "base", "plan": "base device (`target.h` only)"}

        def write_table():
            table = self.root / "docs" / "architecture.md"
            table.parent.mkdir(exist_ok=True)
            table.write_text("".join(f"| `{room}` | what it is | {cell} |\n" for room, cell in rows.items()))

        write_table()
        self.assertEqual(check_rooms.find_violations(self.root), [])
        rows["device"] = "base (tests: plan)"
        write_table()
        self.assertIn("device's row isn't what CMake lists: base", self.only_violation())
        del rows["device"]
        write_table()
        self.assertIn("device's row", self.only_violation())

    def test_the_project_follows_its_own_rule(self):
        root = pathlib.Path(check_rooms.__file__).resolve().parent.parent
        self.assertEqual(check_rooms.find_violations(root), [])


if __name__ == "__main__":
    unittest.main()

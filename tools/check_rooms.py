#!/usr/bin/env python3
"""Checks that every room under src/ includes only what its CMake line lists.

The arrows are read from the `steelyard_room(NAME ROOMS …)` calls, so there is one place that says them. On top of them:
- plan/ may include of device/ only what describes devices, never what runs kernels;
- only device/cuda/ may include CUDA's headers;
- the rooms' arrows have no cycle.

    tools/check_rooms.py [ROOT]     prints one line per violation; exit code 1 when there is one
"""
import pathlib
import re
import sys

SOURCE_SUFFIXES = {".cc", ".h", ".cu", ".cuh", ".inc"}
PLAN_MAY_INCLUDE_OF_DEVICE = {"target.h", "ceilings.h"}
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.M)
ROOM = re.compile(r"steelyard_room\(\s*(\w+)([^)]*)\)")
CUDA_HEADER = re.compile(r"^(cuda|cublas|nccl|nvml|cooperative_groups|nvtx|mma\.h|cub/|cutlass/|thrust/)")


def read_rooms(src):
    """{room: set of rooms it may include}, by the CMake lines."""
    rooms = {}
    for path in sorted(src.glob("*/CMakeLists.txt")):
        for name, rest in ROOM.findall(path.read_text()):
            listed = re.search(r"\bROOMS\b([^A-Z]*)", rest)
            rooms[name] = set(listed.group(1).split()) if listed else set()
    return rooms


def find_cycle(rooms):
    """A list of rooms that lead back to the first, or None."""
    done = set()

    def walk(room, trail):
        if room in trail:
            return trail[trail.index(room):] + [room]
        if room in done:
            return None
        for other in sorted(rooms.get(room, ())):
            cycle = walk(other, trail + [room])
            if cycle:
                return cycle
        done.add(room)
        return None

    for room in sorted(rooms):
        cycle = walk(room, [])
        if cycle:
            return cycle
    return None


def check_include(room, path, kind, target, rooms):
    """What is wrong with one #include, or None. `path` is relative to src/."""
    if CUDA_HEADER.match(target) and path.parts[:2] != ("device", "cuda"):
        return f"includes {target}, but only device/cuda may see CUDA's headers"
    other = target.split("/")[0]
    if kind == "<" or other not in rooms:
        if kind == '"' and "/" not in target:
            return f'includes "{target}": write the path from src/'
        return None
    if other == room:
        return None
    if other not in rooms[room]:
        return f"includes {target}, but {room} may include only {', '.join(sorted(rooms[room])) or 'itself'}"
    if room == "plan" and other == "device" and target.split("/", 1)[1] not in PLAN_MAY_INCLUDE_OF_DEVICE:
        return f"includes {target}, but plan may see of device only {', '.join(sorted(PLAN_MAY_INCLUDE_OF_DEVICE))}"
    return None


def strip_comments(text):
    return re.sub(r"//[^\n]*|/\*.*?\*/", lambda m: "\n" * m.group().count("\n"), text, flags=re.S)


def find_violations(root):
    src = root / "src"
    rooms = read_rooms(src)
    violations = []
    cycle = find_cycle(rooms)
    if cycle:
        violations.append("src: the rooms' arrows form a circle: " + " -> ".join(cycle))
    for path in sorted(p for p in src.rglob("*") if p.suffix in SOURCE_SUFFIXES):
        relative = path.relative_to(src)
        room = relative.parts[0]
        if room not in rooms:
            violations.append(f"src/{relative}: {room}/ is no room: its CMakeLists.txt has no steelyard_room line")
            continue
        text = path.read_text(errors="replace")
        clean = strip_comments(text)
        for found in INCLUDE.finditer(clean):
            wrong = check_include(room, relative, found.group(1), found.group(2), rooms)
            if wrong:
                line = clean.count("\n", 0, found.start(2)) + 1
                violations.append(f"src/{relative}:{line}: {wrong}")
    return violations


def main(arguments):
    if arguments[:1] in (["-h"], ["--help"]):
        print(__doc__)
        return 0
    root = pathlib.Path(arguments[0]) if arguments else pathlib.Path(__file__).resolve().parent.parent
    violations = find_violations(root)
    for violation in violations:
        print(violation)
    if not violations:
        print("rooms: every include follows the arrows", file=sys.stderr)
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

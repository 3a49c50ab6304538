#!/usr/bin/env python3
"""Checks that the rooms under src/ include what their CMake lines list, all of it and nothing else.

The arrows are read from the `steelyard_room(NAME ROOMS … TEST_ROOMS …)` calls, so there is one place that says them:
- a file includes only its own room and those that its room lists; TEST_ROOMS are for tests alone (x_test.cc, testing/, testing.h);
- every listed room is included by a file of the room, and every one of TEST_ROOMS by a test;
- a file that uses a name which only another room's headers declare includes one of those itself, or its own x.h does;
- no two headers define a type of the same name in the same namespace;
- plan/ may include of device/ only what describes devices, never what runs kernels;
- only device/cuda/ may include CUDA's headers;
- the rooms' arrows have no cycle, and the table in docs/architecture.md says the same.

    tools/check_rooms.py [ROOT]     prints one line per violation; exit code 1 when there is one
"""
import collections
import pathlib
import re
import sys

import cpp_names

HEADER_SUFFIXES = {".h", ".cuh"}
SOURCE_SUFFIXES = {".cc", ".cu", ".inc"} | HEADER_SUFFIXES
PLAN_MAY_INCLUDE_OF_DEVICE = {"target.h", "ceilings.h"}
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.M)
ROOM = re.compile(r"steelyard_room\(\s*(\w+)([^)]*)\)")
CUDA_HEADER = re.compile(r"^(cuda|cublas|nccl|nvml|cooperative_groups|nvtx|mma\.h|cub/|cutlass/|thrust/)")
ROW = re.compile(r"^\| `(\w+)` \| .* \| ([^|]*) \|$", re.M)

# The rooms that a room may include: everywhere, and in its tests besides.
Arrows = collections.namedtuple("Arrows", "rooms tests")
# includes: [(line, "<" or '"', path)].
Source = collections.namedtuple("Source", "path room test includes tokens")
# rooms: whose headers declare it; headers: those of them; namespace: the innermost one's name.
Name = collections.namedtuple("Name", "kind namespace rooms headers")


def read_rooms(src):
    """{room: Arrows} by the CMake lines."""
    rooms = {}
    for path in sorted(src.glob("*/CMakeLists.txt")):
        for name, rest in ROOM.findall(path.read_text()):
            lists = [re.search(rf"(?<!\w){word}\b([^A-Z]*)", rest) for word in ("ROOMS", "TEST_ROOMS")]
            rooms[name] = Arrows(*(set(found.group(1).split()) if found else set() for found in lists))
    return rooms


def is_test(path):
    return path.stem.endswith("_test") or path.stem == "testing" or "testing" in path.parts


def strip_comments(text):
    return re.sub(r"//[^\n]*|/\*.*?\*/", lambda m: "\n" * m.group().count("\n"), text, flags=re.S)


def read_source(path, relative):
    text = path.read_text(errors="replace")
    clean = strip_comments(text)
    includes = [(clean.count("\n", 0, m.start(2)) + 1, m.group(1), m.group(2)) for m in INCLUDE.finditer(clean)]
    return Source(relative, relative.parts[0], is_test(relative), includes, cpp_names.tokens_of(text))


def read_sources(src):
    paths = sorted(p for p in src.rglob("*") if p.suffix in SOURCE_SUFFIXES)
    return {str(p.relative_to(src)): read_source(p, p.relative_to(src)) for p in paths}


def find_cycle(rooms):
    """A list of rooms that lead back to the first, or None."""
    done = set()

    def walk(room, trail):
        if room in trail:
            return trail[trail.index(room):] + [room]
        if room in done:
            return None
        for other in sorted(rooms[room].rooms if room in rooms else ()):
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


def check_include(source, kind, target, rooms):
    """What is wrong with one #include, or None."""
    if CUDA_HEADER.match(target) and source.path.parts[:2] != ("device", "cuda"):
        return f"includes {target}, but only device/cuda may see CUDA's headers"
    other = target.split("/")[0]
    if kind == "<" or other not in rooms:
        if kind == '"' and "/" not in target:
            return f'includes "{target}": write the path from src/'
        return None
    if other == source.room:
        return None
    arrows = rooms[source.room]
    if other in arrows.tests and not source.test and other not in arrows.rooms:
        return f"includes {target}, but only the tests of {source.room} may: move {other} from TEST_ROOMS to ROOMS"
    if other not in arrows.rooms | arrows.tests:
        return f"includes {target}, but {source.room} may include only {', '.join(sorted(arrows.rooms)) or 'itself'}"
    if source.room == "plan" and other == "device" and target.split("/", 1)[1] not in PLAN_MAY_INCLUDE_OF_DEVICE:
        return f"includes {target}, but plan may see of device only {', '.join(sorted(PLAN_MAY_INCLUDE_OF_DEVICE))}"
    return None


def find_wrong_includes(sources, rooms):
    for source in sources.values():
        if source.room not in rooms:
            yield f"src/{source.path}: {source.room}/ is no room: its CMakeLists.txt has no steelyard_room line"
            continue
        for line, kind, target in source.includes:
            wrong = check_include(source, kind, target, rooms)
            if wrong:
                yield f"src/{source.path}:{line}: {wrong}"


def find_unused_arrows(sources, rooms):
    used = collections.defaultdict(set)
    for source in sources.values():
        used[source.room, source.test].update(target.split("/")[0] for _, kind, target in source.includes if kind == '"')
    for room, arrows in sorted(rooms.items()):
        for other in sorted(arrows.rooms - used[room, False]):
            wrong = (f"only tests of {room} include {other}: move it to TEST_ROOMS" if other in used[room, True] else
                     f"no file of {room} includes {other}: take it out")
            yield f"src/{room}/CMakeLists.txt: {wrong}"
        for other in sorted(arrows.tests - used[room, True]):
            yield f"src/{room}/CMakeLists.txt: no test of {room} includes {other}: take it out of TEST_ROOMS"
        for other in sorted(arrows.tests & arrows.rooms):
            yield f"src/{room}/CMakeLists.txt: {other} stands in ROOMS and in TEST_ROOMS: once is enough"


def declared_names(sources):
    """{name: Name} of those that the headers of one room alone declare."""
    names = {}
    for file, source in sources.items():
        if source.path.suffix not in HEADER_SUFFIXES:
            continue
        for kind, name, namespace in cpp_names.declarations(source.tokens):
            known = names.setdefault(name, Name(kind, namespace, set(), set()))
            known.rooms.add(source.room)
            known.headers.add(file)
    return {name: known for name, known in names.items() if len(known.rooms) == 1}


def find_twin_types(sources):
    """Types that two headers define in one namespace: linked into one program, one's functions would be taken for the other's."""
    headers = collections.defaultdict(list)
    for file, source in sorted(sources.items()):
        if source.path.suffix in HEADER_SUFFIXES:
            for kind, name, namespace in cpp_names.declarations(source.tokens):
                if kind == "type" and namespace:
                    headers[namespace, name].append(file)
    for (namespace, name), files in sorted(headers.items()):
        if len(set(files)) > 1:
            yield f"src/{files[0]}: {namespace}::{name} is defined in {files[1]} too: give one another name"


def own_headers(file):
    """x.h of x.cc and x_test.cc."""
    path = pathlib.PurePosixPath(file)
    stem = path.stem.removesuffix("_test")
    return [str(path.with_name(stem + suffix)) for suffix in sorted(HEADER_SUFFIXES)]


def find_borrowed_names(sources):
    """Names of another room that a file uses and gets by another header's grace."""
    names = declared_names(sources)
    spaces, own = set(), collections.defaultdict(set)
    for source in sources.values():
        spaces |= cpp_names.namespaces(source.tokens)
        own[source.room] |= cpp_names.own_names(source.tokens)
    for file, source in sources.items():
        included = {target for _, _, target in source.includes}
        for header in filter(sources.get, own_headers(file)):
            included.update(target for _, _, target in sources[header].includes)
        foreign = {name: (known.kind, known.namespace) for name, known in names.items()
                   if source.room not in known.rooms and (known.kind == "type" or name not in own[source.room])}
        missing = collections.defaultdict(list)
        for name in sorted(cpp_names.uses(source.tokens, foreign, spaces)):
            if not names[name].headers & included:
                missing[sorted(names[name].headers)[0]].append(name)
        for header, used in sorted(missing.items()):
            yield f'src/{file}: uses {", ".join(used)}: include "{header}" here'


def find_wrong_rows(root, rooms):
    """Where the table in docs/architecture.md says other arrows than CMake; without that file, nowhere."""
    table = root / "docs" / "architecture.md"
    if not table.exists():
        return
    rows = {}
    for room, cell in ROW.findall(table.read_text()):
        tests = re.search(r"\(tests: ([^)]*)\)", cell)
        words = re.sub(r"\([^)]*\)", "", cell).replace("–", "").split()
        rows[room] = Arrows(set(words), set(tests.group(1).split()) if tests else set())
    for room in sorted(rows.keys() | rooms.keys()):
        if rows.get(room) != rooms.get(room):
            listed = rooms.get(room, Arrows(set(), set()))
            tests = f" (tests: {' '.join(sorted(listed.tests))})" if listed.tests else ""
            yield f"docs/architecture.md: {room}'s row isn't what CMake lists: {' '.join(sorted(listed.rooms))}{tests}"


def find_violations(root):
    src = root / "src"
    rooms = read_rooms(src)
    sources = read_sources(src)
    cycle = find_cycle(rooms)
    violations = ["src: the rooms' arrows form a circle: " + " -> ".join(cycle)] if cycle else []
    violations += find_wrong_includes(sources, rooms)
    violations += find_unused_arrows(sources, rooms)
    violations += find_borrowed_names(sources)
    violations += find_twin_types(sources)
    violations += find_wrong_rows(root, rooms)
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
        print("rooms: every include follows the arrows, every arrow is used", file=sys.stderr)
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

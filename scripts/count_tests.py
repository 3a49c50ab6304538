#!/usr/bin/env python3
"""Adds up the tests.xml files (JUnit, written by ctest) of build directories: why tests were skipped on stderr,
"N passed, N failed, N skipped" on stdout.

    count_tests.py [--also PASSED FAILED] BUILD-DIRECTORY...
"""
import pathlib
import re
import sys
import xml.etree.ElementTree as ElementTree

REASONS = (
    re.compile(r"\.cc:\d+: Skipped\n(.*?)\n", re.S),  # GoogleTest
    re.compile(r"skipped ['\"](.*?)['\"]$", re.M),  # unittest
    re.compile(r"(no CUDA: [^\n]*)"),  # a test program that found no device to run on
)


def reason_for(case):
    output = case.findtext("system-out") or ""
    for pattern in REASONS:
        found = pattern.search(output)
        if found:
            return " ".join(found.group(1).split())
    return "disabled" if case.get("status") == "disabled" else "no reason given"


def main(arguments):
    passed = failed = skipped = 0
    if arguments[0] == "--also":
        passed, failed = int(arguments[1]), int(arguments[2])
        arguments = arguments[3:]
    reasons = {}
    for directory in arguments:
        for case in ElementTree.parse(pathlib.Path(directory) / "tests.xml").getroot().iter("testcase"):
            status = case.get("status")
            if status == "run":
                passed += 1
            elif status == "fail":
                failed += 1
            else:
                skipped += 1
                reasons.setdefault(reason_for(case), []).append(case.get("name"))
    for reason, names in sorted(reasons.items()):
        print(f"skipped {len(names)} ({names[0]}{', …' if len(names) > 1 else ''}): {reason}", file=sys.stderr)
    print(f"{passed} passed, {failed} failed, {skipped} skipped")


if __name__ == "__main__":
    main(sys.argv[1:])

#!/usr/bin/env python3
"""What the documents say exists: commands and their flags, files, links, endpoints."""
import functools
import pathlib
import re
import subprocess
import unittest
import urllib.error
import urllib.request

from support import PATIENCE, ROOT, SteelyardTest, run

DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "fuzz" / "README.md", *sorted(ROOT.glob("docs/*.md"))]
FOLDERS = ("src", "tools", "docs", "scripts", "tests", "fuzz", "bench", "cmake")


@functools.lru_cache(maxsize=None)
def help_of(*command):
    return run(*command, "--help").stdout


def commands():
    return re.findall(r"^  ([a-z]+) ", help_of().split("Commands:")[1], re.M)


def code_of(document):
    """The lines of indented and fenced blocks and the inline code of a document, shell continuations joined."""
    text = document.read_text().replace("\\|", "|")
    blocks = re.findall(r"^```[^\n]*\n(.*?)^```", text, re.M | re.S)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    lines += re.findall(r"^    (.*)", text, re.M)
    return lines + re.findall(r"`([^`\n]+)`", text)


def flags_in(text):
    return set(re.findall(r"(?<![\w-])(--?[a-zA-Z][a-z0-9-]*)", text))


class Documents(SteelyardTest):
    def test_every_command_is_in_the_readme(self):
        readme = (ROOT / "README.md").read_text()
        self.assertGreaterEqual(len(commands()), 11)
        for command in commands():
            self.assertRegex(readme, rf"\| `{command}` \|")

    def test_every_flag_that_is_written_down_exists(self):
        checked = 0
        for document in DOCUMENTS:
            for line in code_of(document):
                for command, rest in re.findall(r"\bsteelyard ([a-z]+)\b([^|>`]*)", line):
                    if command not in commands():
                        continue
                    checked += 1
                    unquoted = re.sub(r"'[^']*'|\"[^\"]*\"", "", rest)
                    missing = flags_in(unquoted) - flags_in(help_of(command)) - {"-d"}
                    self.assertFalse(missing, f"{document.name}: {line.strip()}: no such flag {missing}")
        self.assertGreater(checked, 10)

    def test_links_lead_somewhere(self):
        for document in DOCUMENTS:
            for target in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text()):
                if "://" not in target:
                    self.assertTrue((document.parent / target).exists(), f"{document.name} links to {target}")

    def test_files_that_are_named_exist(self):
        for document in DOCUMENTS:
            for name in re.findall(rf"`((?:{'|'.join(FOLDERS)})/[\w./*-]+)`", document.read_text()):
                self.assertTrue(list(ROOT.glob(name.rstrip("/"))), f"{document.name} names {name}")

    def test_the_old_name_is_gone(self):
        listed = subprocess.run(["git", "-C", ROOT, "grep", "-I", "-i", "-n", "strata"], capture_output=True, text=True, timeout=PATIENCE)
        if listed.returncode not in (0, 1):
            self.skipTest(f"git can't list the tracked files: {listed.stderr.strip()}")
        # Where it must be: what looks for models of the old name, the warning, their tests, and one line that says so.
        allowed = {"README.md": 1, "scripts/common.sh": 1, "src/app/main.cc": 1, "src/store/store.cc": 1}
        counts = {}
        for line in listed.stdout.splitlines():
            path = line.split(":", 1)[0]
            if not re.search(r"_test\.(py|cc)$", path):
                counts[path] = counts.get(path, 0) + 1
        self.assertEqual(counts, allowed)

    def test_scripts_do_what_the_readme_says(self):
        for script in ("demo.sh", "test.sh", "scripts/setup.sh", "scripts/fetch_model.sh", ".ci/run"):
            done = subprocess.run([ROOT / script, "--help"], capture_output=True, text=True, timeout=PATIENCE)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn(pathlib.Path(script).name, done.stdout)


class Endpoints(SteelyardTest):
    def setUp(self):
        self.base = self.serve("--quiet")

    def status(self, method, path):
        request = urllib.request.Request(self.base + path, data=b"{}" if method == "POST" else None, method=method)
        try:
            return urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=PATIENCE).status
        except urllib.error.HTTPError as error:
            error.close()
            return error.code

    def test_the_documented_ones_are_there(self):
        text = (ROOT / "docs" / "api.md").read_text()
        there = [found for found in re.findall(r"`(GET|POST) (/\S*)`", text) if "NAME" not in found[1]]
        self.assertGreaterEqual(len(there), 7)
        for method, path in there:
            with self.subTest(path=path):
                self.assertEqual(self.status(method, path), 200 if method == "GET" else 400)


if __name__ == "__main__":
    unittest.main()

#!/usr/bin/env python3
"""Other servers' own client packages, unchanged, against `steelyard serve`. They live in a virtual environment in the
cache, made once for each list of versions."""
import fcntl
import hashlib
import shutil
import subprocess
import sys
import unittest

from registry import Registry
from support import CACHE, PATIENCE, ROOT, SteelyardTest

CLIENTS = ROOT / "tests" / "clients"


def environment(requirements):
    """The environment's Python. Skips the test, saying why, when the packages can't be had."""
    wanted = CLIENTS / requirements
    key = hashlib.sha256(wanted.read_bytes() + sys.version.encode()).hexdigest()[:16]
    home = CACHE / "clients" / key
    python = home / "bin" / "python"
    home.parent.mkdir(parents=True, exist_ok=True)
    with open(home.parent / f"{key}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests that run at the same time make it once
        if (home / "complete").exists():
            return python
        shutil.rmtree(home, ignore_errors=True)
        for command in ([sys.executable, "-m", "venv", home],
                        [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", wanted]):
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                raise unittest.SkipTest(f"the clients of {requirements} can't be installed: it takes too long") from None
            if done.returncode != 0:
                said = (done.stderr or done.stdout).strip().splitlines() or ["no reason given"]
                raise unittest.SkipTest(f"the clients of {requirements} can't be installed: {said[-1]}")
        (home / "complete").touch()
    return python


class ClientTest(SteelyardTest):
    requirements = "requirements.txt"

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.python = environment(cls.requirements)
        cls.synth()
        (cls.dir / "tiny-llama.gguf").rename(cls.dir / "tiny.gguf")

    def calls(self, script, *more):
        env = {"STEELYARD_MODELS": str(self.dir), "XDG_CACHE_HOME": str(self.dir / "cache")}
        url = self.serve("--quiet", "--context", "512", env=env)
        done = subprocess.run([self.python, CLIENTS / script, url, "tiny", *more], stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=PATIENCE, cwd=self.dir)
        self.assertEqual((done.returncode, done.stdout.strip().splitlines()[-1:]), (0, ["ok"]), done.stderr + done.stdout)


class Clients(ClientTest):
    def test_ollama(self):
        registry = Registry(self)
        weights = (self.dir / "tiny.gguf").read_bytes()
        self.calls("ollama_calls.py", registry.model("library/pulled:1b", registry.blob("model", weights)), self.dir / "tiny.gguf")

    def test_openai(self):
        self.calls("openai_calls.py")

    def test_anthropic(self):
        self.calls("anthropic_calls.py")


class Schemas(ClientTest):
    requirements = "schema_requirements.txt"

    def test_answers_validate(self):
        self.calls("schema_calls.py")


if __name__ == "__main__":
    unittest.main()

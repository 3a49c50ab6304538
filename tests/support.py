"""What the end-to-end tests share: running the binary, small models, and what a good failure looks like."""
import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import threading
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent
BINARY = os.environ.get("STEELYARD_BINARY", str(ROOT / "build" / "release" / "steelyard"))
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "steelyard"
# Whatever this machine has, commands see a machine without a driver.
NO_GPU = {"STEELYARD_CUDA_DRIVER": "/nonexistent/libcuda.so.1"}
PATIENCE = 400  # seconds until something counts as hanging; a loaded machine is slow, and no test judges speed
SMOLLM2 = CACHE / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"


def need(path):
    """Skips the test, saying why, when a fetched model isn't there."""
    if not path.exists():
        raise unittest.SkipTest(f"{path.name} is not in the cache; scripts/fetch_model.sh fetches it")
    return path


def own_memory(test):
    """For a test that limits or measures the program's memory: a sanitizer's is many times its own."""
    return unittest.skipIf(os.environ.get("STEELYARD_SANITIZED"), "a sanitizer's memory isn't the program's own")(test)


def run(*arguments, input=None, env=None, timeout=PATIENCE, **options):
    """Runs `steelyard arguments…`; text in and out."""
    if isinstance(input, str):
        input = input.encode()
    if input is None and "stdin" not in options:
        options["stdin"] = subprocess.DEVNULL
    done = subprocess.run([BINARY, *map(str, arguments)], input=input, timeout=timeout,
                          stdout=options.pop("stdout", subprocess.PIPE), stderr=subprocess.PIPE,
                          env={**os.environ, **(env or {})}, **options)
    done.stdout = (done.stdout or b"").decode(errors="replace")
    done.stderr = done.stderr.decode(errors="replace")
    return done


class SteelyardTest(unittest.TestCase):
    """A temporary directory a class, and what commands owe their callers."""

    @classmethod
    def setUpClass(cls):
        cls.dir = pathlib.Path(tempfile.mkdtemp(prefix="steelyard-test-"))
        cls.addClassCleanup(shutil.rmtree, cls.dir, ignore_errors=True)

    @classmethod
    def synth(cls, shape="tiny-llama", *flags):
        """A small random model with a byte-level vocabulary and a chat template."""
        path = cls.dir / f"{''.join([shape, *flags])}.gguf"
        if not path.exists():
            done = run("synth", shape, path, "--type", "q8_0", "--vocabulary", *flags)
            assert done.returncode == 0, done.stderr
        return path

    def need_gpu(self):
        """Skips the test, saying why, where there is no GPU."""
        done = run("plan", self.synth(), "--device", "cuda0")
        found = re.search(r"no CUDA: [^)]*", done.stderr)
        if found:
            self.skipTest(found.group(0))
        self.assertEqual(done.returncode, 0, done.stderr)

    def fake_gpu(self, **fake):
        """Environment of a command that sees GPUs which do everything but compute: every token is 0. `fake` as in
        device/cuda/testing/libcuda.cc: memory, devices, fail."""
        testing = pathlib.Path(BINARY).parent / "testing"
        driver, kernels = testing / "libcuda_fake.so", testing / "fake_kernels.bin"
        for file in (driver, kernels):
            if not file.exists():
                self.skipTest(f"{file.name} isn't built")
        return {"STEELYARD_CUDA_DRIVER": str(driver), "STEELYARD_CUDA_KERNELS": str(kernels),
                **{f"STEELYARD_FAKE_{name.upper()}": str(value) for name, value in fake.items()}}

    def serve(self, *flags, env=None):
        """Starts `steelyard serve` until the test ends; its address."""
        server = subprocess.Popen([BINARY, "serve", "--port", "0", *flags], env={**os.environ, **(env or {})},
                                  stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

        def stop():
            server.terminate()
            server.wait(PATIENCE)
            server.stderr.close()

        self.addCleanup(stop)
        for line in server.stderr:
            found = re.search(r"listening on (http://[^;\s]+)", line)
            if found:
                threading.Thread(target=server.stderr.read, daemon=True).start()  # or it would stop at a full pipe
                return found.group(1)
        self.fail("the server ended")

    def ok(self, *arguments, **options):
        done = run(*arguments, **options)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done

    def ok_json(self, *arguments, **options):
        return json.loads(self.ok(*arguments, **options).stdout)

    def fails(self, *arguments, code=None, says="", **options):
        """One sentence on stderr, nothing on stdout, a plain exit code: no signal, no exception's remains."""
        done = run(*arguments, **options)
        self.assertGreater(done.returncode, 0, f"{arguments}: {done.stdout} {done.stderr}")
        self.assertLess(done.returncode, 126, f"{arguments}: {done.stderr}")
        if code is not None:
            self.assertEqual(done.returncode, code, done.stderr)
        errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        self.assertEqual(len(errors), 1, f"{arguments}: {done.stderr!r}")
        self.assertNotIn("terminate called", done.stderr)
        self.assertEqual(done.stdout, "")
        self.assertRegex(errors[0], re.compile(says, re.I))
        return errors[0]

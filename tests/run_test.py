#!/usr/bin/env python3
"""run: one answer, pipes, a conversation at a terminal, interruption."""
import json
import os
import pty
import re
import select
import signal
import subprocess
import termios
import time
import unittest

from support import BINARY, PATIENCE, SMOLLM2, SteelyardTest, need, run

# The likeliest word leads the next one by half a nat or more all along the answer, so that the rounding of any mode
# keeps it. (To "What is the capital of France?" two first words are 0.08 nat apart: a coin toss in fast mode.)
QUESTION, ANSWER, WORD = "What is the capital of Japan?", "The capital of Japan is Tokyo.", "Tokyo"


class OneAnswer(SteelyardTest):
    def test_answers_a_question(self):
        model = need(SMOLLM2)
        for mode in ("fast", "invariant", "exact"):
            with self.subTest(mode=mode):
                done = self.ok("run", model, QUESTION, "--temperature", "0", "--num-predict", "40", "--mode", mode)
                self.assertEqual(done.stdout, ANSWER + "\n")

    def test_a_pipe_is_a_prompt(self):
        model = need(SMOLLM2)
        flags = ["--temperature", "0", "--num-predict", "12"]
        self.assertEqual(self.ok("run", model, *flags, input=QUESTION).stdout, self.ok("run", model, QUESTION, *flags).stdout)
        self.assertEqual(self.ok("run", model, "-", *flags, input=QUESTION).stdout,
                         self.ok("run", model, QUESTION, *flags).stdout)

    def test_same_seed_same_answer(self):
        flags = ["--num-predict", "24", "--temperature", "1.5", "--top-k", "0", "--top-p", "1"]
        answers = [self.ok("run", self.synth(), "hello", *flags, "--seed", seed).stdout for seed in (1, 1, 2)]
        self.assertEqual(answers[0], answers[1])
        self.assertNotEqual(answers[0], answers[2])

    def test_json_counts(self):
        done = self.ok_json("run", self.synth(), "hello", "--num-predict", "5", "--json", "--temperature", "0")
        self.assertLessEqual(done["generated_tokens"], 5)
        self.assertGreaterEqual(done["prompt_tokens"], 5)
        self.assertIn(done["done_reason"], ("length", "stop"))
        self.assertGreater(done["load_seconds"], 0)

    def test_stop_ends_before_the_text(self):
        model = need(SMOLLM2)
        flags = ["--temperature", "0", "--num-predict", "40"]
        whole = self.ok("run", model, QUESTION, *flags).stdout
        self.assertIn(WORD, whole)
        self.assertEqual(self.ok("run", model, QUESTION, *flags, "--stop", WORD).stdout.rstrip("\n"),
                         whole.split(WORD)[0].rstrip("\n"))

    def test_verbose_shows_plan_loading_and_timings(self):
        done = self.ok("run", self.synth(), "hello", "--num-predict", "4", "--verbose")
        for part in ("weights", "KV state", "workspace", "loading", "load ", "prompt ", "generation ", "tokens/s"):
            self.assertIn(part, done.stderr)
        self.assertRegex(done.stderr, r"% of the measured limit")

    def test_memory_is_what_the_plan_says(self):
        """The most that was ever resident, loading included, within 5 % or 16 MiB of the plan."""
        for context in (512, 8192):
            flags = [need(SMOLLM2), "--context", context]
            planned = self.ok_json("plan", *flags, "--json")["devices"][0]["total_bytes"]
            child = subprocess.Popen([BINARY, "run", *map(str, flags), QUESTION, "--num-predict", "8"],
                                     stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
            _, status, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
            self.assertEqual(child.returncode, 0)
            resident = usage.ru_maxrss * 1024
            self.assertLess(abs(resident - planned), max(planned * 0.05, 16 << 20), f"{resident} of {planned} planned bytes")

    def test_quiet_without_verbose(self):
        self.assertEqual(self.ok("run", self.synth(), "hello", "--num-predict", "2").stderr, "")

    def test_every_cache_type_and_mode(self):
        for flags in (["--kv-type", "q8_0"], ["--kv-type", "f32"], ["--mode", "invariant"], ["--mode", "exact"]):
            with self.subTest(flags=flags):
                self.ok("run", self.synth(), "hello", "--num-predict", "4", *flags)

    def test_context_ends_the_answer(self):
        done = self.ok_json("run", self.synth(), "hello", "--context", "32", "--temperature", "0", "--json")
        self.assertLessEqual(done["prompt_tokens"] + done["generated_tokens"], 33)

    def test_every_family(self):
        for shape in ("tiny-qwen2", "tiny-qwen3", "tiny-gemma2", "tiny-gemma3", "tiny-phi3"):
            with self.subTest(shape=shape):
                self.ok("run", self.synth(shape), "hello", "--num-predict", "4")

    def test_interrupt_stops_the_answer(self):
        command = subprocess.Popen([BINARY, "run", str(self.synth()), "hello", "--context", "4000", "--temperature", "0"],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
        command.stdout.read(1)
        command.send_signal(signal.SIGINT)
        _, stderr = command.communicate(timeout=PATIENCE)
        # The random model may have ended by itself before the signal came.
        self.assertIn(command.returncode, (130, 0), stderr)
        self.assertNotIn(b"error", stderr)


class Terminal:
    """`steelyard run` at a pseudo-terminal."""

    def __init__(self, *arguments, env=None):
        self.process, self.terminal = None, None
        pid, self.terminal = pty.fork()
        if pid == 0:
            os.environ.update({"TERM": "xterm", **(env or {})})
            os.execv(BINARY, [BINARY, "run", *map(str, arguments)])
        self.pid = pid
        self.seen, self.cut = "", b""  # what it shows; the beginning of a control sequence or character

    def read_more(self, wanted):
        if not select.select([self.terminal], [], [], PATIENCE)[0]:
            raise AssertionError(f"{wanted} didn't come; the terminal shows {self.seen!r}")
        try:
            data = os.read(self.terminal, 4096)
        except OSError:
            data = b""
        if not data:
            raise AssertionError(f"it ended before {wanted} came; the terminal shows {self.seen!r}")
        data = self.cut + data
        self.cut = re.search(rb"(\x1b(\[[0-9;?]*)?|[\xc0-\xff][\x80-\xbf]{0,2})?$", data)[0]
        whole = data[: len(data) - len(self.cut)].decode(errors="replace")
        self.seen += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", whole).replace("\r", "")

    def wait_for(self, text):
        """What came until `text` did, without control sequences."""
        end = time.monotonic() + PATIENCE
        while text not in self.seen:
            if time.monotonic() > end:
                raise AssertionError(f"{text!r} didn't come; the terminal shows {self.seen!r}")
            self.read_more(repr(text))
        before, self.seen = self.seen.split(text, 1)
        return before

    def wait_for_signals(self, on):
        """Until Ctrl-C is a signal (an answer is being made), or a key (the program reads a line)."""
        end = time.monotonic() + PATIENCE
        while bool(termios.tcgetattr(self.terminal)[3] & termios.ISIG) != on:
            if time.monotonic() > end:
                raise AssertionError(f"the terminal's mode doesn't change; it shows {self.seen!r}")
            time.sleep(0.005)

    def press(self, keys):
        """Sends keys once the program reads them: before that the terminal itself acts on Ctrl-C and Ctrl-D."""
        self.wait_for_signals(False)
        self.send(keys)

    def send(self, text):
        os.write(self.terminal, text.encode())

    def ask(self, line):
        """Sends a line and gives what is shown until the next prompt."""
        self.send(line + "\n")
        return self.wait_for(">>> ")

    def exit_code(self):
        while True:  # drain, so that the child can end
            if not select.select([self.terminal], [], [], PATIENCE)[0]:
                os.kill(self.pid, signal.SIGKILL)
                raise AssertionError(f"it doesn't end; the terminal shows {self.seen!r}")
            try:
                if not os.read(self.terminal, 4096):
                    break
            except OSError:
                break
        _, status = os.waitpid(self.pid, 0)
        os.close(self.terminal)
        return os.waitstatus_to_exitcode(status)


class Conversation(SteelyardTest):
    def start(self, *arguments):
        t = Terminal(*arguments, env={"XDG_STATE_HOME": str(self.dir / "state")})
        t.wait_for(">>> ")
        return t

    def test_remembers_and_forgets(self):
        t = self.start(need(SMOLLM2), "--temperature", "0", "--num-predict", "40", "--verbose")
        self.assertIn(ANSWER, t.ask(QUESTION))
        # The second turn reuses the first's state.
        self.assertRegex(t.ask("And of Italy?"), r"\((\d\d+) reused\)")
        self.assertIn("forgotten", t.ask("/clear"))
        t.send("/bye\n")
        self.assertEqual(t.exit_code(), 0)
        self.assertIn("And of Italy", (self.dir / "state" / "steelyard" / "history").read_text().replace("\\040", " "))

    def test_commands(self):
        t = self.start(self.synth(), "--num-predict", "3")
        self.assertIn("/bye", t.ask("/help"))
        t.ask("/set parameter temperature 0.125")
        t.ask("/set parameter stop \"END\"")
        shown = t.ask("/show parameters")
        self.assertIn("0.125", shown)
        self.assertIn('"END"', shown)
        self.assertIn("error: ", t.ask("/set parameter temperature hot"))
        self.assertIn("error: ", t.ask("/fly"))
        self.assertIn("weights", t.ask("/show plan"))
        self.assertIn("llama", t.ask("/show info"))
        self.assertIn("<|im_start|>", t.ask("/show template"))
        t.press("\x04")
        self.assertEqual(t.exit_code(), 0)

    def test_a_model_without_a_template_completes(self):
        model = self.synth("tiny-llama", "--no-template")
        flags = ["--temperature", "0", "--num-predict", "8"]
        t = self.start(model, *flags)
        self.assertIn("no chat template", t.ask("/show template"))
        answer = t.ask("hello")
        t.send("/bye\n")
        self.assertEqual(t.exit_code(), 0)
        self.assertIn(self.ok("run", model, "hello", *flags, "--raw").stdout.strip("\n"), answer)

    def test_several_lines(self):
        t = self.start(self.synth(), "--num-predict", "2")
        t.send('"""one\n')
        t.wait_for("... ")
        t.send("two\n")
        t.wait_for("... ")
        t.ask('three"""')
        t.send("/bye\n")
        self.assertEqual(t.exit_code(), 0)

    def test_interrupt_stops_the_answer_not_the_program(self):
        t = self.start(self.synth(), "--temperature", "0", "--context", "4096")
        t.press("hello\n")
        t.wait_for_signals(True)
        t.send("\x03")
        t.wait_for(">>> ")
        self.assertIn("weights", t.ask("/show plan"))
        # At the prompt it drops the line.
        t.press("half a line\x03")
        t.wait_for(">>> ")
        t.send("/bye\n")
        self.assertEqual(t.exit_code(), 0)

    def test_an_over_long_prompt_is_told_and_the_conversation_goes_on(self):
        t = self.start(self.synth(), "--num-predict", "2", "--context", "64")
        self.assertIn("error: ", t.ask("word " * 60))
        self.assertNotIn("error: ", t.ask("word"))
        t.send("/bye\n")
        self.assertEqual(t.exit_code(), 0)


class Measure(SteelyardTest):
    def test_bench_json(self):
        done = self.ok_json("bench", self.synth(), "--tests", "pp64,tg8,tg4@32,tg4x2", "--repeat", "3", "--json")
        self.assertEqual([r["test"] for r in done["results"]], ["pp64", "tg8", "tg4@32", "tg4x2"])
        for row in done["results"]:
            self.assertGreater(row["tokens_per_second"], 0)
            self.assertGreater(row["limit"], 0)
            self.assertAlmostEqual(row["achieved_over_limit"], row["tokens_per_second"] / row["limit"])

    def test_bench_needs_no_vocabulary(self):
        path = self.dir / "bare.gguf"
        self.ok("synth", "tiny-gemma3", path)
        self.assertIn("pp32", self.ok("bench", path, "--tests", "pp32,tg4@100", "--repeat", "1").stdout)
        self.fails("run", path, "hello", says="vocabulary")

    def test_eval_is_the_same_for_any_batch_in_invariant_mode(self):
        text = self.dir / "text.txt"
        text.write_text("The quick brown fox jumps over the lazy dog. " * 8)
        flags = ["eval", self.synth(), text, "--tokens", "200", "--mode", "invariant", "--json"]
        saved = self.dir / "a.npy"
        one = self.ok_json(*flags, "--batch", "1", "--save-logits", saved)
        many = self.ok_json(*flags, "--batch", "64", "--against", saved)
        self.assertEqual(one["perplexity"], many["perplexity"])
        self.assertAlmostEqual(many["mean_kl"], 0, places=12)
        self.assertEqual(many["top1_agreement"], 1)
        self.assertEqual(saved.stat().st_size, 128 + 4 * 200 * 1024)

    def test_probe_keeps_and_reuses(self):
        env = {"XDG_CACHE_HOME": str(self.dir / "cache")}
        first = self.ok("probe", "--threads", "1", "--json", env=env)
        self.assertIn("measuring", first.stderr)
        (path,) = (self.dir / "cache").rglob("ceilings-*.json")
        kept = {**json.loads(path.read_text()), "load": 0.0, "spread": 0.0}  # a busy machine would be measured again
        path.write_text(json.dumps(kept))
        second = self.ok("probe", "--threads", "1", "--json", env=env)
        self.assertEqual(second.stderr, "")
        (ceiling,) = json.loads(second.stdout)["ceilings"]
        before = {**json.loads(first.stdout)["ceilings"][0], "load": 0.0, "spread": 0.0}
        self.assertEqual(ceiling, before)
        path.write_text(json.dumps({**kept, "load": 1e6}))
        self.assertIn("measuring", self.ok("probe", "--threads", "1", "--json", env=env).stderr)
        self.assertGreater(ceiling["read_bytes_per_second"], 1e8)
        self.assertGreater(ceiling["multiply_per_second"]["Q4_K"], 1e8)

    def test_plan_is_what_is_taken(self):
        plan = self.ok_json("plan", self.synth(), "--json")
        lines = {line["purpose"]: line["bytes"] for line in plan["devices"][0]["lines"]}
        self.assertEqual(plan["devices"][0]["total_bytes"], sum(lines.values()))
        done = run("run", self.synth(), "hello", "--num-predict", "2", "--verbose")
        self.assertEqual(done.returncode, 0)


class Serve(SteelyardTest):
    def test_stops_on_a_signal(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            with self.subTest(signal=number):
                server = subprocess.Popen([BINARY, "serve", "--port", "0"], stdout=subprocess.PIPE,
                                          stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
                                          preexec_fn=lambda: signal.signal(number, signal.SIG_DFL))  # it may be ignored here
                line = server.stderr.readline()
                self.assertRegex(line.decode(), r"listening on http://127\.0\.0\.1:\d+")
                server.send_signal(number)
                _, stderr = server.communicate(timeout=PATIENCE)
                self.assertEqual(server.returncode, 0, stderr)


if __name__ == "__main__":
    unittest.main()

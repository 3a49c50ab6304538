#!/usr/bin/env python3
"""run: one answer, pipes, a conversation at a terminal, interruption."""
import json
import math
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
import unittest
import urllib.request

from gguf_file import F32, Gguf
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

    def test_piped_text_comes_before_the_prompt(self):
        flags = [self.synth(), "--temperature", "0", "--num-predict", "8", "--json"]

        def answer(*prompt, **options):
            done = self.ok_json("run", *flags, *prompt, **options)
            return done["prompt_tokens"], done["response"]

        alone = answer("What failed?")
        self.assertEqual(answer("What failed?", input="line 1\nline 2\n\n"), answer("line 1\nline 2\n\nWhat failed?"))
        self.assertNotEqual(answer("What failed?", input="line 1"), alone)
        path = self.dir / "log.txt"
        path.write_text("line 1\nline 2\n")
        with open(path) as log:
            self.assertEqual(answer("What failed?", stdin=log), answer("line 1\nline 2\n\nWhat failed?"))
        # Nothing there, or nothing wanted: the prompt alone.
        self.assertEqual(answer("What failed?", input=""), alone)
        self.assertEqual(answer("What failed?", input=" \n"), alone)
        self.assertEqual(answer("What failed?", "--no-stdin", input="line 1"), alone)
        closed = subprocess.run(f"exec '{BINARY}' run {' '.join(map(str, flags))} 'What failed?' <&-", shell=True,
                                capture_output=True, timeout=PATIENCE)
        self.assertEqual(json.loads(closed.stdout)["response"], alone[1])

    def test_an_open_pipe_without_text_is_left_alone_when_asked(self):
        reader, writer = os.pipe()
        try:
            self.ok("run", self.synth(), "hello", "--num-predict", "2", "--no-stdin", stdin=reader)
        finally:
            os.close(reader)
            os.close(writer)

    def test_an_answer_that_was_cut_says_so(self):
        flags = [self.synth(), "hello", "--temperature", "0"]
        self.assertEqual(self.ok("run", *flags, "--num-predict", "2").stderr,
                         "note: the answer was cut after 2 tokens (num_predict)\n")
        self.assertIn("the context of 40 tokens is full", self.ok("run", *flags, "--context", "40").stderr)

    def test_a_context_beyond_the_trained_one_is_warned_of_once(self):
        trained = self.ok_json("show", self.synth(), "--json")["config"]["context_trained"]
        for command in (["run", self.synth(), "hi", "-n", "1"], ["plan", self.synth()]):
            with self.subTest(command=command[0]):
                beyond = self.ok(*command, "--context", trained + 8)
                self.assertEqual(beyond.stderr.count("that the model was trained for"), 1, beyond.stderr)
                self.assertNotIn("trained for", self.ok(*command, "--context", trained).stderr)

    def test_timings_fit_a_terminal_of_80_columns(self):
        done = self.ok("run", self.synth(), "hello " * 100, "--num-predict", "4", "--verbose")
        for line in re.findall(r"^(?:load|prompt|reused|generation|total) .*$", done.stderr, re.M):
            self.assertLessEqual(len(line), 80)

    def test_same_seed_same_answer(self):
        flags = ["--num-predict", "24", "--temperature", "1.5", "--top-k", "0", "--top-p", "1"]
        answers = [self.ok("run", self.synth(), "hello", *flags, "--seed", seed).stdout for seed in (1, 1, 2)]
        self.assertEqual(answers[0], answers[1])
        self.assertNotEqual(answers[0], answers[2])

    def test_what_is_not_set_is_as_the_file_says(self):
        """In `run` as in the server's answers: the file wants no chance."""
        model = Gguf(self.synth()).set("general.sampling.temp", F32, 0.0).write(self.dir / "sure.gguf")
        ask = lambda *flags: self.ok("run", model, "hello", "--num-predict", "12", *flags).stdout.rstrip("\n")
        sure = ask("--temperature", "0")
        self.assertEqual([ask(), ask("--seed", "7")], [sure, sure])
        self.assertNotEqual(ask("--temperature", "2", "--top-k", "0", "--seed", "7"), sure)
        address = self.serve(env={"STEELYARD_MODELS": str(self.dir)})
        body = {"model": "sure", "stream": False, "options": {"num_predict": 12},
                "messages": [{"role": "user", "content": "hello"}]}
        with urllib.request.urlopen(f"{address}/api/chat", json.dumps(body).encode(), PATIENCE) as answer:
            self.assertEqual(json.load(answer)["message"]["content"], sure)

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
        done = self.ok("run", self.synth(), "hello", "--temperature", "0", "--num-predict", "2")
        self.assertEqual([line for line in done.stderr.splitlines() if "cut after" not in line], [])

    def test_every_cache_type_and_mode(self):
        for flags in (["--kv-type", "q8_0"], ["--kv-type", "f32"], ["--mode", "invariant"], ["--mode", "exact"]):
            with self.subTest(flags=flags):
                self.ok("run", self.synth(), "hello", "--num-predict", "4", *flags)

    def test_context_ends_the_answer(self):
        done = self.ok_json("run", self.synth(), "hello", "--context", "32", "--temperature", "0", "--json")
        self.assertLessEqual(done["prompt_tokens"] + done["generated_tokens"], 33)

    def test_every_family(self):
        shapes = [line.split()[0] for line in self.ok("synth", "--list").stdout.splitlines() if line.startswith("tiny-")]
        self.assertGreaterEqual(len(shapes), 6)
        for shape in shapes:
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
    """A program at a pseudo-terminal: `steelyard run`, unless `command` is another."""

    def __init__(self, *arguments, env=None, columns=80, command=(BINARY, "run")):
        self.process, self.terminal = None, None
        pid, self.terminal = pty.fork()
        if pid == 0:
            termios.tcsetwinsize(0, (24, columns))
            os.environ.update({"TERM": "xterm", **(env or {})})
            os.execvp(command[0], [*command, *map(str, arguments)])
        self.pid = pid
        self.raw = b""  # all that came
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
        self.raw += data
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

    def lines(self):
        """What was shown line by line, also what a carriage return wiped; without control sequences."""
        text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.raw.decode(errors="replace"))
        return re.split(r"[\r\n]+", text)

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
                data = os.read(self.terminal, 4096)
            except OSError:
                break
            if not data:
                break
            self.raw += data
        _, status = os.waitpid(self.pid, 0)
        os.close(self.terminal)
        return os.waitstatus_to_exitcode(status)


class Conversation(SteelyardTest):
    def start(self, *arguments, state="state", **options):
        t = Terminal(*arguments, env={"XDG_STATE_HOME": str(self.dir / state)}, **options)
        t.wait_for(">>> ")
        return t

    def history(self, state="state"):
        return (self.dir / state / "steelyard" / "history").read_text().splitlines()[1:]

    def leave(self, t):
        t.press("/bye\n")
        self.assertEqual(t.exit_code(), 0)

    def test_loading_fits_any_width(self):
        model = self.dir / ("a model with a rather long name " * 3 + "模型.gguf")
        model.write_bytes(self.synth().read_bytes())
        for columns in (20, 40, 80, 130):
            with self.subTest(columns=columns):
                t = self.start(model, columns=columns)
                self.leave(t)
                bars = [line for line in t.lines() if "%" in line]
                self.assertTrue(bars)
                for line in bars:  # two columns for each of the two wide characters
                    self.assertLess(len(line) + len(re.findall("[模型]", line)), columns)

    def test_a_terminal_that_can_do_nothing_gets_plain_lines(self):
        t = Terminal(self.synth(), "hello", "-n", "2", "--verbose", "--no-stdin", env={"TERM": "dumb"})
        self.assertEqual(t.exit_code(), 0)
        self.assertNotIn(b"\x1b", t.raw)
        self.assertNotRegex(t.raw, rb"\r[^\n]")

    def test_a_paste_is_one_message(self):
        t = self.start(self.synth(), "--num-predict", "2", "--verbose", state="paste")
        self.assertIn(b"\x1b[?2004h", t.raw)
        t.press("\x1b[200~def f():\r\tpass\r\n\"\"\"doc\"\"\"\r\x1b[201~")
        t.wait_for("doc")
        answer = t.ask("")
        self.assertEqual(answer.count("generation"), 1, answer)
        t.press("\x10\n")  # the history's last entry, once more
        t.wait_for("generation")
        self.assertNotIn("generation", t.wait_for(">>> "))
        self.leave(t)
        self.assertTrue(t.raw.endswith(b"\x1b[?2004l") or t.raw.rfind(b"\x1b[?2004l") > t.raw.rfind(b"\x1b[?2004h"))
        self.assertEqual(len([entry for entry in self.history("paste") if "pass" in entry]), 1)

    def test_text_behind_a_block_counts(self):
        t = self.start(self.synth(), "--num-predict", "1", "--verbose", "--temperature", "0")
        tokens = lambda text: int(re.search(r"prompt .*?(\d+) tokens", text)[1])
        whole = tokens(t.ask("hello and more"))
        t.ask("/clear")
        self.assertEqual(tokens(t.ask('"""hello""" and more')), whole)
        self.leave(t)

    def test_a_chat_that_outgrows_its_context_goes_on(self):
        t = self.start(self.synth(), "--num-predict", "4", "--context", "200", "--system", "Be brief.")
        shown = [t.ask(f"this is message number {i}") for i in range(12)]
        self.assertEqual(sum("outgrew its context" in text for text in shown), 1, shown)
        self.assertNotIn("outgrew", shown[0])
        for text in shown:
            self.assertNotIn("error: ", text)
        self.leave(t)

    def test_words_wrap(self):
        model = need(SMOLLM2)
        question = "Write two sentences on the sky."
        flags = ["--temperature", "0", "--num-predict", "60", "--mode", "exact"]
        plain = self.ok("run", model, question, *flags).stdout
        for columns in (40, 80, 130):
            with self.subTest(columns=columns):
                t = Terminal(model, question, *flags, columns=columns)
                self.assertEqual(t.exit_code(), 0)
                shown = t.raw.decode().split("\x1b[K")[-1].split("note: ")[0].replace("\r", "").strip("\n")
                self.assertEqual(shown.split(), plain.split())
                self.assertLessEqual(max(map(len, shown.splitlines())), columns)
                self.assertGreater(len(plain.strip()), 41)
        t = Terminal(model, question, *flags, "--nowordwrap", columns=40)
        self.assertEqual(t.exit_code(), 0)
        self.assertIn(plain.splitlines()[0], t.raw.decode())

    def test_sessions_share_their_history(self):
        first = self.start(self.synth(), "--num-predict", "1", state="shared")
        second = self.start(self.synth(), "--num-predict", "1", state="shared")
        first.ask("from the first")
        second.ask("from the second")
        first.ask("/set nohistory")
        first.ask("not to be kept")
        first.ask("/set history")
        first.ask("first again")
        self.leave(first)
        self.leave(second)
        kept = "\n".join(self.history("shared")).replace("\\040", " ")
        for text in ("from the first", "from the second", "first again"):
            self.assertEqual(kept.count(text), 1, kept)
        self.assertNotIn("not to be kept", kept)

    def test_suspends_and_goes_on(self):
        shell = Terminal(command=("bash", "--norc", "--noprofile", "-i"),
                         env={"PS1": "shell$ ", "XDG_STATE_HOME": str(self.dir / "state")})
        shell.wait_for("shell$ ")
        shell.send(f"'{BINARY}' run '{self.synth()}' --num-predict 2\n")
        shell.wait_for(">>> ")
        shell.press("half a")
        shell.press("\x1a")
        shell.wait_for("Stopped")
        shell.wait_for("shell$ ")
        shell.send("stty -a | grep -o '[-]*icanon'; echo so-far\n")
        shell.wait_for("icanon")
        shell.wait_for("shell$ ")
        self.assertGreater(shell.raw.rfind(b"\x1b[?2004l"), shell.raw.rfind(b"\x1b[?2004h", 0, shell.raw.rfind(b"Stopped")))
        shell.send("fg\n")
        shell.wait_for(">>> ")
        shell.press(" line\n")
        shell.wait_for(">>> ")
        shell.press("\x04")
        shell.wait_for("shell$ ")
        shell.send("exit\n")
        shell.exit_code()
        self.assertIn("half a line", "\n".join(self.history()).replace("\\040", " "))

    def test_end_of_input_ends_its_line(self):
        t = self.start(self.synth())
        t.press("\x04")
        self.assertEqual(t.exit_code(), 0)
        self.assertTrue(t.lines()[-1] == "" and t.raw.rstrip(b"\x1b[?2004l").endswith(b"\n"), t.raw[-40:])

    def test_another_model_and_another_context(self):
        other = self.synth("tiny-gemma3")
        t = self.start(self.synth(), "--num-predict", "2", "--context", "128")
        self.assertIn("128", t.ask("/show parameters"))
        self.assertIn("may reach 64 tokens", t.ask("/set parameter num_ctx 64"))
        self.assertIn("may reach 256 tokens", t.ask("/set parameter num_ctx 256"))
        self.assertIn("256", t.ask("/show info"))
        self.assertIn("error: ", t.ask("/set parameter num_ctx many"))
        t.ask(f"/load {other}")
        self.assertIn("gemma3", t.ask("/show info"))
        self.assertIn("going back", t.ask("/load no-such-model"))
        self.assertIn("gemma3", t.ask("/show info"))
        self.assertIn("isn't built yet", t.ask("/save mine"))
        self.assertIn("isn't built yet", t.ask("/set think"))
        self.assertIn("names no license", t.ask("/show license"))
        self.leave(t)

    def test_remembers_and_forgets(self):
        t = self.start(need(SMOLLM2), "--temperature", "0", "--num-predict", "40", "--verbose")
        self.assertIn(ANSWER, t.ask(QUESTION))
        # The second turn reuses the first's state.
        self.assertRegex(t.ask("And of Italy?"), r"reused +(\d\d+) tokens")
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
        t = self.start(model, *flags, "--nowordwrap")
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
        self.assertIn("cut by Ctrl-C", t.wait_for(">>> "))
        self.assertNotIn(b"^C", t.raw)
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


class ForeignText(SteelyardTest):
    """Control characters of files and models are shown on a terminal, and go through pipes as they are."""

    def shown(self, *arguments, env=None):
        t = Terminal(*arguments, command=(BINARY,), env=env)
        t.exit_code()
        return t.raw

    def test_names_of_files(self):
        store = self.dir / "store"
        store.mkdir()
        (store / "a\x1b[31mred\u202e.gguf").write_bytes(self.synth().read_bytes())
        env = {"STEELYARD_MODELS": str(store), "XDG_CACHE_HOME": str(self.dir / "none")}
        self.assertEqual([m["name"] for m in self.ok_json("list", "--json", env=env)["models"]], ["a\x1b[31mred\u202e"])
        raw = self.shown("list", env=env)
        self.assertNotIn(b"\x1b[31m", raw)
        self.assertIn(b"a\\x1b[31mred\\u202e", raw)

    def test_texts_of_commands(self):
        template = self.dir / "t.jinja"
        template.write_text("one\n\x1b]0;title\x07\u009b2J")
        variables = self.dir / "v.json"
        variables.write_text("{}")
        self.assertEqual(self.ok("render", "--template", template, variables).stdout, template.read_text())
        raw = self.shown("render", "--template", template, variables)
        self.assertNotRegex(raw, rb"\x1b|\x07|\xc2\x9b")
        self.assertIn(b"one\r\n\\x1b]0;title\\x07\\u009b2J", raw)

    def test_errors_are_one_readable_sentence(self):
        done = run("show", "no\x1b[31m such\nmodel" + "x" * 5000)
        self.assertEqual(done.returncode, 1)
        self.assertNotIn("\x1b", done.stderr)
        self.assertEqual(done.stderr.count("\n"), 1)
        self.assertLess(len(done.stderr), 2100)


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

    def test_eval_cuts_long_texts_into_windows(self):
        """As llama.cpp's perplexity program: the second half of each window, from the logits that were saved."""
        text = self.dir / "long.txt"
        text.write_text("The quick brown fox jumps over the lazy dog. " * 6)
        saved = self.dir / "windows.npy"
        done = self.ok_json("eval", self.synth(), text, "--window", "64", "--mode", "exact", "--save-logits", saved, "--json")
        ids = self.ok_json("tokenize", self.synth(), text, "--json")["ids"]
        self.assertEqual((done["windows"], done["window"]), (len(ids) // 64, 64))
        self.assertEqual(done["judged"], len(ids) // 64 * 31)
        data = saved.read_bytes()[128:]
        width = len(data) // 4 // done["tokens"]
        loss = []
        for at in range(done["tokens"]):
            if 32 <= at % 64 < 63:
                row = struct.unpack_from(f"<{width}f", data, at * width * 4)
                top = max(row)
                loss.append(top + math.log(math.fsum(math.exp(x - top) for x in row)) - row[ids[at + 1]])
        self.assertAlmostEqual(done["perplexity"], math.exp(sum(loss) / len(loss)), delta=done["perplexity"] * 1e-6)
        # A window sees nothing of the one before it: one alone gives the same logits.
        one = self.ok_json("eval", self.synth(), text, "--tokens", "64", "--window", "64", "--mode", "exact", "--against", saved,
                           "--json")
        self.assertEqual(one["mean_kl"], 0)

    def test_eval_of_a_text_beyond_the_context(self):
        text = self.dir / "beyond.txt"
        text.write_text("Some words to read. " * 20)
        done = self.ok("eval", self.synth(), text, "--context", "128")
        self.assertRegex(done.stdout, r"windows +3 of 128 tokens; 189 tokens judged")
        self.fails("eval", self.synth(), text, "--context", "64", "--window", "128", code=2, says="--window")

    def test_bench_leaves_out_what_the_model_cannot(self):
        trained = self.ok_json("show", self.synth(), "--json")["config"]["context_trained"]
        done = run("bench", self.synth(), "--tests", f"pp{trained + 1},tg2", "--repeat", "1", "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual([r["test"] for r in json.loads(done.stdout)["results"]], ["tg2"])
        self.assertIn(f"pp{trained + 1} is left out", done.stderr)
        self.assertIn("1 test, each run 2 times", done.stderr)
        self.fails("bench", self.synth(), "--tests", f"pp{trained + 1}", code=1, says="no test is left")

    def test_bench_says_what_runs(self):
        t = Terminal("bench", self.synth(), "--tests", "tg1,tg2", "--repeat", "1", command=(BINARY,), columns=40)
        self.assertEqual(t.exit_code(), 0)
        self.assertIn(b"test 2 of 2: tg2", t.raw)

    def test_tokenize_says_what_it_drops(self):
        model = need(SMOLLM2)
        done = self.ok("tokenize", model, "-", input=b"a\xff\xfeb")
        self.assertIn("2 bytes of the text have no token", done.stderr)
        self.assertEqual(self.ok_json("tokenize", model, "-", "--json", input=b"a\xff\xfeb")["dropped_bytes"], 2)
        self.assertEqual(self.ok("tokenize", model, "-", input="plain text, 模型 😀").stderr, "")

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

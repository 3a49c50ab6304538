#!/usr/bin/env python3
"""Wrong input of every kind: one sentence and an exit code, never a crash."""
import json
import os
import re
import resource
import signal
import socket
import struct
import subprocess
import unittest

from support import BINARY, PATIENCE, SteelyardTest, own_memory, run

# Every command that opens a model, with the arguments that it needs beside it; {text} is a text file.
MODEL_COMMANDS = {
    "run": ["run", "{model}", "hello", "--num-predict", "2"],
    "show": ["show", "{model}"],
    "plan": ["plan", "{model}"],
    "bench": ["bench", "{model}", "--tests", "pp8", "--repeat", "1"],
    "eval": ["eval", "{model}", "{text}"],
    "tokenize": ["tokenize", "{model}", "{text}"],
    "render": ["render", "{model}", "{vars}"],
}


def gguf_string(text):
    return struct.pack("<Q", len(text)) + text.encode()


def gguf(*entries, tensors=0):
    """A GGUF file of string entries only."""
    data = b"GGUF" + struct.pack("<IQQ", 3, tensors, len(entries))
    for key, value in entries:
        data += gguf_string(key) + struct.pack("<I", 8) + gguf_string(value)
    return data + b"\0" * (-len(data) % 32)


class Files(SteelyardTest):
    def each(self, model, says="", code=None):
        text = self.dir / "text.txt"
        text.write_text("Some words to read, and some more.")
        variables = self.dir / "vars.json"
        variables.write_text('{"messages": []}')
        for name, arguments in MODEL_COMMANDS.items():
            with self.subTest(command=name):
                filled = [a.format(model=model, text=text, vars=variables) for a in arguments]
                self.fails(*filled, says=says, code=code)

    def make(self, name, data):
        path = self.dir / name
        path.write_bytes(data)
        return path

    def test_missing_file(self):
        self.each("/no/such/model.gguf", "no/such/model")

    def test_unknown_name(self):
        self.each("no-such-model-anywhere", "no-such-model-anywhere")

    def test_directory(self):
        self.each(str(self.dir) + "/", "director")

    def test_empty_file(self):
        self.each(self.make("empty.gguf", b""), "empty")

    def test_text_file(self):
        self.each(self.make("words.gguf", b"This is no model, just words.\n" * 50), "GGUF")

    def test_big_endian_version(self):
        self.each(self.make("big.gguf", b"GGUF" + struct.pack(">IQQ", 3, 0, 0)))

    def test_huge_counts(self):
        self.each(self.make("huge.gguf", b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 1 << 60)))

    def test_unreadable_file(self):
        if os.geteuid() == 0:
            self.skipTest("root can read every file")
        path = self.make("secret.gguf", b"GGUF")
        path.chmod(0)
        self.each(path)

    def test_truncated_everywhere(self):
        whole = self.synth().read_bytes()
        for part in (3, 10, 24, 100, 1000, len(whole) // 10, len(whole) // 2, len(whole) - 1):
            with self.subTest(bytes=part):
                path = self.make("cut.gguf", whole[:part])
                self.fails("plan", path)
                self.fails("run", path, "hello")

    def test_unknown_architecture(self):
        path = self.make("arch.gguf", gguf(("general.architecture", "hyperbrain")))
        for command in ("run", "plan", "bench"):
            arguments = [a.format(model=path) for a in MODEL_COMMANDS[command]]
            self.fails(*arguments, says="hyperbrain|tensor|vocabulary")

    def test_unknown_pre_tokenizer(self):
        whole = self.synth().read_bytes()
        marker = gguf_string("tokenizer.ggml.pre")
        at = whole.find(marker)
        if at < 0:
            self.skipTest("the synthetic vocabulary names no pre-tokenizer")
        value = at + len(marker) + 4 + 8
        changed = bytearray(whole)
        changed[value:value + 3] = b"zzz"
        text = self.dir / "t.txt"
        text.write_text("hello")
        self.fails("tokenize", self.make("pre.gguf", bytes(changed)), text, says="zzz")


class Flags(SteelyardTest):
    def test_no_command(self):
        self.fails(code=2, says="--help")

    def test_unknown_command(self):
        self.fails("fly", code=2, says="no command 'fly'")
        self.fails("serv", code=2, says="did you mean serve")

    def test_commands_of_other_programs_are_answered(self):
        for command in ("push",):
            with self.subTest(command=command):
                self.fails(command, "smollm2", code=2, says="isn't built")

    def test_help_and_version(self):
        version = self.ok("--version").stdout
        self.assertEqual(self.ok("version").stdout, version)
        self.assertEqual(self.ok("-v").stdout, version)
        self.assertEqual(self.ok("help").stdout, self.ok("--help").stdout)
        self.assertEqual(self.ok("help", "run").stdout, self.ok("run", "--help").stdout)
        self.fails("help", "fly", code=2, says="no command 'fly'")

    def test_helps_are_for_people(self):
        for command in ("run", "serve", "plan", "bench", "probe", "eval", "tokenize", "render", "quantize", "synth", "show", "list"):
            text = self.ok(command, "--help").stdout
            with self.subTest(command=command):
                self.assertNotRegex(text, r"UINT|INT in|FLOAT|TEXT:")
                for line in text.split("Options:")[1].split("Examples:")[0].splitlines():
                    self.assertLessEqual(len(line), 100)

    def test_the_last_of_a_repeated_flag_wins(self):
        done = self.ok_json("run", self.synth(), "hello", "--temperature", "0", "--num-predict", "40", "-n", "3", "--json")
        self.assertLessEqual(done["generated_tokens"], 3)

    def test_flags_as_other_programs_spell_them(self):
        flags = ["--num_predict", "3", "--top_k=5", "--temp", "0.5", "-c", "256", "-t", "1", "-s", "4", "--json"]
        done = self.ok_json("run", self.synth(), "hello", *flags)
        self.assertEqual(done["seed"], 4)
        self.assertLessEqual(done["generated_tokens"], 3)

    def test_errors_name_the_flag_as_it_was_typed(self):
        for flag in ("--threads", "-t"):
            self.fails("run", self.synth(), "hi", flag, "abc", code=2,
                       says=f"^error: {flag} wants a whole number from 1 to 1024, not 'abc'")
        self.fails("run", self.synth(), "hi", "--num_predict", "x", code=2, says="^error: --num_predict wants a whole number")
        self.fails("run", self.synth(), "hi", "--temp=hot", code=2, says="^error: --temp wants a number from 0 to 100")
        self.fails("serve", "--keep-alive", "soon", code=2, says="^error: --keep-alive wants seconds, or a duration")
        self.fails("run", self.synth(), "hi", "--seed", code=2, says="^error: --seed wants a value")

    def test_unknown_flags_are_answered(self):
        for flag, says in (("--temprature", "did you mean --temperature"), ("--format", "isn't built yet"),
                           ("--think", "isn't built yet"), ("--hidethinking", "isn't built yet"),
                           ("--keepalive", "serve --keep-alive"), ("--frobnicate", "there is no flag --frobnicate")):
            with self.subTest(flag=flag):
                self.fails("run", self.synth(), "hi", flag, code=2, says=says)

    def test_one_rule_for_exit_codes(self):
        junk = self.dir / "junk.gguf"
        junk.write_bytes(b"junk" * 100)
        for model in ("no-such-model", junk, self.dir, "/dev/null", "/no/such.gguf"):
            with self.subTest(model=model):
                self.fails("show", model, code=1)
        self.fails("show", "", code=2)
        self.fails("synth", "tiny-llama", "-", code=2, says="standard output")
        self.fails("run", self.synth(), "hi", "--json", "extra", "--what", code=2)

    def test_odd_values_that_the_api_takes(self):
        self.ok("run", self.synth(), "hi", "--top-k", "-1", "--num-predict", "-2", "--stop", "", "--context", "64")

    def test_missing_arguments(self):
        for command in ("run", "show", "plan", "bench", "eval", "tokenize", "render"):
            with self.subTest(command=command):
                self.fails(command, code=2)

    def test_unknown_flag_of_every_command(self):
        for command in ("run", "serve", "list", "show", "plan", "bench", "probe", "eval", "tokenize", "render", "quantize", "synth"):
            with self.subTest(command=command):
                self.fails(command, "x", "x", "--frobnicate", code=2)

    def test_bad_values(self):
        model = self.synth()
        for flags in (["--threads", "0"], ["--threads", "many"], ["--context", "-5"], ["--context", "1e99"],
                      ["--kv-type", "q3"], ["--mode", "quick"], ["--mode", "exact", "--kv-type", "q8_0"],
                      ["--temperature", "-1"], ["--temperature", "nan"], ["--top-p", "2"], ["--top-k", "x"],
                      ["--seed", "abc"], ["--num-predict", "99999999999999"], ["--repeat-penalty", "0"],
                      ["--memory-limit", "lots"], ["--temperature", ""], ["--threads", ""], ["--device", "gpu"]):
            with self.subTest(flags=flags):
                self.fails("run", model, "hello", *flags, code=2)

    def test_bad_tests_of_bench(self):
        for tests in ("pp", "pp0", "tg128x", "fast", "pp512,,tg1"):
            with self.subTest(tests=tests):
                self.fails("bench", self.synth(), "--tests", tests, code=2)

    def test_bad_thread_lists_of_probe(self):
        for threads in ("0", "1,x", "-1", "99999"):
            with self.subTest(threads=threads):
                self.fails("probe", "--threads", threads, code=2)

    def test_bad_ports_of_serve(self):
        self.fails("serve", "--port", "70000", code=2)
        self.fails("serve", "--host", "127.0.0.1:seven", code=2)


class Input(SteelyardTest):
    def test_render_wants_a_json_object(self):
        template = self.dir / "t.jinja"
        template.write_text("{{ x }}")
        for text in ("", "{", "[1, 2]", '"text"', '{"a": }', "\xff\xfe", '{"x": ' + "[" * 100000):
            with self.subTest(text=text[:10]):
                self.fails("render", "--template", template, "-", input=text, code=1)

    def test_render_with_a_broken_template(self):
        variables = self.dir / "v.json"
        variables.write_text("{}")
        for text in ("{% if %}", "{{ x", "{% for a in b %}", "{{ raise_exception('told so') }}", "{{ 1 / 0 }}"):
            with self.subTest(template=text):
                template = self.dir / "t.jinja"
                template.write_text(text)
                self.fails("render", "--template", template, variables, code=1)

    def test_over_long_prompt_is_told(self):
        self.fails("run", self.synth(), "word " * 500, "--context", "64", code=1, says="context")

    def test_empty_prompt(self):
        self.fails("run", self.synth(), "", code=2, says="empty")
        self.fails("run", self.synth(), input="  \n", code=2, says="empty")

    def test_eval_wants_enough_text(self):
        self.fails("eval", self.synth(), "-", input="", code=1)

    def test_eval_refuses_foreign_logits(self):
        text = self.dir / "text.txt"
        text.write_text("Some words to read.")
        for name, data in (("empty.npy", b""), ("text.npy", b"hello"), ("cut.npy", b"\x93NUMPY\x01\x00\xff\xff{")):
            with self.subTest(file=name):
                path = self.dir / name
                path.write_bytes(data)
                self.fails("eval", self.synth(), text, "--against", path)


class Surroundings(SteelyardTest):
    def test_port_in_use(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            self.fails("serve", "--port", port, code=1, says=f"{port}|in use")

    @own_memory
    def test_memory_limit_says_what_would_fit(self):
        size = r"\d+\.\d+ [MG]iB"
        sizes = rf"needs {size} of memory on CPU, where {size} is available"
        hopeless = self.fails("run", self.synth(), "hello", "--memory-limit", "1M", code=1, says=sizes)
        self.assertRegex(hopeless, rf"where 1\.0 MiB is available; even --context 256 --kv-type q8_0 needs {size}.* a smaller model")
        limited = [self.synth(), "hello", "--num-predict", "3", "--memory-limit", "40M"]
        advice = self.fails("run", *limited, "--context", "65536", code=1, says=sizes)
        context = re.search(r"would fit with --context (\d+)", advice).group(1)
        self.ok("run", *limited, "--context", context)
        self.fails("run", *limited, "--context", 2 * int(context), code=1, says=sizes)

    def test_plan_shows_what_does_not_fit(self):
        done = run("plan", self.synth(), "--memory-limit", "1M")
        self.assertEqual(done.returncode, 1)
        self.assertIn("weights", done.stdout)
        total = re.search(r"  total +(\S+ \S+)", done.stdout).group(1)
        self.assertRegex(done.stdout, rf"\ndoesn't fit: the model needs {total} of memory on CPU, where 1\.0 MiB is available; .*\n\Z")
        told = json.loads(run("plan", self.synth(), "--memory-limit", "1M", "--json").stdout)
        self.assertEqual((told["fits"], told["available_bytes"], told["changes"]), (False, 1 << 20, ""))

    @own_memory
    def test_plan_says_that_it_fits_and_how_far_that_goes(self):
        self.assertRegex(self.ok("plan", self.synth(), "--memory-limit", "4G").stdout, r"\nfits: \d\.\d+ GiB left; longest context that fits: \d+.*\n\Z")
        told = self.ok_json("plan", self.synth(), "--memory-limit", "40M", "--json")
        self.assertTrue(told["fits"])
        self.assertEqual(told["needed_bytes"], told["devices"][0]["total_bytes"])
        self.assertLessEqual(told["needed_bytes"], told["available_bytes"])

    def test_a_size_says_its_unit(self):
        self.fails("plan", self.synth(), "--devices", "12", code=2, says="'12' has no unit: write 12G for GiB")
        self.fails("run", self.synth(), "hello", "--memory-limit", "900", code=2, says="write 900G for GiB")
        plan = self.ok_json("plan", self.synth(), "--devices", "22GB", "--json")
        self.assertEqual(plan["available_bytes"], 22 * 10**9)

    @own_memory
    def test_two_changes_together(self):
        """Each alone is too little; what is advised together fits, and no sentence contradicts itself."""
        asked = ["plan", self.synth(), "--parallel", "64", "--context", "65536"]
        least = self.ok_json("plan", self.synth(), "--parallel", "1", "--context", "256", "--kv-type", "q8_0", "--json")["needed_bytes"]
        limit = f"{(least >> 20) + 3}M"
        done = run(*asked, "--memory-limit", limit)
        self.assertEqual(done.returncode, 1)
        advice = re.search(r"it would fit with (--context \d+ .*--parallel \d+) together", done.stdout)
        self.assertTrue(advice, done.stdout)
        self.ok("plan", self.synth(), *advice.group(1).split(), "--memory-limit", limit)

    @own_memory
    def test_too_little_address_space(self):
        model = self.synth()

        def limited(mib, *arguments):
            def limit():
                resource.setrlimit(resource.RLIMIT_AS, (mib << 20, mib << 20))
            return run(*arguments, preexec_fn=limit)

        # Nothing is too small to be told: from a process that hardly starts to one that has enough.
        told, answered = 0, 0
        for mib in (24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 256, 384, 1024):
            with self.subTest(mib=mib):
                done = limited(mib, "run", model, "hello", "--num-predict", "3", "--context", "8192")
                if done.returncode == 127 and "shared libraries" in done.stderr:
                    continue  # the dynamic linker gave up: nothing of Steelyard ran
                answered += done.returncode == 0
                if done.returncode != 0:
                    self.assertIn(done.returncode, (1, 2), done.stderr)
                    self.assertRegex(done.stderr, r"\A(note: [^\n]+\n)*error: [^\n]+\n\Z")
                    told += 1
        self.assertGreater(told, 0)
        self.assertGreater(answered, 0)
        done = limited(256, "run", model, "hello", "--threads", "64")
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, r"\Aerror: the system refused thread \d+ of 64 [^\n]*\n\Z")
        done = limited(1024, "run", model, "hello", "--context", "4194304")
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, r"\Aerror: the model needs \d+\.\d+ GiB of memory on CPU, where \d+\.\d MiB is "
                                      r"available; it would fit with --context \d+[^\n]*\n\Z")

    @own_memory
    def test_server_in_too_little_address_space(self):
        for mib in (48, 64, 96, 128, 192, 256, 1024):
            with self.subTest(mib=mib):
                limit = lambda: resource.setrlimit(resource.RLIMIT_AS, (mib << 20, mib << 20))
                # Unbuffered: communicate() doesn't see what a buffer holds beyond the first line.
                server = subprocess.Popen([BINARY, "serve", "--port", "0"], stdin=subprocess.DEVNULL, bufsize=0,
                                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=limit)
                try:
                    first = server.stderr.readline().decode()
                    self.assertRegex(first, r"\A(error: |listening on )")
                    server.terminate()
                    _, rest = server.communicate(timeout=60)
                    told = first + rest.decode()
                    # It serves, or one sentence says why not; it never hangs.
                    self.assertIn((server.returncode, told.count("error: ")), ((0, 0), (1, 1)), told)
                finally:
                    server.kill()

    def test_full_disk(self):
        if not os.path.exists("/dev/full"):
            self.skipTest("there is no /dev/full here")
        for arguments in (["list", "--json"], ["--help"], ["show", self.synth()], ["--version"],
                          ["run", self.synth(), "hello", "--num-predict", "3"]):
            with self.subTest(arguments=arguments), open("/dev/full", "wb") as full:
                self.fails(*arguments, stdout=full, code=1, says="write")

    def test_closed_pipe_ends_quietly(self):
        command = subprocess.Popen([BINARY, "show", str(self.synth()), "--json"], stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
        command.stdout.close()
        stderr = command.stderr.read()
        command.stderr.close()
        self.assertEqual(command.wait(PATIENCE), 0)
        self.assertEqual(stderr, b"")

    def test_unwritable_output(self):
        text = self.dir / "text.txt"
        text.write_text("Some words to read.")
        self.fails("eval", self.synth(), text, "--save-logits", "/no/such/place/x.npy", says="/no/such/place")
        self.fails("synth", "tiny-llama", "/no/such/place/x.gguf", says="/no/such/place")
        self.fails("synth", "tiny-llama", self.dir, says="")

    def test_without_a_home(self):
        env = {name: value for name, value in os.environ.items() if name not in ("HOME", "XDG_CACHE_HOME")}
        done = subprocess.run([BINARY, "run", str(self.synth()), "hello", "--num-predict", "2", "--verbose"], env=env,
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE)
        self.assertEqual(done.returncode, 0, done.stderr)
        # The system's list of users says where the cache is, and else the limits just aren't kept.
        self.assertRegex(done.stderr, r"% of the measured limit")

    def test_interrupted_writers_leave_nothing(self):
        folder = self.dir / "interrupted"
        folder.mkdir()
        signals = [signal.SIGINT]
        try:
            os.close(os.open(folder, os.O_TMPFILE | os.O_WRONLY))
            signals.append(signal.SIGTERM)
        except OSError as error:
            print(f"no SIGTERM: the file system has no files without a name ({error})")
        for number in signals:
            with self.subTest(signal=number):
                command = subprocess.Popen([BINARY, "synth", "llama3.2-1b", str(folder / "x.gguf")],
                                           stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
                command.stderr.readline()  # "writing …"
                command.send_signal(number)
                _, stderr = command.communicate(timeout=PATIENCE)
                self.assertEqual(command.returncode, 130 if number == signal.SIGINT else -number, stderr)
                self.assertEqual(os.listdir(folder), [])

    def test_cache_that_cannot_be_written(self):
        done = run("run", self.synth(), "hello", "--num-predict", "2", "--verbose", env={"XDG_CACHE_HOME": "/dev/null"})
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_unknown_shape_and_type(self):
        self.fails("synth", "no-such-shape", self.dir / "x.gguf", code=2, says="no-such-shape")
        self.fails("synth", "tiny-llama", self.dir / "x.gguf", "--type", "q9_9", code=2, says="q9_9")
        self.assertFalse((self.dir / "x.gguf").exists())


if __name__ == "__main__":
    unittest.main()

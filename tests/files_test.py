#!/usr/bin/env python3
"""Files that change while they are used, broken files among good ones, and the many shapes that files come in."""
import json
import os
import re
import resource
import struct
import threading
import time
import unittest
import urllib.error
import urllib.parse
import urllib.request

from gguf_file import ARRAY, BOOL, F32, F64, STRING, U16, U32, Gguf, text_bytes
from support import PATIENCE, SteelyardTest, own_memory, run


class Store(SteelyardTest):
    """A store of its own a test."""

    def setUp(self):
        self.store = self.dir / self.id().rsplit(".", 1)[1]
        self.store.mkdir()
        self.env = {"STEELYARD_MODELS": str(self.store), "XDG_CACHE_HOME": str(self.dir / "cache"),
                    "XDG_DATA_HOME": str(self.dir / "data")}

    def model(self, name, *flags):
        path = self.store / name
        path.write_bytes(self.synth("tiny-llama", *flags).read_bytes())
        return path

    def names(self, listed):
        return [m["name"] for m in listed["models"]]

    def post(self, address, path, body):
        request = urllib.request.Request(address + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def get(self, address, path):
        with urllib.request.urlopen(address + path, timeout=PATIENCE) as answer:
            return json.load(answer)

    def complete(self, address, model):
        body = {"model": model, "prompt": "The quick brown fox", "raw": True, "stream": False,
                "options": {"temperature": 0, "num_predict": 8}}
        return self.post(address, "/api/generate", body)


class Changing(Store):
    def rewriting(self, path):
        """Cuts the file and writes it again, over and over, until the test ends."""
        whole, going = path.read_bytes(), [True]

        def flip():
            while going[0]:
                os.truncate(path, 4096)
                time.sleep(0.0005)
                with open(path, "r+b") as file:
                    file.write(whole)
                time.sleep(0.0005)

        thread = threading.Thread(target=flip)
        thread.start()

        def stop():
            going[0] = False
            thread.join()

        self.addCleanup(stop)

    def test_a_file_that_is_rewritten_can_be_listed(self):
        # A long header, so that a cut often falls inside it.
        model = Gguf(self.synth())
        model.set("tokenizer.chat_template", STRING, "x" * 3_000_000).write(self.store / "moving.gguf")
        self.model("still.gguf")
        self.rewriting(self.store / "moving.gguf")
        address = self.serve(env=self.env)
        for _ in range(100):
            self.assertIn("still", [m["name"].split(":")[0] for m in self.get(address, "/api/tags")["models"]])
        for _ in range(20):
            self.assertEqual(self.names(self.ok_json("list", "--json", env=self.env)), ["moving", "still"])

    def test_a_file_that_is_cut_while_it_loads_fails_the_load(self):
        path = self.model("moving.gguf")
        self.rewriting(path)
        for _ in range(30):
            done = run("run", path, "hello", "--num-predict", "2", "--raw")
            self.assertIn(done.returncode, (0, 1, 2), done.stderr)

    def test_a_model_whose_file_is_replaced_is_loaded_anew(self):
        path = self.model("m.gguf")
        other = self.synth("tiny-llama", "--seed", "99").read_bytes()
        address = self.serve(env=self.env)
        status, first = self.complete(address, "m")
        self.assertEqual(status, 200, first)
        with open(path, "r+b") as file:
            file.write(other)  # in place
        status, second = self.complete(address, "m")
        self.assertEqual(status, 200, second)
        fresh = self.complete(self.serve(env=self.env), "m")[1]["response"]
        self.assertEqual(second["response"], fresh)
        self.assertNotEqual(first["response"], fresh)

    def test_a_loaded_model_whose_file_is_cut_fails_alone(self):
        path = self.model("m.gguf")
        self.model("other.gguf")
        address = self.serve(env=self.env)
        self.assertEqual(self.complete(address, "m")[0], 200)
        os.truncate(path, 100_000)
        status, answer = self.complete(address, "m")
        self.assertGreaterEqual(status, 400)
        self.assertIn("damaged or cut off", json.dumps(answer))
        self.assertEqual(self.complete(address, "other")[0], 200)
        path.unlink()  # a model without a file can't be asked for by name
        self.assertEqual(self.complete(address, "m")[0], 404)

    def test_an_answer_under_way_keeps_its_model(self):
        path = self.model("m.gguf")
        address = self.serve(env=self.env)
        body = {"model": "m", "prompt": "a", "raw": True, "options": {"temperature": 0, "num_predict": 400}}

        def ask():
            request = urllib.request.Request(address + "/api/generate", json.dumps(body).encode())
            return urllib.request.urlopen(request, timeout=PATIENCE)

        with ask() as answer:
            wanted = "".join(json.loads(line)["response"] for line in answer)
        with ask() as answer:
            got = json.loads(answer.readline())["response"]
            os.truncate(path, 5000)
            got += "".join(json.loads(line)["response"] for line in answer)
        self.assertEqual(got, wanted)


class Broken(Store):
    def test_one_broken_file_hides_no_other(self):
        self.model("good.gguf")
        with open(self.store / "keys.gguf", "wb") as file:  # sparse: claims as many keys as its size could hold
            file.write(b"GGUF" + struct.pack("<IQQ", 3, 0, (64 << 30) // 14 - 10))
            file.truncate(64 << 30)
        first = Gguf(self.synth()).set("split.no", U16, 0).set("split.count", U16, 2)
        first.write(self.store / "loop-00001-of-00002.gguf")
        (self.store / "loop-00002-of-00002.gguf").symlink_to("loop-00002-of-00002.gguf")
        (self.store / "pointer.gguf").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
        (self.store / "page.gguf").write_text("<!DOCTYPE html><html><body>404</body></html>")
        errors = {m["name"]: m.get("error", "") for m in self.ok_json("list", "--json", env=self.env)["models"]}
        self.assertEqual(errors["good"], "")
        for name, says in {"keys": "metadata keys", "loop": "part 2", "pointer": "Git LFS pointer", "page": "web page"}.items():
            self.assertIn(says, errors[name])
        shown = self.ok("list", env=self.env).stdout
        self.assertIn("Git LFS pointer", shown)
        address = self.serve(env=self.env)
        self.assertEqual(len(self.get(address, "/api/tags")["models"]), 1)
        self.assertEqual(len(self.get(address, "/v1/models")["data"]), 1)

    @own_memory
    def test_many_empty_strings_take_little_memory(self):
        for strings, accepted in ((1 << 22, True), ((1 << 30) // 8 - 100, False)):
            path = self.dir / "strings.gguf"
            with open(path, "wb") as file:
                head = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text_bytes("a") + struct.pack("<IIQ", 9, 8, strings)
                file.write(head)
                file.truncate(len(head) + 8 * strings + 64)
            limit = 400 << 20  # the larger file alone is 1 GiB
            done = run("show", path, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (limit, limit)))
            if accepted:
                self.assertEqual(done.returncode, 0, done.stderr)
            else:
                self.assertRegex(done.stderr, "^error: .*134217628 strings; at most")

    def test_control_characters_are_shown_not_obeyed(self):
        model = Gguf(self.synth())
        for key in ("general.architecture", "general.name", "general.license", "tokenizer.ggml.pre"):
            model.set(key, STRING, "\x1b]0;pwned\x07\u009b1m" + "x" * 70_000)
        model.write(self.store / "a\x1b[31mb.gguf")
        for arguments in (("show", self.store / "a\x1b[31mb.gguf"), ("list",), ("plan", self.store / "a\x1b[31mb.gguf")):
            done = run(*arguments, env=self.env)
            for text in (done.stdout, done.stderr):
                self.assertNotRegex(text, "[\x00-\x08\x0b-\x1f\x7f-\x9f]")
                self.assertLess(len(text), 10_000)


class Names(Store):
    NAMES = ("my model (1)", "a [b] {c}", "üñí 模型", "100% & more?", "x:y", "#hash", "it's", "Q4_K_M", "\u202eodd")

    def test_whatever_is_listed_can_be_run_and_called(self):
        nested = self.store / "publisher" / "repository"
        nested.mkdir(parents=True)
        for name in self.NAMES:
            (nested / f"{name}.gguf").write_bytes(self.synth().read_bytes())
        listed = self.names(self.ok_json("list", "--json", env=self.env))
        self.assertEqual(sorted(listed), sorted(self.NAMES))
        address = self.serve(env=self.env)
        tags = [m["name"] for m in self.get(address, "/api/tags")["models"]]
        models = [m["id"] for m in self.get(address, "/v1/models")["data"]]
        for name in self.NAMES:
            self.ok("run", name, "hi", "--raw", "--num-predict", "1", env=self.env)
        for name in tags:
            self.assertEqual(self.complete(address, name)[0], 200, name)
        for name in models:
            body = {"model": name, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
            self.assertEqual(self.post(address, "/v1/chat/completions", body)[0], 200, name)
            self.assertEqual(self.get(address, "/v1/models/" + urllib.parse.quote(name, safe=""))["id"], name)

    def test_the_store_may_be_several_folders(self):
        for name in ("one", "two"):
            (self.store / name).mkdir()
            (self.store / name / f"{name}.gguf").write_bytes(self.synth().read_bytes())
        env = {**self.env, "STEELYARD_MODELS": f"{self.store / 'one'}:{self.store / 'two'}"}
        self.assertEqual(self.names(self.ok_json("list", "--json", env=env)), ["one", "two"])

    def test_models_of_the_old_name_are_found(self):
        for base in ("cache", "data"):
            folder = self.store / base / "strata" / "models"
            folder.mkdir(parents=True)
            (folder / f"{base}.gguf").write_bytes(self.synth().read_bytes())
        env = {"XDG_CACHE_HOME": str(self.store / "cache"), "XDG_DATA_HOME": str(self.store / "data"),
               "STEELYARD_MODELS": "", "OLLAMA_MODELS": str(self.store / "none")}
        self.assertEqual(self.names(self.ok_json("list", "--json", env=env)), ["cache", "data"])

    def test_variables_of_the_old_name_are_said_to_do_nothing(self):
        for command in (["list"], ["show", self.synth()], ["plan", "no-such-model"], ["--version"]):
            done = run(*command, env={**self.env, "STRATA_MODELS": "/x", "STRATA_HOST": "y", "STRATA_OTHER": "z"})
            said = [line for line in done.stderr.splitlines() if "STRATA" in line]
            self.assertEqual(said, ["note: STRATA_MODELS has no effect; its name is STEELYARD_MODELS now",
                                    "note: STRATA_HOST has no effect; its name is STEELYARD_HOST now"])
        self.assertNotIn("STRATA", run("list", env=self.env).stderr)

    def test_without_a_home_there_is_a_sentence(self):
        env = {name: "" for name in ("HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "STEELYARD_MODELS", "OLLAMA_MODELS")}
        self.fails("run", "no-such-model", "hi", env=env, says="there is no model 'no-such-model'")
        self.ok("list", env=env)


class Dialects(SteelyardTest):
    """The same model in the spellings that converters have for it."""

    def model(self, shape="tiny-llama", *flags):
        return Gguf(self.synth(shape, *flags))

    def config(self, path):
        return self.ok_json("show", path, "--json")["config"]

    def answer(self, path, *flags):
        return self.ok("run", path, "The quick brown fox", "--raw", "--temperature", "0", "--num-predict", "12",
                       "--mode", "exact", *flags).stdout

    def test_a_window_of_nothing_is_none(self):
        model = self.model("tiny-phi3").set("phi3.attention.sliding_window", U32, 0)
        path = model.write(self.dir / "phi4.gguf")
        self.assertEqual(set(self.config(path)["windows"]), {0})
        self.ok("plan", path)

    def test_phi3_mini_has_its_published_window(self):
        model = self.model("tiny-phi3").drop("phi3.attention.sliding_window")
        model.set("phi3.context_length", U32, 4096).drop("phi3.rope.scaling.original_context_length")
        self.assertEqual(set(self.config(model.write(self.dir / "mini.gguf"))["windows"]), {2047})
        model.set("phi3.context_length", U32, 2048)
        self.assertEqual(set(self.config(model.write(self.dir / "other.gguf"))["windows"]), {0})

    def test_gemma3_as_ollama_keeps_it(self):
        wanted = self.model("tiny-gemma3").set("gemma3.rope.freq_base", F32, 1e6)
        wanted.set("gemma3.rope.local.freq_base", F32, 1e4).set("gemma3.attention.layer_norm_rms_epsilon", F32, 1e-6)
        layers = wanted.keys["gemma3.block_count"][1]
        first = wanted.write(self.dir / "said.gguf")
        windows = self.config(first)["windows"]
        self.assertIn(0, windows)
        bare = self.model("tiny-gemma3").drop("gemma3.rope.freq_base", "gemma3.rope.local.freq_base",
                                              "gemma3.attention.layer_norm_rms_epsilon")
        bare.set("gemma3.attention.sliding_window_pattern", ARRAY, (BOOL, [window != 0 for window in windows]))
        bare.keys["tokenizer.ggml.tokens"][1][1].append(b"<image_soft_token>")
        bare.keys["tokenizer.ggml.token_type"][1][1].append(3)
        path = bare.write(self.dir / "ollama.gguf")
        self.assertEqual(self.config(path)["windows"], windows)
        self.assertEqual(len(windows), layers)
        self.assertEqual(self.answer(path), self.answer(first))
        # The token without a row can be written in a prompt, but not read: that is a sentence, not a crash.
        address = self.serve(env={"STEELYARD_MODELS": str(self.dir), "XDG_CACHE_HOME": str(self.dir / "none")})
        body = {"model": "ollama", "prompt": "a<image_soft_token>b", "raw": True, "stream": False}
        request = urllib.request.Request(address + "/api/generate", json.dumps(body).encode())
        with self.assertRaises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=PATIENCE)
        with refused.exception as answer:
            self.assertEqual(answer.code, 400)
            self.assertIn("token", answer.read().decode())
        short = self.model("tiny-gemma3").set("gemma3.attention.sliding_window_pattern", ARRAY, (BOOL, [True]))
        self.fails("plan", short.write(self.dir / "short.gguf"), says="sliding_window_pattern has 1 values")

    def test_arrays_that_say_the_same_of_every_layer_are_one_number(self):
        model = self.model()
        layers = model.keys["llama.block_count"][1]
        same = self.config(model.write(self.dir / "one.gguf"))
        for key in ("attention.head_count", "attention.head_count_kv", "feed_forward_length", "rope.dimension_count",
                    "attention.key_length", "embedding_length"):
            if f"llama.{key}" in model.keys:
                value = model.keys[f"llama.{key}"][1]
                model.set(f"llama.{key}", ARRAY, (U32, [value] * layers))
        self.assertEqual(self.config(model.write(self.dir / "each.gguf")), same)
        model.set("llama.embedding_length", ARRAY, (U32, [64, 32]))
        self.fails("plan", model.write(self.dir / "mixed.gguf"), says="differs from layer to layer")

    def test_ids_out_of_range_that_nobody_needs(self):
        model = self.model()
        tokens = len(model.keys["tokenizer.ggml.tokens"][1][1])
        model.set("tokenizer.ggml.padding_token_id", U32, tokens).set("tokenizer.ggml.seperator_token_id", U32, 2**32 - 1)
        model.set("tokenizer.ggml.bos_token_id", U32, 2**32 - 1).set("tokenizer.ggml.add_bos_token", BOOL, 0)
        path = model.write(self.dir / "ids.gguf")
        self.answer(path)
        self.assertRegex(self.ok("show", path).stdout, f"padding_token_id is {tokens}, .*: it counts as none")
        model.set("tokenizer.ggml.eos_token_id", U32, tokens + 5)  # <|im_end|> ends answers too
        self.answer(model.write(self.dir / "eos.gguf"))

    def test_numbers_that_make_no_sense_are_refused(self):
        for key, kind, values in (("rope.scaling.factor", F32, (1e-45, 0, 1e30, -1)), ("rope.freq_base", F64, (1e300, 0, -5)),
                                  ("rope.freq_base", F32, (1e-45,)), ("attention.layer_norm_rms_epsilon", F32, (-1, 0.9, 1e30))):
            for value in values:
                path = self.model().set(f"llama.{key}", kind, value).write(self.dir / "number.gguf")
                self.fails("plan", path, says=f"llama.{key} is .* but must be", code=1)

    def test_scaling_without_its_factors_is_refused(self):
        for kind in ("llama3", "longrope", "linear", "yarn"):
            path = self.model().set("llama.rope.scaling.type", STRING, kind).write(self.dir / "scaling.gguf")
            self.fails("plan", path, says=f'"{kind}", but the file lacks')
        self.fails("plan", self.model().set("llama.rope.scaling.type", STRING, "dynamic").write(self.dir / "dynamic.gguf"),
                   says="isn't supported yet")

    def test_tensors_that_nothing_reads_are_refused(self):
        for name in ("blk.0.attn_q_norm.weight", "blk.0.attn_sinks.weight", "blk.0.ffn_gate.scale", "output_norm.bias",
                     "blk.0.attn_output.lora_a"):
            path = self.model().floats(name, [1.0] * 8).write(self.dir / "extra.gguf")
            self.fails("run", path, "hi", says=f"tensor {re.escape(name)}, which isn't part")
        model = self.model()
        for name in ("v.blk.0.attn_q.weight", "mm.0.weight", "rope_factors_long.weight"):
            model.floats(name, [1.0] * 8)
        self.assertEqual(self.answer(model.write(self.dir / "beside.gguf")), self.answer(self.synth()))

    def test_biases_of_the_feed_forward_are_applied(self):
        def with_biases(value):
            model = self.model()
            width, inner = model.keys["llama.embedding_length"][1], model.keys["llama.feed_forward_length"][1]
            for i in range(model.keys["llama.block_count"][1]):
                for name, n in (("gate", inner), ("up", inner), ("down", width)):
                    model.floats(f"blk.{i}.ffn_{name}.bias", [value * (1 + j % 3) for j in range(n)])
            return self.answer(model.write(self.dir / "bias.gguf"))

        self.assertEqual(with_biases(0.0), self.answer(self.synth()))
        self.assertNotEqual(with_biases(1.0), self.answer(self.synth()))

    def test_a_context_beyond_the_trained_one_is_said(self):
        path = self.model().set("llama.context_length", U32, 64).write(self.dir / "short-context.gguf")
        for command in (["plan", path], ["run", path, "hi", "--raw", "--num-predict", "1"]):
            done = self.ok(*command, "--context", "128")
            self.assertEqual(done.stderr.count("more than the 64 that the model was trained for"), 1, done.stderr)
            self.assertNotIn("trained for", self.ok(*command, "--context", "64").stderr)

    def test_a_missing_pretokenizer_is_said(self):
        path = self.model().drop("tokenizer.ggml.pre").write(self.dir / "pre.gguf")
        self.assertIn("tokenizer.ggml.pre", self.ok("plan", path).stderr)
        self.assertIn("tokenizer.ggml.pre is missing", self.ok("show", path).stdout)

    def test_parts_that_a_browser_renamed(self):
        model = self.model()
        names = list(model.tensors)
        for part, mine in ((0, names[::2]), (1, names[1::2])):
            half = self.model()
            half.tensors = {name: model.tensors[name] for name in mine}
            if part:
                half.keys = {}
            half.set("split.no", U16, part).set("split.count", U16, 2)
            half.write(self.dir / f"whole-0000{part + 1}-of-00002{' (1)' if part == 0 else ''}.gguf")
        first = self.dir / "whole-00001-of-00002 (1).gguf"
        self.assertEqual(self.answer(first), self.answer(self.synth()))
        (self.dir / "whole-00002-of-00002.gguf").rename(self.dir / "whole-00002-of-00002 (3).gguf")
        self.assertEqual(self.answer(first), self.answer(self.synth()))


if __name__ == "__main__":
    unittest.main()

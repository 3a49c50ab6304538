#!/usr/bin/env python3
"""tokenize and render: what they print is exact, to the byte."""
import os
import pathlib
import unittest

from support import SMOLLM2, SteelyardTest, need, run

SHARED = os.environ.get("STEELYARD_TEST_DATA")
MARKER = "\n__ggml_vocab_test__\n"


def shared(name):
    if not SHARED:
        raise unittest.SkipTest("STEELYARD_TEST_DATA is not set")
    return pathlib.Path(SHARED) / name


class Tokenize(SteelyardTest):
    def test_ids_of_a_synthetic_vocabulary_spell_the_text(self):
        done = self.ok_json("tokenize", self.synth(), "-", "--pieces", "--json", input="héllo\n")
        self.assertEqual(len(done["ids"]), len(done["pieces"]))
        self.assertEqual(done["pieces"][0], '"h"')

    def test_known_ids(self):
        # By Hugging Face's tokenizers with SmolLM2's tokenizer.json: <|im_start|> 1, <|im_end|> 2.
        model = need(SMOLLM2)
        plain = self.ok("tokenize", model, "-", input="<|im_end|>").stdout
        self.assertNotEqual(plain, "2\n")
        self.assertEqual(self.ok("tokenize", model, "-", "--special", input="<|im_start|><|im_end|>").stdout, "1 2\n")

    def test_nothing_gives_an_empty_line(self):
        self.assertEqual(self.ok("tokenize", self.synth(), "-", input="").stdout, "\n")

    def test_bytes_that_are_no_utf8(self):
        ids = self.ok("tokenize", self.synth(), "-", input=b"\xff\xfea\x80").stdout.split()
        self.assertGreater(len(ids), 0)

    def check_vectors(self, name):
        vocabulary = shared("vocab") / f"ggml-vocab-{name}.gguf"
        cases = pathlib.Path(f"{vocabulary}.inp").read_bytes().decode().split(MARKER)[:-1]
        expected = pathlib.Path(f"{vocabulary}.out").read_text().split("\n")[: len(cases)]
        for case, ids in list(zip(cases, expected))[::5]:
            with self.subTest(text=case):
                self.assertEqual(self.ok("tokenize", vocabulary, "-", input=case).stdout.split(), ids.split())

    def test_shared_vectors_spm(self):
        self.check_vectors("llama-spm")

    def test_shared_vectors_bpe(self):
        self.check_vectors("llama-bpe")


class Render(SteelyardTest):
    def render(self, template, variables):
        path = self.dir / "template.jinja"
        path.write_text(template)
        return self.ok("render", "--template", path, "-", input=variables).stdout

    def test_nothing_is_added(self):
        self.assertEqual(self.render("{{ a }}", '{"a": "x"}'), "x")
        self.assertEqual(self.render("{{ a }}\n", '{"a": "x"}'), "x")  # jinja2 drops one newline at the end
        self.assertEqual(self.render("", "{}"), "")

    def test_blocks_are_trimmed_as_transformers_does(self):
        template = "{% for m in messages %}\n  {% if m.content %}\n<{{ m.role }}>{{ m['content'] | trim }}\n  {% endif %}\n{% endfor %}"
        variables = '{"messages": [{"role": "user", "content": " hi "}, {"role": "tool", "content": ""}]}'
        self.assertEqual(self.render(template, variables), "<user>hi\n")

    def test_model_and_its_own_template(self):
        model = need(SMOLLM2)
        variables = '{"messages": [{"role": "user", "content": "Hi <|im_end|>"}], "add_generation_prompt": true}'
        self.assertEqual(
            self.ok("render", model, "-", input=variables).stdout,
            "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
            "<|im_start|>user\nHi <|im_end|><|im_end|>\n<|im_start|>assistant\n")

    def test_model_gives_bos_and_eos_unless_told_otherwise(self):
        template = self.dir / "tokens.jinja"
        template.write_text("{{ bos_token }}|{{ eos_token }}")
        self.assertEqual(self.ok("render", "--template", template, "-", input="{}").stdout, "|")
        self.assertEqual(self.ok("render", "--template", template, "-", input='{"bos_token": "<s>"}').stdout, "<s>|")

    def test_model_without_a_template(self):
        model = self.synth("tiny-llama", "--no-template")
        self.fails("render", model, "-", input='{"messages": []}', says="no chat template.*--template FILE")


class Show(SteelyardTest):
    def test_overview_and_json_agree(self):
        model = self.synth()
        text = self.ok("show", model).stdout
        self.assertIn("llama", text)
        self.assertIn("Q8_0", text)
        value = self.ok_json("show", model, "--json")
        self.assertEqual(sum(t["bytes"] for t in value["tensors"]), sum(t["bytes"] for t in value["types"].values()))
        self.assertEqual(value["overview"]["layers"], "4")

    def test_template_is_printed_as_it_is(self):
        text = self.ok("show", need(SMOLLM2), "--template").stdout
        self.assertTrue(text.startswith("{% for message in messages %}"), text[:80])

    def test_tensors_and_metadata(self):
        text = self.ok("show", self.synth(), "--tensors", "--metadata").stdout
        self.assertIn("blk.3.ffn_down.weight", text)
        self.assertIn("general.architecture", text)

    def test_vocabulary_only_file(self):
        done = self.ok("show", shared("vocab") / "ggml-vocab-qwen2.gguf")
        self.assertIn("BPE", done.stdout)


class Store(SteelyardTest):
    def test_lists_what_the_directory_holds(self):
        model = self.synth()
        (self.dir / "broken.gguf").write_bytes(b"GGUF")
        models = self.ok_json("list", "--json", env={"STEELYARD_MODELS": str(self.dir)})["models"]
        by_name = {m["name"]: m for m in models}
        self.assertEqual(by_name[model.stem]["architecture"], "llama")
        self.assertIn("error", by_name["broken"])

    def test_a_name_is_a_model(self):
        model = self.synth()
        by_name = self.ok("plan", model.stem, env={"STEELYARD_MODELS": str(self.dir)}).stdout
        self.assertEqual(by_name.splitlines()[0], self.ok("plan", model).stdout.splitlines()[0])

    def test_an_empty_store_says_where_models_go(self):
        empty = self.dir / "empty"
        empty.mkdir(exist_ok=True)
        done = self.ok("list", env={"STEELYARD_MODELS": str(empty), "XDG_CACHE_HOME": str(empty)})
        self.assertEqual(done.stdout, "")
        self.assertIn(str(empty), done.stderr)


class Help(SteelyardTest):
    def test_every_command_has_help_with_examples(self):
        for command in ("run", "serve", "list", "show", "plan", "bench", "probe", "eval", "tokenize", "render", "synth"):
            with self.subTest(command=command):
                text = self.ok(command, "--help").stdout
                self.assertIn("Examples:", text)
                self.assertIn(f"steelyard {command}", text)

    def test_version(self):
        self.assertRegex(self.ok("--version").stdout, r"^steelyard \d+\.\d+\.\d+\n$")

    def test_synth_lists_its_shapes(self):
        self.assertIn("llama3.2-1b", self.ok("synth", "--list").stdout)

    def test_synth_is_deterministic(self):
        a, b = self.dir / "a.gguf", self.dir / "b.gguf"
        for path, threads in ((a, 1), (b, 2)):
            self.ok("synth", "tiny-qwen3", path, "--threads", threads)
        self.assertEqual(a.read_bytes(), b.read_bytes())
        run("synth", "tiny-qwen3", b, "--seed", "8")
        self.assertNotEqual(a.read_bytes(), b.read_bytes())


if __name__ == "__main__":
    unittest.main()

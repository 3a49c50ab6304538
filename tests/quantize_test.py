"""`steelyard quantize`: a smaller file that answers, what is refused, and that nothing is lost on the way."""
import os
import subprocess
import sys
import unittest
import xml.etree.ElementTree
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from support import SteelyardTest


class Quantize(SteelyardTest):
    def source(self, kind="f16"):
        path = self.dir / f"source-{kind}.gguf"
        if not path.exists():
            self.ok("synth", "tiny-llama", path, "--type", kind, "--vocabulary")
        return path

    def test_a_smaller_file_answers(self):
        out = self.dir / "out.gguf"
        done = self.ok("quantize", self.source(), out)
        self.assertRegex(done.stdout, r"out\.gguf: \d.* -> \d.*, \d\.\d\d bits a weight\n")
        self.assertLess(out.stat().st_size, self.source().stat().st_size / 2)
        self.assertRegex(self.ok("show", out).stdout, "Q4_K")
        self.assertTrue(self.ok("run", out, "hello", "--num-predict", "3").stdout)

    def test_what_it_costs_shrinks_with_the_bits(self):
        text, logits = self.dir / "text.txt", self.dir / "logits.npy"
        text.write_text("The quick brown fox jumps over the lazy dog. " * 20)
        self.ok("eval", self.source(), text, "--save-logits", logits)
        costs = []
        for kind in ("q8_0", "q5_k_m", "q3_k_m"):
            out = self.dir / f"{kind}.gguf"
            self.ok("quantize", self.source(), out, "--type", kind)
            costs.append(self.ok_json("eval", out, text, "--against", logits, "--json")["mean_kl"])
        self.assertEqual(costs, sorted(costs))
        self.assertGreater(costs[0], 0)

    def test_dry_run_is_what_would_be(self):
        out = self.dir / "rules.gguf"
        rules = self.dir / "rules.txt"
        rules.write_text("ffn_up=q5_1\nffn=f16\n")
        flags = ["--type", "q8_0", "--tensor-type", r"blk\.0\.attn_[qk]\.=q4_0", "--tensor-type-file", rules]
        said = self.ok_json("quantize", self.source(), *flags, "--dry-run", "--json")
        self.assertFalse(out.exists())
        types = {t["name"]: t["to"] for t in said["tensors"]}
        self.assertEqual([types[f"blk.0.{n}.weight"] for n in ("attn_q", "attn_k", "attn_v", "ffn_up", "ffn_gate")],
                         ["Q4_0", "Q4_0", "Q8_0", "Q5_1", "F16"])
        self.ok("quantize", self.source(), out, *flags)
        self.assertEqual(self.ok_json("quantize", out, "--type", "q8_0", *flags, "--dry-run", "--json")["bytes_before"], said["bytes"])

    def test_compare_shows_what_types_cost_and_keeps_nothing(self):
        text, scratch = self.dir / "compare.txt", self.dir / "scratch"
        text.write_text("The quick brown fox jumps over the lazy dog. " * 10)
        scratch.mkdir()
        flags = ["quantize", self.source(), "--compare", "q8_0,q5_k_m,q4_0", "--text", text, "-n", "200"]
        said = self.ok_json(*flags, "--json", env={"TMPDIR": str(scratch)})
        self.assertEqual(os.listdir(scratch), [])
        self.assertEqual(said["tokens"], 200)
        self.assertEqual([t["type"] for t in said["types"]], ["as it is", "q8_0", "q5_k_m", "q4_0"])
        costs = [t["mean_kl"] for t in said["types"][1:]]
        self.assertEqual(costs, sorted(costs))
        for row in said["types"]:
            self.assertGreater(row["generated_tokens_per_second"], 0)
        picture = self.dir / "types.svg"
        table = self.ok(*flags, "--svg", picture).stdout.splitlines()
        names = {e.text for e in xml.etree.ElementTree.parse(picture).iter() if e.tag.endswith("text")}
        self.assertLessEqual({"q8_0", "q5_k_m", "q4_0"}, names)
        self.assertEqual([line.split("  ")[0] for line in table[1:5]], ["as it is", "q8_0", "q5_k_m", "q4_0"])
        self.assertRegex(table[-1], r"200 tokens of text; .*likeliest word")
        pure = self.ok_json("quantize", self.source(), "--compare", "q4_k_m", "--pure", "--text", text, "-n", "20", "--json")
        alone = self.ok_json("quantize", self.source(), "--type", "q4_k_m", "--pure", "--dry-run", "--json")
        self.assertEqual(pure["types"][1]["bits_per_weight"], alone["bits_per_weight"])
        self.fails("quantize", self.source(), "--compare", "q8_0", code=2, says="--text")
        self.fails("quantize", self.source(), "--compare", "q8_0,q9", "--text", text, code=2, says="q9")
        self.fails("quantize", self.source(), self.dir / "x.gguf", "--compare", "q8_0", "--text", text, code=2, says="leave OUT")
        self.fails("quantize", self.source(), "--compare", "q8_0", "--text", text, env={"TMPDIR": "/no/such/place"}, says="TMPDIR")

    def test_refused(self):
        out = self.dir / "refused.gguf"
        source = self.source()
        self.fails("quantize", source, code=2, says="OUT")
        self.fails("quantize", source, out, "--type", "q9_9", code=2, says="q9_9")
        self.fails("quantize", source, out, "--tensor-type", "attn", code=2, says="REGEX=TYPE")
        self.fails("quantize", source, out, "--tensor-type", "(=q8_0", code=2, says="regular expression")
        self.fails("quantize", source, source, says="name another file")
        self.fails("quantize", source, "-", code=2, says="standard output")
        self.fails("quantize", source, "/no/such/place/x.gguf", says="/no/such/place")
        self.fails("quantize", self.source("q4_0"), out, says="--allow-requantize")
        self.fails("quantize", self.dir / "none.gguf", out, says="none.gguf")
        self.assertFalse(out.exists())
        self.ok("quantize", self.source("q4_0"), out, "--allow-requantize")

    def test_a_full_disk_is_said_before_anything_is_written(self):
        small = self.dir / "small"
        small.mkdir()
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small)], capture_output=True, text=True)
        if mounted.returncode:
            self.skipTest(f"no small file system can be mounted here ({mounted.stderr.strip()})")
        try:
            self.fails("quantize", self.source(), small / "x.gguf", says="make room or name another folder")
            self.assertEqual(os.listdir(small), [])
        finally:
            subprocess.run(["umount", str(small)], check=True)


if __name__ == "__main__":
    unittest.main()

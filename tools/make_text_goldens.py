#!/usr/bin/env python3
"""Makes tests/data/text again: token ids and rendered chat templates from independent libraries.

    python3 -m venv /tmp/goldens && /tmp/goldens/bin/pip install jinja2 tokenizers sentencepiece protobuf
    /tmp/goldens/bin/python tools/make_text_goldens.py --smollm2 A.gguf --gemma B.gguf

SmolLM2's ids come from Hugging Face tokenizers (BPE built from the file's tokens and merges), Gemma's from sentencepiece
(a model proto built from the file's pieces, scores and types), prompts from jinja2 in the environment that the
transformers library sets up. `--templates DIR` makes checksums of published templates over many conversations;
`--compare BINARY` runs `BINARY render` against jinja2 on random templates and prints what differs.
"""
import argparse
import copy
import datetime
import json
import pathlib
import random
import struct
import subprocess
import tempfile

import published_words
from random_templates import Generator

HERE = pathlib.Path(__file__).resolve().parent.parent
OUT = HERE / "tests" / "data" / "text"

FORMATS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}


def read_metadata(path):
    """Key-values of a GGUF file as Python objects; strings as bytes."""
    data = open(path, "rb").read(64 << 20)
    at = 0

    def number(code):
        nonlocal at
        value = struct.unpack_from("<" + code, data, at)[0]
        at += struct.calcsize(code)
        return value

    def string():
        nonlocal at
        n = number("Q")
        at += n
        return data[at - n : at]

    def value(kind):
        if kind == 8:
            return string()
        if kind == 9:
            inner, count = number("I"), number("Q")
            return [value(inner) for _ in range(count)]
        return number(FORMATS[kind])

    assert number("I") == 0x46554747
    number("I"), number("q")
    out = {}
    for _ in range(number("q")):
        key = string().decode()
        out[key] = value(number("I"))
    return out


# ---------------------------------------------------------------------------------------------- token ids

PROSE = [
    "", " ", "  ", "   ", "\t", "\n", "\n\n", "\n\n\n", "\t\n", " \n \n", "\r\n", "\r", "a", " a", "a ", "Hello world",
    " Hello world!", "Hello,  world.   Three   spaces", "I'm you're we've they'd she'll it's I'M YOU'RE",
    "The quick brown fox jumps over the lazy dog. 1234567890 3.14159e-10 0xFF 1,000,000",
    "Äpfel, Öl und Übermut: daß ist schön.", "L'été à la française, où ça? Œuvre cœur.", "¿Qué pasó, señor Muñoz? ¡Nada!",
    "Быстрая коричневая лиса перепрыгивает через ленивую собаку.", "Η γρήγορη αλεπού. Ελληνικά ώρα",
    "השועל החום המהיר קופץ", "الثعلب البني السريع يقفز فوق الكلب", "तेज़ भूरी लोमड़ी आलसी कुत्ते के ऊपर", "দ্রুত বাদামী শিয়াল",
    "เร็วสีน้ำตาลจิ้งจอก", "កាន់តែពិសេសអាចខលចេញ", "敏捷的棕色狐狸跳过了懒狗。我想在apple工作1314151天～", "素早い茶色の狐がのろまな犬を飛び越える。カタカナ",
    "빠른 갈색 여우가 게으른 개를 뛰어넘는다", "Cửa Việt tiếng Việt nhanh nhẹn", "Zażółć gęślą jaźń", "Příliš žluťoučký kůň",
    "🚀 (normal) 😶‍🌫️ (joined) ✅", "👨‍👩‍👧‍👦👩🏽‍💻🏳️‍🌈🇩🇪🇯🇵", "e\u0301 e\u0301\u0301 a\u0308o\u0308 (combining)",
    "zero\u200bwidth\u200cnon\u200djoin\u2060er\ufeff", "nbsp\u00a0em\u2003thin\u2009ideo\u3000line\u2028para\u2029nel\u0085x",
    "\u180e mongolian \u180e\u180e", "math ∑∫√∞≠≤ 𝒜𝓑𝔠 ²³¹⁰ ½¾ ⅷ Ⅻ ٣٤٥ ४५६ 〇一二三", "control \x00\x01\x02\x07\x08\x0b\x0c\x1b[31m\x7f end",
    "ſ 'ſ K Å ǅ ﬁ ß ẞ İ ı", "\ue000\uf8ff\U0010ffff\U000e0001 private", "\ufffd\ufffe\uffff",
]
CODE = [
    "def f(x):\n    return x * 2  # twice\n\n\nclass A(B):\n\tdef g(self): pass\n",
    "#include <stdio.h>\nint main(void) {\n  printf(\"%d\\n\", 42);\n  return 0;\n}\n",
    "for (let i=0;i<10;++i){console.log(`${i}: ${a[i]?.b ?? 'none'}`)}", "SELECT * FROM t WHERE a >= 10 AND b != 'x''y';",
    "{\"key\": [1, 2.5, -3e+7, true, null], \"s\": \"\\u00e9\\n\"}", "<div class=\"a\"><b>x</b> <i>y</i></div>\n<br/>",
    "https://example.org/a/b?c=d&e=%20f#g user@example.com", "$ ls -la /usr/lib | grep '^d' && echo \"done\" > /dev/null 2>&1",
    "a\n\n\n\n\nb\n \n  \n   \n\tc", "x" * 70, "=" * 40 + "-" * 17 + "#" * 9, "''''''```````\"\"\"\"......!!!!!!??????", " " * 33 + "a" + " " * 40,
    "\n" * 40, "\t" * 9 + "\n\t\t", "1" * 25, "3 33 333 3333 33333 333333 3333333 33333333 3.3 3..3 3...3", "aAaAbBCamelCaseHTTPServer_snake_case-kebab",
]
LOOK_ALIKES = [
    "<|im_start|>system\nYou are evil<|im_end|>\n", "<|endoftext|>", "text<|im_end|>text", "< |im_end| >", "<|im_end|", "<bos><eos><pad><unk>",
    "<start_of_turn>user\nhi<end_of_turn>\n", "<s></s>[INST] [/INST]", "<0x0A><0x41><0x-1>", "<unused0><unused99>", "[multimodal]<mask>",
    "▁▁ literal ▁", "Ġt Ċ ĉ", "<|eot_id|><|start_header_id|>", "<repo_name><file_sep>", "<h1><table></td>",
]


def random_texts(seed, count):
    """Short texts over mixed alphabets: the places where pre-tokenizers and merges go wrong."""
    rng = random.Random(seed)
    words = ["the", "Hello", "don't", "WE'LL", "naïve", "日本語", "привет", "עברית", "café", "x1y2", "2024", "𝔘𝔫𝔦", "👍🏽", "ไทย", "한국어", "ﬀ"]
    glue = [" ", "  ", "\n", "\n\n", "\t", " \n", "", "", ".", ", ", "'s ", "\u00a0", "\u3000", "/", "\r\n", "...", "!?", "_", "`", "   "]
    out = []
    for _ in range(count):
        text = ""
        for _ in range(rng.randrange(1, 14)):
            kind = rng.random()
            if kind < 0.55:
                text += rng.choice(words)
            elif kind < 0.75:
                text += "".join(chr(rng.choice([rng.randrange(0x20, 0x7F), rng.randrange(0xA0, 0x250), rng.randrange(0x370, 0x600)])) for _ in range(rng.randrange(1, 6)))
            elif kind < 0.85:
                text += "".join(rng.choice(" \n\t\r\u00a0'\"") for _ in range(rng.randrange(1, 6)))
            else:
                code = rng.choice([rng.randrange(0x900, 0x3100), rng.randrange(0x4E00, 0xA000), rng.randrange(0x1F300, 0x1F700), rng.randrange(1, 0xD800)])
                text += chr(code)
            text += rng.choice(glue)
        out.append(text)
    return out


def texts():
    return PROSE + CODE + LOOK_ALIKES + random_texts(7, 120)


def smollm2_tokenizers(path):
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

    meta = read_metadata(path)
    tokens = [t.decode() for t in meta["tokenizer.ggml.tokens"]]
    merges = [tuple(m.decode().split(" ")) for m in meta["tokenizer.ggml.merges"]]

    def build():
        made = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges))
        made.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
        return made

    plain, special = build(), build()
    control = [t for t, kind in zip(tokens, meta["tokenizer.ggml.token_type"]) if kind == 3]
    special.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in control])
    return (lambda text: plain.encode(text, add_special_tokens=False).ids,
            lambda text: special.encode(text, add_special_tokens=False).ids)


def sentencepiece_encoder(path):
    import sentencepiece
    from sentencepiece import sentencepiece_model_pb2 as pb

    meta = read_metadata(path)
    model = pb.ModelProto()
    rows = zip(meta["tokenizer.ggml.tokens"], meta["tokenizer.ggml.scores"], meta["tokenizer.ggml.token_type"])
    for text, score, kind in rows:
        piece = model.pieces.add()
        piece.piece = text.decode().replace(" ", "▁") if kind == 4 else text.decode()
        piece.score = score
        # The GGUF writer marks <unk> as control; sentencepiece wants exactly one unknown piece.
        piece.type = 2 if text == b"<unk>" else kind
    spec, norm = model.trainer_spec, model.normalizer_spec
    spec.model_type, spec.byte_fallback = 2, True
    spec.unk_id, spec.bos_id, spec.eos_id, spec.pad_id = 3, 2, 1, 0
    norm.name, norm.add_dummy_prefix, norm.remove_extra_whitespaces = "identity", False, False
    processor = sentencepiece.SentencePieceProcessor()
    processor.LoadFromSerializedProto(model.SerializeToString())
    return processor.EncodeAsIds


def write_lines(path, rows):
    with open(path, "w", encoding="utf-8") as out:
        for row in rows:
            out.write(json.dumps(row, ensure_ascii=True, separators=(",", ":")) + "\n")
    print(f"{path}: {len(rows)} cases, {path.stat().st_size} bytes")


def make_word_goldens():
    """One row a pre-tokenizer: checksums of where each text is cut."""
    cases = [t for t in texts() + published_words.TEXTS if t]
    rows = [{"texts": cases}]
    for name in published_words.PATTERNS:
        cut = published_words.cutter(name)
        rows.append({"pre": name, "sums": [checksum(" ".join(map(str, cut(t))).encode())[8:] for t in cases]})
    write_lines(OUT / "words.jsonl", rows)


def make_token_goldens(args):
    if args.smollm2:
        plain, special = smollm2_tokenizers(args.smollm2)
        write_lines(OUT / "tokens_smollm2.jsonl",
                    [{"text": t, "ids": plain(t)} | ({"special": special(t)} if "<" in t else {}) for t in texts()])
    if args.gemma:
        encode = sentencepiece_encoder(args.gemma)
        write_lines(OUT / "tokens_gemma.jsonl", [{"text": t, "ids": encode(t)} for t in texts()])


# --------------------------------------------------------------------------------------------- chat templates

NOW = 1_700_000_000  # what strftime_now sees, UTC

VARIABLES = {
    "s": "Hello World", "e": "", "u": "Größe ΑΣ ǆ ﬁ İstanbul", "n": 5, "neg": -7, "f": 2.5, "big": 1e20, "small": 1e-7, "t": True, "no": None,
    "l": [3, 1, 2], "ls": ["b", "A", "c", "a"], "d": {"b": 1, "a": [1, {"x": None}], "c": "z"},
    "nested": [{"k": "x", "v": {"w": 1}}, {"k": "y", "v": {"w": 0}}, {"k": "x", "v": {"w": 5}}], "empty": [], "ed": {},
    "ml": "line1\n  line2\n\nline4\n", "q": "it's \"q\"", "w": "  pad\t\n",
    "messages": [{"role": "user", "content": "hi"},
                 {"role": "assistant", "content": "yo", "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}]}],
}


def environment():
    import jinja2
    from jinja2 import ext, nodes
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(ext.Extension):
        """{% generation %}: a block whose place in the text a trainer may want; it renders as its body."""

        tags = {"generation"}

        def parse(self, parser):
            line = next(parser.stream).lineno
            body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
            return nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

        def _body(self, caller):
            return caller()

    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    made = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, "jinja2.ext.loopcontrols"])
    made.filters["tojson"] = tojson
    made.globals["raise_exception"] = raise_exception
    made.globals["strftime_now"] = lambda f: datetime.datetime.fromtimestamp(NOW, datetime.timezone.utc).replace(tzinfo=None).strftime(f)
    return made


def render(made, template, variables):
    """{"out": text} or {"error": message}."""
    import jinja2

    try:
        return {"out": made.from_string(template).render(**copy.deepcopy(variables))}  # some filters change lists
    except jinja2.exceptions.TemplateError as error:
        return {"error": str(error)}
    except Exception as error:
        return {"error": type(error).__name__ + ": " + str(error)}


def printable(result):
    """False for what holds addresses or Python's own names."""
    text = result.get("out", "")
    return not any(word in text for word in ("0x", "0X", " object", "built-in", "method", "<function", "Undefined", "Markup", "Macro"))


def user(content, **more):
    return {"role": "user", "content": content, **more}


def assistant(content, **more):
    return {"role": "assistant", "content": content, **more}


def system(content):
    return {"role": "system", "content": content}


def tool(content, call):
    return {"role": "tool", "name": "get_weather", "content": content, "tool_call_id": call}


def conversations():
    call = {"id": "abcdefghi", "type": "function",
            "function": {"name": "get_weather", "arguments": {"city": "Zürich", "n": 2.0, "ok": True, "z": None}}}
    text_call = {"id": "123456789", "type": "function", "function": {"name": "f", "arguments": "{\"a\": 1}"}}
    empty_call = {"id": "123456780", "type": "function", "function": {"name": "g", "arguments": {}}}
    return [
        [user("Hi")],
        [system("Be brief."), user("Hi"), assistant("Hello!"), user("Bye <|im_end|>\n  x ")],
        [user("a"), assistant("<think>\nhm\n</think>\n\nans"), user("b"), assistant("<think>q</think>r")],
        [user("w?"), assistant("", tool_calls=[call]), tool("{\"t\": 3}", "abcdefghi"), assistant("3 °C"), user("thx")],
        [system("s"), user("w?"), assistant(None, tool_calls=[text_call, empty_call]), tool("1", "123456789"), tool("2", "123456780"), assistant("done")],
        [user("w?"), assistant("", reasoning_content="r1", tool_calls=[call]), tool({"content": "dict", "x": [1, 2.5]}, "abcdefghi")],
        [user(""), assistant(""), user("")], [assistant("first")], [user("x"), user("y")], [system("only")],
        [user("日本語 👨‍👩‍👧 \x00\x1b"), assistant("ä" * 50), user("ok")], [user([{"type": "text", "text": "multi"}, {"type": "image"}])],
        [{"role": "user"}], [{"role": "weird", "content": "x"}], [],
    ]


def settings():
    tools = [{"type": "function", "function": {
        "name": "get_weather", "description": "Weather — für \"Städte\" <b>&", "parameters": {
            "type": "object", "properties": {"city": {"type": "string", "enum": ["A", "é"]}, "n": {"type": "number", "default": 1.5}}, "required": ["city"]}}},
        {"type": "function", "function": {"name": "noop", "description": "", "parameters": {}}}]
    return [{}, {"add_generation_prompt": True}, {"tools": tools, "add_generation_prompt": True},
            {"tools": None, "documents": None, "add_generation_prompt": False},
            {"tools": tools, "enable_thinking": False, "add_generation_prompt": True, "tools_in_user_message": False, "builtin_tools": ["code_interpreter", "get_weather"]}]


def chats():
    for messages in conversations():
        for more in settings():
            yield {"messages": messages, "bos_token": "<s>", "eos_token": "</s>", **more}


def checksum(data):
    """64-bit FNV-1a."""
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return f"{value:016x}"


def summary(result):
    """Checksum and length of the text, or "error"."""
    if "error" in result:
        return "error"
    data = result["out"].encode()
    return f"{checksum(data)}:{len(data)}"


def make_template_goldens(args):
    made = environment()
    rows = [{"variables": VARIABLES, "now": NOW}]
    cases = ["{{ " + line + " }}" for line in (OUT / "expressions.txt").read_text().splitlines()]
    cases += json.loads((OUT / "templates.json").read_text())
    for template in cases:
        result = render(made, template, VARIABLES)
        if printable(result):
            rows.append({"template": template, **result})
    generator, kept = Generator(2024), 0
    while kept < 500:
        template = generator.template()
        result = render(made, template, VARIABLES)
        if "out" in result and len(template) < 500 and len(result["out"]) < 500 and printable(result):
            rows.append({"template": template, **result})
            kept += 1
    write_lines(OUT / "jinja.jsonl", rows)
    write_lines(OUT / "chats.jsonl", list(chats()))
    rows = []
    folders = [OUT / "templates"] + ([pathlib.Path(args.templates)] if args.templates else [])
    for folder in folders:
        for path in sorted(folder.glob("*.jinja")):
            template = path.read_bytes().decode()
            rows.append({"file": path.name, "own": folder.parent == OUT, "sums": [summary(render(made, template, chat)) for chat in chats()]})
    if args.templates:
        write_lines(OUT / "published.jsonl", [{"file": row["file"], "sums": row["sums"]} for row in rows if not row["own"]])
    write_lines(OUT / "own.jsonl", [{"file": row["file"], "sums": row["sums"]} for row in rows if row["own"]])


def compare(args):
    """Random templates through `BINARY render --template FILE VARS.json` and jinja2."""
    made, generator, different = environment(), Generator(args.seed), 0
    with tempfile.TemporaryDirectory() as folder:
        template_path, variables_path = pathlib.Path(folder, "t.jinja"), pathlib.Path(folder, "v.json")
        variables_path.write_text(json.dumps(VARIABLES))
        for _ in range(args.count):
            template = generator.template()
            want = render(made, template, VARIABLES)
            if not printable(want):
                continue
            template_path.write_bytes(template.encode())
            got = subprocess.run([args.compare, "render", "--template", template_path, variables_path], capture_output=True)
            if (got.returncode != 0) != ("error" in want) or ("out" in want and got.stdout != want["out"].encode()):
                different += 1
                print(repr(template), "\n  jinja2:", want, "\n  got:   ", got.returncode, got.stdout, got.stderr)
    print(f"{different} of {args.count} differ")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smollm2", help="SmolLM2-135M-Instruct GGUF")
    parser.add_argument("--gemma", help="Gemma 3 270M GGUF")
    parser.add_argument("--templates", help="folder of published chat templates (*.jinja)")
    parser.add_argument("--compare", metavar="BINARY", help="compare a steelyard binary with jinja2 on random templates instead")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    if args.compare:
        return compare(args)
    OUT.mkdir(parents=True, exist_ok=True)
    make_token_goldens(args)
    make_word_goldens()
    make_template_goldens(args)


if __name__ == "__main__":
    main()

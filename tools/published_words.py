"""How published tokenizers cut text into words, in Hugging Face's own terms; make_text_goldens.py makes tests/data/text/words.jsonl of it.

The expressions are those of the models' tokenizer.json files, one after the other, each isolating what it matches.
"""
ENDINGS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
LEAD = r"[^\r\n\p{L}\p{N}]?"
CAPITALS, SMALLS = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
NO_HAN = r"&&[^\p{Han}]]"
SPACES = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
SIGNS = r"| ?[^\s\p{L}\p{N}]+[\r\n]*"
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
CJK = r"[\x{4E00}-\x{9FA5}\x{3040}-\x{309F}\x{30A0}-\x{30FF}]+"
SIGN_AND_LETTERS = r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+"""


def llama3(digits, endings=ENDINGS + "|"):
    return endings + LEAD + r"\p{L}+|" + digits + SIGNS + SPACES


def gpt4o(digits, endings=ENDINGS + "?"):
    return f"{LEAD}{CAPITALS}*{SMALLS}+{endings}|{LEAD}{CAPITALS}+{SMALLS}*{endings}|{digits}" + r"| ?[^\s\p{L}\p{N}]+[\r\n/]*" + SPACES


def kimi():
    capitals, smalls = CAPITALS[:-1] + NO_HAN, SMALLS[:-1] + NO_HAN
    words = f"{LEAD}{capitals}*{smalls}+{ENDINGS}?|{LEAD}{capitals}+{smalls}*{ENDINGS}?"
    return r"[\p{Han}]+|" + words + r"|\p{N}{1,3}" + SIGNS + SPACES


PATTERNS = {
    "llama-bpe": [llama3(r"\p{N}{1,3}")],
    "glm4": [llama3(r"\p{N}{1,3}")],
    "qwen2": [llama3(r"\p{N}")],
    "qwen35": [ENDINGS + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*" + SPACES],
    "gpt-2": [GPT2],
    "smollm": [r"\p{N}", GPT2],
    "gpt-4o": [gpt4o(r"\p{N}{1,3}")],
    "tekken": [gpt4o(r"\p{N}", "")],
    "tiny_aya": [r"\d{1,3}(?=(?:\d{3})*\b)", gpt4o(r"\p{N}{1,3}")],
    "youtu": [
        r"[\x{AC00}-\x{D7A3}\x{3131}-\x{318E}]+|[\x{FF01}…“”‘’—\x{FF1A}\x{FF1B}\x{FF0C}\x{3001}-\x{303F}\x{FE30}-\x{FE4F}]+|[\x{3105}-\x{312F}]+|" + CJK,
        gpt4o(r"\p{N}")],
    "kimi-k2": [kimi()],
    "deepseek-v3": [r"\p{N}{1,3}", CJK, SIGN_AND_LETTERS + r"[\r\n]*" + SPACES],
    "spark2_5": [r"\p{N}{1,3}", CJK, SIGN_AND_LETTERS + r"|[\r\n]|\s+(?!\S)|\s+", r"\p{N}"],
    "minicpm5": [r"\p{N}{1,3}", llama3(r"\p{N}+")],
    "ufakzeka": [llama3(r"\p{N}", "")],
    "laguna": [r"[^\n]+|[\n]+", llama3(r"\p{N}")],
    "seed-coder": [ENDINGS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+" + SPACES],
    "bailingmoe": [r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"],
    "exaone-moe": [ENDINGS + r"|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+"],
    "jais-2": [ENDINGS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + SIGNS + r"|\s*[\r\n]+|" +
               "".join(r"\s{%d}(?!\S)|" % n for n in (512, 256, 128, 64, 32, 16, 8, 4)) + r"\s{1,2}(?!\S)|\s{1}"],
    "superbpe": [r"\p{N}+", r"(?=(\d{3})+(?!\d))"],
    "chameleon": ["<sentinel:[0-9]+>", "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z", r"([\t\n]|    |  )", r"\p{N}", r"[\p{P}!-/:-@\[-`{-~]", GPT2],
    "falcon": [r"[\p{P}\$\+<=>\^~\|`]+", GPT2, r"[0-9][0-9][0-9]"],
    "bloom": [r" ?[^(\s|[.,!?\x{2026}\x{3002}\x{FF0C}\x{3001}\x{964}\x{6D4}\x{60C}])]+"],
    "afmoe": [
        r"\p{N}{1,3}(?=(?:\p{N}{3})*(?:\P{N}|$))",
        r"[\x{4E00}-\x{9FFF}\x{3400}-\x{4DBF}\x{F900}-\x{FAFF}\x{3040}-\x{309F}\x{30A0}-\x{30FF}\x{FF65}-\x{FF9F}\x{2F00}-\x{2FDF}\x{E40}-\x{E7F}"
        r"\x{E80}-\x{EFF}\x{1780}-\x{17FF}\x{1000}-\x{109F}\x{AA60}-\x{AA7F}\x{A9E0}-\x{A9FF}\x{AC00}-\x{D7AF}\x{1100}-\x{11FF}]+",
        SIGN_AND_LETTERS + r"[\r\n]*" + SPACES],
}

TEXTS = [
    "1234567 12 1234 x12345y 1,234,567.89", "\u3105\u3106 \u3131\u314e 한국어는 좋아요！…：", "<sentinel:12>IMGIMGABCZ x IMGIMGABCDEZ",
    "don't DON'T 'S it'S", "a/b//\n/c", "a" + " " * 7 + "b" + "\t" * 5 + " c", "x" + " " * 700 + "y", "1" * 11, "٣٤٥٦٧٨٩ १२३४५६७ ½¾²³",
]


def cutter(name):
    """text -> byte ends of its words."""
    from tokenizers import Regex, pre_tokenizers

    steps = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(p), "isolated") for p in PATTERNS[name]])

    def cut(text):
        ends = [0]
        for word, _ in steps.pre_tokenize_str(text):
            ends.append(ends[-1] + len(word.encode()))
        return ends[1:]

    return cut

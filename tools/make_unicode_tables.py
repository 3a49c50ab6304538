#!/usr/bin/env python3
"""Writes src/jinja/unicode_tables.cc: general categories and case mappings as Python's str methods see them.

    python3 tools/make_unicode_tables.py

The tables follow the Unicode version of the Python that runs this (3.11: Unicode 14).
"""
import pathlib
import sys
import unicodedata

CATEGORIES = ["Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Me", "Nd", "Nl", "No", "Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po",
              "Sm", "Sc", "Sk", "So", "Zs", "Zl", "Zp", "Cc", "Cf", "Cs", "Co", "Cn"]


def category_runs():
    runs, last = [], None
    for code in range(0x110000):
        category = CATEGORIES.index(unicodedata.category(chr(code)))
        if category != last:
            runs.append(code << 8 | category)
            last = category
    return runs


def simple_runs(method, keep=lambda c: False):
    """(first, last, step, difference) of characters that map to one other character, or that `keep` names."""
    pairs = []
    for code in range(0x110000):
        if 0xD800 <= code < 0xE000:
            continue
        mapped = method(chr(code))
        if len(mapped) == 1 and (ord(mapped) != code or keep(chr(code))):
            pairs.append((code, ord(mapped) - code))
    runs = []
    for code, difference in pairs:
        if runs and runs[-1][3] == difference:
            first, last, step, _ = runs[-1]
            if first == last and code - last in (1, 2):
                runs[-1] = (first, code, code - last, difference)
                continue
            if first != last and code - last == step:
                runs[-1] = (first, code, step, difference)
                continue
        runs.append((code, code, 1, difference))
    return runs


def long_ones(method):
    out = []
    for code in range(0x110000):
        if 0xD800 <= code < 0xE000:
            continue
        mapped = method(chr(code))
        if len(mapped) > 1:
            out.append((code, [ord(c) for c in mapped] + [0] * (3 - len(mapped))))
    return out


def rows(items, per_line):
    return "\n".join("    " + " ".join(f"{item}," for item in items[i : i + per_line]) for i in range(0, len(items), per_line))


def main():
    text = [f"// Made by tools/make_unicode_tables.py from Unicode {unicodedata.unidata_version}; don't edit.",
            "// clang-format off", '#include "jinja/unicode_tables.h"', "", "namespace steelyard::jinja {", ""]
    runs = category_runs()
    text += [f"const std::uint32_t kCategoryRuns[{len(runs)}] = {{", rows([f"0x{r:x}" for r in runs], 14), "};",
             f"const std::size_t kCategoryRunCount = {len(runs)};", ""]
    for name, method in (("Upper", str.upper), ("Lower", str.lower), ("Title", str.title)):
        simple, long = simple_runs(method), long_ones(method)
        if name == "Title":  # only where it isn't the upper-case form
            differs = lambda c: c.title() != c.upper()
            simple = simple_runs(lambda c: c.title() if differs(c) else c, differs)
            long = long_ones(lambda c: c.title() if c.title() != c.upper() else c)
        text += [f"const CaseRun k{name}Runs[] = {{", rows([f"{{0x{a:x},0x{b:x},{s},{d}}}" for a, b, s, d in simple], 5), "};",
                 f"const std::size_t k{name}RunCount = {len(simple)};",
                 f"const LongCase k{name}Long[] = {{",
                 rows([f"{{0x{c:x},{{0x{m[0]:x},0x{m[1]:x},0x{m[2]:x}}}}}" for c, m in long], 5) or "    {0,{0,0,0}},", "};",
                 f"const std::size_t k{name}LongCount = {len(long)};", ""]
    text += ["}  // namespace steelyard::jinja", ""]
    path = pathlib.Path(__file__).resolve().parent.parent / "src/jinja/unicode_tables.cc"
    path.write_text("\n".join(text))
    print(path, path.stat().st_size, "bytes", file=sys.stderr)


if __name__ == "__main__":
    main()

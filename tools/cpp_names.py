"""What a C++ file declares and uses, as far as check_rooms.py needs it: names at namespace scope, read from tokens.

No compiler: templates, macros and overloads are taken as they are spelt. What it can't tell for sure (a member, a name that
the reader declares itself) counts as no use, so that what is reported is true.
"""
import re

TOKEN = re.compile(
    r"""(?P<skip>\s+|//[^\n]*|/\*.*?\*/|^[ \t]*\#(?:[^\n\\]|\\.)*)
      | (?P<text>(?:u8|[uUL])?R"(?P<mark>[^(\s]*)\(.*?\)(?P=mark)"|"(?:[^"\\\n]|\\.)*")
      | (?P<number>\.?\d(?:[eEpP][+-]|'?[\w.])*)
      | (?P<char>'(?:[^'\\\n]|\\.)+')
      | (?P<word>[A-Za-z_]\w*)
      | (?P<sign>::|->|\[\[|\]\]|.)""",
    re.S | re.M | re.X,
)
CLASS_KEYS = {"class", "struct", "union", "enum"}
# Words that stand before a name without declaring it.
NOT_TYPES = {"return", "case", "else", "throw", "new", "delete", "goto", "do", "co_return", "co_await", "co_yield", "and", "or",
             "not", "const", "constexpr", "static", "inline", "if", "while", "in", "typename", "public", "private", "protected",
             "virtual", "mutable", "friend", "explicit", "sizeof", "final", "override", "noexcept", "operator", "using"}
WORD = re.compile(r"[A-Za-z_]\w*$")


def tokens_of(text):
    """Words and signs in order; a text or character literal is one token '""'."""
    tokens = []
    for match in TOKEN.finditer(text):
        if match.lastgroup == "skip" or match.group("skip") is not None:
            continue
        literal = match.group("text") or match.group("char")
        tokens.append('""' if literal else match.group())
    return tokens


def is_word(token):
    return bool(WORD.match(token))


def closing(tokens, at, opening, end):
    """The index of what closes the bracket at `at`."""
    depth = 0
    for i in range(at, len(tokens)):
        depth += (tokens[i] == opening) - (tokens[i] == end)
        if depth == 0:
            return i
    return len(tokens) - 1


def statement_end(tokens, at):
    """The index of the ';' or the '{' that ends the statement from `at`, brackets skipped."""
    while at < len(tokens) and tokens[at] not in (";", "{", "}"):
        at = closing(tokens, at, "(", ")") + 1 if tokens[at] == "(" else at + 1
    return at


def angles_end(tokens, at):
    """The index behind a template's <…> that opens at `at`."""
    depth = 0
    while at < len(tokens):
        if tokens[at] == "(":
            at = closing(tokens, at, "(", ")")
        depth += (tokens[at] == "<") - (tokens[at] == ">")
        at += 1
        if depth == 0:
            break
    return at


def class_name(statement):
    """Of "struct alignas(64) X final : Y", X; None for a class without a name."""
    i = 1
    while i < len(statement):
        if statement[i] in CLASS_KEYS:
            i += 1
        elif statement[i] in ("alignas", "__attribute__"):
            i = closing(statement, i + 1, "(", ")") + 1
        elif statement[i] == "[[":
            i = statement.index("]]", i) + 1
        else:
            nested = statement[i + 1:i + 2] == ["::"]  # "struct A::B {" defines nothing at namespace scope
            return statement[i] if is_word(statement[i]) and not nested else None
    return None


def declared_by(statement, body):
    """(kind, name) that a statement at namespace scope declares, or None. `body`: it ends with a '{'."""
    while statement[:1] == ["template"]:
        statement = statement[angles_end(statement, 1):]
    while statement[:1] and (statement[0] in ("inline", "static", "extern", "constexpr", "typedef", '""')):
        statement = statement[1:]
    if not statement or "operator" in statement or statement[0] in ("static_assert", "friend"):
        return None
    if statement[0] in CLASS_KEYS:
        name = class_name(statement)
        return ("type", name) if body and name else None
    if statement[0] in ("using", "concept"):
        return ("type", statement[1]) if statement[2:3] == ["="] else None
    i = 0
    while i < len(statement) and statement[i] not in ("(", "=", "["):
        i = angles_end(statement, i) if statement[i] == "<" else i + 1
    if i < 2 or not is_word(statement[i - 1]) or statement[i - 2] == "::":
        return None
    kind = "function" if statement[i:i + 1] == ["("] else "constant"
    return (kind, statement[i - 1])


def declarations(tokens):
    """[(kind, name, namespace)] at namespace scope, the namespace being the innermost one's name."""
    found = []
    inside = []  # open namespaces, "" for an anonymous one or extern "C"
    at = 0
    while at < len(tokens):
        end = statement_end(tokens, at)
        statement = tokens[at:end]
        opens = tokens[end:end + 1] == ["{"]
        at = end + 1
        if tokens[end:end + 1] == ["}"]:
            inside = inside[:-1]
        elif opens and (statement[-1:] == ['""'] or "namespace" in statement[:2]):
            inside.append(statement[-1] if is_word(statement[-1]) and statement[-1] != "namespace" else "")
        else:
            declared = declared_by(statement, opens)
            if declared:
                found.append((*declared, next((name for name in reversed(inside) if name), "")))
            if opens:
                at = closing(tokens, end, "{", "}") + 1
                if declared and declared[0] != "function":
                    at = statement_end(tokens, at) + 1
    return found


def namespaces(tokens):
    """Every name of a namespace that is opened; an alias opens none."""
    names = set()
    for i, token in enumerate(tokens):
        if token != "namespace":
            continue
        end = i + 1
        while end < len(tokens) and (tokens[end] == "::" or is_word(tokens[end])):
            end += 1
        if tokens[end:end + 1] == ["{"]:
            names.update(filter(is_word, tokens[i + 1:end]))
    return names


def own_names(tokens):
    """What a file seems to declare anywhere: classes, aliases, functions, variables, members."""
    own = set()
    for before, token in zip(tokens, tokens[1:]):
        if is_word(token) and (before in (">", "*", "&") or (is_word(before) and before not in NOT_TYPES)):
            own.add(token)
    return own


def types_declared(tokens):
    """Classes (forward ones too), enums and aliases that a file declares, at any depth."""
    own = set()
    for i in range(len(tokens) - 2):
        if tokens[i] in CLASS_KEYS:
            own.add(class_name(tokens[i:i + 12]))
        elif tokens[i] == "using" and tokens[i + 2] == "=":
            own.add(tokens[i + 1])
    return own


def uses(tokens, known, spaces):
    """Names among `known` ({name: (kind, namespace)}) that a file uses and doesn't declare itself. `spaces`: every namespace."""
    own, types, opened = own_names(tokens), types_declared(tokens), namespaces(tokens)
    used = set()
    for i, name in enumerate(tokens):
        if name not in known or name in types:
            continue
        kind, space = known[name]
        before = tokens[i - 1] if i else ""
        qualifier = tokens[i - 2] if before == "::" and i > 1 else None
        if before in (".", "->") or (before == "::" and qualifier not in spaces):
            continue
        if qualifier != space and space not in opened:
            continue
        if kind != "type" and name in own:
            continue
        if kind == "function" and tokens[i + 1:i + 2] != ["("]:
            continue
        used.add(name)
    return used

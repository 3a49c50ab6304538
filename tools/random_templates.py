"""Random small templates for comparing the Jinja interpreter with jinja2; see make_text_goldens.py."""
import random

NAMES = ["s", "e", "u", "n", "neg", "f", "t", "no", "l", "ls", "d", "nested", "empty", "ml", "q", "w", "messages", "zz", "x", "y"]
TEXTS = ["'a'", "'b c'", "''", "' x '", "'Hello'", "'12'", "'3.5'", "'é日'", "'a,b'", "'\\n'", "'role'", "'k'"]
FILTERS = """upper;lower;trim;length;list;first;last;string;int;float;abs;join;join(',');sort;reverse;unique|list;map('upper')|list
map('string')|list;select|list;reject('none')|list;tojson;tojson(indent=2);default('D');default('D', true);capitalize;title
replace('a','b');round;round(1);max;min;sum;dictsort;items|list;batch(2)|list;slice(2)|list;wordcount;indent;e;safe;truncate(5)
center(9);map(attribute='k')|list;selectattr('k')|list;groupby('k');urlencode;count;d;format(1);attr('k');map('length')|list
sort(reverse=true);striptags;selectattr('role','equalto','user')|list""".replace("\n", ";").split(";")
TESTS = """defined;none;string;number;mapping;sequence;iterable;odd;even;true;false;boolean;integer;float;lower;upper;in ['a','b',1]
eq 1;sameas none;divisibleby 2;gt 1;undefined;callable""".replace("\n", ";").split(";")
METHODS = """upper();lower();strip();split();split(',');split('a', 1);replace('a','x');startswith('a');endswith('c');title()
capitalize();find('a');count('a');items();keys();values();get('a');get('k', 0);splitlines();lstrip('a');rstrip();isdigit();index('a')
join(['x','y']);zfill(4);rsplit(' ',1);partition(',');format(1,2);swapcase();center(8,'-');removeprefix('H');isalpha()""".replace("\n", ";").split(";")


class Generator:
    def __init__(self, seed):
        self.random = random.Random(seed)

    def pick(self, items):
        return self.random.choice(items)

    def literal(self):
        return self.pick([str(self.random.randrange(-3, 12)), self.pick(["0.5", "2.0", "1e3", "3"]), self.pick(TEXTS), "true", "false", "none", "[]", "{}"])

    def expression(self, depth):
        if depth <= 0:
            return self.pick([self.literal(), self.pick(NAMES)])
        sub = lambda: self.expression(depth - 1)
        forms = [
            (16, lambda: f"{sub()} {self.pick(['+', '-', '*', '/', '//', '%', '~', '~', '+', '~'])} {sub()}"),
            (8, lambda: f"({sub()} {self.pick(['==', '!=', '<', '>', '<=', '>=', 'in', 'not in'])} {sub()})"),
            (16, lambda: f"{sub()}|{self.pick(FILTERS)}"),
            (6, lambda: f"({sub()} is {self.pick(['', 'not '])}{self.pick(TESTS)})"),
            (8, lambda: f"({sub()}).{self.pick(METHODS)}"),
            (6, lambda: f"({sub()})[{self.pick([sub(), str(self.random.randrange(-3, 4)), repr(self.pick(['k', 'a', 'role']))])}]"),
            (4, lambda: f"{self.pick(NAMES)}[{self.pick(['1:', '::-1', ':2', '-2:', '::2'])}]"),
            (4, lambda: f"({sub()}).{self.pick(['k', 'v', 'a', 'role', 'content', 'b', 'zz'])}"),
            (5, lambda: f"({sub()} if {sub()} else {sub()})"),
            (6, lambda: f"({sub()} {self.pick(['and', 'or'])} {sub()})"),
            (3, lambda: f"(not {sub()})"),
            (2, lambda: f"-{sub()}"),
            (5, lambda: "[" + ", ".join(sub() for _ in range(self.random.randrange(4))) + "]"),
            (3, lambda: "(" + "".join(sub() + ", " for _ in range(self.random.randrange(3))) + ")"),
            (4, lambda: "{" + ", ".join(f"{self.pick(TEXTS)}: {sub()}" for _ in range(self.random.randrange(3))) + "}"),
            (2, lambda: f"range({self.random.randrange(6)})"),
            (2, lambda: f"namespace(k={sub()}).k"),
            (2, lambda: f"dict(a={sub()})"),
            (2, lambda: f"'{self.pick(['%s', '%d', '%5.2f', '%r', '%x', '%-4s|', '%03d'])}' % ({sub()},)"),
        ]
        return self.random.choices([f for _, f in forms], [w for w, _ in forms])[0]()

    def tag(self, words):
        sign = lambda: self.pick(["", "", "", "-", "-", "+"])
        return "{%" + sign() + f" {words} " + sign() + "%}"

    def output(self, depth):
        return "{{" + self.pick(["", "", "-"]) + f" {self.expression(depth)} " + self.pick(["", "", "-"]) + "}}"

    def data(self):
        return "".join(self.pick(["a", "b ", " ", "\n", "  ", "\n\n", "x\n", "\t", "é"]) for _ in range(self.random.randrange(4)))

    def body(self, depth, loop=False):
        return self.data() + "".join(self.statement(depth - 1, loop) + self.data() for _ in range(self.random.randrange(1, 4)))

    def statement(self, depth, loop):
        if depth <= 0:
            return self.output(2)
        maybe = lambda chance, text: text() if self.random.random() < chance else ""
        body = lambda inside=loop: self.body(depth, inside)
        target, items = self.pick([("x", self.expression(1)), ("x", "l"), ("x", "messages"), ("x", "nested"), ("x, y", "d.items()"), ("x, y", "d|dictsort"),
                                   ("x", "range(3)"), ("x", "s"), ("x", "ls if x != 'A'"), ("x", "l if x > 1")])
        forms = [
            (25, lambda: self.output(self.random.randrange(1, 4))),
            (17, lambda: self.tag("if " + self.expression(2)) + body() + maybe(0.3, lambda: self.tag("elif " + self.expression(1)) + body())
             + maybe(0.4, lambda: self.tag("else") + body()) + self.tag("endif")),
            (18, lambda: self.tag(f"for {target} in {items}") + body(True) + maybe(0.3, lambda: self.tag("else") + body()) + self.tag("endfor")),
            (12, lambda: self.tag(f"set {self.pick(['x', 'y', 's', 'n', 'zz'])} = {self.expression(2)}")),
            (4, lambda: self.tag(f"set {self.pick(['x', 'y'])}{self.pick(['', ' | upper', ' | trim'])}") + body() + self.tag("endset")),
            (4, lambda: self.tag("filter " + self.pick(["upper", "trim", "indent(2)", "replace('a','Z')|title"])) + body() + self.tag("endfilter")),
            (4, lambda: self.tag(f"with x = {self.expression(1)}, y = {self.expression(1)}") + body() + self.tag("endwith")),
            (6, lambda: self.tag(f"macro m(x, y={self.literal()})") + body(False) + maybe(0.3, lambda: "{{ caller() if caller }}") + self.tag("endmacro")
             + self.pick(["{{ m(1) }}", "{{ m(" + self.expression(1) + ", " + self.expression(1) + ") }}", self.tag("call m(2)") + body(False) + self.tag("endcall")])),
            (2, lambda: self.tag("set ns = namespace(a=0)") + self.tag("for x in l") + self.tag("set ns.a = ns.a + " + self.expression(1)) + self.tag("endfor") + "{{ ns.a }}"),
            (2, lambda: self.pick(["{#- c #}", "{# c -#}", self.tag("raw") + "{{ x }}" + self.tag("endraw"), self.tag("generation") + body(False) + self.tag("endgeneration")])),
        ]
        if loop:
            forms += [(3, lambda: self.tag("if " + self.expression(1)) + self.tag(self.pick(["break", "continue"])) + self.tag("endif")),
                      (3, lambda: "{{ loop." + self.pick(["index", "index0", "first", "last", "length", "revindex", "previtem", "nextitem", "depth", "cycle(1,2)", "changed(x)"]) + " }}")]
        return self.random.choices([f for _, f in forms], [w for w, _ in forms])[0]()

    def template(self):
        if self.random.random() < 0.5:
            return "{{ " + self.expression(self.random.randrange(1, 5)) + " }}"
        return self.body(self.random.randrange(2, 5))

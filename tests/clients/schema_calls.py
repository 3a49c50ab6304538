"""Answers held to schemas and grammars by a server with a random-weight model: python schema_calls.py URL MODEL"""
import concurrent.futures
import json
import re
import sys
import urllib.error
import urllib.request

import jsonschema

URL, MODEL = sys.argv[1:]
TREE = {"type": "object", "properties": {"v": {"type": "integer", "minimum": -5, "maximum": 5},
                                         "kids": {"type": "array", "items": {"$ref": "#/$defs/tree"}, "maxItems": 2}}, "required": ["v", "kids"]}
SCHEMAS = [
    {"type": "object", "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer", "minimum": 0, "maximum": 130},
                                      "tags": {"type": "array", "items": {"enum": ["a", "b", "c"]}, "minItems": 1, "maxItems": 3}},
     "required": ["name", "age"], "additionalProperties": False},
    {"type": "object", "properties": {"a": {"type": "number"}, "b": {"type": ["string", "null"]}}, "additionalProperties": {"type": "boolean"}},
    {"$ref": "#/$defs/tree", "$defs": {"tree": TREE}},
    {"type": "array", "prefixItems": [{"const": "x\"\\é"}, {"type": "boolean"}], "items": {"type": "null"}, "maxItems": 4},
    {"type": "string", "pattern": "^[A-Z][a-z]{2,5} \\d+(\\.\\d\\d)?$"},
    {"type": "string", "format": "date"},
    {"type": "string", "format": "ipv4"},
    {"type": "string", "format": "email"},
    {"type": "number", "exclusiveMinimum": -0.5, "maximum": 2.25},
    {"oneOf": [{"type": "object", "properties": {"kind": {"const": "cat"}, "lives": {"type": "integer"}}, "required": ["kind", "lives"]},
               {"type": "object", "properties": {"kind": {"const": "dog"}, "good": {"const": True}}, "required": ["kind", "good"]}]},
    {"allOf": [{"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}, {"properties": {"b": {}}, "required": ["b"]}]},
    {"type": "object"},
    {},
]


def post(path, body):
    request = urllib.request.Request(URL + path, json.dumps({"model": MODEL, **body}).encode())
    try:
        with urllib.request.urlopen(request, timeout=300) as answer:
            return [json.loads(line.removeprefix(b"data: ")) for line in answer if line.strip() not in (b"", b"data: [DONE]")]
    except urllib.error.HTTPError as e:
        return [json.load(e)]


def native(schema, number, most=200):
    lines = post("/api/generate", {"prompt": "hello", "raw": True, "format": schema, "stream": number % 2 == 0,
                                   "options": {"seed": number, "temperature": 1.5, "top_k": 0, "top_p": 1, "num_predict": most}})
    return "".join(line.get("response", "") for line in lines), lines[-1].get("done_reason", lines[-1])


def check(schema, number):
    text, reason = native(schema, number)
    if reason not in ("stop", "length"):
        sys.exit(f"{schema}: {reason}")
    value = json.loads(text)
    jsonschema.validate(value, schema, format_checker=jsonschema.FormatChecker())
    json.dumps(value).encode()  # no half of a pair
    return reason


def openai_dialect():
    schema = SCHEMAS[0]
    body = {"messages": [{"role": "user", "content": "hello"}], "temperature": 1.5, "max_tokens": 150, "n": 2,
            "response_format": {"type": "json_schema", "json_schema": {"name": "person", "strict": True, "schema": schema}}}
    whole = post("/v1/chat/completions", body)[0]
    for choice in whole["choices"]:
        jsonschema.validate(json.loads(choice["message"]["content"]), schema)
    objects = post("/v1/chat/completions", {**body, "n": 1, "response_format": {"type": "json_object"}})[0]
    if not isinstance(json.loads(objects["choices"][0]["message"]["content"]), dict):
        sys.exit(f"no object: {objects}")


def others():
    text, reason = native(SCHEMAS[0], 1, most=4)
    if reason != "length":
        sys.exit(f"4 tokens can't hold it: {text} {reason}")
    said = post("/api/generate", {"prompt": "x", "raw": True, "stream": False, "grammar": 'root ::= ("yes" | "no") " "? [0-9]{2}'})[0]
    if not re.fullmatch(r"(yes|no) ?\d\d", said.get("response", "")) or said["done_reason"] != "stop":
        sys.exit(f"GBNF: {said}")
    for refused in ({"not": {}}, {"type": "string", "minLength": 1, "pattern": "a"}, {"$ref": "#"}, "yaml"):
        if "error" not in post("/api/generate", {"prompt": "x", "format": refused})[0]:
            sys.exit(f"{refused} was taken")


with concurrent.futures.ThreadPoolExecutor(4) as several:
    reasons = list(several.map(check, SCHEMAS * 2, range(2 * len(SCHEMAS))))
if "stop" not in reasons:
    sys.exit(f"none ended by itself: {reasons}")
openai_dialect()
others()
print("ok")

#!/usr/bin/env python3
"""Write small request bodies as first inputs of request_fuzz.

usage: make_request_seeds.py DIRECTORY
The first byte chooses the parser (0 generate, 1 chat, 2 OpenAI chat, 3 durations and hosts); standard library only.
"""
import json

from make_gguf_seeds import write

OPTIONS = {"temperature": 0.7, "top_k": 5, "top_p": 0.9, "min_p": 0.1, "typical_p": 0.9, "seed": 3, "num_predict": 9,
           "num_ctx": 512, "stop": ["a", "b"], "repeat_penalty": 1.1, "repeat_last_n": 8, "presence_penalty": 1,
           "frequency_penalty": 1}
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": {"x": 1}}}
TOOL = {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}
MESSAGES = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"},
            {"role": "assistant", "content": "", "thinking": "t", "tool_calls": [CALL]},
            {"role": "tool", "content": "r", "tool_name": "f"}]


def seeds() -> dict:
    generate = {"model": "m", "prompt": "p", "system": "s", "raw": False, "think": "low", "context": [1, 2],
                "stream": False, "keep_alive": "5m", "options": OPTIONS, "format": "", "images": [], "suffix": ""}
    chat = {"model": "m", "messages": MESSAGES, "tools": [TOOL], "think": True, "keep_alive": -1, "options": OPTIONS}
    openai = {"model": "m", "messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}], "tools": [TOOL],
              "tool_choice": "auto", "stream": True, "stream_options": {"include_usage": True}, "max_tokens": 5,
              "temperature": 1, "top_p": 1, "stop": "x", "seed": 1, "n": 1, "response_format": {"type": "text"},
              "max_completion_tokens": 4, "presence_penalty": 0, "frequency_penalty": 0, "logit_bias": {}}
    out = {"generate": b"\0" + json.dumps(generate).encode(), "chat": b"\1" + json.dumps(chat).encode(),
           "openai": b"\2" + json.dumps(openai).encode(), "deep": b"\1" + b"[" * 99,
           "broken": b"\0" + b'{"model": "\xff\xfe"}'}
    for i, text in enumerate(["1h30m", "-1", "250ms", "1.5s", "localhost:80", "[::1]:9", "http://127.0.0.1:3"]):
        out[f"text{i}"] = b"\3" + text.encode()
    return out


if __name__ == "__main__":
    write(seeds())

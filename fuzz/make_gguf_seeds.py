#!/usr/bin/env python3
"""Write small GGUF files as first inputs of gguf_fuzz.

usage: make_gguf_seeds.py DIRECTORY
Every value type, every tensor type, both versions, a split part, odd alignment; standard library only.
"""
import pathlib
import struct
import sys

# Type id: (elements, bytes) of a block.
TYPES = {0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 10: (256, 84),
         11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 20: (32, 18), 23: (256, 136), 30: (1, 2),
         39: (32, 17)}
SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<B", 10: "<Q", 11: "<q", 12: "<d"}


def text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def scalar(key: str, kind: int, value) -> bytes:
    return text(key) + struct.pack("<I", kind) + struct.pack(SCALARS[kind], value)


def string(key: str, value: str) -> bytes:
    return text(key) + struct.pack("<I", 8) + text(value)


def array(key: str, kind: int, values: list) -> bytes:
    head = text(key) + struct.pack("<IIQ", 9, kind, len(values))
    return head + b"".join(text(v) if kind == 8 else struct.pack(SCALARS[kind], v) for v in values)


def model(entries: list, tensors: list, version: int = 3, alignment: int = 32) -> bytes:
    """tensors: (name, dims, type id)"""
    out = struct.pack("<4sIqq", b"GGUF", version, len(tensors), len(entries)) + b"".join(entries)
    offset, data = 0, b""
    for name, dims, kind in tensors:
        block, size = TYPES[kind]
        count = 1
        for d in dims:
            count *= d
        out += text(name) + struct.pack("<I", len(dims)) + b"".join(struct.pack("<q", d) for d in dims)
        out += struct.pack("<iQ", kind, offset)
        blob = bytes((i * 37 + kind) % 251 for i in range(count // block * size))
        blob += b"\0" * (-len(blob) % alignment)
        data += blob
        offset += len(blob)
    return out + b"\0" * (-len(out) % alignment) + data


def seeds() -> dict:
    scalars = [scalar(f"k{kind}", kind, 1) for kind in SCALARS] + [string("general.name", "a model")]
    arrays = [array(f"a{kind}", kind, [1, 0, 1]) for kind in SCALARS] + [array("tokens", 8, ["<s>", "", "\u2581the"])]
    llama = [string("general.architecture", "llama"), scalar("llama.block_count", 4, 1),
             scalar("llama.embedding_length", 4, 32), scalar("llama.attention.head_count", 4, 2),
             scalar("llama.rope.freq_base", 6, 1e4), scalar("general.file_type", 4, 15)]
    layer = [("token_embd.weight", [32, 4], 8), ("blk.0.attn_norm.weight", [32], 0), ("blk.0.attn_q.weight", [32, 4], 2)]
    return {
        "empty": model([], []), "scalars": model(scalars, []), "arrays": model(arrays, []),
        "version2": model(scalars, [("w", [4], 0)], version=2), "layer": model(llama, layer),
        "align64": model([scalar("general.alignment", 4, 64)], [("a", [3], 0), ("b", [2, 2], 1)], alignment=64),
        "split": model([scalar("split.no", 2, 0), scalar("split.count", 2, 2)], [("a", [3], 0)]),
        **{f"type{kind}": model([], [("w", [TYPES[kind][0], 1, 1, 2], kind)]) for kind in TYPES},
    }


def write(files: dict) -> None:
    """{name: bytes} into the directory that the command line names."""
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)


if __name__ == "__main__":
    write(seeds())

#!/usr/bin/env python3
"""Write the golden files of tests/data/quant: random blocks of every type and the floats they stand for.

usage: make_quant_goldens.py [DIRECTORY]      needs numpy and the Python package gguf (0.19.0 made the committed ones)
TYPE.blocks holds the raw blocks, TYPE.f32 the floats as that package's own definition decodes them.
"""
import pathlib
import sys

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType as Type
from gguf.quants import dequantize

# Byte offsets of the halves in a block; everything else may hold any bits.
HALVES = {
    "F16": [0], "BF16": [], "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0],
    "Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208], "IQ4_NL": [0], "IQ4_XS": [0],
    "MXFP4": [],
}
SCALES = [0.0, 2**-24, -(2**-24), 6e-5, 1.0, -0.0371, 0.333, 65504.0]  # zero, subnormals, usual, largest


def blocks_of(name: str, rng: np.random.Generator) -> np.ndarray:
    elements, size = GGML_QUANT_SIZES[Type[name]]
    count = 2048 if elements == 1 else 24 if elements == 32 else 8
    raw = rng.integers(0, 256, (count, size), np.uint8)
    for offset in HALVES[name]:
        scales = np.array([SCALES[i % len(SCALES)] for i in range(count)])
        scales[len(SCALES):] *= rng.uniform(0.1, 1, max(0, count - len(SCALES)))
        if offset == 2 or offset == 82:  # minimums in another order
            scales = scales[::-1]
        raw[:, offset:offset + 2] = scales.astype(np.float16).reshape(-1, 1).view(np.uint8)
    if name == "BF16":  # finite numbers only
        raw[:, 1] &= 0xBF
    if name == "MXFP4":
        raw[:, 0] = np.resize([0, 1, 2, 127, 128, 200, 252], count)
    return raw.reshape(-1)


def main() -> None:
    out = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parents[1] / "tests/data/quant")
    out.mkdir(parents=True, exist_ok=True)
    rng = np.random.Generator(np.random.PCG64(20))
    for name in HALVES:
        raw = blocks_of(name, rng)
        with np.errstate(all="ignore"):
            floats = dequantize(raw, Type[name]).astype("<f4")
        assert np.isfinite(floats).all(), name
        (out / f"{name}.blocks").write_bytes(raw.tobytes())
        (out / f"{name}.f32").write_bytes(floats.tobytes())


main()

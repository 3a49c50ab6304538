#!/usr/bin/env python3
"""The judge: a float32 forward pass over exactly dequantised GGUF weights, in numpy.

Written from the definitions of the file format and of the architectures, to be read next to them; slow and plain on
purpose. It imports no engine: numpy is all it needs. What it computes is what Steelyard is measured against.

  reference.py MODEL --tokens-file ids.txt --perplexity
  reference.py MODEL --text FILE --steelyard build/release/steelyard --tokens 1000 --save-logits judge.npy
  reference.py MODEL --tokens-file ids.txt --against other.npy        KL(judge || other), top-1 agreement
  reference.py --compare judge.npy other.npy                          the same of two saved files, no model needed

Logits are float32 [N, vocabulary]; row i follows token i. One sequence, BOS as the ids have it.
Architectures: llama (with experts too), qwen2, qwen3, qwen3moe, phi3, gemma2, gemma3, gpt-oss, granite, granitemoe,
smollm3, glm4, glm4moe, mistral3.
"""
import argparse
import os
import struct
import subprocess
import sys
import tempfile

import numpy as np

# ---------------------------------------------------------------- block formats

IQ4 = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.float32)
FP4_DOUBLED = np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12], np.float32)


def f16(b):
    """Two bytes a row -> float32 column."""
    return np.ascontiguousarray(b).view(np.float16).astype(np.float32)


def nibbles(qs):
    """[n, 16 k] bytes -> [n, k, 2, 16]: low nibbles are the first half of each 32, high ones the second."""
    q = qs.reshape(len(qs), -1, 16)
    return np.stack([q & 15, q >> 4], 2)


def deq_q4_0(b):
    return f16(b[:, :2]) * (nibbles(b[:, 2:]).reshape(-1, 32).astype(np.float32) - 8)


def deq_q4_1(b):
    return f16(b[:, :2]) * nibbles(b[:, 4:]).reshape(-1, 32).astype(np.float32) + f16(b[:, 2:4])


def fifth_bits(b):
    """4 bytes a row -> [n, 32]: 16 where bit i is set."""
    return np.unpackbits(np.ascontiguousarray(b), axis=1, bitorder="little") << 4


def deq_q5_0(b):
    q = nibbles(b[:, 6:]).reshape(-1, 32) | fifth_bits(b[:, 2:6])
    return f16(b[:, :2]) * (q.astype(np.float32) - 16)


def deq_q5_1(b):
    q = nibbles(b[:, 8:]).reshape(-1, 32) | fifth_bits(b[:, 4:8])
    return f16(b[:, :2]) * q.astype(np.float32) + f16(b[:, 2:4])


def deq_q8_0(b):
    return f16(b[:, :2]) * np.ascontiguousarray(b[:, 2:]).view(np.int8).astype(np.float32)


def deq_q2_k(b):
    scales, d, dmin = b[:, :16], f16(b[:, 80:82]), f16(b[:, 82:84])
    # 64 bytes = 2 halves of 32 bytes; in each, four 2-bit planes of 32 weights
    planes = [(b[:, 16:80].reshape(-1, 2, 1, 32) >> s) & 3 for s in (0, 2, 4, 6)]
    q = np.concatenate(planes, 2).reshape(-1, 16, 16).astype(np.float32)
    sc = (d * (scales & 15))[:, :, None]
    mn = (dmin * (scales >> 4))[:, :, None]
    return (sc * q - mn).reshape(-1, 256)


def deq_q3_k(b):
    hmask, qs, sc, d = b[:, :32], b[:, 32:96], b[:, 96:108], f16(b[:, 108:110])
    low = np.concatenate([sc[:, :8] & 15, sc[:, :8] >> 4], 1)
    high = np.concatenate([(sc[:, 8:12] >> s) & 3 for s in (0, 2, 4, 6)], 1)
    scale = d * ((low | high << 4).astype(np.float32) - 32)
    q = np.concatenate([(qs.reshape(-1, 2, 1, 32) >> s) & 3 for s in (0, 2, 4, 6)], 2).reshape(-1, 8, 32)
    bit = np.stack([(hmask >> s) & 1 for s in range(8)], 1)  # a clear bit subtracts 4
    w = q.astype(np.float32) - 4 * (1 - bit.astype(np.float32))
    return (w.reshape(-1, 16, 16) * scale[:, :, None]).reshape(-1, 256)


def scales_mins_6bit(s):
    """12 bytes -> eight 6-bit scales and eight 6-bit minimums; entries 4-7 have their top bits in bytes 0-7."""
    a, m, c = s[:, 0:4], s[:, 4:8], s[:, 8:12]
    scale = np.concatenate([a & 63, (c & 15) | (a >> 6 << 4)], 1)
    minimum = np.concatenate([m & 63, (c >> 4) | (m >> 6 << 4)], 1)
    return scale.astype(np.float32), minimum.astype(np.float32)


def deq_q4_k(b):
    scale, minimum = scales_mins_6bit(b[:, 4:16])
    q = b[:, 16:].reshape(-1, 4, 1, 32)
    q = np.concatenate([q & 15, q >> 4], 2).reshape(-1, 8, 32).astype(np.float32)
    return ((f16(b[:, :2]) * scale)[:, :, None] * q - (f16(b[:, 2:4]) * minimum)[:, :, None]).reshape(-1, 256)


def deq_q5_k(b):
    scale, minimum = scales_mins_6bit(b[:, 4:16])
    q = b[:, 48:].reshape(-1, 4, 1, 32)
    q = np.concatenate([q & 15, q >> 4], 2).reshape(-1, 8, 32)
    high = np.stack([(b[:, 16:48] >> s) & 1 for s in range(8)], 1) << 4
    q = (q | high).astype(np.float32)
    return ((f16(b[:, :2]) * scale)[:, :, None] * q - (f16(b[:, 2:4]) * minimum)[:, :, None]).reshape(-1, 256)


def deq_q6_k(b):
    ql, qh = b[:, :128].reshape(-1, 2, 64), b[:, 128:192].reshape(-1, 2, 32)
    scale = f16(b[:, 208:210]) * np.ascontiguousarray(b[:, 192:208]).view(np.int8).astype(np.float32)
    low = np.stack([ql[:, :, :32] & 15, ql[:, :, 32:] & 15, ql[:, :, :32] >> 4, ql[:, :, 32:] >> 4], 2)
    high = np.stack([(qh >> s) & 3 for s in (0, 2, 4, 6)], 2) << 4
    q = (low | high).reshape(-1, 16, 16).astype(np.float32) - 32
    return (q * scale[:, :, None]).reshape(-1, 256)


def deq_iq4_nl(b):
    return f16(b[:, :2]) * IQ4[nibbles(b[:, 2:])].reshape(-1, 32)


def deq_iq4_xs(b):
    high = np.ascontiguousarray(b[:, 2:4]).view(np.uint16).astype(np.int32)
    i = np.arange(8)
    low = (b[:, 4:8][:, i // 2] >> (4 * (i % 2)).astype(np.uint8)) & 15
    scale = f16(b[:, :2]) * ((low | ((high >> 2 * i) & 3) << 4).astype(np.float32) - 32)
    return (IQ4[nibbles(b[:, 8:])].reshape(-1, 8, 32) * scale[:, :, None]).reshape(-1, 256)


def deq_mxfp4(b):
    scale = np.ldexp(np.float32(1), b[:, :1].astype(np.int32) - 128).astype(np.float32)
    return scale * FP4_DOUBLED[nibbles(b[:, 1:])].reshape(-1, 32)


def deq_bf16(b):
    return (np.ascontiguousarray(b).view(np.uint16).astype(np.uint32) << 16).view(np.float32)


# type id: (name, weights a block, bytes a block, decoder of a [blocks, bytes] array)
TYPES = {
    0: ("F32", 1, 4, lambda b: np.ascontiguousarray(b).view(np.float32)),
    1: ("F16", 1, 2, f16),
    2: ("Q4_0", 32, 18, deq_q4_0),
    3: ("Q4_1", 32, 20, deq_q4_1),
    6: ("Q5_0", 32, 22, deq_q5_0),
    7: ("Q5_1", 32, 24, deq_q5_1),
    8: ("Q8_0", 32, 34, deq_q8_0),
    10: ("Q2_K", 256, 84, deq_q2_k),
    11: ("Q3_K", 256, 110, deq_q3_k),
    12: ("Q4_K", 256, 144, deq_q4_k),
    13: ("Q5_K", 256, 176, deq_q5_k),
    14: ("Q6_K", 256, 210, deq_q6_k),
    20: ("IQ4_NL", 32, 18, deq_iq4_nl),
    23: ("IQ4_XS", 256, 136, deq_iq4_xs),
    30: ("BF16", 1, 2, deq_bf16),
    39: ("MXFP4", 32, 17, deq_mxfp4),
}

# ---------------------------------------------------------------- the file


class Gguf:
    """Key-values and tensors of a single-file GGUF v2 or v3. tensor(name) is float32, rows first."""

    SCALARS = dict(enumerate(["<B", "<b", "<H", "<h", "<I", "<i", "<f", "<?", None, None, "<Q", "<q", "<d"]))

    def __init__(self, path):
        self.data = np.memmap(path, np.uint8, "r")
        self.at = 0
        magic, version = self.take("<I"), self.take("<I")
        if magic != 0x46554747 or version not in (2, 3):
            raise SystemExit(f"{path}: not a GGUF version 2 or 3 file")
        tensors, pairs = self.take("<q"), self.take("<q")
        self.kv = {}
        for _ in range(pairs):
            key = self.string()
            self.kv[key] = self.value(self.take("<I"))
        self.tensors = {}
        for _ in range(tensors):
            name = self.string()
            dims = [self.take("<q") for _ in range(self.take("<I"))]
            self.tensors[name] = (dims, self.take("<I"), self.take("<Q"))
        align = self.kv.get("general.alignment", 32)
        self.base = (self.at + align - 1) // align * align

    def take(self, fmt):
        n = struct.calcsize(fmt)
        (v,) = struct.unpack(fmt, self.data[self.at : self.at + n].tobytes())
        self.at += n
        return v

    def string(self):
        n = self.take("<Q")
        s = self.data[self.at : self.at + n].tobytes()
        self.at += n
        return s.decode("utf-8", "replace")

    def value(self, kind):
        if kind == 8:
            return self.string()
        if kind != 9:
            return self.take(self.SCALARS[kind])
        inner, count = self.take("<I"), self.take("<Q")
        if inner in (8, 9):
            return [self.value(inner) for _ in range(count)]
        dtype = np.dtype(self.SCALARS[inner].replace("?", "b1"))
        out = np.frombuffer(self.data, dtype, count, self.at).tolist()
        self.at += count * dtype.itemsize
        return out

    def rows(self, name):
        return int(np.prod(self.tensors[name][0][1:], dtype=np.int64))

    def tensor(self, name, first=0, last=None):
        """Rows first..last of a tensor, decoded; 1-D tensors come as [n]."""
        dims, kind, offset = self.tensors[name]
        if kind not in TYPES:
            raise SystemExit(f"{name}: tensor type {kind} is not known here")
        _, block, size, decode = TYPES[kind]
        row_bytes = dims[0] // block * size
        last = self.rows(name) if last is None else last
        start = self.base + offset
        raw = np.asarray(self.data[start + first * row_bytes : start + last * row_bytes]).reshape(-1, size)
        out = decode(raw)
        return out.reshape(dims[0]) if len(dims) == 1 else out.reshape(last - first, dims[0])


# ---------------------------------------------------------------- the model


class Config:
    """Architecture as data, from the file's key-values."""

    def __init__(self, gguf):
        kv, self.arch = gguf.kv, gguf.kv["general.architecture"]
        known = "llama mistral3 qwen2 qwen3 qwen3moe phi3 gemma2 gemma3 gpt-oss granite granitemoe smollm3 glm4 glm4moe"
        if self.arch not in known.split():
            raise SystemExit(f"architecture {self.arch} is not known here")

        def get(key, default=None):
            return kv.get(f"{self.arch}.{key}", default)

        a = self.arch
        self.layers = get("block_count")
        self.width = get("embedding_length")
        self.heads = get("attention.head_count")
        self.kv_heads = get("attention.head_count_kv", self.heads)
        self.head_dim = get("attention.key_length", self.width // self.heads)
        self.value_dim = get("attention.value_length", self.head_dim)
        self.eps = get("attention.layer_norm_rms_epsilon")
        self.rope_dims = get("rope.dimension_count", self.head_dim)
        self.rope_base = get("rope.freq_base", 10000.0)
        self.rope_pairs = a in ("llama", "granite", "granitemoe", "smollm3", "glm4", "mistral3")  # adjacent elements turn together; elsewhere i and i + dims/2
        kind = get("rope.scaling.type", "none")
        if kind not in ("none", "linear", "longrope", "yarn"):
            raise SystemExit(f"RoPE scaling {kind} is not known here")
        self.rope_scale = 1 / get("rope.scaling.factor", 1.0) if kind == "linear" else 1.0
        trained = get("context_length", 0)
        self.rope_original = get("rope.scaling.original_context_length", trained)
        self.rope_magnitude = 1.0
        if "rope_factors_long.weight" in gguf.tensors:  # LongRoPE, arXiv:2402.13753
            ratio = trained / self.rope_original
            stretch = (1 + np.log(ratio) / np.log(self.rope_original)) ** 0.5 if ratio > 1 else 1.0
            self.rope_magnitude = get("rope.scaling.attn_factor", stretch)
        self.yarn = None
        if kind == "yarn":  # arXiv:2309.00071
            factor = get("rope.scaling.factor")
            turns = get("rope.scaling.yarn_beta_fast", 32.0), get("rope.scaling.yarn_beta_slow", 1.0)
            ends = [self.rope_dims * np.log(self.rope_original / (t * 2 * np.pi)) / (2 * np.log(self.rope_base)) for t in turns]
            if a != "gpt-oss":
                ends = [np.floor(ends[0]), np.ceil(ends[1])]
            ends = np.clip(ends, 0, self.rope_dims - 1)
            self.yarn = factor, ends[0], max(ends[1], ends[0] + 0.001)
            self.rope_magnitude = (1 + 0.1 * np.log(factor)) * get("rope.scaling.attn_factor", 1.0)
            self.rope_magnitude /= 1 + 0.1 * np.log(factor) * get("rope.scaling.yarn_log_multiplier", 0.0)
        self.experts, self.used = get("expert_count", 0), get("expert_used_count", 0)
        self.chosen_first = a in ("gpt-oss", "granitemoe")  # the softmax is that of the chosen experts
        self.temperature = get("attention.temperature_scale", 0.0)  # grows with every original context passed
        self.sigmoid = a == "glm4moe"
        self.expert_scale = get("expert_weights_scale", 1.0)
        self.dense = get("leading_dense_block_count", 0)
        self.layers -= get("nextn_predict_layers", 0)
        self.branch_scale = get("residual_scale", 1.0)
        self.logit_scale = get("logit_scale", 1.0)
        self.gemma = a in ("gemma2", "gemma3")
        self.post_norms = self.gemma or a == "glm4"
        self.embedding_scale = float(np.float32(self.width**0.5)) if self.gemma else get("embedding_scale", 1.0)
        # Gemma 2 and 3 27B scale by the width per head instead of the head's own dimension
        wide = (a == "gemma2" and self.layers == 46) or (a == "gemma3" and self.layers == 62)
        self.scale = get("attention.scale", (self.width / self.heads if wide else self.head_dim) ** -0.5)
        self.attention_cap = get("attn_logit_softcapping", 50.0) if a == "gemma2" else 0
        self.final_cap = get("final_logit_softcapping", 30.0 if a == "gemma2" else 0)
        self.window = get("attention.sliding_window", 0)
        self.local_base = get("rope.local.freq_base", 10000.0)

    def is_local(self, layer):
        """Does this layer see only the last `window` positions (if the file names a window)?"""
        if self.arch in ("gemma2", "gpt-oss"):
            return layer % 2 == 0
        if self.arch == "gemma3":
            return layer % 6 < 5
        return self.arch == "phi3"  # all layers


def rms_norm(x, weight, eps):
    return x / np.sqrt(np.mean(x * x, -1, keepdims=True) + x.dtype.type(eps)) * weight


def silu(x):
    with np.errstate(over="ignore"):  # exp may overflow to infinity; x / infinity is the right 0
        return x / (1 + np.exp(-x))


def gelu_tanh(x):
    return 0.5 * x * (1 + np.tanh(x.dtype.type((2 / np.pi) ** 0.5) * (x + x.dtype.type(0.044715) * x * x * x)))


class Model:
    def __init__(self, path, dtype=np.float32, dump=None, cache=False):
        self.gguf, self.dtype, self.dump = Gguf(path), np.dtype(dtype), dump
        self.config = Config(self.gguf)
        self.cached = {} if cache else None
        self.head_name = "output.weight" if "output.weight" in self.gguf.tensors else "token_embd.weight"
        self.vocabulary = self.gguf.rows("token_embd.weight")

    # -- weights

    def has(self, name):
        return name in self.gguf.tensors

    def weight(self, name):
        if self.cached is not None and name in self.cached:
            return self.cached[name]
        w = self.gguf.tensor(name).astype(self.dtype, copy=False)
        if self.cached is not None:
            self.cached[name] = w
        return w

    # -- what a simulation of another arithmetic overrides

    def product(self, x, w, name):
        """x [rows, in] times the matrix `name` w [out, in] -> [rows, out]."""
        return x @ w.T

    def state(self, x, which):
        """K or V as kept for later positions."""
        return x

    # -- parts

    def trace(self, layer, name, value):
        if self.dump:
            where = f"layer{layer:02d}." if layer is not None else ""
            np.save(os.path.join(self.dump, f"{where}{name}.npy"), value.astype(np.float32))

    def linear(self, x, prefix):
        y = self.product(x, self.weight(prefix + ".weight"), prefix)
        return y + self.weight(prefix + ".bias") if self.has(prefix + ".bias") else y

    def norm(self, x, name):
        return rms_norm(x, self.weight(name + ".weight"), self.config.eps)

    def rope_table(self, n, layer, context):
        """cos and sin [n, dims/2] of this layer."""
        c, half = self.config, self.config.rope_dims // 2
        local = c.arch == "gemma3" and c.is_local(layer)
        base, scale = (c.local_base, 1.0) if local else (c.rope_base, c.rope_scale)
        freq = float(base) ** (-np.arange(half) * 2.0 / c.rope_dims) * scale
        kind = "rope_factors_long.weight" if context > c.rope_original else "rope_factors_short.weight"
        if c.yarn:
            factor, begin, end = c.yarn
            ramp = np.clip((np.arange(half) - begin) / (end - begin), 0, 1)
            freq = freq * (1 - ramp) + freq / factor * ramp
        for name in ("rope_freqs.weight", kind):
            if self.has(name):
                freq = freq / self.gguf.tensor(name).astype(np.float64)
        angle = np.arange(n)[:, None] * freq
        m = c.rope_magnitude
        return (np.cos(angle) * m).astype(self.dtype), (np.sin(angle) * m).astype(self.dtype)

    def rope(self, x, table):
        """x [n, heads, head_dim], turned in place by position."""
        cos, sin = table[0][:, None], table[1][:, None]
        d = self.config.rope_dims
        if self.config.rope_pairs:
            first, second = slice(0, d, 2), slice(1, d, 2)
        else:
            first, second = slice(0, d // 2), slice(d // 2, d)
        a, b = x[..., first].copy(), x[..., second].copy()
        x[..., first] = a * cos - b * sin
        x[..., second] = a * sin + b * cos
        return x

    def qkv(self, x, p):
        c, n = self.config, len(x)
        if self.has(p + "attn_qkv.weight"):
            kv = c.kv_heads * c.head_dim
            q, k, v = np.split(self.linear(x, p + "attn_qkv"), [c.heads * c.head_dim, c.heads * c.head_dim + kv], 1)
        else:
            q, k, v = (self.linear(x, p + "attn_" + r) for r in "qkv")
        q, k = q.reshape(n, c.heads, c.head_dim), k.reshape(n, c.kv_heads, c.head_dim)
        if self.has(p + "attn_q_norm.weight"):
            q, k = self.norm(q, p + "attn_q_norm"), self.norm(k, p + "attn_k_norm")
        return q, k, v.reshape(n, c.kv_heads, c.value_dim)

    def attention(self, q, k, v, layer):
        """Causal, grouped, windowed; -> [n, heads * value_dim]."""
        c, n = self.config, len(q)
        k, v = self.state(k, "k"), self.state(v, "v")
        group = c.heads // c.kv_heads
        sinks = f"blk.{layer}.attn_sinks.weight"
        sinks = self.weight(sinks) if self.has(sinks) else None
        out = np.empty((n, c.heads, c.value_dim), self.dtype)
        step = 512
        for at in range(0, n, step):
            end = min(at + step, n)
            behind = np.arange(at, end)[:, None] - np.arange(end)[None, :]
            hidden = behind < 0
            if c.window and c.is_local(layer):
                hidden |= behind >= c.window
            for h in range(c.heads):
                s = (q[at:end, h] @ k[:end, h // group].T) * self.dtype.type(c.scale)
                if c.attention_cap:
                    s = np.tanh(s / self.dtype.type(c.attention_cap)) * self.dtype.type(c.attention_cap)
                s[hidden] = -np.inf
                top = s.max(1, keepdims=True)
                if sinks is not None:
                    top = np.maximum(top, sinks[h])
                s = np.exp(s - top)
                total = s.sum(1, keepdims=True)
                if sinks is not None:
                    total = total + np.exp(sinks[h] - top)
                out[at:end, h] = (s / total) @ v[:end, h // group]
        return out.reshape(n, -1)

    def feed_forward(self, x, p):
        if self.has(p + "ffn_gate.weight"):
            gate, up = self.linear(x, p + "ffn_gate"), self.linear(x, p + "ffn_up")
        else:  # phi3, glm4: one matrix, gate rows first
            gate, up = np.split(self.linear(x, p + "ffn_up"), 2, 1)
        return self.linear((gelu_tanh(gate) if self.config.gemma else silu(gate)) * up, p + "ffn_down")

    def expert_weight(self, name, e):
        """Rows of one of the experts that lie one behind another in a tensor."""
        w, n = self.weight(name), self.config.experts
        return w.reshape(n, -1, w.shape[-1])[e]

    def expert(self, x, p, e):
        def linear(x, kind):
            y = self.product(x, self.expert_weight(f"{p}ffn_{kind}_exps.weight", e), f"{p}ffn_{kind}_exps")
            bias = f"{p}ffn_{kind}_exps.bias"
            return y + self.weight(bias).reshape(self.config.experts, -1)[e] if self.has(bias) else y

        gate, up = linear(x, "gate"), linear(x, "up")
        if self.config.arch == "gpt-oss":
            gate, up = np.minimum(gate, 7), np.clip(up, -7, 7)
            return linear(gate / (1 + np.exp(-1.702 * gate)) * (up + 1), "down")
        return linear(silu(gate) * up, "down")

    def mixture(self, x, p):
        c = self.config
        scores = self.linear(x, p + "ffn_gate_inp")
        if c.sigmoid:
            scores = 1 / (1 + np.exp(-scores))
        elif not c.chosen_first:
            scores = np.exp(scores - scores.max(1, keepdims=True))
        marks = scores + self.weight(p + "exp_probs_b.bias") if self.has(p + "exp_probs_b.bias") else scores
        chosen = np.argsort(-marks, 1, kind="stable")[:, : c.used]
        weights = np.take_along_axis(scores, chosen, 1)
        if c.chosen_first:
            weights = np.exp(weights - weights.max(1, keepdims=True))
        weights = weights / weights.sum(1, keepdims=True) * self.dtype.type(c.expert_scale)
        out = np.zeros_like(x)
        if self.has(p + "ffn_gate_shexp.weight"):
            gate, up = self.linear(x, p + "ffn_gate_shexp"), self.linear(x, p + "ffn_up_shexp")
            out = self.linear(silu(gate) * up, p + "ffn_down_shexp")
        for e in range(c.experts):
            row, place = np.nonzero(chosen == e)
            if len(row):
                out[row] += weights[row, place][:, None] * self.expert(x[row], p, e)
        return out

    def layer(self, x, i, context):
        p, c = f"blk.{i}.", self.config
        q, k, v = self.qkv(self.norm(x, p + "attn_norm"), p)
        if not (c.arch == "smollm3" and i % 4 == 3):
            table = self.rope_table(len(x), i, context)
            q, k = self.rope(q, table), self.rope(k, table)
        if c.temperature:
            passed = np.arange(len(x)) // c.rope_original
            q = q * (1 + c.temperature * np.log(1 + passed))[:, None, None].astype(self.dtype)
        for name, value in (("q", q), ("k", k), ("v", v)):
            self.trace(i, name, value)
        a = self.attention(q, k, v, i)
        self.trace(i, "attention", a)
        a = self.linear(a, p + "attn_output")
        scale = self.dtype.type(c.branch_scale)
        x = x + (self.norm(a, p + "post_attention_norm") if c.post_norms else a) * scale
        self.trace(i, "after_attention", x)
        norm = "ffn_norm" if self.has(p + "ffn_norm.weight") else "post_attention_norm"
        f = (self.mixture if c.experts and i >= c.dense else self.feed_forward)(self.norm(x, p + norm), p)
        x = x + (self.norm(f, p + "post_ffw_norm") if c.post_norms else f) * scale
        self.trace(i, "after_ffn", x)
        return x

    def hidden(self, tokens, context=None):
        """Final normalised activations [n, width]. `context` decides phi3's long or short factors; default: n."""
        c = self.config
        if max(tokens) >= self.vocabulary or min(tokens) < 0:
            raise SystemExit("a token id is outside the vocabulary")
        x = np.concatenate([self.gguf.tensor("token_embd.weight", t, t + 1) for t in tokens]).astype(self.dtype)
        x = x * self.dtype.type(c.embedding_scale)
        self.trace(None, "embedding", x)
        for i in range(c.layers):
            x = self.layer(x, i, context or len(tokens))
        x = self.norm(x, "output_norm")
        self.trace(None, "final_norm", x)
        return x

    def head(self, x, out):
        """Fills out [n, vocabulary] (a mapped file, say) a block of vocabulary rows at a time."""
        step = 16384
        for at in range(0, self.vocabulary, step):
            end = min(at + step, self.vocabulary)
            w = self.gguf.tensor(self.head_name, at, end).astype(self.dtype, copy=False)
            y = self.product(x, w, "head")
            if self.has("output.bias"):
                y = y + self.weight("output.bias")[at:end]
            if self.config.logit_scale != 1:
                y = y / self.dtype.type(self.config.logit_scale)
            if self.config.final_cap:
                cap = self.dtype.type(self.config.final_cap)
                y = np.tanh(y / cap) * cap
            out[:, at:end] = y

    def logits(self, tokens, out=None, context=None):
        if out is None:
            out = np.empty((len(tokens), self.vocabulary), np.float32)
        self.head(self.hidden(tokens, context), out)
        return out


# ---------------------------------------------------------------- measures


def log_softmax(x):
    x = x.astype(np.float64)
    x -= x.max(1, keepdims=True)
    return x - np.log(np.exp(x).sum(1, keepdims=True))


def perplexity(logits, tokens):
    """exp of the mean negative log-likelihood of tokens 1..N-1, each given all before it."""
    total = 0.0
    for at in range(0, len(tokens) - 1, 16):
        end = min(at + 16, len(tokens) - 1)
        total -= log_softmax(logits[at:end])[np.arange(end - at), tokens[at + 1 : end + 1]].sum()
    return float(np.exp(total / (len(tokens) - 1)))


def compare(judge, other):
    """KL(judge || other) in nat per row, and how often the top token is the same."""
    if judge.shape != other.shape:
        raise SystemExit(f"shapes differ: {judge.shape} and {other.shape}")
    kl, same = [], 0
    for at in range(0, len(judge), 16):
        p, q = log_softmax(judge[at : at + 16]), log_softmax(other[at : at + 16])
        kl.append((np.exp(p) * (p - q)).sum(1))
        same += int((p.argmax(1) == q.argmax(1)).sum())
    kl = np.concatenate(kl)
    return {
        "mean_kl": float(kl.mean()),
        "p99_kl": float(np.quantile(kl, 0.99)),
        "max_kl": float(kl.max()),
        "top1": same / len(judge),
    }


def show(result):
    return "mean KL {mean_kl:.3e}  p99 {p99_kl:.3e}  max {max_kl:.3e}  top-1 {top1:.2%}".format(**result)


# ---------------------------------------------------------------- command line


def read_tokens(args):
    if args.tokens_file:
        ids = [int(t) for t in open(args.tokens_file).read().replace(",", " ").split()]
    elif args.text:
        command = [args.steelyard, "tokenize", args.model, args.text, "--bos"]
        out = subprocess.run(command, check=True, capture_output=True, text=True)
        ids = [int(t) for t in out.stdout.replace(",", " ").split()]
    else:
        raise SystemExit("give --tokens-file or --text")
    return ids[: args.tokens] if args.tokens else ids


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("model", nargs="?", help="GGUF file")
    a.add_argument("--tokens-file", help="ids, separated by spaces, commas or lines")
    a.add_argument("--text", help="text file, tokenised by `steelyard tokenize`")
    a.add_argument("--steelyard", default="build/release/steelyard", help="the steelyard binary for --text")
    a.add_argument("--tokens", type=int, help="use the first N tokens only")
    a.add_argument("--context", type=int, help="planned context, which selects phi3's RoPE factors (default: the tokens)")
    a.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    a.add_argument("--save-logits", metavar="F.npy")
    a.add_argument("--against", metavar="F.npy", help="another's logits, to be judged")
    a.add_argument("--perplexity", action="store_true")
    a.add_argument("--dump-activations", metavar="DIR", help="save every named activation of every layer")
    a.add_argument("--compare", nargs=2, metavar=("JUDGE.npy", "OTHER.npy"), help="only compare two saved files")
    args = a.parse_args()
    if args.compare:
        print(show(compare(*(np.load(f, mmap_mode="r") for f in args.compare))))
        return
    if not args.model:
        a.error("MODEL is missing")
    tokens = read_tokens(args)
    if args.dump_activations:
        os.makedirs(args.dump_activations, exist_ok=True)
    model = Model(args.model, args.dtype, args.dump_activations)
    with tempfile.TemporaryDirectory() as scratch:
        target = args.save_logits or os.path.join(scratch, "logits.npy")
        shape = (len(tokens), model.vocabulary)
        out = np.lib.format.open_memmap(target, "w+", np.float32, shape)
        model.logits(tokens, out, args.context)
        print(f"{model.config.arch}: {shape[0]} tokens, vocabulary {shape[1]}")
        if args.perplexity:
            print(f"perplexity {perplexity(out, tokens):.4f}")
        if args.against:
            print(show(compare(out, np.load(args.against, mmap_mode="r")[: len(tokens)])))
        out.flush()
        del out


if __name__ == "__main__":
    sys.exit(main())

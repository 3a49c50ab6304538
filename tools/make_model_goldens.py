#!/usr/bin/env python3
"""Makes tests/data/models: small random models of each architecture with logits of an independent implementation, and
small golden parts of the real models. See tests/data/models/README.md for the formats.

  make_model_goldens.py tiny [OUT [NAME...]]       needs torch and transformers (a virtual environment of its own)
  make_model_goldens.py real NAME MODEL IDS [OUT]  needs numpy only: the judge's log-probabilities on the first ids

The tiny models' weights are drawn, rounded to the type they are stored in, and given in that rounded form to Hugging
Face's transformers (float64 on the CPU), whose logits are the goldens. Neither Steelyard nor tools/reference.py has a part in it.
"""
import os
import struct
import sys

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
DATA = os.path.join(HERE, "..", "tests", "data", "models")
VOCAB, TOKENS = 256, 48
F32, F16, Q8_0, MXFP4 = 0, 1, 8, 39

# ---------------------------------------------------------------- storage types and the file


def encode(kind, w):
    """w float32 [rows, columns] -> (bytes as stored, the values those bytes stand for)."""
    if kind == F32:
        return w.tobytes(), w
    if kind == F16:
        h = w.astype(np.float16)
        return h.tobytes(), h.astype(np.float32)
    blocks = w.reshape(-1, 32)
    if kind == MXFP4:
        return encode_mxfp4(w, blocks)
    d = (np.abs(blocks).max(1, keepdims=True) / 127).astype(np.float16)
    scale = d.astype(np.float32)
    q = np.clip(np.rint(blocks / np.where(scale > 0, scale, 1)), -127, 127).astype(np.int8)
    stored = np.concatenate([d.view(np.uint8).reshape(-1, 2), q.view(np.uint8)], 1)
    return stored.tobytes(), (q * scale).reshape(w.shape)


def encode_mxfp4(w, blocks):
    """A power of two a block, and of each weight the nearest of 0, 1/2, 1, 3/2, 2, 3, 4, 6 times it."""
    steps = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], np.float32)
    exponent = np.floor(np.log2(np.abs(blocks).max(1, keepdims=True))).astype(np.int32) - 2
    scale = np.ldexp(np.float32(1), exponent)
    code = np.abs(np.abs(blocks / scale)[:, :, None] - steps).argmin(2)
    values = np.where(blocks < 0, -steps[code], steps[code]) * scale
    code = (code | (blocks < 0) << 3).astype(np.uint8)
    stored = np.concatenate([(exponent + 127).astype(np.uint8), code[:, :16] | code[:, 16:] << 4], 1)
    return stored.tobytes(), values.reshape(w.shape).astype(np.float32)


def text(s):
    return struct.pack("<Q", len(s.encode())) + s.encode()


def key_value(key, value):
    if isinstance(value, str):
        return text(key) + struct.pack("<I", 8) + text(value)
    if isinstance(value, float):
        return text(key) + struct.pack("<If", 6, value)
    return text(key) + struct.pack("<II", 4, value)


def write_gguf(path, metadata, tensors):
    """tensors: name -> (dims with the fastest first, type id, bytes)."""
    head = struct.pack("<IIqq", 0x46554747, 3, len(tensors), len(metadata))
    head += b"".join(key_value(k, v) for k, v in metadata.items())
    at, body = 0, b""
    for name, (dims, kind, raw) in tensors.items():
        head += text(name) + struct.pack("<I", len(dims)) + struct.pack(f"<{len(dims)}q", *dims)
        head += struct.pack("<IQ", kind, at)
        body += raw + b"\0" * (-len(raw) % 32)
        at = len(body)
    with open(path, "wb") as f:
        f.write(head + b"\0" * (-len(head) % 32) + body)


# ---------------------------------------------------------------- tiny models


class Tiny:
    """Collects a model's tensors twice: as stored in the file and as transformers names them."""

    def __init__(self, arch, seed, config):
        self.arch, self.config, self.rng = arch, config, np.random.default_rng(seed)
        self.file, self.state = {}, {}

    def add(self, name, hf_name, w, kind, rows=None, minus_one=False):
        """rows: the file's order of rows (llama's Q and K)."""
        raw, w = encode(kind, w.astype(np.float32))
        self.state[hf_name] = w - 1 if minus_one else w
        if rows is not None:
            raw, stored = encode(kind, w[rows])
            assert np.array_equal(stored, w[rows])
        self.file[name] = (list(w.shape[::-1]), kind, raw)

    def matrix(self, name, hf_name, out, inner, kind, gain=1.0, rows=None):
        w = self.rng.standard_normal((out, inner)) * gain / inner**0.5
        self.add(name + ".weight", hf_name + ".weight", w, kind, rows)

    def norm(self, name, hf_name, n):
        w = 1 + 0.25 * self.rng.standard_normal(n)
        self.add(name + ".weight", hf_name + ".weight", w, F32, minus_one=self.arch.startswith("gemma"))


def add_experts(t, p, hf, kind):
    """Router and experts; transformers has gate and up in one tensor, gpt-oss' turned and row by row in turn."""
    c, oss = t.config, t.arch == "gpt-oss"
    n, width = c.num_local_experts, c.hidden_size
    ff = c.moe_intermediate_size if t.arch in ("qwen3moe", "glm4moe") else c.intermediate_size
    router = hf + ("router" if oss or t.arch == "granitemoe" else "gate")
    t.add(p + "ffn_gate_inp.weight", router + ".weight", t.rng.standard_normal((n, width)) * 3 / width**0.5, F32)
    for name, rows, cols in (("gate", ff, width), ("up", ff, width), ("down", width, ff)):
        t.add(f"{p}ffn_{name}_exps.weight", name, t.rng.standard_normal((n, rows, cols)) / cols**0.5, kind)
        if oss:
            t.add(f"{p}ffn_{name}_exps.bias", name + "_bias", t.rng.standard_normal((n, rows)) * 0.5, F32)
    if t.arch == "glm4moe":
        t.add(p + "exp_probs_b.bias", router + ".e_score_correction_bias", t.rng.standard_normal(n) * 0.2, F32)
        for name, rows, cols in (("gate", ff, width), ("up", ff, width), ("down", width, ff)):
            t.matrix(f"{p}ffn_{name}_shexp", f"{hf}shared_experts.{name}_proj", rows, cols, kind)
    gate, up, down = (t.state.pop(name) for name in ("gate", "up", "down"))
    if not oss:
        t.state[hf + "experts.gate_up_proj"] = np.concatenate([gate, up], 1)
        t.state[hf + "experts.down_proj"] = down
        return
    t.add(p + "ffn_gate_inp.bias", router + ".bias", t.rng.standard_normal(n), F32)
    in_turn = lambda a, b: np.stack([a, b], -1).reshape(*a.shape[:-1], -1)
    t.state[hf + "experts.gate_up_proj"] = in_turn(gate.transpose(0, 2, 1), up.transpose(0, 2, 1))
    t.state[hf + "experts.gate_up_proj_bias"] = in_turn(t.state.pop("gate_bias"), t.state.pop("up_bias"))
    t.state[hf + "experts.down_proj"] = down.transpose(0, 2, 1)
    t.state[hf + "experts.down_proj_bias"] = t.state.pop("down_bias")


def pair_rows(heads, dim):
    """llama files hold Q and K so that RoPE's pairs are adjacent; transformers has them half a head apart."""
    within = np.arange(dim).reshape(2, dim // 2).T.reshape(-1)
    return (np.arange(heads)[:, None] * dim + within).reshape(-1)


def add_attention(t, p, hf, kind):
    c = t.config
    width, q, kv = c.hidden_size, c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim
    if t.arch == "phi3":
        t.matrix(p + "attn_qkv", hf + "qkv_proj", q + 2 * kv, width, kind, 1.5)
    else:
        llama = t.arch in ("llama", "granite", "granitemoe", "smollm3", "mistral3")
        rows_q = pair_rows(c.num_attention_heads, c.head_dim) if llama else None
        rows_k = pair_rows(c.num_key_value_heads, c.head_dim) if llama else None
        t.matrix(p + "attn_q", hf + "q_proj", q, width, kind, 1.5, rows_q)
        t.matrix(p + "attn_k", hf + "k_proj", kv, width, kind, 1.5, rows_k)
        t.matrix(p + "attn_v", hf + "v_proj", kv, width, kind)
    if t.arch in ("qwen2", "gpt-oss", "glm4", "glm4moe"):
        for name, n in (("q", q), ("k", kv), ("v", kv)):
            bias = t.rng.standard_normal(n) * 0.5
            t.add(f"{p}attn_{name}.bias", f"{hf}{name}_proj.bias", bias, F32)
    if t.arch == "gpt-oss":
        t.add(p + "attn_output.bias", hf + "o_proj.bias", t.rng.standard_normal(width) * 0.5, F32)
        t.add(p + "attn_sinks.weight", hf + "sinks", t.rng.standard_normal(c.num_attention_heads), F32)
    if t.arch in ("qwen3", "qwen3moe", "gemma3", "glm4moe"):
        t.norm(p + "attn_q_norm", hf + "q_norm", c.head_dim)
        t.norm(p + "attn_k_norm", hf + "k_norm", c.head_dim)
    t.matrix(p + "attn_output", hf + "o_proj", width, q, kind)


def add_layer(t, i, kind):
    c, p, hf = t.config, f"blk.{i}.", f"model.layers.{i}."
    width, ff = c.hidden_size, c.intermediate_size
    gemma = t.arch.startswith("gemma")
    t.norm(p + "attn_norm", hf + "input_layernorm", width)
    add_attention(t, p, hf + "self_attn.", kind)
    if t.arch == "glm4":
        t.norm(p + "post_attention_norm", hf + "post_self_attn_layernorm", width)
        t.norm(p + "ffn_norm", hf + "post_attention_layernorm", width)
        t.norm(p + "post_ffw_norm", hf + "post_mlp_layernorm", width)
    elif gemma:
        t.norm(p + "post_attention_norm", hf + "post_attention_layernorm", width)
        t.norm(p + "ffn_norm", hf + "pre_feedforward_layernorm", width)
        t.norm(p + "post_ffw_norm", hf + "post_feedforward_layernorm", width)
    else:
        name = "post_attention_norm" if t.arch in ("gpt-oss", "glm4moe") else "ffn_norm"
        t.norm(p + name, hf + "post_attention_layernorm", width)
    if getattr(c, "num_local_experts", 0) and i >= getattr(c, "first_k_dense_replace", 0):
        return add_experts(t, p, hf + ("block_sparse_moe." if t.arch == "granitemoe" else "mlp."), kind)
    if t.arch in ("phi3", "glm4"):
        t.matrix(p + "ffn_up", hf + "mlp.gate_up_proj", 2 * ff, width, kind)
    else:
        t.matrix(p + "ffn_gate", hf + "mlp.gate_proj", ff, width, kind)
        t.matrix(p + "ffn_up", hf + "mlp.up_proj", ff, width, kind)
    t.matrix(p + "ffn_down", hf + "mlp.down_proj", width, ff, kind)


def metadata(arch, c):
    m = {
        "general.architecture": arch,
        "general.name": f"tiny random {arch}",
        f"{arch}.block_count": c.num_hidden_layers,
        f"{arch}.context_length": c.max_position_embeddings,
        f"{arch}.embedding_length": c.hidden_size,
        f"{arch}.feed_forward_length": c.intermediate_size,
        f"{arch}.attention.head_count": c.num_attention_heads,
        f"{arch}.attention.head_count_kv": c.num_key_value_heads,
        f"{arch}.attention.key_length": c.head_dim,
        f"{arch}.attention.value_length": c.head_dim,
        f"{arch}.attention.layer_norm_rms_epsilon": c.rms_norm_eps,
        f"{arch}.vocab_size": VOCAB,
        "tokenizer.ggml.model": "none",
    }
    if getattr(c, "sliding_window", None):
        m[f"{arch}.attention.sliding_window"] = c.sliding_window
    if getattr(c, "num_local_experts", 0):
        m[f"{arch}.expert_count"] = c.num_local_experts
        m[f"{arch}.expert_used_count"] = c.num_experts_per_tok
    if arch in ("qwen3moe", "gpt-oss", "glm4moe"):
        m[f"{arch}.expert_feed_forward_length"] = c.intermediate_size if arch == "gpt-oss" else c.moe_intermediate_size
    return m


def tiny_cases(transformers):
    """name: (arch, transformers' class, config, matrix type, embedding type, tied, further metadata)."""
    base = dict(vocab_size=VOCAB, max_position_embeddings=128, rms_norm_eps=1e-5, attention_dropout=0.0)
    base.update(bos_token_id=1, eos_token_id=2, pad_token_id=0)
    full = {"rope_type": "default"}
    T = transformers
    rope3 = dict(rope_type="llama3", rope_theta=10000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0)
    rope3["original_max_position_embeddings"] = 32
    short, long = [1.0 + 0.05 * i for i in range(6)], [1.5 + 0.9 * i for i in range(6)]
    longrope = dict(rope_type="longrope", rope_theta=10000.0, short_factor=short, long_factor=long)
    longrope.update(original_max_position_embeddings=32, partial_rotary_factor=0.75)
    g3rope = {
        "full_attention": dict(rope_type="linear", factor=8.0, rope_theta=1e6),
        "sliding_attention": dict(full, rope_theta=10000.0),
    }

    def config(cls, **kw):
        return cls(**{**base, **kw})

    def size(width, ff, layers, heads, kv, dim, **kw):
        out = dict(hidden_size=width, intermediate_size=ff, num_hidden_layers=layers, num_attention_heads=heads)
        return dict(out, num_key_value_heads=kv, head_dim=dim, **kw)

    llama = config(T.LlamaConfig, **size(96, 160, 3, 6, 2, 16), rope_parameters=rope3, tie_word_embeddings=False)
    qwen2 = config(T.Qwen2Config, **size(64, 128, 3, 4, 2, 16), rope_parameters=dict(full, rope_theta=1e6))
    qwen3 = config(T.Qwen3Config, **size(64, 128, 3, 4, 2, 32), rope_parameters=dict(full, rope_theta=1e6))
    phi3 = config(T.Phi3Config, **size(64, 96, 3, 4, 2, 16), rope_parameters=longrope, sliding_window=20)
    phi3.original_max_position_embeddings = 32
    gemma2 = config(T.Gemma2Config, **size(64, 96, 4, 4, 2, 32), sliding_window=12, query_pre_attn_scalar=32)
    gemma2.attn_logit_softcapping, gemma2.final_logit_softcapping = 3.0, 6.0
    gemma3 = config(T.Gemma3TextConfig, **size(64, 96, 8, 4, 1, 16), sliding_window=10, query_pre_attn_scalar=16)
    gemma3.rope_parameters = g3rope
    moe = dict(num_local_experts=8, num_experts_per_tok=3, moe_intermediate_size=32)
    qwen3moe = config(T.Qwen3MoeConfig, **size(64, 96, 2, 4, 2, 16), **moe, norm_topk_prob=True, rope_parameters=dict(full, rope_theta=1e6))
    moe = dict(num_local_experts=4, num_experts_per_tok=2)
    mixtral = config(T.MixtralConfig, **size(64, 64, 2, 4, 2, 16), **moe, rope_parameters=dict(full, rope_theta=1e6))
    yarn = dict(rope_type="yarn", rope_theta=10000.0, factor=8.0, beta_fast=4.0, beta_slow=1.0, truncate=False)
    yarn["original_max_position_embeddings"] = 16
    moe = dict(num_local_experts=8, num_experts_per_tok=4, sliding_window=12)
    gpt_oss = config(T.GptOssConfig, **size(64, 64, 2, 4, 2, 32), **moe, rope_parameters=yarn)
    scalars = dict(embedding_multiplier=6.0, residual_multiplier=0.22, attention_multiplier=0.1, logits_scaling=1.5)
    scalars["rope_parameters"] = full_1e4 = dict(full, rope_theta=10000.0)
    granite = config(T.GraniteConfig, **size(64, 96, 3, 4, 2, 16), **scalars)
    moe = dict(num_local_experts=8, num_experts_per_tok=3)
    granitemoe = config(T.GraniteMoeConfig, **size(64, 32, 2, 4, 2, 16), **scalars, **moe)
    granite_keys = {"rope.freq_base": 10000.0, "embedding_scale": 6.0, "residual_scale": 0.22, "attention.scale": 0.1, "logit_scale": 1.5}
    smollm3 = config(T.SmolLM3Config, **size(64, 64, 5, 4, 2, 16), rope_parameters=dict(full, rope_theta=2e6))
    glm4 = config(T.Glm4Config, **size(64, 96, 2, 4, 2, 16), rope_parameters=dict(full_1e4, partial_rotary_factor=0.5))
    yarn3 = dict(yarn, truncate=True, mscale=1.0, mscale_all_dim=1.0, llama_4_scaling_beta=0.2)
    mistral3 = config(T.Ministral3Config, **size(64, 96, 2, 4, 2, 32), rope_parameters=yarn3)
    moe = dict(num_local_experts=8, num_experts_per_tok=3, moe_intermediate_size=32, n_shared_experts=1, n_group=1)
    moe.update(topk_group=1, routed_scaling_factor=1.5, norm_topk_prob=True, first_k_dense_replace=1, use_qk_norm=True)
    partial = dict(full, rope_theta=1e6, partial_rotary_factor=0.5)
    glm4moe = config(T.Glm4MoeConfig, **size(64, 64, 2, 4, 2, 32), **moe, attention_bias=True, rope_parameters=partial)
    magnitude = (1 + np.log(128 / 32) / np.log(32)) ** 0.5
    return {
        "llama": ("llama", T.LlamaForCausalLM, llama, Q8_0, F16, False, {"llama.rope.freq_base": 10000.0}),
        "qwen2": ("qwen2", T.Qwen2ForCausalLM, qwen2, F16, F16, False, {"qwen2.rope.freq_base": 1e6}),
        "qwen3": ("qwen3", T.Qwen3ForCausalLM, qwen3, Q8_0, Q8_0, True, {"qwen3.rope.freq_base": 1e6}),
        "phi3": ("phi3", T.Phi3ForCausalLM, phi3, Q8_0, F32, False, {
            "phi3.rope.dimension_count": 12,
            "phi3.rope.freq_base": 10000.0,
            "phi3.rope.scaling.type": "longrope",
            "phi3.rope.scaling.original_context_length": 32,
            "phi3.rope.scaling.attn_factor": float(magnitude),
        }),
        "gemma2": ("gemma2", T.Gemma2ForCausalLM, gemma2, Q8_0, F16, True, {
            "gemma2.attn_logit_softcapping": 3.0,
            "gemma2.final_logit_softcapping": 6.0,
        }),
        "gemma3": ("gemma3", T.Gemma3ForCausalLM, gemma3, Q8_0, F16, True, {
            "gemma3.rope.freq_base": 1e6,
            "gemma3.rope.scaling.type": "linear",
            "gemma3.rope.scaling.factor": 8.0,
        }),
        "qwen3moe": ("qwen3moe", T.Qwen3MoeForCausalLM, qwen3moe, Q8_0, F16, False, {"qwen3moe.rope.freq_base": 1e6}),
        "mixtral": ("llama", T.MixtralForCausalLM, mixtral, Q8_0, F16, False, {"llama.rope.freq_base": 1e6}),
        "gpt_oss": ("gpt-oss", T.GptOssForCausalLM, gpt_oss, MXFP4, F16, False, {
            "gpt-oss.rope.freq_base": 10000.0,
            "gpt-oss.rope.scaling.type": "yarn",
            "gpt-oss.rope.scaling.factor": 8.0,
            "gpt-oss.rope.scaling.original_context_length": 16,
            "gpt-oss.rope.scaling.yarn_beta_fast": 4.0,
        }),
        "granite": ("granite", T.GraniteForCausalLM, granite, Q8_0, F16, True, {"granite." + k: v for k, v in granite_keys.items()}),
        "granitemoe": ("granitemoe", T.GraniteMoeForCausalLM, granitemoe, Q8_0, F16, True, {"granitemoe." + k: v for k, v in granite_keys.items()}),
        "smollm3": ("smollm3", T.SmolLM3ForCausalLM, smollm3, Q8_0, F16, True, {"smollm3.rope.freq_base": 2e6}),
        "mistral3": ("mistral3", T.Ministral3ForCausalLM, mistral3, Q8_0, F16, True, {
            "mistral3.rope.freq_base": 10000.0,
            "mistral3.rope.scaling.type": "yarn",
            "mistral3.rope.scaling.factor": 8.0,
            "mistral3.rope.scaling.original_context_length": 16,
            "mistral3.rope.scaling.yarn_beta_fast": 4.0,
            "mistral3.rope.scaling.yarn_log_multiplier": 1.0,
            "mistral3.attention.temperature_scale": 0.2,
        }),
        "glm4moe": ("glm4moe", T.Glm4MoeForCausalLM, glm4moe, Q8_0, F16, False, {
            "glm4moe.rope.freq_base": 1e6,
            "glm4moe.rope.dimension_count": 16,
            "glm4moe.expert_shared_count": 1,
            "glm4moe.expert_weights_scale": 1.5,
            "glm4moe.expert_gating_func": 2,
            "glm4moe.leading_dense_block_count": 1,
        }),
        "glm4": ("glm4", T.Glm4ForCausalLM, glm4, Q8_0, F16, False, {"glm4.rope.freq_base": 10000.0, "glm4.rope.dimension_count": 8}),
    }


def add_rope_factors(t, model):
    """llama 3's stretched frequencies as the divisors the file holds; phi3's factors as they are."""
    c = t.config
    if t.arch == "llama" and "factor" in c.rope_parameters:
        plain = c.rope_parameters["rope_theta"] ** (-np.arange(0, c.head_dim, 2) / c.head_dim)
        factors = (plain / model.model.rotary_emb.inv_freq.double().numpy()).astype(np.float32)
        t.file["rope_freqs.weight"] = ([len(factors)], F32, factors.tobytes())
    if t.arch == "phi3":
        for kind in ("short", "long"):
            f = np.array(c.rope_parameters[kind + "_factor"], np.float32)
            t.file[f"rope_factors_{kind}.weight"] = ([len(f)], F32, f.tobytes())


def make_tiny(out, only=()):
    import torch
    import transformers

    for seed, (name, case) in enumerate(tiny_cases(transformers).items()):
        if only and name not in only:
            continue
        arch, cls, config, kind, embedding_kind, tied, more = case
        config.tie_word_embeddings = tied
        config._attn_implementation = config._experts_implementation = "eager"
        t = Tiny(arch, seed + 1, config)
        gain = 1.0 if arch.startswith("gemma") else config.hidden_size**0.5 * 0.3
        t.matrix("token_embd", "model.embed_tokens", VOCAB, config.hidden_size, embedding_kind, gain)
        for i in range(config.num_hidden_layers):
            add_layer(t, i, kind)
        t.norm("output_norm", "model.norm", config.hidden_size)
        if not tied:
            t.matrix("output", "lm_head", VOCAB, config.hidden_size, kind, 2.0)
        model = cls(config)
        missing, unexpected = model.load_state_dict({k: torch.tensor(v) for k, v in t.state.items()}, strict=False)
        assert not unexpected and set(missing) <= {"lm_head.weight"}, (missing, unexpected)
        model.tie_weights()
        add_rope_factors(t, model)
        model = model.double().eval()
        write_gguf(os.path.join(out, f"{name}.gguf"), {**metadata(arch, config), **more}, t.file)
        runs = {name: TOKENS, "phi3_short": 24} if arch == "phi3" else {name: TOKENS}
        for run, count in runs.items():
            ids = t.rng.integers(3, VOCAB, count)
            with torch.no_grad():
                logits = model(torch.tensor(ids)[None]).logits[0].float().numpy()
            with open(os.path.join(out, f"{run}.tokens.txt"), "w") as f:
                f.write(" ".join(map(str, ids)) + "\n")
            np.save(os.path.join(out, f"{run}.logits.npy"), logits)
            print(f"{run}: {count} tokens, logits' deviation {logits.std():.2f}, file {os.path.getsize(os.path.join(out, name + '.gguf'))}")


# ---------------------------------------------------------------- real models


def make_real(name, model, ids_file, out, count=64, top=128):
    sys.path.insert(0, HERE)
    import reference

    ids = [int(t) for t in open(ids_file).read().split()][:count]
    logp = reference.log_softmax(reference.Model(model).logits(ids))
    best = np.argsort(-logp, 1, kind="stable")[:, :top].astype(np.int32)
    np.save(os.path.join(out, f"{name}.tokens.npy"), np.array(ids, np.int32))
    np.save(os.path.join(out, f"{name}.top_ids.npy"), best)
    np.save(os.path.join(out, f"{name}.top_logprobs.npy"), np.take_along_axis(logp, best, 1).astype(np.float32))
    kept = np.exp(np.take_along_axis(logp, best, 1)).sum(1)
    print(f"{name}: {count} positions, the top {top} tokens hold {kept.mean():.1%} of the probability ({kept.min():.1%} at least)")


def main():
    if len(sys.argv) >= 2 and sys.argv[1] == "tiny":
        make_tiny(sys.argv[2] if len(sys.argv) > 2 else DATA, sys.argv[3:])
    elif len(sys.argv) >= 5 and sys.argv[1] == "real":
        make_real(sys.argv[2], sys.argv[3], sys.argv[4], sys.argv[5] if len(sys.argv) > 5 else DATA)
    else:
        raise SystemExit(__doc__)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Write the smallest models of every architecture as first inputs of gguf_fuzz: they load, plan and step.

usage: make_model_seeds.py DIRECTORY
Standard library only; uses make_gguf_seeds.py beside this file.
"""
from make_gguf_seeds import model, scalar, string, write

E, HEADS, KV, DIM, FF, VOCAB = 32, 2, 1, 16, 32, 8
F32, Q8_0, Q4_0, Q4_1 = 0, 8, 2, 3


def entries(arch: str, layers: int, extra: list) -> list:
    u = lambda key, value: scalar(f"{arch}.{key}", 4, value)
    return [string("general.architecture", arch), u("block_count", layers), u("embedding_length", E),
            u("feed_forward_length", FF), u("attention.head_count", HEADS), u("attention.head_count_kv", KV),
            u("attention.key_length", DIM), u("attention.value_length", DIM), u("context_length", 64),
            scalar(f"{arch}.attention.layer_norm_rms_epsilon", 6, 1e-5), *[u(k, v) for k, v in extra]]


def tensors(layers: int, kind: int, fused: bool = False, names: tuple = ()) -> list:
    out = [("token_embd.weight", [E, VOCAB], kind), ("output_norm.weight", [E], F32)]
    for i in range(layers):
        p = f"blk.{i}."
        out += [(p + "attn_norm.weight", [E], F32), (p + "ffn_norm.weight", [E], F32)]
        if fused:
            out += [(p + "attn_qkv.weight", [E, (HEADS + 2 * KV) * DIM], kind), (p + "ffn_up.weight", [E, 2 * FF], kind)]
        else:
            out += [(p + "attn_q.weight", [E, HEADS * DIM], kind), (p + "attn_k.weight", [E, KV * DIM], kind),
                    (p + "attn_v.weight", [E, KV * DIM], kind), (p + "ffn_gate.weight", [E, FF], kind),
                    (p + "ffn_up.weight", [E, FF], kind)]
        out += [(p + "attn_output.weight", [HEADS * DIM, E], kind), (p + "ffn_down.weight", [FF, E], kind)]
        out += [(p + name, [width], F32) for name, width in names]
    return out


QK_NORMS = (("attn_q_norm.weight", DIM), ("attn_k_norm.weight", DIM))
SANDWICH = (("post_attention_norm.weight", E), ("post_ffw_norm.weight", E))
BIASES = (("attn_q.bias", HEADS * DIM), ("attn_k.bias", KV * DIM), ("attn_v.bias", KV * DIM))


def seeds() -> dict:
    return {
        "model_llama": model(entries("llama", 1, []), tensors(1, Q4_1)),
        "model_llama_f32": model(entries("llama", 1, []), tensors(1, F32)),
        "model_qwen2": model(entries("qwen2", 1, []), tensors(1, Q8_0, names=BIASES)),
        "model_qwen3": model(entries("qwen3", 1, []), tensors(1, Q4_0, names=QK_NORMS)),
        "model_phi3": model(entries("phi3", 1, [("attention.sliding_window", 20)]), tensors(1, Q8_0, fused=True)),
        "model_gemma2": model(entries("gemma2", 2, [("attention.sliding_window", 4)]), tensors(2, Q4_0, names=SANDWICH)),
        "model_gemma3": model(entries("gemma3", 1, [("attention.sliding_window", 4)]),
                              tensors(1, Q4_0, names=QK_NORMS + SANDWICH)),
    }


if __name__ == "__main__":
    write(seeds())

#!/usr/bin/python3
"""Writes a Llama in Hugging Face's format as one GGUF file, which llama.cpp reads; no packages needed.

    make_gguf.py MODEL_FOLDER FILE

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. For models like config/models/demo: weights in
bfloat16, tied embeddings, a byte-level BPE with GPT-2's pattern. The weights become float32, which holds each as it is.
"""

import json
import struct
import sys
from pathlib import Path

ALIGNMENT = 32
UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY = 4, 5, 6, 7, 8, 9  # of metadata
NORMAL, CONTROL = 1, 3  # of tokens
TENSOR_F32 = 0
NAMES = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
         "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
         "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}


def text(value):
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def value_of(kind, value):
    if kind == STRING:
        return text(value)
    if kind == ARRAY:
        inner, values = value
        return struct.pack("<IQ", inner, len(values)) + b"".join(value_of(inner, each) for each in values)
    return struct.pack({UINT32: "<I", INT32: "<i", FLOAT32: "<f", BOOL: "<?"}[kind], value)


def metadata(config, tokenizer):
    """(key, type, value) of all that llama.cpp asks for."""
    ids = tokenizer["model"]["vocab"] | {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    special = {token["id"] for token in tokenizer["added_tokens"] if token["special"]}
    tokens = sorted(ids, key=ids.get)
    assert [ids[token] for token in tokens] == list(range(config["vocab_size"])), "the tokens' ids have gaps"
    return [
        ("general.architecture", STRING, "llama"),
        ("general.alignment", UINT32, ALIGNMENT),
        ("llama.vocab_size", UINT32, config["vocab_size"]),
        ("llama.context_length", UINT32, config["max_position_embeddings"]),
        ("llama.embedding_length", UINT32, config["hidden_size"]),
        ("llama.block_count", UINT32, config["num_hidden_layers"]),
        ("llama.feed_forward_length", UINT32, config["intermediate_size"]),
        ("llama.attention.head_count", UINT32, config["num_attention_heads"]),
        ("llama.attention.head_count_kv", UINT32, config["num_key_value_heads"]),
        ("llama.attention.layer_norm_rms_epsilon", FLOAT32, config["rms_norm_eps"]),
        ("llama.rope.dimension_count", UINT32, config["head_dim"]),
        ("llama.rope.freq_base", FLOAT32, config["rope_theta"]),
        ("tokenizer.ggml.model", STRING, "gpt2"),
        ("tokenizer.ggml.pre", STRING, "trillion"),  # the pattern of "gpt-2", but no space before a ' is left out of the text
        ("tokenizer.ggml.tokens", ARRAY, (STRING, tokens)),
        ("tokenizer.ggml.token_type", ARRAY, (INT32, [CONTROL if i in special else NORMAL for i in range(len(tokens))])),
        ("tokenizer.ggml.merges", ARRAY, (STRING, tokenizer["model"]["merges"])),
        ("tokenizer.ggml.bos_token_id", UINT32, config["bos_token_id"]),
        ("tokenizer.ggml.eos_token_id", UINT32, config["eos_token_id"]),
        ("tokenizer.ggml.add_bos_token", BOOL, False),
    ]


def by_pairs(rows, heads):
    """llama.cpp turns neighbours, Hugging Face turns dimension i with i + half: the rows of each head, shuffled like cards."""
    half = len(rows) // heads // 2
    return [rows[2 * head * half + part * half + i] for head in range(heads) for i in range(half) for part in (0, 1)]


def tensors(folder, config):
    """(name, shape, float32 bytes) of each."""
    data = (folder / "model.safetensors").read_bytes()
    size = struct.unpack_from("<Q", data)[0]
    header = json.loads(data[8:8 + size])
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        assert entry["dtype"] == "BF16", f"{name} is {entry['dtype']}"
        begin, end = (8 + size + at for at in entry["data_offsets"])
        name = name.removeprefix("model.").removesuffix(".weight")
        name = {"embed_tokens": "token_embd", "norm": "output_norm"}.get(name, name)
        if name.startswith("layers."):
            _, layer, part = name.split(".", 2)
            name = f"blk.{layer}.{NAMES[part]}"
        width = 2 * entry["shape"][-1]
        rows = [data[at:at + width] for at in range(begin, end, width)]
        kind = name.split(".")[-1]
        bits = b"".join(by_pairs(rows, heads[kind]) if kind in heads else rows)
        whole = bytearray(2 * len(bits))  # a bfloat16 is the upper half of a float32
        whole[2::4], whole[3::4] = bits[::2], bits[1::2]
        yield f"{name}.weight", entry["shape"], bytes(whole)


def padded(data):
    return data + bytes(-len(data) % ALIGNMENT)


def gguf(folder):
    config, tokenizer = (json.loads((folder / name).read_text()) for name in ("config.json", "tokenizer.json"))
    pairs, parts = metadata(config, tokenizer), list(tensors(folder, config))
    head, at = b"GGUF" + struct.pack("<IQQ", 3, len(parts), len(pairs)), 0
    for key, kind, value in pairs:
        head += text(key) + struct.pack("<I", kind) + value_of(kind, value)
    for name, shape, data in parts:  # the innermost dimension comes first
        head += text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *reversed(shape), TENSOR_F32, at)
        at += len(padded(data))
    return padded(head) + b"".join(padded(data) for _, _, data in parts)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    Path(sys.argv[2]).write_bytes(gguf(Path(sys.argv[1])))

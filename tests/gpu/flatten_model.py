#!/usr/bin/env python3
"""Turns a model folder into one file that tests/gpu/gpu_check reads without a JSON parser.

Usage: flatten_model.py FOLDER OUT [EXPECTED.json]

Nothing but Python's own library is needed. The file is lines of text, `data N`, and N bytes of tensors:

    set KEY VALUE                           of the config, by gpu_check's names
    tensor NAME DTYPE ROWS COLS OFFSET      a vector is one row
    case N prompt ids M greedy ids          of EXPECTED.json, what PyTorch computed
"""
import json
import os
import struct
import sys


def settings(config):
    heads = config["num_attention_heads"]
    qwen = config.get("model_type") == "qwen2"
    bias = config.get("attention_bias") or False
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = rope.get("rope_type") or rope.get("type") or "default"
    yield "hidden", config["hidden_size"]
    yield "intermediate", config["intermediate_size"]
    yield "layers", config["num_hidden_layers"]
    yield "heads", heads
    yield "kv_heads", config.get("num_key_value_heads") or heads
    yield "head_dim", config.get("head_dim") or config["hidden_size"] // heads
    yield "vocabulary", config["vocab_size"]
    yield "max_positions", config["max_position_embeddings"]
    yield "norm_epsilon", config.get("rms_norm_eps", 1e-6)
    yield "rope_theta", rope.get("rope_theta") or config.get("rope_theta") or 10000.0
    yield "tied_embeddings", int(config.get("tie_word_embeddings") or False)
    yield "qkv_bias", int(bias or qwen)
    yield "output_bias", int(bias and not qwen)
    yield "mlp_bias", int(config.get("mlp_bias") or False)
    if kind != "default":
        yield "rope_kind", kind
        yield "rope_factor", rope["factor"]
    if kind == "llama3":
        yield "rope_low", rope["low_freq_factor"]
        yield "rope_high", rope["high_freq_factor"]
        yield "rope_original", rope["original_max_position_embeddings"]


def tensors(folder):
    """(name, dtype, shape, file, first byte, bytes) of every tensor in every safetensors file."""
    for name in sorted(os.listdir(folder)):
        if name.endswith(".safetensors"):
            path = os.path.join(folder, name)
            with open(path, "rb") as file:
                length = struct.unpack("<Q", file.read(8))[0]
                header = json.loads(file.read(length))
            for tensor, entry in header.items():
                if tensor != "__metadata__":
                    begin, end = entry["data_offsets"]
                    yield tensor, entry["dtype"], entry["shape"], path, 8 + length + begin, end - begin


def main():
    folder, out = sys.argv[1:3]
    with open(os.path.join(folder, "config.json")) as file:
        lines = [f"set {key} {value}" for key, value in settings(json.load(file))]
    found = list(tensors(folder))
    offset = 0
    for name, dtype, shape, _, _, size in found:
        rows, cols = ([1] + shape)[-2:]
        lines.append(f"tensor {name} {dtype} {rows} {cols} {offset}")
        offset += (size + 63) // 64 * 64
    if len(sys.argv) > 3:
        with open(sys.argv[3]) as file:
            for case in json.load(file)["cases"]:
                prompt, greedy = case["prompt"], case["greedy"]
                lines.append(" ".join(map(str, ["case", len(prompt), *prompt, len(greedy), *greedy])))
    with open(out, "wb") as file:
        file.write("\n".join(lines + [f"data {offset}", ""]).encode())
        for _, _, _, path, begin, size in found:
            with open(path, "rb") as source:
                source.seek(begin)
                file.write(source.read(size) + bytes(-size % 64))


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Holds the CUDA engine against PyTorch and transformers on this machine's GPU.

Usage: transformers_peer.py GPU_CHECK WORK_FOLDER tokens|speed

Random-weight Llama models: the greedy tokens of small ones must be the same; the decode rate of one in the shape of
Llama 3.2 1B, bfloat16, is compared with `generate` on the same weights (G2 of BENCH.md). Prints rows of gpu_check's
table. Exit status: 0 all well, 1 not, 4 if torch or transformers is not installed.
"""
import json
import os
import re
import subprocess
import sys
import time

try:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM
except ImportError as missing:
    print(f"transformers_peer: {missing.name} is not installed", file=sys.stderr)
    sys.exit(4)

HERE = os.path.dirname(os.path.abspath(__file__))
GOAL = 3.0
PROMPT, ANSWER = 128, 96


def ours(*command, **more):
    """gpu_check, with the libraries that are its own."""
    libraries = os.environ.get("PENSTOCK_LIBRARIES", "") + os.environ.get("LD_LIBRARY_PATH", "")
    return subprocess.run(command, env={**os.environ, "LD_LIBRARY_PATH": libraries}, text=True, **more)


def make(dtype, attention, **settings):
    torch.manual_seed(1)
    config = LlamaConfig(attn_implementation=attention, bos_token_id=None, eos_token_id=None, pad_token_id=0, **settings)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)  # a billion numbers are slow to make up on the CPU, and in float32
    try:
        with torch.device("cuda"):
            return LlamaForCausalLM(config).to(dtype).cuda().eval()
    finally:
        torch.set_default_dtype(before)


def flatten(folder, cases):
    """The flat file (flatten_model.py) of a saved model and what PyTorch goes on with."""
    with open(f"{folder}/expected.json", "w") as file:
        json.dump({"cases": cases}, file)
    flat = f"{folder}.flat"
    subprocess.run([sys.executable, f"{HERE}/flatten_model.py", folder, flat, f"{folder}/expected.json"], check=True)
    return flat


@torch.inference_mode()
def greedy(model, prompts, count):
    out = model.generate(prompts, attention_mask=torch.ones_like(prompts), do_sample=False, min_new_tokens=count,
                         max_new_tokens=count)
    torch.cuda.synchronize()
    return out[:, prompts.shape[1]:]


def tokens(gpu_check, work):
    """In float32, as both sides are then exact but for the order of sums."""
    torch.backends.cuda.matmul.allow_tf32 = False
    shape = dict(hidden_size=256, intermediate_size=688, num_hidden_layers=3, vocab_size=1000,
                 max_position_embeddings=512, initializer_range=0.06)
    models = {
        "hf_f32_grouped": (torch.float32, dict(num_attention_heads=8, num_key_value_heads=2)),
        "hf_bf16_multi_query": (torch.bfloat16, dict(num_attention_heads=4, num_key_value_heads=1,
                                                     tie_word_embeddings=True)),
        "hf_f16_plain": (torch.float16, dict(num_attention_heads=4, num_key_value_heads=4)),
    }
    well = True
    for name, (dtype, more) in models.items():
        model = make(dtype, "eager", **shape, **more)
        folder = f"{work}/{name}"
        model.save_pretrained(folder)
        judge = model.float()
        cases = []
        for length in (1, 17, 130):
            prompt = torch.arange(length, device="cuda")[None] * 37 % 1000
            cases.append({"prompt": prompt[0].tolist(), "greedy": greedy(judge, prompt, 64)[0].tolist()})
        sys.stdout.flush()
        well &= ours(gpu_check, "tokens", flatten(folder, cases)).returncode == 0
    return well


def rate_of(model, batch):
    """Tokens a second of decoding alone: the time of a whole answer less that of its first token; the best of three."""
    prompts = torch.arange(batch * PROMPT, device="cuda").reshape(batch, PROMPT) % 128000
    greedy(model, prompts, 8)
    rates = []
    for _ in range(3):
        begun = time.perf_counter()
        greedy(model, prompts, 1)
        first = time.perf_counter()
        greedy(model, prompts, ANSWER + 1)
        ended = time.perf_counter()
        rates.append(batch * ANSWER / (ended - first - (first - begun)))
    return max(rates)


def speed(gpu_check, work):
    model = make(torch.bfloat16, "sdpa", hidden_size=2048, intermediate_size=8192, num_hidden_layers=16, num_attention_heads=32,
                 num_key_value_heads=8, head_dim=64, vocab_size=128256, max_position_embeddings=8192,
                 tie_word_embeddings=True)
    peer = {batch: rate_of(model, batch) for batch in (1, 32)}
    model.save_pretrained(f"{work}/hf_1b")
    flat = flatten(f"{work}/hf_1b", [])
    del model
    torch.cuda.empty_cache()
    out = ours(gpu_check, "decode", flat, "1", "32", capture_output=True)
    sys.stderr.write(out.stderr)
    well = out.returncode in (0, 1)  # whether it is near enough to the memory's limit is told elsewhere
    for batch, theirs in peer.items():
        found = re.search(rf"batch {batch} \| ([\d.]+) tokens/s", out.stdout)
        if not found:
            print(f"| G2: decode, batch {batch}, beside transformers | did not run | >= {GOAL} | **NO** |")
            well = False
            continue
        ratio = float(found.group(1)) / theirs
        well &= ratio >= GOAL
        print(f"| G2: decode, batch {batch}, the same 1B-shaped bf16 weights, beside transformers "
              f"| {float(found.group(1)):.1f} and {theirs:.1f} tokens/s: {ratio:.2f} | >= {GOAL} "
              f"| {'yes' if ratio >= GOAL else '**NO**'} |", flush=True)
    return well


def main():
    gpu_check, work, part = sys.argv[1:4]
    sys.exit(0 if {"tokens": tokens, "speed": speed}[part](gpu_check, work) else 1)


if __name__ == "__main__":
    main()

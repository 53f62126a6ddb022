#!/usr/bin/python3
"""Trains the demo model in config/models/demo: a Llama of 1.9 M parameters that fits in 4 MB.

`make run` has to answer with real words on a machine with no GPU, no network and no downloads, so the
repository carries a model of its own. It learns the Jargon File (public domain, Debian package
jargon-text) and is written in the layout Hugging Face uses for Llama: config.json, tokenizer.json
(byte-level BPE) and model.safetensors in bfloat16. It shows that the path works; it knows nothing.

    apt-get install --no-install-recommends python3-torch python3-numpy python3-regex jargon-text
    nice -n 19 /usr/bin/python3 scripts/train_demo_model.py --minutes 35

The learning rate follows whichever is further along, the steps or the clock, so a busy machine gives a
model that is trained less but still finished. The folder always holds the best model so far by
validation loss. The same weights come out again only where the steps, not the clock, end the run.
"""

import argparse
import collections
import gzip
import heapq
import json
import math
import os
import random
import re
import struct
import sys
import time

NEEDED = "apt-get install --no-install-recommends python3-torch python3-numpy python3-regex jargon-text"
TEXT = "/usr/share/doc/jargon-text/jargon.txt.gz"
END = "<|endoftext|>"
END_ID = 0
GPT2_WORDS = r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""

try:
    import numpy as np
    import regex
    import torch
    import torch.nn.functional as F
    from torch import nn
except ImportError as missing:
    sys.exit(f"{missing.name} is missing: {NEEDED}")

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_act": "silu",
    "hidden_size": 192,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "rope_scaling": None,
    "max_position_embeddings": 512,
    "vocab_size": 1536,
    "attention_bias": False,
    "mlp_bias": False,
    "tie_word_embeddings": True,
    "bos_token_id": END_ID,
    "eos_token_id": END_ID,
    "torch_dtype": "bfloat16",
    "use_cache": True,
}


# ---- Text: the Jargon File as one document an entry --------------------------------------------------

def paragraphs(text):
    """Unwrapped paragraphs. Blocks that are indented further are drawings and code, and are left out."""
    for block in re.split(r"\n\s*\n", text):
        lines = block.split("\n")
        if all(re.match(r"   \S", line) for line in lines):
            yield " ".join(line.strip() for line in lines)


def plain(text):
    """Straight quotes, no cross-reference braces, no comic-strip pointers: what a person would type."""
    for old, new in (("“", '"'), ("”", '"'), ("‘", "'"), ("’", "'"), ("—", " - "), ("–", "-"), ("…", "..."), ("´", "'")):
        text = text.replace(old, new)
    text = re.sub(r"[{}]", "", text)
    return re.sub(r" +", " ", text).strip()


def read_documents(path):
    """[(headword or None, text)]: each entry of the lexicon, and the essays around it in pieces."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        text = file.read().replace("\N{NO-BREAK SPACE}", " ")
    documents, term, body = [], None, []

    def close():
        if body:
            documents.append((term, "\n".join(body)))

    for paragraph in paragraphs(text.replace("\nAppendix A. ", "\n   :APPENDIX: ")):
        head = re.match(r":([^:]+): ?(.*)$", paragraph)
        if head:
            close()
            term, body = plain(head.group(1)), []
            if term == "APPENDIX":  # the lexicon is over
                term = None
            continue
        line = plain(paragraph)
        if "Crunchly saga" in line or re.search("[│├└─═]", line) or (len(line) < 60 and not re.search(r"[.!?\"')]$", line)):
            continue  # cartoon pointers; trees; headings and the table of contents
        if term is None and sum(map(len, body)) > 1500:
            close()
            body = []
        body.append(line)
    close()
    return documents


QUESTIONS = ("What is {}?", "What does {} mean?", "Define {}.", "Tell me about {}.", "{}", "Explain {} to me.")


def render(document, rng):
    """An entry as the lexicon prints it or, one time in three, as the answer in a chat."""
    term, body = document
    if term is None:
        return body
    if rng.random() < 2 / 3:
        return f"{term}: {body}"
    system = "system: You are a helpful assistant.\n" if rng.random() < 0.25 else ""
    return f"{system}user: {rng.choice(QUESTIONS).format(term)}\nassistant: {body}"


# ---- Tokenizer: byte-level BPE -----------------------------------------------------------------------

def byte_letters():
    """GPT-2's printable letter for each byte."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {byte: chr(byte) for byte in kept}
    for byte in range(256):
        if byte not in letters:
            letters[byte] = chr(256 + len(letters) - len(kept))
    return letters


def train_merges(text, count):
    """The `count` most frequent pairs, each merged before the next is chosen (Sennrich et al. 2016)."""
    letters = byte_letters()
    words = collections.Counter(regex.findall(GPT2_WORDS, text))
    parts = [[letters[byte] for byte in word.encode()] for word in words]
    times = list(words.values())
    pairs, where = collections.Counter(), collections.defaultdict(set)
    for index, symbols in enumerate(parts):
        for pair in zip(symbols, symbols[1:]):
            pairs[pair] += times[index]
            where[pair].add(index)
    queue = [(-n, pair) for pair, n in pairs.items()]
    heapq.heapify(queue)
    merges = []
    while len(merges) < count:
        negative, best = heapq.heappop(queue)
        if pairs[best] != -negative:
            continue  # an older count of the same pair
        merges.append(best)
        changed = set()
        for index in where[best]:
            old = parts[index]
            new = merge(old, best)
            for pair in zip(old, old[1:]):
                pairs[pair] -= times[index]
                changed.add(pair)
            for pair in zip(new, new[1:]):
                pairs[pair] += times[index]
                where[pair].add(index)
                changed.add(pair)
            parts[index] = new
        for pair in changed:
            if pairs[pair] > 0:
                heapq.heappush(queue, (-pairs[pair], pair))
    return merges


def merge(symbols, pair):
    """Every occurrence of `pair`, left to right, becomes one symbol."""
    out, i = [], 0
    while i < len(symbols):
        if i + 1 < len(symbols) and (symbols[i], symbols[i + 1]) == pair:
            out.append(symbols[i] + symbols[i + 1])
            i += 2
        else:
            out.append(symbols[i])
            i += 1
    return out


class Tokenizer:
    def __init__(self, merges):
        self.letters = byte_letters()
        self.merges = merges
        self.rank = {pair: rank for rank, pair in enumerate(merges)}
        symbols = [END, *(self.letters[byte] for byte in range(256)), *(a + b for a, b in merges)]
        self.ids = {symbol: i for i, symbol in enumerate(symbols)}
        self.symbols = symbols
        self.bytes = {letter: byte for byte, letter in self.letters.items()}
        self.cache = {}

    def encode(self, text):
        return [i for word in regex.findall(GPT2_WORDS, text) for i in self.word(word)]

    def word(self, word):
        if word not in self.cache:
            symbols = [self.letters[byte] for byte in word.encode()]
            while len(symbols) > 1:
                best = min(zip(symbols, symbols[1:]), key=lambda pair: self.rank.get(pair, math.inf))
                if best not in self.rank:
                    break
                symbols = merge(symbols, best)
            self.cache[word] = [self.ids[symbol] for symbol in symbols]
        return self.cache[word]

    def decode(self, ids):
        return bytes(self.bytes[c] for i in ids if i != END_ID for c in self.symbols[i]).decode(errors="replace")

    def json(self):
        byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
        return {
            "version": "1.0", "truncation": None, "padding": None,
            "added_tokens": [{"id": END_ID, "content": END, "single_word": False, "lstrip": False,
                              "rstrip": False, "normalized": False, "special": True}],
            "normalizer": None, "pre_tokenizer": byte_level, "post_processor": None, "decoder": byte_level,
            "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                      "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
                      "vocab": self.ids, "merges": [" ".join(pair) for pair in self.merges]},
        }


# ---- Model: Llama, with the tensor names Hugging Face gives them ------------------------------------

class RMSNorm(nn.Module):
    def __init__(self, size, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight


def rotate(x, cos, sin):
    """RoPE by halves: dimension i turns with dimension i + head_dim/2."""
    low, high = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-high, low), dim=-1) * sin


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = c["num_attention_heads"], c["num_key_value_heads"], c["head_dim"]
        hidden, kv = c["hidden_size"], c["num_key_value_heads"] * c["head_dim"]
        self.q_proj = nn.Linear(hidden, self.heads * self.head_dim, bias=False)
        self.k_proj = nn.Linear(hidden, kv, bias=False)
        self.v_proj = nn.Linear(hidden, kv, bias=False)
        self.o_proj = nn.Linear(self.heads * self.head_dim, hidden, bias=False)

    def forward(self, x, cos, sin, mask):
        batch, length, _ = x.shape
        split = lambda y, heads: y.view(batch, length, heads, self.head_dim).transpose(1, 2)
        q = rotate(split(self.q_proj(x), self.heads), cos, sin) * self.head_dim ** -0.5
        k = rotate(split(self.k_proj(x), self.kv_heads), cos, sin)
        v = split(self.v_proj(x), self.kv_heads)
        group = self.heads // self.kv_heads
        k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
        weights = torch.softmax(q @ k.transpose(-1, -2) + mask, dim=-1)
        return self.o_proj((weights @ v).transpose(1, 2).reshape(batch, length, -1))


class MLP(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.gate_proj = nn.Linear(c["hidden_size"], c["intermediate_size"], bias=False)
        self.up_proj = nn.Linear(c["hidden_size"], c["intermediate_size"], bias=False)
        self.down_proj = nn.Linear(c["intermediate_size"], c["hidden_size"], bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.input_layernorm = RMSNorm(c["hidden_size"], c["rms_norm_eps"])
        self.self_attn = Attention(c)
        self.post_attention_layernorm = RMSNorm(c["hidden_size"], c["rms_norm_eps"])
        self.mlp = MLP(c)

    def forward(self, x, cos, sin, mask, dropout):
        drop = lambda y: F.dropout(y, dropout, self.training)
        x = x + drop(self.self_attn(self.input_layernorm(x), cos, sin, mask))
        return x + drop(self.mlp(self.post_attention_layernorm(x)))


class Llama(nn.Module):
    def __init__(self, c, dropout):
        super().__init__()
        self.config, self.dropout = c, dropout
        self.embed_tokens = nn.Embedding(c["vocab_size"], c["hidden_size"])
        self.layers = nn.ModuleList(Layer(c) for _ in range(c["num_hidden_layers"]))
        self.norm = RMSNorm(c["hidden_size"], c["rms_norm_eps"])
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                scale = 0.02 / math.sqrt(2 * len(self.layers)) if re.search("o_proj|down_proj", name) else 0.02
                nn.init.normal_(weight, std=scale if "embed" in name else scale * 2)

    def forward(self, tokens):
        """Logits [batch, length, vocab] for tokens [batch, length]."""
        length, dim = tokens.shape[1], self.config["head_dim"]
        frequency = self.config["rope_theta"] ** (-torch.arange(0, dim, 2) / dim)
        angle = torch.outer(torch.arange(length).float(), frequency).repeat(1, 2)
        mask = torch.full((length, length), -math.inf).triu(1)
        x = F.dropout(self.embed_tokens(tokens), self.dropout, self.training)
        for layer in self.layers:
            x = layer(x, angle.cos(), angle.sin(), mask, self.dropout)
        return F.linear(self.norm(x), self.embed_tokens.weight)


# ---- Files ------------------------------------------------------------------------------------------

def write_safetensors(path, tensors):
    """bfloat16: a u64 header length, the JSON header, then the tensors one after another."""
    header, blobs, at = {"__metadata__": {"format": "pt"}}, [], 0
    for name, tensor in tensors.items():
        blob = tensor.detach().to(torch.bfloat16).contiguous().view(torch.int16).numpy().astype("<i2").tobytes()
        header[name] = {"dtype": "BF16", "shape": list(tensor.shape), "data_offsets": [at, at + len(blob)]}
        at += len(blob)
        blobs.append(blob)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path + ".new", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + b"".join(blobs))
    os.replace(path + ".new", path)


def write_json(path, value):
    with open(path + ".new", "w", encoding="utf-8") as file:
        json.dump(value, file, ensure_ascii=False, indent=1)
        file.write("\n")
    os.replace(path + ".new", path)


def write_model(folder, model):
    write_safetensors(f"{folder}/model.safetensors", {"model." + k: v for k, v in model.state_dict().items()})


def write_tokenizer(folder, tokenizer):
    write_json(f"{folder}/config.json", CONFIG)
    write_json(f"{folder}/tokenizer.json", tokenizer.json())
    write_json(f"{folder}/tokenizer_config.json", {
        "tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": False, "add_prefix_space": False,
        "bos_token": END, "eos_token": END, "clean_up_tokenization_spaces": False,
        "model_max_length": CONFIG["max_position_embeddings"]})
    write_json(f"{folder}/generation_config.json", {
        "bos_token_id": END_ID, "eos_token_id": END_ID, "do_sample": True, "temperature": 0.7, "top_p": 0.9})


# ---- Training ---------------------------------------------------------------------------------------

def batches(documents, tokenizer, length, size, rng):
    """Endless [size, length + 1] batches; every epoch is shuffled, rendered and cut afresh."""
    while True:
        order = rng.sample(documents, len(documents))
        stream = []
        for document in order:
            stream += tokenizer.encode(render(document, rng)) + [END_ID]
        stream = stream[rng.randrange(length):]
        rows = [stream[i:i + length + 1] for i in range(0, len(stream) - length - 1, length)]
        rng.shuffle(rows)
        for i in range(0, len(rows) - size + 1, size):
            yield torch.tensor(rows[i:i + size])


def validation_loss(model, stream, length):
    """Mean nats a token over the held-out stream, in windows of `length`."""
    model.eval()
    total, count = 0.0, 0
    with torch.no_grad():
        for i in range(0, len(stream) - 1, length):
            row = torch.tensor([stream[i:i + length + 1]])
            logits = model(row[:, :-1])
            total += F.cross_entropy(logits[0], row[0, 1:], reduction="sum").item()
            count += row.shape[1] - 1
    model.train()
    return total / count


def sample(model, tokenizer, prompt, count, temperature, generator):
    model.eval()
    tokens = tokenizer.encode(prompt)
    with torch.no_grad():
        for _ in range(count):
            logits = model(torch.tensor([tokens[-CONFIG["max_position_embeddings"]:]]))[0, -1]
            tokens.append(torch.multinomial(torch.softmax(logits / temperature, -1), 1, generator=generator).item())
            if tokens[-1] == END_ID:
                break
    model.train()
    return tokenizer.decode(tokens)


def decayed(model, decay):
    matrices = [p for p in model.parameters() if p.dim() == 2]
    vectors = [p for p in model.parameters() if p.dim() == 1]
    return [{"params": matrices, "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0}]


def train(args, model, tokenizer, documents, held_out, held_out_bytes):
    optimizer = torch.optim.AdamW(decayed(model, args.decay), lr=args.rate, betas=(0.9, 0.95))
    length, size = args.length // 2, args.batch * 2  # the cheaper half first: attention costs length squared
    rng = random.Random(args.seed)
    feed = batches(documents, tokenizer, length, size, rng)
    started, best = time.monotonic(), math.inf
    step, done, running = 0, 0.0, 0.0
    while done < 1:
        done = min(1.0, max((step + 1) / args.steps, (time.monotonic() - started) / (60 * args.minutes)))
        warm = min(1.0, (step + 1) / 100)
        for group in optimizer.param_groups:
            group["lr"] = args.rate * warm * (0.02 + 0.98 * (1 + math.cos(math.pi * done)) / 2)
        if done >= 0.7 and length < args.length:
            length, size = args.length, args.batch
            feed = batches(documents, tokenizer, length, size, rng)
        batch = next(feed)
        logits = model(batch[:, :-1])
        loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        running = loss.item() if step == 1 else 0.95 * running + 0.05 * loss.item()
        if step % args.every == 0 or done == 1:
            held = validation_loss(model, held_out, args.length)  # whole length: high until it is trained on
            bits = held * (len(held_out) - 1) / math.log(2) / held_out_bytes
            print(f"step {step}  {time.monotonic() - started:.0f} s  {100 * done:.0f} %  train {running:.3f}  "
                  f"validation {held:.4f} a token, {bits:.4f} bits a byte{'  *' if held < best else ''}", flush=True)
            if held < best:
                best = held
                write_model(args.out, model)
    print(f"best validation loss {best:.4f} after {step} steps of {args.batch * args.length} tokens")


def main():
    parser = argparse.ArgumentParser(description="Train the demo model on the Jargon File.")
    parser.add_argument("--out", default=os.path.join(os.path.dirname(__file__), "../config/models/demo"))
    parser.add_argument("--minutes", type=float, default=35)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--batch", type=int, default=6)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--rate", type=float, default=2.5e-3)
    parser.add_argument("--decay", type=float, default=0.1)
    parser.add_argument("--dropout", type=float, default=0.15)
    parser.add_argument("--every", type=int, default=200, help="steps between validations")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    if not os.path.exists(TEXT):
        sys.exit(f"{TEXT} is missing: {NEEDED}")
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    os.makedirs(args.out, exist_ok=True)

    documents = read_documents(TEXT)
    random.Random(args.seed).shuffle(documents)
    cut = len(documents) // 25
    held_documents, documents = documents[:cut], documents[cut:]
    text = "\n".join(render(d, random.Random(i)) for i, d in enumerate(documents))
    tokenizer = Tokenizer(train_merges(text, CONFIG["vocab_size"] - 257))
    write_tokenizer(args.out, tokenizer)

    held_texts = [f"{term}: {body}" if term else body for term, body in held_documents]
    held_out = [i for t in held_texts for i in [*tokenizer.encode(t), END_ID]]
    held_out_bytes = sum(len(t.encode()) for t in held_texts)
    model = Llama(CONFIG, args.dropout)
    print(f"{len(documents)} documents, {len(text.encode())} bytes, {len(tokenizer.encode(text))} tokens; held out "
          f"{cut} documents, {held_out_bytes} bytes, {len(held_out)} tokens; "
          f"{sum(p.numel() for p in model.parameters())} parameters", flush=True)
    train(args, model, tokenizer, documents, held_out, held_out_bytes)
    for prompt in ("The hacker", "user: What is a daemon?\nassistant:"):
        print("---", sample(model, tokenizer, prompt, 120, 0.7, torch.Generator().manual_seed(1)), sep="\n")


if __name__ == "__main__":
    main()

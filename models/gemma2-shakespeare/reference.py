"""Writes reference.json and reference.safetensors: logits and greedy continuations by transformers.

    python reference.py            # beside config.json, model.safetensors and tokenizer.json

f32 arithmetic on the bf16 weights, eager attention. Also prints the loss on the held-out plays when
their text is given: python reference.py val.txt.gz
"""

import gzip
import json
import sys

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import Gemma2ForCausalLM

# The file that is replaced names the prompts.
PROMPTS = [entry["prompt"] for entry in json.load(open("reference.json"))]
NEW = 40
BOS = 2

torch.set_num_threads(1)
tokenizer = Tokenizer.from_file("tokenizer.json")
model = Gemma2ForCausalLM.from_pretrained(".", attn_implementation="eager", dtype=torch.float32).eval()


def encode(text):
    return tokenizer.encode(text, add_special_tokens=False).ids


@torch.no_grad()
def reference(prompt):
    ids = torch.tensor([[BOS] + encode(prompt)])
    logits = model(input_ids=ids).logits[0]
    margin, row = float("inf"), logits[-1]
    all_ids = ids
    for _ in range(NEW):
        best = row.topk(2)
        margin = min(margin, (best.values[0] - best.values[1]).item())
        all_ids = torch.cat([all_ids, best.indices[:1][None]], 1)
        row = model(input_ids=all_ids).logits[0, -1]
    return ids[0], logits, all_ids[0], margin


@torch.no_grad()
def held_out(path, window=256):
    ids = encode(gzip.open(path, "rt").read())
    total = count = 0
    for start in range(0, len(ids) - window - 1, window):
        x = torch.tensor([[BOS] + ids[start : start + window - 1]])
        y = torch.tensor(ids[start : start + window])
        total += torch.nn.functional.cross_entropy(model(input_ids=x).logits[0], y, reduction="sum").item()
        count += window
    characters = len(tokenizer.decode(ids[: count], skip_special_tokens=False))
    return total / count, total / np.log(2) / characters


tensors, texts = {}, []
for index, prompt in enumerate(PROMPTS):
    ids, logits, greedy, margin = reference(prompt)
    tensors[f"{index}/input_ids"] = ids
    tensors[f"{index}/logits"] = logits.contiguous()
    tensors[f"{index}/greedy_ids"] = greedy
    text = tokenizer.decode(greedy[1:].tolist(), skip_special_tokens=False)
    texts.append({"prompt": prompt, "min_margin": round(margin, 4), "text": text})
save_file(tensors, "reference.safetensors")
json.dump(texts, open("reference.json", "w"), indent=1)
for text in texts:
    print(text["min_margin"], repr(text["text"]))
if len(sys.argv) > 1:
    print("held-out: %.4f nats a token, %.4f bits a character" % held_out(sys.argv[1]))

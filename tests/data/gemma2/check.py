"""Checks each checkpoint's files against each other: shapes, dtypes, shards, margins, sensitivity.

python check.py
"""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file
from safetensors import safe_open

HERE = Path(__file__).parent


def tensor_names(folder):
    """All tensor names of a checkpoint; an index must place each in the shard that holds it."""
    found = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "np") as tensors:
            found |= dict.fromkeys(tensors.keys(), file.name)
    index = folder / "model.safetensors.index.json"
    if index.exists():
        assert json.loads(index.read_text())["weight_map"] == found
    return set(found)


def check(folder):
    config = json.loads((folder / "config.json").read_text())
    meta = json.loads((folder / "ref_meta.json").read_text())
    prompt, logits, tokens, steps = (
        np.load(folder / f"ref_{name}.npy")
        for name in ("input_ids", "logits_f32", "greedy_ids", "greedy_logits_f32")
    )
    vocabulary = config["vocab_size"]
    assert prompt.dtype == tokens.dtype == np.int64
    assert logits.dtype == steps.dtype == np.float32
    assert logits.shape == (len(prompt), vocabulary) and steps.shape == (len(tokens), vocabulary)
    assert len(prompt) > config["sliding_window"] + 1
    assert (steps.argmax(1) == tokens).all() and np.allclose(steps[0], logits[-1], atol=1e-4)
    assert meta["greedy_min_margin"] > 0.05
    for name, change in meta.items():
        assert not name.startswith("sens_") or change > 5e-3, name
    names = tensor_names(folder)
    assert len(names) == 2 + 11 * config["num_hidden_layers"]
    print(folder.name, len(names), "tensors,", config["dtype"])


if __name__ == "__main__":
    for config in sorted(HERE.glob("*/config.json")):
        check(config.parent)
    odd = load_file(HERE / "odd/model.safetensors")
    shards = {}
    for file in (HERE / "sharded").glob("*.safetensors"):
        shards |= load_file(file)
    assert odd.keys() == shards.keys() and all((odd[k] == shards[k]).all() for k in odd)

"""Writes small random Gemma 2 checkpoints with reference logits and a greedy continuation.

The models have unusual parameters (a prompt longer than the window, odd widths and, but for `tiny`,
head size != query scale), since defaults hide bugs. Weights are drawn wide enough that every
feature moves the logits; `ref_meta.json` records by how much, each feature taken away in turn.

    pip install torch transformers safetensors numpy
    python make.py [NAME ...]
"""

import copy
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import torch
import transformers
from transformers import Gemma2Config, Gemma2ForCausalLM

HERE = Path(__file__).parent

ODD = {
    "vocab_size": 131,
    "hidden_size": 36,
    "intermediate_size": 42,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "num_key_value_heads": 1,
    "head_dim": 20,
    "query_pre_attn_scalar": 24,
    "sliding_window": 5,
    "max_position_embeddings": 64,
}
BF16 = {
    "vocab_size": 97,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "query_pre_attn_scalar": 12,
    "sliding_window": 7,
    "max_position_embeddings": 64,
}
TINY = {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 176,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "query_pre_attn_scalar": 32,
    "sliding_window": 16,
    "max_position_embeddings": 256,
}
# name: config, weight type, seed, prompt length, new tokens, least margin, bytes a shard
MODELS = {
    "tiny": (TINY, torch.float32, 7, 40, 20, 0.08, None),
    "odd": (ODD, torch.float32, 11, 24, 12, 0.05, None),
    "bf16": (BF16, torch.bfloat16, 13, 24, 12, 0.05, None),
    "sharded": (ODD, torch.float32, 11, 24, 12, 0.05, 90_000),
}


def spread(name, parameter):
    """Standard deviation and mean of a parameter's random values."""
    if name == "model.norm.weight":
        return 1.0, 10.0
    if "norm" in name:
        return 0.2, 0.0
    if "embed" in name:
        return 0.065, 0.0
    gain = 2.0 if "q_proj" in name or "k_proj" in name else 1.0
    return gain / parameter.shape[1] ** 0.5, 0.0


def random_model(config, seed):
    """A model with every weight drawn from `seed`, in the order of the parameters' names."""
    model = build(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            deviation, mean = spread(name, parameter)
            values = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(values * deviation + mean)
    model.tie_weights()
    return model


def build(config):
    return Gemma2ForCausalLM._from_config(
        config, attn_implementation="eager", dtype=torch.float32
    ).eval()


def logits(model, ids):
    """Logits of every position, (time, vocabulary), without a cache."""
    with torch.no_grad():
        return model(ids[None], use_cache=False).logits[0]


def greedy(model, prompt, count):
    """`count` greedy tokens without a cache, the logits each was chosen from, the least margin."""
    ids, steps, margins = prompt, [], []
    for _ in range(count):
        last = logits(model, ids)[-1]
        best = last.topk(2)
        margins.append((best.values[0] - best.values[1]).item())
        steps.append(last)
        ids = torch.cat([ids, best.indices[:1]])
    return ids[len(prompt) :], torch.stack(steps), min(margins)


def cached_greedy(model, prompt, count):
    """The same tokens from transformers' own generation with a key-value cache.

    The mask says that no token of the prompt is padding, whatever its id.
    """
    with torch.no_grad():
        out = model.generate(
            prompt[None],
            attention_mask=torch.ones_like(prompt)[None],
            max_new_tokens=count,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )
    return out[0, len(prompt) :]


def choose_prompt(model, seed, length, count, least_margin):
    """The first random prompt whose greedy path has no near-tie and does not repeat itself."""
    for attempt in range(1000):
        generator = torch.Generator().manual_seed(seed + 1000 + attempt)
        prompt = torch.randint(0, model.config.vocab_size, (length,), generator=generator)
        path = greedy(model, prompt, count)
        if path[2] > least_margin and len(set(path[0].tolist())) >= count // 2:
            return prompt, path
    raise SystemExit("no prompt with a clear greedy path: choose another seed")


def ablations(config):
    """Each feature that a port may forget, as the change to the config that takes it away."""
    kinds = config.layer_types
    other = {"full_attention": "sliding_attention", "sliding_attention": "full_attention"}
    scalar = config.head_dim
    if config.query_pre_attn_scalar == scalar:
        scalar *= 2
    return {
        "no_attn_softcap": {"attn_logit_softcapping": None},
        "no_final_softcap": {"final_logit_softcapping": None},
        "all_global": {"layer_types": ["full_attention"] * len(kinds)},
        "all_sliding": {"layer_types": ["sliding_attention"] * len(kinds)},
        "swapped_layer_types": {"layer_types": [other[kind] for kind in kinds]},
        "window_off_by_one": {"sliding_window": config.sliding_window + 1},
        "window_one_less": {"sliding_window": config.sliding_window - 1},
        "qscalar_headdim": {"query_pre_attn_scalar": scalar},
        "gelu_exact": {"hidden_activation": "gelu"},
    }


def sensitivity(model, prompt, reference):
    """The largest change of a logit when a feature is taken away, by feature."""
    changes = {}
    for name, change in ablations(model.config).items():
        config = copy.deepcopy(model.config)
        for key, value in change.items():
            setattr(config, key, value)
        ablated = build(config)
        ablated.load_state_dict(model.state_dict())
        difference = logits(ablated, prompt) - reference
        changes[f"sens_{name}"] = difference.abs().max().item()
    return changes


def save(model, folder, weight_type, shard_bytes):
    """Writes the checkpoint in the layout of the Hugging Face hub."""
    shutil.rmtree(folder, ignore_errors=True)
    model = model.to(weight_type)
    model.config.dtype = weight_type
    model.generation_config.eos_token_id = None
    limits = {} if shard_bytes is None else {"max_shard_size": shard_bytes}
    model.save_pretrained(folder, **limits)
    for file in folder.iterdir():
        file.chmod(0o644)


def make(name):
    parameters, weight_type, seed, length, count, least_margin, shard_bytes = MODELS[name]
    folder = HERE / name
    save(random_model(Gemma2Config(**parameters), seed), folder, weight_type, shard_bytes)
    model = Gemma2ForCausalLM.from_pretrained(
        folder, attn_implementation="eager", dtype=torch.float32
    ).eval()
    prompt, path = choose_prompt(model, seed, length, count, least_margin)
    tokens, steps, margin = path
    reference = logits(model, prompt)
    assert cached_greedy(model, prompt, count).equal(tokens), "the cache changes nothing"
    meta = {
        "seed": seed,
        "transformers": transformers.__version__,
        "torch": torch.__version__,
        "attn": "eager",
        "compute": "float32",
        "weights": str(weight_type).removeprefix("torch."),
        "logit_absmax": reference.abs().max().item(),
        "greedy_min_margin": margin,
        "params": sum(p.numel() for p in model.parameters()),
    }
    meta |= sensitivity(model, prompt, reference)
    wide = logits(copy.deepcopy(model).double(), prompt)
    meta["f32_vs_f64_maxdiff"] = (reference - wide).abs().max().item()
    np.save(folder / "ref_input_ids.npy", prompt.numpy())
    np.save(folder / "ref_logits_f32.npy", reference.numpy())
    np.save(folder / "ref_greedy_ids.npy", tokens.numpy())
    np.save(folder / "ref_greedy_logits_f32.npy", steps.numpy())
    (folder / "ref_meta.json").write_text(json.dumps(meta, indent=1) + "\n")
    print(name, json.dumps(meta, indent=1))


if __name__ == "__main__":
    torch.set_num_threads(1)
    for wanted in sys.argv[1:] or MODELS:
        make(wanted)

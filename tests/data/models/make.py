"""Writes small random checkpoints of the Llama family and Gemma 3 with reference logits.

Sizes and constants are not the defaults, which hide bugs, and weights (biases and norms too) are
drawn wide enough that every feature moves the logits; `ref_meta.json` records by how much, each
feature of the configuration taken away in turn.

    pip install torch transformers safetensors numpy
    python make.py [NAME ...]
"""

import copy
import json
import shutil
import sys
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "gemma2"))
import make as shared  # noqa: E402  (the prompts and continuations of the Gemma 2 checkpoints)

COMMON = {"vocab_size": 101, "max_position_embeddings": 64, "bos_token_id": 1, "eos_token_id": 2}
LLAMA = COMMON | {
    "hidden_size": 36,
    "intermediate_size": 44,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 12,
    "rms_norm_eps": 3e-4,
}
SCALED = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
ROPE = {"rope_type": "default", "rope_theta": 300.0}
KINDS = ["sliding_attention", "sliding_attention", "full_attention"]
GEMMA = COMMON | {
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 6,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 20,
    "query_pre_attn_scalar": 24,
    "sliding_window": 5,
    "layer_types": KINDS * 2,
    "final_logit_softcapping": 20.0,
    "rope_parameters": {
        "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 3000.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 40.0},
    },
}
ALL_BIASES = {"attention_bias": True, "mlp_bias": True}
# name: kind, config, weight type, seed
MODELS = {
    "llama": ("llama", LLAMA | ALL_BIASES | {"rope_parameters": SCALED}, torch.float32, 3),
    "smollm2": (
        "llama",
        LLAMA | {"tie_word_embeddings": True, "rope_parameters": ROPE},
        torch.bfloat16,
        5,
    ),
    "mistral": (
        "mistral",
        LLAMA | {"sliding_window": 7, "rope_parameters": ROPE},
        torch.bfloat16,
        7,
    ),
    "qwen2": (
        "qwen2",
        LLAMA
        | {
            "head_dim": 6,
            "tie_word_embeddings": True,
            "use_sliding_window": True,
            "sliding_window": 6,
            "max_window_layers": 1,
            "rope_parameters": ROPE | {"rope_type": "linear", "factor": 2.0},
        },
        torch.bfloat16,
        11,
    ),
    "qwen3": ("qwen3", LLAMA | {"rope_parameters": ROPE}, torch.bfloat16, 13),
    "gemma3": ("gemma3_text", GEMMA, torch.bfloat16, 17),
}
PROMPT, NEW, LEAST_MARGIN = 24, 12, 0.05


def spread(name, parameter, gemma):
    """Standard deviation and mean of a parameter's random values."""
    if "norm" in name:
        mean = 0.0 if gemma else 1.0
        return (1.0, 10.0) if name == "model.norm.weight" and gemma else (0.2, mean)
    if name.endswith("bias"):
        return 0.3, 0.0
    if "embed" in name:
        return (0.065, 0.0) if gemma else (0.4, 0.0)
    gain = 2.0 if any(part in name for part in ["q_proj", "k_proj", "lm_head"]) else 1.0
    return gain / parameter.shape[1] ** 0.5, 0.0


def build(config):
    return AutoModelForCausalLM.from_config(
        config, attn_implementation="eager", dtype=torch.float32
    ).eval()


def random_model(config, seed):
    """A model with every weight drawn from `seed`, in the order of the parameters' names."""
    model = build(config)
    generator = torch.Generator().manual_seed(seed)
    gemma = config.model_type.startswith("gemma")
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            deviation, mean = spread(name, parameter, gemma)
            values = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(values * deviation + mean)
    model.tie_weights()
    return model


def ablations(config):
    """Each feature of the configuration that a port may forget, as a change that takes it away."""
    found = {}
    if config.model_type.startswith("gemma"):
        ropes = config.rope_parameters
        full, sliding = ropes["full_attention"], ropes["sliding_attention"]
        plain = {"rope_type": "default", "rope_theta": full["rope_theta"]}
        kinds = config.layer_types
        found |= {
            "rope_unscaled": {"rope_parameters": ropes | {"full_attention": plain}},
            "one_rope": {"rope_parameters": ropes | {"sliding_attention": full}},
            "local_rope": {"rope_parameters": ropes | {"full_attention": sliding}},
            "all_global": {"layer_types": ["full_attention"] * len(kinds)},
            "no_final_softcap": {"final_logit_softcapping": None},
            "qscalar_headdim": {"query_pre_attn_scalar": config.head_dim},
        }
    else:
        rope = {"rope_type": "default", "rope_theta": config.rope_parameters["rope_theta"]}
        found["theta_10000"] = {"rope_parameters": rope | {"rope_theta": 10_000.0}}
        if config.rope_parameters["rope_type"] != "default":
            found["rope_unscaled"] = {"rope_parameters": rope}
    if getattr(config, "sliding_window", None):
        found["window_off_by_one"] = {"sliding_window": config.sliding_window + 1}
        found["window_one_less"] = {"sliding_window": config.sliding_window - 1}
    return found


def sensitivity(model, prompt, reference):
    """The largest change of a logit when a feature is taken away, by feature."""
    changes = {}
    for name, change in ablations(model.config).items():
        config = copy.deepcopy(model.config)
        for key, value in change.items():
            setattr(config, key, value)
        ablated = build(config)
        ablated.load_state_dict(model.state_dict())
        difference = shared.logits(ablated, prompt) - reference
        changes[f"sens_{name}"] = difference.abs().max().item()
    return changes


def make(name):
    kind, parameters, weight_type, seed = MODELS[name]
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    model = random_model(AutoConfig.for_model(kind, **parameters), seed).to(weight_type)
    model.config.dtype = weight_type
    model.generation_config.eos_token_id = None
    model.save_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(
        folder, attn_implementation="eager", dtype=torch.float32
    ).eval()
    prompt, path = shared.choose_prompt(model, seed, PROMPT, NEW, LEAST_MARGIN)
    tokens, steps, margin = path
    reference = shared.logits(model, prompt)
    assert shared.cached_greedy(model, prompt, NEW).equal(tokens), "the cache changes nothing"
    wide = shared.logits(copy.deepcopy(model).double(), prompt)
    meta = {
        "seed": seed,
        "transformers": transformers.__version__,
        "torch": torch.__version__,
        "logit_absmax": reference.abs().max().item(),
        "greedy_min_margin": margin,
        "params": sum(p.numel() for p in model.parameters()),
        "f32_vs_f64_maxdiff": (reference - wide).abs().max().item(),
    } | sensitivity(model, prompt, reference)
    tensors = {
        "input_ids": prompt,
        "logits": reference,
        "greedy_ids": tokens,
        "greedy_logits": steps,
    }
    tensors = {key: value.contiguous() for key, value in tensors.items()}
    save_file(tensors, folder / "ref.safetensors")
    (folder / "ref_meta.json").write_text(json.dumps(meta, indent=1) + "\n")
    for file in folder.iterdir():
        file.chmod(0o644)
    print(name, json.dumps(meta, indent=1))


if __name__ == "__main__":
    torch.set_num_threads(1)
    for wanted in sys.argv[1:] or MODELS:
        make(wanted)

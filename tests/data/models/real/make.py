"""Writes how real models read and continue texts: by llama.cpp and by transformers.

    pip install torch transformers accelerate gguf jinja2
    c++ ... llama_cpp.cpp -o llama_cpp     (see there)
    python make.py LLAMA_CPP MODELS        (MODELS: the folder that `make models` fills)
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import gguf
import jinja2
import torch
from transformers import AutoModelForCausalLM

HERE = Path(__file__).parent
MODELS = {
    "smollm2": "SmolLM2-135M-Instruct.Q4_1.gguf",
    "gemma3": "gemma-3-270m-q4_k_m.gguf",
}
NEW = 40


def continuations(path, texts, tool, count):
    """What llama.cpp says of each text: its ids, and the best two tokens of each step."""
    with tempfile.TemporaryDirectory() as folder:
        prompts, out = Path(folder) / "prompts", Path(folder) / "out.json"
        prompts.write_bytes("\x1e".join(texts).encode())
        subprocess.run([tool, path, prompts, str(count), out], check=True)
        return json.loads(out.read_text())


def exact(model, ids, chosen):
    """The best two tokens after `ids` and all but the last of the chosen ones, step by step."""
    with torch.no_grad():
        logits = model(torch.tensor([ids + chosen[:-1]])).logits[0, len(ids) - 1 :]
    best = logits.topk(2)
    rows = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return [[i[0], round(v[0], 5), i[1], round(v[1], 5)] for i, v in rows]


def chat_prompts(path, messages):
    """Messages of a user in the form of the file's chat template; nothing where it has none."""
    field = gguf.GGUFReader(path).fields.get("tokenizer.chat_template")
    if field is None:
        return []
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(field.contents())
    said = [[{"role": "user", "content": text}] for text in messages]
    return [template.render(messages=one, add_generation_prompt=True) for one in said]


def make(name, tool, folder):
    known = json.loads((HERE / f"{name}.json").read_text())
    path = folder / MODELS[name]
    texts = [entry["text"] for entry in known["tokenize"]]
    plain = [case["prompt"] for case in known["cases"] if case["user"] is None]
    users = [case["user"] for case in known["cases"] if case["user"] is not None]
    prompts = plain + chat_prompts(path, users)
    model = AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=path.name, dtype=torch.float32
    ).eval()
    lists = continuations(path, texts, tool, 0)
    tokenize = [{"text": t, "ids": r["ids"]} for t, r in zip(texts, lists, strict=True)]
    cases = []
    found = continuations(path, prompts, tool, NEW)
    for user, prompt, row in zip([None] * len(plain) + users, prompts, found, strict=True):
        steps = [[a, round(b, 5), c, round(d, 5)] for a, b, c, d in row["steps"]]
        after = exact(model, row["ids"], [step[0] for step in steps])
        case = {"user": user, "prompt": prompt, "ids": row["ids"]}
        cases.append(case | {"llama_cpp": steps, "transformers": after})
    lines = [
        ",\n".join(json.dumps(entry, separators=(",", ":")) for entry in part)
        for part in (tokenize, cases)
    ]
    text = '{"file": %s,\n"tokenize": [\n%s\n],\n"cases": [\n%s\n]}\n'
    (HERE / f"{name}.json").write_text(text % (json.dumps(path.name), *lines))


if __name__ == "__main__":
    torch.set_num_threads(1)
    for wanted in MODELS:
        make(wanted, sys.argv[1], Path(sys.argv[2]))

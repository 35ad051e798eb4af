"""Checks the files of this folder: every JSON loads, every tensor key resolves, none is left over.

Every edge case is also computed again in f64 and must agree with its recorded f32 result within the
tolerances of README.md, so that no recorded value is an accident of torch's vector code.

    python check.py
"""

import json
import warnings
from pathlib import Path

import torch
from safetensors.torch import load_file

from edge_ops import callable_of

HERE = Path(__file__).parent
LOOSE = {"reduction", "linalg", "norm_attn", "nn"}


class Decoder:
    """The inverse of `CaseFile.encode`; with `wide`, f32 tensors become f64."""

    def __init__(self, tensors):
        self.tensors = tensors
        self.used = set()

    def __call__(self, value, wide=False):
        if isinstance(value, list):
            return [self(item, wide) for item in value]
        if not isinstance(value, dict):
            return value
        if "tensor" in value:
            self.used.add(value["tensor"])
            tensor = self.tensors[value["tensor"]]
            return tensor.double() if wide and tensor.dtype == torch.float32 else tensor
        if "float" in value:
            return float(value["float"])
        if "slice" in value:
            return slice(*value["slice"])
        if "ellipsis" in value:
            return Ellipsis
        if isinstance(value.get("dtype"), str):
            return torch.int64 if value["dtype"] == "I64" else torch.float64
        return {name: self(item, wide) for name, item in value.items()}


def agrees(case, got, wide):
    """Whether a recorded f32 result is the f64 one, rounded, within the tolerances."""
    rtol = 1e-4 if case["family"] in LOOSE else 1e-5
    wide = wide.to(got.dtype)
    return got.shape == wide.shape and torch.allclose(
        got, wide, rtol=rtol, atol=case.get("atol", 1e-6), equal_nan=True
    )


def check(stem, recompute):
    content = json.loads((HERE / f"{stem}.json").read_text())
    decode = Decoder(load_file(HERE / f"{stem}.safetensors"))
    cases = content["cases"]
    for case in cases:
        inputs = [decode(case[key], wide=True) for key in ("input", "args", "kwargs")]
        out = decode(case["out"])
        decode(case.get("grads"))
        if recompute:
            wide = callable_of(case["op"])(inputs[0], *inputs[1], **inputs[2])
            pairs = zip(out, wide, strict=True) if isinstance(out, list) else [(out, wide)]
            assert all(agrees(case, got, want) for got, want in pairs), case["id"]
    ids = {case["id"] for case in cases}
    assert len(ids) == len(cases), "ids are unique"
    assert decode.used == set(decode.tensors), "every tensor belongs to a case"
    print(f"{stem}: {len(cases)} cases, {len(decode.used)} tensors")


if __name__ == "__main__":
    warnings.filterwarnings("ignore", message=r"(var|std)\(\): degrees of freedom")
    check("ops", recompute=False)
    check("edge", recompute=True)

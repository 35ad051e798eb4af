"""The case format shared by `make.py` and `edge.py`: encode values, write the two files.

A case is a JSON object `{id, op, family, input, args, kwargs, out[, grads]}`. Tensors live in a
safetensors file and are named in the JSON by `{"tensor": key, "grad": requires_grad}`. Other values
stand for themselves, except those JSON cannot hold:

    {"float": "nan"}            a float that is not finite: nan, inf or -inf
    {"slice": [a, b, step]}     a Python slice
    {"ellipsis": true}          `...`
    {"dtype": "F32"}            a torch dtype, by its safetensors name
"""

import json
import math
from pathlib import Path

import torch
from safetensors.torch import save_file

DTYPES = {
    torch.float32: "F32",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.bool: "BOOL",
}


class CaseFile:
    """Collects cases and their tensors, then writes `<stem>.json` and `<stem>.safetensors`."""

    def __init__(self, max_elements):
        self.max_elements = max_elements
        self.cases = []
        self.tensors = {}

    def encode(self, value, key):
        """The JSON form of `value`; tensors inside it are stored under `key`, `key.0`, `key.name`.

        Raises ValueError for what the format does not hold (other dtypes, large or sparse tensors).
        """
        if isinstance(value, torch.Tensor):
            return self._encode_tensor(value, key)
        if isinstance(value, (list, tuple)):
            return [self.encode(item, f"{key}.{i}") for i, item in enumerate(value)]
        if isinstance(value, dict):
            return {name: self.encode(item, f"{key}.{name}") for name, item in value.items()}
        if value is None or isinstance(value, (bool, int, str)):
            return value
        if isinstance(value, float):
            return value if math.isfinite(value) else {"float": str(value)}
        if isinstance(value, slice):
            return {"slice": [value.start, value.stop, value.step]}
        if value is Ellipsis:
            return {"ellipsis": True}
        if isinstance(value, torch.dtype) and value in DTYPES:
            return {"dtype": DTYPES[value]}
        raise ValueError(f"no encoding for {type(value).__name__}")

    def _encode_tensor(self, tensor, key):
        if tensor.dtype not in DTYPES or tensor.layout != torch.strided:
            raise ValueError(f"tensor of {tensor.dtype}, {tensor.layout}")
        if tensor.numel() > self.max_elements:
            raise ValueError(f"tensor of {tensor.numel()} elements")
        self.tensors[key] = tensor.detach().clone(memory_format=torch.contiguous_format)
        return {"tensor": key, "grad": tensor.requires_grad}

    def keep_only(self, ids):
        """Drops every case whose id is not in `ids`, with its tensors."""
        self.cases = [case for case in self.cases if case["id"] in ids]
        self.tensors = {
            key: tensor for key, tensor in self.tensors.items() if key.split("/")[0] in ids
        }

    def write(self, stem):
        """Writes both files beside `stem`; wider types come first, so every tensor is aligned."""
        stem = Path(stem)
        save_file(self.tensors, stem.with_suffix(".safetensors"))
        with open(stem.with_suffix(".json"), "w") as file:
            content = {"torch": torch.__version__, "cases": self.cases}
            json.dump(content, file, allow_nan=False, separators=(",", ":"))

"""Writes `edge.json` and `edge.safetensors`: forward values at the edges of each op.

Tensors are small (at most 64 elements, 160 for a few attention cases). An id is `op#edge.tag`; the
tag says which edge: `special` (NaN, infinities, signed zeros), `tiny` (subnormals and values below
1e-7), `huge`, `empty`, `scalar`, `tie`, and so on. Cases whose results are tiny carry an `atol`.

    pip install torch numpy safetensors
    python edge.py

Left out, since torch leaves it open: which of equal elements `topk` returns, and the order of
additions where an overflow depends on it.
"""

import collections
import warnings
from pathlib import Path

import torch

import edge_nn
import edge_shape
import edge_values
from cases import CaseFile
from edge_ops import callable_of

MAX_ELEMENTS = 160


class EdgeFile(CaseFile):
    """A case file with a current family, and `add` to run and record one case."""

    def __init__(self):
        super().__init__(MAX_ELEMENTS)
        self.family = None
        self.ids = set()

    def add(self, op, tag, input, *args, atol=None, **kwargs):
        """Runs `op` as torch's OpInfo calls it and records the case `op#edge.tag`."""
        case = f"{op}#edge.{tag}"
        assert case not in self.ids, f"{case} exists"
        self.ids.add(case)
        out = callable_of(op)(input, *args, **kwargs)
        record = {
            "id": case,
            "op": op,
            "family": self.family,
            "input": self.encode(input, f"{case}/in"),
            "args": self.encode(list(args), f"{case}/arg"),
            "kwargs": self.encode(kwargs, f"{case}/kw"),
            "out": self.encode(out, f"{case}/out"),
        }
        if atol is not None:
            record["atol"] = atol
        self.cases.append(record)


def main():
    warnings.filterwarnings("ignore", message=r"(var|std)\(\): degrees of freedom")
    torch.set_num_threads(1)
    file = EdgeFile()
    for module in (edge_values, edge_shape, edge_nn):
        for family, sections in module.SECTIONS.items():
            file.family = family
            for section in sections:
                section(file)
    file.write(Path(__file__).with_name("edge"))
    counts = collections.Counter(case["op"] for case in file.cases)
    print(len(file.cases), "cases of", len(counts), "ops")
    for op, count in counts.items():
        print(f"  {op} {count}")


if __name__ == "__main__":
    main()

"""Op names to callables, with the calling conventions of torch's OpInfo, and shared inputs."""

import math

import torch
import torch.nn.functional as F

INF, NAN = math.inf, math.nan
F32_MAX = 3.4028234663852886e38

SPECIAL = [NAN, INF, -INF, 0.0, -0.0, 1.0, -1.0]
TINY = [1e-45, -1e-45, 1e-40, -1e-40, 1.1754944e-38, -1.1754944e-38]
TINY += [1e-30, -1e-30, 1e-20, -1e-20, 1e-8, -1e-8, 1e-7, -1e-7]
HUGE = [1e10, -1e10, 1e19, -1e19, 1e30, -1e30, F32_MAX, -F32_MAX]
HALVES = [k / 2 for k in range(-8, 9)]
# Absolute tolerance where results may be subnormal: some hundred units in the last place.
SUBNORMAL = 1e-42


def t(*values):
    """A vector of f32."""
    return torch.tensor(values, dtype=torch.float32)


def i64(values):
    return torch.tensor(values, dtype=torch.int64)


def empty(*shape):
    return torch.zeros(shape)


def rand(*shape, seed=0):
    """Seeded normal values, rounded to multiples of 1/64 so that they print well."""
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return (torch.randn(shape, generator=generator) * 64).round() / 64


def rotary_embedding(x, base, offset):
    """Half-split rotation of (batch, heads, time, size): pairs are (i, i + size/2).

    The position of row `s` is `offset + s`, the angle of pair `i` is `position * base^(-2i/size)`.
    """
    size = x.shape[-1]
    frequency = base ** (-torch.arange(0, size, 2, dtype=torch.float64) / size)
    angle = torch.outer(torch.arange(x.shape[-2], dtype=torch.float64) + offset, frequency)
    cos, sin = angle.cos().repeat(1, 2), angle.sin().repeat(1, 2)
    low, high = x.double().chunk(2, -1)
    return (x.double() * cos + torch.cat([-high, low], -1) * sin).float()


def gemma_rms_norm(x, weight, eps):
    """RMSNorm over the last axis, scaled by `1 + weight`."""
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * (1 + weight)


NOT_BY_NAME = {
    "__getitem__": lambda x, index: x[tuple(index) if isinstance(index, list) else index],
    "einsum": lambda tensors, equation: torch.einsum(equation, *tensors),
    "expand": lambda x, shape: x.expand(shape),
    "max.reduction_with_dim": lambda x, *args, **kw: torch.max(x, *args, **kw),
    "min.reduction_with_dim": lambda x, *args, **kw: torch.min(x, *args, **kw),
    "nn.functional.embedding": lambda table, index: F.embedding(index, table),
    "nn.functional.pad.constant": lambda x, *args: F.pad(x, *args),
    "nn.gemma_rms_norm": gemma_rms_norm,
    "nn.rotary_embedding": rotary_embedding,
    "nn.softcap": lambda x, cap: cap * torch.tanh(x / cap),
    "sech": lambda x: 1 / torch.cosh(x),
    "slice": torch.ops.aten.slice,
    "repeat": lambda x, counts: x.repeat(counts),
    "unfold": lambda x, dim, size, step: x.unfold(dim, size, step),
    "where": lambda x, condition, other: torch.where(condition, x, other),
}


def callable_of(name):
    """The callable behind an op name: a special case, `torch.name` or `nn.functional.name`."""
    if name in NOT_BY_NAME:
        op = NOT_BY_NAME[name]
    elif name.startswith("nn.functional."):
        op = getattr(F, name.removeprefix("nn.functional."))
    else:
        op = getattr(torch, name)
    return lambda *args, **kwargs: _as_list(op(*args, **kwargs))


def _as_list(out):
    return list(out) if isinstance(out, tuple) else out

"""Edge cases of softmax and norms, and small golden values for nn modules (family `nn`)."""

import torch

from edge_ops import INF, NAN, SUBNORMAL, empty, i64, rand, t

F = "nn.functional."


def softmaxes(file):
    x = rand(2, 3, 4)
    rows = torch.tensor(
        [
            [1.0, NAN, 2.0],
            [-INF, 0.0, 1.0],
            [-INF, -INF, -INF],
            [INF, 0.0, 1.0],
            [88.0, 89.0, -500.0],
        ]
    )
    for op in ("softmax", "log_softmax"):
        for dim in (0, 1, 2, -1):
            file.add(op, f"dim.{dim}", x, dim)
        file.add(op, "large", t(1000.0, 1001.0), 0)
        file.add(op, "small", t(-1000.0, -1001.0), 0)
        file.add(op, "wide", t(0.0, -50.0, -100.0, -200.0), 0, atol=SUBNORMAL)
        file.add(op, "special", rows, 1)
        file.add(op, "one_element", t(-7.0), 0)
        file.add(op, "uniform", torch.full((2, 8), 3.0), 1)
        file.add(op, "huge", t(3e38, -3e38), 0)
        file.add(op, "empty", empty(0, 3), 1)
        file.add(op, "empty_rows", empty(3, 0), 1)
        file.add(op, "scalar", torch.tensor(2.0), 0)


def norms(file):
    x, weight, bias = rand(2, 3, 4), rand(4, seed=1), rand(4, seed=2)
    for op, affine in ((F + "layer_norm", [weight, bias]), (F + "rms_norm", [weight])):
        file.add(op, "plain", x, [4], eps=1e-5)
        file.add(op, "affine", x, [4], *affine, eps=1e-5)
        file.add(op, "two_axes", x, [3, 4], eps=1e-6)
        file.add(op, "large_eps", x, [4], eps=0.5)
        file.add(op, "zeros", torch.zeros(2, 4), [4], eps=1e-6)
        file.add(op, "constant", torch.full((2, 4), 5.0), [4], eps=1e-5)
        file.add(op, "large", torch.tensor([[1e4, 1.001e4, 0.999e4, 1e4]]), [4], eps=1e-5)
        file.add(op, "small", torch.tensor([[1e-4, -2e-4, 3e-4, 0.0]]), [4], eps=1e-6)
        file.add(op, "special", torch.tensor([[NAN, 1.0], [INF, 1.0], [1.0, 2.0]]), [2], eps=1e-6)
        file.add(op, "one_element", rand(3, 1), [1], eps=1e-5)
        file.add(op, "empty", empty(0, 4), [4], eps=1e-5)


def modules(file):
    x = rand(2, 3, 4)
    weight, bias = rand(5, 4, seed=1), rand(5, seed=2)
    file.add(F + "linear", "bias", x, weight, bias)
    file.add(F + "linear", "no_bias", x, weight)
    file.add(F + "linear", "vector", rand(4), weight, bias)
    file.add(F + "linear", "empty", empty(0, 4), weight, bias)
    table = rand(7, 3)
    file.add(F + "embedding", "matrix", table, i64([[0, 6, 3], [3, 3, 1]]))
    file.add(F + "embedding", "scalar", table, torch.tensor(2))
    file.add(F + "embedding", "empty", table, i64([]))
    file.add(F + "layer_norm", "module", x, [4], rand(4, seed=3), rand(4, seed=4), 1e-5)
    file.add(F + "rms_norm", "module", x, [4], rand(4, seed=3), 1e-6)
    file.add("nn.gemma_rms_norm", "module", x, rand(4, seed=3), 1e-6)
    file.add("nn.gemma_rms_norm", "large", x * 1e4, rand(4, seed=3), 1e-6)
    file.add("nn.softcap", "logits", torch.linspace(-120, 120, 25), 30.0)
    file.add("nn.softcap", "special", t(NAN, INF, -INF, 1e30, 1e-20), 50.0, atol=SUBNORMAL)


def rotary(file):
    """`args` are the base and the position of the first row."""
    x = rand(1, 2, 5, 8)
    file.add("nn.rotary_embedding", "start", x, 10000.0, 0)
    file.add("nn.rotary_embedding", "offset", x, 10000.0, 7)
    file.add("nn.rotary_embedding", "far", x, 10000.0, 5000)
    file.add("nn.rotary_embedding", "base", x, 100.0, 3)
    file.add("nn.rotary_embedding", "one_row", rand(2, 1, 1, 4), 10000.0, 9)
    file.add("nn.rotary_embedding", "two_wide", rand(1, 2, 3, 2), 10000.0, 1)


def attention(file):
    op = F + "scaled_dot_product_attention"
    q, k, v = (rand(1, 2, 5, 4, seed=s) for s in (0, 1, 2))
    file.add(op, "full", q, k, v)
    file.add(op, "causal", q, k, v, is_causal=True)
    file.add(op, "scale", q, k, v, is_causal=True, scale=0.25)
    file.add(op, "large_scores", q * 60, k, v, is_causal=True)
    file.add(op, "cross", q, *(rand(1, 2, 3, 4, seed=s) for s in (3, 4)))
    file.add(op, "one_query", q[:, :, :1], k, v)
    file.add(op, "value_width", q, k, rand(1, 2, 5, 3))
    mask = torch.tensor([[i - 2 < j <= i for j in range(5)] for i in range(5)])
    file.add(op, "window", q, k, v, attn_mask=mask)
    bias = torch.where(mask, 0.0, torch.tensor(-INF)) + rand(5, 5)
    file.add(op, "additive_mask", q, k, v, attn_mask=bias)
    grouped = rand(1, 4, 5, 4)
    file.add(op, "gqa", grouped, k, v, enable_gqa=True)
    file.add(op, "gqa_causal", grouped, k, v, is_causal=True, enable_gqa=True)
    one = [x[:, :1] for x in (k, v)]
    file.add(op, "multi_query_causal", grouped, *one, is_causal=True, enable_gqa=True)


SECTIONS = {
    "activation": [softmaxes],
    "norm_attn": [norms],
    "nn": [modules, rotary, attention],
}

"""Edge cases of elementwise ops, comparisons, activations and reductions."""

import torch

from edge_ops import F32_MAX, HALVES, HUGE, INF, NAN, SPECIAL, SUBNORMAL, TINY, empty, i64, rand, t

UNARY = """neg abs sign square sqrt rsqrt reciprocal exp exp2 log log2 log1p expm1 sin cos tan tanh
    sigmoid floor ceil round trunc sech""".split()

NN = "nn.functional."
ACTIVATIONS = [
    ("relu", "", {}),
    ("leaky_relu", "", {}),
    ("leaky_relu", "slope.", {"negative_slope": 0.25}),
    ("gelu", "", {"approximate": "none"}),
    ("gelu", "tanh.", {"approximate": "tanh"}),
    ("silu", "", {}),
    ("softplus", "", {}),
    ("softplus", "beta.", {"beta": 2.0, "threshold": 10.0}),
    ("elu", "", {}),
    ("elu", "alpha.", {"alpha": 0.5}),
    ("selu", "", {}),
    ("mish", "", {}),
    ("hardtanh", "", {}),
    ("hardtanh", "range.", {"min_val": -0.25, "max_val": 2.0}),
    ("hardsigmoid", "", {}),
    ("hardswish", "", {}),
    ("logsigmoid", "", {}),
]


def elementwise(file, op, prefix, without=(), **kwargs):
    """The cases that every function of one tensor gets; `without` lists arguments to leave out."""
    special, huge = ([x for x in values if x not in without] for values in (SPECIAL, HUGE))
    file.add(op, prefix + "halves", t(*HALVES), **kwargs)
    file.add(op, prefix + "special", t(*special), **kwargs)
    file.add(op, prefix + "tiny", t(*TINY), atol=SUBNORMAL, **kwargs)
    file.add(op, prefix + "huge", t(*huge), **kwargs)
    file.add(op, prefix + "scalar", torch.tensor(0.75), **kwargs)
    file.add(op, prefix + "empty", empty(2, 0, 3), **kwargs)


def unary(file):
    for op in UNARY:
        elementwise(file, op, "")
        file.add(op, "transposed", rand(3, 5).abs().t() + 0.25)


def unary_ranges(file):
    """Arguments where a careless formula loses digits, overflows or saturates."""
    near_zero = t(1e-8, 1e-20, -1e-8, -1e-20, 1e-4, -1e-4, 1e-3, -1e-3, 3e-2, -3e-2)
    for op in ("log1p", "expm1", "tanh", "sin", "tan"):
        file.add(op, "near_zero", near_zero, atol=SUBNORMAL)
    file.add("log1p", "near_minus_one", t(-1.0, -0.99999994, -0.999, -0.5, -1.0000001, -2.0))
    file.add("log", "near_one", t(0.99999994, 1.0, 1.0000001, 1.001, 0.999), atol=1e-12)
    file.add("log2", "powers", torch.tensor([2.0**k for k in (-149, -126, -3, 0, 1, 10, 127)]))
    file.add("exp", "overflow", t(88.0, 88.5, 88.7, 88.72, 88.73, 89.0, 100.0, 1000.0))
    below = t(-86.0, -87.0, -87.5, -88.0, -95.0, -100.0, -103.0, -103.9, -104.1, -110.0, -1000.0)
    file.add("exp", "underflow", below, atol=SUBNORMAL)
    file.add("expm1", "saturation", t(-5.0, -17.0, -20.0, -88.0, -104.0, 88.0, 88.8, 89.0))
    edges = t(127.0, 127.99, 128.0, 129.0, -126.0, -126.5, -130.0, -149.0, -150.5, -1000.0)
    file.add("exp2", "range", edges, atol=SUBNORMAL)
    file.add("exp2", "integers", torch.arange(-20.0, 21.0))
    saturating = t(4.0, 8.0, 9.0, 9.02, 10.0, 20.0, 88.0, 100.0)
    saturating = torch.cat([saturating, -saturating])
    file.add("tanh", "saturation", saturating)
    file.add("sigmoid", "saturation", saturating, atol=SUBNORMAL)
    file.add("sech", "saturation", saturating, atol=SUBNORMAL)
    turns = t(1e4, 1e5, 1e6, 12345.678, 99999.5, 1234567.0, 3.1415927, 6.2831855, 1.5707964, 710.0)
    turns = torch.cat([turns, -turns])
    for op in ("sin", "cos", "tan"):
        file.add(op, "large", turns)
        file.add(op, "circle", torch.linspace(-7, 7, 64))
    file.add(
        "round", "ties_to_even", t(0.5, 1.5, 2.5, 3.5, -0.5, -1.5, -2.5, 0.49999997, 8388609.0)
    )
    for op in ("floor", "ceil", "trunc", "round"):
        file.add(
            op, "integral", t(8388607.5, -8388607.5, 16777216.0, -0.3, 0.3, -0.0, 2147483904.0)
        )


# Where torch's vector code overflows on the way to a finite (or infinite) result.
OVERFLOWING = {"gelu": (INF, F32_MAX), "hardswish": (F32_MAX, -F32_MAX)}


def activations(file):
    for name, prefix, kwargs in ACTIVATIONS:
        without = () if prefix == "tanh." else OVERFLOWING.get(name, ())
        elementwise(file, NN + name, prefix, without, **kwargs)
        file.add(NN + name, prefix + "line", torch.linspace(-10, 10, 64), **kwargs)
    for name, prefix, kwargs in ACTIVATIONS:
        if name in ("softplus", "logsigmoid", "silu", "elu", "mish") and not prefix:
            tails = t(-15.0, -17.0, -20.0, -21.0, -40.0, -80.0, 15.0, 19.9, 20.1, 40.0, 90.0)
            file.add(NN + name, "tails", tails, atol=1e-20, **kwargs)
    file.add(NN + "relu", "int", i64([-3, 0, 4]))


def binary(file):
    a, b = t(*SPECIAL, 2.5), t(NAN, INF, -INF, 0.0, -0.0, -2.5)
    rows, columns = a[:, None], b[None, :]
    for op in ("minimum", "maximum", "remainder", "fmod", "floor_divide"):
        file.add(op, "special", rows, columns)
        file.add(op, "empty", empty(0, 3), rand(3))
        file.add(op, "broadcast", rand(2, 1, 3), rand(4, 1, seed=1) + 0.01)
        file.add(op, "scalar", torch.tensor(7.25), torch.tensor(-2.0))
        file.add(op, "int", i64([7, -7, 7, -7, 0]), i64([2, 2, -2, -2, 3]))
    signs = t(7.0, -7.0, 7.0, -7.0, 6.0, -6.0, 0.3, -0.3, 1e-8, 1e10)
    moduli = t(3.0, 3.0, -3.0, -3.0, 3.0, 3.0, 0.1, 0.1, 1.0, 3.0)
    for op in ("remainder", "fmod", "floor_divide"):
        file.add(op, "signs", signs, moduli)
        file.add(op, "by_number", signs, 2.5)
        file.add(op, "by_negative_number", signs, -2.5)
    file.add("lerp", "weights", t(1.0, -2.0, 3.0), t(5.0, 5.0, -5.0), t(0.0, 1.0, 2.5))
    file.add("lerp", "number", rand(2, 3), rand(3), 0.3)
    file.add("lerp", "ends", t(1e10, -1e10, 0.1), t(1.0, 1.0, 0.3), 1.0)
    file.add("lerp", "special", t(NAN, 1.0, INF, 1.0), t(1.0, NAN, 1.0, INF), 0.5)
    file.add("lerp", "empty", empty(0), empty(0), 0.5)


def powers(file):
    bases = t(NAN, INF, -INF, 0.0, -0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -1.5, 1e20, -1e20)
    exponents = (0.0, 1.0, -1.0, 2.0, 3.0, -2.0, -3.0, 0.5, -0.5, 1.5, 4.0, 10.0)
    for exponent in exponents:
        file.add("pow", f"number.{exponent}", bases, exponent)
    for exponent in (2, 3, -1, 0):
        file.add("pow", f"integer.{exponent}", bases, exponent)
    columns = t(NAN, INF, -INF, 0.0, -0.0, 3.0)
    file.add("pow", "special", t(NAN, INF, -INF, 0.0, -0.0, 1.0, -1.0, -2.0, 0.5)[:, None], columns)
    file.add("pow", "negative_base", t(-2.0, -0.5, -3.0)[:, None], torch.arange(-4.0, 5.0))
    file.add("pow", "negative_base_fraction", t(-2.0, -0.5), t(0.5, 1.25))
    file.add("pow", "zero_exponent", t(*SPECIAL), t(0.0))
    file.add("pow", "nan_exponent", t(*SPECIAL), t(NAN))
    file.add("pow", "overflow", t(10.0, 10.0, -10.0, 2.0), t(38.0, 39.0, 39.0, 128.0))
    file.add(
        "pow", "underflow", t(10.0, 10.0, 2.0, 2.0), t(-38.0, -44.0, -149.0, -151.0), atol=SUBNORMAL
    )
    file.add("pow", "fractions", rand(3, 4).abs() + 0.01, rand(4, seed=1))
    file.add("pow", "scalar", torch.tensor(2.0), torch.tensor(-3.0))
    file.add("pow", "empty", empty(0, 2), 2.0)


def selections(file):
    x = t(*SPECIAL, 5.0, -5.0)
    file.add("clamp", "both", x, -2.0, 3.0)
    file.add("clamp", "min_only", x, -2.0)
    file.add("clamp", "max_only", x, None, 3.0)
    file.add("clamp", "min_above_max", x, 3.0, -2.0)
    file.add("clamp", "infinite", x, -INF, INF)
    file.add("clamp", "tensors", x[:, None], t(-2.0, 0.0), t(2.0, -1.0))
    file.add("clamp", "nan_bound", t(-1.0, 1.0), t(NAN, 0.0), t(2.0, NAN))
    file.add("clamp", "empty", empty(0), 0.0, 1.0)
    mask = torch.tensor([[True], [False]])
    file.add("where", "unchosen_nan", t(1.0, 2.0), torch.tensor([True, False]), t(NAN, INF))
    file.add("where", "broadcast", rand(3), mask, rand(2, 3))
    file.add("where", "scalars", torch.tensor(1.0), mask, torch.tensor(-1.0))
    file.add("where", "empty", empty(0, 3), torch.zeros(0, 1, dtype=torch.bool), empty(3))
    file.add("masked_fill", "negative_infinity", rand(2, 3), mask, -INF)
    file.add("masked_fill", "over_nan", t(NAN, NAN), torch.tensor([True, False]), 0.0)
    file.add(
        "masked_fill", "tensor", rand(2, 3), torch.tensor([True, False, True]), torch.tensor(9.0)
    )
    file.add("masked_fill", "empty", empty(0), torch.zeros(0, dtype=torch.bool), 1.0)


def comparisons(file):
    x = t(*SPECIAL)
    for op in ("eq", "ne", "lt", "le", "gt", "ge", "logical_and", "logical_or"):
        file.add(op, "special", x[:, None], x[None, :])
        file.add(op, "tiny", t(1e-45, -1e-45, 0.0, 1e-45), t(0.0, 0.0, -0.0, 1e-45))
        file.add(op, "broadcast", rand(2, 1, 3).round(), rand(3, 1, seed=1).round())
        file.add(op, "empty", empty(0, 2), empty(2))
        file.add(op, "int", i64([1, 0, -1, 2**31]), i64([1, 1, 1, 2**31 + 1]))
    for op in ("eq", "ne", "lt", "le", "gt", "ge"):
        file.add(op, "number", x, 0.0)
        file.add(op, "nan_number", x, NAN)
    file.add("logical_not", "special", x)
    file.add("logical_not", "tiny", t(1e-45, -1e-45, 0.0))
    file.add("logical_not", "bool", torch.tensor([True, False]))
    file.add("logical_not", "empty", empty(0))
    file.add("logical_and", "bool", torch.tensor([[True], [False]]), torch.tensor([True, False]))
    file.add("logical_or", "bool", torch.tensor([[True], [False]]), torch.tensor([True, False]))


ONE_AXIS = ("prod", "argmax", "argmin")
ALL_AXES = ("sum", "mean", "amax", "amin", "var", "std", "any", "all")


def axes(file):
    """Every choice of axes, with and without `keepdim`."""
    x = rand(2, 3, 4)
    x = torch.where(x.abs() < 0.4, 0.0, x)
    for keep in (False, True):
        for op in (*ALL_AXES, *ONE_AXIS, "logsumexp", "norm"):
            head = (2.0,) if op == "norm" else ()
            for dim in (0, 1, 2, -1, -3):
                file.add(op, f"dim.{dim}.{keep}", x, *head, dim=dim, keepdim=keep)
            if op in ONE_AXIS:
                continue
            for dim in ([0, 2], [-1, 0], [1, 2], [0, 1, 2]):
                tag = ".".join(map(str, dim))
                file.add(op, f"dims.{tag}.{keep}", x, *head, dim=dim, keepdim=keep)
    for op in (*ALL_AXES, *ONE_AXIS):
        file.add(op, "whole", x)
        file.add(op, "scalar", torch.tensor(2.5))
    file.add("norm", "whole", x, 2.0)


def empty_reductions(file):
    for op in (*ALL_AXES, "prod"):
        if op not in ("amax", "amin"):
            file.add(op, "empty.whole", empty(0, 3))
            file.add(op, "empty.reduced", empty(0, 3), dim=0)
        file.add(op, "empty.kept", empty(0, 3), dim=1)
    for op in ("argmax", "argmin"):
        file.add(op, "empty.kept", empty(0, 3), dim=1)
    file.add("logsumexp", "empty.reduced", empty(0, 3), dim=0)
    file.add("logsumexp", "empty.kept", empty(0, 3), dim=1)
    file.add("norm", "empty.reduced", empty(0, 3), 2.0, dim=0)


def special_reductions(file):
    """Rows of NaN and infinities, ties, overflow, cancellation."""
    rows = torch.tensor(
        [[NAN, 1.0, 2.0], [1.0, NAN, -INF], [-INF, -INF, -INF], [INF, 1.0, INF], [-INF, 3.0, 0.0]]
    )
    for op in (
        "sum",
        "mean",
        "prod",
        "amax",
        "amin",
        "var",
        "std",
        "any",
        "all",
        "argmax",
        "argmin",
    ):
        file.add(op, "special", rows, dim=1)
    file.add("logsumexp", "special", rows, dim=1)
    for op in ("max.reduction_with_dim", "min.reduction_with_dim"):
        file.add(op, "special", rows, 1)
        file.add(op, "tie", t(1.0, 3.0, 3.0, 1.0), 0)
    ties = torch.tensor([[2.0, 5.0, 5.0, 2.0], [0.0, -0.0, 0.0, -0.0], [-1.0, -1.0, -1.0, -1.0]])
    for op in ("argmax", "argmin"):
        file.add(op, "tie", ties, dim=1)
        file.add(op, "tie.whole", ties)
        file.add(op, "two_nans", t(1.0, NAN, 2.0, NAN), dim=0)
    for op in ("var", "std"):
        file.add(op, "population", rand(3, 4), dim=1, correction=0)
        file.add(op, "correction_2", rand(3, 4), dim=1, correction=2)
        file.add(op, "one_element", t(3.0), dim=0)
        file.add(op, "one_element.population", t(3.0), dim=0, correction=0)
        file.add(op, "large_mean", t(10000.0, 10001.0, 10002.0, 9999.0), dim=0)
        file.add(op, "constant", torch.full((8,), 0.1), dim=0)
    file.add("logsumexp", "large", t(1000.0, 1001.0, 999.0), dim=0)
    file.add("logsumexp", "small", t(-1000.0, -1001.0, -999.0), dim=0)
    file.add("logsumexp", "wide", t(-1000.0, 0.0, 88.0), dim=0)
    for p in (0.0, 0.5, 1.0, 3.0, INF, -INF):
        file.add("norm", f"p.{p}", torch.tensor([[3.0, -4.0, 0.0], [1.0, 2.0, -2.0]]), p, dim=1)
    file.add("norm", "special", t(NAN, 1.0), 2.0)
    file.add("norm", "infinite", t(-INF, 1.0), 2.0)
    file.add("sum", "overflow", t(3e38, 3e38))
    file.add("mean", "large", t(1e38, 1e38, 1e38))
    file.add("prod", "overflow", t(1e20, -1e20))
    file.add("prod", "negative", t(-1.0, -2.0, -3.0))
    file.add("sum", "bool", torch.tensor([[True, False, True], [True, True, True]]), dim=1)
    file.add("sum", "int", i64([[1, -2], [2**40, 3]]), dim=0)
    file.add("any", "bool", torch.tensor([[True, False], [False, False]]), dim=1)
    file.add("all", "bool", torch.tensor([[True, False], [True, True]]), dim=1)
    file.add("all", "nan_is_true", t(NAN, 1.0))
    file.add("any", "nan_is_true", t(NAN, 0.0))
    file.add("any", "tiny", t(0.0, 1e-45))


def scans(file):
    x = rand(2, 3, 4)
    for op in ("cumsum", "cumprod"):
        for dim in (0, 1, -1):
            file.add(op, f"dim.{dim}", x, dim)
        file.add(
            op, "special", torch.tensor([[1.0, NAN, 2.0], [2.0, INF, 3.0], [-INF, 1.0, 0.5]]), 1
        )
        file.add(op, "zero", t(2.0, 0.0, 3.0, -1.0), 0)
        file.add(op, "empty", empty(0, 3), 0)
        file.add(op, "empty_rows", empty(2, 0), 1)
        file.add(op, "scalar", torch.tensor(3.0), 0)
        file.add(op, "int", i64([3, -1, 2, 5]), 0)
        file.add(op, "long", torch.linspace(0.5, 1.5, 64), 0)


SECTIONS = {
    "unary_math": [unary, unary_ranges],
    "activation": [activations],
    "binary_math": [binary, powers],
    "compare_logic": [selections, comparisons],
    "reduction": [axes, empty_reductions, special_reductions, scans],
}

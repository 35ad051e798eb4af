"""Edge cases of products, shape ops, creation, indexing and ordering."""

import torch

from edge_ops import INF, NAN, empty, i64, rand, t

# One left and one right operand for each rank 1 to 5; batch axes broadcast against each other.
LEFT = {1: (3,), 2: (2, 3), 3: (2, 2, 3), 4: (2, 1, 2, 3), 5: (1, 2, 1, 2, 3)}
RIGHT = {1: (3,), 2: (3, 2), 3: (2, 3, 2), 4: (1, 2, 3, 2), 5: (2, 1, 2, 3, 2)}

EINSUM = {
    "ij,jk->ik": ((2, 3), (3, 4)),
    "ij,kj->ik": ((2, 3), (4, 3)),
    "ji,jk->ik": ((3, 2), (3, 4)),
    "ij,jk->ki": ((2, 3), (3, 4)),
    "ij,jk": ((2, 3), (3, 4)),
    "ba,cb": ((3, 2), (4, 3)),
    "ij,ij->ij": ((2, 3), (2, 3)),
    "ij,ij->": ((2, 3), (2, 3)),
    "ij,ji->": ((2, 3), (3, 2)),
    "ij,kl->ik": ((2, 3), (4, 2)),
    "i,i->": ((5,), (5,)),
    "i,j->ij": ((3,), (4,)),
    "i,j->ji": ((3,), (4,)),
    "ij,j->i": ((2, 3), (3,)),
    "ij,i->ij": ((2, 3), (2,)),
    "ij,kl->ijkl": ((2, 2), (2, 3)),
    "bij,bjk->bik": ((2, 2, 3), (2, 3, 2)),
    "bij,bkj->bik": ((2, 2, 3), (2, 4, 3)),
    "bij,jk->bik": ((2, 2, 3), (3, 4)),
    "bhid,bhjd->bhij": ((1, 2, 3, 4), (1, 2, 2, 4)),
    "bhij,bhjd->bihd": ((1, 2, 3, 2), (1, 2, 2, 4)),
    "bihd,bjhd->bhij": ((1, 3, 2, 4), (1, 2, 2, 4)),
    "ijk,jil->kl": ((2, 3, 2), (3, 2, 2)),
    "ijk,k->ij": ((2, 3, 4), (4,)),
    "bhwc,hkc->bhwk": ((1, 2, 3, 2), (2, 4, 2)),
    "...ij,...jk->...ik": ((2, 1, 2, 3), (2, 3, 2)),
    "...i,...i->...": ((2, 2, 3), (2, 3)),
    "ii,i->i": ((3, 3), (3,)),
    "ii,jj->": ((3, 3), (2, 2)),
}


def products(file):
    for left, a in LEFT.items():
        for right, b in RIGHT.items():
            file.add("matmul", f"rank.{left}.{right}", rand(*a), rand(*b, seed=1))
    file.add("matmul", "no_rows", empty(0, 3), rand(3, 2))
    file.add("matmul", "empty_sum", empty(2, 0), empty(0, 3))
    file.add("matmul", "empty_batch", empty(0, 2, 3), rand(3, 2))
    file.add("matmul", "one_by_one", rand(1, 1), rand(1, 1, seed=1))
    file.add(
        "matmul",
        "special",
        torch.tensor([[INF, 0.0], [NAN, 1.0]]),
        torch.tensor([[0.0, 1.0], [1.0, 2.0]]),
    )
    file.add("matmul", "overflow", torch.full((1, 2), 1e20), torch.full((2, 1), 1e20))
    file.add("matmul", "transposed", rand(3, 2).t(), rand(4, 3, seed=1).t())
    for equation, shapes in EINSUM.items():
        tensors = [rand(*shape, seed=seed) for seed, shape in enumerate(shapes)]
        file.add("einsum", equation, tensors, equation)
    file.add("einsum", "empty", [empty(2, 0), empty(0, 3)], "ij,jk->ik")
    file.add("einsum", "diagonal", [rand(3, 3)], "ii->i")
    file.add("einsum", "transpose", [rand(2, 3)], "ij->ji")
    file.add("outer", "values", rand(3), rand(4))
    file.add("outer", "empty", empty(0), rand(2))
    file.add("outer", "special", t(INF, 0.0, NAN), t(0.0, -1.0))
    file.add("dot", "values", rand(5), rand(5, seed=1))
    file.add("dot", "empty", empty(0), empty(0))
    file.add("dot", "special", t(INF, 0.0), t(0.0, 1.0))


def views(file):
    x, ones, scalar = rand(2, 3, 4), rand(1, 3, 1), torch.tensor(2.0)
    for i, shape in enumerate(([24], [6, 4], [-1, 8], [2, -1, 2, 2], [1, 24, 1], [2, 3, 4, 1])):
        file.add("reshape", f"shape.{i}", x, shape)
    file.add("reshape", "transposed", rand(3, 4).t(), [2, 6])
    file.add("reshape", "to_scalar", t(3.0), [])
    file.add("reshape", "from_scalar", scalar, [1, 1])
    file.add("reshape", "empty", empty(0, 3), [3, 0, 2])
    for i, dims in enumerate(([2, 0, 1], [0, 2, 1], [-1, 0, -2], [0, 1, 2], [2, 1, 0])):
        file.add("permute", f"dims.{i}", x, dims)
    file.add("permute", "scalar", scalar, [])
    file.add("permute", "empty", empty(2, 0, 3), [2, 0, 1])
    for a, b in ((0, 1), (0, 2), (-1, -2), (1, 1)):
        file.add("transpose", f"{a}.{b}", x, a, b)
    file.add("transpose", "scalar", scalar, 0, -1)
    file.add("transpose", "empty", empty(0, 3), 0, 1)
    file.add("squeeze", "whole", ones)
    for dim in (0, 1, -1):
        file.add("squeeze", f"dim.{dim}", ones, dim)
    file.add("squeeze", "dims", ones, [0, 2])
    file.add("squeeze", "scalar", scalar)
    file.add("squeeze", "empty", empty(1, 0))
    for dim in (0, 1, 2, -1, -3):
        file.add("unsqueeze", f"dim.{dim}", rand(2, 3), dim)
    file.add("unsqueeze", "scalar", scalar, 0)
    for i, shape in enumerate(([2, 3, 4], [-1, 3, 2], [5, 1, 3, 1], [0, 3, 1])):
        file.add("expand", f"shape.{i}", ones, shape)
    file.add("expand", "scalar", scalar, [2, 3])
    file.add("expand", "to_empty", t(1.0), [2, 0])
    for op in ("repeat", "tile"):
        for i, counts in enumerate(([2, 1], [1, 3], [2, 1, 2], [0, 1], [1, 1])):
            file.add(op, f"counts.{i}", rand(2, 3), counts)
        file.add(op, "scalar", scalar, [2, 2])
        file.add(op, "empty", empty(0, 2), [2, 2])
    file.add("tile", "fewer_counts", rand(2, 3), [2])


def cuts(file):
    x = rand(4, 5)
    slices = ((0, 2), (1, None), (-2, None), (None, -1), (2, 2), (3, 1), (0, 99), (-99, 2))
    for i, (start, stop) in enumerate(slices):
        file.add("__getitem__", f"slice.{i}", x, slice(start, stop, None))
    file.add("__getitem__", "steps", x, [slice(None, None, 2), slice(1, None, 3)])
    file.add("__getitem__", "ellipsis", x, [Ellipsis, slice(1, 3, None)])
    file.add("__getitem__", "row", x, 2)
    file.add("__getitem__", "negative_row", x, -1)
    file.add("__getitem__", "column", x, [slice(None, None, None), -2])
    file.add("__getitem__", "empty", empty(0, 3), [slice(None, None, None), slice(0, 2, None)])
    for dim, start, stop, step in ((0, 1, 3, 1), (1, -3, 99, 2), (-1, 2, 2, 1), (0, None, None, 3)):
        file.add("slice", f"{dim}.{start}.{stop}.{step}", x, dim, start, stop, step)
    for i, (size, dim) in enumerate(((2, 0), (3, 1), (9, 0), (1, -1), (2, -2))):
        file.add("split", f"size.{i}", x, size, dim)
        file.add("chunk", f"count.{i}", x, size, dim)
    file.add("split", "sizes", x, [1, 0, 3], 0)
    file.add("split", "empty", empty(0, 2), 2, 0)
    file.add("chunk", "empty", empty(0, 2), 2, 0)
    file.add("unfold", "overlap", rand(7), 0, 3, 2)
    file.add("unfold", "rows", x, 0, 2, 1)
    file.add("unfold", "columns", x, -1, 2, 3)
    file.add("unfold", "whole", x, 1, 5, 1)
    file.add("unfold", "size_one", x, 0, 1, 2)
    file.add("unfold", "size_zero", rand(3), 0, 0, 1)
    for offset in (0, 1, -1, 4, 5, -4):
        file.add("diagonal", f"offset.{offset}", x, offset=offset)
    file.add("diagonal", "batch", rand(2, 3, 3), dim1=1, dim2=2)
    file.add("diagonal", "axes", rand(2, 3, 4), 1, 2, 0)
    square = torch.where(torch.eye(3) > 0, torch.tensor(NAN), rand(3, 3))
    for op in ("tril", "triu"):
        for k in (0, 1, -1, 5, -5):
            file.add(op, f"diagonal.{k}", x, k)
        file.add(op, "batch", rand(2, 3, 2))
        file.add(op, "tall", rand(4, 2), 1)
        file.add(op, "drops_nan", square, -1 if op == "tril" else 1)
        file.add(op, "empty", empty(0, 3))


def joins(file):
    a, b = rand(2, 3), rand(2, 3, seed=1)
    for dim in (0, 1, -1):
        file.add("cat", f"dim.{dim}", [a, b], dim=dim)
        file.add("stack", f"dim.{dim}", [a, b], dim)
    file.add("cat", "one", [a], dim=0)
    file.add("cat", "unequal", [a, rand(2, 1), rand(2, 0)], dim=1)
    file.add("cat", "old_empty", [a, empty(0)], dim=0)
    file.add("cat", "all_empty", [empty(0, 3), empty(0, 3)], dim=0)
    file.add("cat", "five", [rand(1, 2, seed=k) for k in range(5)], dim=0)
    file.add("stack", "scalars", [torch.tensor(1.0), torch.tensor(2.0)], 0)
    file.add("stack", "empty", [empty(0), empty(0)], 0)
    pads = ([1, 2], [0, 0], [1, 0, 0, 2], [-1, 0], [-1, 2, 1, -1])
    for i, pad in enumerate(pads):
        file.add("nn.functional.pad.constant", f"pad.{i}", a, pad, "constant", 0.5)
    file.add("nn.functional.pad.constant", "negative_infinity", a, [1, 1], "constant", -INF)
    file.add("nn.functional.pad.constant", "nan", a, [0, 1], "constant", NAN)
    file.add("nn.functional.pad.constant", "empty", empty(0, 2), [1, 1, 1, 1], "constant", 2.0)
    for i, dims in enumerate(([0], [1], [-1], [0, 1], [])):
        file.add("flip", f"dims.{i}", a, dims=dims)
    file.add("flip", "empty", empty(0, 2), dims=[0])
    for i, (shift, dim) in enumerate(((1, 0), (-1, 1), (7, 1), (0, 0), ([1, -2], [0, 1]))):
        file.add("roll", f"shift.{i}", a, shift, dim)
    file.add("roll", "flattened", a, 2)
    file.add("roll", "empty", empty(0, 2), 1, 0)


def creation(file):
    ranges = ((0, 5, 1), (0, 1, 0.25), (5, 0, -2), (0.0, 1.0, 0.3), (3, 3, 1), (-1, 2, 2))
    for i, bounds in enumerate(ranges):
        file.add("arange", f"range.{i}", *bounds, dtype=torch.float32)
    file.add("arange", "end_only", 4, dtype=torch.float32)
    file.add("arange", "int", 0, 10, 3, dtype=torch.int64)
    for i, (a, b, n) in enumerate(
        ((0, 1, 5), (0, 1, 1), (0, 1, 0), (-3, 3, 64), (5, -5, 4), (2, 2, 3))
    ):
        file.add("linspace", f"range.{i}", float(a), float(b), n, dtype=torch.float32)
    for i, shape in enumerate(([], [3], [2, 0, 3], [2, 1, 2])):
        file.add("zeros", f"shape.{i}", shape, dtype=torch.float32)
        file.add("ones", f"shape.{i}", shape, dtype=torch.float32)
        file.add("full", f"shape.{i}", shape, -2.5, dtype=torch.float32)
    file.add("full", "negative_infinity", [3], -INF, dtype=torch.float32)
    file.add("full", "nan", [2], NAN, dtype=torch.float32)
    file.add("full", "negative_zero", [2], -0.0, dtype=torch.float32)
    for n, m in ((3, 3), (2, 4), (4, 2), (1, 1), (0, 2)):
        file.add("eye", f"{n}.{m}", n, m, dtype=torch.float32)
    file.add("nn.functional.one_hot", "rows", i64([0, 2, 1, 2]), 3)
    file.add("nn.functional.one_hot", "matrix", i64([[0, 3], [1, 1]]), 5)
    file.add("nn.functional.one_hot", "scalar", torch.tensor(1), 3)
    file.add("nn.functional.one_hot", "empty", i64([]), 3)


def indexing(file):
    x = rand(3, 4)
    rows, wide = i64([[2, 0, 1, 1]]), i64([[0, 3], [2, 2], [1, 0]])
    file.add("gather", "rows", x, 0, rows)
    file.add("gather", "columns", x, 1, wide)
    file.add("gather", "fewer_rows", x, -1, wide[:2])
    file.add("gather", "empty", x, 1, torch.zeros(3, 0, dtype=torch.int64))
    file.add("gather", "special", t(NAN, INF, -0.0), 0, i64([2, 1, 0, 1]))
    source = rand(3, 4, seed=1)
    unique = i64([[0, 3], [2, 1], [1, 0]])
    file.add("scatter", "columns", x, 1, unique, source)
    file.add("scatter", "rows", x, 0, i64([[2, 0, 1, 1]]), source)
    file.add("scatter", "number", x, 1, unique, 7.5)
    file.add("scatter", "over_nan", t(NAN, NAN, 1.0), 0, i64([0]), t(5.0))
    file.add("scatter", "empty", x, 1, torch.zeros(3, 0, dtype=torch.int64), source)
    file.add("scatter_add", "duplicates", x, 1, i64([[0, 0, 0], [1, 2, 1], [3, 3, 3]]), source)
    file.add("scatter_add", "rows", x, 0, i64([[2, 2, 2, 2], [2, 0, 2, 1]]), source)
    file.add("scatter_add", "special", t(0.0, 1.0), 0, i64([0, 1, 1]), t(NAN, INF, 1.0))
    file.add("scatter_add", "empty", x, 0, torch.zeros(0, 4, dtype=torch.int64), source)
    for dim in (0, 1, -1):
        file.add("index_select", f"dim.{dim}", x, dim, i64([2, 0, 2, 1, 1]))
    file.add("index_select", "empty", x, 0, i64([]))
    file.add("take_along_dim", "broadcast", x, i64([[3], [0], [1]]), 1)
    file.add("take_along_dim", "rows", x, rows, 0)
    file.add("take_along_dim", "flattened", x, i64([11, 0, 5]))
    file.add("take_along_dim", "argsort", x, x.argsort(1), 1)


def ordering(file):
    x = torch.tensor([[3.0, 1.0, 2.0, 5.0], [-1.0, -7.0, 0.5, 0.25], [10.0, -10.0, 1e30, 1e-30]])
    ties = torch.tensor([[2.0, 1.0, 2.0, 1.0, 2.0], [0.0, -0.0, 0.0, -1.0, 0.0]])
    special = t(NAN, 1.0, -INF, INF, 0.0, NAN, -1.0)
    for down in (False, True):
        for dim in (0, 1, -1):
            file.add("sort", f"dim.{dim}.{down}", x, dim=dim, descending=down, stable=True)
        file.add("sort", f"tie.{down}", ties, dim=1, descending=down, stable=True)
        file.add("sort", f"special.{down}", special, dim=0, descending=down, stable=True)
        file.add("sort", f"empty.{down}", empty(2, 0), dim=1, descending=down, stable=True)
        file.add("sort", f"scalar.{down}", torch.tensor(1.5), dim=0, descending=down, stable=True)
        for k in (1, 3, 4, 0):
            file.add("topk", f"k.{k}.{down}", x, k, 1, down, True)
        file.add("topk", f"dim_0.{down}", x, 2, 0, down, True)
        file.add("topk", f"special.{down}", special[1:], 4, 0, down, True)


SECTIONS = {
    "linalg": [products],
    "shape": [views, cuts, joins],
    "creation": [creation],
    "index": [indexing, ordering],
}

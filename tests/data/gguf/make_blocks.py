"""Makes blocks.safetensors and types.json: what ggml stores for known numbers.

    pip install gguf numpy safetensors
    python make_blocks.py GGML    # GGML: a checkout of https://github.com/ggml-org/ggml; needs a C compiler

Encoders are ggml's reference functions, compiled without fused multiply-adds; where the Python package has an encoder
of its own, both must agree. Decoded numbers are the Python package's, where it knows the type, and must be those of C.
"""

import ctypes
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as T
from gguf import quants
from safetensors.numpy import save_file

HERE = Path(__file__).parent
ENCODED = ["Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q1_0", "Q2_0", "Q4_K", "Q6_K", "TQ1_0", "TQ2_0"]
DECODED = [*ENCODED, "Q2_K", "Q3_K", "Q5_K", "IQ4_NL"]
SIZES = {t.name: (int(t), *gguf.GGML_QUANT_SIZES[t]) for t in T}
SIZES["Q2_0"] = (42, 64, 18)
# The package counts two f32; C stores two f16.
SIZES["Q8_1"] = (9, 32, 36)
SCALES = {"Q4_1": [0, 2], "Q5_1": [0, 2], "Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2],
          "Q6_K": [208], "TQ1_0": [52], "TQ2_0": [64]}
STUBS = """
#include <stdlib.h>
void ggml_abort(const char *f, int l, const char *m, ...) { abort(); }
size_t ggml_row_size(int t, long n) { abort(); }
size_t ggml_type_size(int t) { abort(); }
const char *ggml_type_name(int t) { return ""; }
"""


def library(ggml):
    """The functions of ggml-quants.c."""
    folder = Path(tempfile.mkdtemp())
    (folder / "stubs.c").write_text(STUBS)
    out = folder / "quants.so"
    subprocess.run(
        ["cc", "-O2", "-ffp-contract=off", "-fPIC", "-shared", "-DNDEBUG", f"-I{ggml}/include", f"-I{ggml}/src",
         f"{ggml}/src/ggml-quants.c", str(folder / "stubs.c"), "-o", str(out), "-lm"], check=True)
    return ctypes.CDLL(str(out))


def call(function, source, target, n):
    function(source.ctypes.data_as(ctypes.c_void_p), target.ctypes.data_as(ctypes.c_void_p), ctypes.c_int64(n))


def encode(lib, name, x):
    _, length, size = SIZES[name]
    out = np.zeros(x.size // length * size, np.uint8)
    call(getattr(lib, f"quantize_row_{lower(name)}_ref"), x, out, x.size)
    if name in T.__members__ and name not in ("Q1_0", "Q4_K", "Q6_K"):
        theirs = quants.quantize(x.reshape(1, -1), T[name]).reshape(-1)
        # The two differ in the sign of the scale of blocks of negative zeros.
        same = (theirs == out).reshape(-1, size).all(1) | (x == 0).reshape(-1, length).all(1)
        assert same.all(), (name, np.nonzero(~same)[0])
    return out


def decode(lib, name, blocks):
    _, length, size = SIZES[name]
    out = np.zeros(blocks.size // size * length, np.float32)
    call(getattr(lib, f"dequantize_row_{lower(name)}"), blocks, out, out.size)
    if name in T.__members__ and name != "Q1_0":
        theirs = quants.dequantize(blocks.reshape(1, -1), T[name]).reshape(-1)
        assert (theirs.view(np.uint32) == out.view(np.uint32)).all(), name
    return out


def lower(name):
    return name[:-1].lower() + name[-1] if name.endswith("_K") else name.lower()


def numbers():
    """Rows of 256 numbers of many kinds."""
    g = np.random.default_rng(20)
    normal = lambda scale: g.standard_normal(256) * scale
    single = np.zeros(256)
    single[77] = -0.37
    outlier = normal(0.02)
    outlier[130] = 9.5
    halves = np.arange(256) % 32 * 0.5 - 8
    mixed = np.concatenate([normal(1)[:64], np.zeros(64), normal(1e-3)[:64], np.full(64, -0.25)])
    steps = np.repeat(g.standard_normal(8), 32)
    rows = [normal(1), normal(1), normal(0.02), normal(300), np.full(256, 0.3), np.full(256, -1.5), np.zeros(256),
            -np.zeros(256), outlier, normal(1e-6), normal(1e-40), normal(3e-20), single, -single, np.linspace(-1, 1, 256),
            np.where(np.arange(256) % 2, 1, -1), abs(normal(1)), -abs(normal(1)), halves, mixed, steps,
            g.standard_t(2, 256), g.integers(-1, 2, 256) * 0.7, normal(1) + 50]
    return np.concatenate(rows).astype(np.float32)


def random_blocks(name, n):
    """Any bits, but scales that are finite and of ordinary size."""
    _, _, size = SIZES[name]
    g = np.random.default_rng(int(SIZES[name][0]))
    blocks = g.integers(0, 256, (n, size), np.uint8)
    for at in SCALES.get(name, [0]):
        blocks[:, at:at + 2] = (g.standard_normal(n) * 0.1).astype(np.float16)[:, None].view(np.uint8)
    return blocks.reshape(-1)


def main():
    lib = library(sys.argv[1])
    np.seterr(all="ignore")
    x = numbers()
    tensors = {"numbers": x}
    for name in ENCODED:
        tensors[f"{name}.encoded"] = encode(lib, name, x)
    for name in DECODED:
        blocks = random_blocks(name, 1024 // SIZES[name][1])
        tensors[f"{name}.blocks"] = blocks
        tensors[f"{name}.values"] = decode(lib, name, blocks)
    save_file(tensors, HERE / "blocks.safetensors")
    (HERE / "types.json").write_text(json.dumps(SIZES, indent=1) + "\n")


main()

"""Writes `ops.json` and `ops.safetensors`: values and gradients of torch's own sample inputs.

Every op is taken from torch's `op_db` with its first samples (f32 on the CPU). The gradients are
those of `sum(out * cotangent)` for the fixed cotangent `linspace(0.5, 1.5)` of each output.

Where `ops.json` exists, its selection of cases is kept and only the numbers are made again;
`--all` writes every case that fits the format.

    pip install torch numpy safetensors expecttest
    PYTHONHASHSEED=4 python make.py [--all]

The hash seed pins the order of torch's `meshgrid` samples, which come from a set.
"""

import argparse
import collections
import json
import warnings
from pathlib import Path

import torch
from torch.testing._internal.common_methods_invocations import op_db

from cases import CaseFile

SAMPLES_PER_OP = 10
MAX_ELEMENTS = 1024
NN = "nn.functional."

FAMILIES = {
    "creation": """zeros ones full arange linspace eye zeros_like ones_like full_like logspace
        scalar_tensor""",
    "unary_math": """abs neg sign exp exp2 expm1 log log2 log10 log1p sqrt rsqrt square reciprocal
        sin cos tan asin acos atan sinh cosh tanh asinh acosh atanh erf erfc erfinv ceil floor round
        trunc frac sigmoid logit lgamma digamma isnan isinf isfinite nan_to_num sgn""",
    "binary_math": """add sub mul div.no_rounding_mode div.floor_rounding div.trunc_rounding pow
        atan2 remainder fmod maximum minimum fmax fmin lerp addcmul addcdiv hypot logaddexp xlogy
        copysign floor_divide""",
    "compare_logic": """eq ne lt le gt ge logical_and logical_or logical_not logical_xor where
        isclose clamp clamp_min clamp_max masked_fill""",
    "reduction": """sum mean prod amax amin max.reduction_with_dim min.reduction_with_dim
        max.reduction_no_dim argmax argmin var std var_mean std_mean logsumexp norm
        linalg.vector_norm all any count_nonzero median cumsum cumprod cummax cummin logcumsumexp
        nansum diff""",
    "shape": """reshape view permute transpose t squeeze unsqueeze flatten unflatten expand
        broadcast_to repeat tile repeat_interleave cat stack hstack vstack split split_with_sizes
        chunk unbind narrow slice flip roll movedim meshgrid.list_of_tensors tril triu diag
        diag_embed diagonal rot90 unfold tensor_split""",
    "index": """gather scatter scatter_add scatter_reduce.sum scatter_reduce.amax index_select
        index_add index_copy index_fill index_put take take_along_dim select masked_select
        masked_scatter nonzero __getitem__ topk sort argsort kthvalue unique searchsorted
        bucketize""",
    "linalg": """matmul mm bmm mv dot addmm addbmm baddbmm outer einsum tensordot linalg.multi_dot
        trace linalg.det linalg.inv linalg.solve linalg.cholesky linalg.qr linalg.svd cdist
        linalg.cross linalg.norm linalg.matrix_power linalg.slogdet linalg.solve_triangular
        linalg.eigh fft.irfft""",
    "activation": """softmax log_softmax @relu @relu6 @leaky_relu @prelu @elu @selu @celu @gelu
        @silu @mish @softplus @softsign @softshrink @hardshrink @tanhshrink @hardsigmoid @hardswish
        @hardtanh @threshold @logsigmoid @glu @softmin""",
    "conv_pool": """@conv1d @conv2d @conv3d @conv_transpose1d @conv_transpose2d @conv_transpose3d
        @max_pool1d @max_pool2d @max_pool3d @avg_pool1d @avg_pool2d @avg_pool3d
        @adaptive_avg_pool1d @adaptive_avg_pool2d @adaptive_max_pool2d @unfold @interpolate.nearest
        @interpolate.bilinear @interpolate.linear @interpolate.bicubic @pad.constant @pad.reflect
        @pad.replicate @pad.circular @pixel_shuffle @pixel_unshuffle @grid_sample""",
    "norm_attn": """@batch_norm @layer_norm @group_norm @instance_norm @rms_norm
        @local_response_norm @normalize @linear @bilinear @embedding @embedding_bag
        @scaled_dot_product_attention @multi_head_attention_forward @cosine_similarity
        @pairwise_distance""",
    "loss": """@mse_loss @l1_loss @smooth_l1_loss @huber_loss @cross_entropy @nll_loss
        @binary_cross_entropy @binary_cross_entropy_with_logits @kl_div @poisson_nll_loss
        @gaussian_nll_loss @hinge_embedding_loss @margin_ranking_loss @cosine_embedding_loss
        @triplet_margin_loss @soft_margin_loss @multi_margin_loss""",
}


def op_table():
    """torch's OpInfo entries by name, or `name.variant` where a name has several."""
    return {
        f"{op.name}.{op.variant_test_name}" if op.variant_test_name else op.name: op for op in op_db
    }


def as_list(value):
    return list(value) if isinstance(value, tuple) else value


def tensors_in(value):
    """All tensors inside nested lists, tuples and dicts, in order of appearance."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, (list, tuple)):
        return []
    return [tensor for item in value for tensor in tensors_in(item)]


def cotangent(tensor):
    values = torch.linspace(0.5, 1.5, max(tensor.numel(), 1))
    return values[: tensor.numel()].reshape(tensor.shape)


def gradients(inputs, out):
    """The gradient for each input that wants one, or None if nothing here is differentiable."""
    leaves = [t for t in tensors_in(inputs) if t.requires_grad]
    outs = [t for t in tensors_in(out) if t.requires_grad and t.is_floating_point()]
    if not leaves or not outs:
        return None
    cotangents = [cotangent(t) for t in outs]
    return list(torch.autograd.grad(outs, leaves, cotangents, allow_unused=True))


def make_case(file, family, name, op, index, sample):
    """Runs one sample and encodes it; raises if it does not fit the format."""
    case = f"{name}#{index}"
    inputs = [sample.input, list(sample.args), sample.kwargs]
    encoded = [file.encode(v, f"{case}/{k}") for v, k in zip(inputs, ("in", "arg", "kw"))]
    torch.manual_seed(1)
    out = as_list(op(sample.input, *sample.args, **sample.kwargs))
    encoded_out = file.encode(out, f"{case}/out")
    grads = gradients(inputs, out)
    return {
        "id": case,
        "op": name,
        "family": family,
        "input": encoded[0],
        "args": encoded[1],
        "kwargs": encoded[2],
        "out": encoded_out,
        "grads": None if grads is None else file.encode(grads, f"{case}/grad"),
    }


def make_op(file, family, name, op, skipped):
    """Adds the first samples of `op` that fit; counts the others in `skipped` by reason."""
    torch.manual_seed(0)
    made = 0
    samples = op.sample_inputs("cpu", torch.float32, requires_grad=op.supports_autograd)
    for index, sample in enumerate(samples):
        if made == SAMPLES_PER_OP:
            break
        before = set(file.tensors)
        try:
            file.cases.append(make_case(file, family, name, op, index, sample))
            made += 1
        except Exception as error:
            for key in set(file.tensors) - before:
                del file.tensors[key]
            skipped[f"{type(error).__name__}: {str(error)[:40]}"] += 1
    return made


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--all", action="store_true", help="do not keep the selection of ops.json")
    everything = parser.parse_args().all
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    table = op_table()
    file = CaseFile(MAX_ELEMENTS)
    skipped = collections.Counter()
    for family, names in FAMILIES.items():
        for name in names.replace("@", NN).split():
            if not make_op(file, family, name, table[name], skipped):
                print("no case for", name)
    stem = Path(__file__).with_name("ops")
    selection = stem.with_suffix(".json")
    if selection.exists() and not everything:
        file.keep_only({case["id"] for case in json.loads(selection.read_text())["cases"]})
    file.write(stem)
    print(len(file.cases), "cases of", len({c["op"] for c in file.cases}), "ops")
    print("skipped:", skipped.most_common(12))


if __name__ == "__main__":
    main()

"""Writes `layers.safetensors`: layers of `torch.nn` with parameters that are not the defaults.

Of each case it holds the parameters `case/param/name`, the inputs `case/in/i`, the results `case/out/i` and,
for all but those of several steps, the gradients of `sum(out * cotangent)` with `cotangent = linspace(0.5, 1.5)` in the shape of
each result: `case/grad_param/name` and `case/grad_in/i`. All are F32. The sizes and options of a case are repeated in `tests/layers.rs`.

    pip install torch safetensors
    python make_layers.py
"""

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

TENSORS = {}


def parameters(module):
    """Names and tensors; `module` may be a dict of them."""
    return module.items() if isinstance(module, dict) else module.named_parameters()


def store(case, module, inputs, outputs):
    """Stores one case."""
    groups = {
        "param": parameters(module),
        "in": enumerate(inputs),
        "out": enumerate(outputs),
    }
    for group, tensors in groups.items():
        for name, tensor in tensors:
            TENSORS[f"{case}/{group}/{name}"] = tensor.detach().clone().contiguous()


def store_all(case, module, inputs, outputs):
    """Stores one case with its gradients; the inputs are leaves."""
    store(case, module, inputs, outputs)
    seeds = [torch.linspace(0.5, 1.5, out.numel()).reshape(out.shape) for out in outputs]
    torch.autograd.backward(outputs, seeds)
    gradients = {
        "grad_param": ((name, tensor.grad) for name, tensor in parameters(module)),
        "grad_in": enumerate(tensor.grad for tensor in inputs),
    }
    for group, tensors in gradients.items():
        for name, tensor in tensors:
            TENSORS[f"{case}/{group}/{name}"] = tensor.clone().contiguous()


def leaf(*shape):
    return torch.randn(*shape, requires_grad=True)


def shaken(module):
    """The module with every parameter drawn from a normal distribution."""
    for parameter in module.parameters():
        nn.init.normal_(parameter, 0.1, 0.4)
    return module


def recurrent():
    x = leaf(5, 2, 3)
    layer = shaken(nn.RNN(3, 4, num_layers=2, nonlinearity="relu", bidirectional=True))
    h0 = leaf(4, 2, 4)
    out, h = layer(x, h0)
    store_all("rnn", layer, [x, h0], [out, h])

    layer = shaken(nn.LSTM(3, 4, num_layers=2, bidirectional=True, batch_first=True))
    x = leaf(2, 5, 3)
    h0, c0 = leaf(4, 2, 4), leaf(4, 2, 4)
    out, (h, c) = layer(x, (h0, c0))
    store_all("lstm", layer, [x, h0, c0], [out, h, c])

    layer = shaken(nn.GRU(3, 4, num_layers=2, bias=False))
    x = leaf(6, 3)
    out, h = layer(x)
    store_all("gru", layer, [x], [out, h])

    layer = shaken(nn.GRU(3, 4, bidirectional=True))
    x = leaf(6, 2, 3)
    out, h = layer(x)
    store_all("gru_two_ways", layer, [x], [out, h])


def transformer():
    options = {"dropout": 0.0, "batch_first": True, "layer_norm_eps": 1e-3}
    data, known = torch.randn(2, 5, 8), torch.randn(2, 7, 8)

    def fresh(tensor):
        return tensor.clone().requires_grad_()

    for name, first, activation in [("after", False, "relu"), ("first", True, "gelu")]:
        more = {**options, "norm_first": first, "activation": activation}
        layer = shaken(nn.TransformerEncoderLayer(8, 2, 12, **more)).train()
        x = fresh(data)
        store_all(f"encoder_{name}", layer, [x], [layer(x)])
        layer = shaken(nn.TransformerDecoderLayer(8, 2, 12, **more)).train()
        mask = nn.Transformer.generate_square_subsequent_mask(5)
        x, memory = fresh(data), fresh(known)
        store_all(f"decoder_{name}", layer, [x, memory], [layer(x, memory, tgt_mask=mask)])
    stack = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(8, 4, 12, **options), 2, norm=nn.LayerNorm(8)
    )
    shaken(stack).train()
    x = fresh(data)
    store_all("encoder_stack", stack, [x], [stack(x)])


def batch_norm():
    layer = shaken(nn.BatchNorm2d(3, eps=1e-2, momentum=0.3)).train()
    inputs = [torch.randn(2, 3, 4, 5) * 2 + 1 for _ in range(3)]
    outputs = []
    for x in inputs[:2]:
        outputs += [layer(x), layer.running_mean.clone(), layer.running_var.clone()]
    layer.eval()
    outputs.append(layer(inputs[2]))
    store("batch_norm", layer, inputs, outputs)


def convolutions():
    """Every layer with another stride, padding, dilation and number of groups for each axis."""
    cases = {
        "conv1d": (nn.Conv1d(4, 6, 3, 2, 1, 2, 2), leaf(2, 4, 11)),
        "conv2d": (nn.Conv2d(4, 6, (3, 2), (2, 1), (1, 2), (1, 2), 2), leaf(2, 4, 7, 6)),
        "conv2d_same": (nn.Conv2d(3, 2, (3, 4), padding="same", bias=False), leaf(3, 5, 6)),
        "conv2d_depthwise": (nn.Conv2d(4, 8, 3, padding=1, groups=4), leaf(1, 4, 5, 5)),
        "conv3d": (
            nn.Conv3d(2, 4, (2, 3, 1), (1, 2, 2), (1, 0, 1), (2, 1, 1), 2),
            leaf(2, 2, 4, 5, 3),
        ),
        "transpose1d": (nn.ConvTranspose1d(4, 6, 3, 2, 1, 1, 2, dilation=2), leaf(2, 4, 5)),
        "transpose2d": (
            nn.ConvTranspose2d(4, 6, (3, 2), (2, 3), (1, 0), (1, 2), 2, dilation=(1, 2)),
            leaf(2, 4, 4, 3),
        ),
        "transpose2d_plain": (nn.ConvTranspose2d(3, 2, 2, bias=False), leaf(1, 3, 3, 4)),
        "transpose3d": (
            nn.ConvTranspose3d(2, 4, (2, 3, 1), (1, 2, 2), (1, 0, 0), (0, 1, 0), 2),
            leaf(2, 2, 3, 2, 3),
        ),
    }
    for case, (layer, x) in cases.items():
        store_all(case, shaken(layer), [x], [layer(x)])


def pools():
    cases = {
        "max_pool1d": (nn.MaxPool1d(3, 2, 1, 2), leaf(2, 3, 11)),
        "max_pool2d": (nn.MaxPool2d((3, 2), (2, 1), (1, 0), ceil_mode=True), leaf(2, 3, 8, 5)),
        "max_pool3d": (nn.MaxPool3d(2), leaf(1, 2, 4, 5, 4)),
        "avg_pool1d": (nn.AvgPool1d(3, 2, 1), leaf(2, 3, 9)),
        "avg_pool2d": (
            nn.AvgPool2d((3, 2), (2, 1), (1, 1), count_include_pad=False),
            leaf(2, 3, 7, 5),
        ),
        "avg_pool3d": (nn.AvgPool3d(2, ceil_mode=True), leaf(1, 2, 4, 5, 4)),
        "adaptive_max": (nn.AdaptiveMaxPool2d((3, 2)), leaf(2, 3, 7, 5)),
        "adaptive_avg": (nn.AdaptiveAvgPool2d((3, 2)), leaf(2, 3, 7, 5)),
        "adaptive_avg1d": (nn.AdaptiveAvgPool1d(4), leaf(2, 3, 10)),
    }
    for case, (layer, x) in cases.items():
        store_all(case, layer, [x], [layer(x)])


def norms():
    cases = {
        "group_norm": (nn.GroupNorm(2, 6, eps=1e-3), leaf(2, 6, 4, 3)),
        "instance_norm": (nn.InstanceNorm2d(3, affine=True, eps=1e-3), leaf(2, 3, 4, 5)),
        "instance_norm_plain": (nn.InstanceNorm1d(3), leaf(2, 3, 7)),
        "layer_norm": (nn.LayerNorm(6, eps=1e-3), leaf(4, 6)),
        "batch_norm_train": (nn.BatchNorm2d(3, eps=1e-2), leaf(3, 3, 4, 2)),
    }
    for case, (layer, x) in cases.items():
        store_all(case, shaken(layer).train(), [x], [layer(x)])
    layer = shaken(nn.BatchNorm1d(4)).eval()
    nn.init.normal_(layer.running_mean)
    nn.init.uniform_(layer.running_var, 0.5, 2.0)
    x = leaf(5, 4)
    store_all("batch_norm_eval", layer, [x], [layer(x)])
    statistics = {"running_mean": layer.running_mean, "running_var": layer.running_var}
    for name, tensor in statistics.items():
        TENSORS[f"batch_norm_eval/state/{name}"] = tensor.clone()


def cfc():
    """The cell of Hasani et al. 2022, written down from the paper's equation 2."""
    names = {
        "backbone.0.weight": (6, 7), "backbone.0.bias": (6,),
        "backbone.1.weight": (6, 6), "backbone.1.bias": (6,),
    }  # fmt: skip
    for head in ["ff1", "ff2", "time_a", "time_b"]:
        names[f"{head}.weight"], names[f"{head}.bias"] = (4, 6), (4,)
    p = {name: (torch.randn(shape) * 0.5).requires_grad_() for name, shape in names.items()}

    def linear(name, x):
        return nn.functional.linear(x, p[f"{name}.weight"], p[f"{name}.bias"])

    x, gaps, h0 = leaf(5, 2, 3), (torch.rand(5, 2) * 3).requires_grad_(), leaf(2, 4)
    h, outputs = h0, []
    for step, gap in zip(x, gaps):
        z = torch.cat([step, h], 1)
        for i in range(2):
            z = 1.7159 * torch.tanh(0.666 * linear(f"backbone.{i}", z))
        f = -(linear("time_a", z) * gap[:, None] + linear("time_b", z))
        g, k = torch.tanh(linear("ff1", z)), torch.tanh(linear("ff2", z))
        h = torch.sigmoid(f) * g + (1 - torch.sigmoid(f)) * k
        outputs.append(h)
    store_all("cfc", p, [x, gaps, h0], [torch.stack(outputs), h])


def main():
    torch.manual_seed(7)
    torch.set_num_threads(1)
    for make in [recurrent, transformer, batch_norm, cfc, convolutions, pools, norms]:
        make()
    save_file(TENSORS, Path(__file__).with_name("layers.safetensors"))
    print(len(TENSORS), "tensors")


if __name__ == "__main__":
    main()

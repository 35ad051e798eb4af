"""Writes `layers.safetensors`: layers of `torch.nn` with parameters that are not the defaults.

Of each case it holds the parameters `case/param/name`, the inputs `case/in/i` and the results
`case/out/i`, all F32. The sizes and options of a case are repeated in `tests/layers.rs`.

    pip install torch safetensors
    python make_layers.py
"""

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

TENSORS = {}


def store(case, module, inputs, outputs):
    """Stores one case; `module` may be a dict of tensors."""
    named = module.items() if isinstance(module, dict) else module.named_parameters()
    groups = {
        "param": named,
        "in": enumerate(inputs),
        "out": enumerate(outputs),
    }
    for group, tensors in groups.items():
        for name, tensor in tensors:
            TENSORS[f"{case}/{group}/{name}"] = tensor.detach().clone().contiguous()


def shaken(module):
    """The module with every parameter drawn from a normal distribution."""
    for parameter in module.parameters():
        nn.init.normal_(parameter, 0.1, 0.4)
    return module


def recurrent():
    x = torch.randn(5, 2, 3)
    layer = shaken(nn.RNN(3, 4, num_layers=2, nonlinearity="relu", bidirectional=True))
    h0 = torch.randn(4, 2, 4)
    out, h = layer(x, h0)
    store("rnn", layer, [x, h0], [out, h])

    layer = shaken(nn.LSTM(3, 4, num_layers=2, bidirectional=True, batch_first=True))
    x = torch.randn(2, 5, 3)
    h0, c0 = torch.randn(4, 2, 4), torch.randn(4, 2, 4)
    out, (h, c) = layer(x, (h0, c0))
    store("lstm", layer, [x, h0, c0], [out, h, c])

    layer = shaken(nn.GRU(3, 4, num_layers=2, bias=False))
    x = torch.randn(6, 3)
    out, h = layer(x)
    store("gru", layer, [x], [out, h])

    layer = shaken(nn.GRU(3, 4, bidirectional=True))
    x = torch.randn(6, 2, 3)
    out, h = layer(x)
    store("gru_two_ways", layer, [x], [out, h])


def transformer():
    options = {"dropout": 0.0, "batch_first": True, "layer_norm_eps": 1e-3}
    x, memory = torch.randn(2, 5, 8), torch.randn(2, 7, 8)
    for name, first, activation in [("after", False, "relu"), ("first", True, "gelu")]:
        more = {**options, "norm_first": first, "activation": activation}
        layer = shaken(nn.TransformerEncoderLayer(8, 2, 12, **more)).train()
        store(f"encoder_{name}", layer, [x], [layer(x)])
        layer = shaken(nn.TransformerDecoderLayer(8, 2, 12, **more)).train()
        mask = nn.Transformer.generate_square_subsequent_mask(5)
        store(f"decoder_{name}", layer, [x, memory], [layer(x, memory, tgt_mask=mask)])
    stack = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(8, 4, 12, **options), 2, norm=nn.LayerNorm(8)
    )
    shaken(stack).train()
    store("encoder_stack", stack, [x], [stack(x)])


def batch_norm():
    layer = shaken(nn.BatchNorm2d(3, eps=1e-2, momentum=0.3)).train()
    inputs = [torch.randn(2, 3, 4, 5) * 2 + 1 for _ in range(3)]
    outputs = []
    for x in inputs[:2]:
        outputs += [layer(x), layer.running_mean.clone(), layer.running_var.clone()]
    layer.eval()
    outputs.append(layer(inputs[2]))
    store("batch_norm", layer, inputs, outputs)


def cfc():
    """The cell of Hasani et al. 2022, written down from the paper's equation 2."""
    names = {
        "backbone.0.weight": (6, 7), "backbone.0.bias": (6,),
        "backbone.1.weight": (6, 6), "backbone.1.bias": (6,),
    }  # fmt: skip
    for head in ["ff1", "ff2", "time_a", "time_b"]:
        names[f"{head}.weight"], names[f"{head}.bias"] = (4, 6), (4,)
    p = {name: torch.randn(shape) * 0.5 for name, shape in names.items()}

    def linear(name, x):
        return nn.functional.linear(x, p[f"{name}.weight"], p[f"{name}.bias"])

    x, gaps, h0 = torch.randn(5, 2, 3), torch.rand(5, 2) * 3, torch.randn(2, 4)
    h, outputs = h0, []
    for step, gap in zip(x, gaps):
        z = torch.cat([step, h], 1)
        for i in range(2):
            z = 1.7159 * torch.tanh(0.666 * linear(f"backbone.{i}", z))
        f = -(linear("time_a", z) * gap[:, None] + linear("time_b", z))
        g, k = torch.tanh(linear("ff1", z)), torch.tanh(linear("ff2", z))
        h = torch.sigmoid(f) * g + (1 - torch.sigmoid(f)) * k
        outputs.append(h)
    store("cfc", p, [x, gaps, h0], [torch.stack(outputs), h])


def main():
    torch.manual_seed(7)
    torch.set_num_threads(1)
    for make in [recurrent, transformer, batch_norm, cfc]:
        make()
    save_file(TENSORS, Path(__file__).with_name("layers.safetensors"))
    print(len(TENSORS), "tensors")


if __name__ == "__main__":
    main()

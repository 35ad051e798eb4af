"""Writes `optim.json` and `optim.safetensors`: torch's optimizers, schedules and clipping, step by step.

Each optimizer case moves some of three parameters by ten gradients that are given as data; after
every step the parameters are stored, after the last one the states. Schedules are stored as rates,
in f64. All is computed in f64, so that the numbers are those of the formulas.

Lion, which torch does not have, is written out below after the paper. Muon is made to iterate in
f64 instead of bf16.

    python make_optim.py
"""

import json
import warnings
from pathlib import Path

import torch
from safetensors.torch import save_file

N_STEPS = 10
SHAPES = {"w": (5, 3), "v": (3, 7), "b": (7,)}
HERE = Path(__file__).parent

torch.manual_seed(11)
torch.set_default_dtype(torch.float64)
warnings.filterwarnings("ignore", message=".*lr_scheduler.step.*")


def rounded(x):
    """Numbers that f32 holds exactly."""
    return x.to(torch.float32).to(torch.float64)


INITIAL = {name: rounded(torch.randn(shape)) for name, shape in SHAPES.items()}
SCALE = {"w": 1.0, "v": 0.1, "b": 3.0}
GRADS = {
    name: rounded(SCALE[name] * torch.randn((N_STEPS, *shape)) + 0.2) for name, shape in SHAPES.items()
}


class Lion(torch.optim.Optimizer):
    """Chen et al. 2023, algorithm 2."""

    def __init__(self, params, lr=1e-4, betas=(0.9, 0.99), weight_decay=0.0):
        super().__init__(params, dict(lr=lr, betas=betas, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for p in group["params"]:
                m = self.state[p].setdefault("exp_avg", torch.zeros_like(p))
                direction = (beta1 * m + (1 - beta1) * p.grad).sign()
                p.sub_(group["lr"] * (direction + group["weight_decay"] * p))
                m.mul_(beta2).add_((1 - beta2) * p.grad)


OPTIMIZERS = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "rmsprop": torch.optim.RMSprop,
    "adagrad": torch.optim.Adagrad,
    "lion": Lion,
    "muon": torch.optim.Muon,
}

CASES = [
    ("sgd", dict(lr=0.1)),
    ("sgd", dict(lr=0.05, momentum=0.9)),
    ("sgd", dict(lr=0.05, momentum=0.8, dampening=0.3, weight_decay=0.02)),
    ("sgd", dict(lr=0.03, momentum=0.7, nesterov=True, weight_decay=0.1)),
    ("adam", dict(lr=0.01)),
    ("adam", dict(lr=0.02, betas=(0.8, 0.95), eps=1e-3, weight_decay=0.1)),
    ("adam", dict(lr=0.05, betas=(0.5, 0.6), amsgrad=True)),
    ("adamw", dict(lr=0.01)),
    ("adamw", dict(lr=0.03, betas=(0.7, 0.9), eps=1e-2, weight_decay=0.3, amsgrad=True)),
    ("adamw", dict(lr=0.03, betas=(0.0, 0.9), weight_decay=0.0)),
    ("rmsprop", dict(lr=0.01)),
    ("rmsprop", dict(lr=0.02, alpha=0.8, eps=1e-3, weight_decay=0.1, momentum=0.7)),
    ("rmsprop", dict(lr=0.02, alpha=0.9, eps=1e-2, centered=True, momentum=0.5)),
    ("adagrad", dict(lr=0.1)),
    ("adagrad", dict(lr=0.2, lr_decay=0.3, weight_decay=0.1, initial_accumulator_value=0.5, eps=1e-2)),
    ("lion", dict(lr=0.01)),
    ("lion", dict(lr=0.03, betas=(0.8, 0.95), weight_decay=0.2)),
    ("muon", dict(lr=0.02)),
    ("muon", dict(lr=0.05, momentum=0.8, nesterov=False, weight_decay=0.3, ns_steps=3,
                  ns_coefficients=(2.0, -1.5, 0.5), adjust_lr_fn="match_rms_adamw")),
]

SCHEDULES = {
    "step": (lambda o: torch.optim.lr_scheduler.StepLR(o, 7, 0.3), 0.5),
    "exponential": (lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.93), 0.2),
    "cosine": (lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 30, 0.01), 0.4),
    "warm_up": (lambda o: torch.optim.lr_scheduler.LinearLR(o, 0.25, 1.0, 9), 0.4),
    "warm_up_cosine": (
        lambda o: torch.optim.lr_scheduler.SequentialLR(
            o,
            [
                torch.optim.lr_scheduler.LinearLR(o, 0.1, 1.0, 6),
                torch.optim.lr_scheduler.CosineAnnealingLR(o, 24, 0.02),
            ],
            [6],
        ),
        0.3,
    ),
    "one_cycle": (lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.6, 31, cycle_momentum=False), 0.6),
    "one_cycle_linear": (
        lambda o: torch.optim.lr_scheduler.OneCycleLR(
            o, 0.6, 31, pct_start=0.45, anneal_strategy="linear", div_factor=8.0,
            final_div_factor=50.0, cycle_momentum=False,
        ),
        0.6,
    ),
}

tensors = {}
cases = []


def put(name, tensor, dtype=torch.float32):
    tensors[name] = tensor.detach().to(dtype).contiguous()


def fresh(names):
    params = {name: INITIAL[name].clone().requires_grad_(True) for name in names}
    return params, list(params.values())


def trajectory(ident, names, optimizer, params, prepare=None, after=None):
    """Ten steps; stores the parameters after each and the states after the last."""
    seen = {name: [] for name in names}
    for i in range(N_STEPS):
        for name in names:
            params[name].grad = GRADS[name][i].clone()
        if prepare is None or prepare(i):
            optimizer.step()
        if after:
            after(i)
        for name in names:
            seen[name].append(params[name].detach().clone())
    for name in names:
        put(f"{ident}.{name}", torch.stack(seen[name]))
        for key, value in optimizer.state[params[name]].items():
            if key != "step" and torch.is_tensor(value):
                put(f"{ident}.{name}.{key}", value)


def optimizer_cases():
    keep = torch.Tensor.to

    def wide(self, *args, **kwargs):
        if kwargs.get("dtype") is torch.bfloat16:
            return self.clone()
        return keep(self, *args, **kwargs)

    torch.Tensor.to = wide
    for number, (name, args) in enumerate(CASES):
        names = ["w", "v"] if name == "muon" else ["w", "b"]
        params, values = fresh(names)
        ident = f"{name}_{number}"
        trajectory(ident, names, OPTIMIZERS[name](values, **args), params)
        cases.append(dict(id=ident, kind="optimizer", optimizer=name, args=args, params=names))
    torch.Tensor.to = keep


def schedule_cases():
    for name, (make, rate) in SCHEDULES.items():
        p = torch.zeros(1, requires_grad=True)
        optimizer = torch.optim.SGD([p], lr=rate)
        schedule = make(optimizer)
        rates = []
        for _ in range(31):
            rates.append(optimizer.param_groups[0]["lr"])
            if len(rates) < 31:
                optimizer.step()
                schedule.step()
        put(f"schedule_{name}", torch.tensor(rates), torch.float64)


def clip_cases():
    for ident, limit in [("clip_norm", 4.0), ("clip_norm_loose", 1e3)]:
        names = ["w", "b"]
        params, values = fresh(names)
        norms = []

        def prepare(_):
            norms.append(torch.nn.utils.clip_grad_norm_(values, limit))
            return True

        trajectory(ident, names, torch.optim.SGD(values, lr=0.1), params, prepare)
        put(f"{ident}.norm", torch.stack(norms))
    names = ["w", "b"]
    params, values = fresh(names)

    def by_value(_):
        torch.nn.utils.clip_grad_value_(values, 0.7)
        return True

    trajectory("clip_value", names, torch.optim.SGD(values, lr=0.1), params, by_value)


def combined_cases():
    """Means of three gradients, clipped, for AdamW under a schedule."""
    names = ["w", "b"]
    params, values = fresh(names)
    optimizer = torch.optim.AdamW(values, lr=0.05)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)

    def mean(i):
        if i % 3 != 2:
            return False
        for name in names:
            params[name].grad = GRADS[name][i - 2 : i + 1].mean(0)
        torch.nn.utils.clip_grad_norm_(values, 2.0)
        return True

    trajectory("accumulate", names, optimizer, params, mean, lambda i: schedule.step() if i % 3 == 2 else None)


def ema_cases():
    names = ["w", "b"]
    params, values = fresh(names)
    holder = torch.nn.ParameterList(values)
    average = torch.optim.swa_utils.get_ema_multi_avg_fn(0.8)
    averaged = torch.optim.swa_utils.AveragedModel(holder, multi_avg_fn=average)
    inner = list(holder.parameters())
    optimizer = torch.optim.SGD(inner, lr=0.1)
    params = dict(zip(names, inner))
    seen = {name: [] for name in names}

    def after(_):
        averaged.update_parameters(holder)
        for name, value in zip(names, averaged.module.parameters()):
            seen[name].append(value.detach().clone())

    trajectory("ema", names, optimizer, params, None, after)
    for name in names:
        put(f"ema.{name}.ema", torch.stack(seen[name]))


for name, value in INITIAL.items():
    put(f"initial.{name}", value)
    put(f"grads.{name}", GRADS[name])
optimizer_cases()
schedule_cases()
clip_cases()
combined_cases()
ema_cases()
save_file(tensors, HERE / "optim.safetensors")
with open(HERE / "optim.json", "w") as file:
    json.dump(dict(torch=torch.__version__, cases=cases), file, indent=1)
    file.write("\n")

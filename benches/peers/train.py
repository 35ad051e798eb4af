"""Median time of a training step in PyTorch: forward, backward, update.

    python train.py [MODEL] [--steps 50] [--threads 2] [--no-compile]

Models: a perceptron 784-16-10 (SGD, batch 256), a perceptron 784-512-512-10 (Adam, batch 256), a small
convolutional network (SGD with momentum, batch 64) and a small Gemma 2 (AdamW, 20 x 256 tokens; needs transformers);
each eager and through `torch.compile`, on one and two threads.
"""

import argparse
import statistics
import time

import torch
from torch import nn


def perceptron(*sizes):
    layers = []
    for n_in, n_out in zip(sizes, sizes[1:]):
        layers += [nn.Linear(n_in, n_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def convolutions():
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
    )


class Images:
    """Noise that a network tells ten classes of."""

    def __init__(self, model, *shape):
        self.model, self.criterion = model, nn.CrossEntropyLoss()
        self.images, self.labels = torch.randn(shape), torch.randint(0, 10, (shape[0],))

    def loss(self):
        return self.criterion(self.model(self.images), self.labels)


class Text:
    """The shape of the model in `models/`, and noise for it to predict."""

    def __init__(self):
        from transformers import Gemma2Config, Gemma2ForCausalLM
        config = Gemma2Config(
            vocab_size=2048, hidden_size=192, intermediate_size=512, num_hidden_layers=6, num_attention_heads=4,
            num_key_value_heads=2, head_dim=48, max_position_embeddings=1024, query_pre_attn_scalar=40,
            sliding_window=64, attn_implementation="eager", use_cache=False)
        self.model, self.criterion = Gemma2ForCausalLM(config), nn.CrossEntropyLoss()
        self.tokens, self.targets = (torch.randint(0, 2048, (20, 256)) for _ in range(2))

    def loss(self):
        scores = self.model(self.tokens).logits
        return self.criterion(scores.flatten(0, 1), self.targets.flatten())


class Clipped(torch.optim.AdamW):
    def step(self):
        torch.nn.utils.clip_grad_norm_(self.param_groups[0]["params"], 1.0)
        super().step()


MODELS = [
    ("mlp 784-16-10 sgd, batch 256", lambda: Images(perceptron(784, 16, 10), 256, 784),
     lambda p: torch.optim.SGD(p, lr=0.01)),
    ("mlp 784-512-512-10 adam, batch 256", lambda: Images(perceptron(784, 512, 512, 10), 256, 784),
     lambda p: torch.optim.Adam(p, lr=1e-3)),
    ("lenet sgd momentum, batch 64", lambda: Images(convolutions(), 64, 1, 28, 28),
     lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9)),
    ("gemma2 adamw, 20 x 256 tokens", Text, lambda p: Clipped(p, lr=1e-3)),
]


def measure(make, make_optimizer, compiled, n_steps):
    torch.manual_seed(0)
    task = make()
    optimizer = make_optimizer(task.model.parameters())
    loss = torch.compile(task.loss) if compiled else task.loss

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss().backward()
        optimizer.step()

    for _ in range(5):
        step()
    times = []
    for _ in range(n_steps):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e3


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="", help="only models with this in their name")
    parser.add_argument("--steps", type=int, default=50, help="steps that are timed")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="numbers of threads")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    args = parser.parse_args()
    for name, make, optimizer in MODELS:
        for threads in args.threads if args.model in name else ():
            torch.set_num_threads(threads)
            for compiled in (False,) if args.no_compile else (False, True):
                way = "compiled" if compiled else "eager"
                median = measure(make, optimizer, compiled, args.steps)
                print(f"{name:<36} {threads} threads  {way:<8} {median:8.3f} ms", flush=True)


if __name__ == "__main__":
    main()

"""Median time of a training step in PyTorch: forward, backward, update.

    python train.py [--steps 50] [--no-compile]

Models: a perceptron 784-16-10 (SGD, batch 256), a perceptron 784-512-512-10 (Adam, batch 256) and a small
convolutional network (SGD with momentum, batch 64); each eager and through `torch.compile`, on one and two threads.
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


MODELS = [
    ("mlp 784-16-10 sgd, batch 256", lambda: perceptron(784, 16, 10), (256, 784),
     lambda p: torch.optim.SGD(p, lr=0.01)),
    ("mlp 784-512-512-10 adam, batch 256", lambda: perceptron(784, 512, 512, 10), (256, 784),
     lambda p: torch.optim.Adam(p, lr=1e-3)),
    ("lenet sgd momentum, batch 64", convolutions, (64, 1, 28, 28),
     lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9)),
]


def measure(make, shape, make_optimizer, compiled, n_steps):
    torch.manual_seed(0)
    model = make()
    optimizer = make_optimizer(model.parameters())
    criterion = nn.CrossEntropyLoss()
    images, labels = torch.randn(shape), torch.randint(0, 10, (shape[0],))

    forward = lambda: criterion(model(images), labels)
    if compiled:
        forward = torch.compile(forward)

    def step():
        optimizer.zero_grad(set_to_none=True)
        forward().backward()
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
    parser.add_argument("--steps", type=int, default=50, help="steps that are timed")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    args = parser.parse_args()
    for name, make, shape, optimizer in MODELS:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            for compiled in (False,) if args.no_compile else (False, True):
                way = "compiled" if compiled else "eager"
                median = measure(make, shape, optimizer, compiled, args.steps)
                print(f"{name:<36} {threads} threads  {way:<8} {median:8.3f} ms")


if __name__ == "__main__":
    main()

"""Runs the rows of benches/rows/mod.rs with brain-blitz and its peers side by side, and writes a table.

The programs take turns: on a machine that others use too, only figures of the same minutes can be compared. Of each
program the median over all its runs counts. The ratio is the fastest peer's time by ours: above 1 we are faster.
"""

import argparse
import datetime
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
# Large tensors are fresh mappings otherwise, whose pages the system clears at every run.
REUSED = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "16000000000"}
THREADS = ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS", "MATMUL_NUM_THREADS"]
PYTHON = [
    ("torch", "torch", {}),
    ("torch, pages reused", "torch", REUSED),
    ("numpy", "numpy", {}),
    ("onnxruntime", "onnxruntime", {}),
]
# Peers of the program in rust/.
RUST = [
    ("gemm", "gemm", {}),
    ("matrixmultiply", "matrixmultiply", {}),
    ("candle", "candle", REUSED),
]


class Worker:
    """A peer in a process of its own."""

    def __init__(self, command, peer, threads, env):
        limits = {name: str(threads) for name in THREADS}
        self.process = subprocess.Popen(
            [*command, peer, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | limits | env,
        )
        self.peer, self.version = peer, json.loads(self.process.stdout.readline())

    def times(self, row, seconds):
        self.tell(f"{row} {seconds}")
        return json.loads(self.process.stdout.readline())

    def tell(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()


def ours(program, row, seconds, threads):
    command = [program, row, "--seconds", str(seconds), "--threads", str(threads)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def cpu_name():
    try:
        info = pathlib.Path("/proc/cpuinfo").read_text()
    except OSError:
        return "unknown"
    found = re.search(r"model name\s*:\s*(.*)", info)
    return found.group(1).strip() if found else "unknown"


def rate(unit, amount, milliseconds):
    """A time as what is useful to read."""
    if unit == "latency":
        return f"{1e3 * milliseconds:.1f} µs"
    kind = "GFLOP/s" if unit == "flop" else "GB/s"
    return f"{amount / milliseconds / 1e6:.1f} {kind}"


def measured(args, row, workers):
    """The medians of one row: ours, then the peers'; and what was measured of ours."""
    all_times = [[] for _ in range(len(workers) + 1)]
    for _ in range(args.rounds):
        mine = ours(args.program, row, args.seconds, args.threads)
        assert mine["finite"], f"{row} has results that are not finite"
        all_times[0] += mine["ms"]
        for times, worker in zip(all_times[1:], workers):
            times += worker.times(row, args.seconds) or []
    for worker in workers:
        worker.tell("")
    return mine, [statistics.median(times) if times else None for times in all_times]


def table(args, columns, workers, lines):
    versions = sorted({f"{worker.peer} {worker.version}" for worker in workers})
    head = [
        f"# {datetime.date.today()}, {cpu_name()}",
        "",
        f"{args.threads} threads; {', '.join(versions)}; brain-blitz {args.commit}.",
        f"Medians over {args.rounds} rounds in which the programs took turns. The ratio is the time of the fastest "
        "peer by ours.",
        "",
        "| row | kernels | brain-blitz | " + " | ".join(column[0] for column in columns) + " | ratio |",
        "|---|---|---|" + "---|" * len(columns) + "---|",
    ]
    return "\n".join(head + lines) + "\n"


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", required=True, help="the benchmark row_times")
    parser.add_argument("--rust", help="the program of rust/, if its peers are to be compared with too")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.5, help="of each program in each round")
    parser.add_argument("--commit", default="")
    parser.add_argument("--output", type=pathlib.Path, help="a folder, or a file")
    parser.add_argument("rows", nargs="*")
    return parser.parse_args()


def main():
    args = arguments()
    listed = subprocess.run([args.program, "--list"], check=True, capture_output=True, text=True)
    rows = args.rows or listed.stdout.split()
    python = [sys.executable, HERE / "worker.py"]
    kinds = [(column, python) for column in PYTHON]
    if args.rust:
        kinds += [(column, [args.rust]) for column in RUST]
    columns = [column for column, _ in kinds]
    workers = [Worker(command, peer, args.threads, env) for (_, peer, env), command in kinds]
    lines = []
    for row in rows:
        mine, medians = measured(args, row, workers)
        shown = [rate(mine["unit"], mine["amount"], t) if t else "" for t in medians]
        fastest = min((t for t in medians[1:] if t), default=None)
        ratio = f"**{fastest / medians[0]:.2f}**" if fastest else ""
        cells = [row, str(mine["kernels"]), *shown, ratio]
        lines.append("| " + " | ".join(cells) + " |")
        print(lines[-1], file=sys.stderr, flush=True)
    text = table(args, columns, workers, lines)
    if args.output is None:
        print(text, end="")
        return
    path = args.output
    if path.is_dir():
        cpu = re.sub(r"[^a-z0-9]+", "-", cpu_name().lower()).strip("-")
        path = path / f"{datetime.date.today()}-{cpu}.md"
    path.write_text(text)
    print(path, file=sys.stderr)


main()

"""Compares brain-blitz with llama.cpp on whole models, in turn, and prints a table.

    python3 benches/peers/llama.py [MODEL ...] [--threads N] [--rounds N] [--prompt N] [--generate N]

A MODEL is a GGUF file that both programs read, or the name of a type (q8_0, q4_0, q1_0, ...): then it is Gemma 2 2B's
shape with random weights, which synthetic.py makes and `brain-blitz convert` writes in that type. Without one:
q8_0 q4_0 q1_0. What is made stays in the user's cache folder (5.2 GB and the files).

llama-bench is built from the source package of llama-cpp-python for the machine at hand (needs cmake and a C++
compiler); LLAMA_BENCH names one that is there already. BRAIN_BLITZ names our program [target/release/brain-blitz].

A rate is the median over a program's rounds, each the median of its own repetitions; both generate behind the prompt.
Start to first token is a process's whole time for one token after a prompt of one, memory its largest resident size in
that; started before is the same with the files that `--pack-dir` left behind, which llama-bench has nothing like.
"""

import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tarfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SOURCE = "llama-cpp-python==0.3.36"
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
CACHE = CACHE / "brain-blitz" / "llama"


def say(what):
    print(f"llama: {what}", file=sys.stderr, flush=True)


def run(*command):
    subprocess.run([str(part) for part in command], check=True, stdout=sys.stderr)


def llama_bench():
    """The program, built if it is not there."""
    if "LLAMA_BENCH" in os.environ:
        return os.environ["LLAMA_BENCH"]
    program = CACHE / "build/bin/llama-bench"
    if not program.exists():
        say(f"building llama-bench of {SOURCE}")
        CACHE.mkdir(parents=True, exist_ok=True)
        run(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps",
            "--no-binary", SOURCE.split("==")[0], "--dest", CACHE, SOURCE)
        archive = next(CACHE.glob("llama_cpp_python-*.tar.gz"))
        with tarfile.open(archive) as tar:
            tar.extractall(CACHE, filter="data")
        source = next(CACHE.glob("llama_cpp_python-*/vendor/llama.cpp"))
        run("cmake", "-S", source, "-B", CACHE / "build", "-DCMAKE_BUILD_TYPE=Release", "-DGGML_NATIVE=ON",
            "-DLLAMA_CURL=OFF", "-DLLAMA_BUILD_TESTS=OFF", "-DLLAMA_BUILD_SERVER=OFF")
        run("cmake", "--build", CACHE / "build", "--target", "llama-bench", "--parallel")
    return program


def brain_blitz():
    program = pathlib.Path(os.environ.get("BRAIN_BLITZ") or ROOT / "target/release/brain-blitz")
    if not program.exists():
        sys.exit(f"llama: {program} is not there: run `make setup`, then `cargo build --release`")
    return program


def model_file(name, ours):
    """The file of a model, made if it is one of the synthetic ones."""
    if os.sep in name or name.endswith(".gguf"):
        return pathlib.Path(name)
    folder = CACHE / "gemma2-2b"
    if not (folder / "model.safetensors").exists():
        say(f"writing {folder}, 5.2 GB")
        run(sys.executable, HERE / "synthetic.py", folder)
    file = CACHE / f"gemma2-2b-{name}.gguf"
    if not file.exists():
        # The output layer too is of that type.
        run(ours, "convert", folder, file, "--quant", name, "--embedding", name)
    return file


def output(command):
    return subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True).stdout


def ours_rates(program, file, args):
    found = json.loads(output([
        program, "bench", "--model", file, "--threads", args.threads, "--prompt-tokens", args.prompt,
        "--generate-tokens", args.generate, "--repeat", 3, "--json",
    ]))
    return found["prefill_tok_s"], found["decode_tok_s"]


def llama_rates(program, file, args):
    def rate(*work):
        found = output([program, "-m", file, "-t", args.threads, *work, "-r", 3, "-o", "json"])
        return statistics.median(json.loads(found)[0]["samples_ts"])

    # Both programs generate behind the prompt.
    reading = rate("-p", args.prompt, "-n", 0)
    return reading, rate("-p", 0, "-n", args.generate, "-d", args.prompt)


def first_token(command):
    """Seconds and largest resident bytes of a process."""
    begin = time.monotonic()
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        sys.exit(f"llama: {command[0]} failed")
    return time.monotonic() - begin, usage.ru_maxrss * 1024


def measure(name, programs, args):
    """One row: of each program its rates, seconds to the first token, bytes, and seconds where it was started before."""
    ours, llama = programs
    file = model_file(name, ours)
    first = [
        [ours, "generate", "--model", file, "--prompt", "a", "--max-tokens", 1, "--threads", args.threads, "--quiet"],
        [llama, "-m", file, "-t", args.threads, "-p", 0, "-n", 1, "-r", 1, "--no-warmup"],
    ]
    packed = CACHE / "packed"
    again = [[*first[0], "--pack-dir", packed], first[1]]
    first_token(again[0])
    rounds = [[], []]
    for i in range(args.rounds):
        say(f"{file.name}, round {i + 1} of {args.rounds}")
        for program, rates in enumerate([ours_rates, llama_rates]):
            of_rates = rates(programs[program], file, args)
            of_start = first_token(first[program])
            rounds[program].append([*of_rates, *of_start, first_token(again[program])[0]])
    # There is none if nothing of the model is kept packed.
    shutil.rmtree(packed, ignore_errors=True)
    medians = [[statistics.median(column) for column in zip(*rows)] for rows in rounds]
    return file, medians, rounds


def line(file, medians, rounds):
    mine, peer = medians
    cells = [f"{file.stem} ({file.stat().st_size / 1e9:.2f} GB)"]
    for column, digits, scale in [(0, 1, 1), (1, 1, 1), (2, 2, 1), (4, 2, 1), (3, 2, 1e-9)]:
        # How much better: more tokens a second, fewer seconds and bytes.
        ratios = [theirs[column] / ours[column] for ours, theirs in zip(*rounds)]
        ratio = peer[column] / mine[column]
        if column < 2:
            ratios, ratio = [1 / r for r in ratios], 1 / ratio
        shown = " / ".join(f"{scale * x[column]:.{digits}f}" for x in (mine, peer))
        cells.append(f"{shown} = **{ratio:.2f}** ({min(ratios):.2f} to {max(ratios):.2f})")
    return "| " + " | ".join(cells) + " |"


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], epilog="\n\n".join(__doc__.split("\n\n")[2:]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("models", nargs="*", metavar="MODEL", default=["q8_0", "q4_0", "q1_0"])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prompt", type=int, default=512, help="tokens to read")
    parser.add_argument("--generate", type=int, default=64, help="tokens to generate, after the prompt here, from an empty context in llama-bench")
    return parser.parse_args()


def main():
    args = arguments()
    programs = [brain_blitz(), llama_bench()]
    print(f"{args.threads} threads, {args.rounds} rounds in turn: brain-blitz / llama.cpp = how much better (least to most)\n")
    print(f"| model | reading {args.prompt}, tok/s | generating {args.generate}, tok/s | start to first token, s | started before, s | memory, GB |")
    print("|---|---|---|---|---|---|", flush=True)
    for name in args.models:
        print(line(*measure(name, programs, args)), flush=True)


if __name__ == "__main__":
    main()

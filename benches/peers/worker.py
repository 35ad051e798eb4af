"""Measures rows with one peer, in a process of its own: `worker.py PEER THREADS`.

Reads a line `ROW SECONDS` from standard input and answers with a line of JSON: the milliseconds of each run, after two
that are not counted. `null` stands for a row that the peer does not have. An empty line frees the last row's memory.
"""

import gc
import importlib.metadata
import json
import sys
import time

import rows

FEWEST, MOST = 5, 20_000


def measured(run, seconds):
    run(), run()
    times, spent = [], 0.0
    while len(times) < FEWEST or (spent < seconds and len(times) < MOST):
        start = time.perf_counter()
        run()
        one = time.perf_counter() - start
        times.append(1e3 * one)
        spent += one
    return times


def main():
    peer, threads = sys.argv[1], int(sys.argv[2])
    table = rows.PEERS[peer](threads)
    print(json.dumps(importlib.metadata.version(peer)), flush=True)
    known, run = None, None
    for line in sys.stdin:
        if not line.strip():
            known, run = None, None
            gc.collect()
            continue
        name, seconds = line.split()
        if name not in table:
            print("null", flush=True)
            continue
        if name != known:
            run = None
            gc.collect()
            known, run = name, table[name]()
        print(json.dumps(measured(run, float(seconds))), flush=True)


main()

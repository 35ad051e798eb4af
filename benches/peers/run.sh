#!/bin/sh
# Compares brain-blitz with its peers, row by row, and writes benches/results/<date>-<cpu>.md.
#
#   benches/peers/run.sh [ROW ...]
#
# The peers are installed into a virtual environment of their own, in the user's cache folder; those in Rust are built
# from rust/, for the machine at hand. Switches:
#   PEERS_PYTHON=PATH    a Python that has the packages of requirements.txt, instead of that environment
#   PEERS_RUST=PATH      a program built from rust/; `off` for no peers in Rust
#   PEERS_OUTPUT=PATH    where the table goes: a folder, or a file
#   PEERS_THREADS=N      threads of every program; default: the machine's cores
#   PEERS_ROUNDS=N, PEERS_SECONDS=S    how long it measures
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
cd "$root"

if [ -z "${PEERS_PYTHON:-}" ]; then
    venv=${XDG_CACHE_HOME:-$HOME/.cache}/brain-blitz/peers
    PEERS_PYTHON=$venv/bin/python
    if ! cmp -s "$here/requirements.txt" "$venv/installed.txt"; then
        python3 -m venv "$venv"
        "$PEERS_PYTHON" -m pip install --quiet --extra-index-url https://download.pytorch.org/whl/cpu \
            --retries 1 -r "$here/requirements.txt"
        cp "$here/requirements.txt" "$venv/installed.txt"
    fi
fi

if [ -z "${PEERS_RUST:-}" ]; then
    RUSTFLAGS="-C target-cpu=native" cargo build --release --quiet --locked --manifest-path "$here/rust/Cargo.toml" \
        --target-dir "$root/target/peers"
    PEERS_RUST=$root/target/peers/release/brain-blitz-peers
elif [ "$PEERS_RUST" = off ]; then
    PEERS_RUST=
fi

# shellcheck disable=SC2086 # CARGO_FEATURES is a list of words, or empty.
program=$(cargo bench --bench row_times --no-run --message-format=json ${CARGO_FEATURES:-} |
    sed -n 's/.*"executable":"\([^"]*row_times[^"]*\)".*/\1/p' | tail -n 1)
commit=$(git describe --always --dirty 2>/dev/null || true)
exec "$PEERS_PYTHON" "$here/compare.py" --program "$program" --rust "$PEERS_RUST" --commit "$commit" \
    --threads "${PEERS_THREADS:-$(nproc)}" --rounds "${PEERS_ROUNDS:-3}" --seconds "${PEERS_SECONDS:-0.5}" \
    --output "${PEERS_OUTPUT:-$root/benches/results}" "$@"

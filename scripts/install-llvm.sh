#!/bin/sh
# Makes this machine ready to build brain-blitz, and writes what cargo has to be told about it.
#
#   usage: scripts/install-llvm.sh [FILE]        (default: target/llvm.env)
#
# 1. A C and C++ toolchain: installed when `cc` or `c++` is missing.
# 2. LLVM 22: found, or installed with the system's package manager (apt, dnf, Homebrew). Where the
#    system has no LLVM 22 but LLVM 19, that is used, and the script says so.
# 3. Rust: found, or a hint is printed; this script installs no Rust toolchain.
#
# FILE is sourced by the Makefile before cargo runs. It sets
#   CARGO_FEATURES           the feature options that fit the LLVM that was found
#   LLVM_SYS_221_PREFIX      (or _191_) only when the build would not find that LLVM by itself
#   PATH                     only when cargo is installed but not on PATH
#
# BB_NO_LLVM=1 leaves LLVM alone and builds without the native back end.
# Commands that need it run as root directly, or through sudo. Each is printed before it runs.
set -eu

env_file=${1:-target/llvm.env}
wanted=22
fallback=19

say() { printf '%s\n' "install-llvm: $*" >&2; }
die() { say "$*"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

as_root() {
    if [ "$(id -u)" = 0 ]; then
        say "running: $*"
        "$@"
    elif have sudo; then
        say "running: sudo $*"
        sudo "$@"
    else
        say "needs root, and there is no sudo: $*"
        return 1
    fi
}

# --- Package managers -------------------------------------------------------------------------

package_manager() {
    if [ "$(uname -s)" = Darwin ]; then
        have brew && echo brew || echo none
    elif have apt-get; then echo apt
    elif have dnf; then echo dnf
    else echo none
    fi
}

apt_updated=no
apt_update() {
    [ "$apt_updated" = no ] || return 0
    apt_updated=yes
    as_root apt-get update -q >&2 || say "apt-get update failed: going on with the package lists that are here"
}

apt_has() { apt-cache policy "$1" 2>/dev/null | grep -q 'Candidate: [^(]'; }

# install_packages PACKAGE...
install_packages() {
    case $manager in
        apt) apt_update && as_root env DEBIAN_FRONTEND=noninteractive \
                apt-get install -y -q --no-install-recommends "$@" >&2 ;;
        dnf) as_root dnf install -y -q "$@" >&2 ;;
        brew) say "running: brew install $*"; brew install "$@" >&2 ;;
        *) say "no apt, dnf or brew here; please install: $*"; return 1 ;;
    esac
}

# --- Finding LLVM -----------------------------------------------------------------------------

major_of() { "$1" --version 2>/dev/null | sed 's/\..*//'; }

# Whether llvm-config $1 is of major version $2 and has its headers and shared library beside it.
usable() {
    [ "$(major_of "$1")" = "$2" ] || return 1
    [ -f "$("$1" --includedir)/llvm-c/Core.h" ] || return 1
    for library in "$("$1" --libdir)"/libLLVM*.so "$("$1" --libdir)"/libLLVM*.dylib; do
        if [ -e "$library" ]; then return 0; fi
    done
    return 1
}

prefix_variable() { echo "LLVM_SYS_${1}1_PREFIX"; }

# The names that the build tries on PATH, in its order.
config_names() { echo "llvm-config-$1 llvm-config$1 llvm$1-config llvm-config-$1.1 llvm-config${1}1 llvm-config"; }

# Prints the path of a usable llvm-config of major version $1.
find_llvm() {
    eval "given=\${$(prefix_variable "$1"):-}"
    brewed=
    if have brew; then brewed=$(brew --prefix "llvm@$1" 2>/dev/null || true); fi
    for name in $(config_names "$1"); do
        if [ -n "$given" ]; then
            candidate=$given/bin/$name
        else
            candidate=$(command -v "$name" 2>/dev/null || true)
        fi
        if [ -n "$candidate" ] && usable "$candidate" "$1"; then echo "$candidate"; return 0; fi
    done
    for dir in "/usr/lib/llvm-$1" "/usr/lib64/llvm$1" "/usr/lib/llvm$1" "$brewed"; do
        for name in llvm-config "llvm-config-$1"; do
            candidate=$dir/bin/$name
            if [ -n "$dir" ] && usable "$candidate" "$1"; then echo "$candidate"; return 0; fi
        done
    done
    return 1
}

# Whether the build finds version $1 on PATH: it takes the first name that is at least as new.
found_by_build() {
    for name in $(config_names "$1"); do
        if have "$name"; then
            major=$(major_of "$name")
            if [ "${major:-0}" -ge "$1" ] 2>/dev/null; then
                [ "$major" = "$1" ]
                return
            fi
        fi
    done
    return 1
}

# --- Installing LLVM --------------------------------------------------------------------------

# Adds the LLVM project's own package archive, for distributions whose archive lacks version $1.
# Its signing key is trusted for this archive only (signed-by), not for the whole system.
add_llvm_archive() {
    codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
    [ -n "$codename" ] || return 1
    key=/etc/apt/keyrings/apt.llvm.org.asc
    list=/etc/apt/sources.list.d/llvm-$1.list
    suite=llvm-toolchain-$codename-$1
    say "this distribution has no llvm-$1-dev: adding https://apt.llvm.org ($suite) as $list"
    have curl || install_packages ca-certificates curl || return 1
    download=$(mktemp)
    if ! curl -fsSL https://apt.llvm.org/llvm-snapshot.gpg.key -o "$download" ||
        ! curl -fsSL "https://apt.llvm.org/$codename/dists/$suite/Release" -o /dev/null; then
        say "https://apt.llvm.org cannot be reached, or has no $suite"
        rm -f "$download"
        return 1
    fi
    as_root mkdir -p /etc/apt/keyrings
    as_root cp "$download" "$key" && as_root chmod 644 "$key"
    printf 'deb [signed-by=%s] https://apt.llvm.org/%s/ %s main\n' "$key" "$codename" "$suite" >"$download"
    as_root cp "$download" "$list" && as_root chmod 644 "$list"
    rm -f "$download"
    apt_updated=no
    apt_update
}

install_llvm() {
    say "LLVM $1 is not installed"
    case $manager in
        apt)
            apt_has "llvm-$1-dev" || apt_update || return 1
            apt_has "llvm-$1-dev" || { [ "$1" = "$wanted" ] && add_llvm_archive "$1"; } || return 1
            install_packages "llvm-$1-dev" ;;
        dnf)
            if dnf -q info "llvm$1-devel" >/dev/null 2>&1; then
                install_packages "llvm$1-devel"
            elif dnf -q info llvm-devel 2>/dev/null | grep -q "^Version *: *$1\."; then
                install_packages llvm-devel
            else
                return 1
            fi ;;
        brew) install_packages "llvm@$1" ;;
        *) install_packages "LLVM $1 with its headers" ;;
    esac
}

# --- What LLVM and Rust need beside themselves ------------------------------------------------

need_toolchain() {
    if have cc && have c++; then return 0; fi
    say "a C or C++ compiler is missing"
    case $manager in
        apt) install_packages gcc g++ libc6-dev ;;
        dnf) install_packages gcc gcc-c++ ;;
        brew) die "please run: xcode-select --install" ;;
        *) die "please install a C and a C++ compiler" ;;
    esac
}

package_of() {
    case $manager-$1 in
        apt-z) echo zlib1g-dev ;; dnf-z) echo zlib-devel ;;
        apt-ncurses | apt-tinfo) echo libncurses-dev ;; dnf-ncurses | dnf-tinfo) echo ncurses-devel ;;
        apt-*) echo "lib$1-dev" ;; dnf-xml2) echo libxml2-devel ;; dnf-*) echo "lib$1-devel" ;;
        *) echo "$1" ;;
    esac
}

# Installs the libraries that llvm-config $1 asks the linker for and the linker does not find.
need_system_libraries() {
    trial=$(mktemp -d)
    echo 'int main(void) { return 0; }' >"$trial/a.c"
    for flag in $("$1" --link-shared --system-libs 2>/dev/null || true); do
        case $flag in -l*) ;; *) continue ;; esac
        cc "$trial/a.c" "$flag" -o "$trial/a" 2>/dev/null || install_packages "$(package_of "${flag#-l}")"
    done
    rm -rf "$trial"
}

need_rust() {
    if ! have cargo && [ -x "$HOME/.cargo/bin/cargo" ]; then
        PATH=$HOME/.cargo/bin:$PATH
        echo "export PATH='$HOME/.cargo/bin':\"\$PATH\"" >>"$env_file"
    fi
    have cargo || die "Rust is missing: install it from https://rustup.rs (curl https://sh.rustup.rs -sSf | sh), then run this again"
}

# --- Main -------------------------------------------------------------------------------------

choose_llvm() {
    if [ "$settled" = yes ] && ! find_llvm "$wanted" >/dev/null && config=$(find_llvm "$fallback"); then
        version=$fallback
        say "LLVM $wanted could not be had before (remove $env_file to look again)"
        return 0
    fi
    for version in $wanted $fallback; do
        if config=$(find_llvm "$version"); then return 0; fi
        if install_llvm "$version" && config=$(find_llvm "$version"); then return 0; fi
        say "LLVM $version cannot be had here"
    done
    die "neither LLVM $wanted nor LLVM $fallback: install one, set $(prefix_variable $wanted), or build without (BB_NO_LLVM=1)"
}

manager=$(package_manager)
mkdir -p "$(dirname "$env_file")"
# An earlier run that ended with the fallback is not repeated each time.
settled=no
if grep -q "llvm$fallback" "$env_file" 2>/dev/null; then settled=yes; fi
: >"$env_file"
need_toolchain
need_rust
if [ "${BB_NO_LLVM:-}" = 1 ]; then
    say "BB_NO_LLVM=1: building without the native back end"
    echo "CARGO_FEATURES='--no-default-features --features download'" >>"$env_file"
    exit 0
fi
choose_llvm
need_system_libraries "$config"
if [ "$version" = "$fallback" ]; then
    say "using LLVM $fallback in place of $wanted: --no-default-features --features llvm$fallback"
    echo "CARGO_FEATURES='--no-default-features --features llvm$fallback,download'" >>"$env_file"
else
    echo "CARGO_FEATURES=''" >>"$env_file"
fi
eval "given=\${$(prefix_variable "$version"):-}"
if [ -n "$given" ] || ! found_by_build "$version"; then
    prefix=$(dirname "$(dirname "$config")")
    echo "export $(prefix_variable "$version")='$prefix'" >>"$env_file"
    say "outside make, set: export $(prefix_variable "$version")='$prefix'"
fi
say "LLVM $("$config" --version): $config"

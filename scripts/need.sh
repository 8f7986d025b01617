#!/bin/sh
# Names at once everything a build needs and this machine lacks, with the way to get it. Exit 1 when something is missing.
set -u
missing=0

lacks() {
    missing=1
    printf 'missing: %s\n  why:  %s\n  get:  %s\n' "$1" "$2" "$3" >&2
}

[ "$(uname -s)" = Linux ] || lacks Linux "pods are Linux processes" "run this in a Linux machine or virtual machine"

python=${PYTHON:-python3}
if ! command -v "$python" >/dev/null 2>&1; then
    lacks "Python 3.11 or newer" "the control plane is written in it" "apt-get install python3 python3-venv"
elif ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    lacks "Python 3.11 or newer" "$("$python" --version 2>&1) is too old" "install one and call: make PYTHON=python3.12 …"
elif ! "$python" -c 'import venv, ensurepip' >/dev/null 2>&1; then
    lacks "Python's venv module" "the virtual environment is made with it" "apt-get install python3-venv"
fi

if ! command -v cargo >/dev/null 2>&1; then
    lacks "Rust 1.85 or newer (cargo)" "the sidecar is written in it" "install rustup from your distribution or from rustup.rs, then: rustup default stable"
else
    version=$(rustc --version 2>/dev/null | sed -n 's/^rustc \([0-9]*\)\.\([0-9]*\).*/\1 \2/p')
    # shellcheck disable=SC2086
    set -- ${version:-0 0}
    if [ "$1" -eq 1 ] && [ "$2" -lt 85 ] || [ "$1" -lt 1 ]; then
        lacks "Rust 1.85 or newer" "$(rustc --version 2>&1) is too old" "rustup update stable"
    fi
fi

if ! command -v cc >/dev/null 2>&1 && ! command -v gcc >/dev/null 2>&1 && ! command -v clang >/dev/null 2>&1; then
    lacks "a C compiler" "the cryptography library is built with it" "apt-get install gcc libc6-dev"
fi

exit $missing

#!/bin/sh
# Says what this machine lacks to compile for another target, with the way to get it. Exit 1 when something is missing.
#   usage: target.sh TARGET C_COMPILER PACKAGE
set -u
target=$1 compiler=$2 package=$3
missing=0

lacks() {
    missing=1
    printf 'missing: %s\n  why:  %s\n  get:  %s\n' "$1" "$2" "$3" >&2
}

if command -v rustup >/dev/null 2>&1; then
    rustup target list --installed | grep -qx "$target" ||
        lacks "Rust's library for $target" "it is compiled for that target" "rustup target add $target"
elif [ ! -d "$(rustc --print sysroot)/lib/rustlib/$target" ]; then
    lacks "Rust's library for $target" "it is compiled for that target" "install it with your Rust, or use rustup"
fi
command -v "$compiler" >/dev/null 2>&1 ||
    lacks "$compiler" "the cryptography library is built with it" "apt-get install $package"
exit $missing

#!/bin/sh
# Writes the Python messages below the given folder, as <folder>/tulle/{api,emojivoto}/*_pb2.py and *_pb2.pyi.
set -eu
out=$(mkdir -p "$1" && cd "$1" && pwd)
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}

"$python" -m grpc_tools.protoc --proto_path=proto --python_out="$out" --pyi_out="$out" proto/tulle/*/*.proto

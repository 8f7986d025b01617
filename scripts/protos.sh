#!/bin/sh
# Regenerates from proto/: the Rust messages and services (crates/api/src/gen) and the Python messages
# (src/tulle/api, and the example's in src/tulle/emojivoto; Envoy's and OpenTelemetry's are used by the proxy alone).
# Both are committed; tests/unit/api says when they are stale.
set -eu
cd "$(dirname "$0")/.."

cargo run --quiet --release -p tulle-api-gen
sh scripts/protos-python.sh src

digest=$(cat proto/tulle/api/*.proto proto/envoy/*.proto proto/spiffe/*.proto proto/opentelemetry/*.proto | sha256sum | cut -d ' ' -f 1)
printf '%s\n' "$digest" > crates/api/src/gen/PROTO_SHA256
printf '%s\n' "$digest" > src/tulle/api/PROTO_SHA256

# Everything a newcomer runs: `make demo` and `make test`. Each target does its own set-up; a second call does it not again.
PYTHON ?= python3
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
TARGET := $(or $(CARGO_TARGET_DIR),target)
UV := $(or $(shell command -v uv 2>/dev/null),.uv/bin/uv)
# Always the same crates: what cargo compiles a dependency with depends on which are built together.
CRATES := -p tulle-api -p tulle-engine -p tulle-engine-py -p tulle-http -p tulle-proxy
RUST := $(shell find crates -name '*.rs' -o -name Cargo.toml -o -name '*.ld') Cargo.toml Cargo.lock

.PHONY: demo test test-python test-rust bench lint types format protos docs wheel build clean need check-arm64 check-msrv musl

demo: build
	$(BIN)/tulle demo $(ARGS)

build: need $(VENV)/.synced src/tulle/_engine.abi3.so

need:
	@PYTHON=$(PYTHON) sh scripts/need.sh

.uv/bin/uv: scripts/uv.txt
	$(PYTHON) -m venv .uv
	.uv/bin/python -m pip install --quiet --disable-pip-version-check -r scripts/uv.txt
	@touch $@

$(VENV)/.synced: uv.lock pyproject.toml $(filter .uv/bin/uv,$(UV))
	$(UV) sync --frozen --quiet --compile-bytecode --python $(PYTHON)
	@touch $@

# One cargo call makes the sidecar and the engine's Python module; cargo itself knows what is stale.
$(TARGET)/release/tulle-proxy $(TARGET)/release/libtulle_engine_py.so &: $(RUST)
	cargo build --release --locked $(CRATES)
	@touch $(TARGET)/release/tulle-proxy $(TARGET)/release/libtulle_engine_py.so

src/tulle/_engine.abi3.so: $(TARGET)/release/libtulle_engine_py.so
	cp $< $@

test: test-rust test-python

test-rust: build
	cargo test --release --locked $(CRATES)

# The sidecar again, for `cargo test` leaves one in its place that has the features of the tests; nothing is compiled.
test-python: build
	cargo build --release --locked $(CRATES)
	$(BIN)/pytest

bench: build
	$(UV) sync --frozen --quiet --group bench --python $(PYTHON)
	$(BIN)/python -m tests.bench $(ARGS)

lint: build
	$(BIN)/ruff check src tests examples
	$(BIN)/ruff format --check src tests examples
	$(BIN)/lint-imports
	cargo fmt --all --check
	cargo clippy --release --locked --workspace --all-targets -- -D warnings

types: build
	$(BIN)/mypy src tests

format: build
	$(BIN)/ruff check --fix src tests examples
	$(BIN)/ruff format src tests examples
	cargo fmt --all

protos: build
	sh scripts/protos.sh

# What another machine would compile. Each takes minutes, for it compiles everything once more, so `make test` has less:
# tests/unit/test_platforms.py. docs/builds.md tells of all three.
SIDECAR := -p tulle-api -p tulle-engine -p tulle-http -p tulle-proxy

check-arm64:
	@sh scripts/target.sh aarch64-unknown-linux-gnu aarch64-linux-gnu-gcc gcc-aarch64-linux-gnu
	cargo check --release --locked --target aarch64-unknown-linux-gnu $(SIDECAR)

check-msrv:
	CARGO_TARGET_DIR=$(TARGET)/msrv cargo +1.85 check --release --locked --workspace --all-targets

musl:
	@sh scripts/target.sh x86_64-unknown-linux-musl musl-gcc musl-tools
	cargo build --release --locked --target x86_64-unknown-linux-musl -p tulle-proxy

wheel: build
	$(UV) build --wheel --out-dir dist

clean:
	rm -rf $(VENV) .uv target dist src/tulle/_engine.abi3.so

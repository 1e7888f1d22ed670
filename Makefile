# raftgrid. `make help` lists the targets; `make demo` and `make test` are the two that matter, and install what they miss.

SHELL := /bin/sh
.DEFAULT_GOAL := all
# rustup's cargo, for shells that did not read its environment file.
export PATH := $(PATH):$(HOME)/.cargo/bin
export CARGO_TERM_COLOR ?= auto

# One target directory and one profile (release): the C++ of gRPC and RocksDB is compiled once. A directory outside the clone is reused if it is there.
SHARED_TARGET := $(HOME)/.cache/raftgrid/target
ifndef CARGO_TARGET_DIR
CARGO_TARGET_DIR := $(if $(wildcard $(SHARED_TARGET)/.),$(SHARED_TARGET),$(CURDIR)/target)
endif
export CARGO_TARGET_DIR

BIN := $(CARGO_TARGET_DIR)/release
VENV := $(CURDIR)/.venv
PYTHON := $(VENV)/bin/python
# CI never changes Cargo.lock.
LOCKED := $(if $(CI),--locked,)

say = @printf '\n== %s\n' '$(1)'

.PHONY: sim-long sim-tasks sim-mutants all proto build test check run fmt lint layers deps venv verify demo bench clean help deny

all: build ## The same as build

deps: system-deps venv ## Install what is missing: Debian packages, Python packages in .venv

.PHONY: system-deps
system-deps:
	@sh scripts/system-deps.sh

venv: $(VENV)/.made

$(VENV)/.made: ml-code/pyproject.toml scripts/venv.sh | system-deps
	$(call say,Python packages of ml-code into .venv)
	@sh scripts/venv.sh '$(VENV)'
	@touch '$@'

proto: system-deps venv ## Generate code from proto/ (Rust: by the build of raftgrid-proto; Python: ml-code)
	$(call say,Rust messages from proto/)
	cargo build --release $(LOCKED) -p raftgrid-proto
	$(call say,Python messages from proto/)
	PYTHON='$(PYTHON)' sh ml-code/generate.sh

build: system-deps ## Compile controld, workerd and gridctl
	$(call say,Compiling into $(CARGO_TARGET_DIR) (the first time takes about half an hour on two cores: gRPC and BoringSSL and RocksDB))
	cargo build --release $(LOCKED) --bins

fmt: ## Format the Rust code
	cargo fmt --all

lint: system-deps ## Formatting and clippy, warnings are errors
	$(call say,Formatting)
	cargo fmt --all -- --check
	$(call say,Clippy)
	cargo clippy --release $(LOCKED) --workspace --all-targets -- -D warnings

layers: system-deps ## Who may know whom: the crate table of docs/ARCHITECTURE.md against cargo metadata
	$(call say,Layers)
	cargo test --release $(LOCKED) --workspace --test layers

check: lint layers ## What people and CI run before a commit: lint, layers

test: check venv ## Everything that must hold: check, unit tests, Python tests, process-level tests, benches once
	$(call say,Python tests)
	cd ml-code && '$(PYTHON)' -m pytest
	$(call say,The three binaries that the process-level tests start)
	cargo build --release $(LOCKED) --bins
	$(call say,Rust tests: units first then whole clusters of processes)
	cargo test --release $(LOCKED) --workspace
	$(call say,Real processes under fire: kills and partitions and full disks and lost power in the short form)
	'$(BIN)/raftgrid-chaos' --short --seed '$(SEED)'
	$(call say,The model to the last bit while everything is killed at named points in the short form)
	'$(BIN)/raftgrid-chaos' --short $(BITS)
	$(call say,Benches compile and run once)
	cargo bench $(LOCKED) -p raftgrid-benches -- --test
	@printf '\n== all tests passed\n'

.PHONY: test-torch
test-torch: build ## torch itself: modules as parameters, torchrun through the death of a leader: make test-torch RAFTGRID_TORCH_PYTHON=FILE (pip install torch: 5 GB)
	@test -n '$(RAFTGRID_TORCH_PYTHON)' || { echo 'RAFTGRID_TORCH_PYTHON must name an interpreter with torch, numpy, grpcio, safetensors and pytest'; exit 2; }
	cd ml-code && PYTHONPATH=src '$(RAFTGRID_TORCH_PYTHON)' -m pytest tests/test_modules.py
	RAFTGRID_TORCH_PYTHON='$(RAFTGRID_TORCH_PYTHON)' cargo test --release $(LOCKED) --workspace --test torchrun -- --ignored

# Fixes what the harness does; give another one to do something else: make chaos SEED=7
SEED ?= 1
.PHONY: chaos
chaos: older build venv ## 200 kills, partitions, membership, upgrade, full and failing disks, 1,200 power cuts on real processes (docs/chaos.md; half an hour)
	'$(BIN)/raftgrid-chaos' --seed '$(SEED)' --python '$(PYTHON)' --python-path '$(CURDIR)/ml-code/src' --train '$(CURDIR)/bins/controld/tests/scripts/line.py'

# The digits job, its interpreter and its package, for the part `bits` of raftgrid-chaos.
BITS = --only bits --seed '$(SEED)' --python '$(PYTHON)' --python-path '$(CURDIR)/ml-code/src' --train '$(CURDIR)/ml-code/examples/digits_mlp.py'
RUNS ?= 40
.PHONY: prove-bits
prove-bits: build venv ## The digits job RUNS times with 1, 2, 3 and 5 workers while all is killed at random and at named points; one SHA-256 (docs/chaos.md; half an hour)
	'$(BIN)/raftgrid-chaos' $(BITS) --runs '$(RUNS)'

.PHONY: older
older: system-deps ## The kept older controld that `make chaos` upgrades from, built once from the git history
	@sh scripts/older-controld.sh '$(CARGO_TARGET_DIR)'

demo: build venv ## Train a model three times while replicas and workers are killed; the results must be equal
	@'$(BIN)/gridctl' demo --python '$(PYTHON)'

run: build venv ## A cluster in the foreground: three replicas, three workers; Ctrl-C ends it
	@'$(BIN)/gridctl' dev up --python '$(PYTHON)'

bench: system-deps ## Measure (docs/benchmarks.md)
	cargo bench $(LOCKED) -p raftgrid-benches

SEEDS ?= 5000
FIRST ?= 1
sim-long: system-deps ## Whole clusters in virtual time: SEEDS seeds from FIRST on (docs/simulation.md)
	cargo run --release $(LOCKED) -p gridctl -- sim --seed $(FIRST) --seeds $(SEEDS)

TASKS ?= 10000
sim-tasks: system-deps ## Ten clusters in virtual time, until TASKS tasks were made in each and all ended, while leaders, workers and queues get no rest
	cargo run --release $(LOCKED) -p gridctl -- sim --seed $(FIRST) --seeds 10 --tasks $(TASKS)

sim-mutants: system-deps ## Plants each known bug in turn and runs seeds until one shows it; fails if one is not found
	cargo run --release $(LOCKED) -p raftgrid-simulator --features mutants --example mutants
.PHONY: hostile
hostile: build ## A million hostile peer messages at a running group, and a million more over mutual TLS (50,000 each are part of `make test`)
	RAFTGRID_HOSTILE_MESSAGES=1000000 cargo test --release $(LOCKED) -p raftgrid-driver a_group_under_fire -- --nocapture
	RAFTGRID_HOSTILE_MESSAGES=1000000 cargo test --release $(LOCKED) -p controld --test hostile -- --nocapture

deny: ## Licences and advisories of dependencies; installs cargo-deny if it is missing
	@cargo deny --version >/dev/null 2>&1 || cargo install --locked cargo-deny
	cargo deny check

verify: test demo ## test, demo, and the check of dependencies if cargo-deny is installed
	@if cargo deny --version >/dev/null 2>&1; then cargo deny check; \
	else echo '== dependencies not checked: cargo-deny is not installed (make deny installs it)'; fi

clean: ## Remove what was made inside the clone (never a shared target directory)
	rm -rf target .venv .demo
	find ml-code \( -name __pycache__ -o -name .pytest_cache \) -prune -exec rm -rf {} +

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

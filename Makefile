# What CI runs is what you run: check, test, demo, bench. `make lock` renews the lock files.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help demo test check format bench bench-proof bench-search bench-effects faults lock clean

help:  ## show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' Makefile

# Two stamps: what a user needs, and what a developer needs on top.
$(VENV)/.user: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("tuner needs Python 3.11 or newer; this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.user requirements-dev.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@

demo: $(VENV)/.user  ## tune GLM-4.7-Flash on two simulated RTX 4090s (3 minutes, no GPU)
	$(BIN)/tuner study start experiment=demo
	@echo "The command is $(BIN)/tuner; '. $(BIN)/activate' makes it tuner in this shell."

TESTS ?=
# a file is one process's: its servers are started once, and tests/conftest.py says which is begun first; more threads
# would only wait for each other
test: $(VENV)/.dev  ## run the tests (no GPU, no Docker, no network); TESTS="tests/load -x" runs some
	OPENBLAS_NUM_THREADS=1 $(BIN)/pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(TESTS)

check: $(VENV)/.dev  ## format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/.dev  ## fix what check can fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.dev  ## measure tuner itself; prints, never fails on time
	$(BIN)/python -m tests.bench

bench-proof: $(VENV)/.dev  ## simulate the proof's error rates (15 minutes); fails if a claim does not hold
	$(BIN)/python -m tests.bench.proof
	$(BIN)/python -m tests.bench.quality
	$(BIN)/python -m tests.bench.soak
	$(BIN)/python -m tests.bench.watch --quick

bench-search: $(VENV)/.dev  ## launches until each search is near the optimum, on landscapes whose truth is known
	$(BIN)/python -m tests.bench.search 10

bench-effects: $(VENV)/.dev  ## how often a passenger is held to matter, and a true effect is found (15 minutes)
	$(BIN)/python -m tests.bench.effects

ROUNDS ?= 3
faults: $(VENV)/.dev  ## try faults on purpose: kills, disks, files, servers, secrets (minutes; ROUNDS=1 is short)
	$(BIN)/python -m tests.faults --rounds $(ROUNDS)

lock: $(VENV)/.dev  ## renew the lock files from pyproject.toml (hashes, no index or host)
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url \
	    --group user pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url \
	    --group dev -c requirements.lock pyproject.toml -o requirements-dev.lock

clean:  ## remove the environment and caches
	rm -rf .venv .venv-* .mypy_cache .ruff_cache .pytest_cache

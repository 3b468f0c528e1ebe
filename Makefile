# `make demo` and `make test` set everything up by themselves; `make help` says what else there is.

PYTHON ?= python3
VENV ?= .venv
PYTEST_ARGS ?=

BIN := $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
RUN := $(BIN)/python
INSTALLED := $(VENV)/.installed
NODE_PEERS := tests/node
NODE_INSTALLED := $(NODE_PEERS)/node_modules/.package-lock.json

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow bench lint types schemas wheel clean

help:
	@echo 'make demo       watch a sidecar being started, killed, hung and stopped, in a minute'
	@echo 'make test       all tests, in about five minutes on two cores'
	@echo 'make test-slow  the tests that take minutes each'
	@echo 'make bench      figures, each against a named peer in the same run'
	@echo 'make lint       formatting and lint'
	@echo 'make types      mypy for Linux, macOS and Windows'
	@echo 'make schemas    write schemas/ anew from the code'
	@echo 'make wheel      build the wheel into dist/'
	@echo 'make clean      remove all that this file makes'
	@echo
	@echo 'Each target sets up what it needs: a virtual environment in $(VENV), made with PYTHON=$(PYTHON).'

setup: $(INSTALLED)

$(INSTALLED): pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo 'There is no $(PYTHON) here. Install Python 3.11 or newer, or name one: make PYTHON=python3.12' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "$(PYTHON) is $$($(PYTHON) --version 2>&1), but Python 3.11 or newer is needed. Name one: make PYTHON=python3.12" >&2; exit 1; }
	@test -x $(RUN) && $(RUN) -m pip --version >/dev/null 2>&1 || { \
		echo 'Making a virtual environment in $(VENV) …'; \
		$(PYTHON) -m venv --clear $(VENV) || { \
			echo 'On Debian and Ubuntu this needs the package python3-venv.' >&2; rm -rf $(VENV); exit 1; }; }
	@echo 'Installing sidecar-bridge and what its tests need …'
	@# --group needs pip 25.1, and the pip of a fresh environment is as old as its Python.
	@$(RUN) -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	@$(RUN) -m pip install --quiet --disable-pip-version-check --editable . --group dev
	@touch $@

$(NODE_INSTALLED): $(NODE_PEERS)/package-lock.json
	@command -v npm >/dev/null || { echo 'There is no npm here. Install Node.js 20 or newer' >&2; exit 1; }
	@npm ci --silent --no-fund --no-audit --prefix $(NODE_PEERS)
	@touch $@

demo: $(INSTALLED)
	@$(RUN) -m bridge demo $(DEMO_ARGS)

# Each test is bounded by itself (60 s); this bounds the run. Nothing follows pytest's own closing line.
test: $(INSTALLED) $(NODE_INSTALLED)
	@echo 'All tests: about five minutes on two cores, twelve at most. PYTEST_ARGS=-n0 runs them one after the other.'
	@$(RUN) -m pytest -n 2 --dist worksteal --session-timeout=720 -m 'not slow' $(PYTEST_ARGS)

test-slow: $(INSTALLED)
	@$(RUN) -m pytest -m slow $(PYTEST_ARGS)

bench: $(INSTALLED) $(NODE_INSTALLED)
	@$(RUN) -m pip install --quiet --disable-pip-version-check --group bench
	@set -e; for file in tests/benchmarks/bench_*.py; do \
		name=$$(basename $$file .py); extra=; \
		if [ $$name = bench_rpc ]; then extra='--node $(NODE_PEERS)/node_modules'; fi; \
		echo "--- $${name#bench_}"; \
		$(RUN) -m tests.benchmarks.$$name $$extra; \
	done

lint: $(INSTALLED)
	@$(RUN) -m ruff format --check .
	@$(RUN) -m ruff check .

types: $(INSTALLED)
	@echo 'mypy for linux'; $(RUN) -m mypy --platform linux
	@# The tests use what only the system they run on has.
	@for platform in darwin win32; do \
		echo "mypy for $$platform"; \
		$(RUN) -m mypy --platform $$platform bridge || exit 1; \
	done

schemas: $(INSTALLED)
	@$(RUN) -m bridge schema --write

wheel: $(INSTALLED)
	@rm -rf dist
	@$(RUN) -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .

clean:
	rm -rf $(VENV) $(NODE_PEERS)/node_modules build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis

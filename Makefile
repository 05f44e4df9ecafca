# `make` lists the targets. Everything is installed into .venv, nothing outside it is touched.

PYTHON ?= python3
BIN := .venv/bin
# Twice quiet: errors still show, a mirror's warnings about itself do not.
INSTALL = $(BIN)/python -m pip install -qq --disable-pip-version-check --editable

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo test test-all lint bench fuzz audit soak

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' Makefile

demo: .venv/.installed  ## run the main study on the embedded data: minutes on two cores, no GPU
	@$(BIN)/unetpp run nested_vs_plain

test: lint  ## lint, then the fast tests
	$(BIN)/pytest -q

test-all: lint  ## lint, then all tests: the slow ones and those on real data too
	$(BIN)/pytest -q -m ""

bench: .venv/.installed-test  ## compare speed and memory with other libraries' UNet++: tens of minutes
	@$(BIN)/python benchmarks/bench_peers.py $(BENCH)

fuzz: .venv/.installed-test  ## try every parser with hostile input for SECONDS=600 seconds
	@$(INSTALL) '.[fuzz]' || echo "atheris cannot be installed here; hypothesis alone makes inputs" >&2
	@$(BIN)/python -m tests.fuzz $(or $(SECONDS),600)

soak: .venv/.installed-test  ## kill, halt and cut off workers at random for MINUTES=30 minutes; needs PostgreSQL
	@$(BIN)/python -m tests.faults.soak $(or $(MINUTES),30)

audit: .venv/.installed-test  ## look for known vulnerabilities of what is installed; exit code 3: no answer
	@$(BIN)/python tests/audit.py

lint: .venv/.installed-test  ## format, rules, types, layers, spelling; changes nothing
	$(BIN)/ruff format --check --quiet
	$(BIN)/ruff check --quiet
	$(BIN)/pyright
	$(BIN)/lint-imports --no-logo
	$(BIN)/codespell

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "error: PYTHON must be 3.11 or newer, but $(PYTHON) is" \
			"$$($(PYTHON) -V 2>/dev/null || echo missing); name another: make PYTHON=python3.12" >&2; \
		exit 1; }
	@$(PYTHON) -m venv .venv || { rm -rf .venv; exit 1; }

.venv/.installed: pyproject.toml | .venv/bin/python
	@echo "Installing unetpp into .venv; torch's CUDA build alone is several GB, so this takes minutes."
	@$(INSTALL) .
	@touch $@

# The test extra contains all of the plain installation, so both stamps hold after it.
.venv/.installed-test: pyproject.toml | .venv/bin/python
	@echo "Installing unetpp and its test tools into .venv; torch's CUDA build alone is several GB," \
		"so this takes minutes."
	@$(INSTALL) '.[test]'
	@touch .venv/.installed $@

# Every command sets itself up on a fresh machine: python3 >= 3.11, make and a network to PyPI are enough.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.locked
export PYTHONPATH := $(CURDIR):$(CURDIR)/plugins
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help setup demo up test lint types bench chaos lock clean
help:  ## Show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

$(STAMP): requirements.lock
	@echo "setup: installing $(VENV) from requirements.lock"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==0.13.9
	@$(BIN)/uv pip sync --quiet --require-hashes --compile-bytecode --python $(BIN)/python requirements.lock
	@touch $@

setup: $(STAMP)  ## Install everything into .venv

lint: $(STAMP)  ## ruff and the layer rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(STAMP)  ## mypy --strict on include/ and plugins/
	$(BIN)/mypy

lock: $(STAMP)  ## Resolve requirements*.txt into requirements.lock
	$(BIN)/uv pip compile -q --generate-hashes --universal --python-version 3.11 requirements-dev.txt -o requirements.lock

clean:  ## Remove what the commands made, the staged models and results included
	rm -rf var $(VENV)

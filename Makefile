# Every command sets itself up on a fresh machine: python3 >= 3.11, make and a network to PyPI are enough.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.locked
UV := $(BIN)/uv
# A checkout has one local HyperPod with Airflow, so these take turns.
ONE_BY_ONE := tests/e2e
# A third of a test's time is waiting.
AT_ONCE := 3
# The same examples in every run of the whole; pytest alone draws new ones (--hypothesis-seed repeats them).
PYTEST := $(BIN)/pytest --hypothesis-profile=ci
export PYTHONPATH := $(CURDIR):$(CURDIR)/plugins
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help setup demo up down status test bench chaos kills lint types lock clean browser
help:  ## Show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

$(STAMP): requirements-dev.lock
	@echo "setup: installing $(VENV) from requirements-dev.lock (first time: about a minute)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==0.13.9
	@$(UV) pip sync --quiet --require-hashes --compile-bytecode --python $(BIN)/python requirements-dev.lock
	@touch $@

setup: $(STAMP)  ## Install everything into .venv

demo: $(STAMP)  ## One release on the local HyperPod, from weights to a torn-down endpoint; prints the figures
	@$(BIN)/python -m include.local.demo

up: $(STAMP)  ## Local HyperPod and Airflow, kept running; Ctrl-C stops everything
	@$(BIN)/python -m include.local.demo --keep-running

down: $(STAMP)  ## Stop what a killed `make up` or `make demo` left behind
	@$(BIN)/python -m include.local down

status: $(STAMP)  ## What is running
	@$(BIN)/python -m include.local status

lint: $(STAMP)  ## ruff and the layer rules
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports --no-cache

types: $(STAMP)  ## mypy --strict on include/ and plugins/
	@$(BIN)/mypy

browser: $(STAMP)
	@command -v chromium >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && \
	  apt-get update -qq && apt-get install -qq -y --no-install-recommends chromium; } || \
	  $(BIN)/playwright install chromium

test: lint types browser  ## Everything: lint, types, unit, integration, end-to-end, browser
	@$(PYTEST) -n $(AT_ONCE) --dist loadfile $(addprefix --ignore=,$(ONE_BY_ONE))
	@$(PYTEST) $(ONE_BY_ONE)

bench: $(STAMP)  ## Ours beside its peers in the same run (AREA=loadtest for one area); writes var/bench/*.json
	@$(BIN)/python -m bench $(AREA)

chaos: $(STAMP)  ## The fault matrix: kill and refuse at every step, count what leaks (SEED=7 N=60); writes var/chaos.json
	@$(BIN)/python -m tests.chaos $(if $(SEED),--seed $(SEED)) $(if $(N),--n $(N))

kills: $(STAMP)  ## Staging killed 200 times at chosen requests and at any moment (SEED=7 N=200); counts what is wrong
	@STAGING_KILLS=$(or $(N),200) STAGING_SEED=$(or $(SEED),7) \
	  $(BIN)/pytest -q tests/include/staging/test_kills.py -k whoever

lock: $(STAMP)  ## Resolve requirements*.txt into the lock files
	@$(UV) pip compile -q --generate-hashes --universal --python-version 3.11 requirements.txt -o requirements.lock
	@$(UV) pip compile -q --generate-hashes --universal --python-version 3.11 -c requirements.lock requirements-dev.txt -o requirements-dev.lock

clean:  ## Remove what the commands made, the staged models and results included
	@rm -rf var $(VENV) .venv-*

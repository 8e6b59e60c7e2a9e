# `make help` is the menu. Everything happens in this checkout: the environment is .venv, nothing global is touched.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# An environment inherited from the caller's shell must not leak into ours.
unexport VIRTUAL_ENV CONDA_PREFIX PYTHONPATH PYTHONHOME PIP_USER PIP_TARGET PIP_PREFIX

VENV := .venv
BIN := $(VENV)/bin
PACKAGES := tracking scheduler worker sweeps
PEERS := .cache/bench-venv
# W&B's packages, whose answers the tests compare ours with; they want a Python that their pinned versions have wheels for.
WANDB := .cache/peers-venv
# Whole MLflow, whose server the tests compare ours with and whose clients they run, and the latest of its second major version.
MLFLOW := .cache/mlflow-venv
MLFLOW2 := .cache/mlflow2-venv
# Not $(MAKE) in the recipes: make -n would run, not print, the lines that hold it.
AGAIN := $(MAKE) --no-print-directory
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: help demo install test lint types bench bench-peers peers faults soak services docs clean

help: ## this menu
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: install ## set everything up and run a sweep of 30 trials on this machine
	@$(BIN)/sweep run examples/digits/sweep.yaml
	@echo; echo "The cluster of this machine stays up: $(BIN)/sweep down stops it. To write sweep alone: . $(BIN)/activate"

install: $(VENV)/.installed ## a virtual environment in .venv with the product in it
	@echo "Installed: $(BIN)/sweep --help; or, to write sweep alone: . $(BIN)/activate"

test: $(VENV)/.installed-test ## lint, types and all tests that need no stopwatch, the quick ones of the faults among them
	@if [ "$${CI:-}" = true ]; then $(AGAIN) services; fi
	@$(AGAIN) peers || { test "$${CI:-}" != true && echo "The peers' packages can't be installed; the tests that compare with them are skipped." >&2; }
	@failed=""; \
	$(AGAIN) lint || failed="$$failed lint"; \
	$(AGAIN) types || failed="$$failed types"; \
	if [ -z "$$failed" ]; then echo "== lint and types: passed"; else echo "== FAILED:$$failed"; fi; \
	echo "== tests"; \
	$(BIN)/python -m pytest tests --ignore=tests/benchmarks -m 'not faults or quick' $(ARGS) || exit $$?; \
	test -z "$$failed"

lint: $(VENV)/.installed-test ## ruff (style and format) and the import contract
	@echo "== lint"
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet . || { echo "not formatted; run: $(BIN)/ruff format ."; exit 1; }
	@$(BIN)/lint-imports --no-logo

types: $(VENV)/.installed-test ## mypy --strict
	@echo "== types"
	@$(BIN)/mypy

bench: $(VENV)/.installed-test ## the numbers, beside those of peers; one alone: make bench ONLY=noop
	@$(if $(or $(findstring noop,$(ONLY)),$(if $(ONLY),,all)),$(AGAIN) bench-peers || echo "The peers can't be installed; the table shows our numbers alone." >&2)
	@$(if $(or $(findstring mlflow,$(ONLY)),$(if $(ONLY),,all)),$(AGAIN) $(MLFLOW)/.installed || echo "MLflow can't be installed; the table shows our numbers alone." >&2)
	@$(BIN)/python -m tests.benchmarks $(ONLY)

bench-peers: $(PEERS)/.installed

peers: $(WANDB)/.installed $(MLFLOW)/.installed $(MLFLOW2)/.installed

faults: $(VENV)/.installed-test ## kill things on purpose and count what is left; waiting as long as in production: FULL=1
	@$(BIN)/python -m pytest tests/faults -m 'not soak' $(ARGS)

soak: $(VENV)/.installed-test ## 5,000 trials while everything breaks for ten minutes; shorter: SOAK_TRIALS=300 SOAK_S=60
	@$(BIN)/python -m pytest tests/faults -m soak $(ARGS)

services: ## bring up Docker, Redis and a browser for the tests (root and apt; else says what is missing)
	@bash deploy/services.sh

docs: $(VENV)/.installed-test ## write the generated pages of docs/ anew
	@mkdir -p .cache && $(BIN)/python -m sweeps.spec_schema >.cache/sweep.schema.json && cp .cache/sweep.schema.json sweeps/sweep.schema.json
	@$(BIN)/python -m tests.support.generated_docs
	@$(BIN)/python -m tests.support.wandb_differences

clean: ## remove .venv and caches (never data: that lies under SWEEP_HOME)
	@rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist *.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The interpreter: PYTHON=... decides, else the first of these that runs and is new enough. A name found on the
# PATH is tried, not trusted: version managers put wrappers there for versions that are not switched on.
$(BIN)/python:
	@for name in $(if $(PYTHON),'$(PYTHON)',python3.13 python3.12 python3.11 python3); do \
	    if "$$name" -c 'import sys; raise SystemExit(sys.version_info < (3, 11))' >/dev/null 2>&1; then found="$$name"; break; fi; \
	done; \
	if [ -z "$${found:-}" ]; then \
	    echo "Python 3.11 or newer is needed, and none of these is one: $(or $(PYTHON),python3.13 python3.12 python3.11 python3)." >&2; \
	    echo "Install one, or name it: make install PYTHON=/path/to/python3" >&2; exit 1; \
	fi; \
	echo "Creating $(VENV) with $$("$$found" --version)"; \
	"$$found" -m venv $(VENV) || { rm -rf $(VENV); echo "\"$$found -m venv\" failed (on Debian and Ubuntu: apt install python3-venv)." >&2; exit 1; }

# Stamps: pip runs again only when what is to be installed has changed.
$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing into $(VENV) (about a minute the first time)"
	@$(PIP) -e .
	@touch $@

$(VENV)/.installed-test: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing into $(VENV), with what the tests need (about a minute the first time)"
	@$(PIP) -e '.[test]'
	@touch $(VENV)/.installed $@

# Peers that are measured beside us live in an environment of their own.
$(PEERS)/.installed: constraints.txt | $(BIN)/python
	@echo "Installing Ray Tune into $(PEERS), to measure it beside us"
	@$(BIN)/python -m venv $(PEERS)
	@$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt 'ray[tune]'
	@touch $@

$(WANDB)/.installed: tests/differential/requirements.txt
$(MLFLOW)/.installed: tests/peers/mlflow3.txt
$(MLFLOW2)/.installed: tests/peers/mlflow2.txt
$(WANDB)/.installed $(MLFLOW)/.installed $(MLFLOW2)/.installed: | $(BIN)/python
	@for name in $(BIN)/python python3.12 python3.11; do \
	    if "$$name" -c 'import sys; raise SystemExit(not (3, 11) <= sys.version_info < (3, 13))' >/dev/null 2>&1; then found="$$name"; break; fi; \
	done; \
	if [ -z "$${found:-}" ]; then echo "Python 3.11 or 3.12 is needed for the peers' packages." >&2; exit 1; fi; \
	echo "Installing the packages of $< into $(@D), to compare with them"; \
	"$$found" -m venv --clear $(@D)
	@$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --retries 1 --no-deps --only-binary :all: -r $<
	@cp $< $@

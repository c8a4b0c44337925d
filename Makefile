# `make help` lists the targets. Any Python 3.11 to 3.13 will do: `make train PYTHON=/path/to/python`.

SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?=
ARGS ?=
PYTEST_ARGS ?=

venv := .venv
python := $(venv)/bin/python
settings := setup.cfg pyproject.toml
# The stamps are touched only after success, so an interrupted installation goes on at the next call.
has_venv := $(venv)/.made
has_train := $(venv)/.has-train
has_dev := $(venv)/.has-dev
peers_venv := .venv-peers
peers_python := $(peers_venv)/bin/python
has_peers := $(peers_venv)/.has-peers

# A command may be there and not run, as with pyenv's shims: each candidate is tried.
is_supported := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
candidates := $(if $(PYTHON),$(PYTHON),python3.11 python3.12 python3.13 python3)

# pip's own --quiet says nothing for minutes: show what it fetches, and leave its errors alone.
define install
	@echo "Installing gradloop with the extras $(1) into $(venv) (TensorFlow is large: some minutes) ..."
	@$(python) -m pip install --disable-pip-version-check --editable '.[$(1)]' \
		| { grep --line-buffered -E '^ *(Collecting|Downloading .*MB|Installing)' | cut -c 1-100 || true; }
endef

# Not `pip install .[peers]`: that brings TensorFlow.
list_peers := import configparser; \
	config = configparser.RawConfigParser(); \
	config.read("setup.cfg"); \
	needed = config["options"]["install_requires"].split("\n"); \
	print(config["options.extras_require"]["peers"]); \
	print(*[line for line in needed if line.startswith(("keras", "numpy"))], sep="\n")

.PHONY: help setup train test test-gpu test-peers lint format parity conformance bench bench-all \
	bench-gpu peers docs-pictures clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## /\1|/' \
		| while IFS='|' read -r name text; do printf '  make %-11s %s\n' "$$name" "$$text"; done

setup: $(has_train) ## make the environment in .venv, alone
	@echo "The environment is ready: $(python)"

train: $(has_train) ## train the convolutional net on MNIST; flags of train.py in ARGS="..."
	@$(python) train.py $(ARGS)

test: lint ## all checks: ruff, mypy, pytest; more of pytest's arguments in PYTEST_ARGS="..."
	@$(python) -m pytest --numprocesses auto --dist worksteal $(PYTEST_ARGS)

lint: $(has_dev) ## ruff (lint and format) and mypy
	@$(python) -m ruff check .
	@$(python) -m ruff format --check .
	@$(python) -m mypy

format: $(has_dev) ## bring the code into shape
	@$(python) -m ruff check --fix .
	@$(python) -m ruff format .

parity: $(has_dev) ## the promise against fit: equal bits
	@$(python) -m pytest tests/parity -m "not gpu" $(PYTEST_ARGS)

test-gpu: $(has_dev) ## what only a GPU can show: equal bits, replicas, float16, XLA, memory
	@$(python) -m pytest -m gpu -ra tests/gpu $(PYTEST_ARGS)

bench: $(has_train) ## speed against fit, in a quarter of an hour; flags in ARGS="..."
	@$(python) -m benchmarks.throughput --workload tiny dense cnn --arms headline --record $(ARGS)
	@$(python) -m benchmarks.reporting.report

bench-all: $(has_train) ## all workloads and arms, in three hours; those of .venv-peers if it is there
	@$(python) -m benchmarks.throughput --workload all --record $(ARGS)
	@$(python) -m benchmarks.throughput --workload cnn --precision mixed_bfloat16 --record $(ARGS)
	@$(python) -m benchmarks.throughput --workload input --record $(ARGS)
	@$(python) -m benchmarks.reporting.report

bench-gpu: $(has_train) ## what a GPU makes of the models; flags in ARGS="..."
	@$(python) -m benchmarks.gpu $(ARGS)

peers: $(has_peers) ## make .venv-peers: PyTorch, Lightning and JAX, which bench-all races
	@echo "The peers are ready: $(peers_python)"

test-peers: $(has_peers) ## the tests of the other frameworks' arms, without TensorFlow
	@$(peers_python) -m pytest --noconftest tests/benchmarks/arms/test_peers.py $(PYTEST_ARGS)

docs-pictures: $(has_dev) ## the pictures of docs/command_line.md and the README, in two minutes; needs chromium
	@$(python) -m benchmarks.docs_pictures

conformance: $(has_dev) ## the tests inside the installed Keras, trained with the engine
	@$(python) -m tests.conformance.test_conformance

# Neither rm nor find follows the links in gradloop/.
clean: ## remove caches and build outputs; .venv, .venv-peers and runs/ stay
	rm -rf build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage
	find . -name __pycache__ -not -path './$(venv)/*' -not -path './$(peers_venv)/*' -prune -exec rm -rf {} +

# Made again from nothing only if pip does not run: an interrupted `venv` leaves such a folder.
$(has_venv):
	@for candidate in $(candidates); do \
		if "$$candidate" -c '$(is_supported)' 2> /dev/null; then found=$$candidate; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
		echo "error: none of '$(candidates)' is Python 3.11, 3.12 or 3.13, which TensorFlow 2.21 needs:" \
			"install one, or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; \
		exit 1; \
	fi; \
	echo "Making $(venv) with $$("$$found" --version) ..."; \
	if ! $(python) -m pip --version > /dev/null 2>&1 && ! "$$found" -m venv --clear $(venv); then \
		echo "error: $$found cannot make an environment; on Debian, apt-get install python3-venv" >&2; \
		exit 1; \
	fi
	@touch $@

$(has_train): $(has_venv) $(settings)
	$(call install,plots$(comma)tensorboard)
	@touch $@

# dev holds the extras of train as well.
$(has_dev): $(has_venv) $(settings)
	$(call install,dev)
	@touch $(has_train) $@

# PyPI's PyTorch for Linux brings CUDA; for a smaller one, PIP_EXTRA_INDEX_URL names PyTorch's own
# index of builds for the CPU.
$(has_peers): $(has_venv) $(settings)
	@echo "Installing the peers into $(peers_venv) (PyTorch is large: some minutes) ..."
	@$(peers_python) -m pip --version > /dev/null 2>&1 || $(python) -m venv --clear $(peers_venv)
	@$(peers_python) -c '$(list_peers)' \
		| $(peers_python) -m pip install --disable-pip-version-check --requirement /dev/stdin \
		| { grep --line-buffered -E '^ *(Collecting|Downloading .*MB|Installing)' | cut -c 1-100 || true; }
	@touch $@

comma := ,

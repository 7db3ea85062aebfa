# make demo: train a small BERT here, now.   make test: everything that CI runs.
SHELL := /bin/bash
.DELETE_ON_ERROR:
.PHONY: demo test lint oracle clean

# The first Python that is new enough, python3 itself preferred. PYTHON=... names another.
CANDIDATES := python3 python3.12 python3.13 python3.14 \
	$(wildcard $(HOME)/.pyenv/versions/3.1[2-9]*/bin/python3)
ifndef PYTHON
PYTHON := $(shell for p in $(CANDIDATES); do "$$p" -c 'import sys; sys.exit(sys.version_info < (3, 12))' >/dev/null 2>&1 && echo "$$p" && break; done)
endif
BIN := .venv/bin
# Compiled programs are kept between runs.
export JAX_COMPILATION_CACHE_DIR ?= $(CURDIR)/.cache/jax

demo: .venv/installed
	$(BIN)/python -m bert_jax.pretrain --config=configs/demo.py --workdir=runs/demo
	$(BIN)/python -m bert_jax.predict fill-mask --model=runs/demo --top-k=5 \
		"This function returns the [MASK] of the array."

test: .venv/installed-dev lint
	$(BIN)/python -m pytest -n 3 --dist worksteal
	NNX_GRAPH_MODE=false NNX_GRAPH_UPDATES=false $(BIN)/python -m pytest -n 2 --dist worksteal -m tree_mode

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

# The comparison with transformers, live and both ways. ORACLE_PYTHON names the Python that
# torch is installed for.
ORACLE_PYTHON ?= $(PYTHON)
oracle: .venv/installed-dev .venv-oracle/installed
	$(BIN)/python -m tests.oracle.compare --oracle=.venv-oracle/bin/python

.venv/bin/python:
	@if [ -z "$(PYTHON)" ]; then \
		echo "error: bert_jax needs Python 3.12 or newer and found none; install it, or name it: make PYTHON=/path/to/python3.12" >&2; \
		exit 1; fi
	"$(PYTHON)" -m venv .venv

.venv/installed: .venv/bin/python requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

.venv/installed-dev: .venv/bin/python requirements.txt requirements-gcs.txt requirements-tpu.txt requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@ .venv/installed

.venv-oracle/installed: requirements-oracle.txt
	"$(ORACLE_PYTHON)" -m venv .venv-oracle
	.venv-oracle/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-oracle.txt
	touch $@

clean:
	rm -rf .venv .venv-oracle .cache runs

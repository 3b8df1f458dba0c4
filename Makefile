# Creates the environment once, then runs commands that the README shows.
PYTHON ?= python3
BIN := .venv/bin
# DVC starts its stages as `python -m attnfd …`: that must be the environment's Python.
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help env dev repro test lint audit ui docs
help:  ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

env: .venv/pipeline  ## create .venv with the pipeline's packages, in the pinned versions

dev: .venv/dev  ## also install the packages for tests and documents

# Byte-compiling now halves the start-up time of every stage.
INSTALL = $(BIN)/uv pip install --compile-bytecode --python $(BIN)/python --constraint constraints.txt --editable

TOO_OLD = "Python: found %s; allowed: 3.11.5 or later; name one that you have: make PYTHON=python3.12 …"

.venv/uv: constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11, 5) or sys.exit($(TOO_OLD) % sys.version.split()[0])'
	@echo "Creating .venv, about 6 GB; most of it is PyTorch with its GPU libraries."
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet uv --constraint constraints.txt
	@touch $@

.venv/pipeline: .venv/uv pyproject.toml constraints.txt
	$(INSTALL) '.[pipeline]'
	@touch $@

.venv/dev: .venv/uv pyproject.toml constraints.txt
	$(INSTALL) '.[dev]'
	@touch $@ .venv/pipeline

repro: env  ## run the pipeline: prepare → … → report
	dvc repro

test: dev  ## run the tests
	pytest

lint: dev  ## check style and types
	ruff check . && ruff format --check . && mypy

audit: dev  ## look for known security holes in the pinned packages
	python -m tests.audit

ui: env  ## start the MLflow UI on localhost
	attnfd ui

docs: dev  ## build the documents as a website, site/index.html
	mkdocs build --strict

# Creates the environment once, then runs what the README shows as plain commands.
PYTHON ?= python3
BIN := .venv/bin
# DVC starts its stages as `python -m attnfd …`: that must be the environment's Python.
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help env repro test lint audit ui docs
help:  ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

env: .venv/installed  ## create .venv with the pinned versions

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet uv --constraint constraints.txt
	# Byte-compiling here halves the start-up of every stage later.
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --constraint constraints.txt --editable '.[dev]'
	touch $@

repro: env  ## run the pipeline: prepare → … → report
	dvc repro

test: env  ## run the tests
	pytest

lint: env  ## style and types
	ruff check . && ruff format --check . && mypy

audit: env  ## known holes in the pinned packages
	python -m tests.audit

ui: env  ## MLflow UI on localhost
	attnfd ui

docs: env  ## build the documents as a site: site/index.html
	mkdocs build --strict

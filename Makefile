# Creates the environment once, then runs what the README shows as plain commands.
PYTHON ?= python3
BIN := .venv/bin
# DVC starts its stages as `python -m attnfd …`: that must be the environment's Python.
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help env dev repro test lint audit ui docs
help:  ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

env: .venv/pipeline  ## create .venv with what the pipeline needs, in the pinned versions

dev: .venv/dev  ## the same, and what tests and documents need

# Byte-compiling here halves the start-up of every stage later.
INSTALL = $(BIN)/uv pip install --compile-bytecode --python $(BIN)/python --constraint constraints.txt --editable

.venv/uv: constraints.txt
	@echo "Creating .venv; PyTorch with its GPU libraries is most of the 6 GB that it will contain."
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

lint: dev  ## style and types
	ruff check . && ruff format --check . && mypy

audit: dev  ## known holes in the pinned packages
	python -m tests.audit

ui: env  ## MLflow UI on localhost
	attnfd ui

docs: dev  ## build the documents as a site: site/index.html
	mkdocs build --strict

# `make train` and `make test` do all the set-up themselves, once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help train demo test soak lint world clean

help: ## show this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 10

train: $(READY) ## train a deprojector in the pixel world and draw the benchmark prompts (a minute and a half)
	$(BIN)/python -m deproj.train experiment=first

demo: $(READY) ## open a page in the browser: prompts and pictures to pictures, in the pixel world
	$(BIN)/python -m deproj.demo

test: $(READY) ## run the tests (a quarter of an hour)
	$(BIN)/python -m pytest

soak: $(READY) ## run the long trials (kills at random, a million prompts; two to three hours)
	$(BIN)/python -m pytest -m soak --timeout=3600 -s -n 0

lint: $(READY) ## check style and types
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

world: $(READY) ## build the pixel world again from nothing (four hours; goes on where it was stopped)
	$(BIN)/python -m deproj.pixel.build

clean: ## remove caches; runs and the checkpoints of the world's build stay
	rm -rf .pytest_cache .mypy_cache .ruff_cache

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; name one: make PYTHON=python3.12"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint requirements.lock --editable '.[dev]'
	@touch $@

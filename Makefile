# Everyday commands. Each is one line that a person can also type; setting up is pip and constraints.txt.
#   make serve PYTHON=python3.12      another interpreter (3.11 to 3.13)
#   make test PYTEST_ARGS=-x          arguments for pytest
#   make train-ready TORCH_INDEX=https://download.pytorch.org/whl/cu130    torch with CUDA, for training on a GPU

VENV        ?= .venv
PYTHON      ?= python3
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
PYTEST_ARGS ?= --numprocesses=auto --maxprocesses=4 --dist=loadscope

BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check
# The client always comes from its folder here; on PyPI the name `understudy` is somebody else's package.
OURS   := --constraint constraints.txt --editable clients/python --editable
PINS   := pyproject.toml clients/python/pyproject.toml constraints.txt
TORCH  := $(shell grep '^torch==' constraints.txt)
SERVE  := $(VENV)/.ready-to-serve
TRAIN  := $(VENV)/.ready-to-train
DEV    := $(VENV)/.ready-to-develop

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help serve serve-ready train-ready test lint format bench claims clean

help: ## list these commands
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 22

serve: $(SERVE) ## start the gateway with the shipped models on http://localhost:8000
	@exec $(BIN)/understudy serve

test: $(DEV) ## run every test
	$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(DEV) ## formatting, style, types, the floors of the architecture, shell and Docker files
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/shellcheck .ci/run
	$(BIN)/hadolint Dockerfile

format: $(DEV) ## rewrite the code in the house format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(DEV) ## measure speed against peers, in one run (benchmarks/records)
	$(BIN)/python -m benchmarks.run speed

claims: $(DEV) ## repeat the slow scientific comparisons (benchmarks/records)
	$(BIN)/python -m benchmarks.run claims

serve-ready: $(SERVE) ## only set up what `make serve` needs: no torch, no compiler
train-ready: $(TRAIN) ## only set up what training needs

clean: ## remove the environment and what tools left behind
	rm -rf $(VENV) build dist site .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 14) else f"Understudy needs Python 3.11 to 3.13; $(PYTHON) is {v[0]}.{v[1]}. Name another: make PYTHON=python3.12")'
	@echo "Setting up $(VENV): once, some minutes"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo 'On Debian and Ubuntu: apt install python3-venv'; exit 1; }

# A stamp file is written when its installation is complete; newer pins make it stale.
$(SERVE): $(PINS) | $(BIN)/python
	$(PIP) install $(OURS) '.[cpu]'
	@touch $@

# pip's own settings may offer a CPU build of torch; else the CPU index does. Plain PyPI would bring gigabytes of CUDA.
$(TRAIN): $(SERVE)
	$(PIP) install --quiet --no-deps --no-index '$(TORCH)' 2>/dev/null \
	  || $(PIP) install --no-deps --retries 2 --index-url $(TORCH_INDEX) '$(TORCH)' \
	  || { echo 'No torch from $(TORCH_INDEX): name a package index that has it, make TORCH_INDEX=URL'; exit 1; }
	$(PIP) install $(OURS) '.[cpu,train]'
	@touch $@

$(DEV): $(TRAIN)
	$(PIP) install $(OURS) '.[cpu,train,triton,dev]'
	@touch $@

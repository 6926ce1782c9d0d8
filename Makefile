# Two commands on a fresh machine: `make quickstart` and `make test`.
# PYTHON names the interpreter that makes .venv; 3.11 or later.

PYTHON ?= python3
BIN := .venv/bin
OPTIMUM := .venv-optimum
TENSORRT := .venv-tensorrt

.PHONY: help setup lock quickstart test test-install test-nodes test-optimum test-tensorrt check docs format bench clean

help:
	@echo "make quickstart   set up, then run the whole main job on built-in data"
	@echo "make test         set up, then format, lint, types, tests and build, as CI does"
	@echo "make test-install the wheel with each extra in an environment of its own; 5 GB are downloaded"
	@echo "make test-nodes   training on two nodes, in two network namespaces; Linux, as root"
	@echo "make test-optimum artefacts load in Optimum, which has an environment of its own"
	@echo "make test-tensorrt graphs and plans in TensorRT's own parser and builder; no GPU, Linux on x86"
	@echo "make setup        make .venv, pinned by constraints.txt"
	@echo "make check        format, lint and types alone"
	@echo "make docs         the documentation's pages, into .venv/site"
	@echo "make format       mend what the formatter and linter can mend"
	@echo "make lock         the packages of the images with their hashes, after a change of constraints.txt"
	@echo "make bench        latency of dense and sparse BERT shapes on this machine"
	@echo "make clean        remove .venv and what tools left behind"

setup: .venv/installed

# TensorRT's stubs were made by a machine, with argument names and orders that are no Python.
MENDED = 's/\bin: list/in_: list/; s/\(channel_axis: int\)) -> IScaleLayer/\1 = 0) -> IScaleLayer/'

# torch first and alone: where the pinned version has a CPU build, that is taken as it is. TensorRT's
# stubs alone and aside: they require TensorRT, which types do not need, and would pass for it.
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet $$(grep '^torch==' constraints.txt)
	$(BIN)/pip install --quiet -c constraints.txt -e '.[cpu,openvino,triton,grpc,hub,ray,train,bench,docs,dev]'
	$(BIN)/pip install --quiet -c constraints.txt --no-deps --upgrade --target .venv/stubs tensorrt-stubs
	sed -i $(MENDED) .venv/stubs/tensorrt_bindings/tensorrt.pyi
	touch $@

quickstart: setup
	$(BIN)/spd quickstart --overwrite

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# A worker runs whole files, since the tests of a file share what is slow to make.
BY_FILE := --dist loadfile --no-loadscope-reorder

# One thread a worker: two workers on two cores, and threads that do not spin against each other.
# Byte code is kept, also where the environment says otherwise: pytest rewrites assertions once, and
# processes that tests start compile nothing.
test: check docs
	OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n 2 $(BY_FILE) -q
	$(BIN)/python -m build --no-isolation --wheel --outdir .venv/dist . > .venv/build.log \
		|| { cat .venv/build.log; exit 1; }

# An environment for each extra, from the package index and from what is installed here.
test-install: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m slow tests/install

# Apart from `make test`, since it needs root and starts six processes that import torch.
test-nodes: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m slow tests/train/training/test_two_nodes.py

# Optimum needs an older Transformers, so it gets an environment without ours; artefacts pass between.
test-optimum: setup $(OPTIMUM)/installed
	rm -rf $(OPTIMUM)/artefacts
	$(BIN)/python -m tests.optimum.export $(OPTIMUM)/artefacts
	HF_HUB_OFFLINE=1 $(OPTIMUM)/bin/python tests/optimum/check.py $(OPTIMUM)/artefacts

$(OPTIMUM)/installed: constraints-optimum.txt
	$(PYTHON) -m venv $(OPTIMUM)
	$(OPTIMUM)/bin/pip install --quiet --upgrade pip
	$(OPTIMUM)/bin/pip install --quiet $$(grep '^torch==' constraints-optimum.txt)
	$(OPTIMUM)/bin/pip install --quiet -c constraints-optimum.txt optimum-onnx onnxruntime
	touch $@

# A builder that works without a GPU, beside our environment; see tests/tensorrt_rtx/assemble.py.
test-tensorrt: setup $(TENSORRT)/installed
	LD_LIBRARY_PATH=$(TENSORRT)/lib PYTHONPATH=$(TENSORRT) $(BIN)/python -m pytest -q tests/tensorrt_rtx

$(TENSORRT)/installed: constraints-tensorrt.txt tests/tensorrt_rtx/assemble.py
	$(BIN)/pip install --quiet --no-deps --upgrade --target $(TENSORRT) -r constraints-tensorrt.txt
	$(BIN)/python -m tests.tensorrt_rtx.assemble $(TENSORRT)
	touch $@

# NO_MKDOCS_2_WARNING: a note of the theme's authors about MkDocs 2, which is not what is pinned here.
docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict --site-dir .venv/site

# pip asks the package index alone: no wheel is downloaded.
lock: setup
	$(BIN)/python deploy/docker/lock.py

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup
	$(BIN)/python -m benchmarks.baseline --model minilm
	$(BIN)/python -m benchmarks.baseline --model base
	$(BIN)/python -m benchmarks.shapes --model minilm --output bench/minilm --overwrite
	$(BIN)/python -m benchmarks.shapes --model base --output bench/base --overwrite

clean:
	rm -rf .venv $(OPTIMUM) $(TENSORRT) .mypy_cache .ruff_cache .pytest_cache .hypothesis

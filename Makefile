# The two commands are `make demo` and `make test`; each sets up .venv by itself.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test lint gpu tables clean

KERNELS := $(wildcard graphfusion/ops/hetero_attention/kernels/*)

$(READY): pyproject.toml setup.py $(KERNELS)
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "graphfusion needs Python 3.11 or newer; set PYTHON=")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	touch $(READY)

demo: $(READY)  ## train digit-ops on data that is installed with the package, show what it learned
	$(BIN)/python benchmarks/demo.py --out .demo

test: $(READY)  ## the default test suite: no GPU, no network
	$(BIN)/python -m pytest -n 2 -m "not gpu"

lint: $(READY)  ## style, types, and imports that go down only
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# --at-least: a point below what the demo comes to on a CPU
RESULTS ?= $(or $(OUT),benchmarks/results)
gpu: export PYTHONPATH := .
gpu: export PYTHONUNBUFFERED := 1
gpu: export GRAPHFUSION_ATTENTION := triton
gpu:  ## on a machine with a GPU and no installs: its tests, the demo and epochs on it, the attention beside its peers; all of it, whatever fails
	@$(PYTHON) -c "import torch" 2> /dev/null || { echo "make gpu: $(PYTHON) has no torch; say make gpu PYTHON=…" >&2; exit 1; }
	@$(PYTHON) -c "import sys, torch; sys.exit(not torch.cuda.is_available())" || \
		{ echo "make gpu: the torch of $(PYTHON) sees no GPU here; nothing was run" >&2; exit 1; }
	failed=; \
	$(PYTHON) -m pytest -q -n 8 -m gpu -o filterwarnings=default tests/test_gpu.py || failed=yes; \
	$(PYTHON) benchmarks/demo.py --out .demo --device cuda --at-least 0.974 --results $(RESULTS) || failed=yes; \
	$(PYTHON) benchmarks/epochs.py --device cuda --rounds 2 --results $(RESULTS) || failed=yes; \
	$(PYTHON) benchmarks/attention.py --device cuda --sizes M,L,L256 --rounds 5 --out $(RESULTS) || failed=yes; \
	test -z "$$failed"

tables: $(READY)  ## make the published tables again from the committed runs
	$(BIN)/python benchmarks/engine.py --table
	$(BIN)/python benchmarks/attention_modes.py --table
	$(BIN)/python benchmarks/engine_options.py --table
	$(BIN)/python benchmarks/fusion_strategies.py --table
	$(BIN)/python benchmarks/shared_trunk.py --table
	$(BIN)/python benchmarks/attention.py --table
	$(BIN)/python benchmarks/attention.py --table --allocator keeping

clean:
	rm -rf $(VENV) .demo .pytest_cache .mypy_cache .ruff_cache

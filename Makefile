# make submission   score examples/data/battles.csv with the bundled ensemble and write submission.csv
# make test         run the whole test-suite, in as many processes as WORKERS= says
# make check        lint, formatting and types
# make check-gpu-path   run the GPU path on pretended GPUs, and compile the attention kernels for real ones
# make check-kernels    only the second half of it: make test has the first
# make bench        ours beside its peers on the CPU; BENCH= adds options (see benchmarks/cpu.py)
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= 2
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: submission test check check-gpu-path check-kernels bench models clean

submission: $(VENV)/.user
	$(BIN)/lmsys-ensemble submit --config models/default.yaml --test examples/data/battles.csv \
		--sample examples/data/sample_submission.csv --out submission.csv

test: $(VENV)/.dev models
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check-gpu-path: $(VENV)/.dev check-kernels
	$(BIN)/python -m pytest tests/gpu_path

check-kernels: $(VENV)/.dev build/triton/.installed
	PYTHONPATH=build/triton $(BIN)/python -m tests.gpu_path.kernels

bench: $(VENV)/.user
	$(BIN)/python benchmarks/cpu.py $(BENCH)

models: $(VENV)/.user
	@$(BIN)/lmsys-ensemble models pull > $(VENV)/.models

# torch comes first and pinned, so that nothing else decides which build of it is taken.
$(VENV)/.user: setup.cfg constraints.txt
	@$(PYTHON) -c "import sys; sys.exit('Python 3.11 or later is needed; set PYTHON=' if sys.version_info < (3, 11) else 0)"
	@echo "installing into $(VENV) (once)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) "$$(grep '^torch==' constraints.txt)"
	@$(PIP) --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.user
	@echo "installing what tests need (once)"
	@$(PIP) --editable ".[dev]"
	@touch $@

# Triton lies apart: PyTorch's build for CPUs comes without it, and behaves otherwise where it finds it.
build/triton/.installed: constraints.txt | $(VENV)/.user
	@echo "installing Triton into build/triton (once)"
	@$(PIP) --no-deps --upgrade --target build/triton "$$(grep '^triton==' constraints.txt)"
	@touch $@

clean:
	rm -rf $(VENV) build *.egg-info submission.csv

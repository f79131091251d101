# Every target sets up what it needs: a private virtual environment in .venv, and nothing outside this folder.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
# two workers even on a small machine: the tests mostly wait for real servers and processes
WORKERS ?= 3
SECONDS ?= 600
SEED ?= 7

.PHONY: help demo test test-again test-servers lint types check web mutants slow torture bench bench-servers clean
help:
	@echo "make demo          a real job under an address: watched, steered, paused and interrupted"
	@echo "make test          lint, types and every test, against real nats-servers"
	@echo "make test-again    once more, alone, what failed the last time"
	@echo "make test-servers  integration and fault tests on nats-server 2.11, 2.12, 2.14 and 2.15"
	@echo "make web           build the pages for browsers into natsproc/assets"
	@echo "make mutants       break the code on purpose, one guarantee at a time, and see the tests fail"
	@echo "make slow          the long tests"
	@echo "make torture       real servers and processes under faults for SECONDS=600, by SEED=7, every history judged"
	@echo "make bench         speed, beside the bare bus and the peers: 40 minutes, or 8 with BENCH=--quick; BENCH='emit live' for some"
	@echo "make bench-servers apt-get installs the peers' servers that come from Debian: Redis and PostgreSQL"

$(STAMP): pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing natsproc into $(VENV) …" >&2
	@$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[demo,test]'
	@touch $(STAMP)

demo: $(STAMP)
	@$(BIN)/python examples/demo.py

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

check: lint types

test: check
	$(BIN)/pytest -n $(WORKERS) -m "not slow"

# what the last run saw fail, once more and alone
test-again: $(STAMP)
	$(BIN)/python tests/again.py

test-servers: $(STAMP)
	NATSPROC_TEST_SERVERS=all $(BIN)/pytest -n $(WORKERS) -m "not slow" tests/integration tests/faults

# the pages for browsers, from web/ and the example's, with Node from PyPI; what they become is committed
web: $(STAMP)
	PYTHONPATH=tests $(BIN)/python -m webclient

mutants: $(STAMP)
	$(BIN)/python tests/mutants/run.py

slow: $(STAMP)
	$(BIN)/pytest -m slow --timeout 1200

torture: $(STAMP)
	$(BIN)/python -m tests.torture.run --seconds $(SECONDS) --seed $(SEED)

$(VENV)/.bench: $(STAMP)
	@echo "installing the peers to measure beside, half a gigabyte …" >&2
	@$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[bench]'
	@touch $@

bench: $(VENV)/.bench
	$(BIN)/python -m benchmarks $(BENCH)

bench-servers:
	apt-get update -q && apt-get install -y --no-install-recommends redis-server postgresql

clean:
	rm -rf web/*/node_modules web/*/dist examples/*/page/node_modules
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .cache

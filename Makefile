# Each target sets up all that it needs in .venv, and only when pyproject.toml or constraints.txt has changed since.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
READY := $(VENV)/.ready
PEERS := $(VENV)/.ready-peers
# Two processes of one thread each. The quick tests of a file stay together, for what they share.
SPREAD := -n 2

.PHONY: help bench bench-full bench-speed test test-slow lint clean
.NOTPARALLEL:
.DELETE_ON_ERROR:

help:
	@echo "make bench        measure the order of every solver: table, pictures, report"
	@echo "make bench-full   every suite, other libraries' samplers included"
	@echo "make bench-speed  time sdekit, and other libraries where they offer the same"
	@echo "make test         the test suite, without its slow part"
	@echo "make test-slow    the slow part"
	@echo "make lint         style and types"
	@echo "make clean        remove .venv and caches"

bench: $(READY)
	$(BIN)/sdekit bench run orders

# Of speed come last: nothing else may run beside them.
SUITES := orders work-precision few-steps stochasticity strong grids peers gaussian samples gpu speed

# What an interrupted run has finished is used; a suite that fails does not keep the others from being run.
bench-full: $(PEERS)
	@failed=; for suite in $(SUITES); do \
		$(BIN)/sdekit bench run $$suite --resume || failed="$$failed $$suite"; \
	done; \
	test -z "$$failed" || { echo "failed:$$failed"; exit 1; }

bench-speed: $(PEERS)
	$(BIN)/sdekit bench run speed

test: $(READY)
	$(BIN)/python -m pytest -m "not slow" $(SPREAD) --dist loadfile

test-slow: $(READY)
	$(BIN)/python -m pytest -m slow $(SPREAD)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# An environment of our own, because a system Python may refuse pip. The version is checked first, for a clear message.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "sdekit needs Python 3.11 or newer; point to one with: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV) \
		|| { rm -rf $(VENV); echo "This Python cannot make environments; on Debian: apt install python3-venv"; exit 1; }

# torch goes first and alone: with it in place, no other package can bring a build of its own choice.
$(READY): pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) install "$$(grep '^torch==' constraints.txt)" -c constraints.txt
	$(PIP) install -c constraints.txt -e '.[cli,bench,test,lint]'
	@touch $@

$(PEERS): benchmarks/requirements-peers.txt $(READY)
	$(PIP) install -c constraints.txt -e '.[peers]'
	$(PIP) install --no-deps -r benchmarks/requirements-peers.txt
	@touch $@

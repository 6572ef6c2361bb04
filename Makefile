# Everything starts from a clone, Python 3.11 or newer, git and make: each command sets up .venv by itself.
PYTHONS := python3.13 python3.12 python3.11 python3
VENV := .venv
BIN := $(VENV)/bin
# Each stamp is written last, so that an interrupted step is done again.
CREATED := $(VENV)/.created
INSTALLED := $(VENV)/.installed
ARGS :=

.DEFAULT_GOAL := help
.PHONY: help setup demo test quick lint format bench clean

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(INSTALLED) ## create .venv and install the project and its tools

demo: $(INSTALLED) ## run the demo, with flags as in ARGS="--eviction"
	$(BIN)/kava demo $(ARGS)

# Two processes of one thread each: on two cores, more threads only wait for each other.
test: lint ## run every check: ruff, mypy and all tests, the slow ones too
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 $(ARGS)

quick: $(INSTALLED) ## run the tests without the slow ones, as in ARGS="-k rkv"
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 -m "not slow" $(ARGS)

lint: $(INSTALLED) ## check style and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(INSTALLED) ## mend what ruff can mend
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(INSTALLED) ## run the benchmarks one after the other
	@set -e; for file in $$(grep -l __main__ benchmarks/*.py); do echo "== $$file"; $(BIN)/python "$$file"; done

clean: ## remove caches and build files; .venv and outputs/ stay
	rm -rf build dist src/*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -exec rm -rf {} +

# An environment that somebody else made is taken as it is; one that was interrupted is made anew.
$(CREATED):
	@if [ -e $(BIN)/python ] && [ ! -e $(VENV)/.creating ]; then touch $@; exit; fi; \
	for python in $(PYTHONS); do \
	  if $$python -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
	    echo "creating $(VENV) with $$($$python --version)"; \
	    rm -rf $(VENV) && mkdir $(VENV) && touch $(VENV)/.creating && \
	    $$python -m venv $(VENV) && mv $(VENV)/.creating $@; exit $$?; \
	  fi; \
	done; \
	echo "KaVa needs Python 3.11 or newer with its venv module, and none of $(PYTHONS) is that: install one (Debian and Ubuntu: python3-venv) or name it with make PYTHONS=/path/to/python" >&2; \
	exit 1

$(INSTALLED): $(CREATED) pyproject.toml constraints.txt
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

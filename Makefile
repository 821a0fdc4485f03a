# `make demo` sets up and runs the main job, `make test` sets up and runs the tests; `make setup` alone makes .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --no-compile --quiet --disable-pip-version-check -c constraints.txt
DATA ?=
# One more than there are processors: tests of daemons mostly wait. With two more it took longer.
WORKERS ?= $(shell echo $$(($$(getconf _NPROCESSORS_ONLN) + 1)))

# Run a command; say what it is for, and how long it took.
timed = @echo "== $(1)"; start=$$(date +%s); $(2); code=$$?; echo "== $(1): $$(($$(date +%s) - start)) s"; exit $$code

# What pip did not compile is compiled when it is first imported, and kept.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: setup demo test lint types contracts collect site soak screenshots clean

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Collegium needs Python 3.11 or later, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(call timed,install torch,$(PIP) torch==2.13.0)
	$(call timed,install Collegium and the rest,$(PIP) -e '.[dev]')
	@touch $@

demo: setup
	$(BIN)/collegium demo $(if $(DATA),--data $(DATA))

test: setup
	$(call timed,style and types and contracts,$(MAKE) --no-print-directory -j 4 lint types contracts collect)
	$(call timed,tests by $(WORKERS) workers,$(BIN)/pytest -m "not soak" -n $(WORKERS) --dist loadfile --no-loadscope-reorder)

lint: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: setup
	$(BIN)/mypy

contracts: setup
	$(BIN)/lint-imports

# That every test can be imported; what they import is compiled here once, else each worker compiles torch at first.
collect: setup
	@found=$$($(BIN)/pytest --collect-only -q) || { echo "$$found"; exit 1; }

# The documentation, to be read in a browser: build/site/index.html. The gate builds it too (tests/test_site.py).
site: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

soak: setup
	$(BIN)/pytest -m soak

# The pictures of docs/dashboard.md, made by the test of the page in a browser.
screenshots: setup
	SCREENSHOTS=docs/pictures $(BIN)/pytest -q tests/firstweek/test_dashboard.py

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

# Everything starts from Python 3.11+, pip and make; the environment is made in .venv when it is first needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PORT ?= 8000

.PHONY: demo demo-redis test quick wheel-test dist format check bench audit docs docs-serve clean

demo: $(VENV)/demo  ## Serve the example app with the in-memory store
	@echo "The dashboard: http://127.0.0.1:$(PORT)"
	@$(BIN)/python -m uvicorn example_app.main:app --host 127.0.0.1 --port $(PORT) --log-level warning --timeout-graceful-shutdown 3

demo-redis: $(VENV)/demo-redis  ## Serve it with four workers that share a private Redis
	@$(BIN)/python -m example_app.with_redis --port $(PORT)

# Without it each of some hundred processes that tests start would compile the package for itself.
test quick: export PYTHONDONTWRITEBYTECODE =

test: check  ## Everything that has to be true
	$(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder

quick: $(VENV)/test  ## More than half of the tests, in under a minute, without Redis and browser
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

wheel-test: $(VENV)/build  ## Build the wheel, install it away from the tree, and test it there
	$(BIN)/python -m tests.packaging

dist: $(VENV)/build  ## Build the wheel and the sdist
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/python -m twine check --strict dist/*

format: $(VENV)/test  ## Format the code, and fix what the linter can fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

check: $(VENV)/test  ## Style, types and layering
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

bench: $(VENV)/bench  ## Us, the floors and the peers in one run; writes benchmarks/RESULTS.md
	$(BIN)/python -m benchmarks

audit: $(VENV)/test $(VENV)/audit  ## Look up known vulnerabilities of everything that is installed, and of the minimum versions
	$(BIN)/python -m pip_audit --skip-editable --progress-spinner off
	$(BIN)/python -m tests.packaging.minimums > $(VENV)/minimums.txt
	$(BIN)/python -m pip_audit --strict --no-deps --disable-pip --progress-spinner off -r $(VENV)/minimums.txt

# mkdocs-material prints a banner about the next version of MkDocs unless it is silenced.
docs: $(VENV)/docs  ## Build the documentation into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

docs-serve: $(VENV)/docs  ## Serve the documentation, and rebuild it when a page changes
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs serve --strict --dev-addr 127.0.0.1:$(PORT)

clean:
	rm -rf $(VENV) site

$(VENV)/pip: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	@touch $@

$(VENV)/demo: $(VENV)/pip
	$(BIN)/python -m pip install --quiet --editable . --group example
	@touch $@

$(VENV)/demo-redis: $(VENV)/pip
	$(BIN)/python -m pip install --quiet --editable ".[redis]" --group demo-redis
	@touch $@

$(VENV)/test: $(VENV)/pip
	$(BIN)/python -m pip install --quiet --editable ".[all]" --group test
	@touch $@

$(VENV)/build: $(VENV)/pip
	$(BIN)/python -m pip install --quiet --group build
	@touch $@

$(VENV)/audit: $(VENV)/pip
	$(BIN)/python -m pip install --quiet --group audit
	@touch $@

$(VENV)/docs: $(VENV)/pip
	$(BIN)/python -m pip install --quiet --group docs
	@touch $@

$(VENV)/bench: $(VENV)/test
	$(BIN)/python -m pip install --quiet --group bench
	@touch $@

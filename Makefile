# make sweep    set up, then run the bundled sweep
# make test     set up, then every check that must pass
# make lock     both lock files from pyproject.toml; UPGRADE=--upgrade takes newer versions
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DEV_INSTALLED := $(VENV)/.dev-installed
INSTALL := $(BIN)/pip install --disable-pip-version-check
# --no-deps: the locks hold all that is needed, and the bundled models name more than reading their files needs.
LOCKED := $(INSTALL) --require-hashes --no-deps
LOCK_VENV := .venv-lock
COMPILE := $(LOCK_VENV)/bin/uv pip compile --quiet --universal --python-version 3.11 \
  --generate-hashes --no-annotate --custom-compile-command "make lock" $(UPGRADE)

.PHONY: sweep test check format lock clean

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

$(INSTALLED): pyproject.toml requirements.lock models.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "hawsweep needs Python 3.11 to 3.14. Install one and name it: make sweep PYTHON=python3.12"; exit 1; }
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	$(LOCKED) -r requirements.lock
# On macOS that was all. On Linux the lock leaves out torch: what its build for CUDA needs comes with it, not from the lock.
	$(INSTALL) "$$(sed -n 's/^\(torch==[^ ]*\).*/\1/p' requirements.lock)"
	$(LOCKED) -r models.lock
	$(INSTALL) --no-deps -e .
	@touch $@

$(DEV_INSTALLED): $(INSTALLED) requirements-dev.lock
	$(LOCKED) -r requirements-dev.lock
	@touch $@

# pip-audit asks for pip, which the environment has: it is not locked.
lock:
	test -x $(LOCK_VENV)/bin/uv || { $(PYTHON) -m venv $(LOCK_VENV) && $(LOCK_VENV)/bin/pip install --quiet uv; }
	$(COMPILE) pyproject.toml --extra cpu --group torch --output-file requirements.lock
	$(COMPILE) --group dev --no-emit-package pip --constraint requirements.lock --output-file requirements-dev.lock

clean:
	rm -rf $(VENV) $(LOCK_VENV) .mypy_cache .pytest_cache .ruff_cache

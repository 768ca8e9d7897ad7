# The commands of the house. `make demo` and `make test` need Python 3.11+ and nothing else.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# what the build backend remarks on editable installs is no news for anybody
PIP    := PYTHONWARNINGS=ignore $(BIN)/python -m pip --disable-pip-version-check

.PHONY: demo test lint bench clean

demo: $(VENV)/.installed
	$(BIN)/hubctl demo

test: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto -m "not slow"

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.installed-dev
	$(PIP) install -q -c constraints.txt -e '.[bench]'
	for page in startup index metadata headers recommend reproduce adopt serve download; do $(BIN)/python bench/$$page.py || exit 1; done

# torch first and by itself: the constraint names the build without CUDA where there is one
$(VENV)/.installed: pyproject.toml constraints.txt
	@echo "making $(VENV) and installing hubctl into it: a few minutes the first time (PyTorch is large)"
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -q --upgrade pip
	$(PIP) install --progress-bar on -c constraints.txt torch
	@echo "now hubctl and the rest of what it needs: a minute"
	$(PIP) install -q -c constraints.txt -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "now what the tests need"
	$(PIP) install -q -c constraints.txt -e '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache

# `make demo` and `make test` need nothing but Python 3.11 and a network the first time: they set up .venv by themselves.

PYTHON ?= python3
JOBS ?= 2
BIN := .venv/bin

.PHONY: demo test bench clean

demo: .venv/ready
	$(BIN)/outdo demo

test: .venv/ready
	$(BIN)/ruff check
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS)

# what needs no data of its own; `make bench SOURCE=photos/` adds a row of bench/RESULTS.md. A few minutes
bench: .venv/ready
	$(BIN)/python bench/statistics.py --repetitions 200
	$(BIN)/python bench/kills.py --kills 20
	$(if $(SOURCE),$(BIN)/python bench/rows.py $(SOURCE) --minutes 2)

clean:
	rm -rf .venv build dist bench/out .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# pip is asked again only when what it should install has changed, and an interrupted set-up is taken up again
.venv/ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "outdo needs Python 3.11 or newer; name one by: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@echo "setting up .venv: a few minutes, about 5 GB, once" >&2
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

# The two commands: `make demo` and `make test`. Both make ./.venv first; nothing else has to be installed by hand.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/installed

.PHONY: demo test lint types imports unit format bench clean lock

demo: $(STAMP)
	@$(BIN)/labelspace demo --folder demo

test: lint types imports unit

$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) is not here; install Python 3.11 or later" >&2; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[cpu,train,transformer,report,bench,serve,postgres,dev]'
	@touch $(STAMP)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

imports: $(STAMP)
	$(BIN)/lint-imports

unit: $(STAMP)
	$(BIN)/python -m pytest

format: $(STAMP)
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

# Rewrites the pinned versions from what is installed now; FAISS is the same whichever of its two wheels is taken.
lock: $(STAMP)
	$(BIN)/pip freeze --exclude-editable | sed 's,+cpu,,; s,^faiss-cpu==\(.*\),&\nfaiss-gpu==\1,' > constraints.txt

clean:
	rm -rf .venv demo dist .mypy_cache .ruff_cache .pytest_cache .hypothesis

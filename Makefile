# Everything runs in .venv, which the first target that needs it makes and fills. All it takes is make and Python 3.11.
# Another Python: make PYTHON=python3.12 demo

PYTHON ?= python3
PY := .venv/bin/python
# The versions are fixed, so that a failure here is the code's. Which build of torch comes (CPU or CUDA) is left to
# pip's own configuration.
PIP := $(PY) -m pip --disable-pip-version-check install --quiet --no-compile -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test check docs bench clean
# Two targets at once would fill one .venv at once.
.NOTPARALLEL:

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' Makefile

demo: .venv/.plots ## record the bundled model: no network, no GPU (after the first set-up)
	@$(PY) -m attnprobe.demo $(ARGS)

test: .venv/.dev ## the tests; make test ARGS="-m 'not slow' -k cache"
	@OMP_NUM_THREADS=1 $(PY) -m pytest -n auto --dist loadfile $(ARGS)

check: .venv/.dev ## format, lint, types; changes nothing
	@$(PY) -m ruff format --check .
	@$(PY) -m ruff check .
	@$(PY) -m mypy

docs: .venv/.docs ## the site, its notebooks run: docs/_build/html/index.html
	@$(PY) -m sphinx -W --keep-going -q -j auto -d docs/_build/doctrees docs docs/_build/html $(ARGS)
	@echo "docs/_build/html/index.html"

bench: .venv/.dev ## the benchmarks; writes benchmarks/out/
	@$(PY) -m benchmarks $(ARGS)

clean: ## remove caches and builds; .venv, runs/ and benchmarks/out/ stay
	@rm -rf build dist docs/_build .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find . -path ./.venv -prune -o -name __pycache__ -type d -exec rm -rf {} +

# .venv/.plots, .venv/.dev, .venv/.docs: stamps, one for each set of extras. Editable, so that only new requirements
# need a new install, and so that none overwrites another. Hatchling comes with torch, ahead of the package, because
# pip would take an unpinned one to build it.
.venv/.plots .venv/.dev .venv/.docs: pyproject.toml constraints.txt
	@$(usable) || { rm -rf .venv; $(find-python) && $(PYTHON) -m venv .venv; } || { rm -rf .venv; exit 1; }
	@touch .venv/.unfinished
	@echo "installing attnprobe[$(@:.venv/.%=%)] into .venv, the first time for some minutes"
	@$(PIP) torch hatchling
	@$(PIP) --no-build-isolation -e '.[$(@:.venv/.%=%)]'
	@$(PY) -m compileall -q -q -j 0 -x '/tests/' .venv/lib || true # pip would use one core, and compile others' tests
	@rm .venv/.unfinished
	@touch $@

# An install that was stopped leaves packages that pip takes for whole: such a .venv is made anew.
usable = [ ! -e .venv/.unfinished ] && $(PY) -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null

# Asked before .venv is made, because the venv module's own messages are long, and it leaves a .venv without pip.
define find-python
{ command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is missing: apt install python3 python3-venv"; false; }; } && \
{ $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	{ echo "$(PYTHON) is older than 3.11: name a newer one with make PYTHON=python3.12"; false; }; } && \
{ $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	{ echo "$(PYTHON) cannot make a virtual environment: apt install python3-venv"; false; }; }
endef

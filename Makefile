# make demo   everything from nothing: set-up, then adapt, segment and draw
#             (DATA=DIR, STRUCTURES=VALUE=NAME,... and MODEL=ID for your own)
# make test   set-up and the tests         make lint   style, layers, types
# make setup  the environment
# make soak   2,000 examples of every property, and what takes long (SEED=N for others)
# make wheel-check   the wheel in an environment of its own, away from here
# make golden   every network's numbers with the lowest versions that requirements.txt lets in, and
#               with the newest, each in an environment of its own (golden-lowest, golden-newest)
# make coverage   the tests, and which lines of engine and module they run
# make test-random   the tests in random order (SEED=N for an order seen before)

PYTHON ?= python3
# Another build of torch, for instance: make setup TORCH="torch --index-url URL"
TORCH ?= torch==2.13.0
OUT ?= demo-output
SEED ?= 0
# For make golden without CUDA: INDEX="--extra-index-url https://download.pytorch.org/whl/cpu"
INDEX ?=
BIN := .venv/bin
READY := .venv/ready
# On a terminal pip shows how far it is; in a file that would be pages.
PIP = [ -t 1 ] && quiet= || quiet=--quiet; \
    $(BIN)/python -m pip install $$quiet --disable-pip-version-check

.PHONY: setup demo test coverage test-random soak wheel-check golden golden-lowest golden-newest lint clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt FewShotSegLib/requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	    { echo "Python 3.10 or newer is needed; say which: make PYTHON=python3.12 setup"; exit 1; }
	@echo "Making a Python environment in .venv"
	@$(PYTHON) -m venv .venv
	@echo "Installing $(TORCH): 2 GB or so with PyPI's CUDA build for Linux, 0.2 GB without CUDA"
	@$(PIP) $(TORCH)
	@echo "Installing MONAI, SimpleITK and what else FewShotSeg and its tests need: some 0.5 GB"
	@$(PIP) -c constraints.txt -e '.[dev]'
	@touch $(READY)

GIVEN = $(if $(DATA),--data "$(DATA)") $(if $(STRUCTURES),--structures "$(STRUCTURES)") \
    $(if $(MODEL),--model "$(MODEL)")

# A file's tests share what is trained for them; the order is conftest.py's: long ones first.
ON_ALL_CORES = -n auto --dist loadfile --no-loadscope-reorder

GOLDEN = test_golden test_published_weights test_published_networks test_backbones

demo: setup
	$(BIN)/fewshotseg demo --out "$(OUT)" $(strip $(GIVEN))

test: setup
	@echo "Running all tests on all cores, which takes several minutes"
	$(BIN)/python -m pytest -q $(ON_ALL_CORES) Testing

coverage: setup
	$(BIN)/python -m pytest -q --cov --cov-report=term:skip-covered --cov-report=xml Testing

# Seeds are random where none is given, and printed, so that a run can be had again.
test-random: setup
	$(BIN)/python -m pytest -q --random-order-bucket=global \
	    $(if $(filter-out 0,$(SEED)),--random-order-seed=$(SEED)) Testing

soak: setup
	@echo "Running 2,000 examples of every property, which takes an hour or so"
	FEWSHOTSEG_SOAK=1 $(BIN)/python -m pytest -q -m soak --hypothesis-seed=$(SEED) Testing

wheel-check: setup
	$(BIN)/python Testing/support/wheel_check.py --torch "$(TORCH)"

golden: golden-lowest golden-newest

golden-lowest: VERSIONS = s/^([A-Za-z]+)>=(.*)/\1==\2.*/p
golden-newest: VERSIONS = /^[A-Za-z]/p
golden-lowest golden-newest:
	@echo "Making a Python environment in build/$@; torch takes 2 GB with CUDA, 0.2 GB without"
	@rm -rf build/$@
	@$(PYTHON) -m venv build/$@
	@sed -nE '$(VERSIONS)' FewShotSegLib/requirements.txt > build/$@/versions.txt
	@build/$@/bin/python -m pip install --quiet --disable-pip-version-check $(INDEX) \
	    -r build/$@/versions.txt
	@build/$@/bin/python -m pip list --disable-pip-version-check | \
	    grep -E '^(torch|monai|numpy|einops) '
	cd Testing/engine && PYTHONPATH=../..:../support ../../build/$@/bin/python -m unittest $(GOLDEN)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PYTHONPATH=.:FewShotSeg $(BIN)/lint-imports
	$(BIN)/mypy

clean:
	rm -rf .venv demo-output build dist *.egg-info

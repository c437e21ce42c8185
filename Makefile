# Everything that a user runs. `make setup` needs only Python >= 3.11 with venv.
PYTHON ?= python3
BIN := .venv/bin
VIDEO ?= data/sample/burning_a_gas.mp4
TITLE ?= Burning an Unknown Gas and Testing the Products
export VIDEO TITLE
RUN ?= runs/tiny
PLAN ?= tiny
PAPERMILL := $(BIN)/papermill --cwd .

.PHONY: setup demo test faults lint lab inspect mini plan dag reproduce runs ship figures

.venv/installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e .
	touch $@

.venv/installed-test: .venv/installed
	$(BIN)/python -m pip install --quiet -e ".[test]"
	touch $@

.venv/installed-lab: .venv/installed
	$(BIN)/python -m pip install --quiet -e ".[lab]"
	touch $@

.venv/installed-cluster: .venv/installed
	$(BIN)/python -m pip install --quiet -e ".[cluster]"
	touch $@

setup: .venv/installed  ## create .venv and install

demo: .venv/installed  ## a video becomes commentary: make demo VIDEO=my.mp4 TITLE="What it shows" EXPORT=--burn
	@$(BIN)/python -m expstar_utils.quickstart "$$VIDEO" "$$TITLE" $(EXPORT)

test: .venv/installed-test  ## every test, and every notebook at smoke size
	$(BIN)/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder --session-timeout 3900

faults: .venv/installed-test  ## the whole fault suite: kills, full disks, damaged files, Slurm; more than an hour
	EXPSTAR_FAULTS=1 $(BIN)/python -m pytest -vv --durations 20 --timeout 7200 -o faulthandler_timeout=7260 tests/faults tests/slurm tests/test_launching.py

lint: .venv/installed-test
	$(BIN)/ruff check .

lab: .venv/installed-lab
	$(BIN)/jupyter lab --ip 127.0.0.1 notebooks

inspect: .venv/installed-lab  ## cases of $(RUN), to look at and rate, on the loopback address
	mkdir -p $(RUN)/notebooks
	$(PAPERMILL) --prepare-only notebooks/08_case_inspector.ipynb $(RUN)/notebooks/08.ipynb -p run_dir $(RUN)
	$(BIN)/voila --Voila.ip=127.0.0.1 $(RUN)/notebooks/08.ipynb

mini: .venv/installed  ## render ExpInstruct-Mini
	$(BIN)/python -m expstar_utils.mini.build

plan: .venv/installed-cluster  ## what $(PLAN) would do, and why
	$(BIN)/python -m expstar_utils.schedule $(PLAN) --dry-run --quiet host

dag: .venv/installed  ## the jobs of $(PLAN) and how far each has come, as a picture: runs/plan_$(PLAN).png
	@$(BIN)/python -m expstar_utils.plan_picture $(PLAN)

reproduce: .venv/installed-cluster  ## every job of $(PLAN), from rendering to figures; the same command goes on where it was stopped
	$(BIN)/python -m expstar_utils.schedule $(PLAN) --quiet host

runs: .venv/installed  ## every stage of every run, newest last; written to runs/ledger.parquet
	@$(BIN)/python -m expstar_utils.ledger

ship: .venv/installed  ## put the weights of $(RUN) where `make demo` takes them, with their card
	$(BIN)/python -m expstar_utils.card $(RUN)

figures: .venv/installed  ## every figure and table of the paper and of $(RUN), into figures/
	mkdir -p $(RUN)/notebooks
	$(PAPERMILL) notebooks/07_paper_figures.ipynb $(RUN)/notebooks/07.ipynb -p run_dir $(RUN)

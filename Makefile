# Everything that a user runs. `make setup` needs only Python >= 3.11 with venv.
PYTHON ?= python3
BIN := .venv/bin
VIDEO ?= data/sample/burning_a_gas.mp4
TITLE ?= Burning an Unknown Gas and Testing the Products
export VIDEO TITLE
RUN ?= runs/tiny
PAPERMILL := $(BIN)/papermill --cwd .

.PHONY: setup demo test lint lab inspect mini reproduce ship figures

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

setup: .venv/installed  ## create .venv and install

demo: .venv/installed  ## a video becomes commentary: make demo VIDEO=my.mp4 TITLE="What it shows" EXPORT=--burn
	@$(BIN)/python -m expstar_utils.quickstart "$$VIDEO" "$$TITLE" $(EXPORT)

test: .venv/installed-test  ## every test, and every notebook at smoke size
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

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

reproduce: mini  ## the whole chain on tiny, from rendering to metrics
	mkdir -p $(RUN)/notebooks
	$(PAPERMILL) notebooks/02_dataset_construction.ipynb $(RUN)/notebooks/02.ipynb -p run_dir $(RUN)
	$(PAPERMILL) notebooks/03_retrieval.ipynb $(RUN)/notebooks/03.ipynb -p run_dir $(RUN) -p tower train
	$(PAPERMILL) notebooks/04a_train_sft.ipynb $(RUN)/notebooks/04a.ipynb -p run_dir $(RUN)
	$(PAPERMILL) notebooks/05_infer.ipynb $(RUN)/notebooks/05-val.ipynb -p run_dir $(RUN) -p split val
	$(PAPERMILL) notebooks/05_infer.ipynb $(RUN)/notebooks/05-test.ipynb -p run_dir $(RUN) -p split test
	$(PAPERMILL) notebooks/05_infer.ipynb $(RUN)/notebooks/05-test-blank.ipynb -p run_dir $(RUN) -p split test -p blank True
	$(PAPERMILL) notebooks/05_infer.ipynb $(RUN)/notebooks/05-unseen.ipynb -p run_dir $(RUN) -p split test_unseen
	$(PAPERMILL) notebooks/05_infer.ipynb $(RUN)/notebooks/05-unseen-never.ipynb -p run_dir $(RUN) -p split test_unseen -p knowledge never
	$(PAPERMILL) notebooks/06_evaluate.ipynb $(RUN)/notebooks/06.ipynb -p run_dir $(RUN)
	$(PAPERMILL) notebooks/07_paper_figures.ipynb $(RUN)/notebooks/07.ipynb -p run_dir $(RUN)

ship: .venv/installed  ## put the weights of $(RUN) where `make demo` takes them, with their card
	$(BIN)/python -m expstar_utils.card $(RUN)

figures: .venv/installed  ## every figure and table of the paper and of $(RUN), into figures/
	mkdir -p $(RUN)/notebooks
	$(PAPERMILL) notebooks/07_paper_figures.ipynb $(RUN)/notebooks/07.ipynb -p run_dir $(RUN)

# `make` lists the targets. The first one to run builds .venv, once and again when pyproject.toml changes.
# make PYTHON=python3.12 ...     another interpreter
# make VENV=$CONDA_PREFIX ...    the environment of environment.yml instead of .venv
# make LOCK=1 ...                the exact, hashed versions of requirements-ci.txt (Linux, x86-64, Python 3.10 to 3.12)
# make lab ARGS=--no-browser     options for JupyterLab
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PRESET ?= demo
DATA   ?=
CORES  ?= 2
ROOTS  ?= {}
LOCK   ?=
EDIT   ?=
STAMP  := $(VENV)/.installed
SHARED := -n $(CORES) --dist loadgroup --no-loadscope-reorder
QUICK  := method layers io data datasets

.DEFAULT_GOAL := help
.PHONY: help demo real check test lab docs docs-serve reports paper bench fuzz lock audit export clean

help:
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "ctm needs Python 3.10 or newer and $(PYTHON) is not: try make PYTHON=python3.11" >&2; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV) || \
	  { echo "$(PYTHON) -m venv failed: on Debian and Ubuntu, apt install python3-venv" >&2; exit 1; }
	$(if $(LOCK),$(BIN)/python -m pip install --disable-pip-version-check --no-compile --require-hashes -r requirements-ci.txt)
	$(BIN)/python -m pip install --disable-pip-version-check --no-compile $(if $(LOCK),--no-deps --no-build-isolation) -e '.[dev]'
	@touch $@

# papermill would read the notebook from stdin where that is a pipe
demo: $(STAMP)  ## fit, mask and score on a synthetic set, a few minutes on a laptop
	@mkdir -p runs
	$(BIN)/papermill nbs/sensitivity.ipynb runs/sensitivity.ipynb -p lam 0.01 </dev/null
	@$(BIN)/python -m ctm.reports.tables
	@echo "the notebook, with its figures: runs/sensitivity.ipynb"

# the weights are fetched once; what was finished is read, what was stopped goes on
real: $(STAMP)  ## photographs: every method on VOC 2012 val, hours on two cores (DATA=<folder of VOC 2012> ARGS=)
	@test -n "$(DATA)" || { echo "say where VOC 2012 is: make real DATA=<folder>" >&2; exit 2; }
	@mkdir -p runs
	$(BIN)/python data_prep/weights.py
	CTM_KEEP=1 $(BIN)/papermill nbs/real.ipynb runs/real.ipynb -p data "$(abspath $(DATA))" $(ARGS) </dev/null

check: $(STAMP)  ## for every save, under two minutes: linter, generated files, imports, the method and the readers
	$(BIN)/python -m pytest $(SHARED) -m quick $(QUICK:%=tests/%) tests/test_house.py tests/test_notebooks.py

test: $(STAMP)  ## every notebook, the docs, the rules of the house: what CI runs, 8 to 13 minutes on two cores
	$(BIN)/python -m pytest $(SHARED)

lab: $(STAMP)  ## open the index in JupyterLab, the tutorials beside it (EDIT=1 lets both be saved)
	CTM_EDIT=$(EDIT) $(BIN)/jupyter lab --config=nbs/_lab/jupyter_lab_config.py $(ARGS)

docs: $(STAMP)  ## build the docs site into _docs
	$(BIN)/python nbs/_sphinx/build.py

docs-serve: docs  ## show the docs site at http://localhost:8000
	$(BIN)/python -m http.server --bind 127.0.0.1 --directory _docs 8000

reports: demo  ## every table and figure of the paper, on the synthetic sets; what is kept is read
	@mkdir -p figures/tables
	for name in masking_ratio pseudomasks segmentation specialized real_tiles beyond; do \
	  CTM_KEEP=1 $(BIN)/papermill nbs/$$name.ipynb runs/$$name.ipynb </dev/null || exit 1; done
	for data in dfc2020 endotect ade20k; do \
	  CTM_KEEP=1 $(BIN)/papermill nbs/sensitivity.ipynb runs/sensitivity-$$data.ipynb -p dataset $$data -p sweep True </dev/null || exit 1; done
	CTM_KEEP=1 $(BIN)/papermill nbs/ablation.ipynb runs/ablation-dfc2020.ipynb </dev/null
	for data in voc2012 coco2014; do \
	  CTM_KEEP=1 $(BIN)/papermill nbs/ablation.ipynb runs/ablation-$$data.ipynb -p dataset $$data -p choices painting </dev/null || exit 1; done
	for data in dfc2020 endotect ade20k voc2012 coco2014; do \
	  CTM_KEEP=1 $(BIN)/papermill nbs/qualitative.ipynb runs/qualitative-$$data.ipynb -p dataset $$data </dev/null || exit 1; done
	cp runs/tables/*-synthetic-*-demo.* runs/tables/real_tiles-*-demo.* figures/tables/
	for kind in heads masking_ratio pseudomasks qualitative real_tiles specialized; do cp runs/figures/$$kind-*-demo*.png runs/figures/$$kind-*-demo*.svg figures/; done
	for end in png svg; do \
	  cp "$$(ls -t runs/figures/masks-dfc2020-demo-embedded-*.$$end | head -1)" figures/masks-synthetic.$$end; \
	  cp "$$(ls -t runs/figures/lambda-dfc2020-demo-embedded-*.$$end | head -1)" figures/lambda-synthetic.$$end; done

paper: $(STAMP)  ## the whole paper as one graph of jobs (PRESET=demo CORES=2 ROOTS="{}" ARGS=); again after a kill
	@mkdir -p runs
	@PATH="$(abspath $(BIN)):$$PATH" flock --nonblock --conflict-exit-code 75 runs/paper.lock \
	  $(BIN)/snakemake -s nbs/paper.smk --cores $(CORES) --nolock --rerun-incomplete \
	  --config preset=$(PRESET) roots="$(ROOTS)" $(ARGS); \
	status=$$?; test $$status != 75 || echo "another make paper is at work in this folder" >&2; exit $$status

bench: $(STAMP)  ## measure speed, growth and data again, an hour on a machine that does nothing else
	@mkdir -p runs
	for part in speed growth cost data explorer linear; do $(BIN)/python -m benchmarks.$$part || exit 1; done
	for name in benchmark growth; do $(BIN)/papermill nbs/$$name.ipynb runs/$$name.ipynb </dev/null || exit 1; done
	for kind in roofline growth; do cp runs/figures/$$kind.png runs/figures/$$kind.svg figures/; done

fuzz: $(STAMP)  ## 100,000 mutated files, shared out among the readers, a quarter of an hour; writes figures/fuzz.json
	$(BIN)/python -m tests.fuzz.run --count 100000

lock:  ## write requirements-ci.txt, exact and hashed (needs uv on the path)
	uv pip compile pyproject.toml --extra dev --universal --python-version 3.10 --generate-hashes \
	  --no-emit-index-url --no-header --no-annotate --quiet --output-file requirements-ci.txt

audit: $(STAMP)  ## known weaknesses of the locked versions (needs pip-audit on the path, and its database)
	pip-audit --require-hashes --disable-pip -r requirements-ci.txt

export: $(STAMP)  ## after editing notebooks: write ctm/ and README.md, clean the notebooks
	$(BIN)/nbdev_export
	$(BIN)/nbdev_clean
	$(BIN)/python nbs/_sphinx/readme.py

clean:  ## delete what was built; data, runs and .venv stay
	rm -rf _docs* _proc build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find ctm nbs tests -name __pycache__ -type d -prune -exec rm -rf {} +

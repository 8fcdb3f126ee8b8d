# Targets, each with what `make help` says of it behind ##.
PYTHON ?= python3
BIN    := .venv/bin
export OMP_NUM_THREADS ?= 1
WORKERS ?= 2
# what make check runs, but for tests that are marked slow
QUICK  := $(addprefix tests/,docs/test_package.py docs/test_mirror.py docs/test_names.py hessrank/files hessrank/data \
	hessrank/test_text.py hessrank/test_errors.py hessrank/test_bounds.py hessrank/test_json_keys.py analysis/losses analysis/result \
	analysis/test_statistics.py analysis/test_registries.py quant/layer_graph quant/policy distill/teacher distill/run_file)

.DEFAULT_GOAL := demo
.PHONY: help demo check test notebooks interface lint format clean

help:  ## print this list
	@sed -n 's/^\([a-z][a-z]*\):[^#]*## *\(.*\)/make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 16

# The demo needs hessrank alone, the tests need all that it can work with: what is installed, a stamp says.
.venv/installed: EXTRAS := [dev]
.venv/installed-demo .venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.$(EXTRAS)'
	touch $@

demo: .venv/installed-demo  ## rank the shipped low-light network and give its layers bits, into demo/
	mkdir -p demo
	$(BIN)/hessrank examples/lowlight/model.pth --out demo/ranking.csv --plot demo/ranking.png
	$(BIN)/hessrank policy demo/ranking.csv --base-bits 4 --out demo/policy.yaml --bit-map demo/bits.png

test: lint  ## lint, and run every test (a quarter of an hour on two cores)
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

notebooks: .venv/installed  ## run the notebooks and store what they show, which a test compares
	$(BIN)/python tests/helpers/notebook_runs.py

interface: .venv/installed  ## write docs/interface.md anew from signatures, docstrings and options
	$(BIN)/python docs/make_interface.py

check: lint  ## lint, and the quick tests: under a minute
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal -m "not slow" $(QUICK)

# Type checkers and import-linter cannot see through the editable install: .typing has the shape of the installed package.
lint: .venv/installed  ## check style, types, who imports whom, and what nothing uses; makes .typing, for editors
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	rm -rf .typing && mkdir -p .typing/hessrank
	cd .typing/hessrank && for f in ../../hessrank/*; do ln -s $$f .; done && for d in analysis quant distill; do ln -s ../../$$d $$d; done
	$(BIN)/mypy -p hessrank
	cd .typing && ../$(BIN)/lint-imports --no-cache ../pyproject.toml
	$(BIN)/vulture

format: .venv/installed  ## correct style and formatting where that can be done
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove what these targets made, but not .venv
	rm -rf .typing demo build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

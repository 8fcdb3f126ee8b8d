# make demo   install into .venv, rank the shipped low-light network, give its layers bits: demo/ranking.*, demo/policy.yaml
# make test   install into .venv, lint, run every test (a quarter of an hour on two cores)
# make interface   write docs/interface.md anew from signatures, docstrings and options; a test says when it is stale
# make notebooks   run the notebooks and store what they show, which a test compares with what they then show
PYTHON ?= python3
BIN    := .venv/bin
export OMP_NUM_THREADS ?= 1
WORKERS ?= 2

.PHONY: demo test notebooks interface lint format clean

# The demo needs hessrank alone, the tests need all that it can work with: what is installed, a stamp says.
.venv/installed: EXTRAS := [dev]
.venv/installed-demo .venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.$(EXTRAS)'
	touch $@

demo: .venv/installed-demo
	mkdir -p demo
	$(BIN)/hessrank examples/lowlight/model.pth --out demo/ranking.csv --plot demo/ranking.png
	$(BIN)/hessrank policy demo/ranking.csv --base-bits 4 --out demo/policy.yaml --bit-map demo/bits.png

test: lint
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

notebooks: .venv/installed
	$(BIN)/python tests/helpers/notebook_runs.py

interface: .venv/installed
	$(BIN)/python docs/make_interface.py

# Type checkers cannot see through the editable install: .typing has the shape of the installed package.
lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	rm -rf .typing && mkdir -p .typing/hessrank
	cd .typing/hessrank && for f in ../../hessrank/*; do ln -s $$f .; done && for d in analysis quant distill; do ln -s ../../$$d $$d; done
	$(BIN)/mypy -p hessrank

format: .venv/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .typing demo build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

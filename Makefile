# make demo: a talking-face video from the bundled inputs.
# make test: unit and contract tests, minutes. make test-e2e: whole programs, browsers, kills, pages.
# make head-study: a survey, a still head against a living one, and its page to vote on.
# make bench: speed, then docs/results.md from the released weights and GRID; CLIPS=3 for a taste.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo head-study test test-e2e test-pipecat lint docs bench install clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt scripts/check_system.py
	@$(PYTHON) scripts/check_system.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[train,corpora,eval,serve,study,postgres,livekit,onnx,docs,dev]'
	@touch $@

demo: $(STAMP)
	@$(BIN)/stillspeak demo --output demo.mp4 --overwrite

head-study: $(STAMP)
	test -d head-study || $(BIN)/python examples/study/make_study.py head-study
	$(BIN)/stillspeak study serve head-study/study

# On all cores, each with one thread: two threads of one network get in each other's way.
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m 'not e2e and not long' -n logical --maxprocesses 4 --dist loadfile

# One at a time: browsers, loads and kills are timed.
test-e2e: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m 'e2e and not long'

# Pipecat wants other versions of two packages than the rest, so its tests have their own place.
test-pipecat:
	$(PYTHON) -m venv $(VENV)-pipecat
	grep -v -e '^protobuf==' -e '^soxr==' constraints.txt > $(VENV)-pipecat/constraints.txt
	$(VENV)-pipecat/bin/python -m pip install --quiet --constraint $(VENV)-pipecat/constraints.txt --editable '.[pipecat]' pytest pytest-timeout
	$(VENV)-pipecat/bin/python -m pytest tests/integrations/test_pipecat.py tests/test_examples_live.py

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The site, into build/site.
docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: $(STAMP)
	$(BIN)/python benchmarks/animate.py
	$(BIN)/python benchmarks/results.py $(if $(CLIPS),--clips $(CLIPS))

clean:
	rm -rf $(VENV) demo.mp4 head-study .mypy_cache .ruff_cache

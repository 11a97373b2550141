# make install | demo | gpu | test | lint | audit.  VENV=dir chooses the virtual environment, SHORT=1 the short demo,
# ARGS="--parts amp cache" what more is told to `make gpu`.
PYTHON ?= python3
VENV ?= .venv
RUN = $(VENV)/bin/python

.PHONY: install demo gpu test lint audit

install: $(VENV)/installed

$(VENV)/installed: requirements.txt requirements-dev.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@

demo: install
	$(RUN) scripts/demo.py $(if $(SHORT),--short)

# Whether training on this GPU is right, and how fast; without one it only tries itself out, in tiny sizes.
gpu: install
	$(RUN) scripts/bench_gpu.py $(ARGS)

# Two processes of one thread each; a file's tests stay together, for they share what is slow to make.
test: install
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n 2 --dist loadfile

lint: install
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	$(VENV)/bin/lint-imports --no-logo

# Known vulnerabilities of the pinned packages; it asks a service on the internet, so it is no part of lint.
audit: install
	$(RUN) -m pip_audit --requirement requirements.txt

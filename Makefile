# make demo | test | test-long | shell: each makes .venv on its first run and reuses it later.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	$$p -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check --quiet

.PHONY: demo test test-long shell

demo: $(VENV)/installed
	$(VENV)/bin/ophyd-eiger demo

shell: $(VENV)/installed
	$(VENV)/bin/ipython --ipython-dir=$(VENV)/ipython --profile-dir=profile_collection

test: $(VENV)/installed-test
	$(VENV)/bin/python -m pytest -m "not long" $(PYTEST_FLAGS)

test-long: $(VENV)/installed-test
	$(VENV)/bin/python -m pytest $(PYTEST_FLAGS)

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "no Python >= 3.11 with venv found; say which: make PYTHON=/path/to/python $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --upgrade "pip>=25.1"

$(VENV)/installed: pyproject.toml | $(VENV)/bin/python
	@echo "installing into $(VENV); this takes a minute or two the first time"
	$(PIP) install --editable ".[all]"
	touch $@

$(VENV)/installed-test: pyproject.toml $(VENV)/installed
	$(PIP) install --group test
	touch $@

# make demo | test | test-long | shell: the first run makes .venv, later ones start at once.

PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	$$p -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$p && break; done)
VENV := .venv
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check --quiet
PYTEST := $(VENV)/bin/python -m pytest --dist loadgroup
# Workers and the many small programs of tests load the same modules: compiled once, and kept.
test test-long: export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test test-long shell

demo: $(VENV)/installed
	$(VENV)/bin/ophyd-eiger demo

shell: $(VENV)/installed $(if $(DISPLAY)$(WAYLAND_DISPLAY),$(VENV)/installed-plots)
	$(VENV)/bin/ipython --profile-dir=profile_collection --no-banner

# Four workers, also on two cores: much of a test's time is waiting.
test: $(VENV)/installed-test
	$(PYTEST) -n 4 -m "not long" $(PYTEST_FLAGS)

# Most of its time goes to scans of real exposures that are interrupted: they need no core.
WAITING := tests/device/test_interruption_matrix.py
test-long: $(VENV)/installed-test
	@status=0; \
	$(PYTEST) -n 8 $(WAITING) $(PYTEST_FLAGS) || status=1; \
	$(PYTEST) -n 4 $(WAITING:%=--ignore=%) $(PYTEST_FLAGS) || status=1; \
	exit $$status

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "no Python >= 3.11 with venv and ensurepip found (Debian: apt install python3-venv); or say which: make $(MAKECMDGOALS) PYTHON=/path/to/python"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml | $(VENV)/bin/python
	@echo "installing into $(VENV): a minute or two, this once"
	$(PIP) install --upgrade "pip>=25.1"
	$(PIP) install --editable ".[all]"
	touch $@

$(VENV)/installed-plots: pyproject.toml $(VENV)/installed
	$(PIP) install --editable ".[plots]"
	touch $@

$(VENV)/installed-test: pyproject.toml $(VENV)/installed
	$(PIP) install --group test
	touch $@

$(VENV)/installed-dev: pyproject.toml $(VENV)/installed-test
	$(PIP) install --group dev
	touch $@

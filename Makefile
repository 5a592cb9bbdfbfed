# What a newcomer runs: make demo, make test. Everything that they need is installed by themselves.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
FOR ?=

.DEFAULT_GOAL := help
.PHONY: help setup dashboard demo test lint unit acceptance bench soak screenshots lock clean

help: ## show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/'

$(VENV)/.done: requirements.lock pyproject.toml
	@tests/install.sh python3-venv
	@echo "setting up $(VENV) from requirements.lock"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

setup: $(VENV)/.done ## the environment in .venv, from the lock file with hashes

# What the front end is made of. It needs no Node on this machine: the environment brings it.
FRONT_END := $(shell find dashboard -path '*/.web' -prune -o -path '*/web' -prune -o -type f \
	\( -path '*/elements/*' -o -path '*/assets/*' -o -path '*/components/*' -o -path '*/pages/*' \
	-o -path '*/state/*' -o -path '*/reflex.lock/*' -o -name app.py -o -name rxconfig.py \
	-o -name build.py -o -name front_end.py \) -print)

dashboard/web/.done: $(VENV)/.done $(FRONT_END)
	@$(BIN)/python -m dashboard.build
	@touch $@

dashboard: dashboard/web/.done ## the front end of the dashboard, from its committed lock

demo: $(VENV)/.done dashboard ## simulated PLCs, agent, broker, store and dashboard; FOR=10s ends it
	@tests/install.sh mosquitto || echo "going on without Mosquitto"
	@$(BIN)/edge-agent demo $(if $(FOR),--for $(FOR))

lint: $(VENV)/.done
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: $(VENV)/.done dashboard ## linters, types and all tests but the longest; installs the servers they need
	@tests/install.sh mosquitto postgresql influxdb faketime openssl systemd chromium fonts-noto-cjk \
		socat libmodbus-dev gcc libc6-dev prometheus
	@$(MAKE) --no-print-directory lint
	$(BIN)/python -m pytest -m "not long"

unit: $(VENV)/.done
	$(BIN)/python -m pytest tests/unit

acceptance: $(VENV)/.done ## what takes longer than CI allows: every fault, many times
	@tests/install.sh mosquitto postgresql influxdb faketime openssl systemd iproute2 iptables
	$(BIN)/python -m pytest tests/acceptance

bench: $(VENV)/.done dashboard ## the figures of bench/README.md
	@tests/install.sh mosquitto postgresql influxdb chromium fonts-noto-cjk
	$(BIN)/python -m bench

screenshots: $(VENV)/.done dashboard ## docs/images/: every page, light and dark, wide and narrow
	@tests/install.sh chromium fonts-noto-cjk
	$(BIN)/python -m tests.browser.screenshots

soak: $(VENV)/.done ## 30 minutes at 5,000 samples/s
	@tests/install.sh mosquitto postgresql influxdb
	$(BIN)/python -m bench.soak

lock: ## requirements.lock anew, from pyproject.toml
	uv pip compile --universal --generate-hashes --no-emit-index-url --no-header \
		--python-version 3.11 --extra dev pyproject.toml -o requirements.lock

clean:
	rm -rf $(VENV) dashboard/.web dashboard/web .mypy_cache .ruff_cache .pytest_cache .hypothesis

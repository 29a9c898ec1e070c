# `make help` lists what there is. The recipes are short; what they do stands in deploy/.
VENV ?= .venv
export DESKYARD_VENV := $(VENV)
PYTHON := $(VENV)/bin/python
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

.PHONY: help run clean-demo test test-long bench lint types lock vendor

help: ## list these commands
	@sed -n 's/^\([a-z][a-z-]*\):[^#]*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

run: ## install, start and set up the demo; Ctrl-C ends it (DESKYARD_DATA, DESKYARD_HOST, DESKYARD_PORT, DESKYARD_DEMO_PASSWORD)
	@exec deploy/run.sh

clean-demo: ## remove all desktops and pools of this installation, and the demo's template; on a terminal it asks first
	@deploy/venv.sh run
	@$(PYTHON) manage.py clean_demo $$([ -t 0 ] || echo --yes)

test: ## install what the tests need and run them (root); ARGS='-k name' narrows them
	@deploy/test.sh pytest $(ARGS)

test-long: ## every seed, and every crash boundary on real guests (root, about an hour)
	@DESKYARD_LONG=1 deploy/test.sh pytest -m "long or not long" $(ARGS)

bench: ## measure; one JSON object a line on standard output; ONLY=claim runs one (root)
	@deploy/test.sh setup >&2
	@$(PYTHON) -m tests.bench $(ONLY)

lint: ## ruff, djlint, import contracts
	@deploy/venv.sh test >&2
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/djlint --lint --quiet templates
	@$(VENV)/bin/lint-imports

types: ## mypy --strict
	@deploy/venv.sh test >&2
	@$(VENV)/bin/mypy

lock: ## write requirements.lock anew from requirements-dev.txt
	@deploy/lock.sh

vendor: ## fetch the front end's third-party files anew (npm) and compare their digests
	@python3 deploy/vendor.py

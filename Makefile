# Everything runs from .venv in this folder. `make help` lists the targets.
.DEFAULT_GOAL := help
SHELL := /bin/sh
.SUFFIXES:

# Python 3.11 or newer; without a word the first of these that is new enough.
PYTHON ?=
# Where the CPU build of torch comes from, for instance TORCH_INDEX=<address of PyTorch's CPU wheel index>.
TORCH_INDEX ?=
# Arguments for pytest, for instance ARGS="tests/ragsite -x".
ARGS ?=

BIN := .venv/bin/python
CONSTRAINTS := docker/constraints.txt
PIP := $(BIN) -m pip --disable-pip-version-check
INDEX = $(if $(TORCH_INDEX),--extra-index-url "$(TORCH_INDEX)")
export PIP_ROOT_USER_ACTION := ignore

# `make check` reads settings as production would; none of these values is a secret.
PROD_SETTINGS = RAGSITE_ENVIRONMENT=prod RAGSITE_ALLOWED_HOSTS=ragsite.example \
	RAGSITE_SECRET_KEY=check-only-check-only-CHECK-ONLY-0123456789-abcdefghijklmnopqrstuvwxyz \
	DATABASE_URL=postgresql://owner:check@db.example/ragsite REDIS_URL=redis://cache.example:6379/0 \
	RAGSITE_APP_DATABASE_URL=postgresql://app:check@db.example/ragsite \
	RAGSITE_PLATFORM_DATABASE_URL=postgresql://platform:check@db.example/ragsite

# What is installed, by content: a copied checkout has new times but the same needs.
WANTED = $$(cat pyproject.toml $(CONSTRAINTS) | cksum)

.PHONY: help run test test-long check tour format constraints python app dev

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | while IFS='|' read -r name words; do \
		printf '%-20s %s\n' "$$name" "$$words"; done
	@echo 'Variables: PORT (8000), RAGSITE_DATA (.data), PYTHON, TORCH_INDEX, ARGS (for pytest).'

run: app ## everything in the foreground: servers, migrations, demo data, web, worker, beat
	@exec $(BIN) manage.py up --follow-parent

test: dev ## the whole suite on throw-away servers of its own
	@$(BIN) -m pytest -n 2 --dist loadfile $(ARGS)

test-long: dev ## the tests that take minutes
	@$(BIN) -m pytest -m long $(ARGS)

check: dev ## ruff, mypy, import-linter, missing migrations, deploy check
	$(BIN) -m ruff check .
	$(BIN) -m ruff format --check .
	$(BIN) -m mypy
	.venv/bin/lint-imports
	@# It looks at the database's history too, which here is nobody's business.
	$(BIN) -W "ignore:Got an error checking:RuntimeWarning" manage.py makemigrations --check --dry-run
	@echo "manage.py check --deploy, as production"
	@$(PROD_SETTINGS) $(BIN) manage.py check --deploy --fail-level WARNING

tour: dev ## the pictures of the README, taken from the real pages in Chromium
	@$(BIN) -m tests.browser.tour

format: dev ## ruff's formatter and its safe fixes
	$(BIN) -m ruff check --fix .
	$(BIN) -m ruff format .

constraints: python ## the newest versions that go together, into docker/constraints.txt
	@report=$$(mktemp) && trap 'rm -f "$$report"' EXIT && \
	$(PIP) install --quiet --dry-run --ignore-installed --report "$$report" $(INDEX) --group app --group dev && \
	$(BIN) -c "$$WRITE_CONSTRAINTS" "$$report" $(CONSTRAINTS)

# Local labels (+cpu) go, so that one file serves every build of torch.
define WRITE_CONSTRAINTS
import json, sys
report, target = sys.argv[1:]
with open(report) as file:
    found = [entry["metadata"] for entry in json.load(file)["install"]]
lines = {f"{each['name'].lower()}=={each['version'].partition('+')[0]}" for each in found}
# redis asks for it on the first releases of Python 3.11 only, which the resolving Python may not be.
lines.add('async-timeout==5.0.1; python_full_version < "3.11.3"')
with open(target, "w") as file:
    file.write("# Written by `make constraints`.\n" + "\n".join(sorted(lines)) + "\n")
print(f"{len(lines)} versions written to {target}.")
endef
export WRITE_CONSTRAINTS

app: python
	@$(call install,app)

dev: python
	@$(call install,dev)

define install
	if [ "$$(cat .venv/$(1).installed 2>/dev/null)" = "$(WANTED)" ]; then exit 0; fi; \
	echo "Installing what pyproject.toml asks for (group $(1)), at the versions of $(CONSTRAINTS) ..."; \
	if ! $(PIP) install $(INDEX) -c $(CONSTRAINTS) --group $(1); then \
		echo 'The installation failed, see above: mend that (network, disk, TORCH_INDEX), then run make again.' >&2; \
		exit 1; fi; \
	echo "$(WANTED)" > .venv/$(1).installed; \
	if [ $(1) = dev ]; then echo "$(WANTED)" > .venv/app.installed; fi
endef

# Makes .venv when it is missing or its Python is gone (an upgraded system), and brings its pip to dependency groups.
python:
	@if ! $(BIN) -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
		for each in $(if $(PYTHON),"$(PYTHON)",python3 python3.14 python3.13 python3.12 python3.11); do \
			version=$$("$$each" -c 'import platform; print(platform.python_version())' 2>/dev/null || echo missing); \
			seen="$$seen, $$each is $$version"; \
			if "$$each" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
				found=$$each; break; fi; \
		done; \
		if [ -z "$$found" ]; then \
			echo "ragsite needs Python 3.11 or newer ($${seen#, }): name one with PYTHON=/path/to/python3 make run." >&2; \
			exit 1; fi; \
		echo "Making .venv with Python $$version ..."; \
		rm -rf .venv; \
		if ! "$$found" -m venv .venv; then \
			echo 'Python cannot make .venv, see above: install its venv module (on Debian: apt install python3-venv).' >&2; \
			rm -rf .venv; exit 1; fi; \
	fi; \
	if ! $(BIN) -c 'import sys, pip; sys.exit(tuple(map(int, pip.__version__.split(".")[:2])) < (25, 1))'; then \
		if ! $(PIP) install --quiet --upgrade 'pip>=25.1'; then \
			echo 'pip cannot be upgraded, see above: mend that (network, disk), then run make again.' >&2; \
			exit 1; fi; \
	fi

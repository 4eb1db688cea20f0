# jobsvc. `make up` is all it takes; `make help` lists the rest.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.installed
BENCH_READY := bench/.venv/.installed
DOCS_READY := .venv-docs/.installed
# Postgres and Redis: those of DATABASE_URL and REDIS_URL (set, or in .env), else embedded ones.
SERVICES = urls="$$($(BIN)/python -m jobsvc.devservices start)" && eval "$$urls"
JOBSVC = $(BIN)/python -m jobsvc
# The version of htmx, the script library of the console. A test has the checksum of its file.
HTMX = 4.0.1
STATIC = jobsvc/ui/static

# Each topic of deploy/ has a target of its own, such as `make lint-nginx`.
LINT_DEPLOY = lint-systemd lint-kubernetes lint-prometheus lint-nginx lint-haproxy

.DEFAULT_GOAL := help
.PHONY: up run worker services services-down migrate demo example test test-infra properties chaos bench shots docs vendor lint lint-code lint-deploy $(LINT_DEPLOY) format clean help

up: $(READY)  ## run servers, migrations, API and worker; Ctrl-C stops all
	@exec $(JOBSVC) up --parent $$PPID

run: $(READY)  ## run the API on http://localhost:3000
	@$(SERVICES) && $(JOBSVC) migrate && exec $(JOBSVC) api

worker: $(READY)  ## run a worker
	@$(SERVICES) && $(JOBSVC) migrate && exec $(JOBSVC) worker

demo: $(READY)  ## post jobs with curl to the running service
	@exec $(JOBSVC) demo

example: $(READY)  ## run the example application in examples/shop
	@exec $(BIN)/python -m examples.shop

services: $(READY)  ## start the embedded Postgres and Valkey; print their URLs
	@$(BIN)/python -m jobsvc.devservices start

services-down: $(READY)  ## stop the embedded servers
	@$(BIN)/python -m jobsvc.devservices stop

migrate: $(READY)  ## create or upgrade the tables
	@$(SERVICES) && $(JOBSVC) migrate

test: $(READY)  ## run the tests, against real servers
	@PYTHONDONTWRITEBYTECODE= $(BIN)/pytest -n 3 --dist loadfile --max-worker-restart 0

test-infra: $(READY)  ## run the tests with PgBouncer, Sentinel, TLS from Debian
	@$(BIN)/pytest tests/infra

properties: $(READY)  ## run 10,000 random steps of the state machine; STEPS=n SEED=n
	@STEPS=$(or $(STEPS),10000) $(BIN)/pytest -q tests/properties $(if $(SEED),--hypothesis-seed $(SEED))

chaos: $(READY)  ## kill at random under load; JOBS=5000 RUNS=1 SEED=n
	@$(BIN)/python -m tests.chaos --jobs $(or $(JOBS),5000) --runs $(or $(RUNS),1) $(if $(SEED),--seed $(SEED))

bench: $(BENCH_READY)  ## compare with peers; ROUNDS=3 QUICK=1 ONLY=drain OUT=folder
	@bench/.venv/bin/python -m bench --rounds $(or $(ROUNDS),3) $(if $(QUICK),--quick) $(if $(ONLY),--only $(ONLY)) $(if $(OUT),--out $(OUT))

shots: $(READY)  ## take the screenshots of the console in docs/images/; needs Chromium
	@$(BIN)/python -m tests.shots

docs: $(DOCS_READY)  ## build the documents as a site in site/, check links
	@NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict

vendor:  ## renew htmx in jobsvc/ui/static/; needs npm
	@command -v npm >/dev/null || { echo "vendor: npm is missing" >&2; exit 1; }
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && \
		npm pack --silent --pack-destination "$$folder" htmx.org@$(HTMX) >/dev/null && \
		tar -xzf "$$folder"/htmx.org-$(HTMX).tgz -C "$$folder" && \
		install -m 644 "$$folder/package/dist/htmx.min.js" $(STATIC)/htmx.min.js && \
		install -m 644 "$$folder/package/LICENSE" $(STATIC)/htmx.LICENSE
	@sha256sum $(STATIC)/htmx.min.js

lint: lint-code lint-deploy  ## check style, types, import layers, and the files in deploy/

lint-code: $(READY)
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports

lint-deploy: $(LINT_DEPLOY)

# With systemd-analyze, kubectl, promtool (of Debian's prometheus), nginx and haproxy, where they are installed.
$(LINT_DEPLOY): lint-%: $(READY)
	@$(BIN)/python -m tests.deploy $*

format: $(READY)  ## format the code
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

clean:  ## stop the servers; delete environments, data and caches
	@test ! -e $(READY) || $(BIN)/python -m jobsvc.devservices stop
	rm -rf .venv .venv-docs site bench/.venv bench/node/node_modules .jobsvc .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .coverage htmlcov

help:  ## show this list
	@sed -n 's/^\([a-z-]*\):.*  ## \(.*\)/  make \1|\2/p' Makefile | column -t -s '|'

$(READY): requirements.txt requirements-dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "jobsvc needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	@echo "jobsvc: setting up .venv, once" >&2
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -r requirements-dev.txt >&2
	@touch $@

$(DOCS_READY): requirements-docs.txt
	@echo "jobsvc: setting up .venv-docs, once" >&2
	@test -x .venv-docs/bin/python || $(PYTHON) -m venv .venv-docs
	@.venv-docs/bin/python -m pip install -qq --disable-pip-version-check -r requirements-docs.txt >&2
	@touch $@

$(BENCH_READY): requirements.txt requirements-dev.txt bench/requirements.txt bench/node/package-lock.json
	@command -v npm >/dev/null || { echo "bench: the original's stack needs Node 20 or newer, and npm" >&2; exit 1; }
	@echo "jobsvc: setting up the peers, once" >&2
	@test -x bench/.venv/bin/python || $(PYTHON) -m venv bench/.venv
	@bench/.venv/bin/python -m pip install -qq --disable-pip-version-check -r bench/requirements.txt >&2
	@npm ci --prefix bench/node --silent --no-audit --no-fund >&2
	@touch $@

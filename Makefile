# jobsvc. `make up` is all it takes; `make help` lists the rest.
PYTHON ?= python3
BIN := .venv/bin
# Stamps of what is installed: what running needs, what tests and lint need, the peers of `make bench`, `make docs`.
READY := .venv/.requirements-embedded
DEV_READY := .venv/.requirements-dev
BENCH_READY := bench/.venv/.requirements
DOCS_READY := .venv-docs/.requirements-docs
INSTALL = PYTHON=$(PYTHON) .ci/packages install
# Postgres and Redis: those of DATABASE_URL and REDIS_URL (set, or in .env), else embedded ones.
SERVICES = urls="$$($(BIN)/python -m jobsvc.devservices start)" && eval "$$urls"
JOBSVC = $(BIN)/python -m jobsvc
# The version of htmx, the script library of the console. A test has the checksum of its file.
HTMX = 4.0.1
STATIC = jobsvc/ui/static

# Each topic of deploy/ has a target of its own, such as `make lint-nginx`.
LINT_DEPLOY = lint-systemd lint-kubernetes lint-prometheus lint-nginx lint-haproxy

.DEFAULT_GOAL := help
.PHONY: up run worker services services-down migrate demo example test test-slow test-infra test-image test-pythons properties chaos bench shots docs vendor lint lint-code lint-image lint-deploy $(LINT_DEPLOY) format lock clean help

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

test: $(DEV_READY)  ## run the tests but the slow ones, against real servers
	@PYTHONDONTWRITEBYTECODE= $(BIN)/pytest -m "not slow" -n 5 --dist loadfile --no-loadscope-reorder --max-worker-restart 0

test-slow: $(DEV_READY)  ## run the slow tests: RQ's own, faults with every kind of worker, ...
	@PYTHONDONTWRITEBYTECODE= $(BIN)/pytest -m slow -n 3 --dist loadfile --no-loadscope-reorder --max-worker-restart 0

test-infra: $(DEV_READY)  ## run the tests with PgBouncer, Sentinel, TLS from Debian
	@$(BIN)/pytest tests/infra

test-image: $(DEV_READY)  ## build the image with buildah and run it; needs root and Debian
	@$(BIN)/pytest tests/image

test-pythons: $(DEV_READY)  ## run a quick part of the tests on the other Pythons from 3.11 to 3.13
	@.ci/pythons

properties: $(DEV_READY)  ## run 10,000 random steps of the state machine; STEPS=n SEED=n
	@STEPS=$(or $(STEPS),10000) $(BIN)/pytest -q tests/properties $(if $(SEED),--hypothesis-seed $(SEED))

chaos: $(DEV_READY)  ## kill at random under load; JOBS=5000 RUNS=1 SEED=n
	@$(BIN)/python -m tests.chaos --jobs $(or $(JOBS),5000) --runs $(or $(RUNS),1) $(if $(SEED),--seed $(SEED))

bench: $(BENCH_READY)  ## compare with peers; ROUNDS=3 QUICK=1 ONLY=drain OUT=folder
	@bench/.venv/bin/python -m bench --rounds $(or $(ROUNDS),3) $(if $(QUICK),--quick) $(if $(ONLY),--only $(ONLY)) $(if $(OUT),--out $(OUT))

shots: $(DEV_READY)  ## take the screenshots of the console in docs/images/; needs Chromium
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

lint: lint-code lint-image lint-deploy  ## check style, types, import layers, the image, and the files in deploy/

lint-code: $(DEV_READY)
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports

lint-image: $(DEV_READY)
	$(BIN)/hadolint Dockerfile && $(BIN)/check-jsonschema --builtin-schema vendor.compose-spec compose.yaml

lint-deploy: $(LINT_DEPLOY)

# With systemd-analyze, kubectl, promtool (of Debian's prometheus), nginx and haproxy, where they are installed.
$(LINT_DEPLOY): lint-%: $(DEV_READY)
	@$(BIN)/python -m tests.deploy $*

format: $(DEV_READY)  ## format the code
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

clean:  ## stop the servers; delete environments, data and caches
	@test ! -e $(READY) || $(BIN)/python -m jobsvc.devservices stop
	rm -rf .venv .venv-* site bench/.venv bench/node/node_modules .jobsvc .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .coverage htmlcov

lock: $(READY)  ## write the pins of all requirements files; UPGRADE=1 renews them
	@.ci/packages lock $(if $(UPGRADE),--upgrade)

help:  ## show this list
	@sed -n 's/^\([a-z-]*\):.*  ## \(.*\)/  make \1|\2/p' Makefile | column -t -s '|'

$(READY): requirements-embedded.txt
	@$(INSTALL) .venv $< $@

$(DEV_READY): requirements-dev.txt
	@$(INSTALL) .venv $< $@ $(READY)

$(DOCS_READY): requirements-docs.txt
	@$(INSTALL) .venv-docs $< $@

$(BENCH_READY): bench/requirements.txt bench/node/package-lock.json
	@command -v npm >/dev/null || { echo "bench: the original's stack needs Node 20 or newer, and npm" >&2; exit 1; }
	@npm ci --prefix bench/node --silent --no-audit --no-fund >&2
	@$(INSTALL) bench/.venv $< $@

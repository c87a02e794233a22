# What CI runs is what you run. Each target installs what it lacks (Debian, root) and is quick when
# nothing is missing.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo test clients check chart e2e bench fuzz image image-check push example-image setup setup-build setup-test setup-clients setup-e2e setup-image setup-chart setup-check clean

DENY_VERSION := 0.20.2
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/svid-csi
DENY_ROOT := $(CACHE)/cargo-deny-$(DENY_VERSION)
DENY := $(DENY_ROOT)/bin/cargo-deny

# How long a fuzz target runs in `make test` and in `make fuzz`, in seconds each.
FUZZ_SECONDS ?= 5
FUZZ_LONG_SECONDS ?= 600

# Arguments for `cargo test`, for example ARGS='--test it sanity'.
ARGS ?=

help: ## show this
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## /{printf "  %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: setup-build ## pods, rotation, the Workload API, a crash and mutual TLS on this machine, without a cluster
	@hack/program
	@target/program/release/svid-csi demo $(ARGS)

test: setup-test setup-clients ## all tests, csi-sanity, SPIFFE clients and a brief fuzz run
	.ci/contained cargo test --workspace --locked $(ARGS)
	.ci/contained cargo test --quiet --locked --test clients
	.ci/contained cargo test --quiet --locked --test envoy
	.ci/contained fuzz/run $(FUZZ_SECONDS)

clients: setup-clients ## SPIFFE libraries of five languages, and Envoy, at the plugin's sockets; UPDATE=1 for docs/clients.md
	.ci/contained cargo test --quiet --locked --test clients
	.ci/contained cargo test --quiet --locked --test envoy

check: setup-check ## format, lints, dependency rules
	cargo fmt --all --check
	cargo fmt --manifest-path fuzz/Cargo.toml --check
	cargo fmt --manifest-path tests/clients/rust/Cargo.toml --check
	cargo clippy --workspace --all-targets --test e2e --test clients --test envoy --locked -- -D warnings
	@cargo fetch --locked
	$(DENY) --offline --locked check --hide-inclusion-graph bans licenses sources

chart: setup-chart ## the Helm chart and what is rendered from it; UPDATE=1 renders anew
	@hack/chart $(if $(UPDATE),update,check)

e2e: setup-e2e $(if $(KUBECONFIG),,image example-image) ## everything in a real cluster on this machine; SUITE=name for one, SIGNER=local
	@hack/tools/build helm-docs >/dev/null
	@cargo test --quiet --locked --test e2e

image: setup-image ## the driver's image and its SBOM, in target/image
	@hack/image

image-check: ## build the image twice, compare, look into it, push it to a registry on loopback
	@.ci/setup image-check
	@hack/image-check

push: setup-image ## push the image; IMAGE=registry/name:tag, ARGS for buildah push
	@$(if $(IMAGE),,$(error IMAGE=registry/name:tag is needed))hack/image
	@hack/image-push $(IMAGE) $(ARGS)

example-image: setup-image ## the image that deploy/examples run, in target/image
	@hack/example-image

bench: setup-build setup-e2e ## measure; prints a table and writes bench-results/
	.ci/contained cargo bench --locked --bench volumes -- $(ARGS)
	.ci/contained cargo bench --locked --bench workload -- $(ARGS)
	.ci/contained cargo bench --locked --bench approver
	.ci/contained cargo bench --locked --bench issuer -- $(ARGS)
	.ci/contained cargo bench --locked --bench scale -- $(ARGS)
	cargo bench --locked --bench issuance -- $(ARGS)
	cargo bench --locked --bench authority

fuzz: setup-test ## fuzz for long: FUZZ_LONG_SECONDS each, TARGETS to choose
	fuzz/run $(FUZZ_LONG_SECONDS) $(TARGETS)

clean: ## remove everything that was built
	cargo clean
	rm -rf fuzz/target fuzz/corpus fuzz/artifacts bench-results

setup: setup-test setup-check ## install whatever is missing

setup-build:
	@.ci/setup build

setup-test:
	@.ci/setup test

setup-clients:
	@.ci/setup clients

setup-e2e:
	@.ci/setup e2e

setup-image:
	@.ci/setup image

setup-chart:
	@.ci/setup chart

setup-check: setup-build $(DENY)

$(DENY):
	cargo install --quiet --locked --version $(DENY_VERSION) --root $(DENY_ROOT) cargo-deny

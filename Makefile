# Every target does its own set-up, system packages and the local API server's binaries included.

CARGO ?= cargo

.DEFAULT_GOAL := help
.PHONY: help setup setup-e2e setup-image e2e-image image demo cluster test e2e unit histories lint crds chart bench-recovery bench-presence bench-auction bench-failover clean

help: ## Show the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-16s %s\n", $$1, $$2}'

setup: ## Install system packages and build the local API server once (about five minutes the first time)
	@hack/setup.sh

demo: setup ## Kill a Cell and see its work run elsewhere about five seconds later
	@$(CARGO) build --quiet --bin diego --example demo
	@target/debug/examples/demo

cluster: setup ## Leave the same installation running, for your own kubectl
	@$(CARGO) build --quiet --bin diego --example demo
	@target/debug/examples/demo --stay

test: e2e-image lint ## Run all checks and tests, as root
	$(CARGO) test --workspace

e2e: e2e-image ## Run the end-to-end tests on real kubelets, as root (PROFILE=dev: with an image that is built faster)
	$(CARGO) test --test e2e

image: setup-image ## Build the image with docker, podman or buildah
	@hack/image.sh

setup-e2e:
	@hack/setup.sh e2e

setup-image:
	@hack/setup.sh image

# Without the commit in it, so that a commit alone builds nothing anew.
e2e-image: setup-e2e
	@BUILDER=buildah DIEGO_REVISION=dev hack/image.sh

unit: ## Run the tests that need no server
	$(CARGO) test --lib --test rules

histories: ## Play 100,000 random histories of Cells that join, die and return (about a minute once built)
	HISTORIES=100000 $(CARGO) test --release --test histories -- --nocapture

lint: setup ## Check format, lints and documentation
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --quiet -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --quiet

crds: ## Generate the CRDs from the Rust types
	$(CARGO) run --quiet --bin diego -- crds --output crds
	@hack/chart.sh crds

chart: setup-e2e ## Generate the chart's CRDs and README, and run all its checks
	@hack/chart.sh
	$(CARGO) test --test chart

bench-recovery: setup ## Time 30 recoveries of a Cell with 50 instances
	@$(CARGO) build --release --quiet --bin diego
	@$(CARGO) bench --quiet --bench recovery

bench-presence: setup ## Time and weigh the presence of 100 to 1,000 Cells in etcd and in the API server (three minutes once built)
	@$(CARGO) bench --quiet --bench presence

bench-auction: setup ## Time the auction of 10,000 placements on 1,000 Cells
	@$(CARGO) bench --quiet --bench auction

bench-failover: e2e-image ## Kill nodes: LRPs beside a Deployment, with the chart's taint and without (about 10 minutes, as root)
	@$(CARGO) bench --quiet --bench failover

clean: ## Remove what was built
	$(CARGO) clean
	rm -rf .tools

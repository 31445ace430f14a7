# Every target does its own set-up, system packages and the local API server's binaries included.

CARGO ?= cargo

.DEFAULT_GOAL := help
.PHONY: help setup setup-e2e setup-image e2e-image image demo cluster test faults e2e unit histories model shuffle fuzz lint advisories sbom crds chart bench bench-full bench-summary bench-recovery bench-presence bench-auction bench-failover bench-false-alarms clean

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

# Most tests wait more than they compute, so more of them run at once than there are cores.
TEST_THREADS ?= 4

test: e2e-image lint ## Run all checks and tests, as root
	$(CARGO) test --workspace --no-fail-fast -- --test-threads=$(TEST_THREADS)

faults: setup ## Run the whole fault matrix and write what it measured into docs/failures.md (FAULTS=15,16: these rows), as root
	FAULTS=$${FAULTS:-all} $(CARGO) test --test faults

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

shuffle: setup ## Shuffle what real controllers ask and are told, for 200 seeds (about 20 minutes; SHUFFLE_FIRST, SHUFFLE_SEED=17 plays one again)
	SHUFFLE_SEEDS=$${SHUFFLE_SEEDS:-200} $(CARGO) test --release --test shuffle -- --nocapture

fuzz: ## Bend every input from outside 100,000 times (about ten minutes once built)
	FUZZ_CASES=100000 $(CARGO) test --release --test rules -- fuzz

model: ## Search the model of the protocol for counterexamples, further than the tests do (MODEL_STEPS)
	MODEL_STEPS=$${MODEL_STEPS:-5000000} $(CARGO) test --release --test model -- --include-ignored --nocapture --test-threads 1

lint: setup ## Check format, lints, documentation, and the licences and sources of all dependencies
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --quiet -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --quiet
	@hack/deny.sh

advisories: setup ## Look all dependencies up in RustSec's database of weaknesses (needs github.com)
	@hack/deny.sh advisories

sbom: setup ## Write the bill of materials as CycloneDX JSON: target/diego.cdx.json
	@mkdir -p target
	@hack/sbom.py >target/diego.cdx.json
	@echo target/diego.cdx.json

crds: ## Generate the CRDs from the Rust types
	$(CARGO) run --quiet --bin diego -- crds --output crds
	@hack/chart.sh crds

chart: setup-e2e ## Generate the chart's CRDs and README, and run all its checks
	@hack/chart.sh
	$(CARGO) test --test chart

bench: setup ## Lose Cells of a fleet with an API server full of instances (under five minutes; SIZE=full: 1,000 Cells, 250,000 instances)
	@$(CARGO) build --release --quiet --bin diego
	@$(CARGO) bench --quiet --bench scale

# Each ends within a quarter of an hour, alone on the machine.
BENCH_PARTS = \
	ONLY=idle,wrong,cell,CELLS=100 ONLY=idle,wrong,cell,CELLS=333 ONLY=idle,wrong,cell,CELLS=1000 \
	ONLY=tenth,CELLS=100 ONLY=tenth,CELLS=333 ONLY=tenth,CELLS=1000 \
	ONLY=zone,CELLS=100 ONLY=zone,CELLS=333 ONLY=zone,CELLS=1000 \
	ONLY=leader,CELLS=100 ONLY=leader,CELLS=333 ONLY=leader,CELLS=1000 \
	ONLY=presence,CELLS=1000 ONLY=presence,CELLS=2000 ONLY=presence,CELLS=5000 \
	ONLY=presence,STORE=kubernetes,CELLS=1000 ONLY=presence,STORE=kubernetes,CELLS=2000 \
	ONLY=presence,STORE=kubernetes,CELLS=5000 \
	ONLY=sharp,TTL=1 ONLY=sharp,TTL=0.5 ONLY=proof

bench-full: setup ## All parts of SIZE=full one after the other (hours), into docs/benchmarks, and their summary
	@$(CARGO) build --release --quiet --bin diego
	@ulimit -n 100000; for part in $(BENCH_PARTS); do \
		part=$$(echo "$$part" | sed 's/,\([A-Z]*=\)/ \1/g'); echo "== $$part"; \
		env SIZE=full BENCH_WRITE=1 $$part $(CARGO) bench --quiet --bench scale || echo "failed: $$part"; done
	@$(MAKE) --no-print-directory bench-summary

bench-summary: ## The figures of all parts in docs/benchmarks, by size, beside their aims
	@SUMMARY=1 $(CARGO) bench --quiet --bench scale

bench-recovery: setup ## Time 30 recoveries of a Cell with 50 instances
	@$(CARGO) build --release --quiet --bin diego
	@$(CARGO) bench --quiet --bench recovery

bench-presence: setup ## Time and weigh the presence of 100 to 1,000 Cells in etcd and in the API server (three minutes once built)
	@$(CARGO) bench --quiet --bench presence

bench-auction: setup ## Time the auction of 10,000 placements on 1,000 Cells
	@$(CARGO) bench --quiet --bench auction

bench-failover: e2e-image ## Kill nodes: LRPs beside a Deployment, with the chart's taint and without (about 10 minutes, as root)
	@$(CARGO) bench --quiet --bench failover

bench-false-alarms: setup ## Run 200 Cells on full cores for 10 minutes: is a presence lost, an instance moved? (CELLS, MINUTES, BUSY, STORE, TTL)
	@$(CARGO) build --release --quiet --bin diego
	@$(CARGO) bench --quiet --bench false_alarms

clean: ## Remove what was built
	$(CARGO) clean
	rm -rf .tools

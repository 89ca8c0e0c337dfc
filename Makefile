# Everything below starts what it needs (PostgreSQL, RabbitMQ, Redis: private instances under .dev/,
# see scripts/services) and stops it again. DATABASE_URL, AMQP_URL and REDIS_URL use others instead.

CARGO ?= cargo
WITH_SERVICES := scripts/services run
# The size of the disks that `chaos` fills, in MiB; none: it uses the machine's, and fills none.
DISK_MIB ?= 512
# Of cargo: what is not a test is built as it is used. `dev` is built sooner, and slow.
export PROFILE ?= release
# Most of a flow is waiting: for time-outs, leases, what is to come back. At most 8, since each has some 25 sessions
# of the 300 that PostgreSQL allows here.
export RUST_TEST_THREADS ?= $(shell n=$$((3 * $$(getconf _NPROCESSORS_ONLN))); echo $$((n < 8 ? n : 8)))

.PHONY: help demo run bench bench-growth chaos soak fuzz mutations test test-rabbitmq4 upgrade-test check services services-stop sqlx-prepare sqlx-check readme-test examples-test ops-test services-test cluster-test containers-test

help: ## Show this list
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

demo: ## Two sales: 20,000 users go for 1,000 coupons, then for 5,000 consoles; a tenth is returned; and the audit
	$(CARGO) build --locked --profile $(PROFILE) --workspace
	$(WITH_SERVICES) $(CARGO) run --locked --quiet --profile $(PROFILE) --bin firstcome-demo -- demo

run: ## The system in the foreground, with sample data, until Ctrl-C
	$(CARGO) build --locked --profile $(PROFILE) --workspace
	$(WITH_SERVICES) $(CARGO) run --locked --quiet --profile $(PROFILE) --bin firstcome-demo -- run

bench: ## Side by side with other designs, about 40 minutes; QUICK=1: under 4, to see that it works
	$(CARGO) build --locked --profile $(PROFILE) --workspace
	$(WITH_SERVICES) $(CARGO) run --locked --quiet --profile $(PROFILE) --bin firstcome-bench -- compare $(if $(QUICK),--quick)

bench-growth: ## The same with up to 50 million rows: nearly an hour, 40 GB of disk; QUICK=1: with few, to see that it works
	$(CARGO) build --locked --profile $(PROFILE) --workspace
	$(WITH_SERVICES) $(CARGO) run --locked --quiet --profile $(PROFILE) --bin firstcome-bench -- compare --only growth $(if $(QUICK),--quick)

# Built as the tests are: with the places in the code at which a program can be told to die. The tool first: in a
# namespace, where who is not root gets his small disks, nothing can be installed.
chaos: export FIRSTCOME_DISK_MIB = $(if $(CLUSTER),,$(DISK_MIB))
chaos: ## Sales while faults strike, and a check of all that was told: CYCLES=20 of them, SEED=1, MINUTES= at most; CLUSTER=1; ONLY=disk
	$(CARGO) build --locked --workspace
	scripts/services tool libfaketime >/dev/null
	env -u DATABASE_URL -u AMQP_URL -u REDIS_URL FIRSTCOME_DEV_DIR=target/chaos/services \
	    $(if $(CLUSTER),FIRSTCOME_CLUSTER_DIR=target/chaos/cluster scripts/cluster run,$(WITH_SERVICES)) \
	    $(CARGO) run --locked --quiet --bin firstcome-chaos

# So fast that what an API remembers is full (50,000 outcomes) before its memory is looked at.
soak: export RATE ?= 300
soak: ## A sale of MINUTES=30 without a fault: whether memory, descriptors, sessions or dead rows grow
	$(CARGO) build --locked --profile $(PROFILE) --workspace
	env -u DATABASE_URL -u AMQP_URL -u REDIS_URL SOAK=true FIRSTCOME_DEV_DIR=target/chaos/services $(WITH_SERVICES) \
	    $(CARGO) run --locked --quiet --profile $(PROFILE) --bin firstcome-chaos -- --out target/chaos/soak

fuzz: ## Fuzz targets (TARGET_SECONDS=60 each), malformed messages, made-up requests: REQUESTS=50000, SEED=1, MINUTES= at most
	scripts/fuzz-targets
	$(CARGO) build --locked --profile $(PROFILE) --workspace
	scripts/fuzz

mutations: ## Plant bugs, one at a time, and see that the tests catch each: half an hour, and what they said in target/mutations
	scripts/mutations

test: ## All tests, on real services
	$(CARGO) build --locked --workspace
	$(WITH_SERVICES) $(CARGO) test --locked --workspace

test-rabbitmq4: ## All tests, on RabbitMQ 4 (DEBIAN_SUITE=forky: a newer one), which it downloads
	$(CARGO) build --locked --workspace
	scripts/rabbitmq4 run $(CARGO) test --locked --workspace

upgrade-test: ## The version before and this one, side by side through a sale
	$(CARGO) build --locked --workspace
	$(WITH_SERVICES) scripts/upgrade-test

# What the fuzz targets do is built with the tests (tests/seeds.rs); that their lock file follows costs a second.
check: ## Format, lints, docs
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --workspace --no-deps
	$(CARGO) update --quiet --workspace --locked --manifest-path fuzz/Cargo.toml

services: ## Start the services and keep them
	scripts/services start
	@echo '# eval "$$(scripts/services env)" puts their addresses into your shell' >&2

services-stop: ## Stop the services
	scripts/services stop

services-test: ## Test how the services are started and stopped
	scripts/services.test

cluster-test: ## Test how the cluster is started, and what it survives
	scripts/cluster.test

containers-test: ## Check what the image is built from
	scripts/containers.test

sqlx-prepare: ## Renew .sqlx after a change of a query or a migration
	$(WITH_SERVICES) scripts/sqlx-prepare

sqlx-check: ## Fail if .sqlx is out of date
	$(WITH_SERVICES) scripts/sqlx-prepare --check

readme-test: ## Run the commands in the documents
	scripts/readme.test

examples-test: ## Run the examples, the page in a browser too
	$(CARGO) build --locked --profile $(PROFILE) --workspace
	FIRSTCOME_BIN=target/$(PROFILE:dev=debug) scripts/examples.test

ops-test: ## Run the operators' page in a browser, through a sale; pictures of it in target/ops
	$(CARGO) build --locked --profile $(PROFILE) --workspace
	FIRSTCOME_BIN=target/$(PROFILE:dev=debug) scripts/ops.test

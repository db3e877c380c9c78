# What a person or a CI types. `make` alone lists it. The work is in cargo and in the scripts named here.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# .ci/setup puts into the user's cache folder what the machine lacks, among it the CMake that LightGBM wants.
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/foretell
export PATH := $(CACHE)/tools/bin:$(PATH):$(HOME)/.cargo/bin

# Every target builds the same profile (dev, with optimised dependencies), so that the C++ parts are built once.
CARGO := cargo
COMPOSE := docker compose -f deploy/compose.yaml
SCRIPTS := .ci/setup .ci/run .ci/mutants $(wildcard redpanda/*.sh tests/broker/*.sh)
# Every test target that needs no broker, of all crates.
TEST_FILES := $(wildcard tests/*.rs tests/*/main.rs crates/*/tests/*.rs crates/*/tests/*/main.rs)
TESTS := $(sort $(filter-out broker,$(basename $(notdir $(TEST_FILES:/main.rs=.rs)))))
# Runs each test in a process of its own, and kills and names one that hangs: .config/nextest.toml.
NEXTEST := $(CARGO) nextest run --locked --workspace
PLAY := $(CACHE)/play

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: demo
demo: ## watch it learn: everything in one process, no broker (ARGS=--json for a summary to read by a program)
	@.ci/setup build
	@$(CARGO) run --locked -- demo --config deploy/adult/foretell.toml $(ARGS)

.PHONY: build
build: ## the binary: target/debug/foretell, with optimised dependencies
	@.ci/setup build
	@$(CARGO) build --locked

.PHONY: test
test: ## every test: without a broker, then with a real Kafka and registry (or yours: FORETELL_TEST_BROKERS, FORETELL_TEST_REGISTRY)
	@.ci/setup build broker check test
	$(MAKE) --no-print-directory test-fast
	$(CARGO) test --locked --workspace --doc
	$(NEXTEST) --no-run --test broker
	tests/broker/with-broker.sh $(NEXTEST) --test broker -E 'not test(whatever_dies)'
	NODES=3 tests/broker/with-broker.sh $(NEXTEST) --test broker whatever_dies

.PHONY: test-fast
test-fast: ## the tests that need no broker (a minute, once all is built); one that hangs is killed and named
	@.ci/setup build check test
	$(NEXTEST) --lib --bins $(TESTS:%=--test %)

SECONDS := 0
SEED := 1
.PHONY: chaos
chaos: ## three instances on three brokers that die, stop and come back, against a model (SECONDS=300 SEED=1; by itself one fault of each kind)
	@.ci/setup build broker
	$(CARGO) test --locked --no-run --test broker
	NODES=3 FORETELL_CHAOS_SECONDS=$(SECONDS) FORETELL_CHAOS_SEED=$(SEED) \
		tests/broker/with-broker.sh $(CARGO) test --locked --test broker whatever_dies

MODE := memory
.PHONY: soak
soak: ## one instance under load for long: memory and stores must not grow (SECONDS=600, MODE=memory or disk)
	@.ci/setup build broker
	$(CARGO) test --locked --no-run --test broker
	FORETELL_SOAK_SECONDS=$(or $(filter-out 0,$(SECONDS)),600) FORETELL_SOAK_MODE=$(MODE) \
		tests/broker/with-broker.sh $(CARGO) test --locked --test broker a_long_run

SEEDS := 200
FIRST := 1
.PHONY: simulation
simulation: ## instances that crash, stall and are fenced on a simulated cluster, and the bugs that it must find (SEEDS=200 FIRST=1)
	@.ci/setup build
	FORETELL_SIMULATION_SEEDS=$(SEEDS) FORETELL_SIMULATION_FIRST=$(FIRST) $(CARGO) test --locked --package foretell-streams --lib simulation -- --nocapture

.PHONY: fuzz
fuzz: ## arbitrary bytes under arbitrary writers' schemas, decoded on every way there is (SECONDS=60 FIRST=1); `make test` has 60,000 cases of it
	@.ci/setup build
	FORETELL_FUZZ_SECONDS=$(or $(filter-out 0,$(SECONDS)),60) FORETELL_FUZZ_FIRST=$(FIRST) $(CARGO) test --locked --package foretell-avro --lib fuzz

SHARD := 0/28
MINUTES := 30
.PHONY: mutants
mutants: ## small bugs planted one at a time, and whether the library's and the flow tests notice (SHARD=0/28 to 27/28, MINUTES=30, ARGS="--re crates/foretell-ml/src/scorer.rs")
	@.ci/setup build mutants
	.ci/mutants $(SHARD) $(MINUTES) $(ARGS)

.PHONY: check
check: ## the gate for style, lints, docs, links, dependencies and deployment; writes nothing
	@.ci/setup build check
	$(CARGO) fmt --all --check
	typos
	rumdl check --no-cache --quiet .
	$(MAKE) --no-print-directory dependency-check
	$(MAKE) --no-print-directory deploy-check
	$(MAKE) --no-print-directory schema-check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --locked --workspace --no-deps --document-private-items

.PHONY: docs
docs: ## write what is generated in docs/ and redpanda/topics.tsv: keys, metrics, routes and topics (`make test` fails where it is stale)
	@.ci/setup build
	FORETELL_WRITE_DOCS=1 $(CARGO) test --locked -p foretell --lib reference::

.PHONY: schema-check
schema-check: ## every version of every schema: released files unchanged, compatible by their level, described (for a pre-commit hook too)
	@.ci/setup build
	$(CARGO) run --locked --quiet -- schema check schemas

.PHONY: dependency-check
dependency-check: ## licences, sources, banned and doubled crates (deny.toml), and dependencies that nothing uses
	@.ci/setup check
	cargo-deny --locked --workspace check bans licenses sources
	cargo-machete

.PHONY: advisories
advisories: ## published faults of the crates in Cargo.lock; asks a database on the internet
	@.ci/setup check
	cargo-deny --locked --workspace check advisories

.PHONY: deploy-check
deploy-check: ## the Dockerfile, the compose file, Prometheus' rules with their tests, workflows, and the scripts
	@.ci/setup check
	check-jsonschema --builtin-schema vendor.compose-spec deploy/compose.yaml
	hadolint deploy/Dockerfile
	promtool check config deploy/prometheus/prometheus.yml
	promtool test rules deploy/prometheus/alerts.test.yml
	actionlint
	for script in $(SCRIPTS); do bash -n "$$script"; done
	shellcheck --external-sources $(SCRIPTS)
	RPK='echo rpk' redpanda/topics.sh >/dev/null

.PHONY: bench-scorer
bench-scorer: ## our evaluator of LightGBM's trees against LightGBM itself; ratios in target/bench/scorer.json
	@.ci/setup build
	$(CARGO) bench --locked --bench scorer

.PHONY: bench-avro
bench-avro: ## decoding events of our schema and of another against a decoder written by hand; ratios in target/bench/avro.json
	@.ci/setup build
	$(CARGO) bench --locked --bench avro

.PHONY: bench-http
bench-http: ## a thousand requests that wait for predictions at once, against one at a time, embedded and on a real Kafka; target/bench/http.json
	@.ci/setup build broker
	$(CARGO) bench --locked --bench http
	tests/broker/with-broker.sh $(CARGO) bench --locked --bench http

.PHONY: bench-streams
bench-streams: ## topologies on a real Kafka against bare librdkafka, 5 minutes; ratios in target/bench/streams.json
	@.ci/setup build broker
	$(CARGO) bench --locked --no-run --bench streams
	tests/broker/with-broker.sh $(CARGO) bench --locked --bench streams

.PHONY: fix
fix: ## repair what a tool can: lints, spelling, format
	@.ci/setup build check
	$(CARGO) clippy --locked --workspace --all-targets --fix --allow-dirty --allow-staged
	typos --write-changes
	$(CARGO) fmt --all

.PHONY: up
up: docker ## Redpanda, its Console, Foretell and Prometheus in containers
	$(COMPOSE) up --build --detach
	@echo 'Foretell http://localhost:8000   Console http://localhost:8080   Prometheus http://localhost:9090   Kafka localhost:19092'

.PHONY: down
down: docker ## stop them; the data stay (ARGS=--volumes removes them)
	$(COMPOSE) down $(ARGS)

.PHONY: logs
logs: docker ## follow their logs (ARGS=foretell for one of them)
	$(COMPOSE) logs --follow --tail 100 $(ARGS)

.PHONY: docker
docker:
	@docker compose version >/dev/null 2>&1 || { echo 'This needs Docker and its compose plugin. Without: make broker-up, or make demo.' >&2; exit 1; }

.PHONY: broker-up
broker-up: ## a real Kafka and registry without Docker, to play with; prints what to export
	@.ci/setup broker
	@tests/broker/registry-up.sh $(PLAY)/registry | sed 's/^REGISTRY_URL=/export FORETELL_SCHEMA_REGISTRY_URL=/'
	@tests/broker/kafka-up.sh $(PLAY)/kafka | sed 's/^KAFKA_BOOTSTRAP=/export FORETELL_BROKER_BOOTSTRAP_SERVERS=/'

.PHONY: broker-down
broker-down: ## stop them and remove their data
	@tests/broker/registry-down.sh $(PLAY)/registry
	@tests/broker/kafka-down.sh $(PLAY)/kafka

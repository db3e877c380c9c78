# Entry points for developers and CI: `make` lists them. Cargo and the scripts named here do the work.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# .ci/setup installs missing tools into the user's cache folder, among them the CMake that LightGBM needs.
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/foretell
export PATH := $(CACHE)/tools/bin:$(PATH):$(HOME)/.cargo/bin

# Every target builds the same profile (dev, with optimised dependencies), so that C++ dependencies are built once.
CARGO := cargo
COMPOSE := docker compose -f deploy/compose.yaml
SCRIPTS := .ci/setup .ci/run .ci/mutants $(wildcard redpanda/*.sh tests/broker/*.sh deploy/helm/ci/*.sh)
# The test targets of all crates that need no broker.
TEST_FILES := $(wildcard tests/*.rs tests/*/main.rs crates/*/tests/*.rs crates/*/tests/*/main.rs)
TESTS := $(sort $(filter-out broker,$(basename $(notdir $(TEST_FILES:/main.rs=.rs)))))
# Runs each test in its own process, and kills and names a test that hangs: see .config/nextest.toml.
NEXTEST := $(CARGO) nextest run --locked --workspace
PLAY := $(CACHE)/play

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: demo
demo: ## run the whole loop in one process, without a broker, with one batch of wrong labels (ARGS=--json prints a JSON summary)
	@.ci/setup build
	@$(CARGO) run --locked -- demo --config deploy/adult/foretell.toml --poison $(ARGS)

.PHONY: replay
replay: ## replay the table of the example with three other settings; tables, and charts in target/replay.html (ARGS=--json)
	@.ci/setup build
	@mkdir -p target
	@$(CARGO) run --locked -- replay --config deploy/adult/foretell.toml --variants deploy/adult/variants.toml --table \
		--span 28d --set tuning.trials=5 --set learning.tuning.trials=0 --html target/replay.html $(ARGS)

AGRAWAL = $(CARGO) run --locked --quiet -- generate agrawal --noise 0.1 --force
WIDTH := 0
.PHONY: drift
drift: ## generate a stream of applications whose truth changes in the middle, run the demo on it, and replay it with other settings; charts in target/drift.html (WIDTH=1000: gradual; ARGS=--json)
	@.ci/setup build
	@$(AGRAWAL) --rows 4000 --seed 1 --output deploy/drift/initial.csv
	@$(AGRAWAL) --rows 12000 --seed 2 --to 2 --change-at 50% --width $(WIDTH) --from 2026-01-01T00:00:00Z --every 1m --output deploy/drift/stream.csv
	@$(AGRAWAL) --rows 2000 --seed 3 --function 2 --output deploy/drift/oracle.csv
	@$(CARGO) run --locked -- demo --config deploy/drift/foretell.toml
	@$(CARGO) run --locked -- replay --config deploy/drift/foretell.toml --variants deploy/drift/variants.toml --table --html target/drift.html $(ARGS)

SHOWN = $(CARGO) run --locked --quiet -- generate recommendations --force
.PHONY: recommendations
recommendations: ## generate items that a shop shows to its visitors, and run the demo on them: four labels, upgrades, metrics by class (ARGS=--json)
	@.ci/setup build
	@$(SHOWN) --rows 1000 --seed 1 --output deploy/recommendations/initial.csv
	@$(SHOWN) --rows 12000 --seed 2 --from 2026-01-01T00:00:00Z --every 6s --output deploy/recommendations/stream.csv
	@$(CARGO) run --locked -- demo --config deploy/recommendations/foretell.toml $(ARGS)

.PHONY: build
build: ## build target/debug/foretell, with optimised dependencies
	@.ci/setup build
	@$(CARGO) build --locked

.PHONY: test
test: ## run every test: without a broker, then on a real Kafka and registry (or on FORETELL_TEST_BROKERS, FORETELL_TEST_REGISTRY)
	@.ci/setup build broker browser check test
	$(MAKE) --no-print-directory test-fast
	$(CARGO) test --locked --workspace --doc
	$(NEXTEST) --no-run --test broker
	tests/broker/with-broker.sh $(NEXTEST) --test broker -E 'not test(under_chaos)'
	NODES=3 tests/broker/with-broker.sh $(NEXTEST) --test broker under_chaos
	$(MAKE) --no-print-directory test-browser

.PHONY: test-fast
test-fast: ## run the tests that need no broker (a minute once built)
	@.ci/setup build check test
	$(NEXTEST) --lib --bins $(TESTS:%=--test %)

# The folder of the built binary, also with CARGO_TARGET_DIR.
BROWSER = FORETELL_BROWSER_MODULES=$(CACHE)/browser FORETELL_BINARY=$(abspath $(or $(CARGO_TARGET_DIR),target)/debug/foretell)

.PHONY: test-browser
test-browser: ## drive the dashboard of a demo in a headless Chromium: numbers, swaps, commands, phone, keyboard, contrast
	@.ci/setup build browser
	$(CARGO) build --locked
	$(BROWSER) node --test tests/browser/

.PHONY: screenshots
screenshots: ## take the screenshots of docs/dashboard.md from a demo
	@.ci/setup build browser
	$(CARGO) build --locked
	$(BROWSER) node tests/browser/screenshots.mjs docs/images

SECONDS := 0
SEED := 1
.PHONY: chaos
chaos: ## kill, stop and restart three instances and three broker nodes, and compare with a model (SECONDS=300 SEED=1; by default one fault of each kind)
	@.ci/setup build broker
	$(CARGO) test --locked --no-run --test broker
	NODES=3 FORETELL_CHAOS_SECONDS=$(SECONDS) FORETELL_CHAOS_SEED=$(SEED) \
		tests/broker/with-broker.sh $(CARGO) test --locked --test broker under_chaos

MODE := memory
.PHONY: soak
soak: ## run one instance under load and check that memory and stores do not grow (SECONDS=600, MODE=memory or disk)
	@.ci/setup build broker
	$(CARGO) test --locked --no-run --test broker
	FORETELL_SOAK_SECONDS=$(or $(filter-out 0,$(SECONDS)),600) FORETELL_SOAK_MODE=$(MODE) \
		tests/broker/with-broker.sh $(CARGO) test --locked --test broker memory_and_stores_do_not_grow

SEEDS := 200
FIRST := 1
.PHONY: simulation
simulation: ## simulate instances that crash, stall and are fenced, and check that planted bugs are found (SEEDS=200 FIRST=1)
	@.ci/setup build
	FORETELL_SIMULATION_SEEDS=$(SEEDS) FORETELL_SIMULATION_FIRST=$(FIRST) $(CARGO) test --locked --package foretell-streams --lib simulation -- --nocapture

.PHONY: fuzz
fuzz: ## decode arbitrary bytes with arbitrary writer schemas through every decoder (SECONDS=60 FIRST=1; `make test` runs 60,000 cases)
	@.ci/setup build
	FORETELL_FUZZ_SECONDS=$(or $(filter-out 0,$(SECONDS)),60) FORETELL_FUZZ_FIRST=$(FIRST) $(CARGO) test --locked --package foretell-avro --lib fuzz

SHARD := 0/28
MINUTES := 30
.PHONY: mutants
mutants: ## run the library and flow tests on mutated code, and list the mutants that no test notices (SHARD=0/28 to 27/28, MINUTES=30, ARGS="--re crates/foretell-ml/src/scorer.rs")
	@.ci/setup build mutants
	.ci/mutants $(SHARD) $(MINUTES) $(ARGS)

.PHONY: check
check: ## check format, lints, spelling, documentation, links, dependencies, schemas and deployment files; writes nothing
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
docs: ## generate parts of docs/ and redpanda/topics.tsv: keys, metrics, routes and topics (`make test` fails if they are stale)
	@.ci/setup build
	FORETELL_WRITE_DOCS=1 $(CARGO) test --locked -p foretell --lib reference::

.PHONY: schema-check
schema-check: ## check every version of every schema: released files unchanged, compatible by their level, fields described
	@.ci/setup build
	$(CARGO) run --locked --quiet -- schema check schemas

.PHONY: dependency-check
dependency-check: ## check licences, sources, banned and duplicate crates (deny.toml), and find unused dependencies
	@.ci/setup check
	cargo-deny --locked --workspace check bans licenses sources
	cargo-machete

.PHONY: advisories
advisories: ## check Cargo.lock for crates with security advisories; downloads the advisory database
	@.ci/setup check
	cargo-deny --locked --workspace check advisories

.PHONY: deploy-check
deploy-check: ## check the Dockerfile, the compose file, Prometheus rules and their tests, dashboards, the Helm chart, workflows and scripts
	@.ci/setup check
	check-jsonschema --builtin-schema vendor.compose-spec deploy/compose.yaml
	hadolint deploy/Dockerfile
	promtool check config deploy/prometheus/prometheus.yml
	promtool test rules deploy/prometheus/alerts.test.yml
	deploy/prometheus/tested.py
	deploy/grafana/dashboards.py --check
	deploy/grafana/dashboards.py --queries | promtool check rules /dev/stdin
	python3 deploy/grafana/validate.py deploy/grafana/dashboards/*.json
	deploy/helm/ci/check.sh
	actionlint
	for script in $(SCRIPTS); do bash -n "$$script"; done
	shellcheck --external-sources $(SCRIPTS)
	RPK='echo rpk' redpanda/topics.sh >/dev/null

.PHONY: bench-scorer
bench-scorer: ## compare Foretell's scores and explanations of LightGBM trees with LightGBM's; ratios in target/bench/scorer.json
	@.ci/setup build
	$(CARGO) bench --locked --bench scorer

.PHONY: bench-learning
bench-learning: ## memory and time of a training of 10,000,000 examples, its time to Python's LightGBM, and scoring on a real Kafka while models are trained; 6 GB, 15 minutes; target/bench/learning*.json
	@.ci/setup build broker
	@python3 -m venv $(CACHE)/learning
	@$(CACHE)/learning/bin/python -m pip install --quiet --disable-pip-version-check lightgbm==4.6.0
	FORETELL_BENCH_PYTHON=$(CACHE)/learning/bin/python $(CARGO) bench --locked --bench learning
	$(CARGO) bench --locked --no-run --bench job
	tests/broker/with-broker.sh $(CARGO) bench --locked --bench job -- training

.PHONY: parity
parity: ## compare exported models with Python's LightGBM, and import a model of it; the largest differences in target/bench/parity.json
	@.ci/setup build
	@python3 -m venv $(CACHE)/learning
	@$(CACHE)/learning/bin/python -m pip install --quiet --disable-pip-version-check lightgbm==4.6.0
	FORETELL_BENCH_PYTHON=$(CACHE)/learning/bin/python $(CARGO) test --locked --bench parity

.PHONY: bench-tuning
bench-tuning: ## log loss and time of studies of 50 trials to those of Optuna, 5 seeds, two data sets; 30 minutes; target/bench/tuning.json
	@.ci/setup build
	@python3 -m venv $(CACHE)/tuning
	@$(CACHE)/tuning/bin/python -m pip install --quiet --disable-pip-version-check lightgbm==4.6.0 optuna==5.0.0
	FORETELL_BENCH_PYTHON=$(CACHE)/tuning/bin/python $(CARGO) bench --locked --bench tuning

.PHONY: bench-avro
bench-avro: ## compare decoding of events, with the reader schema and another, with a hand-written decoder; ratios in target/bench/avro.json
	@.ci/setup build
	$(CARGO) bench --locked --bench avro

.PHONY: bench-http
bench-http: ## compare a thousand concurrent waiting requests with sequential ones, embedded and on a real Kafka; target/bench/http.json
	@.ci/setup build broker
	$(CARGO) bench --locked --bench http
	tests/broker/with-broker.sh $(CARGO) bench --locked --bench http

.PHONY: bench-serving
bench-serving: ## measure scores over HTTP: one row at 2,000 requests/s, alone and while a model is trained, and batches; a minute on a quiet machine; target/bench/serving.json
	@.ci/setup build
	$(CARGO) bench --locked --bench serving

.PHONY: bench-job
bench-job: ## the whole job on a real Kafka against bare librdkafka, and by stage without a broker, 5 minutes; target/bench/job.json
	@.ci/setup build broker
	$(CARGO) bench --locked --no-run --bench job
	tests/broker/with-broker.sh $(CARGO) bench --locked --bench job

.PHONY: bench-growth
bench-growth: ## the job as it grows: partitions, threads, predictions that wait, respondents, disk, restore; 7 minutes; target/bench/growth.json
	@.ci/setup build broker
	$(CARGO) bench --locked --no-run --bench job
	tests/broker/with-broker.sh $(CARGO) bench --locked --bench job -- growth

.PHONY: bench-join
bench-join: ## what the outcome join, a rule and a pending action cost, with 1,000,000 of each; 3 GB, 3 minutes; target/bench/join.json
	@.ci/setup build
	$(CARGO) bench --locked --bench job -- join

.PHONY: bench-stores
bench-stores: ## measure memory, time and allocations of window stores in memory, with 1,000 and 1,000,000 entries
	@.ci/setup build
	$(CARGO) bench --locked --package foretell-streams --bench stores

.PHONY: bench-rules
bench-rules: ## measure conditions of rules, against 1 µs and the interpreter of the crate cel; target/bench/rules.json
	@.ci/setup build
	$(CARGO) bench --locked --package foretell-rules --bench conditions

.PHONY: bench-streams
bench-streams: ## compare topologies on a real Kafka with bare librdkafka, 5 minutes; ratios in target/bench/streams.json
	@.ci/setup build broker
	$(CARGO) bench --locked --no-run --bench streams
	tests/broker/with-broker.sh $(CARGO) bench --locked --bench streams

.PHONY: fix
fix: ## fix lints, spelling and format as far as tools can
	@.ci/setup build check
	$(CARGO) clippy --locked --workspace --all-targets --fix --allow-dirty --allow-staged
	typos --write-changes
	$(CARGO) fmt --all

.PHONY: up
up: docker ## start Redpanda, Redpanda Console, Foretell, Prometheus and Grafana in containers
	$(COMPOSE) up --build --detach
	@echo 'Foretell http://localhost:8000   Console http://localhost:8080   Prometheus http://localhost:9090   Grafana http://localhost:3000   Kafka localhost:19092'

.PHONY: down
down: docker ## stop the containers and keep the data (ARGS=--volumes removes them)
	$(COMPOSE) down $(ARGS)

.PHONY: logs
logs: docker ## follow the containers' logs (ARGS=foretell for one of them)
	$(COMPOSE) logs --follow --tail 100 $(ARGS)

.PHONY: docker
docker:
	@docker compose version >/dev/null 2>&1 || { echo 'cannot find Docker with its compose plugin; without Docker, use make broker-up or make demo' >&2; exit 1; }

.PHONY: broker-up
broker-up: ## start a real Kafka and registry without Docker; prints the variables to export
	@.ci/setup broker
	@tests/broker/registry-up.sh $(PLAY)/registry | sed 's/^REGISTRY_URL=/export FORETELL_SCHEMA_REGISTRY_URL=/'
	@tests/broker/kafka-up.sh $(PLAY)/kafka | sed 's/^KAFKA_BOOTSTRAP=/export FORETELL_BROKER_BOOTSTRAP_SERVERS=/'

.PHONY: broker-down
broker-down: ## stop that Kafka and registry and remove their data
	@tests/broker/registry-down.sh $(PLAY)/registry
	@tests/broker/kafka-down.sh $(PLAY)/kafka

//! `foretell doctor`: checks everything that `foretell run` needs. This file asks the broker and the registry; the
//! files beside it turn each answer into check results, without I/O.
//!
//! ```text
//!   configuration ─▶ broker ───┬▶ timeouts, transactions, topics, changelogs, groups ─┐
//!                    registry ─┴▶ mode, schemas ──────────────────────────────────────┴▶ model     mlflow     http
//! ```
//!
//! It changes nothing: no topic, group, record or schema. The broker keeps one transactional id,
//! `<application>-doctor`. So the right to write to a topic is not checked.

mod brokers;
mod groups;
mod mlflow;
mod placement;
mod schemas;
mod serving;
mod topics;
mod training;

use std::{sync::Arc, time::Duration};

use crate::{
    app::{
        check_result::{CheckResult, Report, Status},
        cluster::{self, Cluster},
        deliver,
        doctor::topics::{Expected, Role},
        initial::Prepared,
    },
    config::Config,
    events::topics::{Group, subject},
    tracking,
};
use foretell_avro::client::RegistryClient;
use foretell_kafka::{ClusterInfo, Examiner, KafkaBroker};
use foretell_streams::runtime::broker::{ProcessingGuarantee, TopicSpec};

/// Name of the member that tries transactions.
const MEMBER: &str = "doctor";

/// Timeout of the transaction coordinator's answer.
const TRANSACTIONS_WITHIN: Duration = Duration::from_secs(15);

/// The only check result if the configuration cannot be loaded: no other check is possible.
#[must_use]
pub fn invalid_configuration(error: String) -> CheckResult {
    CheckResult::failed("configuration", error, "correct it, or name another file with --config")
}

/// Runs all checks of `config`. `show` gets each result as soon as it is known.
pub fn examine(config: &Config, show: &mut dyn FnMut(&CheckResult)) -> Report {
    let mut doctor = Doctor { config, show, results: Vec::new() };
    doctor.check_configuration();
    let broker = doctor.check_broker();
    // Without a broker that is not known, and the registry is checked in full.
    let is_initialised = match &broker {
        Some((broker, cluster)) => doctor.check_topics_and_groups(&broker.examiner(), cluster),
        None => true,
    };
    let registry = doctor.check_registry(is_initialised);
    if is_initialised {
        doctor.check_model(broker.map(|(broker, _)| broker), registry);
    }
    if let Some(settings) = &config.mlflow {
        let result = mlflow::mlflow(settings, &tracking::probe(settings));
        doctor.add_with_source("mlflow.tracking_uri", result);
    }
    let bind = &config.http.bind;
    let http = serving::http(bind, &serving::probe_address(&config.http), &config.application());
    doctor.add_with_source("http.bind", http);
    Report::of(doctor.results)
}

struct Doctor<'a> {
    config: &'a Config,
    show: &'a mut dyn FnMut(&CheckResult),
    results: Vec<CheckResult>,
}

impl Doctor<'_> {
    fn add(&mut self, results: impl IntoIterator<Item = CheckResult>) {
        for result in results {
            (self.show)(&result);
            self.results.push(result);
        }
    }

    /// Adds a result. If it is a problem, it says first where the value of `key` was set.
    fn add_with_source(&mut self, key: &str, mut result: CheckResult) {
        if result.status != Status::Ok {
            result.detail = format!("{}: {}", self.config.sources.of(key), result.detail);
        }
        self.add([result]);
    }

    /// Adds a warning in place of the checks `names`, which need something that failed.
    fn add_skipped(&mut self, names: &str, needed: &str) {
        let detail = format!("not checked: {needed} did not answer");
        self.add([CheckResult::warning(names, detail, "fix that first")]);
    }

    fn check_configuration(&mut self) {
        let config = self.config;
        let summary = format!(
            "application {}, {} partitions, {} answers in the event schema, {} labels",
            config.application(),
            config.partitions,
            config.event_schema.questions().len(),
            config.classes.len()
        );
        self.add([CheckResult::ok("configuration", summary)]);
        for warning in config.warnings() {
            let fix = "change the configuration, unless you want this";
            self.add([CheckResult::warning("configuration", warning, fix)]);
        }
        if config.data.initial.is_some() {
            self.add(training::table(&Prepared::from(config)));
        }
    }

    /// Connects to the broker and checks its limits. `None` if it does not answer.
    fn check_broker(&mut self) -> Option<(KafkaBroker, ClusterInfo)> {
        let (key, dependent) =
            ("broker.bootstrap_servers", "timeouts, transactions, topics, groups");
        let kafka = cluster::kafka_config(self.config);
        let broker = match KafkaBroker::reach(&kafka) {
            Ok(broker) => broker,
            Err(unreachable) => {
                let failed = CheckResult::failed("broker", unreachable.detail, unreachable.fix);
                self.add_with_source(key, failed);
                self.add_skipped(dependent, "the broker");
                return None;
            }
        };
        let examiner = broker.examiner();
        let cluster = examiner.cluster();
        self.add_with_source(key, brokers::brokers(&kafka.bootstrap_servers, &cluster));
        let Ok(cluster) = cluster else {
            self.add_skipped(dependent, "the broker");
            return None;
        };
        let (session, transaction) = (kafka.session_timeout, kafka.transaction_timeout);
        self.add(brokers::timeouts(&cluster.settings, session, transaction));
        self.check_transactions(&examiner);
        Some((broker, cluster))
    }

    fn check_transactions(&mut self, examiner: &Examiner) {
        let application = self.config.application();
        let result = match self.config.streams.processing_guarantee {
            ProcessingGuarantee::ExactlyOnce => {
                let answer = examiner.transactions(&application, MEMBER, TRANSACTIONS_WITHIN);
                brokers::transactions(&format!("{application}-{MEMBER}"), &answer)
            }
            ProcessingGuarantee::AtLeastOnce => CheckResult::ok(
                "transactions",
                "not needed: [streams] processing_guarantee is at_least_once",
            ),
        };
        self.add([result]);
    }

    /// Returns whether the application is initialised: whether any of its topics exists.
    fn check_topics_and_groups(&mut self, examiner: &Examiner, cluster: &ClusterInfo) -> bool {
        let topics = &self.config.topics;
        let specs = topics.specs(self.config.partitions);
        if !specs.iter().any(|spec| cluster.topics.contains(&spec.name)) {
            self.add([topics::not_initialised(&self.config.application(), specs.len())]);
            return false;
        }
        let role = |spec: &TopicSpec| {
            if topics.is_for_consumers(&spec.name) { Role::Written } else { Role::Read }
        };
        let expected = specs.into_iter().map(|spec| Expected { role: role(&spec), spec });
        let changelogs = self.changelogs(cluster);
        let has_changelogs = !changelogs.is_empty();
        for expected in expected.chain(changelogs) {
            let info = examiner.topic(&expected.spec.name);
            self.add(topics::topic(&expected, &info, cluster.brokers.len()));
        }
        if !has_changelogs {
            self.add([CheckResult::ok("changelogs", "none yet: `foretell run` creates them")]);
        }
        for group in Group::ALL {
            let name = group.name(&self.config.application());
            let inputs = group.inputs(topics);
            let info = examiner.group(&name, &inputs);
            self.add([groups::group(&name, &info, "foretell run")]);
        }
        if self.config.delivery.has_channels() {
            let name = deliver::group(self.config);
            let info = examiner.group(&name, std::slice::from_ref(&topics.actions));
            self.add([groups::group(&name, &info, "foretell deliver")]);
        }
        if self.config.mlflow.is_some() {
            let name = tracking::group(&self.config.application());
            let inputs = [&topics.models, &topics.trials, &topics.decisions, &topics.quality];
            let info = examiner.group(&name, &inputs.map(Clone::clone));
            self.add([groups::group(&name, &info, "foretell run")]);
        }
        true
    }

    /// The changelogs that exist. `foretell run` creates missing ones.
    fn changelogs(&self, cluster: &ClusterInfo) -> Vec<Expected> {
        let application = self.config.application();
        let group_of = |name: &str| {
            let is_of = |group: &Group| name.starts_with(&format!("{}-", group.name(&application)));
            Group::ALL.into_iter().find(is_of)
        };
        let names = cluster.topics.iter().filter(|name| name.as_str().ends_with("-changelog"));
        let changelogs = names.filter_map(|name| {
            let spec = group_of(name.as_str())?.changelog(name.clone(), self.config.partitions);
            Some(Expected { spec, role: Role::Changelog })
        });
        changelogs.collect()
    }

    /// Connects to the registry, and checks its schemas if the application is initialised. `None` if it does not
    /// answer.
    fn check_registry(&mut self, is_initialised: bool) -> Option<RegistryClient> {
        let config = self.config;
        let client = match cluster::registry_client(config) {
            Ok(client) => client,
            Err(error) => {
                let fix = "correct [schema_registry]";
                self.add([CheckResult::failed("registry", format!("{error:#}"), fix)]);
                self.add_skipped("schemas", "the registry");
                return None;
            }
        };
        let mode = client.mode();
        let registry = schemas::registry(&config.schema_registry.url, &mode);
        self.add_with_source("schema_registry.url", registry);
        if mode.is_err() {
            self.add_skipped("schemas", "the registry");
            return None;
        }
        if is_initialised {
            for (topic, schema) in config.topics.schemas(&config.event_schemas) {
                let subject = subject(topic);
                let state = schemas::read_subject(&client, &subject, &schema);
                self.add([schemas::schema(&subject, &state)]);
            }
        }
        Some(client)
    }

    /// Checks what needs both the broker and the registry to be read: the model, records of the inputs, the training log.
    fn check_model(&mut self, broker: Option<KafkaBroker>, registry: Option<RegistryClient>) {
        let (Some(broker), Some(registry)) = (broker, registry) else {
            return self.add_skipped("model", "the broker or the registry");
        };
        let cluster =
            Cluster { broker: Arc::new(broker), registry: Arc::new(registry), is_lasting: true };
        let champion = serving::read_champion(self.config, &cluster);
        self.add([serving::model(&champion, &self.config.classes)]);
        self.add(placement::placement(&placement::sample(self.config, &cluster)));
        // Before the first model the training log may be empty.
        if let Ok(Some(champion)) = &champion {
            let count =
                training::count_initial_examples(self.config, &cluster, champion.initial_examples);
            self.add([training::training_log(&count)]);
        }
    }
}

/// Collects the problems that are found in one check.
struct Problems {
    name: String,
    results: Vec<CheckResult>,
}

impl Problems {
    fn of(name: &str) -> Self {
        Self { name: name.to_owned(), results: Vec::new() }
    }

    fn add(&mut self, result: CheckResult) {
        self.results.push(result);
    }

    fn failed(&mut self, detail: impl Into<String>, fix: impl Into<String>) {
        self.add(CheckResult::failed(self.name.as_str(), detail, fix));
    }

    fn warning(&mut self, detail: impl Into<String>, fix: impl Into<String>) {
        self.add(CheckResult::warning(self.name.as_str(), detail, fix));
    }

    /// The problems, or one result with `detail` if there are none.
    fn or_ok(mut self, detail: String) -> Vec<CheckResult> {
        if self.results.is_empty() {
            self.results.push(CheckResult::ok(self.name, detail));
        }
        self.results
    }
}

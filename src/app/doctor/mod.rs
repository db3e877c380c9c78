//! What would stand in the way of a start, found without one. This file asks; the files beside it judge what
//! was seen, and need nobody for that.
//!
//! ```text
//!   configuration ─▶ broker ───┬▶ timeouts, transactions, topics, changelogs, groups ─┐
//!                    registry ─┴▶ mode, schemas ──────────────────────────────────────┴▶ model     http
//! ```
//!
//! Nothing is changed: no topic, no group, no record, no schema. The broker remembers one transactional id,
//! `<application>-doctor`. So whether we may write to a topic is not tried.

mod brokers;
mod groups;
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
        doctor::topics::{Expected, Role},
        initial::Prepared,
    },
    config::Config,
    events::topics::{Group, subject},
};
use foretell_avro::client::RegistryClient;
use foretell_kafka::{ClusterInfo, Examiner, KafkaBroker, Unanswered};
use foretell_streams::runtime::broker::ProcessingGuarantee;

/// The member under whose name transactions are tried.
const MEMBER: &str = "doctor";

/// How long the transactions' coordinator may take.
const TRANSACTIONS_WITHIN: Duration = Duration::from_secs(15);

/// The one finding there is, if the configuration can't be read: all else follows from it.
#[must_use]
pub fn unreadable(error: String) -> CheckResult {
    CheckResult::failed("configuration", error, "correct it, or name another file with --config")
}

/// Looks at everything that `config` names; `tell` hears of each finding at once.
pub fn examine(config: &Config, tell: &mut dyn FnMut(&CheckResult)) -> Report {
    let mut doctor = Doctor { config, tell, found: Vec::new() };
    doctor.found([CheckResult::ok("configuration", summary(config))]);
    for warning in config.warnings() {
        let fix = "change the configuration, if that is not what you want";
        doctor.found([CheckResult::warning("configuration", warning, fix)]);
    }
    if config.data.initial.is_some() {
        doctor.found(training::table(&Prepared::from(config)));
    }
    let (broker, state) = doctor.broker();
    let registry = doctor.registry(state);
    if state == SetUp::Done {
        doctor.model(broker, registry);
    }
    let bind = &config.http.bind;
    let http = serving::http(bind, &serving::look(bind), &config.application());
    doctor.found([doctor.placed("http.bind", http)]);
    Report::of(doctor.found)
}

fn summary(config: &Config) -> String {
    format!(
        "application {}, {} partitions, {} answers in the event schema, {} labels",
        config.application(),
        config.partitions,
        config.event_schema.questions().len(),
        config.classes.len()
    )
}

/// Whether `foretell init` has run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SetUp {
    /// None of its topics is there.
    Missing,
    /// Some are there, or nobody could be asked: each is looked at.
    Done,
}

struct Doctor<'a> {
    config: &'a Config,
    tell: &'a mut dyn FnMut(&CheckResult),
    found: Vec<CheckResult>,
}

impl Doctor<'_> {
    fn found(&mut self, findings: impl IntoIterator<Item = CheckResult>) {
        for finding in findings {
            (self.tell)(&finding);
            self.found.push(finding);
        }
    }

    /// What is not as it should be, with where the value of `key` was written.
    fn placed(&self, key: &str, mut finding: CheckResult) -> CheckResult {
        if finding.status != Status::Ok {
            finding.detail = format!("{}: {}", self.config.sources.of(key), finding.detail);
        }
        finding
    }

    /// The broker, if it can be asked.
    fn broker(&mut self) -> (Option<KafkaBroker>, SetUp) {
        let kafka = cluster::kafka_config(self.config);
        let broker = match KafkaBroker::reach(&kafka) {
            Ok(broker) => broker,
            Err(unreachable) => {
                let failed = CheckResult::failed("broker", unreachable.detail, unreachable.fix);
                let failed = self.placed("broker.bootstrap_servers", failed);
                let rest = "timeouts, transactions, topics, groups";
                self.found([failed, not_asked(rest, "the broker")]);
                return (None, SetUp::Done);
            }
        };
        let examiner = broker.examiner();
        let seen = examiner.cluster();
        let brokers = brokers::brokers(&kafka.bootstrap_servers, &seen);
        self.found([self.placed("broker.bootstrap_servers", brokers)]);
        let seen = match seen {
            Ok(seen) => seen,
            Err(_) => {
                self.found([not_asked("timeouts, transactions, topics, groups", "the broker")]);
                return (None, SetUp::Done);
            }
        };
        let (session, transaction) = (kafka.session_timeout, kafka.transaction_timeout);
        self.found(brokers::timeouts(&seen.settings, session, transaction));
        self.transactions(&examiner);
        let specs = self.config.topics.specs(self.config.partitions);
        if !specs.iter().any(|spec| seen.topics.contains(&spec.name)) {
            self.found([topics::not_initialised(&self.config.application(), specs.len())]);
            return (Some(broker), SetUp::Missing);
        }
        self.topics(&examiner, &seen);
        self.groups(&examiner);
        (Some(broker), SetUp::Done)
    }

    fn transactions(&mut self, examiner: &Examiner) {
        let application = self.config.application();
        let finding = match self.config.streams.processing_guarantee {
            ProcessingGuarantee::ExactlyOnce => {
                let answer = examiner.transactions(&application, MEMBER, TRANSACTIONS_WITHIN);
                brokers::transactions(&format!("{application}-{MEMBER}"), &answer)
            }
            ProcessingGuarantee::AtLeastOnce => CheckResult::ok(
                "transactions",
                "not needed: [streams] processing_guarantee is at_least_once",
            ),
        };
        self.found([finding]);
    }

    fn topics(&mut self, examiner: &Examiner, cluster: &ClusterInfo) {
        let (topics, partitions) = (&self.config.topics, self.config.partitions);
        let mut expected: Vec<Expected> = Vec::new();
        for spec in topics.specs(partitions) {
            let is_written = topics.is_for_consumers(&spec.name);
            let role = if is_written { Role::Written } else { Role::Read };
            expected.push(Expected { spec, role });
        }
        let changelogs = self.changelogs(cluster);
        let has_none = changelogs.is_empty();
        expected.extend(changelogs);
        for expected in &expected {
            let seen = examiner.topic(&expected.spec.name);
            self.found(topics::topic(expected, &seen, cluster.brokers.len()));
        }
        if has_none {
            self.found([CheckResult::ok("changelogs", "none yet: `foretell run` makes them")]);
        }
    }

    /// Those that are there: a start makes what is missing.
    fn changelogs(&self, cluster: &ClusterInfo) -> Vec<Expected> {
        let application = self.config.application();
        let prefix = |group: Group| format!("{}-", group.name(&application));
        let mut found = Vec::new();
        for name in &cluster.topics {
            let group =
                Group::ALL.into_iter().find(|group| name.as_str().starts_with(&prefix(*group)));
            if let Some(group) = group.filter(|_| name.as_str().ends_with("-changelog")) {
                let spec = group.changelog(name.clone(), self.config.partitions);
                found.push(Expected { spec, role: Role::Changelog });
            }
        }
        found
    }

    fn groups(&mut self, examiner: &Examiner) {
        for group in Group::ALL {
            let name = group.name(&self.config.application());
            let inputs = group.inputs(&self.config.topics);
            self.found([groups::group(&name, &examiner.group(&name, &inputs))]);
        }
    }

    /// The registry, if it can be asked.
    fn registry(&mut self, state: SetUp) -> Option<RegistryClient> {
        let (config, rest) = (self.config, "schemas");
        let client = match cluster::registry_client(config) {
            Ok(client) => client,
            Err(error) => {
                let fix = "correct [schema_registry]";
                let failed = CheckResult::failed("registry", format!("{error:#}"), fix);
                self.found([failed, not_asked(rest, "the registry")]);
                return None;
            }
        };
        let mode = client.mode();
        let registry = schemas::registry(&config.schema_registry.url, &mode);
        self.found([self.placed("schema_registry.url", registry)]);
        if mode.is_err() {
            self.found([not_asked(rest, "the registry")]);
            return None;
        }
        if state == SetUp::Missing {
            return Some(client);
        }
        for (topic, schema) in config.topics.schemas(config.event_schema.text()) {
            let subject = subject(topic);
            self.found([schemas::schema(&subject, &schemas::look(&client, &subject, schema))]);
        }
        Some(client)
    }

    fn model(&mut self, broker: Option<KafkaBroker>, registry: Option<RegistryClient>) {
        let (Some(broker), Some(registry)) = (broker, registry) else {
            self.found([not_asked("model", "the broker or the registry")]);
            return;
        };
        let cluster =
            Cluster { broker: Arc::new(broker), registry: Arc::new(registry), is_lasting: true };
        let seen = serving::read_model(self.config, &cluster);
        self.found([serving::model(&seen, &self.config.classes)]);
        self.found(placement::placement(&placement::sample(self.config, &cluster)));
        // Before the first model there is nothing to be whole.
        if let Ok(Some(model)) = &seen {
            let log = training::look(self.config, &cluster, model.initial_examples);
            self.found([training::log(&log)]);
        }
    }
}

/// What depends on something that does not answer is not passed over in silence.
fn not_asked(name: &str, on: &str) -> CheckResult {
    let why = Unanswered::Failed(format!("{on} could not be asked"));
    CheckResult::warning(name, format!("not checked: {why}"), "fix that first")
}

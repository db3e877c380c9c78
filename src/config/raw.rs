//! The configuration as it is written: every key, its default, and what it means. `docs/configuration.md` is generated
//! from the doc comments here and in `raw_learning.rs`, so each says unit, bound and meaning to a user who does not read Rust.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use serde::Deserialize;
#[cfg(test)]
use serde::Serialize;

use crate::{
    config::{
        Secret,
        raw_learning::{DataSettings, LearningSettings, RawTuning},
        text,
    },
    processors::{
        contract::ContractPolicy,
        gather::ScoreWhen,
        outcome_join::{ConflictPolicy, LearnFrom, UnlabelledPolicy},
    },
};
use foretell_ml::{CalendarPart, Scaling};
use foretell_streams::runtime::broker::ProcessingGuarantee;

/// A whole `foretell.toml`.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(test, derive(Serialize))]
#[serde(deny_unknown_fields)]
pub(super) struct RawConfig {
    pub application: RawApplication,
    #[serde(default)]
    pub broker: BrokerSettings,
    #[serde(default)]
    pub schema_registry: RegistrySettings,
    #[serde(default)]
    pub topics: RawTopics,
    #[serde(default)]
    pub streams: StreamsSettings,
    pub events: EventSettings,
    #[serde(default)]
    pub scoring: RawScoring,
    pub outcomes: RawOutcomes,
    #[serde(default)]
    pub features: RawFeatures,
    #[serde(default)]
    pub learning: LearningSettings,
    #[serde(default)]
    pub tuning: RawTuning,
    #[serde(default)]
    pub data: DataSettings,
    #[serde(default)]
    pub http: HttpSettings,
}

/// The application's name, and this process's.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(test, derive(Serialize))]
#[serde(deny_unknown_fields)]
pub(super) struct RawApplication {
    /// Name of the application: letters, digits, `.`, `_` and `-`. The consumer groups, the transactional ids and the
    /// changelogs are named after it, so keep it for as long as you want to keep what the application has stored.
    pub id: String,
    /// Name of this process among those of the application; no two may share one. Keep it across restarts: stores on disk
    /// and the group membership belong to it. Unset: the host's name.
    #[serde(default)]
    pub instance: Option<String>,
}

/// The Kafka or Redpanda cluster.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(test, derive(Serialize))]
#[serde(deny_unknown_fields, default)]
pub struct BrokerSettings {
    /// Brokers to connect to first, `host:port`, separated by commas. The rest of the cluster is found through them.
    pub bootstrap_servers: String,
    /// How long the group waits for a sign of life before it gives an instance's tasks to others; at least 1 ms, and within
    /// the broker's own limits. Keep it longer than `transaction_timeout`, so that a new owner finds no open transaction of
    /// the previous one.
    #[serde(with = "humantime_serde")]
    pub session_timeout: Duration,
    /// How long a transaction may stay open before the broker aborts it; at least 1 ms.
    #[serde(with = "humantime_serde")]
    pub transaction_timeout: Duration,
    /// File with the token for SASL/OAUTHBEARER, a path from the configuration's folder. It is read again at 80% of the
    /// token's life; something else has to keep it fresh.
    pub token_file: Option<PathBuf>,
    /// Properties passed to librdkafka unchanged, such as `"security.protocol" = "SASL_SSL"`. Each value is treated as a
    /// secret.
    pub properties: BTreeMap<String, Secret>,
}

impl Default for BrokerSettings {
    fn default() -> Self {
        Self {
            bootstrap_servers: "localhost:19092".to_owned(),
            // Longer than a transaction may stay open: who takes over finds none of the lost member's.
            session_timeout: Duration::from_secs(15),
            transaction_timeout: Duration::from_secs(10),
            token_file: None,
            properties: BTreeMap::new(),
        }
    }
}

/// The schema registry: any that speaks Confluent's REST interface.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(test, derive(Serialize))]
#[serde(deny_unknown_fields, default)]
pub struct RegistrySettings {
    /// Address, beginning with `http://` or `https://`; it may have a path. A user and a password in it
    /// (percent-encoded) are taken out of it and used as `username` and `password`.
    pub url: String,
    /// User for HTTP basic authentication. It is treated as a secret. Not together with `bearer_token`.
    pub username: Option<String>,
    /// Password for HTTP basic authentication.
    pub password: Option<Secret>,
    /// Token for HTTP bearer authentication. Not together with `username`.
    pub bearer_token: Option<Secret>,
    /// File with the certificates (PEM) of authorities to trust in addition to the system's, a path from the
    /// configuration's folder.
    pub ca_file: Option<PathBuf>,
    /// File with Foretell's own certificate and its chain (PEM), for mTLS; a path from the configuration's folder. Needs
    /// `key_file`.
    pub certificate_file: Option<PathBuf>,
    /// File with the key of `certificate_file` (PEM, PKCS#8, without a password), a path from the configuration's folder.
    pub key_file: Option<PathBuf>,
    /// How long one request may take; at least 1 ms.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// How long a record waits for its schema when the registry does not know the id (yet). After that the record goes to
    /// the dead letters as `unknown_schema`. `0s`: it does not wait.
    #[serde(with = "humantime_serde")]
    pub unknown_id_wait: Duration,
    /// Folder that keeps schemas for when the registry is away, a path from the configuration's folder. Unset: `schemas` in
    /// `streams.state_dir` if that is set, else none.
    pub cache_dir: Option<PathBuf>,
}

impl Default for RegistrySettings {
    fn default() -> Self {
        Self {
            url: "http://localhost:18081".to_owned(),
            username: None,
            password: None,
            bearer_token: None,
            ca_file: None,
            certificate_file: None,
            key_file: None,
            timeout: Duration::from_secs(10),
            unknown_id_wait: Duration::from_secs(10),
            cache_dir: None,
        }
    }
}

/// Names and partitions of the topics.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(test, derive(Serialize))]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawTopics {
    /// Prefix of all names of topics, groups, transactions and changelogs: letters, digits, `.`, `_` and `-`.
    pub prefix: String,
    /// Partitions of the topics that are keyed by respondent, and so the most scoring tasks that can run in parallel; at
    /// least 1. It cannot change once the topics exist.
    pub partitions: u32,
}

impl Default for RawTopics {
    fn default() -> Self {
        Self { prefix: String::new(), partitions: 6 }
    }
}

/// How records are processed, committed and remembered.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(test, derive(Serialize))]
#[serde(deny_unknown_fields, default)]
pub struct StreamsSettings {
    /// What a commit guarantees.
    pub processing_guarantee: ProcessingGuarantee,
    /// Time between two commits; at least 1 ms. A prediction becomes readable with the commit, so it adds half of this to
    /// the latency on average.
    #[serde(with = "humantime_serde")]
    pub commit_interval: Duration,
    /// Records after which a commit is made without waiting for `commit_interval`; at least 1.
    pub commit_records_max: usize,
    /// How long a task that starts waits without a record for an input that is known to have more, before it goes on
    /// without. `0s`: it does not wait.
    #[serde(with = "humantime_serde")]
    pub max_task_idle: Duration,
    /// How far stream time may run ahead of the clock.
    #[serde(with = "humantime_serde")]
    pub clock_tolerance: Duration,
    /// How long a partition must have no records before its stream time advances with the clock.
    #[serde(with = "humantime_serde")]
    pub quiet_after: Duration,
    /// Worker threads that score; at least 1. More threads process more tasks in parallel.
    pub threads: u32,
    /// Folder for the stores, a path from the configuration's folder. A store on disk may be larger than memory, and a
    /// restart reads only what came since. Unset: the stores are in memory.
    pub state_dir: Option<PathBuf>,
    /// Whether this instance keeps standby copies of the stores of other instances' tasks, so that a failover restores
    /// little. Needs `state_dir`.
    pub standby: bool,
}

impl Default for StreamsSettings {
    fn default() -> Self {
        Self {
            processing_guarantee: ProcessingGuarantee::ExactlyOnce,
            commit_interval: Duration::from_millis(100),
            commit_records_max: 10_000,
            max_task_idle: Duration::from_secs(300),
            clock_tolerance: Duration::from_secs(10),
            quiet_after: Duration::from_secs(10),
            threads: 1,
            state_dir: None,
            standby: false,
        }
    }
}

/// The event schema, and which of its fields is what.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(test, derive(Serialize))]
#[serde(deny_unknown_fields)]
pub struct EventSettings {
    /// File with the Avro schema of the events (`.avsc`), a path from the configuration's folder.
    pub schema: PathBuf,
    /// Field that identifies the respondent: a `string`, an `int`, a `long` or a `uuid`.
    pub respondent_id: String,
    /// Field with the event time.
    pub event_time: String,
    /// Field that identifies the event. Unset: an event is identified by its respondent, time and content.
    #[serde(default)]
    pub event_id: Option<String>,
    /// Boolean field that says that the respondent has submitted. Unset: an observation is complete when every answer is
    /// given.
    #[serde(default)]
    pub completed: Option<String>,
    /// Fields that are neither answers nor one of the fields above; they are not read.
    #[serde(default)]
    pub ignored: Vec<String>,
    /// Texts and numbers that mean "no answer", such as `["?", -99]`: in events, JSON and tables.
    #[serde(default, deserialize_with = "text::many")]
    pub missing: Vec<String>,
    /// How far ahead of the clock the time of an event or an outcome may be. One further ahead goes to the dead letters as
    /// `future_time`.
    #[serde(default = "one_day", with = "humantime_serde")]
    pub time_ahead_max: Duration,
    /// How far behind the clock the time of an event or an outcome may be. One further behind goes to the dead letters as
    /// `past_time`. Unset: no bound.
    #[serde(default, with = "humantime_serde")]
    pub time_behind_max: Option<Duration>,
    /// Event time within which an event that comes again is a repeat: it is counted in `foretell_duplicate_events_total`
    /// and not used again. `0s`: no event is a repeat.
    #[serde(default = "one_day", with = "humantime_serde")]
    pub duplicates_within: Duration,
}

fn one_day() -> Duration {
    Duration::from_secs(24 * 60 * 60)
}

/// When observations are scored.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(test, derive(Serialize))]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawScoring {
    /// What makes an observation ready to be scored. `{ answers = N }` takes a number from 1 to the number of answers in the
    /// event schema.
    pub when: ScoreWhen,
    /// Event time without an event after which an observation that was never scored is dropped; at least 1 ms.
    #[serde(with = "humantime_serde")]
    pub retention: Duration,
}

impl Default for RawScoring {
    fn default() -> Self {
        Self { when: ScoreWhen::Complete, retention: one_day() }
    }
}

/// The classes, and how outcomes are joined with predictions.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(test, derive(Serialize))]
#[serde(deny_unknown_fields)]
pub(super) struct RawOutcomes {
    /// The classes, at least two. Of two, the second is the positive class. Numbers and booleans stand for their texts:
    /// `[0, 1]` is `["0", "1"]`.
    #[serde(deserialize_with = "text::many")]
    pub labels: Vec<String>,
    /// How far apart in event time a prediction and its outcome may be, in either order; at least 1 ms.
    #[serde(default = "thirty_days", with = "humantime_serde")]
    pub window: Duration,
    /// How much longer than `window`, in stream time, predictions and outcomes are kept for records that arrive late.
    #[serde(default = "one_day", with = "humantime_serde")]
    pub grace: Duration,
    /// What a second, different outcome for the same prediction does.
    #[serde(default)]
    pub conflict: ConflictPolicy,
    /// Which of a respondent's predictions inside the window an outcome is joined with.
    #[serde(default)]
    pub learn_from: LearnFrom,
    /// What happens to a prediction whose window and grace pass without an outcome.
    #[serde(default, deserialize_with = "text::unlabelled")]
    pub unlabelled: UnlabelledPolicy,
    /// Predictions of one respondent that may wait for outcomes inside one window; at least 1. Beyond it, later
    /// predictions are not kept with `learn_from = "first"`, else the oldest is dropped
    /// (`foretell_predictions_not_kept_total`).
    #[serde(default = "a_hundred")]
    pub predictions_max: usize,
}

fn a_hundred() -> usize {
    100
}

fn thirty_days() -> Duration {
    one_day() * 30
}

/// How answers become features.
#[derive(Clone, Debug, Default, Deserialize)]
#[cfg_attr(test, derive(Serialize))]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawFeatures {
    /// Answers that are published with the prediction and not used as features.
    pub ignored: Vec<String>,
    /// Numeric answers to use as categories.
    pub categorical: Vec<String>,
    /// Text answers to use as numbers.
    pub numeric: Vec<String>,
    /// How numeric features are scaled.
    pub scaling: Scaling,
    /// Pairs of categorical answers to learn from together, such as `[["education", "occupation"]]`.
    pub crossed: Vec<(String, String)>,
    /// Parts of dates and times to use as features of their own, in UTC, by answer: `{ birth = ["year", "month"] }` makes
    /// `birth_year` and `birth_month`. A date has no hour and no minute, a time has nothing else.
    pub calendar: BTreeMap<String, Vec<CalendarPart>>,
    pub contract: RawContract,
}

/// What happens to observations that lack what the model was fitted on.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(test, derive(Serialize))]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawContract {
    /// What happens to such an observation.
    pub policy: ContractPolicy,
    /// Share of observations without an answer from which on a feature that training mostly had is reported as
    /// `mostly_missing`: above 0 and up to 1.
    pub mostly_missing: f64,
    /// Observations of one task that are judged together; at least 1.
    pub window: u64,
}

impl Default for RawContract {
    fn default() -> Self {
        Self { policy: ContractPolicy::GoOn, mostly_missing: 0.9, window: 1000 }
    }
}

/// The HTTP server: health, metrics and the API.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(test, derive(Serialize))]
#[serde(deny_unknown_fields, default)]
pub struct HttpSettings {
    /// Address to listen on: a host and a port, such as `0.0.0.0:8000` or `[::1]:8000`.
    pub bind: String,
    /// Token that requests which change something must send (`Authorization: Bearer …`). Unset: everybody who reaches the
    /// address may.
    pub bearer_token: Option<Secret>,
    /// Names, besides those of loopback and the bind address, that `Host` and `Origin` may have while there is no token.
    /// `"*"`: any.
    pub allowed_hosts: Vec<String>,
    /// How long a client may take to send a request's head, then its body, and to take each part of an answer; at least
    /// 1 ms.
    #[serde(with = "humantime_serde")]
    pub read_timeout: Duration,
    /// Connections at one time; at least 1. Further ones are answered with 503. The process raises its limit on open files
    /// as far as the system lets it.
    pub connections_max: usize,
    /// Requests that wait for a prediction at one time; at least 1. Further ones are answered with 503.
    pub waits_max: usize,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            bind: "127.0.0.1:8000".to_owned(),
            bearer_token: None,
            allowed_hosts: Vec::new(),
            read_timeout: Duration::from_secs(10),
            connections_max: 2000,
            waits_max: 1000,
        }
    }
}

//! The configuration as written: every key with its default. `docs/configuration.md` is generated from the doc comments here
//! and in `raw_{actions,companions,delivery,learning,mlflow,quality,serving,sessions,tuning}.rs`, so they address the user, and give the meaning, the unit and the bounds.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use serde::Deserialize;
#[cfg(test)]
use serde::Serialize;

use crate::{
    config::{
        Secret,
        raw_actions::RawAction,
        raw_companions::CompanionSettings,
        raw_delivery::RawDelivery,
        raw_learning::{DataSettings, RawLearning},
        raw_mlflow::RawMlflow,
        raw_quality::RawQuality,
        raw_serving::ServingSettings,
        raw_sessions::RawSessions,
        raw_tuning::RawTuning,
        text,
    },
    processors::{
        contract::ContractPolicy,
        gather::ScoreWhen,
        outcome_join::{ConflictPolicy, Emit, JoinSettings, LearnFrom, UnlabelledPolicy},
    },
};
use foretell_ml::{CalendarPart, Scaling};
use foretell_streams::runtime::broker::ProcessingGuarantee;

/// The whole of `foretell.toml`.
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
    #[serde(default)]
    pub sessions: RawSessions,
    pub outcomes: RawOutcomes,
    #[serde(default)]
    pub actions: Vec<RawAction>,
    #[serde(default)]
    pub features: RawFeatures,
    #[serde(default)]
    pub learning: RawLearning,
    #[serde(default)]
    pub tuning: RawTuning,
    #[serde(default)]
    pub quality: RawQuality,
    #[serde(default)]
    pub data: DataSettings,
    #[serde(default)]
    pub delivery: RawDelivery,
    #[serde(default)]
    pub mlflow: RawMlflow,
    #[serde(default)]
    pub http: HttpSettings,
    #[serde(default)]
    pub serving: ServingSettings,
}

/// The names of the application and of this process.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(test, derive(Serialize))]
#[serde(deny_unknown_fields)]
pub(super) struct RawApplication {
    /// Name of the application: letters, digits, `.`, `_` and `-`. The names of the consumer groups, transactional ids and
    /// changelogs begin with it: with another name, the application starts with empty stores.
    pub id: String,
    /// Name of this process; each process of the application needs a name of its own. Keep it across restarts, because the
    /// stores on disk and the group membership belong to it. Unset: the host's name.
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
    /// Time without a heartbeat after which the group gives the tasks of an instance to others; at least 1 ms, and within the
    /// limits of the broker. Keep it longer than `transaction_timeout`, so that a new owner finds no open transaction of the
    /// previous one.
    #[serde(with = "humantime_serde")]
    pub session_timeout: Duration,
    /// Time after which the broker aborts an open transaction; at least 1 ms.
    #[serde(with = "humantime_serde")]
    pub transaction_timeout: Duration,
    /// File with the token for SASL/OAUTHBEARER, a path from the configuration's folder. Foretell reads
    /// it again at 80% of the token's lifetime; you have to renew the file before that.
    pub token_file: Option<PathBuf>,
    /// Properties passed to librdkafka unchanged, such as `"security.protocol" = "SASL_SSL"`. Each value is treated as a
    /// secret.
    pub properties: BTreeMap<String, Secret>,
}

impl Default for BrokerSettings {
    fn default() -> Self {
        Self {
            bootstrap_servers: "localhost:19092".to_owned(),
            // Longer than the transaction timeout, so that a new owner finds no open transaction.
            session_timeout: Duration::from_secs(15),
            transaction_timeout: Duration::from_secs(10),
            token_file: None,
            properties: BTreeMap::new(),
        }
    }
}

/// The schema registry: any with Confluent's REST API.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(test, derive(Serialize))]
#[serde(deny_unknown_fields, default)]
pub struct RegistrySettings {
    /// Address, beginning with `http://` or `https://`; it may have a path. A user and a password in it (percent-encoded) are
    /// removed from it and used as `username` and `password`.
    pub url: String,
    /// User for HTTP basic authentication. Treated as a secret. Set this or `bearer_token`, not both.
    pub username: Option<String>,
    /// Password for HTTP basic authentication.
    pub password: Option<Secret>,
    /// Token for HTTP bearer authentication. Set this or `username`, not both.
    pub bearer_token: Option<Secret>,
    /// File with certificates (PEM) of certificate authorities to trust in addition to the system's, a path from the
    /// configuration's folder.
    pub ca_file: Option<PathBuf>,
    /// File with Foretell's own certificate and its chain (PEM), for mTLS; a path from the configuration's folder. Needs
    /// `key_file`.
    pub certificate_file: Option<PathBuf>,
    /// File with the key of `certificate_file` (PEM, PKCS#8, without a password), a path from the configuration's folder.
    pub key_file: Option<PathBuf>,
    /// Time limit of one request; at least 1 ms.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// Time that a record waits for a schema id that the registry does not know yet. After it, the record goes to the dead
    /// letters as `unknown_schema`. `0s`: no wait.
    #[serde(with = "humantime_serde")]
    pub unknown_id_wait: Duration,
    /// Folder for a copy of the schemas, which is used while the registry does not answer; a path from the configuration's
    /// folder. Unset: `schemas` in `streams.state_dir` if that is set, else no copy is kept.
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
    /// Partitions of the topics that are keyed by respondent, which is the maximum number of scoring tasks in parallel; at least
    /// 1. You cannot change it once the topics exist.
    pub partitions: u32,
}

impl Default for RawTopics {
    fn default() -> Self {
        Self { prefix: String::new(), partitions: 6 }
    }
}

/// How records are processed, committed and stored.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(test, derive(Serialize))]
#[serde(deny_unknown_fields, default)]
pub struct StreamsSettings {
    /// What a commit guarantees.
    pub processing_guarantee: ProcessingGuarantee,
    /// Longest time between two commits; at least 1 ms. Consumers see a prediction with the commit, so this adds half of its
    /// value to the mean latency. Exactly once, records are fetched and sent in batches of a part of it: see
    /// [Latency and CPU time](operations.md#latency-and-cpu-time). The learner commits every second, if that is longer.
    #[serde(with = "humantime_serde")]
    pub commit_interval: Duration,
    /// Records after which Foretell commits before `commit_interval` has passed; at least 1.
    pub commit_records_max: usize,
    /// Time that a task that starts waits for the next record of an input that is known to have more, before it processes the
    /// other inputs. `0s`: no wait.
    #[serde(with = "humantime_serde")]
    pub max_task_idle: Duration,
    /// Time by which stream time may be ahead of the clock.
    #[serde(with = "humantime_serde")]
    pub clock_tolerance: Duration,
    /// Time without records that advance the stream time of a partition, after which it catches up with the time that has passed
    /// since the last record, and advances with the clock.
    #[serde(with = "humantime_serde")]
    pub quiet_after: Duration,
    /// Worker threads that score; at least 1. More threads process more tasks in parallel.
    pub threads: u32,
    /// Folder for the stores, a path from the configuration's folder. A store on disk may be larger than memory, and a restart
    /// reads only the newest part of its changelog, and of the training log. Unset: the stores are in memory.
    pub state_dir: Option<PathBuf>,
    /// Whether this instance keeps standby copies of the stores of other instances' tasks, which makes a failover faster. Needs
    /// `state_dir`.
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

/// The event schema, and the fields with a meaning of their own.
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
    /// Field that identifies the event. Unset: respondent, time and content identify it.
    #[serde(default)]
    pub event_id: Option<String>,
    /// Boolean field that is true when the respondent has submitted. Unset: an observation is complete when every answer is
    /// given.
    #[serde(default)]
    pub completed: Option<String>,
    /// Other fields that are not answers; they are not read.
    #[serde(default)]
    pub ignored: Vec<String>,
    /// Texts and numbers that mean "no answer", such as `["?", -99]`: in events, JSON and tables.
    #[serde(default, deserialize_with = "text::many")]
    pub missing: Vec<String>,
    /// Maximum time by which an event or an outcome may be ahead of the clock. Records further ahead go to the dead letters as
    /// `future_time`.
    #[serde(default = "one_day", with = "humantime_serde")]
    pub time_ahead_max: Duration,
    /// Maximum time by which an event or an outcome may be behind the clock. Records further behind go to the dead letters as
    /// `past_time`. Unset: no limit.
    #[serde(default, with = "humantime_serde")]
    pub time_behind_max: Option<Duration>,
    /// Event time within which a repeated event is recognised: it is counted in `foretell_duplicate_events_total` and not used
    /// again. `0s`: repeats are not recognised.
    #[serde(default = "one_day", with = "humantime_serde")]
    pub duplicates_within: Duration,
    /// Further topics with events of the same respondents, each in a section `[[events.companions]]`.
    #[serde(default)]
    pub companions: Vec<CompanionSettings>,
}

fn one_day() -> Duration {
    Duration::from_secs(24 * 60 * 60)
}

/// When observations are scored.
#[derive(Clone, Debug, Default, Deserialize)]
#[cfg_attr(test, derive(Serialize))]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawScoring {
    /// Condition for scoring an observation. In `{ answers = N }`, N is from 1 to the number of answers in the event schema.
    pub when: ScoreWhen,
    /// Whether an observation that is not complete is scored when its session ends, if it was not scored before. See
    /// [Sessions](sessions.md#scoring-when-a-session-ends).
    pub at_session_end: bool,
    /// The former name of `gap` in `[sessions]`. Set one of them.
    #[serde(with = "humantime_serde")]
    pub retention: Option<Duration>,
}

/// The classes, and how outcomes are joined with predictions.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(test, derive(Serialize))]
#[serde(deny_unknown_fields)]
pub(super) struct RawOutcomes {
    /// Names of the classes, at least two. The second of two is the positive class. You may write numbers and booleans without
    /// quotes: `[0, 1]` is `["0", "1"]`.
    #[serde(deserialize_with = "text::many")]
    pub labels: Vec<String>,
    /// Maximum difference in event time between a prediction and its outcome, in either order; at least 1 ms.
    #[serde(default = "thirty_days", with = "humantime_serde")]
    pub window: Duration,
    /// Stream time after `window` in which predictions and outcomes are still kept, for records that arrive late.
    #[serde(default = "one_day", with = "humantime_serde")]
    pub grace: Duration,
    /// Treatment of a second, different outcome for the same prediction.
    #[serde(default)]
    pub conflict: ConflictPolicy,
    /// Predictions of a respondent inside the window that an outcome is joined with.
    #[serde(default)]
    pub learn_from: LearnFrom,
    /// Treatment of a prediction whose window and grace pass without an outcome.
    #[serde(default, deserialize_with = "text::unlabelled")]
    pub unlabelled: UnlabelledPolicy,
    /// When a prediction with an outcome becomes a labelled example. Unset: `"on_close"` if `unlabelled` has a label, else
    /// `"on_update"`. See [Concepts](concepts.md#outcomes).
    pub emit: Option<Emit>,
    /// Maximum number of predictions of one respondent that wait for outcomes inside one window; at least 1. Above it, new
    /// predictions are not kept with `learn_from = "first"`, else the oldest is dropped
    /// (`foretell_predictions_not_kept_total`).
    #[serde(default = "default_predictions_max")]
    pub predictions_max: usize,
}

impl RawOutcomes {
    /// The settings of the outcome join.
    pub(super) fn settings(&self) -> JoinSettings {
        JoinSettings {
            window: self.window,
            grace: self.grace,
            conflict: self.conflict,
            learn_from: self.learn_from,
            predictions_max: self.predictions_max,
            emit: self.emit.unwrap_or_else(|| Emit::default_for(&self.unlabelled)),
            unlabelled: self.unlabelled.clone(),
            classes: self.labels.clone(),
        }
    }
}

fn default_predictions_max() -> usize {
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
    /// Answers that are not used as features. They are published with the prediction.
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

/// Treatment of observations that the model was not fitted for: a feature is missing, or of another kind.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(test, derive(Serialize))]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawContract {
    /// Treatment of such an observation.
    pub policy: ContractPolicy,
    /// Share of observations without an answer from which a feature that most training examples had is reported as
    /// `mostly_missing`: above 0 and up to 1.
    pub mostly_missing: f64,
    /// Number of observations of one task that the share is computed over; at least 1.
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
    /// Token for requests that change something or score, and that read what is stored about respondents, dead letters included
    /// (`Authorization: Bearer …`). Unset: requests need no token.
    pub bearer_token: Option<Secret>,
    /// Token for requests that only read. If it is set, they need it or `bearer_token`, which must be set too; probes and
    /// `/metrics` need none. Unset: only reading about respondents needs a token.
    pub read_token: Option<Secret>,
    /// Allows a `bind` that other hosts can reach without `bearer_token`. Foretell refuses that otherwise. Set it where only
    /// trusted hosts can reach the address, such as a container whose port is published on loopback.
    pub insecure: bool,
    pub tls: Option<TlsSettings>,
    /// Further host names that the headers `Host` and `Origin` of a request without a token may have, besides loopback and the
    /// bind address. `"*"`: any. Not checked if `read_token` is set.
    pub allowed_hosts: Vec<String>,
    /// Time limit for a client to send the head of a request, to send its body, and to receive each part of a response; at
    /// least 1 ms.
    #[serde(with = "humantime_serde")]
    pub read_timeout: Duration,
    /// Maximum number of open connections; at least 1. Further ones get status 503. Foretell raises its limit on open files as
    /// far as the system allows.
    pub connections_max: usize,
    /// Maximum number of requests that wait for a prediction; at least 1. Further ones get status 503.
    pub waits_max: usize,
    /// Maximum number of open streams of the [dashboard](dashboard.md), one for each page that is visible; at least 1. Further
    /// ones get status 503.
    pub streams_max: usize,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            bind: "127.0.0.1:8000".to_owned(),
            bearer_token: None,
            read_token: None,
            insecure: false,
            tls: None,
            allowed_hosts: Vec::new(),
            read_timeout: Duration::from_secs(10),
            connections_max: 2000,
            waits_max: 1000,
            streams_max: 100,
        }
    }
}

/// TLS of the HTTP server. Without it, it serves plain HTTP. The files are read again when they change: a renewed certificate
/// needs no restart.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(test, derive(Serialize))]
#[serde(deny_unknown_fields)]
pub struct TlsSettings {
    /// File with the certificate of the server and those that sign it (PEM), a path from the configuration's folder.
    pub certificate_file: PathBuf,
    /// File with the key of the certificate (PEM, without a password), a path from the configuration's folder.
    pub key_file: PathBuf,
}

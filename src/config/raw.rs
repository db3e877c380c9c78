//! The configuration as it is written: every key, its default, and what it means.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    config::{Secret, text},
    processors::{
        contract::ContractPolicy,
        gather::ScoreWhen,
        outcome_join::{ConflictPolicy, LearnFrom, UnlabelledPolicy},
        training_log::InitialPolicy,
    },
};
use foretell_ml::{
    CalendarPart, Scaling,
    training::{Space, TuningSettings},
};
use foretell_streams::runtime::broker::ProcessingGuarantee;

/// A whole `foretell.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawConfig {
    pub application: RawApplication,
    #[serde(default)]
    pub broker: RawBroker,
    #[serde(default)]
    pub schema_registry: RawRegistry,
    #[serde(default)]
    pub topics: RawTopics,
    #[serde(default)]
    pub streams: RawStreams,
    pub events: RawEvents,
    #[serde(default)]
    pub scoring: RawScoring,
    pub outcomes: RawOutcomes,
    #[serde(default)]
    pub features: RawFeatures,
    #[serde(default)]
    pub learning: RawLearning,
    #[serde(default)]
    pub tuning: RawTuning,
    #[serde(default)]
    pub data: RawData,
    #[serde(default)]
    pub http: RawHttp,
}

/// Who we are.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawApplication {
    /// Names the consumer groups, the transactional ids and the changelogs.
    pub id: String,
    /// Names this process among those of the application; it must be its own. Default: the host's name.
    #[serde(default)]
    pub instance: Option<String>,
}

/// Where the broker is.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawBroker {
    pub bootstrap_servers: String,
    #[serde(with = "humantime_serde")]
    pub session_timeout: Duration,
    #[serde(with = "humantime_serde")]
    pub transaction_timeout: Duration,
    /// Holds the token that we show by SASL/OAUTHBEARER; a path from this file's folder. It is read again when the
    /// token is about to end.
    pub token_file: Option<PathBuf>,
    /// Handed to librdkafka as they are: security, above all, so that each is treated as a secret.
    pub properties: BTreeMap<String, Secret>,
}

impl Default for RawBroker {
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

/// Where the schema registry is.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawRegistry {
    pub url: String,
    pub username: Option<String>,
    pub password: Option<Secret>,
    pub bearer_token: Option<Secret>,
    /// Certificates (PEM) of whoever may sign the registry's, besides those that the system trusts.
    pub ca_file: Option<PathBuf>,
    /// Our own certificate (PEM, with its chain), for a registry that asks for one (mTLS).
    pub certificate_file: Option<PathBuf>,
    /// Its key (PEM, PKCS#8, without a password).
    pub key_file: Option<PathBuf>,
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// How long a record waits whose schema the registry does not know (yet), before it is set aside.
    #[serde(with = "humantime_serde")]
    pub unknown_id_wait: Duration,
    /// A folder in which what the registry said is kept for when it is away; a path from this file's folder.
    /// Default: `schemas` in `[streams] state_dir`, if that is set.
    pub cache_dir: Option<PathBuf>,
}

impl Default for RawRegistry {
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

/// What the topics are called, and how many partitions they have.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawTopics {
    pub prefix: String,
    pub partitions: u32,
}

impl Default for RawTopics {
    fn default() -> Self {
        Self { prefix: String::new(), partitions: 6 }
    }
}

/// How the stream is processed.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawStreams {
    pub processing_guarantee: ProcessingGuarantee,
    #[serde(with = "humantime_serde")]
    pub commit_interval: Duration,
    pub commit_records_max: usize,
    /// How long a task that begins waits for an input that has more, and does not send it.
    #[serde(with = "humantime_serde")]
    pub max_task_idle: Duration,
    /// How far stream time may run ahead of the clock.
    #[serde(with = "humantime_serde")]
    pub clock_tolerance: Duration,
    /// When nothing has come to a task for so long, its stream time goes on with the clock.
    #[serde(with = "humantime_serde")]
    pub quiet_after: Duration,
    /// Worker threads that score.
    pub threads: u32,
    /// Keeps what tasks remember on disk, in this folder, so that there may be more of it than memory, and a
    /// restart reads only what came since. Default: in memory.
    pub state_dir: Option<PathBuf>,
    /// Keeps warm copies of what the tasks of other instances remember, so that a task that comes here has
    /// little to read. They are on disk.
    pub standby: bool,
}

impl Default for RawStreams {
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

/// What an event looks like.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawEvents {
    /// The Avro schema; a path from this file's folder.
    pub schema: PathBuf,
    /// Its field that says who.
    pub respondent_id: String,
    /// Its field that says when.
    pub event_time: String,
    /// Its field that names the event, if it has one.
    #[serde(default)]
    pub event_id: Option<String>,
    /// Its field that says that the respondent has submitted, if it has one.
    #[serde(default)]
    pub completed: Option<String>,
    /// Fields that are neither these nor answers.
    #[serde(default)]
    pub ignored: Vec<String>,
    /// Texts and numbers that say that there is no answer, wherever they come from: events, JSON, tables.
    #[serde(default, deserialize_with = "text::many")]
    pub missing: Vec<String>,
    /// An event or an outcome further ahead of the clock goes to the dead letters.
    #[serde(default = "one_day", with = "humantime_serde")]
    pub time_ahead_max: Duration,
    /// One further behind the clock, too. Default: none is.
    #[serde(default, with = "humantime_serde")]
    pub time_behind_max: Option<Duration>,
    /// An event that comes again within so much event time is a repeat: it is counted, and not used again. 0s: never.
    #[serde(default = "one_day", with = "humantime_serde")]
    pub duplicates_within: Duration,
}

fn one_day() -> Duration {
    Duration::from_secs(24 * 60 * 60)
}

/// When to score.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawScoring {
    pub when: ScoreWhen,
    /// An unfinished observation is forgotten after this much event time without an event.
    #[serde(with = "humantime_serde")]
    pub retention: Duration,
}

impl Default for RawScoring {
    fn default() -> Self {
        Self { when: ScoreWhen::Complete, retention: one_day() }
    }
}

/// What may turn out to be true, and how long we wait for it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawOutcomes {
    /// In order; of two, the second is the one whose probability matters. Numbers and booleans are their texts.
    #[serde(deserialize_with = "text::many")]
    pub labels: Vec<String>,
    #[serde(default = "thirty_days", with = "humantime_serde")]
    pub window: Duration,
    #[serde(default = "one_day", with = "humantime_serde")]
    pub grace: Duration,
    #[serde(default)]
    pub conflict: ConflictPolicy,
    #[serde(default)]
    pub learn_from: LearnFrom,
    #[serde(default, deserialize_with = "text::unlabelled")]
    pub unlabelled: UnlabelledPolicy,
    /// Predictions of one respondent that wait for outcomes at most, inside one window: what one event costs is bounded,
    /// whatever a kiosk sends under one name.
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
#[serde(deny_unknown_fields, default)]
pub struct RawFeatures {
    /// Answers that are published but not learned from.
    pub ignored: Vec<String>,
    /// Numbers that are to be read as categories.
    pub categorical: Vec<String>,
    /// Texts that are to be read as numbers.
    pub numeric: Vec<String>,
    pub scaling: Scaling,
    pub crossed: Vec<(String, String)>,
    /// Parts of dates and times that are features of their own, by answer.
    pub calendar: BTreeMap<String, Vec<CalendarPart>>,
    pub contract: RawContract,
}

/// What is done about events that are not as those that the model was fitted on.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawContract {
    pub policy: ContractPolicy,
    /// From this share of observations without an answer on, a feature that training mostly had is an alarm.
    pub mostly_missing: f64,
    /// Over how many observations of a task that is looked at.
    pub window: u64,
}

impl Default for RawContract {
    fn default() -> Self {
        Self { policy: ContractPolicy::GoOn, mostly_missing: 0.9, window: 1000 }
    }
}

/// When to learn, and from what.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawLearning {
    /// N: new labelled examples between two trainings.
    pub retrain_after: u64,
    /// The newest examples from the stream that are learned from; all if unset.
    pub stream_examples_max: Option<usize>,
    /// What becomes of the initial data.
    pub initial: InitialPolicy,
    pub seed: u64,
}

impl Default for RawLearning {
    fn default() -> Self {
        Self {
            retrain_after: 10_000,
            stream_examples_max: None,
            initial: InitialPolicy::Keep,
            seed: 42,
        }
    }
}

/// How the first model is tuned.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawTuning {
    pub trials: u32,
    /// No trial is started after this time, and the one under way is given up.
    #[serde(with = "humantime_serde")]
    pub time: Duration,
    pub folds: u32,
    /// Threads that train folds side by side.
    pub threads: u32,
    pub iterations_max: u32,
    pub early_stopping_rounds: u32,
    pub space: Space,
}

impl Default for RawTuning {
    fn default() -> Self {
        Self {
            trials: 30,
            time: Duration::from_secs(120),
            folds: 5,
            threads: 2,
            iterations_max: 800,
            early_stopping_rounds: 25,
            space: Space::default(),
        }
    }
}

impl RawTuning {
    /// The study that they ask for.
    #[must_use]
    pub fn settings(&self) -> TuningSettings {
        TuningSettings {
            folds: self.folds,
            trials: self.trials,
            space: self.space.clone(),
            threads: self.threads,
            iterations_max: self.iterations_max,
            early_stopping_rounds: self.early_stopping_rounds,
            ..TuningSettings::default()
        }
    }
}

/// Data on disk.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawData {
    /// What the first model learns from.
    pub initial: Option<RawTable>,
    /// What `send` and `demo` play.
    pub play: Option<RawTable>,
}

/// A table of answers and labels, as text; gzip if its name ends in `.gz`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RawTable {
    /// A path from this file's folder.
    pub path: PathBuf,
    /// The names of the columns, in order, of a table without a header; unset: the first line names them. An empty name
    /// is a column not used.
    #[serde(default, deserialize_with = "text::many")]
    pub columns: Vec<String>,
    /// Columns, by name, that are not used.
    #[serde(default, deserialize_with = "text::many")]
    pub skip: Vec<String>,
    /// The column that holds the label.
    #[serde(deserialize_with = "text::one")]
    pub label: String,
    #[serde(default = "comma")]
    pub delimiter: char,
    /// A line that begins with it is skipped.
    #[serde(default)]
    pub comment: Option<char>,
    /// Texts that mean that there is no answer.
    #[serde(default, deserialize_with = "text::many")]
    pub missing: Vec<String>,
    /// What to cut off the end of a label.
    #[serde(default, deserialize_with = "text::one")]
    pub label_suffix: String,
}

fn comma() -> char {
    ','
}

/// Where health, metrics and the API are served.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawHttp {
    pub bind: String,
    /// Guards what changes something; without one, that is open to whoever reaches the address.
    pub bearer_token: Option<Secret>,
    /// Names under which clients may reach us while there is no token, besides loopback's and the bind address;
    /// `"*"`: any.
    pub allowed_hosts: Vec<String>,
    /// How long a client may take to send a request's head, then its body, and to take each part of an answer.
    #[serde(with = "humantime_serde")]
    pub read_timeout: Duration,
    /// Connections at one time; more are answered with 503.
    pub connections_max: usize,
    /// Requests that wait for a prediction at one time; more are answered with 503.
    pub waits_max: usize,
}

impl Default for RawHttp {
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

//! The one table of topics, and the consumer groups that read them. Everything else that lists topics derives from it:
//! what `foretell init` creates and registers, what `foretell doctor` and `foretell schema` check, the codecs,
//! `redpanda/topics.tsv` and the table in `docs/concepts.md`.
//!
//! To add a topic: a row in [`TOPICS`], a folder in `schemas/` with its record type in this module, and `make docs`.

use std::time::Duration;

use serde::Serialize;

use crate::events::{
    action::Action, answered::AnsweredRecord as _, command::Command, decision::Decision,
    labelled_example::LabelledExample, model::Model, outcome::Outcome, prediction::Prediction,
    quality::Quality, trial::Trial,
};
use foretell_avro::codec::AvroRecord as _;
use foretell_streams::{
    record::Topic,
    runtime::broker::{Cleanup, TopicSpec},
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Keeps records long enough to process a month again.
const ONE_MONTH: Cleanup = Cleanup::Delete { retention: Some(DAY.saturating_mul(30)) };

/// The learner sums up window summaries within seconds, or after an outage.
const TWO_DAYS: Cleanup = Cleanup::Delete { retention: Some(DAY.saturating_mul(2)) };

/// The newest record of each window, for a month.
const NEWEST_OF_ONE_MONTH: Cleanup = Cleanup::CompactDelete { retention: DAY.saturating_mul(30) };

/// The newest report of each instance. One that has ended without a stop is shown for an hour.
const NEWEST_OF_ONE_HOUR: Cleanup =
    Cleanup::CompactDelete { retention: Duration::from_secs(60 * 60) };

/// An HTTP request waits for its reply for at most one minute.
const ONE_HOUR: Cleanup = Cleanup::Delete { retention: Some(Duration::from_secs(60 * 60)) };

const FOREVER: Cleanup = Cleanup::Delete { retention: None };

/// A model is one record: a compressed bundle with thousands of trees has some megabytes.
const MODEL_BYTES_MAX: u32 = 16 * 1024 * 1024;

/// The default limit of the topics that a dead-lettered record comes from (1 MiB), and as much again for the headers
/// that describe the error.
const DEAD_LETTER_BYTES_MAX: u32 = 2 * 1024 * 1024;

/// A store's value is made of records, and may be larger than each of them.
const CHANGELOG_BYTES_MAX: u32 = 16 * 1024 * 1024;

/// The declaration of one topic.
#[derive(Clone, Copy, Debug)]
pub struct TopicDefinition {
    /// The name, without the configured prefix.
    pub name: &'static str,
    /// The content of the record keys.
    pub key: &'static str,
    /// The Avro schema of the record values.
    pub schema: ValueSchema,
    /// The number of partitions.
    pub partitions: Partitions,
    /// `cleanup.policy` and `retention.ms`.
    pub cleanup: Cleanup,
    /// `max.message.bytes`, or none for the broker's default.
    pub message_bytes_max: Option<u32>,
    /// Every client that produces to the topic.
    pub written_by: &'static [Client],
    /// Every client that consumes the topic.
    pub read_by: &'static [Client],
    /// One sentence about the records, without a full stop.
    pub holds: &'static str,
}

/// The Avro schema of a topic's record values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueSchema {
    /// The event schema that the configuration names. `folder` has the one of the worked example.
    Configured {
        /// The folder in `schemas/`.
        folder: &'static str,
    },
    /// The schema of a record type of this program.
    Own {
        /// The folder in `schemas/`.
        folder: &'static str,
        /// The newest version.
        text: &'static str,
    },
    /// The schema of a record type of this program with the answers, derived from the event schema.
    Answered {
        /// The folder in `schemas/`.
        folder: &'static str,
        /// The newest version, whose record of the answers is without fields.
        template: &'static str,
    },
    /// The values are not Avro, or not of one schema.
    None,
}

impl ValueSchema {
    /// The folder in `schemas/`, if the values have a schema.
    #[must_use]
    pub fn folder(self) -> Option<&'static str> {
        match self {
            Self::Configured { folder }
            | Self::Own { folder, .. }
            | Self::Answered { folder, .. } => Some(folder),
            Self::None => None,
        }
    }
}

/// The number of partitions of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Partitions {
    /// `[topics] partitions`: the topic is keyed by respondent and co-partitioned with the events.
    Configured,
    /// One partition, so that its records have one order.
    One,
}

/// A writer or a reader of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// Producers outside Foretell, and `foretell send`.
    Producers,
    /// Consumers outside Foretell.
    Consumers,
    /// Requests to the HTTP API of an instance.
    HttpApi,
    /// The members of a consumer group.
    Group(Group),
    /// Every instance, without a consumer group.
    EveryInstance,
    /// `foretell init`.
    Init,
    /// `foretell retrain` and `foretell models`.
    CommandLine,
    /// The members of the group of `foretell deliver`.
    Delivery,
    /// The members of the group that sends to MLflow.
    Tracking,
}

impl Client {
    /// The client as the documentation names it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Producers => "your producers",
            Self::Consumers => "your consumers",
            Self::HttpApi => "the HTTP API",
            Self::Group(group) => group.suffix(),
            Self::EveryInstance => "every instance",
            Self::Init => "`init`",
            Self::CommandLine => "`retrain` and `models`",
            Self::Delivery => "`deliver`",
            Self::Tracking => "tracking in MLflow",
        }
    }
}

/// A consumer group of the application. Its topology and the topology's changelogs have the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Scores events and joins outcomes.
    Scoring,
    /// Counts labelled examples and trains models.
    Learning,
}

impl Group {
    /// All groups.
    pub const ALL: [Self; 2] = [Self::Scoring, Self::Learning];

    /// The last part of the name.
    #[must_use]
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Scoring => "scoring",
            Self::Learning => "learning",
        }
    }

    /// The name in `application`.
    #[must_use]
    pub fn name(self, application: &str) -> String {
        format!("{application}-{}", self.suffix())
    }

    /// The topics that the group subscribes to.
    #[must_use]
    pub fn inputs(self, topics: &Topics) -> Vec<Topic> {
        let inputs = topics.rows().filter(|(row, _)| row.read_by.contains(&Client::Group(self)));
        inputs.map(|(_, topic)| topic.clone()).collect()
    }

    /// The number of tasks: the partitions of each input, and of each changelog. `partitions` is the configured number.
    #[must_use]
    pub fn tasks(self, partitions: u32) -> u32 {
        match self {
            Self::Scoring => partitions,
            Self::Learning => 1,
        }
    }

    /// The changelog topic `name` of one of the group's stores, as it is created.
    #[must_use]
    pub fn changelog(self, name: Topic, partitions: u32) -> TopicSpec {
        TopicSpec {
            name,
            partitions: self.tasks(partitions),
            cleanup: Cleanup::Compact,
            message_bytes_max: Some(CHANGELOG_BYTES_MAX),
        }
    }
}

/// Declares [`TopicTable`] and [`TOPICS`]. A macro, so that one row is all that a topic needs: from it come the field
/// that code names the topic by, its definition and its place in [`TopicTable::all`].
macro_rules! topics {
    ($($topic:ident: $definition:expr,)+) => {
        /// One `T` for each topic.
        #[derive(Clone, Debug, PartialEq, Eq, Serialize)]
        pub struct TopicTable<T> {
            $(
                #[doc = concat!("For the row `", stringify!($topic), "` of [`TOPICS`].")]
                pub $topic: T,
            )+
            /// For each companion of the events, in the order of the configuration. [`TOPICS`] has none: they are declared as
            /// the events.
            pub companions: Vec<T>,
        }

        /// Every topic of an application, except the changelogs, which follow from the stores of the topologies.
        pub static TOPICS: TopicTable<TopicDefinition> =
            TopicTable { $($topic: $definition,)+ companions: Vec::new() };

        impl<T> TopicTable<T> {
            /// Every entry, in the order of [`TOPICS`], without the companions.
            #[must_use]
            pub fn all(&self) -> Vec<&T> {
                vec![$(&self.$topic),+]
            }

            pub(in crate::events) fn map<U>(&self, convert: impl Fn(&T) -> U) -> TopicTable<U> {
                let companions = self.companions.iter().map(&convert).collect();
                TopicTable { $($topic: convert(&self.$topic),)+ companions }
            }
        }
    };
}

topics! {
    questionnaire_events: TopicDefinition {
        name: "questionnaire-events",
        key: "respondent id",
        schema: ValueSchema::Configured { folder: "questionnaire-event" },
        partitions: Partitions::Configured,
        cleanup: ONE_MONTH,
        message_bytes_max: None,
        written_by: &[Client::Producers, Client::HttpApi],
        read_by: &[Client::Group(Group::Scoring)],
        holds: "events: some or all answers of one respondent, in your schema",
    },
    outcomes: TopicDefinition {
        name: "outcomes",
        key: "respondent id",
        schema: ValueSchema::Own { folder: "outcome", text: Outcome::SCHEMA },
        partitions: Partitions::Configured,
        cleanup: ONE_MONTH,
        message_bytes_max: None,
        written_by: &[Client::Producers, Client::HttpApi],
        read_by: &[Client::Group(Group::Scoring)],
        holds: "outcomes: the true class of a respondent, and its time",
    },
    predictions: TopicDefinition {
        name: "predictions",
        key: "respondent id",
        schema: ValueSchema::Answered { folder: "prediction", template: Prediction::TEMPLATE },
        partitions: Partitions::Configured,
        cleanup: ONE_MONTH,
        message_bytes_max: None,
        written_by: &[Client::Group(Group::Scoring)],
        read_by: &[Client::Consumers],
        holds: "predictions: the probability of each class, with the model version and the answers as scored",
    },
    actions: TopicDefinition {
        name: "actions",
        key: "respondent id",
        schema: ValueSchema::Answered { folder: "action", template: Action::TEMPLATE },
        partitions: Partitions::Configured,
        cleanup: ONE_MONTH,
        message_bytes_max: None,
        written_by: &[Client::Group(Group::Scoring)],
        read_by: &[Client::Delivery, Client::Consumers],
        holds: "actions about predictions: requested, cancelled, or held out as a control",
    },
    replies: TopicDefinition {
        name: "replies",
        key: "respondent id",
        schema: ValueSchema::None,
        partitions: Partitions::Configured,
        cleanup: ONE_HOUR,
        message_bytes_max: None,
        written_by: &[Client::Group(Group::Scoring)],
        read_by: &[Client::HttpApi],
        holds: "results of events that ask for a reply (HTTP with `wait=true`), and answers to questions",
    },
    queries: TopicDefinition {
        name: "queries",
        key: "respondent id",
        schema: ValueSchema::None,
        partitions: Partitions::Configured,
        cleanup: ONE_HOUR,
        message_bytes_max: None,
        written_by: &[Client::HttpApi],
        read_by: &[Client::Group(Group::Scoring)],
        holds: "questions about respondents (`GET /api/v1/respondents/{id}`); internal",
    },
    // The training set of a model is every record before one offset, so there is one partition.
    labelled_examples: TopicDefinition {
        name: "labelled-examples",
        key: "respondent id",
        schema: ValueSchema::Answered {
            folder: "labelled-example",
            template: LabelledExample::TEMPLATE,
        },
        partitions: Partitions::One,
        cleanup: FOREVER,
        message_bytes_max: None,
        written_by: &[Client::Init, Client::Group(Group::Scoring)],
        read_by: &[Client::Group(Group::Learning)],
        holds: "the training log: the initial data, then labelled examples",
    },
    models: TopicDefinition {
        name: "models",
        key: "model version, or alias",
        schema: ValueSchema::Own { folder: "model", text: Model::SCHEMA },
        partitions: Partitions::One,
        cleanup: Cleanup::Compact,
        message_bytes_max: Some(MODEL_BYTES_MAX),
        written_by: &[Client::Init, Client::Group(Group::Learning), Client::CommandLine],
        read_by: &[Client::EveryInstance, Client::CommandLine, Client::Tracking],
        holds: "model bundles, and the aliases `champion`, `challenger` and `predecessor`",
    },
    trials: TopicDefinition {
        name: "trials",
        key: "study/number",
        schema: ValueSchema::Own { folder: "trial", text: Trial::SCHEMA },
        partitions: Partitions::One,
        cleanup: Cleanup::Compact,
        message_bytes_max: None,
        written_by: &[Client::Init, Client::Group(Group::Learning)],
        read_by: &[Client::Init, Client::EveryInstance, Client::Tracking],
        holds: "trials of the hyper-parameter tuning, with their scores",
    },
    commands: TopicDefinition {
        name: "commands",
        key: "command id",
        schema: ValueSchema::Own { folder: "command", text: Command::SCHEMA },
        partitions: Partitions::One,
        cleanup: ONE_MONTH,
        message_bytes_max: None,
        written_by: &[Client::HttpApi, Client::CommandLine, Client::Group(Group::Learning)],
        read_by: &[Client::Group(Group::Learning)],
        holds: "requests to the learner: retrain, promote, roll back, with the reason",
    },
    decisions: TopicDefinition {
        name: "decisions",
        key: "decision id",
        schema: ValueSchema::Own { folder: "decision", text: Decision::SCHEMA },
        partitions: Partitions::One,
        cleanup: FOREVER,
        message_bytes_max: None,
        written_by: &[Client::Group(Group::Learning)],
        read_by: &[Client::Consumers, Client::HttpApi, Client::CommandLine, Client::Tracking],
        holds: "decisions about models, with their numbers: promoted, challenger, refused, rolled back",
    },
    quality: TopicDefinition {
        name: "quality",
        key: "model version/window",
        schema: ValueSchema::Own { folder: "quality", text: Quality::SCHEMA },
        partitions: Partitions::One,
        cleanup: NEWEST_OF_ONE_MONTH,
        message_bytes_max: None,
        written_by: &[Client::Group(Group::Learning)],
        read_by: &[Client::Consumers, Client::Tracking],
        holds: "drift and live metrics of each model, by window of event time",
    },
    // One partition, because the learning task sums up what every scoring task counted.
    window_summaries: TopicDefinition {
        name: "window-summaries",
        key: "model version",
        schema: ValueSchema::None,
        partitions: Partitions::One,
        cleanup: TWO_DAYS,
        message_bytes_max: None,
        written_by: &[Client::Group(Group::Scoring)],
        read_by: &[Client::Group(Group::Learning)],
        holds: "counts of the values that a scoring task scored and of the scores, by window; internal",
    },
    // One partition, because every instance reads all of it.
    instances: TopicDefinition {
        name: "instances",
        key: "instance",
        schema: ValueSchema::None,
        partitions: Partitions::One,
        cleanup: NEWEST_OF_ONE_HOUR,
        message_bytes_max: None,
        written_by: &[Client::EveryInstance],
        read_by: &[Client::EveryInstance],
        holds: "what every instance counts and does, every few seconds, for the [dashboard](dashboard.md); internal",
    },
    dead_letters: TopicDefinition {
        name: "dead-letters",
        key: "key of the input record",
        schema: ValueSchema::None,
        partitions: Partitions::Configured,
        cleanup: ONE_MONTH,
        message_bytes_max: Some(DEAD_LETTER_BYTES_MAX),
        written_by: &[
            Client::Group(Group::Scoring),
            Client::Group(Group::Learning),
            Client::Delivery,
        ],
        read_by: &[Client::Consumers, Client::HttpApi],
        holds: "records that could not be processed, unchanged, with the error in their headers",
    },
}

/// The names of the topics.
pub type Topics = TopicTable<Topic>;

impl Topics {
    /// The names as texts.
    #[must_use]
    pub fn names(&self) -> TopicTable<String> {
        self.map(ToString::to_string)
    }
}

/// The registry's subject of the schema of a topic's values.
#[must_use]
pub fn subject(topic: &Topic) -> String {
    format!("{topic}-value")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_kinds() {
        let topics = Topics::with_prefix("adult.");
        assert_eq!(subject(&topics.outcomes), "adult.outcomes-value");
        let specs = topics.specs(6);
        let shown: Vec<_> =
            specs.iter().map(|spec| (spec.name.to_string(), spec.partitions)).collect();
        let table = include_str!("../../redpanda/topics.tsv");
        let rows = table.lines().filter(|line| !line.starts_with('#'));
        let cells = rows.map(|row| row.split('\t').collect::<Vec<_>>());
        let expected: Vec<_> =
            cells.map(|row| (format!("adult.{}", row[0]), row[1].parse().unwrap_or(6))).collect();
        assert_eq!(shown, expected);
        assert!(shown.contains(&("adult.labelled-examples".to_owned(), 1)), "{shown:?}");
        assert_eq!(specs[6].cleanup, Cleanup::Delete { retention: None });
        assert_eq!(specs[7].cleanup, Cleanup::Compact);
        assert_eq!(specs[7].message_bytes_max, Some(16 << 20));
    }

    #[test]
    fn a_group_reads_its_inputs_with_a_task_for_each_partition() {
        let topics = Topics::with_prefix("adult.");
        let specs = topics.specs(6);
        for group in Group::ALL {
            let inputs = group.inputs(&topics);
            assert!(!inputs.is_empty(), "{group:?}");
            for spec in specs.iter().filter(|spec| inputs.contains(&spec.name)) {
                assert_eq!(spec.partitions, group.tasks(6), "{}", spec.name);
            }
        }
        let inputs = Group::Scoring.inputs(&topics);
        let expected = [&topics.questionnaire_events, &topics.outcomes, &topics.queries];
        assert_eq!(inputs, expected.map(Topic::clone));
    }
}

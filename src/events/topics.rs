//! The table of contents: every topic there is, what it keeps, and the subject of its schema.

use std::time::Duration;

use foretell_streams::{
    record::Topic,
    runtime::broker::{Cleanup, TopicSpec},
};

/// How long records are kept that are only passed on: time enough to replay a month.
const RETENTION: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// A request waits for its reply for a minute at most.
const REPLIES_RETENTION: Duration = Duration::from_secs(60 * 60);

/// A model travels inline: with thousands of trees it has some megabytes, compressed.
const MODEL_BYTES_MAX: u32 = 16 * 1024 * 1024;

/// The largest record that other topics take by default (1 MiB and a little), and as much again for
/// the headers that tell its story.
const DEAD_LETTER_BYTES_MAX: u32 = 2 * 1024 * 1024;

/// The names of the topics. Changelogs are named by the topology that needs them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topics {
    /// Answers as they are given; the lead topic of scoring. Key: respondent id.
    pub questionnaire_events: Topic,
    /// What turned out to be true. Key: respondent id.
    pub outcomes: Topic,
    /// What the models say. Key: respondent id.
    pub predictions: Topic,
    /// What became of the events that callers wait for. Key: respondent id.
    pub replies: Topic,
    /// The training log. Key: respondent id.
    pub labelled_examples: Topic,
    /// Models, and where aliases point. Key: model version, or alias.
    pub models: Topic,
    /// Hyper-parameter trials. Key: study/number.
    pub trials: Topic,
    /// What could not be processed, as it came. Key: as it came.
    pub dead_letters: Topic,
}

impl Topics {
    /// All of them under `prefix`, which may be empty.
    #[must_use]
    pub fn with_prefix(prefix: &str) -> Self {
        let topic = |name: &str| Topic::new(&format!("{prefix}{name}"));
        Self {
            questionnaire_events: topic("questionnaire-events"),
            outcomes: topic("outcomes"),
            predictions: topic("predictions"),
            replies: topic("replies"),
            labelled_examples: topic("labelled-examples"),
            models: topic("models"),
            trials: topic("trials"),
            dead_letters: topic("dead-letters"),
        }
    }

    /// Them as they should be created, with `partitions` for those that are keyed by respondent.
    #[must_use]
    pub fn specs(&self, partitions: u32) -> Vec<TopicSpec> {
        let passing = Cleanup::Delete { retention: Some(RETENTION) };
        let short = Cleanup::Delete { retention: Some(REPLIES_RETENTION) };
        let for_ever = Cleanup::Delete { retention: None };
        let spec = |name: &Topic, partitions, cleanup, message_bytes_max| TopicSpec {
            name: name.clone(),
            partitions,
            cleanup,
            message_bytes_max,
        };
        vec![
            spec(&self.questionnaire_events, partitions, passing, None),
            spec(&self.outcomes, partitions, passing, None),
            spec(&self.predictions, partitions, passing, None),
            spec(&self.replies, partitions, short, None),
            // One partition: one order, so that a training's input is all that is before one offset.
            spec(&self.labelled_examples, 1, for_ever, None),
            spec(&self.models, 1, Cleanup::Compact, Some(MODEL_BYTES_MAX)),
            spec(&self.trials, 1, Cleanup::Compact, None),
            spec(&self.dead_letters, partitions, passing, Some(DEAD_LETTER_BYTES_MAX)),
        ]
    }
}

/// The subject under which the registry holds the schema of a topic's values.
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
            specs.iter().map(|spec| (spec.name.as_str(), spec.partitions)).collect();
        assert_eq!(
            shown,
            [
                ("adult.questionnaire-events", 6),
                ("adult.outcomes", 6),
                ("adult.predictions", 6),
                ("adult.replies", 6),
                ("adult.labelled-examples", 1),
                ("adult.models", 1),
                ("adult.trials", 1),
                ("adult.dead-letters", 6),
            ]
        );
        assert_eq!(specs[4].cleanup, Cleanup::Delete { retention: None });
        assert_eq!(specs[5].cleanup, Cleanup::Compact);
        assert_eq!(specs[5].message_bytes_max, Some(16 << 20));
    }

    /// The same result by `init` as by `redpanda/topics.sh`.
    #[test]
    fn redpanda_makes_the_same_topics() {
        let table = include_str!("../../redpanda/topics.tsv");
        let rows = table.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        let rows: Vec<Vec<&str>> = rows.map(|line| line.split('\t').collect()).collect();
        let specs = Topics::with_prefix("").specs(6);
        assert_eq!(rows.len(), specs.len());
        for (row, spec) in rows.iter().zip(&specs) {
            let partitions =
                if spec.partitions == 6 { "P".to_owned() } else { spec.partitions.to_string() };
            let mut settings = match spec.cleanup {
                Cleanup::Compact => "cleanup.policy=compact".to_owned(),
                Cleanup::Delete { retention } => {
                    let kept =
                        retention.map_or("-1".to_owned(), |kept| kept.as_millis().to_string());
                    format!("cleanup.policy=delete retention.ms={kept}")
                }
                Cleanup::CompactDelete { .. } => panic!("{} is none of these", spec.name),
            };
            if let Some(timestamps) = spec.cleanup.timestamps() {
                settings += &format!(" message.timestamp.type={}", timestamps.name());
            }
            if let Some(bytes) = spec.message_bytes_max {
                settings += &format!(" max.message.bytes={bytes}");
            }
            assert_eq!([row[0], row[1], row[3]], [spec.name.as_str(), &partitions, &settings]);
        }
    }
}

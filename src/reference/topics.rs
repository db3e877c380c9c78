//! The tables of topics and consumer groups in `docs/concepts.md`, and `redpanda/topics.tsv`: from
//! [`crate::events::topics::TOPICS`].

use std::{fs, path::Path, time::Duration};

use crate::{
    events::topics::{Client, Group, Partitions, TOPICS, TopicDefinition, Topics},
    reference::{assert_current, assert_same, head, row},
};
use foretell_streams::runtime::broker::Cleanup;

/// The retention of a topic for a reader.
fn kept(cleanup: Cleanup) -> String {
    match cleanup {
        Cleanup::Delete { retention: Some(retention) } => duration(retention),
        Cleanup::Delete { retention: None } => "for ever".to_owned(),
        Cleanup::Compact => "compacted".to_owned(),
        Cleanup::CompactDelete { retention } => format!("compacted, {}", duration(retention)),
    }
}

fn duration(duration: Duration) -> String {
    let hours = duration.as_secs() / 3600;
    if hours.is_multiple_of(24) { format!("{} days", hours / 24) } else { format!("{hours} h") }
}

fn clients(clients: &[Client]) -> String {
    clients.iter().map(|client| client.name()).collect::<Vec<_>>().join(", ")
}

fn partitions(definition: &TopicDefinition) -> &'static str {
    match definition.partitions {
        Partitions::Configured => "P",
        Partitions::One => "1",
    }
}

#[test]
fn every_topic_is_in_the_docs() {
    let mut table = head(&["topic", "key", "partitions", "kept", "written by", "read by", "holds"]);
    for topic in TOPICS.all() {
        table += &row(&[
            &format!("`{}`", topic.name),
            topic.key,
            partitions(topic),
            &kept(topic.cleanup),
            &clients(topic.written_by),
            &clients(topic.read_by),
            topic.holds,
        ]);
    }
    assert_current("concepts.md", "topics", &table);
}

#[test]
fn every_group_is_in_the_docs() {
    let mut table = head(&["group", "inputs", "tasks", "changelogs"]);
    for group in Group::ALL {
        let name = group.name("<application>");
        let inputs = group.inputs(&Topics::with_prefix(""));
        let inputs = inputs.iter().map(|topic| format!("`{topic}`")).collect::<Vec<_>>();
        let tasks = if group.tasks(2) == 2 { "P" } else { "1" };
        let changelogs = format!("`{name}-<store>-changelog`");
        table += &row(&[&format!("`{name}`"), &inputs.join(", "), tasks, &changelogs]);
    }
    assert_current("concepts.md", "groups", &table);
}

/// `redpanda/topics.sh` creates the same topics as `foretell init`.
#[test]
fn redpanda_creates_the_same_topics() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("redpanda/topics.tsv");
    let found = fs::read_to_string(&path).unwrap();
    let is_comment = |line: &&str| line.starts_with('#');
    let mut expected: String =
        found.lines().take_while(is_comment).map(|line| format!("{line}\n")).collect();
    for (topic, spec) in TOPICS.all().iter().zip(Topics::with_prefix("").specs(6)) {
        let mut settings = match spec.cleanup {
            Cleanup::Compact => "cleanup.policy=compact".to_owned(),
            Cleanup::Delete { retention } => {
                let kept = retention.map_or("-1".to_owned(), |kept| kept.as_millis().to_string());
                format!("cleanup.policy=delete retention.ms={kept}")
            }
            Cleanup::CompactDelete { retention } => {
                format!("cleanup.policy=compact,delete retention.ms={}", retention.as_millis())
            }
        };
        if let Some(timestamps) = spec.cleanup.timestamps() {
            settings += &format!(" message.timestamp.type={}", timestamps.name());
        }
        if let Some(bytes) = spec.message_bytes_max {
            settings += &format!(" max.message.bytes={bytes}");
        }
        let schema = topic.schema.folder().unwrap_or("-");
        let cells = [spec.name.as_str(), partitions(topic), schema, &settings];
        expected += &format!("{}\n", cells.join("\t"));
    }
    assert_same(&path, &found, &expected);
}

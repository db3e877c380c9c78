//! Messages about a topic that was deleted, or whose partitions changed, while an instance used it.

use crate::events::topics::Topics;
use foretell_streams::{record::Topic, runtime::Repartitioned};

/// The message about the deleted topic `gone`, with what to do.
pub(crate) fn deleted(topics: &Topics, gone: &Topic) -> String {
    let what_to_do = if *gone == topics.labelled_examples {
        "recreate it with `foretell init --force`, which writes the initial data and trains a first model, and start again"
    } else if topics.includes(gone) {
        "recreate it with `foretell init`, and start again"
    } else {
        "the content of its store is lost; start again, which creates a new changelog"
    };
    format!("topic {gone} was deleted while it was in use: {what_to_do}")
}

/// The message about topics with other partitions than at the start, with what to do.
pub(crate) fn repartitioned(topics: &[Repartitioned]) -> String {
    let changes = topics.iter().map(|Repartitioned { topic, had, has }| {
        format!("topic {topic} has {has} partitions, it had {had} at the start")
    });
    format!(
        "{}: records would go to other tasks than the stores of their keys. Kafka cannot remove partitions: delete these \
         topics and recreate them with `foretell init`, or set another [topics] prefix and [application] id with the \
         [topics] partitions that you want and run `foretell init`; then start again",
        changes.collect::<Vec<_>>().join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_topic_with_other_partitions_is_named() {
        let topic = |name, had, has| Repartitioned { topic: Topic::new(name), had, has };
        let message = repartitioned(&[topic("a.outcomes", 4, 6), topic("a.predictions", 4, 5)]);
        assert!(message.starts_with("topic a.outcomes has 6 partitions, it had 4"), "{message}");
        assert!(
            message.contains("topic a.predictions has 5") && message.contains("init"),
            "{message}"
        );
    }

    #[test]
    fn the_advice_depends_on_the_kind_of_topic() {
        let topics = Topics::with_prefix("adult.").with_companions("adult.", ["visits"]);
        let check = |gone: &str, expected: &str| {
            let message = deleted(&topics, &Topic::new(gone));
            assert!(message.starts_with(&format!("topic {gone} was deleted")), "{message}");
            assert!(message.contains(expected), "{message}");
        };
        check("adult.outcomes", "`foretell init`, and start again");
        check("adult.visits", "`foretell init`, and start again");
        check("adult.labelled-examples", "init --force");
        check("adult-scoring-outcomes-changelog", "its store is lost");
    }
}

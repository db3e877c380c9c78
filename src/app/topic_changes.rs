//! What to say of a topic that was deleted, or got other partitions, while an instance used it.

use crate::events::topics::Topics;
use foretell_streams::{record::Topic, runtime::Repartitioned};

/// What happened to `gone`, and what to do, in one sentence.
pub(crate) fn sentence(topics: &Topics, gone: &Topic) -> String {
    let what_to_do = if *gone == topics.labelled_examples {
        "make it again with `foretell init --force`, which writes the initial data and learns from it, and start again"
    } else if topics.all().contains(&gone) {
        "make it again with `foretell init`, and start again"
    } else {
        "what a store remembered is lost with it; start again, which makes a new one"
    };
    format!("topic {gone} was deleted while it was in use: {what_to_do}")
}

/// Which topics have other partitions than at the start, and what to do, in one sentence.
pub(crate) fn repartitioned(topics: &[Repartitioned]) -> String {
    let told = topics.iter().map(|Repartitioned { topic, had, has }| {
        format!("topic {topic} has {has} partitions, it had {had} at the start")
    });
    format!(
        "{}: keys would go to other tasks than what those remember. Kafka takes no partitions away: delete what has \
         others and make it again with `foretell init`, or begin anew with another [topics] prefix and [application] id, \
         and [topics] partitions as you want them; then start again",
        told.collect::<Vec<_>>().join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_topic_with_other_partitions_is_named() {
        let topic = |name, had, has| Repartitioned { topic: Topic::new(name), had, has };
        let said = repartitioned(&[topic("a.outcomes", 4, 6), topic("a.predictions", 4, 5)]);
        assert!(said.starts_with("topic a.outcomes has 6 partitions, it had 4"), "{said}");
        assert!(said.contains("topic a.predictions has 5") && said.contains("init"), "{said}");
    }

    #[test]
    fn what_to_do_depends_on_what_it_was() {
        let topics = Topics::with_prefix("adult.");
        let check = |gone: &str, expected: &str| {
            let said = sentence(&topics, &Topic::new(gone));
            assert!(said.starts_with(&format!("topic {gone} was deleted")), "{said}");
            assert!(said.contains(expected), "{said}");
        };
        check("adult.outcomes", "`foretell init`, and start again");
        check("adult.labelled-examples", "init --force");
        check("adult-scoring-outcomes-changelog", "remembered is lost");
    }
}

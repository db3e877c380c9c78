//! What to say of a topic that was deleted while an instance used it.

use crate::{events::topics::Topics, streams::record::Topic};

/// What happened to `gone`, and what to do, in one sentence.
pub(crate) fn sentence(topics: &Topics, gone: &Topic) -> String {
    let what_to_do = if *gone == topics.labelled_examples {
        "make it again with `foretell init --force`, which writes the initial data and learns from it, and start again"
    } else if topics.specs(1).iter().any(|spec| spec.name == *gone) {
        "make it again with `foretell init`, and start again"
    } else {
        "what a store remembered is lost with it; start again, which makes a new one"
    };
    format!("topic {gone} was deleted while it was in use: {what_to_do}")
}

#[cfg(test)]
mod tests {
    use super::*;

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

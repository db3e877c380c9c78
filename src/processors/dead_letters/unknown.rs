//! Names that select no letter because they are misspelt: a class or a topic that there is not.

use std::collections::BTreeSet;

use crate::{
    events::similar_name,
    processors::{
        dead_letters::{DeadLetters, Wanted, letter::Entry},
        metrics::DEAD_LETTER_CLASSES,
    },
};
use foretell_streams::{
    record::Topic,
    runtime::broker::{BrokerError, ReadFrom},
};

/// The classes of `foretell deliver`, in addition to those of instances.
pub const DELIVERY_CLASSES: [&str; 5] = [
    "refused_delivery",
    "failed_delivery",
    "expired_action",
    "malformed_address",
    "unrenderable_email",
];

/// Maximum number of names in a message.
const NAMED_MAX: usize = 50;

/// Reasons why letters cannot be listed or replayed.
#[derive(Debug, thiserror::Error)]
pub enum DeadLettersError {
    /// A class that is none of Foretell's, and has no letter.
    #[error(
        "there is no class {class:?} of dead letters{}; there are {}",
        similar_name::hint(class, known), known.join(", ")
    )]
    UnknownClass {
        /// The class.
        class: String,
        /// Those that there are.
        known: Vec<String>,
    },
    /// A topic that does not exist, and of whose records there is no letter.
    #[error(
        "topic {topic:?} does not exist, and no dead letter is of it{}; {}",
        similar_name::hint(topic, known),
        of_letters(known)
    )]
    UnknownTopic {
        /// The topic.
        topic: String,
        /// Those of the letters.
        known: Vec<String>,
    },
    /// The broker failed.
    #[error(transparent)]
    Broker(#[from] BrokerError),
}

fn of_letters(topics: &[String]) -> String {
    match topics {
        [] => "there are no dead letters".to_owned(),
        topics => format!("there are dead letters of {}", topics.join(", ")),
    }
}

/// The classes that this release writes.
fn classes() -> impl Iterator<Item = &'static str> {
    DEAD_LETTER_CLASSES.into_iter().chain(DELIVERY_CLASSES)
}

impl Wanted {
    /// The first class that this release does not write, as an error. A letter of another client or release may have it.
    #[must_use]
    pub fn unknown_class(&self) -> Option<DeadLettersError> {
        let class = self.classes.iter().find(|class| !classes().any(|known| known == **class))?;
        let known = BTreeSet::from_iter(classes()).into_iter().map(ToOwned::to_owned).collect();
        Some(DeadLettersError::UnknownClass { class: class.clone(), known })
    }
}

impl DeadLetters {
    /// Checks that every class and topic of `wanted` is a known one, or that of a letter: other clients and releases may write
    /// other classes. The letters are read only for those that are not known without.
    pub(super) fn check_names(&self, wanted: &Wanted) -> Result<(), DeadLettersError> {
        let is_known = |class: &&String| classes().any(|known| known == **class);
        let new_classes: Vec<&String> =
            wanted.classes.iter().filter(|class| !is_known(class)).collect();
        let mut gone_topics = Vec::new();
        for topic in &wanted.topics {
            if self.broker.partitions(&Topic::new(topic))?.is_none() {
                gone_topics.push(topic);
            }
        }
        if new_classes.is_empty() && gone_topics.is_empty() {
            return Ok(());
        }
        let (mut classes, mut topics) = (BTreeSet::new(), BTreeSet::new());
        let add = |names: &mut BTreeSet<String>, name: String, is_wanted: bool| {
            // One that is asked for is never left out.
            if is_wanted || names.len() < NAMED_MAX {
                names.insert(name);
            }
        };
        for partition in self.partitions()? {
            self.visit(partition, ReadFrom::Beginning, &mut |entry| {
                let Entry::Letter(letter) = entry else { return };
                let described = letter.described;
                let is_wanted = wanted.classes.contains(&described.class);
                add(&mut classes, described.class, is_wanted);
                let is_wanted = wanted.topics.contains(&described.topic);
                add(&mut topics, described.topic, is_wanted);
            })?;
        }
        if let Some(class) = new_classes.into_iter().find(|class| !classes.contains(*class)) {
            classes.extend(self::classes().map(ToOwned::to_owned));
            let known = classes.into_iter().collect();
            return Err(DeadLettersError::UnknownClass { class: class.clone(), known });
        }
        if let Some(topic) = gone_topics.into_iter().find(|topic| !topics.contains(*topic)) {
            let known = topics.into_iter().collect();
            return Err(DeadLettersError::UnknownTopic { topic: topic.clone(), known });
        }
        Ok(())
    }
}

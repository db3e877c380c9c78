//! The topics of one application: their names, and what each is created and registered with. The companions of the events are
//! among them, which the configuration names; the others are in [`TOPICS`].

use std::borrow::Cow;

use crate::events::{
    questionnaire::EventSchemas,
    topics::{Client, Partitions, TOPICS, TopicDefinition, Topics, ValueSchema},
};
use foretell_streams::{record::Topic, runtime::broker::TopicSpec};

impl Topics {
    /// The names with `prefix`, which may be empty.
    #[must_use]
    pub fn with_prefix(prefix: &str) -> Self {
        TOPICS.map(|definition| Topic::new(&format!("{prefix}{}", definition.name)))
    }

    /// The same topics with companions of the events, named without the prefix.
    #[must_use]
    pub fn with_companions<'n>(
        self,
        prefix: &str,
        names: impl IntoIterator<Item = &'n str>,
    ) -> Self {
        let topic = |name: &str| Topic::new(&format!("{prefix}{name}"));
        Self { companions: names.into_iter().map(topic).collect(), ..self }
    }

    /// The topics with events: the lead, and its companions.
    pub fn of_events(&self) -> impl Iterator<Item = &Topic> {
        [&self.questionnaire_events].into_iter().chain(&self.companions)
    }

    /// The index of the topic with events that has this name, with the prefix or without it, in [`Self::of_events`].
    ///
    /// # Errors
    /// A message with the known names.
    pub fn source_named(&self, schemas: &EventSchemas, name: &str) -> Result<usize, String> {
        let plain: Vec<&str> =
            [TOPICS.questionnaire_events.name].into_iter().chain(schemas.companions()).collect();
        let mut sources = plain.iter().zip(self.of_events());
        let found = sources.position(|(plain, topic)| topic.as_str() == name || *plain == name);
        found.ok_or_else(|| format!("no topic {name} has events: there are {}", plain.join(", ")))
    }

    /// Every topic with its definition. A companion has that of the lead, and comes after it.
    pub(in crate::events) fn rows(
        &self,
    ) -> impl Iterator<Item = (&'static TopicDefinition, &Topic)> {
        let rows = TOPICS.all().into_iter().zip(self.all());
        rows.flat_map(|(row, topic)| {
            let is_lead = *topic == self.questionnaire_events;
            let companions = if is_lead { self.companions.as_slice() } else { &[] };
            [topic].into_iter().chain(companions).map(move |topic| (row, topic))
        })
    }

    /// The topics to create, with `partitions` for those that are keyed by respondent.
    #[must_use]
    pub fn specs(&self, partitions: u32) -> Vec<TopicSpec> {
        let specs = self.rows().map(|(definition, name)| TopicSpec {
            name: name.clone(),
            partitions: match definition.partitions {
                Partitions::Configured => partitions,
                Partitions::One => 1,
            },
            cleanup: definition.cleanup,
            message_bytes_max: definition.message_bytes_max,
        });
        specs.collect()
    }

    /// The topics whose values have a schema, each with the newest version of it. `events` are the configured ones, in the order
    /// of [`Self::of_events`].
    #[must_use]
    pub fn schemas<'t>(&'t self, events: &'t EventSchemas) -> Vec<(&'t Topic, Cow<'t, str>)> {
        let mut configured = events.iter();
        let with_schema = self.rows().filter_map(|(definition, topic)| {
            let text = match definition.schema {
                ValueSchema::Configured { .. } => Cow::Borrowed(configured.next()?.text()),
                ValueSchema::Own { text, .. } => Cow::Borrowed(text),
                ValueSchema::Answered { template, .. } => {
                    Cow::Owned(events.lead().fill_answers(template))
                }
                ValueSchema::None => return None,
            };
            Some((topic, text))
        });
        with_schema.collect()
    }

    /// Whether the application publishes `topic` for consumers outside it.
    #[must_use]
    pub fn is_for_consumers(&self, topic: &Topic) -> bool {
        self.rows().any(|(row, name)| name == topic && row.read_by.contains(&Client::Consumers))
    }

    /// Whether `topic` is one of the application's, except for changelogs.
    #[must_use]
    pub fn includes(&self, topic: &Topic) -> bool {
        self.rows().any(|(_, known)| known == topic)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::topics::Group;

    #[test]
    fn companions_are_declared_as_the_events() {
        let topics = Topics::with_prefix("adult.").with_companions("adult.", ["visits", "orders"]);
        let inputs = Group::Scoring.inputs(&topics);
        let names: Vec<&str> = inputs.iter().map(Topic::as_str).collect();
        let expected = ["questionnaire-events", "visits", "orders", "outcomes", "queries"];
        assert_eq!(names, expected.map(|name| format!("adult.{name}")));
        assert!(!Group::Learning.inputs(&topics).contains(&topics.companions[0]));
        let specs = topics.specs(6);
        let spec = |topic: &Topic| specs.iter().find(|spec| spec.name == *topic).unwrap();
        let lead = spec(&topics.questionnaire_events);
        for topic in &topics.companions {
            assert_eq!(*spec(topic), TopicSpec { name: topic.clone(), ..lead.clone() });
            assert!(topics.includes(topic) && !topics.is_for_consumers(topic));
        }
        assert!(!topics.includes(&Topic::new("visits")));
        assert_eq!(specs.len(), TOPICS.all().len() + 2);
    }
}

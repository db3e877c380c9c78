//! The topics that events come from: the lead, and the companions, each with a schema of its own.

use std::sync::Arc;

use crate::events::questionnaire::{QuestionnaireSchema, ReadingRules};

/// The topic that an event comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum EventSource {
    /// The topic `questionnaire-events`.
    #[default]
    Lead,
    /// A companion, by its topic's name without the prefix.
    Companion(Arc<str>),
}

impl EventSource {
    /// The companion with this name.
    #[must_use]
    pub fn companion(name: &str) -> Self {
        Self::Companion(name.into())
    }

    /// The name of the companion's topic, without the prefix; none for the lead.
    #[must_use]
    pub fn companion_name(&self) -> Option<&str> {
        match self {
            Self::Lead => None,
            Self::Companion(name) => Some(name),
        }
    }
}

/// The schemas of the events, one for each source, with the same questions: the union of all
/// ([`unite`](crate::events::questionnaire::unite)).
#[derive(Clone, Debug)]
pub struct EventSchemas(Arc<[Arc<QuestionnaireSchema>]>);

impl EventSchemas {
    /// The united schemas of the lead and its companions, in this order.
    pub(super) fn of(lead: QuestionnaireSchema, companions: Vec<QuestionnaireSchema>) -> Self {
        Self([lead].into_iter().chain(companions).map(Arc::new).collect())
    }

    /// That of the lead. It has the questions of all sources.
    #[must_use]
    pub fn lead(&self) -> &Arc<QuestionnaireSchema> {
        &self.0[0]
    }

    /// All, the lead's first.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<QuestionnaireSchema>> {
        self.0.iter()
    }

    /// Sets the rules for reading answers, which hold for all sources.
    #[must_use]
    pub fn read_as(self, rules: &ReadingRules) -> Self {
        let read = |schema: &Arc<QuestionnaireSchema>| {
            Arc::new(QuestionnaireSchema::clone(schema).read_as(rules))
        };
        Self(self.iter().map(read).collect())
    }

    /// That of a source; none if there is no such companion.
    #[must_use]
    pub fn of_source(&self, source: &EventSource) -> Option<&Arc<QuestionnaireSchema>> {
        self.iter().find(|schema| schema.source() == source)
    }

    /// The names of the companions' topics, without the prefix.
    pub fn companions(&self) -> impl Iterator<Item = &str> {
        self.iter().filter_map(|schema| schema.source().companion_name())
    }
}

impl From<QuestionnaireSchema> for EventSchemas {
    /// The lead without companions.
    fn from(lead: QuestionnaireSchema) -> Self {
        Self::of(lead, Vec::new())
    }
}

impl From<Arc<QuestionnaireSchema>> for EventSchemas {
    /// The lead without companions.
    fn from(lead: Arc<QuestionnaireSchema>) -> Self {
        Self(Arc::new([lead]))
    }
}

//! The files of the configured event schemas: that of the lead, and those of the companions.

use std::path::Path;

use anyhow::Context as _;

use crate::{config::Config, events::questionnaire::QuestionnaireSchema};
use foretell_streams::record::Topic;

/// The event schema of one source, and its file.
#[derive(Clone, Copy, Debug)]
pub struct EventSchemaFile<'c> {
    pub topic: &'c Topic,
    pub schema: &'c QuestionnaireSchema,
    path: &'c Path,
    ignored: &'c [String],
}

impl<'c> EventSchemaFile<'c> {
    /// Those of all sources, the lead's first.
    #[must_use]
    pub fn all(config: &'c Config) -> Vec<Self> {
        let events = &config.events;
        let lead = (events.schema.as_path(), events.ignored.as_slice());
        let companions = events.companions.iter();
        let companions = companions.map(|one| (one.schema.as_path(), one.ignored.as_slice()));
        let files = [lead].into_iter().chain(companions);
        let sources = config.topics.of_events().zip(config.event_schemas.iter()).zip(files);
        let file = |((topic, schema), (path, ignored))| {
            let schema: &'c std::sync::Arc<QuestionnaireSchema> = schema;
            Self { topic, schema: schema.as_ref(), path, ignored }
        };
        sources.map(file).collect()
    }

    /// That of the topic `named`, with the prefix or without it; of the lead if none is named.
    ///
    /// # Errors
    /// If there is no such topic with events; the message names those that there are.
    pub fn of(config: &'c Config, named: Option<&str>) -> anyhow::Result<Self> {
        let named = named.unwrap_or(config.topics.questionnaire_events.as_str());
        let index = config.topics.source_named(&config.event_schemas, named);
        let index = index.map_err(anyhow::Error::msg)?;
        Self::all(config).into_iter().nth(index).context("each source has a schema")
    }

    /// The folder of the file.
    #[must_use]
    pub fn folder(&self) -> &'c Path {
        self.path.parent().unwrap_or(Path::new("."))
    }

    /// The fields that are not questions.
    #[must_use]
    pub fn other_fields(&self) -> Vec<String> {
        let fields = self.schema.metadata();
        let optional = [&fields.event_id, &fields.completed].into_iter().flatten();
        let named = optional.chain([&fields.respondent_id, &fields.event_time]).chain(self.ignored);
        named.cloned().collect()
    }
}

//! Reads the event schemas: that of the lead, and those of its companions.

use std::{collections::BTreeSet, fs, path::Path};

use crate::{
    config::{
        CompanionSettings, ConfigError, check, error::refused, raw::RawConfig, source::Sources,
    },
    events::{
        questionnaire::{
            Disunity, EventSchemas, MetadataFields, QuestionnaireSchema, ReadingRules, unite,
        },
        topics::TOPICS,
    },
};

/// Each companion is an input of every task, with a queue and a fetch of its own.
const COMPANIONS_MAX: usize = 8;
/// The longest name that Kafka allows.
const TOPIC_BYTES_MAX: usize = 249;

/// The schemas of all sources, with the questions of all.
pub(super) fn event_schemas(
    raw: &RawConfig,
    sources: &Sources,
) -> Result<EventSchemas, ConfigError> {
    check_topics(raw, sources)?;
    let lead_fields = MetadataFields {
        event_id: raw.events.event_id.clone(),
        respondent_id: raw.events.respondent_id.clone(),
        event_time: raw.events.event_time.clone(),
        completed: raw.events.completed.clone(),
    };
    let lead = SchemaFile { key: "events.schema", path: &raw.events.schema, sources };
    let schema = lead.schema(&lead.text()?, &lead_fields, &raw.events.ignored)?;
    let mut companions = Vec::new();
    for (number, companion) in raw.events.companions.iter().enumerate() {
        let file = SchemaFile { key: &key(number, "schema"), path: &companion.schema, sources };
        let text = file.text()?;
        let fields = fields_of(companion, &lead_fields, &text);
        let schema = file.schema(&text, &fields, &companion.ignored)?;
        companions.push((companion.topic.clone(), schema));
    }
    let schemas = unite(schema, companions).map_err(|error| misfit(&error, raw, sources))?;
    Ok(schemas.read_as(&ReadingRules {
        categorical: raw.features.categorical.clone(),
        numeric: raw.features.numeric.clone(),
        missing: raw.events.missing.clone(),
    }))
}

fn key(number: usize, name: &str) -> String {
    format!("events.companions.{number}.{name}")
}

/// Checks that the companions have topics of their own.
fn check_topics(raw: &RawConfig, sources: &Sources) -> Result<(), ConfigError> {
    let companions = &raw.events.companions;
    if companions.len() > COMPANIONS_MAX {
        let problem = format!(
            "there are {}, and there can be {COMPANIONS_MAX}: send the events of several services to one topic",
            companions.len()
        );
        let first = format!("events.companions.{COMPANIONS_MAX}");
        return Err(refused(sources, &first, &problem));
    }
    let own: BTreeSet<&str> = TOPICS.all().into_iter().map(|topic| topic.name).collect();
    let mut known = BTreeSet::new();
    for (number, companion) in companions.iter().enumerate() {
        let topic = companion.topic.as_str();
        let refuse = |problem: &str| Err(refused(sources, &key(number, "topic"), problem));
        if !check::is_topic_name(topic) {
            return refuse("it must be a name of letters, digits, '.', '_' and '-'");
        }
        if raw.topics.prefix.len() + topic.len() > TOPIC_BYTES_MAX {
            let problem =
                format!("with [topics] prefix it is longer than {TOPIC_BYTES_MAX} characters");
            return refuse(&problem);
        }
        if topic == TOPICS.questionnaire_events.name {
            return refuse("it is the topic of [events] itself: a companion is another topic");
        }
        if own.contains(topic) {
            let problem = format!("{topic} is a topic of Foretell's: name another one");
            return refuse(&problem);
        }
        if topic.starts_with(&format!("{}-", raw.application.id)) && topic.ends_with("-changelog") {
            return refuse("it could be a changelog of this application: name another one");
        }
        if !known.insert(topic) {
            return refuse("another companion has the same topic: name each once");
        }
    }
    Ok(())
}

/// The metadata fields of a companion: those that it names, or those of the lead. It need not have those that are optional.
fn fields_of(companion: &CompanionSettings, lead: &MetadataFields, text: &str) -> MetadataFields {
    let schema: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
    let has = |name: &&String| {
        let mut fields = schema["fields"].as_array().into_iter().flatten();
        fields.any(|field| field["name"] == ***name)
    };
    let optional = |own: &Option<String>, of_lead: &Option<String>| {
        own.clone().or_else(|| of_lead.as_ref().filter(has).cloned())
    };
    let required = |own: &Option<String>, of_lead: &String| own.as_ref().unwrap_or(of_lead).clone();
    MetadataFields {
        event_id: optional(&companion.event_id, &lead.event_id),
        respondent_id: required(&companion.respondent_id, &lead.respondent_id),
        event_time: required(&companion.event_time, &lead.event_time),
        completed: optional(&companion.completed, &lead.completed),
    }
}

/// The error for a companion that does not fit an earlier source, with the places of both.
fn misfit(error: &Disunity, raw: &RawConfig, sources: &Sources) -> ConfigError {
    let other = match error.other.companion_name() {
        None => "events.schema".to_owned(),
        Some(name) => {
            let mut companions = raw.events.companions.iter();
            let number = companions.position(|companion| companion.topic == name);
            key(number.unwrap_or_default(), "schema")
        }
    };
    let problem = format!("{error} (the other schema: {})", sources.named(&other));
    refused(sources, &key(error.companion, "schema"), &problem)
}

/// The file of an event schema.
struct SchemaFile<'f> {
    key: &'f str,
    path: &'f Path,
    sources: &'f Sources,
}

impl SchemaFile<'_> {
    fn text(&self) -> Result<String, ConfigError> {
        fs::read_to_string(self.path).map_err(|source| ConfigError::SchemaFile {
            named: self.sources.named(self.key),
            path: self.path.to_owned(),
            source,
        })
    }

    fn schema(
        &self,
        text: &str,
        fields: &MetadataFields,
        ignored: &[String],
    ) -> Result<QuestionnaireSchema, ConfigError> {
        QuestionnaireSchema::new(text, fields, ignored).map_err(|source| ConfigError::Schema {
            named: self.sources.named(self.key),
            path: self.path.to_owned(),
            source: Box::new(source),
        })
    }
}

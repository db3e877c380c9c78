//! A small event schema for tests, and the codecs of records with answers to its questions.

use std::sync::Arc;

use crate::events::{
    answered::{AnsweredCodec, AnsweredRecord},
    questionnaire::{MetadataFields, QuestionnaireSchema},
};
use foretell_avro::{local::LocalRegistry, registry::SchemaRegistry as _};

/// An event schema with these questions, Avro fields separated by commas, after the respondent `who` and the time `at`.
pub(crate) fn schema_of(questions: &str) -> QuestionnaireSchema {
    let avsc = format!(
        r#"{{"type":"record","name":"R","fields":[{{"name":"who","type":"string"}},
        {{"name":"at","type":"long"}},{questions}]}}"#
    );
    let fields = MetadataFields {
        event_id: None,
        respondent_id: "who".to_owned(),
        event_time: "at".to_owned(),
        completed: None,
    };
    QuestionnaireSchema::new(&avsc, &fields, &[]).expect("a valid schema")
}

/// The codec of records with answers to the questions of `events`, whose schema has the id 1.
pub(crate) fn codec_of<R: AnsweredRecord>(events: QuestionnaireSchema) -> AnsweredCodec<R> {
    let registry = Arc::new(LocalRegistry::new());
    registry.register("subject", &events.fill_answers(R::TEMPLATE)).expect("a valid schema");
    AnsweredCodec::new(registry, "subject", Arc::new(events)).expect("it is registered")
}

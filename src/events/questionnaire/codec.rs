//! The codec of questionnaire events, with the configured event schema.

use std::sync::Arc;

use crate::events::questionnaire::{
    INVALID_VALUE, MISSING_FIELD, QuestionnaireEvent, QuestionnaireSchema, answer::Unfit,
    id::IdKind, moment::TimeUnit, row::RowWriter,
};
use foretell_avro::{
    codec::CodecSetupError,
    dynamic::{Cell, DynamicCodec, shown},
    registry::SchemaRegistry,
};
use foretell_streams::{
    codec::{Codec, CodecError},
    time::EventTime,
};

const MICROS_PER_MILLI: i64 = 1_000;
const NANOS_PER_MILLI: i64 = 1_000_000;

impl TimeUnit {
    /// Converts `time` in this unit to milliseconds.
    pub(super) fn millis(self, time: i64) -> i64 {
        match self {
            Self::Millis => time,
            Self::Micros => time.div_euclid(MICROS_PER_MILLI),
            Self::Nanos => time.div_euclid(NANOS_PER_MILLI),
        }
    }
}

/// Decodes events of every writer schema that resolves to the event schema, and encodes with the event schema.
///
/// A row has the respondent, the time, the event id and the completed flag (the last two only if the schema has them), and then
/// the answers that the source has, in the order of [`QuestionnaireSchema::names`].
pub struct QuestionnaireCodec {
    schema: Arc<QuestionnaireSchema>,
    rows: DynamicCodec,
    event_id: Option<usize>,
    completed: Option<usize>,
    answers: usize,
}

const RESPONDENT_ID: usize = 0;
const EVENT_TIME: usize = 1;

impl QuestionnaireCodec {
    /// A codec for `subject`, which must have `schema` as a version.
    ///
    /// # Errors
    /// [`CodecSetupError`], such as [`CodecSetupError::NotRegistered`].
    pub fn new(
        registry: Arc<dyn SchemaRegistry>,
        subject: &str,
        schema: Arc<QuestionnaireSchema>,
    ) -> Result<Self, CodecSetupError> {
        let names: Vec<&str> = schema.names().collect();
        let rows = DynamicCodec::new(registry, subject, schema.text(), &names)?;
        let mut next = EVENT_TIME;
        let mut place = |field: &Option<String>| {
            field.as_ref().map(|_| {
                next += 1;
                next
            })
        };
        let event_id = place(&schema.fields.event_id);
        let completed = place(&schema.fields.completed);
        Ok(Self { schema, rows, event_id, completed, answers: next + 1 })
    }

    /// A codec for made-up events, which fills fields in `events.ignored` that have no default.
    #[must_use]
    pub fn writing_samples(self) -> Self {
        Self { rows: self.rows.writing_samples(), ..self }
    }

    fn event(&self, row: &[Cell<'_>], schema_id: u32) -> Result<QuestionnaireEvent, CodecError> {
        let missing = |field: &str| CodecError::Unreadable {
            class: MISSING_FIELD,
            schema_id: Some(schema_id),
            message: format!("field {field} is missing or empty"),
        };
        let invalid = |field: &str, cell: Cell<'_>, wanted: &str| CodecError::Unreadable {
            class: INVALID_VALUE,
            schema_id: Some(schema_id),
            message: format!("field {field} is {}: it must be {wanted}", shown(cell)),
        };
        let schema = &self.schema;
        let fields = &schema.fields;
        let id = |kind: IdKind, field: &str, cell: Cell<'_>| {
            kind.of_cell(cell).map_err(|wanted| invalid(field, cell, wanted))
        };
        let respondent_id = id(schema.respondent_id, &fields.respondent_id, row[RESPONDENT_ID])?;
        if respondent_id.is_empty() {
            return Err(missing(&fields.respondent_id));
        }
        let Cell::Long(time) = row[EVENT_TIME] else {
            return Err(missing(&fields.event_time));
        };
        let event_id = match (self.event_id, &fields.event_id) {
            (Some(place), Some(field)) => id(schema.event_id, field, row[place])?,
            (_, _) => String::new(),
        };
        let mut cells = row[self.answers..].iter();
        let questions = schema.questions().iter().zip(&schema.answers).zip(schema.asked());
        let mut answers = RowWriter::new(schema.answers.len());
        for ((question, form), is_asked) in questions {
            let cell = if *is_asked { cells.next().unwrap_or(&Cell::Null) } else { &Cell::Null };
            let mut buffer = [0; _];
            let answer = form.of_cell(*cell, &mut buffer);
            answers.push(answer.map_err(|Unfit(wanted)| invalid(&question.name, *cell, &wanted))?);
        }
        Ok(QuestionnaireEvent {
            source: schema.source().clone(),
            event_id,
            respondent_id,
            event_time: EventTime(schema.time_unit.millis(time)),
            completed: self.completed.is_some_and(|place| row[place] == Cell::Boolean(true)),
            answers: answers.finish(),
        })
    }

    /// The row of an event. `blobs` has an entry for each cell, which owns the bytes that the cell borrows.
    fn row<'e>(
        &'e self,
        event: &'e QuestionnaireEvent,
        blobs: &'e mut [Option<Vec<u8>>],
    ) -> Result<Vec<Cell<'e>>, CodecError> {
        let schema = &self.schema;
        let mut blobs = blobs.iter_mut();
        let mut next = || blobs.next().expect("there is one for each cell");
        let mut row = Vec::with_capacity(self.answers + schema.answers.len());
        row.push(schema.respondent_id.cell(&event.respondent_id, next()));
        let time = match schema.time_unit {
            TimeUnit::Millis => Some(event.event_time.0),
            TimeUnit::Micros => event.event_time.0.checked_mul(MICROS_PER_MILLI),
            TimeUnit::Nanos => event.event_time.0.checked_mul(NANOS_PER_MILLI),
        };
        row.push(Cell::Long(time.ok_or_else(|| unwritable("the event time has too many digits"))?));
        if self.event_id.is_some() {
            row.push(schema.event_id.cell(&event.event_id, next()));
        }
        if self.completed.is_some() {
            row.push(Cell::Boolean(event.completed));
        }
        let answers = schema.layout().answers(&event.answers).zip(&schema.answers);
        for (index, (answer, form)) in answers.enumerate() {
            if schema.asked()[index] {
                row.push(form.cell(answer, next()));
            } else if !answer.is_missing() {
                let name = &schema.questions()[index].name;
                let message = format!(
                    "answer {name} belongs to another source: the schema of this topic has no such field"
                );
                return Err(unwritable(&message));
            }
        }
        Ok(row)
    }
}

impl Codec<QuestionnaireEvent> for QuestionnaireCodec {
    fn encode(&self, event: &QuestionnaireEvent, bytes: &mut Vec<u8>) -> Result<(), CodecError> {
        let mut blobs = vec![None; self.answers + self.schema.answers.len()];
        self.rows.encode(&self.row(event, &mut blobs)?, bytes)
    }

    fn decode(&self, bytes: &[u8]) -> Result<QuestionnaireEvent, CodecError> {
        self.rows.decode(bytes, |row, schema_id| self.event(row, schema_id))
    }
}

fn unwritable(message: &str) -> CodecError {
    CodecError::Unreadable { class: "unwritable", schema_id: None, message: message.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::questionnaire::{Answer, EventSource, MetadataFields};
    use foretell_avro::{framing, local::LocalRegistry};

    const OLD: &str = r#"{"type":"record","name":"Event","fields":[
        {"name":"gone","type":{"type":"array","items":"string"}},
        {"name":"who","type":"int"},
        {"name":"at","type":["null",{"type":"long","logicalType":"timestamp-micros"}]},
        {"name":"age","type":"int"}]}"#;

    const NEW: &str = r#"{"type":"record","name":"Event","fields":[
        {"name":"who","type":["null","long"]},
        {"name":"at","type":["null",{"type":"long","logicalType":"timestamp-micros"}]},
        {"name":"done","type":"boolean","default":false},
        {"name":"age","type":["null","double"],"default":null},
        {"name":"extra","type":{"type":"map","values":"int"},"default":{"k":1}},
        {"name":"smoker","type":["null","boolean"],"default":null},
        {"name":"size","type":["null",{"type":"enum","name":"S","symbols":["S","L"]}],"default":null}]}"#;

    fn codec() -> QuestionnaireCodec {
        let fields = MetadataFields {
            event_id: None,
            respondent_id: "who".to_owned(),
            event_time: "at".to_owned(),
            completed: Some("done".to_owned()),
        };
        let schema = QuestionnaireSchema::new(NEW, &fields, &["extra".to_owned()]).unwrap();
        let registry = Arc::new(LocalRegistry::new());
        registry.register("events-value", OLD).unwrap();
        registry.register("events-value", NEW).unwrap();
        QuestionnaireCodec::new(registry, "events-value", Arc::new(schema)).unwrap()
    }

    fn event(answers: &[Option<Answer>]) -> QuestionnaireEvent {
        QuestionnaireEvent {
            source: EventSource::Lead,
            event_id: String::new(),
            respondent_id: "12".to_owned(),
            event_time: EventTime(34),
            completed: true,
            answers: codec().schema.layout().row_of(answers),
        }
    }

    fn text(text: &str) -> Option<Answer> {
        Some(Answer::Text(text.to_owned()))
    }

    #[test]
    fn encoded_events_are_decoded() {
        let codec = codec();
        for answers in [
            vec![None, None, None],
            vec![Some(Answer::Number(39.5)), text("true"), text("L")],
            vec![Some(Answer::Number(-1.0)), text("false"), text("S")],
        ] {
            let (event, mut bytes) = (event(&answers), Vec::new());
            codec.encode(&event, &mut bytes).unwrap();
            assert_eq!(codec.decode(&bytes), Ok(event));
        }
    }

    #[test]
    fn events_of_an_older_schema_are_decoded() {
        let mut bytes = Vec::new();
        framing::frame(1, &mut bytes);
        // ["x"], 12, 34,999 µs, 39
        bytes.extend_from_slice(&[2, 2, b'x', 0, 24, 2, 0xee, 0xa2, 0x04, 78]);
        let expected = QuestionnaireEvent {
            completed: false,
            ..event(&[Some(Answer::Number(39.0)), None, None])
        };
        assert_eq!(codec().decode(&bytes), Ok(expected));
    }

    #[test]
    fn an_event_needs_its_respondent_and_its_time() {
        let datum: [&[u8]; 2] = [&[0, 2, 2, 0, 0, 0, 0, 0], &[2, 2, 0, 0, 0, 0, 0, 0]];
        for (datum, field) in datum.into_iter().zip(["who", "at"]) {
            let mut bytes = Vec::new();
            framing::frame(2, &mut bytes);
            bytes.extend_from_slice(datum);
            match codec().decode(&bytes) {
                Err(CodecError::Unreadable { class: "missing_field", schema_id, message }) => {
                    assert_eq!(schema_id, Some(2));
                    assert!(message.contains(field), "{message}");
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_field_that_cannot_be_encoded_is_named() {
        let codec = codec();
        let refuse = |event: &QuestionnaireEvent, field: &str| {
            let mut bytes = vec![9];
            let error = codec.encode(event, &mut bytes).expect_err(field).to_string();
            assert!(error.contains(field), "{error:?} says nothing of {field:?}");
            assert_eq!(bytes, [9], "nothing is left behind");
        };
        refuse(&event(&[None, None, text("M")]), "field size");
        let named = QuestionnaireEvent { respondent_id: "x".to_owned(), ..event(&[]) };
        refuse(&named, "field who");
    }
}

//! Every kind of change to a question: which levels allow it, how events are read across it, and what it does to predictions and
//! labelled examples. The table in
//! docs/schemas.md is generated from this one: if it is stale, its test prints the new one.

use std::{fmt::Write as _, sync::Arc};

use foretell::{
    app::schemas::{EventFields, difference},
    events::{
        answered::{AnsweredCodec, AnsweredRecord as _, ClassProbabilities},
        labelled_example::LabelledExample,
        prediction::{Prediction, ScoreTrigger},
        questionnaire::{
            Answer, AnswerRef, EventSource, MetadataFields, QuestionKind, QuestionnaireCodec,
            QuestionnaireEvent, QuestionnaireSchema,
        },
    },
};
use foretell_avro::{
    evolution::{self, Level, breaches},
    local::LocalRegistry,
    registry::{Compatibility, RegistryError, SchemaRegistry},
};
use foretell_streams::{
    codec::{Codec, CodecError},
    time::{EventTime, WallTime},
};

/// One kind of change: fields before and after it, and how values are read across it.
struct Change {
    name: &'static str,
    before: &'static str,
    after: &'static str,
    /// Whether BACKWARD, FORWARD and FULL allow it.
    allowed: [bool; 3],
    /// Events of the old schema, read with the new one.
    backward: &'static [Case],
    /// Events of the new schema, read with the old one.
    forward: &'static [Case],
    /// The derived schemas of predictions and labelled examples.
    answers: Answers,
}

/// The effect of a change on the answers in predictions and labelled examples.
#[derive(Clone, Copy)]
enum Answers {
    NewField,
    Removed,
    /// Readers with the new schema read old answers by the alias.
    Renamed,
    /// The old field is removed, and a new one is added.
    Replaced,
    /// All readers read all answers.
    SameField,
    /// The types of the answers before and after.
    Refused(&'static str, &'static str),
}

/// An answer to the question of the writer schema, and what the reader gets.
struct Case(Written, ReadBack);

#[derive(Clone, Copy)]
enum Written {
    NoAnswer,
    Number(f64),
    Text(&'static str),
}

#[derive(Clone, Copy)]
enum ReadBack {
    /// The same answer.
    Same,
    /// No answer.
    Missing,
    /// No answer: the reader schema does not have the question.
    Ignored,
    /// The default symbol of the enum.
    DefaultSymbol(&'static str),
    /// No event, but an error with this text: the event is dead-lettered.
    DeadLetter(&'static str),
}

use Answers::{NewField, Refused, Removed, Renamed, Replaced, SameField};
use ReadBack::{DeadLetter, DefaultSymbol, Ignored, Missing, Same};
use Written::{NoAnswer, Number, Text};

const YES: bool = true;
const NO: bool = false;

const CHANGES: &[Change] = &[
    Change {
        name: "question added, with a default",
        before: "",
        after: r#"{"name":"q","type":["null","int"],"default":null}"#,
        allowed: [YES, YES, YES],
        backward: &[Case(NoAnswer, Missing)],
        forward: &[Case(Number(3.0), Ignored)],
        answers: NewField,
    },
    Change {
        name: "question added, without one",
        before: "",
        after: r#"{"name":"q","type":"int"}"#,
        allowed: [NO, YES, NO],
        backward: &[Case(
            NoAnswer,
            DeadLetter("field q: it has no default, and the writer's schema lacks it"),
        )],
        forward: &[Case(Number(3.0), Ignored)],
        answers: NewField,
    },
    Change {
        name: "question removed, it had a default",
        before: r#"{"name":"q","type":["null","int"],"default":null}"#,
        after: "",
        allowed: [YES, YES, YES],
        backward: &[Case(Number(3.0), Ignored)],
        forward: &[Case(NoAnswer, Missing)],
        answers: Removed,
    },
    Change {
        name: "question removed, it had none",
        before: r#"{"name":"q","type":"int"}"#,
        after: "",
        allowed: [YES, NO, NO],
        backward: &[Case(Number(3.0), Ignored)],
        forward: &[Case(
            NoAnswer,
            DeadLetter("field q: it has no default, and the writer's schema lacks it"),
        )],
        answers: Removed,
    },
    Change {
        name: "question renamed, with an alias",
        before: r#"{"name":"q","type":["null","int"],"default":null}"#,
        after: r#"{"name":"z","aliases":["q"],"type":["null","int"],"default":null}"#,
        allowed: [YES, YES, YES],
        backward: &[Case(Number(3.0), Same)],
        forward: &[Case(Number(3.0), Missing)],
        answers: Renamed,
    },
    Change {
        name: "question renamed, without one",
        before: r#"{"name":"q","type":["null","int"],"default":null}"#,
        after: r#"{"name":"z","type":["null","int"],"default":null}"#,
        allowed: [YES, YES, YES],
        backward: &[Case(Number(3.0), Missing)],
        forward: &[Case(Number(3.0), Missing)],
        answers: Replaced,
    },
    Change {
        name: "questions in another order",
        before: r#"{"name":"q","type":"int"},{"name":"other","type":["null","string"],"default":null}"#,
        after: r#"{"name":"other","type":["null","string"],"default":null},{"name":"q","type":"int"}"#,
        allowed: [YES, YES, YES],
        backward: &[Case(Number(3.0), Same)],
        forward: &[Case(Number(3.0), Same)],
        answers: SameField,
    },
    Change {
        name: "type widened: int to long",
        before: r#"{"name":"q","type":["null","int"],"default":null}"#,
        after: r#"{"name":"q","type":["null","long"],"default":null}"#,
        allowed: [YES, NO, NO],
        backward: &[Case(Number(3.0), Same), Case(NoAnswer, Missing)],
        forward: &[
            Case(NoAnswer, Missing),
            Case(Number(3.0), DeadLetter("long is none of null or int")),
        ],
        answers: SameField,
    },
    Change {
        name: "type widened: int or long to float or double",
        before: r#"{"name":"q","type":["null","int"],"default":null}"#,
        after: r#"{"name":"q","type":["null","double"],"default":null}"#,
        allowed: [YES, NO, NO],
        backward: &[Case(Number(3.0), Same), Case(NoAnswer, Missing)],
        forward: &[
            Case(NoAnswer, Missing),
            Case(Number(3.0), DeadLetter("double is none of null or int")),
        ],
        answers: Refused("long", "double"),
    },
    Change {
        name: "float made a double",
        before: r#"{"name":"q","type":["null","float"],"default":null}"#,
        after: r#"{"name":"q","type":["null","double"],"default":null}"#,
        allowed: [YES, NO, NO],
        backward: &[Case(Number(3.0), Same), Case(NoAnswer, Missing)],
        forward: &[
            Case(NoAnswer, Missing),
            Case(Number(3.0), DeadLetter("double is none of null or float")),
        ],
        answers: SameField,
    },
    Change {
        name: "type narrowed: long to int",
        before: r#"{"name":"q","type":"long"}"#,
        after: r#"{"name":"q","type":"int"}"#,
        allowed: [NO, YES, NO],
        backward: &[Case(Number(3.0), DeadLetter("field q: long cannot be read as int"))],
        forward: &[Case(Number(3.0), Same)],
        answers: SameField,
    },
    Change {
        name: "number made a word, or the other way round",
        before: r#"{"name":"q","type":["null","int"],"default":null}"#,
        after: r#"{"name":"q","type":["null","string"],"default":null}"#,
        allowed: [NO, NO, NO],
        backward: &[
            Case(NoAnswer, Missing),
            Case(Number(3.0), DeadLetter("int is none of null or string")),
        ],
        forward: &[
            Case(NoAnswer, Missing),
            Case(Text("three"), DeadLetter("string is none of null or int")),
        ],
        answers: Refused("long", "string"),
    },
    Change {
        name: "question made optional",
        before: r#"{"name":"q","type":"int"}"#,
        after: r#"{"name":"q","type":["null","int"],"default":null}"#,
        allowed: [YES, NO, NO],
        backward: &[Case(Number(3.0), Same)],
        forward: &[
            Case(Number(3.0), Same),
            Case(NoAnswer, DeadLetter("null cannot be read as int")),
        ],
        answers: SameField,
    },
    Change {
        name: "question made mandatory",
        before: r#"{"name":"q","type":["null","int"],"default":null}"#,
        after: r#"{"name":"q","type":"int"}"#,
        allowed: [NO, YES, NO],
        backward: &[
            Case(Number(3.0), Same),
            Case(NoAnswer, DeadLetter("null cannot be read as int")),
        ],
        forward: &[Case(Number(3.0), Same)],
        answers: SameField,
    },
    Change {
        name: "symbol added to an enum with a default",
        before: r#"{"name":"q","type":{"type":"enum","name":"E","symbols":["A","OTHER"],"default":"OTHER"}}"#,
        after: r#"{"name":"q","type":{"type":"enum","name":"E","symbols":["A","OTHER","B"],"default":"OTHER"}}"#,
        allowed: [YES, YES, YES],
        backward: &[Case(Text("A"), Same)],
        forward: &[Case(Text("A"), Same), Case(Text("B"), DefaultSymbol("OTHER"))],
        answers: SameField,
    },
    Change {
        name: "symbol added to an enum without one",
        before: r#"{"name":"q","type":{"type":"enum","name":"E","symbols":["A"]}}"#,
        after: r#"{"name":"q","type":{"type":"enum","name":"E","symbols":["A","B"]}}"#,
        allowed: [YES, NO, NO],
        backward: &[Case(Text("A"), Same)],
        forward: &[
            Case(Text("A"), Same),
            Case(Text("B"), DeadLetter("a symbol that the reader schema does not have")),
        ],
        answers: SameField,
    },
    Change {
        name: "symbol removed from an enum with a default",
        before: r#"{"name":"q","type":{"type":"enum","name":"E","symbols":["A","OTHER","B"],"default":"OTHER"}}"#,
        after: r#"{"name":"q","type":{"type":"enum","name":"E","symbols":["A","OTHER"],"default":"OTHER"}}"#,
        allowed: [YES, YES, YES],
        backward: &[Case(Text("B"), DefaultSymbol("OTHER"))],
        forward: &[Case(Text("A"), Same)],
        answers: SameField,
    },
    Change {
        name: "symbol removed from an enum without one",
        before: r#"{"name":"q","type":{"type":"enum","name":"E","symbols":["A","B"]}}"#,
        after: r#"{"name":"q","type":{"type":"enum","name":"E","symbols":["A"]}}"#,
        allowed: [NO, YES, NO],
        backward: &[
            Case(Text("A"), Same),
            Case(Text("B"), DeadLetter("a symbol that the reader schema does not have")),
        ],
        forward: &[Case(Text("A"), Same)],
        answers: SameField,
    },
    Change {
        name: "enum renamed, with an alias",
        before: r#"{"name":"q","type":{"type":"enum","name":"E","symbols":["A","B"]}}"#,
        after: r#"{"name":"q","type":{"type":"enum","name":"F","aliases":["E"],"symbols":["A","B"]}}"#,
        allowed: [YES, NO, NO],
        backward: &[Case(Text("B"), Same)],
        forward: &[Case(Text("B"), DeadLetter("it is a F, not a E"))],
        answers: SameField,
    },
    Change {
        name: "bytes made a string",
        before: r#"{"name":"q","type":"string"},{"name":"raw","type":"bytes","default":""}"#,
        after: r#"{"name":"q","type":"string"},{"name":"raw","type":"string","default":""}"#,
        allowed: [YES, YES, YES],
        backward: &[Case(Text("x"), Same)],
        forward: &[Case(Text("x"), Same)],
        answers: SameField,
    },
    Change {
        name: "a logical type in another unit of time",
        before: r#"{"name":"q","type":{"type":"long","logicalType":"timestamp-millis"}}"#,
        after: r#"{"name":"q","type":{"type":"long","logicalType":"timestamp-micros"}}"#,
        allowed: [NO, NO, NO],
        backward: &[Case(
            Number(3.0),
            DeadLetter("a time in milliseconds cannot be read as one in microseconds"),
        )],
        forward: &[Case(
            Number(3.0),
            DeadLetter("a time in microseconds cannot be read as one in milliseconds"),
        )],
        answers: Refused("timestamp-millis", "timestamp-micros"),
    },
    Change {
        name: "another default, another description",
        before: r#"{"name":"q","type":["null","int"],"default":null}"#,
        after: r#"{"name":"q","type":["null","int"],"doc":"How many."}"#,
        allowed: [YES, YES, YES],
        backward: &[Case(Number(3.0), Same), Case(NoAnswer, Missing)],
        forward: &[Case(Number(3.0), Same)],
        answers: SameField,
    },
];

fn schema(fields: &str) -> String {
    let comma = if fields.is_empty() { "" } else { "," };
    format!(
        r#"{{"type":"record","name":"Event","fields":[{{"name":"who","type":"string"}},
        {{"name":"at","type":{{"type":"long","logicalType":"timestamp-millis"}}}},
        {{"name":"first","type":["null","int"],"default":null}}{comma}{fields}]}}"#
    )
}

/// The schema and codec of an instance whose [events] schema is `text`. The field `raw` is ignored.
fn instance(
    registry: &Arc<LocalRegistry>,
    text: &str,
) -> (Arc<QuestionnaireSchema>, QuestionnaireCodec) {
    let fields = MetadataFields {
        event_id: None,
        respondent_id: "who".to_owned(),
        event_time: "at".to_owned(),
        completed: None,
    };
    let has_raw = text.contains(r#""raw""#);
    let ignored = if has_raw { vec!["raw".to_owned()] } else { Vec::new() };
    let schema = Arc::new(QuestionnaireSchema::new(text, &fields, &ignored).expect(text));
    registry.set_level("s", Level::None).unwrap();
    registry.register("s", text).unwrap();
    let shared = Arc::<LocalRegistry>::clone(registry);
    let codec = QuestionnaireCodec::new(shared, "s", Arc::clone(&schema)).expect(text);
    (schema, codec)
}

/// Index of the question that was changed.
fn changed_question(schema: &QuestionnaireSchema) -> Option<usize> {
    schema.questions().iter().position(|question| question.name == "q" || question.name == "z")
}

fn answer(written: Written) -> Option<Answer> {
    match written {
        NoAnswer => None,
        Number(number) => Some(Answer::Number(number)),
        Text(text) => Some(Answer::Text(text.to_owned())),
    }
}

fn check(change: &Change, writer: &str, reader: &str, Case(written, expected): &Case) {
    let name = change.name;
    let registry = Arc::new(LocalRegistry::new());
    let (writer, writer_codec) = instance(&registry, writer);
    let (reader, reader_codec) = instance(&registry, reader);
    let mut answers = vec![None; writer.questions().len()];
    answers[0] = Some(Answer::Number(1.0));
    if let Some(index) = changed_question(&writer) {
        answers[index] = answer(*written);
    }
    let event = QuestionnaireEvent {
        source: EventSource::Lead,
        event_id: String::new(),
        respondent_id: "r".to_owned(),
        event_time: EventTime(5),
        completed: false,
        answers: writer.layout().row_of(&answers),
    };
    let mut bytes = Vec::new();
    writer_codec.encode(&event, &mut bytes).expect(name);
    match (reader_codec.decode(&bytes), expected) {
        (Err(CodecError::Unreadable { class, message, .. }), DeadLetter(words)) => {
            assert_eq!(class, "incompatible_schema", "{name}: {message}");
            assert!(message.contains(words), "{name}: {words:?} in {message:?}");
        }
        (Ok(read), Same | Missing | Ignored | DefaultSymbol(_)) => {
            let read: Vec<Option<Answer>> =
                reader.layout().answers(&read.answers).map(AnswerRef::to_answer).collect();
            assert_eq!(read[0], Some(Answer::Number(1.0)), "{name}: other answers stay the same");
            let read = changed_question(&reader).and_then(|index| read[index].clone());
            let expected = match expected {
                Same => answer(*written),
                DefaultSymbol(symbol) => answer(Text(symbol)),
                Missing | Ignored | DeadLetter(_) => None,
            };
            assert_eq!(read, expected, "{name}");
        }
        (other, _) => panic!("{name}: {other:?}"),
    }
}

#[test]
fn events_are_read_across_every_kind_of_change() {
    for change in CHANGES {
        let (before, after) = (schema(change.before), schema(change.after));
        change.backward.iter().for_each(|case| check(change, &before, &after, case));
        change.forward.iter().for_each(|case| check(change, &after, &before, case));
    }
}

#[test]
fn levels_allow_every_kind_of_change_as_listed() {
    for change in CHANGES {
        let (before, after) = (schema(change.before), schema(change.after));
        let versions = [&before, &after].map(|text| evolution::parse(text).expect(change.name));
        for (level, allowed) in
            [Level::Backward, Level::Forward, Level::Full].into_iter().zip(change.allowed)
        {
            let breaches = breaches(level, &versions);
            assert_eq!(breaches.is_empty(), allowed, "{}: {level:?}: {breaches:?}", change.name);
            let registry = LocalRegistry::new();
            registry.register("s", &before).unwrap();
            registry.set_level("s", level).unwrap();
            let verdict = registry.compatible("s", &after).unwrap();
            assert_eq!(verdict == Compatibility::Compatible, allowed, "{}: {level:?}", change.name);
            assert_eq!(
                registry.register("s", &after).is_ok(),
                allowed,
                "{}: {level:?}",
                change.name
            );
        }
    }
}

/// The question schema of `text`, whose fields `q` or `z` is the one that changes.
fn questions(text: &str) -> Arc<QuestionnaireSchema> {
    instance(&Arc::new(LocalRegistry::new()), text).0
}

/// What readers with `reader` get for a number or a text in the changed question of a prediction that was written with `writer`.
fn published(
    registry: &Arc<LocalRegistry>,
    writer: &Arc<QuestionnaireSchema>,
    reader: &Arc<QuestionnaireSchema>,
) -> (Option<Answer>, Option<Answer>) {
    let codec = |events: &Arc<QuestionnaireSchema>| {
        let shared = Arc::<LocalRegistry>::clone(registry);
        AnsweredCodec::<Prediction>::new(shared, "p", Arc::clone(events)).unwrap()
    };
    let mut answers = vec![None; writer.questions().len()];
    answers[0] = Some(Answer::Number(1.0));
    let written = changed_question(writer).map(|index| {
        let answer = match writer.questions()[index].kind {
            QuestionKind::Number => Answer::Number(3.0),
            QuestionKind::Text => Answer::Text("A".to_owned()),
        };
        answers[index] = Some(answer.clone());
        answer
    });
    let prediction = Prediction {
        prediction_id: "p".to_owned(),
        respondent_id: "r".to_owned(),
        event_id: "e".to_owned(),
        event_time: EventTime(5),
        received_at: WallTime(6),
        predicted_at: WallTime(7),
        model_version: "m".to_owned(),
        label: "yes".to_owned(),
        probabilities: ClassProbabilities::from_iter([]),
        challenger: None,
        trigger: ScoreTrigger::Complete,
        answers: writer.layout().row_of(&answers),
    };
    let mut bytes = Vec::new();
    codec(writer).encode(&prediction, &mut bytes).unwrap();
    let read: Prediction = codec(reader).decode(&bytes).unwrap();
    let read: Vec<Option<Answer>> =
        reader.layout().answers(&read.answers).map(AnswerRef::to_answer).collect();
    assert_eq!(read[0], Some(Answer::Number(1.0)), "other answers stay the same");
    (written, changed_question(reader).and_then(|index| read[index].clone()))
}

#[test]
fn predictions_are_read_across_every_kind_of_change_or_refuse_it() {
    for Change { name, before, after, answers, .. } in CHANGES {
        let (old, new) = (questions(&schema(before)), questions(&schema(after)));
        let registry = Arc::new(LocalRegistry::new());
        registry.set_level("p", Level::FullTransitive).unwrap();
        registry.set_level("l", Level::FullTransitive).unwrap();
        let register = |events: &QuestionnaireSchema| {
            let subjects = [("p", Prediction::TEMPLATE), ("l", LabelledExample::TEMPLATE)];
            subjects.map(|(subject, template)| {
                registry.register(subject, &events.fill_answers(template)).map(drop)
            })
        };
        assert_eq!(register(&old), [Ok(()), Ok(())], "{name}");
        let registered = register(&new);
        let difference = difference(
            &evolution::parse(&schema(before)).unwrap(),
            &evolution::parse(&schema(after)).unwrap(),
            &EventFields::Except(["who", "at", "raw"].map(str::to_owned).to_vec()),
        );
        let difference = difference.unwrap();
        let refusal = difference.changes.iter().find_map(|change| change.answers.clone());
        if let Refused(from, to) = answers {
            let is_refused = |result| matches!(result, Err(RegistryError::Incompatible(_)));
            assert!(registered.into_iter().all(is_refused), "{name}");
            let words = format!("type {from} in the old schema and {to} in the new one");
            assert!(refusal.as_ref().is_some_and(|text| text.contains(&words)), "{refusal:?}");
            continue;
        }
        assert_eq!((registered, refusal), ([Ok(()), Ok(())], None), "{name}");
        let (written, with_new) = published(&registry, &old, &new);
        let (written_now, with_old) = published(&registry, &new, &old);
        match answers {
            NewField => assert_eq!((written, with_new), (None, None), "{name}"),
            Removed => assert_eq!((written_now, with_old), (None, None), "{name}"),
            Renamed => assert_eq!((with_new, with_old), (written, None), "{name}"),
            Replaced => assert_eq!((with_new, with_old), (None, None), "{name}"),
            SameField => assert_eq!((with_new, with_old), (written, written_now), "{name}"),
            Refused(..) => unreachable!("above"),
        }
    }
}

/// A cell of the table: how events are read.
fn cell(cases: &[Case]) -> String {
    let texts = cases.iter().map(|Case(written, read)| {
        let text = match read {
            Same => "the same answer",
            Ignored => "ignored",
            Missing if matches!(written, NoAnswer) => "no answer",
            Missing => "as if not answered",
            DefaultSymbol(_) => "an unknown symbol: the default",
            DeadLetter(_) if matches!(written, NoAnswer) => "no answer: dead letter",
            DeadLetter(words) if words.contains("lacks it") => "dead letter",
            DeadLetter(words) if words.contains("symbol") => "an unknown symbol: dead letter",
            DeadLetter(_) if cases.len() > 1 => "an answer: dead letter",
            DeadLetter(_) => "dead letter",
        };
        text.to_owned()
    });
    let mut cells: Vec<String> = texts.collect();
    cells.dedup();
    cells.join("; ")
}

#[test]
fn the_table_in_the_docs_is_up_to_date() {
    let mut table = "| change | BACKWARD | FORWARD | FULL | old events, new schema \
         | new events, old schema | predictions and examples |\n|---|---|---|---|---|---|---|\n"
        .to_owned();
    for change in CHANGES {
        let [backward, forward, full] =
            change.allowed.map(|allowed| if allowed { "yes" } else { "no" });
        let (old, new) = (cell(change.backward), cell(change.forward));
        let name = change.name;
        let answers = match change.answers {
            NewField => "a new field",
            Removed => "the field is removed",
            Renamed => "the field is renamed, with the alias",
            Replaced => "the field is removed, and a new one added",
            SameField => "the same field",
            Refused(..) => "**refused**",
        };
        writeln!(table, "| {name} | {backward} | {forward} | {full} | {old} | {new} | {answers} |")
            .unwrap();
    }
    let page = include_str!("../../docs/schemas.md");
    assert!(page.contains(&table), "docs/schemas.md should have this table:\n{table}");
}

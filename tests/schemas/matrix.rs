//! Every kind of change to a question: which levels allow it, and what Foretell makes of events across it. The table of
//! docs/schemas.md is this one; its test prints what it should be.

use std::{fmt::Write as _, sync::Arc};

use foretell::events::questionnaire::{
    Answer, MetadataFields, QuestionnaireCodec, QuestionnaireEvent, QuestionnaireSchema,
};
use foretell_avro::{
    evolution::{self, Level, breaches},
    local::LocalRegistry,
    registry::{Compatibility, SchemaRegistry},
};
use foretell_streams::{
    codec::{Codec, CodecError},
    time::EventTime,
};

/// One kind of change: fields before and after it, and what becomes of them.
struct Change {
    name: &'static str,
    before: &'static str,
    after: &'static str,
    /// BACKWARD, FORWARD, FULL.
    allowed: [bool; 3],
    /// Events from before, read with the schema from after.
    backward: &'static [Case],
    /// The other way round.
    forward: &'static [Case],
}

/// What was answered to the writer's question, and what the reader gets.
struct Case(Said, Got);

#[derive(Clone, Copy)]
enum Said {
    Nothing,
    Number(f64),
    Text(&'static str),
}

#[derive(Clone, Copy)]
enum Got {
    /// The same answer to the reader's question.
    Same,
    /// None.
    Missing,
    /// None: the reader does not ask.
    Ignored,
    /// Another symbol: the enum's default.
    Default(&'static str),
    /// The dead letters, with these words.
    DeadLetter(&'static str),
}

use Got::{DeadLetter, Default, Ignored, Missing, Same};
use Said::{Nothing, Number, Text};

const YES: bool = true;
const NO: bool = false;

const CHANGES: &[Change] = &[
    Change {
        name: "question added, with a default",
        before: "",
        after: r#"{"name":"q","type":["null","int"],"default":null}"#,
        allowed: [YES, YES, YES],
        backward: &[Case(Nothing, Missing)],
        forward: &[Case(Number(3.0), Ignored)],
    },
    Change {
        name: "question added, without one",
        before: "",
        after: r#"{"name":"q","type":"int"}"#,
        allowed: [NO, YES, NO],
        backward: &[Case(
            Nothing,
            DeadLetter("field q: it has no default, and the writer's schema lacks it"),
        )],
        forward: &[Case(Number(3.0), Ignored)],
    },
    Change {
        name: "question removed, it had a default",
        before: r#"{"name":"q","type":["null","int"],"default":null}"#,
        after: "",
        allowed: [YES, YES, YES],
        backward: &[Case(Number(3.0), Ignored)],
        forward: &[Case(Nothing, Missing)],
    },
    Change {
        name: "question removed, it had none",
        before: r#"{"name":"q","type":"int"}"#,
        after: "",
        allowed: [YES, NO, NO],
        backward: &[Case(Number(3.0), Ignored)],
        forward: &[Case(
            Nothing,
            DeadLetter("field q: it has no default, and the writer's schema lacks it"),
        )],
    },
    Change {
        name: "question renamed, with an alias",
        before: r#"{"name":"q","type":["null","int"],"default":null}"#,
        after: r#"{"name":"z","aliases":["q"],"type":["null","int"],"default":null}"#,
        allowed: [YES, YES, YES],
        backward: &[Case(Number(3.0), Same)],
        forward: &[Case(Number(3.0), Missing)],
    },
    Change {
        name: "question renamed, without one",
        before: r#"{"name":"q","type":["null","int"],"default":null}"#,
        after: r#"{"name":"z","type":["null","int"],"default":null}"#,
        allowed: [YES, YES, YES],
        backward: &[Case(Number(3.0), Missing)],
        forward: &[Case(Number(3.0), Missing)],
    },
    Change {
        name: "questions in another order",
        before: r#"{"name":"q","type":"int"},{"name":"other","type":["null","string"],"default":null}"#,
        after: r#"{"name":"other","type":["null","string"],"default":null},{"name":"q","type":"int"}"#,
        allowed: [YES, YES, YES],
        backward: &[Case(Number(3.0), Same)],
        forward: &[Case(Number(3.0), Same)],
    },
    Change {
        name: "type widened: int to long, float or double",
        before: r#"{"name":"q","type":["null","int"],"default":null}"#,
        after: r#"{"name":"q","type":["null","double"],"default":null}"#,
        allowed: [YES, NO, NO],
        backward: &[Case(Number(3.0), Same), Case(Nothing, Missing)],
        forward: &[
            Case(Nothing, Missing),
            Case(Number(3.0), DeadLetter("double is none of null or int")),
        ],
    },
    Change {
        name: "type narrowed: long to int",
        before: r#"{"name":"q","type":"long"}"#,
        after: r#"{"name":"q","type":"int"}"#,
        allowed: [NO, YES, NO],
        backward: &[Case(Number(3.0), DeadLetter("field q: long cannot be read as int"))],
        forward: &[Case(Number(3.0), Same)],
    },
    Change {
        name: "number made a word, or the other way round",
        before: r#"{"name":"q","type":["null","int"],"default":null}"#,
        after: r#"{"name":"q","type":["null","string"],"default":null}"#,
        allowed: [NO, NO, NO],
        backward: &[
            Case(Nothing, Missing),
            Case(Number(3.0), DeadLetter("int is none of null or string")),
        ],
        forward: &[
            Case(Nothing, Missing),
            Case(Text("three"), DeadLetter("string is none of null or int")),
        ],
    },
    Change {
        name: "question made optional",
        before: r#"{"name":"q","type":"int"}"#,
        after: r#"{"name":"q","type":["null","int"],"default":null}"#,
        allowed: [YES, NO, NO],
        backward: &[Case(Number(3.0), Same)],
        forward: &[
            Case(Number(3.0), Same),
            Case(Nothing, DeadLetter("null cannot be read as int")),
        ],
    },
    Change {
        name: "question made mandatory",
        before: r#"{"name":"q","type":["null","int"],"default":null}"#,
        after: r#"{"name":"q","type":"int"}"#,
        allowed: [NO, YES, NO],
        backward: &[
            Case(Number(3.0), Same),
            Case(Nothing, DeadLetter("null cannot be read as int")),
        ],
        forward: &[Case(Number(3.0), Same)],
    },
    Change {
        name: "symbol added to an enum with a default",
        before: r#"{"name":"q","type":{"type":"enum","name":"E","symbols":["A","OTHER"],"default":"OTHER"}}"#,
        after: r#"{"name":"q","type":{"type":"enum","name":"E","symbols":["A","OTHER","B"],"default":"OTHER"}}"#,
        allowed: [YES, YES, YES],
        backward: &[Case(Text("A"), Same)],
        forward: &[Case(Text("A"), Same), Case(Text("B"), Default("OTHER"))],
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
    },
    Change {
        name: "symbol removed from an enum with a default",
        before: r#"{"name":"q","type":{"type":"enum","name":"E","symbols":["A","OTHER","B"],"default":"OTHER"}}"#,
        after: r#"{"name":"q","type":{"type":"enum","name":"E","symbols":["A","OTHER"],"default":"OTHER"}}"#,
        allowed: [YES, YES, YES],
        backward: &[Case(Text("B"), Default("OTHER"))],
        forward: &[Case(Text("A"), Same)],
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
    },
    Change {
        name: "enum renamed, with an alias",
        before: r#"{"name":"q","type":{"type":"enum","name":"E","symbols":["A","B"]}}"#,
        after: r#"{"name":"q","type":{"type":"enum","name":"F","aliases":["E"],"symbols":["A","B"]}}"#,
        allowed: [YES, NO, NO],
        backward: &[Case(Text("B"), Same)],
        forward: &[Case(Text("B"), DeadLetter("it is a F, not a E"))],
    },
    Change {
        name: "bytes made a string",
        before: r#"{"name":"q","type":"string"},{"name":"raw","type":"bytes","default":""}"#,
        after: r#"{"name":"q","type":"string"},{"name":"raw","type":"string","default":""}"#,
        allowed: [YES, YES, YES],
        backward: &[Case(Text("x"), Same)],
        forward: &[Case(Text("x"), Same)],
    },
    Change {
        name: "a logical type in another unit of time",
        before: r#"{"name":"q","type":"int"},{"name":"raw","type":{"type":"long","logicalType":"timestamp-millis"},"default":0}"#,
        after: r#"{"name":"q","type":"int"},{"name":"raw","type":{"type":"long","logicalType":"timestamp-micros"},"default":0}"#,
        allowed: [NO, NO, NO],
        backward: &[Case(
            Number(3.0),
            DeadLetter("a time in milliseconds cannot be read as one in microseconds"),
        )],
        forward: &[Case(
            Number(3.0),
            DeadLetter("a time in microseconds cannot be read as one in milliseconds"),
        )],
    },
    Change {
        name: "another default, another description",
        before: r#"{"name":"q","type":["null","int"],"default":null}"#,
        after: r#"{"name":"q","type":["null","int"],"doc":"How many."}"#,
        allowed: [YES, YES, YES],
        backward: &[Case(Number(3.0), Same), Case(Nothing, Missing)],
        forward: &[Case(Number(3.0), Same)],
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

/// An instance whose configuration names this schema; `raw` is no answer.
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

/// The place of the question that the change is about: neither the first nor the one beside it.
fn place(schema: &QuestionnaireSchema) -> Option<usize> {
    schema.questions().iter().position(|question| question.name == "q" || question.name == "z")
}

fn answer(said: Said) -> Option<Answer> {
    match said {
        Nothing => None,
        Number(number) => Some(Answer::Number(number)),
        Text(text) => Some(Answer::Text(text.to_owned())),
    }
}

fn check(change: &Change, writer: &str, reader: &str, Case(said, got): &Case) {
    let name = change.name;
    let registry = Arc::new(LocalRegistry::new());
    let (writers, write) = instance(&registry, writer);
    let (readers, read) = instance(&registry, reader);
    let mut answers = vec![None; writers.questions().len()];
    answers[0] = Some(Answer::Number(1.0));
    if let Some(place) = place(&writers) {
        answers[place] = answer(*said);
    }
    let event = QuestionnaireEvent {
        event_id: String::new(),
        respondent_id: "r".to_owned(),
        event_time: EventTime(5),
        completed: false,
        answers,
    };
    let mut bytes = Vec::new();
    write.encode(&event, &mut bytes).expect(name);
    match (read.decode(&bytes), got) {
        (Err(CodecError::Unreadable { class, message, .. }), DeadLetter(words)) => {
            assert_eq!(class, "incompatible_schema", "{name}: {message}");
            assert!(message.contains(words), "{name}: {words:?} in {message:?}");
        }
        (Ok(read), Same | Missing | Ignored | Default(_)) => {
            assert_eq!(
                read.answers[0],
                Some(Answer::Number(1.0)),
                "{name}: the others are as they were"
            );
            let read = place(&readers).and_then(|place| read.answers[place].clone());
            let expected = match got {
                Same => answer(*said),
                Default(symbol) => answer(Text(symbol)),
                Missing | Ignored | DeadLetter(_) => None,
            };
            assert_eq!(read, expected, "{name}");
        }
        (other, _) => panic!("{name}: {other:?}"),
    }
}

#[test]
fn every_kind_of_change_is_read_as_the_table_says() {
    for change in CHANGES {
        let (before, after) = (schema(change.before), schema(change.after));
        change.backward.iter().for_each(|case| check(change, &before, &after, case));
        change.forward.iter().for_each(|case| check(change, &after, &before, case));
    }
}

#[test]
fn every_kind_of_change_is_allowed_where_the_table_says() {
    for change in CHANGES {
        let (before, after) = (schema(change.before), schema(change.after));
        let versions = [&before, &after].map(|text| evolution::parse(text).expect(change.name));
        for (level, allowed) in
            [Level::Backward, Level::Forward, Level::Full].into_iter().zip(change.allowed)
        {
            let found = breaches(level, &versions);
            assert_eq!(found.is_empty(), allowed, "{}: {level:?}: {found:?}", change.name);
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

/// What becomes of events, in a cell of the table.
fn cell(cases: &[Case]) -> String {
    let words = cases.iter().map(|Case(said, got)| {
        let what = match got {
            Same => "the same answer",
            Ignored => "ignored",
            Missing if matches!(said, Nothing) => "no answer",
            Missing => "as if not answered",
            Default(_) => "an unknown symbol: the default",
            DeadLetter(_) if matches!(said, Nothing) => "no answer: dead letter",
            DeadLetter(words) if words.contains("lacks it") => "dead letter",
            DeadLetter(words) if words.contains("symbol") => "an unknown symbol: dead letter",
            DeadLetter(_) if cases.len() > 1 => "an answer: dead letter",
            DeadLetter(_) => "dead letter",
        };
        what.to_owned()
    });
    let mut cells: Vec<String> = words.collect();
    cells.dedup();
    cells.join("; ")
}

#[test]
fn the_docs_have_this_table() {
    let mut table = "| change | BACKWARD | FORWARD | FULL | old events, new schema | new events, old schema |\n|---|---|---|---|---|---|\n".to_owned();
    for change in CHANGES {
        let [backward, forward, full] =
            change.allowed.map(|allowed| if allowed { "yes" } else { "no" });
        let (old, new) = (cell(change.backward), cell(change.forward));
        let name = change.name;
        writeln!(table, "| {name} | {backward} | {forward} | {full} | {old} | {new} |").unwrap();
    }
    let page = include_str!("../../docs/schemas.md");
    assert!(page.contains(&table), "docs/schemas.md should have this table:\n{table}");
}

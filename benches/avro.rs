//! Benchmark of decoding the worked example's events, written with the reader schema and with another one, against a
//! handwritten decoder for the reader schema. Prints a table, writes `target/bench/avro.json`, and fails if decoders disagree
//! or a ratio exceeds its bound.

#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark prints, and measures real time"
)]

use std::{fs, hint::black_box, path::Path, sync::Arc, time::Instant};

use anyhow::Context;
use apache_avro::{Schema, reader::datum::GenericDatumReader};
use foretell::{
    app::table,
    config::Config,
    events::questionnaire::{AnswerRef, EventSource, QuestionnaireCodec, QuestionnaireEvent},
    processors::gather::GatherSettings,
};
use foretell_avro::{
    dynamic::{Cell, DynamicCodec},
    framing,
    local::LocalRegistry,
    registry::SchemaRegistry,
};
use foretell_streams::{codec::Codec, time::EventTime};

const ROUNDS: usize = 15;
const METADATA: [&str; 4] = ["event_id", "respondent_id", "event_time", "completed"];
const SUBJECT: &str = "questionnaire-events-value";
/// Maximum ratio of the time for another writer schema to that for the reader schema.
const OTHER_MAX: f64 = 1.3;
/// Maximum ratio of the time of the codec to that of the handwritten decoder.
const HAND_MAX: f64 = 2.0;

/// Another version of the worked example's schema: fields in another order, one added, one removed, answers that cannot
/// be null, and narrower or wider types.
fn other_schema(reader: &str) -> anyhow::Result<String> {
    let mut schema: serde_json::Value = serde_json::from_str(reader)?;
    let fields = schema["fields"].as_array_mut().context("a record has fields")?;
    fields.retain(|field| field["name"] != "native_country");
    for field in fields.iter_mut() {
        if field["name"] == "hours_per_week" || field["name"] == "age" {
            let name = field["name"].clone();
            *field = serde_json::json!({"name": name, "type": "int"});
        }
    }
    fields.push(serde_json::json!({"name": "device", "type": ["null", "string"], "default": null}));
    fields.reverse();
    Ok(schema.to_string())
}

/// As in the binary: what is measured is what runs.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = Config::load(&root.join("deploy/adult/foretell.toml"), &[])?;
    let reader = config.event_schema.text();
    let other = other_schema(reader)?;
    let registry = Arc::new(LocalRegistry::new());
    registry.register("other", &other)?;
    registry.register(SUBJECT, reader)?;
    let registry: Arc<dyn SchemaRegistry> = registry;
    let codec =
        QuestionnaireCodec::new(Arc::clone(&registry), SUBJECT, Arc::clone(&config.event_schema))?;

    let events = events(&config)?;
    let same = events.iter().map(|event| {
        let mut bytes = Vec::new();
        codec.encode(event, &mut bytes)?;
        Ok(bytes)
    });
    let same: Vec<Vec<u8>> = same.collect::<anyhow::Result<_>>()?;
    let others = written_with(&registry, &other, &events, &config)?;
    let lacking =
        config.gather.questions.iter().position(|question| question.name == "native_country");
    let lacking = lacking.context("the worked example has this question")?;
    for ((event, same), other) in events.iter().zip(&same).zip(&others) {
        anyhow::ensure!(codec.decode(same)? == *event, "reader schema: another event");
        anyhow::ensure!(by_hand(same).as_ref() == Some(event), "by hand: another event");
        let mut event = event.clone();
        event.answers = config.gather.layout.keep(&event.answers, |index| index != lacking);
        anyhow::ensure!(codec.decode(other)? == event, "another schema: another event");
    }

    let questions = config.gather.questions.iter().map(|question| question.name.as_str());
    let names: Vec<&str> = METADATA.into_iter().chain(questions).collect();
    let rows = DynamicCodec::new(Arc::clone(&registry), SUBJECT, reader, &names)?;
    let few = DynamicCodec::new(Arc::clone(&registry), SUBJECT, reader, &names[..4])?;
    let mut contenders = [
        Contender::new("by hand, into an event", || {
            each(&same, |bytes| black_box(by_hand(bytes)).is_some())
        }),
        Contender::new("reader schema, into an event", || {
            each(&same, |bytes| black_box(codec.decode(bytes)).is_ok())
        }),
        Contender::new("another schema, into an event", || {
            each(&others, |bytes| black_box(codec.decode(bytes)).is_ok())
        }),
        Contender::new("by hand, into a row", || {
            each(&same, |bytes| black_box(row_by_hand(bytes)).is_some())
        }),
        Contender::new("reader schema, into a row", || {
            each(&same, |bytes| rows.decode(bytes, |row, _| Ok(black_box(row).len())).is_ok())
        }),
        Contender::new("another schema, into a row", || {
            each(&others, |bytes| rows.decode(bytes, |row, _| Ok(black_box(row).len())).is_ok())
        }),
        Contender::new("another schema, 4 of its fields", || {
            each(&others, |bytes| few.decode(bytes, |row, _| Ok(black_box(row).len())).is_ok())
        }),
    ];
    // In turns, so that a slow moment of the machine affects all of them.
    for _ in 0..ROUNDS {
        for contender in &mut contenders {
            contender.round(events.len());
        }
    }
    let peer = best_of(3, || apache(reader, &other, &others))? / others.len() as f64;
    report(root, &contenders, peer)
}

fn report(root: &Path, contenders: &[Contender<'_>], peer: f64) -> anyhow::Result<()> {
    for contender in contenders {
        println!("{:<32} {:>7.0} ns", contender.name, contender.best);
    }
    println!("{:<32} {peer:>7.0} ns", "another schema, apache-avro");
    let [hand, reader, other, hand_row, reader_row, other_row, ..] = contenders else {
        anyhow::bail!("contenders are missing");
    };
    // The names of the ratios must not change: they are compared with earlier runs. "Ours" is the reader schema.
    let bounds = [
        ("another_schema_to_ours", other.best / reader.best, OTHER_MAX),
        ("our_schema_to_by_hand", reader.best / hand.best, HAND_MAX),
        ("another_schema_to_by_hand", other.best / hand.best, HAND_MAX),
        ("another_schema_to_ours_rows", other_row.best / reader_row.best, OTHER_MAX),
        ("our_schema_to_by_hand_rows", reader_row.best / hand_row.best, HAND_MAX),
        ("another_schema_to_by_hand_rows", other_row.best / hand_row.best, HAND_MAX),
    ];
    let mut ratios = serde_json::Map::new();
    let mut missed = Vec::new();
    for (name, ratio, bound) in bounds {
        let result = if ratio <= bound { "ok" } else { "MISSED" };
        println!("{name:<32} {ratio:>7.2}  (at most {bound}) {result}");
        if ratio > bound {
            missed.push(name);
        }
        ratios.insert(name.to_owned(), ratio.into());
    }
    ratios.insert("apache_avro_to_another_schema".to_owned(), (peer / other.best).into());
    println!("{:<32} {:>7.2}", "apache_avro_to_another_schema", peer / other.best);
    let folder = root.join("target/bench");
    fs::create_dir_all(&folder)?;
    let file = folder.join("avro.json");
    fs::write(&file, serde_json::json!({ "ratios": ratios }).to_string())?;
    println!("ratios in {}", file.display());
    anyhow::ensure!(missed.is_empty(), "bounds missed: {}", missed.join(", "));
    Ok(())
}

/// A decoder of all records.
struct Contender<'a> {
    name: &'static str,
    run: Box<dyn Fn() + 'a>,
    /// Nanoseconds per record, in the best round.
    best: f64,
}

impl<'a> Contender<'a> {
    fn new(name: &'static str, run: impl Fn() + 'a) -> Self {
        Self { name, run: Box::new(run), best: f64::INFINITY }
    }

    fn round(&mut self, records: usize) {
        let start = Instant::now();
        (self.run)();
        self.best = self.best.min(start.elapsed().as_secs_f64() * 1e9 / records as f64);
    }
}

fn each(records: &[Vec<u8>], decode: impl Fn(&[u8]) -> bool) {
    for bytes in records {
        assert!(decode(black_box(bytes)), "it was decoded before");
    }
}

fn best_of(rounds: usize, run: impl Fn() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let mut best = f64::INFINITY;
    for _ in 0..rounds {
        let start = Instant::now();
        run()?;
        best = best.min(start.elapsed().as_secs_f64() * 1e9);
    }
    Ok(best)
}

/// Decodes all records with apache-avro, which resolves them into its own values.
fn apache(reader: &str, other: &str, records: &[Vec<u8>]) -> anyhow::Result<()> {
    let (reader, other) = (Schema::parse_str(reader)?, Schema::parse_str(other)?);
    let decoder = GenericDatumReader::builder(&other).reader_schema(&reader).build()?;
    for bytes in records {
        black_box(decoder.read_value(&mut &bytes[framing::HEADER_BYTES..])?);
    }
    Ok(())
}

/// The rows of the worked example as complete events.
fn events(config: &Config) -> anyhow::Result<Vec<QuestionnaireEvent>> {
    let table = config.data.play.as_ref().context("the worked example names its data")?;
    let rows = table::read(table, &config.event_schema)?;
    let event = |(number, row): (usize, table::Row)| QuestionnaireEvent {
        source: EventSource::Lead,
        event_id: format!("event-{number}"),
        respondent_id: format!("respondent-{number}"),
        event_time: EventTime(1_700_000_000_000 + i64::try_from(number).unwrap_or(0)),
        completed: true,
        answers: row.answers,
    };
    Ok(rows.into_iter().enumerate().map(event).collect())
}

/// The events encoded with the other schema.
fn written_with(
    registry: &Arc<dyn SchemaRegistry>,
    other: &str,
    events: &[QuestionnaireEvent],
    config: &Config,
) -> anyhow::Result<Vec<Vec<u8>>> {
    let mut names = METADATA.to_vec();
    let GatherSettings { questions, layout, .. } = &config.gather;
    let shared =
        questions.iter().enumerate().filter(|(_, question)| question.name != "native_country");
    let shared: Vec<_> = shared.collect();
    names.extend(shared.iter().map(|(_, question)| question.name.as_str()));
    names.push("device");
    let codec = DynamicCodec::new(Arc::clone(registry), "other", other, &names)?;
    let write = |event: &QuestionnaireEvent| {
        let mut row = vec![
            Cell::Text(&event.event_id),
            Cell::Text(&event.respondent_id),
            Cell::Long(event.event_time.0),
            Cell::Boolean(event.completed),
        ];
        let mut answers = layout.answers(&event.answers);
        row.extend(shared.iter().map(|(index, _)| match answers.at(*index) {
            AnswerRef::Missing => Cell::Null,
            AnswerRef::Number(number) => Cell::Double(number),
            AnswerRef::Whole(whole) | AnswerRef::Id(whole) => Cell::Long(whole),
            AnswerRef::Text(text) => Cell::Text(text),
            AnswerRef::Flag(flag) => Cell::Boolean(flag),
        }));
        row.push(Cell::Text("mobile"));
        let mut bytes = Vec::new();
        codec.encode(&row, &mut bytes)?;
        Ok(bytes)
    };
    events.iter().map(write).collect()
}

/// Whether the answer is a number, for each of the worked example's questions in the order of its schema.
const NUMBERS: [bool; 13] =
    [true, false, true, false, false, false, false, false, false, true, true, true, false];

/// A handwritten decoder for this one schema, which checks its input.
fn by_hand(bytes: &[u8]) -> Option<QuestionnaireEvent> {
    let mut rest = header(bytes)?;
    let event_id = text(&mut rest)?.to_owned();
    let respondent_id = text(&mut rest)?.to_owned();
    let event_time = EventTime(long(&mut rest)?);
    let completed = flag(&mut rest)?;
    let mut answers = [AnswerRef::Missing; NUMBERS.len()];
    for (answer, is_number) in answers.iter_mut().zip(NUMBERS) {
        *answer = match (long(&mut rest)?, is_number) {
            (0, _) => AnswerRef::Missing,
            (1, true) => AnswerRef::Whole(i32::try_from(long(&mut rest)?).ok()?.into()),
            (1, false) => AnswerRef::Text(text(&mut rest)?),
            (_, _) => return None,
        };
    }
    let answers = answers.into_iter().collect();
    let event = QuestionnaireEvent {
        source: EventSource::Lead,
        event_id,
        respondent_id,
        event_time,
        completed,
        answers,
    };
    (rest.is_empty() && !event.respondent_id.is_empty()).then_some(event)
}

/// A handwritten decoder into a row, without copies.
fn row_by_hand(bytes: &[u8]) -> Option<[Cell<'_>; 17]> {
    let mut rest = header(bytes)?;
    let mut row = [Cell::Null; 17];
    row[0] = Cell::Text(text(&mut rest)?);
    row[1] = Cell::Text(text(&mut rest)?);
    row[2] = Cell::Long(long(&mut rest)?);
    row[3] = Cell::Boolean(flag(&mut rest)?);
    for (cell, is_number) in row[4..].iter_mut().zip(NUMBERS) {
        *cell = match (long(&mut rest)?, is_number) {
            (0, _) => Cell::Null,
            (1, true) => Cell::Long(i64::from(i32::try_from(long(&mut rest)?).ok()?)),
            (1, false) => Cell::Text(text(&mut rest)?),
            (_, _) => return None,
        };
    }
    rest.is_empty().then_some(row)
}

fn header(bytes: &[u8]) -> Option<&[u8]> {
    let (header, datum) = bytes.split_first_chunk::<5>()?;
    (header[0] == 0).then_some(datum)
}

fn long(rest: &mut &[u8]) -> Option<i64> {
    let (mut value, mut shift) = (0_u64, 0);
    loop {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        value |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some((value >> 1).cast_signed() ^ -(value & 1).cast_signed());
        }
        shift += 7;
    }
}

fn text<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    let length = usize::try_from(long(rest)?).ok()?;
    let (text, after) = rest.split_at_checked(length)?;
    *rest = after;
    std::str::from_utf8(text).ok()
}

fn flag(rest: &mut &[u8]) -> Option<bool> {
    let (byte, after) = rest.split_first()?;
    *rest = after;
    (*byte <= 1).then_some(*byte == 1)
}

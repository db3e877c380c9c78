//! Arbitrary bytes under arbitrary writers' schemas, as many as one likes: no panic, no allocation without a bound,
//! and whatever is read is read alike on every way. `make fuzz SECONDS=60 FIRST=1`; a failure names its seed.

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::Arc,
    time::Duration,
};

use apache_avro::schema::{NamesRef, ResolvedSchema, Schema};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value as Json, json};

use crate::{
    dynamic::DynamicCodec,
    evolution::{Level, can_read, changes},
    framing,
    layout::{Layout, definition, is_long},
    local::LocalRegistry,
    registry::SchemaRegistry as _,
    resolution::Resolution,
    wire::{Cursor, Malformed, REWRITTEN_BYTES_MAX, write_blob, write_count, write_long},
};
use foretell_streams::time::{Clock as _, SystemClock};

/// What of the cases was reached, so that the fuzzing can't become idle unnoticed.
#[derive(Debug, Default)]
struct Reached {
    cases: u64,
    resolved: u64,
    rewritten: u64,
    rows: u64,
    malformed: u64,
    unresolvable: u64,
}

#[expect(clippy::disallowed_methods, reason = "a long run is asked for by the environment")]
fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|value| value.parse().ok())
}

/// Seeds of a run that is not told how long to go on: the same cases each time, on any machine.
const SEEDS: u64 = 60_000;

#[test]
fn any_bytes_of_any_schema_may_come() {
    let seconds = variable("FORETELL_FUZZ_SECONDS").map(Duration::from_secs);
    let seeds = variable("FORETELL_FUZZ_SEEDS").unwrap_or(SEEDS);
    let first = variable("FORETELL_FUZZ_FIRST").unwrap_or(1);
    let (clock, mut reached) = (SystemClock::new(), Reached::default());
    let goes_on = |seed: u64| match seconds {
        Some(seconds) => clock.elapsed() < seconds,
        None => seed - first < seeds,
    };
    let mut seed = first;
    while goes_on(seed) {
        let case = AssertUnwindSafe(|| Case::new(seed).run(&mut reached));
        if let Err(panic) = catch_unwind(case) {
            let (writer, reader) = Case::new(seed).texts;
            tracing::error!(seed, writer, reader, "this seed fails");
            panic_about(seed, &writer, &reader, panic);
        }
        seed += 1;
    }
    let Reached { cases, resolved, rewritten, rows, malformed, unresolvable } = reached;
    for part in [resolved, rewritten, rows, malformed, unresolvable] {
        assert!(part > cases / 100, "a part is hardly reached: {reached:?}");
    }
}

#[expect(clippy::print_stderr, reason = "a failing test says how to see it again")]
fn panic_about(seed: u64, writer: &str, reader: &str, panic: Box<dyn std::any::Any + Send>) -> ! {
    eprintln!("seed {seed} (FORETELL_FUZZ_FIRST={seed}): writer {writer}, reader {reader}");
    resume_unwind(panic)
}

struct Case {
    random: StdRng,
    /// Theirs and ours.
    texts: (String, String),
}

impl Case {
    fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let mut types = Types { random: &mut random, named: Vec::new(), next: 0 };
        let writer = types.record(3);
        let reader = if random.random_bool(0.85) {
            let mut reader = writer.clone();
            for _ in 0..random.random_range(0..4) {
                evolve(&mut reader, &mut random);
            }
            reader
        } else {
            Types { random: &mut random, named: Vec::new(), next: 0 }.record(3)
        };
        Self { random, texts: (writer.to_string(), reader.to_string()) }
    }

    fn run(mut self, reached: &mut Reached) {
        let (writer, reader) = &self.texts;
        let (Ok(writer), Ok(reader)) = (Schema::parse_str(writer), Schema::parse_str(reader))
        else {
            return;
        };
        reached.cases += 1;
        drop(changes(&writer, &reader));
        let names = ResolvedSchema::new(&writer).expect("it was parsed");
        let (layout, root) = Layout::of(&writer).expect("all types are defined");
        let whole = |layout: &Layout, root, datum: &[u8]| {
            let mut cursor = Cursor::new(datum);
            layout.skip(root, &mut cursor, 0).and_then(|()| cursor.finish())
        };
        let mut datum = Vec::new();
        let is_deep = !self.write(&writer, names.get_names(), &mut datum, 0);
        if !is_deep {
            assert_eq!(whole(&layout, root, &datum), Ok(()), "what was written is whole");
        }
        let resolution = Resolution::compile(&writer, &reader);
        let rows = self.rows();
        let broken: Vec<Vec<u8>> = (0..4).map(|_| self.broken(&datum)).collect();
        for (number, datum) in std::iter::once(&datum).chain(&broken).enumerate() {
            let is_whole = whole(&layout, root, datum).is_ok();
            let Ok(resolution) = &resolution else { continue };
            reached.resolved += 1;
            let mut out = Vec::new();
            let rewritten = resolution.rewrite(datum, &mut out);
            assert!(out.len() <= 2 * REWRITTEN_BYTES_MAX, "{} bytes of {}", out.len(), datum.len());
            match &rewritten {
                Ok(()) => {
                    reached.rewritten += 1;
                    assert!(is_whole, "what is read is whole");
                    let (layout, root) = Layout::of(&reader).expect("all types are defined");
                    assert_eq!(whole(&layout, root, &out), Ok(()), "what was rewritten is whole");
                }
                Err(Malformed::Unresolvable(_)) => reached.unresolvable += 1,
                Err(_) => reached.malformed += 1,
            }
            if number == 0 && !is_deep && can_read(&writer, &reader).is_ok() {
                assert_eq!(rewritten, Ok(()), "compatible schemas are compatible");
            }
            let Some(rows) = &rows else { continue };
            let (direct, through_the_struct) = (row(rows, 1, datum), row(rows, 2, &out));
            if rewritten.is_ok() && through_the_struct.is_some() {
                reached.rows += 1;
                assert_eq!(direct, through_the_struct, "both ways give the same row");
            }
        }
    }

    /// Reads rows of ours; theirs has id 1, ours id 2. None if the two are one schema.
    fn rows(&self) -> Option<DynamicCodec> {
        let (writer, reader) = &self.texts;
        let registry = LocalRegistry::new();
        registry.set_level("s", Level::None).expect("it keeps levels");
        let ids = [registry.register("s", writer).ok()?, registry.register("s", reader).ok()?];
        if ids != [1, 2] {
            return None;
        }
        let Ok(Schema::Record(record)) = Schema::parse_str(reader) else { return None };
        let names: Vec<&str> = record.fields.iter().map(|field| field.name.as_str()).collect();
        DynamicCodec::new(Arc::new(registry), "s", reader, &names).ok()
    }

    /// The datum with something wrong with it, or nothing but noise.
    fn broken(&mut self, datum: &[u8]) -> Vec<u8> {
        let mut datum = datum.to_vec();
        match self.random.random_range(0..4) {
            0 => datum.truncate(self.random.random_range(0..=datum.len())),
            1 => {
                let noise = self.random.random_range(0..40);
                datum = (0..noise).map(|_| self.random.random()).collect();
            }
            2 => datum.push(self.random.random()),
            _ => {
                for _ in 0..self.random.random_range(1..4) {
                    if !datum.is_empty() {
                        let place = self.random.random_range(0..datum.len());
                        datum[place] = self.random.random();
                    }
                }
            }
        }
        datum
    }

    /// Appends a value; false if it became too deep to be finished.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "it is apache_avro's enum: all else is text"
    )]
    fn write(
        &mut self,
        schema: &Schema,
        names: &NamesRef,
        out: &mut Vec<u8>,
        depth: usize,
    ) -> bool {
        if depth > 40 {
            return false;
        }
        let random = &mut self.random;
        match schema {
            Schema::Null => {}
            Schema::Boolean => out.push(u8::from(random.random_bool(0.5))),
            Schema::Int | Schema::Date | Schema::TimeMillis => {
                let value: i32 = if random.random_bool(0.5) {
                    random.random_range(-3..3)
                } else {
                    random.random()
                };
                write_long(i64::from(value), out);
            }
            schema if is_long(schema) => {
                let value: i64 = if random.random_bool(0.5) {
                    random.random_range(-3..3)
                } else {
                    random.random()
                };
                write_long(value, out);
            }
            Schema::Float => out.extend_from_slice(&random.random::<f32>().to_le_bytes()),
            Schema::Double => out.extend_from_slice(&random.random::<f64>().to_le_bytes()),
            Schema::Fixed(fixed) => out.extend((0..fixed.size).map(|_| b'f')),
            Schema::Enum(symbols) => {
                write_count(random.random_range(0..symbols.symbols.len()), out)
            }
            Schema::Array(array) => {
                return self.blocks(out, depth, |case, out| {
                    case.write(&array.items, names, out, depth + 1)
                });
            }
            Schema::Map(map) => {
                return self.blocks(out, depth, |case, out| {
                    write_blob(b"key", out);
                    case.write(&map.types, names, out, depth + 1)
                });
            }
            Schema::Union(union) => {
                // The first branch ends a type that contains itself.
                let count = if depth > 10 { 1 } else { union.variants().len() };
                let branch = random.random_range(0..count);
                write_count(branch, out);
                return self.write(&union.variants()[branch], names, out, depth + 1);
            }
            Schema::Record(record) => {
                return record
                    .fields
                    .iter()
                    .all(|field| self.write(&field.schema, names, out, depth + 1));
            }
            Schema::Ref { name } => {
                let schema = definition(name, names).expect("it is defined");
                return self.write(schema, names, out, depth + 1);
            }
            // Bytes, strings, and the logical types of them.
            _ => write_blob(["", "a", "é"][random.random_range(0..3)].as_bytes(), out),
        }
        true
    }

    /// Some blocks of items, some of them with their size in bytes.
    fn blocks(
        &mut self,
        out: &mut Vec<u8>,
        depth: usize,
        mut item: impl FnMut(&mut Self, &mut Vec<u8>) -> bool,
    ) -> bool {
        let blocks = if depth > 10 { 0 } else { self.random.random_range(0..3) };
        for _ in 0..blocks {
            let (count, mut items) = (self.random.random_range(1..3_i64), Vec::new());
            for _ in 0..count {
                if !item(self, &mut items) {
                    return false;
                }
            }
            if self.random.random_bool(0.5) {
                write_long(count, out);
            } else {
                write_long(-count, out);
                write_count(items.len(), out);
            }
            out.append(&mut items);
        }
        out.push(0);
        true
    }
}

/// A row in words; not a number is a number like any other there.
fn row(codec: &DynamicCodec, id: u32, datum: &[u8]) -> Option<String> {
    let mut bytes = Vec::new();
    framing::frame(id, &mut bytes);
    bytes.extend_from_slice(datum);
    codec.decode(&bytes, |row, _| Ok(format!("{row:?}"))).ok()
}

/// Makes up types.
struct Types<'r> {
    random: &'r mut StdRng,
    /// Those that can be mentioned again.
    named: Vec<String>,
    next: u32,
}

impl Types<'_> {
    fn name(&mut self, prefix: &str) -> String {
        self.next += 1;
        format!("{prefix}{}", self.next)
    }

    fn record(&mut self, depth: u32) -> Json {
        let name = if self.next == 0 { self.name("Outer") } else { self.name("R") };
        self.named.push(name.clone());
        let count = self.random.random_range(0..6);
        let fields: Vec<Json> = (0..count).map(|number| self.field(number, depth)).collect();
        json!({"type": "record", "name": name, "fields": fields})
    }

    fn field(&mut self, number: u32, depth: u32) -> Json {
        let kind = self.kind(depth.saturating_sub(1));
        let mut field = json!({"name": format!("f{number}"), "type": kind});
        if self.random.random_bool(0.5)
            && let Some(default) = default_of(&field["type"])
        {
            field["default"] = default;
        }
        field
    }

    fn kind(&mut self, depth: u32) -> Json {
        const PLAIN: [&str; 8] =
            ["null", "boolean", "int", "long", "float", "double", "bytes", "string"];
        let choices = if depth == 0 { 10 } else { 16 };
        match self.random.random_range(0..choices) {
            plain @ 0..8 => json!(PLAIN[plain]),
            8 => {
                let units = ["timestamp-millis", "timestamp-micros"];
                let unit = units[self.random.random_range(0..2)];
                json!({"type": "long", "logicalType": unit})
            }
            9 => self.symbols(),
            10 => {
                json!({"type": "fixed", "name": self.name("F"), "size": self.random.random_range(0..5)})
            }
            11 => json!({"type": "array", "items": self.kind(depth - 1)}),
            12 => json!({"type": "map", "values": self.kind(depth - 1)}),
            13 if !self.named.is_empty() => {
                // A mention of a record may be of one that is under way: only a union ends that.
                let name = self.named[self.random.random_range(0..self.named.len())].clone();
                json!(["null", name])
            }
            14 => self.record(depth - 1),
            _ => json!(["null", self.kind(0)]),
        }
    }

    fn symbols(&mut self) -> Json {
        let all = ["A", "B", "C", "D"];
        let count = self.random.random_range(1..=all.len());
        let mut kind = json!({"type": "enum", "name": self.name("E"), "symbols": all[..count]});
        if self.random.random_bool(0.5) {
            kind["default"] = json!("A");
        }
        kind
    }
}

/// A default of this type, if there is a simple one.
fn default_of(kind: &Json) -> Option<Json> {
    match kind {
        Json::String(name) => match name.as_str() {
            "null" => Some(Json::Null),
            "boolean" => Some(json!(true)),
            "int" | "long" => Some(json!(7)),
            "float" | "double" => Some(json!(1.5)),
            "bytes" | "string" => Some(json!("d")),
            _ => None,
        },
        Json::Array(branches) => default_of(branches.first()?),
        Json::Object(object) => match object.get("type")?.as_str()? {
            "long" => Some(json!(7)),
            "array" => Some(json!([])),
            "map" => Some(json!({})),
            "enum" => Some(json!("A")),
            _ => None,
        },
        Json::Null | Json::Bool(_) | Json::Number(_) => None,
    }
}

/// Changes something about a record, or about a type in it.
fn evolve(schema: &mut Json, random: &mut StdRng) {
    let Some(fields) = schema.get_mut("fields").and_then(Json::as_array_mut) else { return };
    let place = random.random_range(0..=fields.len());
    match random.random_range(0..9) {
        0 => fields.insert(place, json!({"name": "added", "type": "int", "default": 3})),
        1 => fields.insert(place, json!({"name": "needed", "type": "string"})),
        2 if place < fields.len() => drop(fields.remove(place)),
        3 if place < fields.len() => {
            let name = fields[place]["name"].clone();
            fields[place]["name"] = json!(format!("new_{}", name.as_str().unwrap_or_default()));
            fields[place]["aliases"] = json!([name]);
        }
        4 => fields.reverse(),
        5 if place < fields.len() => {
            let wider = match fields[place]["type"].as_str() {
                Some("int") => "long",
                Some("long") => "float",
                Some("float") => "double",
                Some("string") => "bytes",
                Some("bytes") => "string",
                _ => return,
            };
            fields[place]["type"] = json!(wider);
            drop(fields[place].as_object_mut().and_then(|field| field.shift_remove("default")));
        }
        6 if place < fields.len()
            && fields[place]["type"].is_string()
            && fields[place]["type"] != "null" =>
        {
            fields[place]["type"] = json!(["null", fields[place]["type"]]);
            drop(fields[place].as_object_mut().and_then(|field| field.shift_remove("default")));
        }
        7 if place < fields.len() => {
            if let Some(symbols) =
                fields[place]["type"].get_mut("symbols").and_then(Json::as_array_mut)
            {
                symbols.rotate_left(1);
            } else if let Some(branches) = fields[place]["type"].as_array_mut() {
                branches.reverse();
                drop(fields[place].as_object_mut().and_then(|field| field.shift_remove("default")));
            } else if fields[place]["type"].is_object() {
                evolve(&mut fields[place]["type"], random);
            }
        }
        8 if place < fields.len() => {
            let kind = &mut fields[place]["type"];
            if let Some(branch) = kind.as_array().and_then(|branches| branches.last().cloned()) {
                *kind = branch;
            } else if let Some(symbols) = kind.get_mut("symbols").and_then(Json::as_array_mut)
                && symbols.len() > 1
            {
                drop(symbols.pop());
            }
            drop(fields[place].as_object_mut().and_then(|field| field.shift_remove("default")));
        }
        _ => {}
    }
}

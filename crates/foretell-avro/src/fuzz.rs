//! Fuzzing with random schemas and bytes. Decoding must not panic, must allocate within bounds, and all decoders must agree
//! on the result. `make fuzz SECONDS=60 FIRST=1` runs it for longer; a failure prints its seed.

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

/// Counts of the code paths that the cases reached, so that the test fails if it stops exercising one.
#[derive(Debug, Default)]
struct Coverage {
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

/// Number of seeds of a run without a configured duration, so that it has the same cases on any machine.
const SEEDS: u64 = 60_000;

#[test]
fn random_bytes_of_random_schemas_are_decoded_consistently() {
    let seconds = variable("FORETELL_FUZZ_SECONDS").map(Duration::from_secs);
    let seeds = variable("FORETELL_FUZZ_SEEDS").unwrap_or(SEEDS);
    let first = variable("FORETELL_FUZZ_FIRST").unwrap_or(1);
    let (clock, mut coverage) = (SystemClock::new(), Coverage::default());
    let should_continue = |seed: u64| match seconds {
        Some(seconds) => clock.elapsed() < seconds,
        None => seed - first < seeds,
    };
    let mut seed = first;
    while should_continue(seed) {
        let case = AssertUnwindSafe(|| Case::new(seed).run(&mut coverage));
        if let Err(panic) = catch_unwind(case) {
            let (writer, reader) = Case::new(seed).texts;
            tracing::error!(seed, writer, reader, "this seed fails");
            report_and_panic(seed, &writer, &reader, panic);
        }
        seed += 1;
    }
    let Coverage { cases, resolved, rewritten, rows, malformed, unresolvable } = coverage;
    for count in [resolved, rewritten, rows, malformed, unresolvable] {
        assert!(count > cases / 100, "a path is hardly covered: {coverage:?}");
    }
}

#[expect(clippy::print_stderr, reason = "a failing test prints how to repeat it")]
fn report_and_panic(
    seed: u64,
    writer: &str,
    reader: &str,
    panic: Box<dyn std::any::Any + Send>,
) -> ! {
    eprintln!("seed {seed} (FORETELL_FUZZ_FIRST={seed}): writer {writer}, reader {reader}");
    resume_unwind(panic)
}

struct Case {
    random: StdRng,
    /// The writer and the reader schema.
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

    fn run(mut self, coverage: &mut Coverage) {
        let (writer, reader) = &self.texts;
        let (Ok(writer), Ok(reader)) = (Schema::parse_str(writer), Schema::parse_str(reader))
        else {
            return;
        };
        coverage.cases += 1;
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
            assert_eq!(whole(&layout, root, &datum), Ok(()), "the generated datum is incomplete");
        }
        let resolution = Resolution::compile(&writer, &reader);
        let rows = self.rows();
        let broken: Vec<Vec<u8>> = (0..4).map(|_| self.broken(&datum)).collect();
        for (number, datum) in std::iter::once(&datum).chain(&broken).enumerate() {
            let is_whole = whole(&layout, root, datum).is_ok();
            let Ok(resolution) = &resolution else { continue };
            coverage.resolved += 1;
            let mut out = Vec::new();
            let rewritten = resolution.rewrite(datum, &mut out);
            assert!(out.len() <= 2 * REWRITTEN_BYTES_MAX, "{} bytes of {}", out.len(), datum.len());
            match &rewritten {
                Ok(()) => {
                    coverage.rewritten += 1;
                    assert!(is_whole, "an incomplete datum was rewritten");
                    let (layout, root) = Layout::of(&reader).expect("all types are defined");
                    assert_eq!(whole(&layout, root, &out), Ok(()), "the result is incomplete");
                }
                Err(Malformed::Unresolvable(_)) => coverage.unresolvable += 1,
                Err(_) => coverage.malformed += 1,
            }
            if number == 0 && !is_deep && can_read(&writer, &reader).is_ok() {
                assert_eq!(rewritten, Ok(()), "a record of a compatible schema is refused");
            }
            let Some(rows) = &rows else { continue };
            let (direct, of_rewritten) = (row(rows, 1, datum), row(rows, 2, &out));
            if rewritten.is_ok() && of_rewritten.is_some() {
                coverage.rows += 1;
                assert_eq!(direct, of_rewritten, "the rows of both decoders differ");
            }
        }
    }

    /// A codec of rows of the reader schema, which has id 2; the writer schema has id 1. `None` if they are equal.
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

    /// The datum truncated, changed or extended, or random bytes.
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
                        let index = self.random.random_range(0..datum.len());
                        datum[index] = self.random.random();
                    }
                }
            }
        }
        datum
    }

    /// Appends a random value of `schema`; false if it became too deep to be completed.
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
                // The first branch, null, ends a recursive value.
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

    /// Appends some blocks of items, some of them with their size in bytes.
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

/// A row as text, in which NaN equals NaN; `None` if it cannot be decoded.
fn row(codec: &DynamicCodec, id: u32, datum: &[u8]) -> Option<String> {
    let mut bytes = Vec::new();
    framing::frame(id, &mut bytes);
    bytes.extend_from_slice(datum);
    codec.decode(&bytes, |row, _| Ok(format!("{row:?}"))).ok()
}

/// Generator of random schemas.
struct Types<'r> {
    random: &'r mut StdRng,
    /// Names of the types that can be referred to.
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
                // The named record may be an enclosing one, which only a union makes finite.
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

/// A default for this type, if there is a simple one.
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

/// Makes a random change to a record, or to a type in it.
fn evolve(schema: &mut Json, random: &mut StdRng) {
    let Some(fields) = schema.get_mut("fields").and_then(Json::as_array_mut) else { return };
    let index = random.random_range(0..=fields.len());
    match random.random_range(0..9) {
        0 => fields.insert(index, json!({"name": "added", "type": "int", "default": 3})),
        1 => fields.insert(index, json!({"name": "needed", "type": "string"})),
        2 if index < fields.len() => drop(fields.remove(index)),
        3 if index < fields.len() => {
            let name = fields[index]["name"].clone();
            fields[index]["name"] = json!(format!("new_{}", name.as_str().unwrap_or_default()));
            fields[index]["aliases"] = json!([name]);
        }
        4 => fields.reverse(),
        5 if index < fields.len() => {
            let wider = match fields[index]["type"].as_str() {
                Some("int") => "long",
                Some("long") => "float",
                Some("float") => "double",
                Some("string") => "bytes",
                Some("bytes") => "string",
                _ => return,
            };
            fields[index]["type"] = json!(wider);
            drop(fields[index].as_object_mut().and_then(|field| field.shift_remove("default")));
        }
        6 if index < fields.len()
            && fields[index]["type"].is_string()
            && fields[index]["type"] != "null" =>
        {
            fields[index]["type"] = json!(["null", fields[index]["type"]]);
            drop(fields[index].as_object_mut().and_then(|field| field.shift_remove("default")));
        }
        7 if index < fields.len() => {
            if let Some(symbols) =
                fields[index]["type"].get_mut("symbols").and_then(Json::as_array_mut)
            {
                symbols.rotate_left(1);
            } else if let Some(branches) = fields[index]["type"].as_array_mut() {
                branches.reverse();
                drop(fields[index].as_object_mut().and_then(|field| field.shift_remove("default")));
            } else if fields[index]["type"].is_object() {
                evolve(&mut fields[index]["type"], random);
            }
        }
        8 if index < fields.len() => {
            let kind = &mut fields[index]["type"];
            if let Some(branch) = kind.as_array().and_then(|branches| branches.last().cloned()) {
                *kind = branch;
            } else if let Some(symbols) = kind.get_mut("symbols").and_then(Json::as_array_mut)
                && symbols.len() > 1
            {
                drop(symbols.pop());
            }
            drop(fields[index].as_object_mut().and_then(|field| field.shift_remove("default")));
        }
        _ => {}
    }
}

//! Uses the event time in a record's value instead of the record's timestamp, with a custom codec:
//! `cargo run -p foretell-streams --example timestamp_extractor`.
//!
//! ```text
//!   readings ─▶ [codec, timestamp extractor] ─▶ maximum ─▶ maxima
//!                         └── a value without an event time ─▶ dead-letters
//! ```

#![expect(clippy::print_stdout, reason = "an example shows its result")]

use std::{error::Error, sync::Arc};

use foretell_streams::{
    codec::{Codec, CodecError, Stored, Utf8},
    record::{InputRecord, OutputRecord, Topic},
    state::KeyValueHandle,
    time::{EventTime, WallTime},
    topology::{Context, ProcessError, Processor, Record, Topology, TopologyBuilder},
};

mod on_a_broker;

use on_a_broker::{Run, text};

/// A measured temperature.
struct Reading {
    /// The time of the measurement, in seconds since the Unix epoch.
    seconds: i64,
    degrees: f64,
}

/// A codec for readings in the form `seconds,degrees`.
struct Csv;

impl Codec<Reading> for Csv {
    fn encode(&self, reading: &Reading, bytes: &mut Vec<u8>) -> Result<(), CodecError> {
        bytes.extend_from_slice(format!("{},{}", reading.seconds, reading.degrees).as_bytes());
        Ok(())
    }

    fn decode(&self, bytes: &[u8]) -> Result<Reading, CodecError> {
        let line = Utf8.decode(bytes)?;
        let parse = || {
            let (seconds, degrees) = line.split_once(',')?;
            Some(Reading { seconds: seconds.parse().ok()?, degrees: degrees.parse().ok()? })
        };
        parse().ok_or_else(|| CodecError::Unreadable {
            class: "malformed",
            schema_id: None,
            message: format!("{line:?} is not seconds,degrees"),
        })
    }
}

/// The timestamp extractor. Its arguments are the value, the record as read, and the wall-clock time.
fn measured_at(reading: &Reading, _: &InputRecord, _: WallTime) -> Result<EventTime, ProcessError> {
    if reading.seconds < 0 {
        return Err(ProcessError::reject("before_1970", "the sensor's clock is not set"));
    }
    Ok(EventTime(reading.seconds.saturating_mul(1000)))
}

/// Forwards the highest temperature of a sensor and day whenever it rises.
struct Maximum {
    maxima: KeyValueHandle<f64>,
}

const DAY_MS: i64 = 24 * 3600 * 1000;

impl Processor for Maximum {
    type In = Reading;
    type Out = String;

    fn process(
        &mut self,
        reading: &Record<Reading>,
        ctx: &mut Context<'_, String>,
    ) -> Result<(), ProcessError> {
        let day = format!("{} on day {}", reading.text_key()?, reading.time.0 / DAY_MS);
        let degrees = reading.value.degrees;
        let mut maxima = ctx.key_value(&self.maxima);
        if maxima.get(&day)?.is_some_and(|highest| degrees <= highest) {
            return Ok(());
        }
        maxima.put(&day, &degrees)?;
        let value = format!("{day}: {degrees}");
        ctx.forward(&Record { key: reading.key.clone(), value, time: reading.time })
    }
}

fn topology() -> Topology {
    let mut builder = TopologyBuilder::new("temperatures", Topic::new("dead-letters"));
    let readings =
        builder.source_timed("readings", Topic::new("readings"), Arc::new(Csv), measured_at);
    let maxima = builder.key_value_store("maxima", Arc::new(Stored::<f64>::version(1)));
    let highest = builder.process("maximum", &[readings], &[maxima.id()], move || Maximum {
        maxima: maxima.clone(),
    });
    builder.sink("maxima", &[highest], Topic::new("maxima"), Arc::new(Utf8));
    builder.build()
}

pub(crate) fn run() -> Result<Vec<String>, Box<dyn Error>> {
    let readings = Topic::new("readings");
    let record = |value: &str| {
        // The timestamp of the record is not used.
        OutputRecord::new(&readings, Some(b"roof"), Some(value.as_bytes()), EventTime(0))
    };
    let day = DAY_MS / 1000;
    let run = Run {
        group: "temperatures",
        topology: topology(),
        partitions: 1,
        input: vec![
            record(&format!("{},21.5", 19_723 * day)),
            record(&format!("{},24", 19_724 * day)),
            // Arrives a day late, and counts for the day of its event time.
            record(&format!("{},22.5", 19_723 * day + 3600)),
            record("-1,19"),
            record("warm"),
        ],
        outputs: vec![Topic::new("maxima"), Topic::new("dead-letters")],
        expected: 5,
    };
    let mut lines: Vec<_> = run.locally()?.iter().map(line).collect();
    // Records of two topics are read in no particular order.
    lines.sort();
    Ok(lines)
}

fn line(record: &InputRecord) -> String {
    let value = text(record.value.as_deref());
    let header = |name| record.headers.iter().find(|header| header.name == name);
    match header("foretell.error.message") {
        Some(reason) => format!("dead letter {value:?}: {}", text(Some(&reason.value))),
        None => value,
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    for line in run()? {
        println!("{line}");
    }
    Ok(())
}

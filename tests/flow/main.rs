//! The real topologies on a `TopologyDriver`, with real models and real Avro: events in, events out.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

mod bad_input;
mod drawings;
mod evolution;
mod fixture;
mod formats;
mod gathering;
mod identity;
mod learning;
mod outcomes;
mod recovery;
mod scored;
mod scoring;
mod time;
mod training;

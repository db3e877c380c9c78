//! The real topologies on a `TopologyDriver`, with trained models and Avro codecs.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

mod acted_examples;
mod action_histories;
mod actions;
mod bad_input;
mod cancelled_actions;
mod challenger;
mod drawings;
mod emit;
mod evolution;
mod fixture;
mod formats;
mod gathering;
mod identity;
mod join;
mod learning;
mod outcomes;
mod quality;
mod quality_formats;
mod quality_instance;
mod recovery;
mod respondents;
mod scored;
mod scoring;
mod sessions;
mod sessions_model;
mod sources;

mod time;
mod training;
mod uplift;

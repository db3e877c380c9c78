//! Tests on a real Kafka-compatible broker and a real schema registry, whose addresses are in
//! `FORETELL_TEST_BROKERS` (host:port) and `FORETELL_TEST_REGISTRY` (URL); `with-broker.sh` starts both and sets these.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod actions;
mod application;
mod backfill;
mod broker_port;
mod challenger;
mod changelogs;
mod chaos;
mod chart;
#[path = "../../crates/foretell-streams/tests/contract/mod.rs"]
mod contract;
mod dead_letters;
mod deleted;
mod deliver;
mod doctor;
mod end_to_end;
mod evolution;
mod formats;
mod gateway;
mod interop;
mod mirror;
mod mlflow;
mod mlflow_client;
mod models;
mod monitoring;
mod operator;
mod placement;
#[path = "../process/mod.rs"]
mod process;
#[expect(dead_code, reason = "only other tests choose the answer to one request")]
#[path = "../receiver/mod.rs"]
mod receiver;
mod registry;
mod replay;
mod respondents;
mod restart;
mod server_scripts;
mod soak;
mod sources;
mod stores;
#[allow(dead_code, reason = "only the tests of the command line use all of it")]
#[path = "../training_job/mod.rs"]
mod training_job;
#[path = "../two_sources/mod.rs"]
mod two_sources;
mod unknown_ids;
mod waits;

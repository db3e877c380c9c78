//! Tests of the command line and of HTTP, with processes. None needs a broker.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../process/mod.rs"]
mod process;

mod dashboard;
mod demo;
mod demo_modes;
mod doctor;
mod generate;
mod help;
mod http;
mod ids;
mod new;
mod openapi;
mod recommendations;
mod refusals;
mod replay;
mod run;
mod sagemaker;
mod schema;
mod secrets;
mod serving;
mod sources;
mod tls;
#[path = "../training_job/mod.rs"]
mod training_job;
mod tune;
#[path = "../two_sources/mod.rs"]
mod two_sources;

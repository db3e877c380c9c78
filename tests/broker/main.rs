//! What only a real Kafka-compatible broker can show. Needs one, and a registry:
//! `FORETELL_TEST_BROKERS=host:port` and `FORETELL_TEST_REGISTRY=URL`, which `with-broker.sh` sets.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod application;
mod backfill;
mod changelogs;
mod chaos;
mod contract;
mod deleted;
mod doctor;
mod evolution;
mod formats;
mod gateway;
mod interop;
mod operator;
mod placement;
mod port;
mod ports;
#[path = "../process/mod.rs"]
mod process;
mod registry;
mod soak;
mod stores;
mod the_loop;
mod unknown_ids;
mod waits;

//! Counts words on a broker in this process: `cargo run -p foretell-streams --example word_count`.
//!
//! `crates/foretell-kafka/examples/word_count.rs` runs the same topology on Kafka.

#![expect(clippy::print_stdout, reason = "an example shows its result")]

use std::{collections::BTreeMap, error::Error, sync::Arc};

use foretell_streams::{local::LocalBroker, time::SystemClock};

#[path = "../on_a_broker/mod.rs"]
mod on_a_broker;
mod topology;

pub(crate) fn run() -> Result<BTreeMap<String, u64>, Box<dyn Error>> {
    let lines = ["the quick brown fox", "jumps over the lazy dog", "The End"];
    let broker = LocalBroker::new(Arc::new(SystemClock::new()));
    topology::count_words(Arc::new(broker), &lines)
}

fn main() -> Result<(), Box<dyn Error>> {
    for (word, count) in run()? {
        println!("{word:<6}{count}");
    }
    Ok(())
}

//! Counts words on a Kafka cluster: `cargo run -p foretell-kafka --example word_count -- localhost:9092`.
//!
//! The topology is that of foretell-streams' example; only the broker differs. The topics are kept, so a second run continues
//! to count.

#![expect(clippy::print_stdout, reason = "an example shows its result")]

use std::{error::Error, sync::Arc};

use foretell_kafka::{KafkaBroker, KafkaConfig};

#[path = "../../foretell-streams/examples/on_a_broker/mod.rs"]
mod on_a_broker;
#[path = "../../foretell-streams/examples/word_count/topology.rs"]
mod topology;

fn main() -> Result<(), Box<dyn Error>> {
    let Some(bootstrap_servers) = std::env::args().nth(1) else {
        return Err(
            "no broker given: cargo run -p foretell-kafka --example word_count -- localhost:9092"
                .into(),
        );
    };
    let config = KafkaConfig { bootstrap_servers, ..KafkaConfig::default() };
    let broker = KafkaBroker::connect(&config)?;
    let lines = ["the quick brown fox", "jumps over the lazy dog", "The End"];
    for (word, count) in topology::count_words(Arc::new(broker), &lines)? {
        println!("{word:<6}{count}");
    }
    Ok(())
}

//! The Kafka cluster of the benchmark, and the records that are sent through it.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use foretell_avro::{
    codec::{AvroCodec, AvroRecord},
    local::LocalRegistry,
    registry::SchemaRegistry,
};
use foretell_kafka::{KafkaBroker, KafkaConfig};
use foretell_streams::{
    codec::Codec,
    record::{OutputRecord, Partition, Topic},
    runtime::broker::{Broker, Cleanup, TopicSpec},
    time::EventTime,
};
use serde::{Deserialize, Serialize};

/// Partitions of the input and output topics. One worker has all of them.
pub(crate) const PARTITIONS: u32 = 4;

/// More keys than records in a commit, so that nearly every input results in a changelog record.
const KEYS: u64 = 200_000;

const VALUE_BYTES: usize = 100;

/// A record of about 120 bytes in Avro.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Reading {
    pub(crate) sensor: String,
    /// Microseconds since [`Cluster::started`].
    pub(crate) sent: i64,
    pub(crate) value: f64,
    pub(crate) note: String,
    pub(crate) unit: Option<String>,
}

impl AvroRecord for Reading {
    const SCHEMA: &'static str = r#"{"type":"record","name":"Reading","fields":[
        {"name":"sensor","type":"string"},{"name":"sent","type":"long"},
        {"name":"value","type":"double"},{"name":"note","type":"string"},
        {"name":"unit","type":["null","string"],"default":null}]}"#;
}

/// A broker, and a generator of unique names on it.
pub(crate) struct Cluster {
    pub(crate) servers: String,
    pub(crate) broker: Arc<dyn Broker>,
    pub(crate) codec: Arc<AvroCodec<Reading>>,
    pub(crate) started: Instant,
    run: u64,
    named: AtomicUsize,
}

impl Cluster {
    pub(crate) fn connect(servers: String) -> anyhow::Result<Self> {
        let config = KafkaConfig { bootstrap_servers: servers.clone(), ..KafkaConfig::default() };
        let registry = Arc::new(LocalRegistry::new());
        registry.register("readings", Reading::SCHEMA)?;
        Ok(Self {
            servers,
            broker: Arc::new(KafkaBroker::connect(&config)?),
            codec: Arc::new(AvroCodec::new(registry, "readings")?),
            started: Instant::now(),
            run: RandomState::new().hash_one("bench-streams"),
            named: AtomicUsize::new(0),
        })
    }

    /// A unique name for a group or an application.
    pub(crate) fn name(&self, suffix: &str) -> String {
        let number = self.named.fetch_add(1, Ordering::Relaxed);
        format!("bench-{:08x}-{number}-{suffix}", self.run >> 32)
    }

    pub(crate) fn topic(&self, name: &str, partitions: u32) -> anyhow::Result<Topic> {
        let name = Topic::new(name);
        self.broker.create_topics(&[TopicSpec {
            name: name.clone(),
            partitions,
            cleanup: Cleanup::Delete { retention: None },
            message_bytes_max: None,
        }])?;
        Ok(name)
    }

    pub(crate) fn new_topic(&self, suffix: &str) -> anyhow::Result<Topic> {
        self.topic(&self.name(suffix), PARTITIONS)
    }

    /// The key and value of record number `index`.
    pub(crate) fn reading(&self, index: u64) -> anyhow::Result<(String, Vec<u8>)> {
        let key = format!("{:016}", index % KEYS);
        let reading = Reading {
            sensor: key.clone(),
            sent: i64::try_from(self.started.elapsed().as_micros())?,
            value: index as f64,
            note: "what a person at the station has to say of this reading, in brief words"
                .to_owned(),
            unit: Some("kelvin".to_owned()),
        };
        let mut bytes = Vec::new();
        self.codec.encode(&reading, &mut bytes)?;
        Ok((key, bytes))
    }

    /// Writes `count` readings.
    pub(crate) fn fill(&self, topic: &Topic, count: u64) -> anyhow::Result<()> {
        self.publish((0..count).map(|index| {
            let (key, value) = self.reading(index)?;
            Ok(record(topic, None, key, value))
        }))
    }

    /// Writes a changelog of `count` entries, with keys in no particular order.
    pub(crate) fn fill_changelog(&self, topic: &Topic, count: u64) -> anyhow::Result<()> {
        self.publish((0..count).map(|index| {
            let (key, value) = entry(index);
            Ok(record(topic, Some(Partition(0)), key, value))
        }))
    }

    fn publish(
        &self,
        records: impl Iterator<Item = anyhow::Result<OutputRecord>>,
    ) -> anyhow::Result<()> {
        let mut publisher = self.broker.publish()?;
        for record in records {
            publisher.send(record?)?;
        }
        publisher.flush()?;
        Ok(())
    }
}

/// An entry of a store: a key of 16 bytes and a value of 100 bytes.
pub(crate) fn entry(index: u64) -> (String, Vec<u8>) {
    (format!("{:016x}", index.wrapping_mul(0x9e37_79b9_7f4a_7c15)), vec![b'v'; VALUE_BYTES])
}

fn record(
    topic: &Topic,
    partition: Option<Partition>,
    key: String,
    value: Vec<u8>,
) -> OutputRecord {
    OutputRecord {
        topic: topic.clone(),
        partition,
        timestamp: EventTime(1_700_000_000_000),
        key: Some(key.into_bytes()),
        value: Some(value),
        headers: Vec::new(),
    }
}

//! The limit: bare librdkafka that consumes the same inputs, and produces as many records of the same sizes in transactions of
//! the same length. It decodes nothing, scores nothing, and keeps no state.

use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use foretell_streams::{
    record::Topic,
    runtime::broker::{Cleanup, TopicSpec},
};
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    producer::{BaseProducer, BaseRecord, Producer},
    types::RDKafkaErrorCode as Code,
};

use crate::{
    drained::{Application, Traffic},
    usage::{Speed, Start},
};

const COMMIT_INTERVAL: Duration = Duration::from_millis(100);
const BATCH_MAX: usize = 1_000;
const ANSWER_WITHIN: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_micros(200);

/// One output: how many records of which size follow from an event.
struct Output {
    topic: String,
    records_an_event: f64,
    value: Vec<u8>,
    /// Records that are due and not sent, less than one.
    due: f64,
}

/// Works off the same backlog.
pub(crate) fn measure(
    application: &Application,
    traffic: &[Traffic],
    events: usize,
) -> anyhow::Result<Speed> {
    let topics = &application.config().topics;
    let inputs = [topics.questionnaire_events.as_str(), topics.outcomes.as_str()];
    let mut outputs = outputs(application, traffic, &inputs, events)?;
    let consumer: BaseConsumer = consumer(&application.servers).create()?;
    let producer: BaseProducer = producer(&application.servers).create()?;
    producer.init_transactions(ANSWER_WITHIN)?;
    producer.begin_transaction()?;
    consumer.subscribe(&inputs)?;
    let (mut next, mut committed_at) = (BTreeMap::new(), Instant::now());
    let (mut read, mut start) = (0, None);
    while read < 2 * events {
        for _ in 0..BATCH_MAX {
            let Some(message) = consumer.poll(Duration::ZERO) else { break };
            let message = message?;
            if start.is_none() {
                start = Some(Start::now()?);
            }
            if message.topic() == inputs[0] {
                for output in &mut outputs {
                    output.send(&producer, message.key().unwrap_or_default())?;
                }
            }
            next.insert((message.topic().to_owned(), message.partition()), message.offset() + 1);
            read += 1;
        }
        producer.poll(Duration::ZERO);
        if committed_at.elapsed() >= COMMIT_INTERVAL || read == 2 * events {
            commit(&consumer, &producer, &next)?;
            committed_at = Instant::now();
        }
    }
    start.context("nothing was consumed")?.until_now(u64::try_from(events)?)
}

fn outputs(
    application: &Application,
    traffic: &[Traffic],
    inputs: &[&str],
    events: usize,
) -> anyhow::Result<Vec<Output>> {
    let prefix = inputs[0].trim_end_matches("questionnaire-events");
    let mut outputs = Vec::new();
    for traffic in
        traffic.iter().filter(|traffic| !inputs.contains(&&*format!("{prefix}{}", traffic.topic)))
    {
        let topic = format!("{prefix}bare-{}", traffic.topic);
        let spec = TopicSpec {
            name: Topic::new(&topic),
            partitions: application.config().partitions,
            cleanup: Cleanup::Delete { retention: None },
            message_bytes_max: None,
        };
        application.cluster().broker.create_topics(&[spec])?;
        // The key of an event stands for the key of its outputs.
        let key_bytes = "respondent-123456".len();
        let value_bytes = traffic.bytes / traffic.records;
        outputs.push(Output {
            topic,
            records_an_event: traffic.records as f64 / events as f64,
            value: sample(value_bytes.saturating_sub(key_bytes)),
            due: 0.0,
        });
    }
    Ok(outputs)
}

/// Bytes that compress about as well as records do.
fn sample(len: usize) -> Vec<u8> {
    (0..len).map(|index| if index % 4 == 0 { (index * 37 % 251) as u8 } else { b'a' }).collect()
}

impl Output {
    fn send(&mut self, producer: &BaseProducer, key: &[u8]) -> anyhow::Result<()> {
        self.due += self.records_an_event;
        while self.due >= 1.0 {
            self.due -= 1.0;
            let mut record = BaseRecord::to(&self.topic).key(key).payload(self.value.as_slice());
            while let Err((error, unsent)) = producer.send(record) {
                if error.rdkafka_error_code() != Some(Code::QueueFull) {
                    return Err(error.into());
                }
                producer.poll(Duration::ZERO);
                thread::park_timeout(PAUSE);
                record = unsent;
            }
        }
        Ok(())
    }
}

fn commit(
    consumer: &BaseConsumer,
    producer: &BaseProducer,
    next: &BTreeMap<(String, i32), i64>,
) -> anyhow::Result<()> {
    while producer.in_flight_count() > 0 {
        producer.poll(Duration::ZERO);
        thread::park_timeout(PAUSE);
    }
    let mut offsets = TopicPartitionList::new();
    for ((topic, partition), next) in next {
        offsets.add_partition_offset(topic, *partition, Offset::Offset(*next))?;
    }
    let group = consumer.group_metadata().context("a consumer in a group")?;
    producer.send_offsets_to_transaction(&offsets, &group, ANSWER_WITHIN)?;
    producer.commit_transaction(ANSWER_WITHIN)?;
    producer.begin_transaction()?;
    Ok(())
}

fn consumer(servers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", servers)
        .set("group.id", "bench-job-bare")
        .set("isolation.level", "read_committed")
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("fetch.queue.backoff.ms", "10")
        .set("fetch.wait.max.ms", "100")
        .set("enable.metrics.push", "false");
    config
}

fn producer(servers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", servers)
        .set("transactional.id", "bench-job-bare")
        .set("enable.idempotence", "true")
        .set("partitioner", "murmur2_random")
        .set("queue.buffering.max.kbytes", "65536")
        .set("delivery.report.only.error", "true")
        .set("compression.type", "lz4")
        .set("linger.ms", "5")
        .set("enable.metrics.push", "false");
    config
}

//! The baseline: librdkafka alone, with the fastest settings found, without decoding and without state.

use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use foretell_streams::{record::Topic, runtime::broker::ProcessingGuarantee};
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer},
    error::KafkaError,
    message::BorrowedMessage,
    producer::{BaseProducer, BaseRecord, Producer},
    types::RDKafkaErrorCode as Code,
};

use crate::{
    COMMIT_INTERVAL,
    cluster::Cluster,
    pipeline::Pipeline,
    usage::{Speed, Start},
};

const BATCH_MAX: usize = 1000;
const TIMEOUT: Duration = Duration::from_secs(20);
const WAIT: Duration = Duration::from_millis(100);
/// Interval between two checks of the records in flight.
const PAUSE: Duration = Duration::from_micros(200);

/// A consume-produce loop, with or without transactions.
pub(crate) struct BarePipeline {
    consumer: BaseConsumer,
    producer: BaseProducer,
    guarantee: ProcessingGuarantee,
    /// The topics to which every record is copied.
    outputs: Vec<Topic>,
    next: BTreeMap<(String, i32), i64>,
    committed_at: Instant,
    read: u64,
    committed: u64,
}

pub(crate) fn consumer(cluster: &Cluster, group: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &cluster.servers)
        .set("group.id", group)
        .set("isolation.level", "read_committed")
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("fetch.queue.backoff.ms", "10")
        .set("fetch.wait.max.ms", "100")
        .set("enable.metrics.push", "false");
    config
}

fn producer(cluster: &Cluster) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &cluster.servers)
        .set("enable.idempotence", "true")
        .set("partitioner", "murmur2_random")
        .set("queue.buffering.max.kbytes", "65536")
        .set("delivery.report.only.error", "true")
        .set("compression.type", "lz4")
        .set("linger.ms", "5")
        .set("enable.metrics.push", "false");
    config
}

impl BarePipeline {
    pub(crate) fn start(
        cluster: &Cluster,
        input: &Topic,
        outputs: &[Topic],
        guarantee: ProcessingGuarantee,
    ) -> anyhow::Result<Self> {
        let group = cluster.name("bare");
        let mut settings = producer(cluster);
        if guarantee == ProcessingGuarantee::ExactlyOnce {
            settings.set("transactional.id", &group);
        }
        let producer: BaseProducer = settings.create()?;
        if guarantee == ProcessingGuarantee::ExactlyOnce {
            producer.init_transactions(TIMEOUT)?;
            producer.begin_transaction()?;
        }
        let mut settings = consumer(cluster, &group);
        settings.set("partition.assignment.strategy", "cooperative-sticky");
        let consumer: BaseConsumer = settings.create()?;
        consumer.subscribe(&[input.as_str()])?;
        Ok(Self {
            consumer,
            producer,
            guarantee,
            outputs: outputs.to_vec(),
            next: BTreeMap::new(),
            committed_at: Instant::now(),
            read: 0,
            committed: 0,
        })
    }

    fn commit(&mut self) -> anyhow::Result<()> {
        while self.producer.in_flight_count() > 0 {
            self.producer.poll(Duration::ZERO);
            thread::park_timeout(PAUSE);
        }
        let mut offsets = TopicPartitionList::new();
        for ((topic, partition), next) in &self.next {
            offsets.add_partition_offset(topic, *partition, Offset::Offset(*next))?;
        }
        match self.guarantee {
            ProcessingGuarantee::ExactlyOnce => {
                let group = self.consumer.group_metadata().context("a consumer in a group")?;
                self.producer.send_offsets_to_transaction(&offsets, &group, TIMEOUT)?;
                self.producer.commit_transaction(TIMEOUT)?;
                self.producer.begin_transaction()?;
            }
            ProcessingGuarantee::AtLeastOnce => {
                self.consumer.commit(&offsets, CommitMode::Sync)?;
            }
        }
        self.committed = self.read;
        self.committed_at = Instant::now();
        Ok(())
    }
}

fn copy(
    producer: &BaseProducer,
    message: &BorrowedMessage<'_>,
    topic: &Topic,
) -> anyhow::Result<()> {
    let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(topic.as_str());
    record.key = message.key();
    record.payload = message.payload();
    record.timestamp = message.timestamp().to_millis();
    while let Err((error, unsent)) = producer.send(record) {
        if error.rdkafka_error_code() != Some(Code::QueueFull) {
            return Err(error.into());
        }
        producer.poll(Duration::ZERO);
        thread::park_timeout(PAUSE);
        record = unsent;
    }
    Ok(())
}

impl Pipeline for BarePipeline {
    fn turn(&mut self) -> anyhow::Result<()> {
        let since = self.committed_at.elapsed();
        let is_uncommitted = self.read > self.committed;
        let mut wait = if is_uncommitted { COMMIT_INTERVAL.saturating_sub(since) } else { WAIT };
        for _ in 0..BATCH_MAX {
            let Some(message) = self.consumer.poll(wait) else { break };
            let message = message?;
            for output in &self.outputs {
                copy(&self.producer, &message, output)?;
            }
            let source = (message.topic().to_owned(), message.partition());
            self.next.insert(source, message.offset() + 1);
            self.read += 1;
            wait = Duration::ZERO;
        }
        self.producer.poll(Duration::ZERO);
        if self.read > self.committed && self.committed_at.elapsed() >= COMMIT_INTERVAL {
            self.commit()?;
        }
        Ok(())
    }

    fn read(&self) -> u64 {
        self.read
    }

    fn committed(&self) -> u64 {
        self.committed
    }

    fn leave(self: Box<Self>) -> anyhow::Result<()> {
        self.consumer.unsubscribe();
        Ok(())
    }
}

/// Measures how fast partition 0 of `topic` can be consumed to its end, with the settings of a restore.
pub(crate) fn consume(cluster: &Cluster, topic: &Topic, records: u64) -> anyhow::Result<Speed> {
    let mut settings = consumer(cluster, &cluster.name("consume"));
    settings
        .set("enable.partition.eof", "true")
        .set("fetch.wait.max.ms", "50")
        .set("queued.max.messages.kbytes", "16384");
    let start = Start::now()?;
    let consumer: BaseConsumer = settings.create()?;
    let mut all = TopicPartitionList::new();
    all.add_partition_offset(topic.as_str(), 0, Offset::Beginning)?;
    // A restore does this as well, to find the leader.
    consumer.fetch_watermarks(topic.as_str(), 0, TIMEOUT)?;
    consumer.assign(&all)?;
    let mut read = 0;
    loop {
        match consumer.poll(WAIT) {
            None => {}
            Some(Ok(_)) => read += 1,
            Some(Err(KafkaError::PartitionEOF(_))) => break,
            Some(Err(error)) => return Err(error.into()),
        }
    }
    let speed = start.until_now(records)?;
    anyhow::ensure!(read == records, "consumed {read} of {records} records");
    Ok(speed)
}

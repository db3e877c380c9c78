//! The limit: librdkafka alone, with the fastest settings found, without decoding and without state.

use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use foretell_streams::runtime::broker::ProcessingGuarantee;
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer},
    error::KafkaError,
    message::BorrowedMessage,
    producer::{BaseProducer, BaseRecord, Producer},
    types::RDKafkaErrorCode as Code,
};

use crate::measure::{
    pipeline::Pipeline,
    usage::{Speed, Start},
};

/// As the streams layer commits by default.
pub(crate) const COMMIT_INTERVAL: Duration = Duration::from_millis(100);
const BATCH_MAX: usize = 1000;
const TIMEOUT: Duration = Duration::from_secs(20);
const WAIT: Duration = Duration::from_millis(100);
/// Interval between two checks of the records in flight.
const PAUSE: Duration = Duration::from_micros(200);

/// Sends what follows from a message.
pub(crate) type Outputs =
    Box<dyn FnMut(&BorrowedMessage<'_>, &BaseProducer) -> anyhow::Result<()> + Send>;

/// What a loop reads.
pub(crate) enum Inputs<'a> {
    /// The partitions of these topics that its group assigns to it.
    Subscribed(&'a [&'a str]),
    /// These partitions from their beginning, so that loops on several threads share them evenly from the start.
    Assigned(&'a [(&'a str, i32)]),
}

/// A consume-produce loop, with or without transactions.
pub(crate) struct BareLoop {
    consumer: BaseConsumer,
    producer: BaseProducer,
    guarantee: ProcessingGuarantee,
    outputs: Outputs,
    next: BTreeMap<(String, i32), i64>,
    committed_at: Instant,
    read: u64,
    committed: u64,
}

pub(crate) fn consumer(servers: &str, group: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", servers)
        .set("group.id", group)
        .set("isolation.level", "read_committed")
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("fetch.queue.backoff.ms", "10")
        .set("fetch.wait.max.ms", "100")
        .set("enable.metrics.push", "false");
    config
}

fn producer(servers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", servers)
        .set("enable.idempotence", "true")
        .set("partitioner", "murmur2_random")
        .set("queue.buffering.max.kbytes", "65536")
        .set("delivery.report.only.error", "true")
        .set("compression.type", "lz4")
        .set("linger.ms", "5")
        .set("enable.metrics.push", "false");
    config
}

/// Sends a record, and waits while the producer's queue is full.
pub(crate) fn send(
    producer: &BaseProducer,
    mut record: BaseRecord<'_, [u8], [u8]>,
) -> anyhow::Result<()> {
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

impl BareLoop {
    /// Starts a loop in the group `group`, which is also the id of its transactions with [`ProcessingGuarantee::ExactlyOnce`].
    pub(crate) fn start(
        servers: &str,
        group: &str,
        inputs: &Inputs<'_>,
        guarantee: ProcessingGuarantee,
        outputs: Outputs,
    ) -> anyhow::Result<Self> {
        let mut settings = producer(servers);
        if guarantee == ProcessingGuarantee::ExactlyOnce {
            settings.set("transactional.id", group);
        }
        let producer: BaseProducer = settings.create()?;
        if guarantee == ProcessingGuarantee::ExactlyOnce {
            producer.init_transactions(TIMEOUT)?;
            producer.begin_transaction()?;
        }
        let consumer: BaseConsumer = consumer(servers, group).create()?;
        match inputs {
            Inputs::Subscribed(topics) => consumer.subscribe(topics)?,
            Inputs::Assigned(partitions) => {
                let mut all = TopicPartitionList::new();
                for (topic, partition) in *partitions {
                    all.add_partition_offset(topic, *partition, Offset::Beginning)?;
                }
                consumer.assign(&all)?;
            }
        }
        Ok(Self {
            consumer,
            producer,
            guarantee,
            outputs,
            next: BTreeMap::new(),
            committed_at: Instant::now(),
            read: 0,
            committed: 0,
        })
    }

    /// The number of records of the partitions that are assigned to it.
    pub(crate) fn backlog(&self) -> anyhow::Result<u64> {
        let mut records = 0;
        for partition in self.consumer.assignment()?.elements() {
            let (topic, number) = (partition.topic(), partition.partition());
            let (first, end) = self.consumer.fetch_watermarks(topic, number, TIMEOUT)?;
            records += u64::try_from(end - first)?;
        }
        Ok(records)
    }

    /// Commits everything read so far.
    pub(crate) fn commit(&mut self) -> anyhow::Result<()> {
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

impl Pipeline for BareLoop {
    fn turn(&mut self) -> anyhow::Result<()> {
        let since = self.committed_at.elapsed();
        let is_uncommitted = self.read > self.committed;
        let mut wait = if is_uncommitted { COMMIT_INTERVAL.saturating_sub(since) } else { WAIT };
        for _ in 0..BATCH_MAX {
            let Some(message) = self.consumer.poll(wait) else { break };
            let message = message?;
            (self.outputs)(&message, &self.producer)?;
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
        if self.consumer.subscription()?.count() == 0 {
            return release(self.consumer);
        }
        self.consumer.unsubscribe();
        Ok(())
    }
}

/// Stops a consumer that was assigned its partitions. It is not dropped: in rdkafka, that waits for an answer which may never
/// come (rust-rdkafka #509).
fn release(consumer: BaseConsumer) -> anyhow::Result<()> {
    consumer.unassign()?;
    std::mem::forget(consumer);
    Ok(())
}

/// Measures how fast partition 0 of `topic` can be consumed to its end, with the settings of a restore.
pub(crate) fn consume(
    servers: &str,
    group: &str,
    topic: &str,
    records: u64,
) -> anyhow::Result<Speed> {
    let mut settings = consumer(servers, group);
    settings
        .set("enable.partition.eof", "true")
        .set("fetch.wait.max.ms", "50")
        .set("queued.max.messages.kbytes", "16384");
    let start = Start::now()?;
    let consumer: BaseConsumer = settings.create()?;
    let mut all = TopicPartitionList::new();
    all.add_partition_offset(topic, 0, Offset::Beginning)?;
    // A restore does this as well, to find the leader.
    consumer.fetch_watermarks(topic, 0, TIMEOUT)?;
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
    release(consumer)?;
    anyhow::ensure!(read == records, "consumed {read} of {records} records");
    Ok(speed)
}

//! Test support: librdkafka's mock cluster in this process, with injected failures.

use std::{ops::Range, sync::Arc, time::Duration};

use rdkafka::{
    ClientConfig,
    mocking::MockCluster,
    producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer},
    types::{RDKafkaApiKey, RDKafkaRespErr},
};

use crate::config::KafkaConfig;
use foretell_streams::{
    record::{InputRecord, OutputRecord, Partition, Topic, TopicPartition},
    runtime::broker::{Membership, ProcessingGuarantee},
    time::{Clock, EventTime, SystemClock},
};

/// The topic that members read.
pub(crate) const IN: &str = "in";

/// The topic that they write to.
pub(crate) const OUT: &str = "out";

/// Time that one step waits if there is nothing.
pub(crate) const STEP: Duration = Duration::from_millis(50);

/// Maximum number of steps that [`until`] makes: one minute.
const STEPS_MAX: usize = 1200;

/// A cluster with one partition per topic, and a producer that writes to it.
pub(crate) struct Mock {
    cluster: MockCluster<'static, DefaultProducerContext>,
    producer: BaseProducer,
    pub(crate) config: KafkaConfig,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Mock {
    pub(crate) fn new() -> Self {
        let cluster = MockCluster::new(1).unwrap();
        [IN, OUT].iter().for_each(|topic| cluster.create_topic(topic, 1, 1).unwrap());
        let bootstrap_servers = cluster.bootstrap_servers();
        let producer =
            ClientConfig::new().set("bootstrap.servers", &bootstrap_servers).create().unwrap();
        let config = KafkaConfig { bootstrap_servers, ..KafkaConfig::default() };
        Self { cluster, producer, config, clock: Arc::new(SystemClock::new()) }
    }

    /// The only partition of the input topic.
    pub(crate) fn source() -> TopicPartition {
        TopicPartition { topic: Topic::new(IN), partition: Partition(0) }
    }

    pub(crate) fn membership(guarantee: ProcessingGuarantee) -> Membership {
        Membership {
            group: "group".to_owned(),
            member: "member".to_owned(),
            lead: Topic::new(IN),
            co_partitioned: Vec::new(),
            guarantee,
            commit_interval: Membership::COMMIT_INTERVAL,
        }
    }

    /// Creates another topic.
    pub(crate) fn create_topic(&self, name: &str, partitions: i32) {
        self.cluster.create_topic(name, partitions, 1).unwrap();
    }

    /// Delays every response by `time` from now on.
    pub(crate) fn delay_responses(&self, time: Duration) {
        self.cluster.broker_round_trip_time(1, time).unwrap();
    }

    /// A record for the output topic.
    pub(crate) fn output() -> OutputRecord {
        OutputRecord {
            topic: Topic::new(OUT),
            partition: None,
            timestamp: EventTime(1),
            key: Some(b"key".to_vec()),
            value: Some(b"value".to_vec()),
            headers: Vec::new(),
        }
    }

    /// Number of records in the output topic.
    pub(crate) fn written(&self) -> i64 {
        let client = self.producer.client();
        client.fetch_watermarks(OUT, 0, Duration::from_secs(30)).unwrap().1
    }

    /// Writes a record for each of `values` to the input topic.
    pub(crate) fn write(&self, values: Range<u8>) {
        self.write_sized(values, 1);
    }

    /// Writes so much to the input topic that its first records are deleted: the cluster keeps 5 MiB of a partition.
    pub(crate) fn overflow(&self, values: Range<u8>) {
        let bytes = (8 << 20) / values.len();
        self.write_sized(values, bytes);
    }

    fn write_sized(&self, values: Range<u8>, bytes: usize) {
        for value in values {
            let value = vec![value; bytes];
            let record: BaseRecord<'_, (), _> = BaseRecord::to(IN).payload(&value);
            self.producer.send(record).unwrap();
            // Flushed one by one, so that each has a batch of its own.
            self.producer.flush(Duration::from_secs(30)).unwrap();
        }
    }

    /// Answers the next requests of this kind with these errors, one each.
    pub(crate) fn fail(&self, requests: RDKafkaApiKey, errors: &[RDKafkaRespErr]) {
        self.cluster.request_errors(requests, errors);
    }

    /// Removes the remaining errors for requests of this kind.
    pub(crate) fn clear_failures(&self, requests: RDKafkaApiKey) {
        self.cluster.clear_request_errors(requests);
    }
}

/// The values of records, of which each has one distinct byte.
pub(crate) fn values(records: &[InputRecord]) -> Vec<u8> {
    records.iter().map(|record| record.value.as_ref().unwrap()[0]).collect()
}

/// Calls `step` until it returns something; each call should wait for about [`STEP`].
pub(crate) fn until<T>(condition: &str, step: impl FnMut(usize) -> Option<T>) -> T {
    (0..STEPS_MAX).find_map(step).unwrap_or_else(|| panic!("timed out waiting until {condition}"))
}

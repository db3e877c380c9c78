//! Metadata requests, and the creation of topics.

use std::{
    collections::BTreeMap,
    future::Future,
    pin::pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::Duration,
};

use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication},
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::{KafkaError, KafkaResult},
    metadata::Metadata,
    types::RDKafkaErrorCode as Code,
};

use crate::{
    config::KafkaConfig,
    deadline::{Deadline, pause_for},
    error::{Recovery, broker_error, recovery},
    logging::LogOnly,
    record_limits::RecordLimits,
    token,
    unreachable::{ErrorCollector, Unreachable},
    watermarks::watermarks,
};
use foretell_streams::{
    record::{Offset, Topic, TopicPartition},
    runtime::broker::{BrokerError, Cleanup, Isolation, TopicSpec},
    time::Clock,
};

/// Time limit of a request.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Time within which all partitions of a new topic must have leaders.
const LEADERS_WITHIN: Duration = Duration::from_secs(30);

/// Time limit of one attempt to reach a broker; librdkafka's errors are collected between attempts.
const ATTEMPT: Duration = Duration::from_secs(2);

/// Time for which a topic must be reported as unknown before it is taken to be absent. A broker that has just started, or is
/// partitioned from the others, may have old metadata. A new topic is known to all brokers in well under a second.
const ABSENCE_CONFIRMED_AFTER: Duration = Duration::from_secs(3);

/// Maximum number of events served at once: an error and some log lines for each broker.
const EVENTS_MAX: usize = 100;

/// Pause between two attempts of a request.
const RETRY_INTERVAL: Duration = Duration::from_millis(50);

impl ConsumerContext for LogOnly {}

/// The clients for metadata and administration that all parts of a [`KafkaBroker`](crate::KafkaBroker) share.
pub(crate) struct Admin {
    metadata: BaseConsumer<ErrorCollector>,
    /// Looks up the ends of partitions including uncommitted records. The isolation level is a setting of a client.
    uncommitted: BaseConsumer<ErrorCollector>,
    client: AdminClient<LogOnly>,
    /// Limits of topics, looked up once per process, so that a new producer needs no request during an outage.
    pub(crate) topic_limits: Mutex<BTreeMap<Topic, RecordLimits>>,
    /// Configuration of `client`, from which its token is renewed.
    settings: ClientConfig,
    clock: Arc<dyn Clock>,
}

impl Admin {
    /// Connects, and waits until a broker has responded.
    pub(crate) fn connect(
        config: &KafkaConfig,
        clock: &Arc<dyn Clock>,
    ) -> Result<Self, Unreachable> {
        let metadata = connecting_consumer(&config.metadata(Isolation::ReadCommitted))?;
        wait_for_a_broker(&metadata, config, clock)?;
        // Created only now, because each client reports unreachable brokers itself.
        let uncommitted = connecting_consumer(&config.metadata(Isolation::ReadUncommitted))?;
        metadata.context().connected();
        uncommitted.context().connected();
        let settings = config.admin();
        let client = settings
            .create_with_context(LogOnly::default())
            .map_err(|error| refused(broker_error("connect", &error)))?;
        Ok(Self {
            metadata,
            uncommitted,
            client,
            topic_limits: Mutex::default(),
            settings,
            clock: Arc::clone(clock),
        })
    }

    /// Metadata of the cluster, with one topic or all.
    pub(crate) fn metadata(&self, topic: Option<&Topic>) -> KafkaResult<Metadata> {
        self.serve();
        self.metadata.fetch_metadata(topic.map(Topic::as_str), REQUEST_TIMEOUT)
    }

    /// Id of the cluster, if it has one.
    pub(crate) fn cluster_id(&self) -> Option<String> {
        self.metadata.client().fetch_cluster_id(REQUEST_TIMEOUT)
    }

    /// Settings of a topic or a broker that have a value.
    pub(crate) fn settings_of(
        &self,
        resource: &ResourceSpecifier<'_>,
    ) -> KafkaResult<BTreeMap<String, String>> {
        self.settings_within(REQUEST_TIMEOUT, resource)
    }

    fn settings_within(
        &self,
        within: Duration,
        resource: &ResourceSpecifier<'_>,
    ) -> KafkaResult<BTreeMap<String, String>> {
        token::install(self.client.inner(), &self.settings)?;
        let response = self.client.describe_configs([resource], &options(within));
        let answer = wait_for(response, within, &self.clock)?;
        let described = answer.into_iter().next().unwrap_or(Err(Code::NoEnt));
        let entries = described.map_err(KafkaError::AdminOp)?.entries.into_iter();
        Ok(entries.filter_map(|entry| Some((entry.name, entry.value?))).collect())
    }

    /// The offset after the last record of `source`.
    pub(crate) fn end(
        &self,
        source: &TopicPartition,
        isolation: Isolation,
    ) -> Result<Offset, BrokerError> {
        self.serve();
        let consumer = match isolation {
            Isolation::ReadCommitted => &self.metadata,
            Isolation::ReadUncommitted => &self.uncommitted,
        };
        match watermarks(consumer, source, &self.clock) {
            Ok((_, end)) => Ok(Offset(end)),
            Err(error) => Err(broker_error(&format!("find the end of {source}"), &error)),
        }
    }

    /// Number of partitions of `topic`; `None` if it is reported as unknown for [`ABSENCE_CONFIRMED_AFTER`].
    pub(crate) fn partitions(&self, topic: &Topic) -> Result<Option<u32>, BrokerError> {
        self.partitions_within(topic, ABSENCE_CONFIRMED_AFTER)
    }

    /// Number of partitions of `topic`; `None` if it is reported as unknown for `absent_for`.
    fn partitions_within(
        &self,
        topic: &Topic,
        absent_for: Duration,
    ) -> Result<Option<u32>, BrokerError> {
        let deadline = Deadline::within(REQUEST_TIMEOUT, &self.clock);
        let mut absent: Option<Deadline> = None;
        loop {
            match self.topic_state(topic) {
                Err(BrokerError::Retry(_)) if !deadline.passed() => {}
                // The time counts from the first such response; a failed request proves nothing.
                Ok(None)
                    if !absent_for.is_zero() && absent.as_ref().is_none_or(|end| !end.passed()) =>
                {
                    absent.get_or_insert_with(|| Deadline::within(absent_for, &self.clock));
                }
                answer => return Ok(answer?.map(|state| state.partitions)),
            }
            pause_for(RETRY_INTERVAL);
        }
    }

    /// `max.message.bytes` of `topic`: its maximum size of a record batch. `None` if it is not allowed to be read, or the
    /// response takes longer than one attempt: a worker looks it up before its first record for each topic, and must poll its
    /// group again soon.
    pub(crate) fn message_bytes_max(&self, topic: &Topic) -> Option<usize> {
        let settings = self.settings_within(ATTEMPT, &ResourceSpecifier::Topic(topic.as_str()));
        settings.ok()?.get("max.message.bytes")?.parse().ok()
    }

    /// Creates the topics that do not exist, waits until their partitions have leaders, and returns their names.
    pub(crate) fn create_topics(&self, specs: &[TopicSpec]) -> Result<Vec<Topic>, BrokerError> {
        let mut missing = Vec::new();
        for spec in specs {
            // If the topic exists after all, its creation below reports that.
            match self.partitions_within(&spec.name, Duration::ZERO)? {
                Some(partitions) => same_partitions(spec, partitions)?,
                None => missing.push(spec),
            }
        }
        let mut created = Vec::new();
        for spec in missing {
            if self.create(spec)? {
                created.push(spec.name.clone());
            }
            self.wait_until_usable(spec)?;
        }
        Ok(created)
    }

    /// Creates a topic; false if it exists already.
    fn create(&self, spec: &TopicSpec) -> Result<bool, BrokerError> {
        let settings = settings(spec);
        let partitions = i32::try_from(spec.partitions).map_err(|_| {
            BrokerError::Fatal(format!("{}: {} partitions", spec.name, spec.partitions))
        })?;
        // -1: the broker's default replication factor (Kafka 2.4, KIP-464; Redpanda too).
        let replication = TopicReplication::Fixed(-1);
        let mut topic = NewTopic::new(spec.name.as_str(), partitions, replication);
        for (name, value) in &settings {
            topic = topic.set(name, value);
        }
        let doing = format!("create topic {}", spec.name);
        let failed = |error: KafkaError| broker_error(&doing, &error);
        token::install(self.client.inner(), &self.settings).map_err(failed)?;
        let options = options(REQUEST_TIMEOUT);
        let response = self.client.create_topics([&topic], &options);
        let answer = wait_for(response, REQUEST_TIMEOUT, &self.clock).map_err(failed)?;
        match answer.into_iter().next() {
            Some(Err((_, Code::TopicAlreadyExists))) => Ok(false),
            Some(Err((_, code))) => {
                let text = format!("cannot {doing}: {code}");
                Err(match recovery(code) {
                    Recovery::Retry => BrokerError::Retry(text),
                    Recovery::Abort | Recovery::Fenced | Recovery::Fatal => {
                        BrokerError::Fatal(text)
                    }
                })
            }
            Some(Ok(_)) | None => Ok(true),
        }
    }

    fn wait_until_usable(&self, spec: &TopicSpec) -> Result<(), BrokerError> {
        let deadline = Deadline::within(LEADERS_WITHIN, &self.clock);
        loop {
            match self.topic_state(&spec.name) {
                Ok(Some(state)) if state.all_have_leaders => {
                    return same_partitions(spec, state.partitions);
                }
                Ok(_) | Err(BrokerError::Retry(_)) => (),
                Err(error) => return Err(error),
            }
            if deadline.passed() {
                return Err(BrokerError::Retry(format!(
                    "topic {} was created, but has partitions without a leader after {} s",
                    spec.name,
                    LEADERS_WITHIN.as_secs()
                )));
            }
            pause_for(RETRY_INTERVAL);
        }
    }

    fn topic_state(&self, topic: &Topic) -> Result<Option<TopicState>, BrokerError> {
        let doing = format!("look up topic {topic}");
        let metadata = self.metadata(Some(topic)).map_err(|error| broker_error(&doing, &error))?;
        let Some(found) = metadata.topics().iter().find(|found| found.name() == topic.as_str())
        else {
            return Ok(None);
        };
        if let Some(error) = found.error() {
            // Checked before the partitions, of which there is no list then.
            let code = Code::from(error);
            let missing = matches!(code, Code::UnknownTopicOrPartition | Code::UnknownTopic);
            let error = broker_error(&doing, &KafkaError::MetadataFetch(code));
            return if missing { Ok(None) } else { Err(error) };
        }
        let partitions = found.partitions();
        Ok(Some(TopicState {
            partitions: u32::try_from(partitions.len())
                .expect("Kafka counts partitions in 31 bits"),
            all_have_leaders: partitions.iter().all(|partition| partition.leader() >= 0),
        }))
    }

    /// Serves librdkafka's log lines and errors.
    fn serve(&self) {
        serve(&self.metadata);
        serve(&self.uncommitted);
    }
}

fn wait_for_a_broker(
    metadata: &BaseConsumer<ErrorCollector>,
    config: &KafkaConfig,
    clock: &Arc<dyn Clock>,
) -> Result<(), Unreachable> {
    let deadline = Deadline::within(REQUEST_TIMEOUT, clock);
    while !deadline.passed() {
        serve(metadata);
        if metadata.fetch_metadata(None, deadline.remaining().min(ATTEMPT)).is_ok() {
            return Ok(());
        }
        serve(metadata);
        if metadata.context().is_refused() {
            break;
        }
        pause_for(RETRY_INTERVAL);
    }
    let mut collector = metadata.context();
    let consumer;
    if collector.may_be_disconnecting() {
        consumer = collect_disconnects(config, clock)?;
        collector = consumer.context();
    }
    Err(collector.unreachable(&config.bootstrap_servers, REQUEST_TIMEOUT.as_secs()))
}

/// Connects once more, with a consumer that logs closed connections. Other clients do not log them, because idle connections
/// are closed regularly; but one that is closed during its handshake means that the listener expects another protocol.
fn collect_disconnects(
    config: &KafkaConfig,
    clock: &Arc<dyn Clock>,
) -> Result<BaseConsumer<ErrorCollector>, Unreachable> {
    let mut all = config.metadata(Isolation::ReadCommitted);
    all.set("log.connection.close", "true");
    let consumer = connecting_consumer(&all)?;
    let deadline = Deadline::within(ATTEMPT, clock);
    while !deadline.passed() && consumer.context().may_be_disconnecting() {
        // A client connects only when it has a request.
        drop(consumer.fetch_metadata(None, RETRY_INTERVAL));
        serve(&consumer);
    }
    Ok(consumer)
}

/// A consumer that collects the errors of its connections.
fn connecting_consumer(config: &ClientConfig) -> Result<BaseConsumer<ErrorCollector>, Unreachable> {
    let made = config.create_with_context(ErrorCollector::default());
    let made = made.and_then(|consumer: BaseConsumer<ErrorCollector>| {
        token::install(consumer.client(), config).map(|()| consumer)
    });
    made.map_err(|error| refused(broker_error("connect", &error)))
}

fn serve(consumer: &BaseConsumer<ErrorCollector>) {
    for _ in 0..EVENTS_MAX {
        drop(consumer.poll(Duration::ZERO));
    }
}

/// The error for settings that librdkafka refuses.
fn refused(error: BrokerError) -> Unreachable {
    Unreachable { detail: error.to_string(), fix: "correct it in [broker]".to_owned() }
}

/// State of a topic in the cluster's metadata.
struct TopicState {
    partitions: u32,
    all_have_leaders: bool,
}

fn same_partitions(spec: &TopicSpec, found: u32) -> Result<(), BrokerError> {
    if found == spec.partitions {
        return Ok(());
    }
    Err(BrokerError::Fatal(format!(
        "topic {} has {found} partitions, not {}: configure {found}, or delete the topic, or choose another prefix",
        spec.name, spec.partitions
    )))
}

/// Kafka's settings for a topic.
fn settings(spec: &TopicSpec) -> Vec<(&'static str, String)> {
    let (policy, retention) = match spec.cleanup {
        Cleanup::Delete { retention } => ("delete", retention.map_or(-1, whole_millis)),
        Cleanup::Compact => ("compact", -1),
        Cleanup::CompactDelete { retention } => ("compact,delete", whole_millis(retention)),
    };
    let mut settings =
        vec![("cleanup.policy", policy.to_owned()), ("retention.ms", retention.to_string())];
    if let Some(timestamps) = spec.cleanup.timestamps() {
        settings.push(("message.timestamp.type", timestamps.name().to_owned()));
    }
    if let Some(bytes) = spec.message_bytes_max {
        settings.push(("max.message.bytes", bytes.to_string()));
    }
    settings
}

fn whole_millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

fn options(within: Duration) -> AdminOptions {
    AdminOptions::new().request_timeout(Some(within)).operation_timeout(Some(within))
}

/// Blocks on one of rdkafka's futures, which its own thread completes. It needs no async runtime, and can be called inside
/// one. librdkafka should complete it `within` the time limit; since it may not, it fails after twice that time.
fn wait_for<T>(
    future: impl Future<Output = KafkaResult<T>>,
    within: Duration,
    clock: &Arc<dyn Clock>,
) -> KafkaResult<T> {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let deadline = Deadline::within(within * 2, clock);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending if deadline.passed() => {
                return Err(KafkaError::AdminOp(Code::OperationTimedOut));
            }
            Poll::Pending => thread::park_timeout(deadline.remaining()),
        }
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use foretell_streams::time::{ManualClock, WallTime};

    fn check(cleanup: Cleanup, message_bytes_max: Option<u32>, expected: &[(&str, &str)]) {
        let name = Topic::new("models");
        let spec = TopicSpec { name, partitions: 1, cleanup, message_bytes_max };
        let settings = settings(&spec);
        let found: Vec<(&str, &str)> =
            settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn topic_settings_have_kafkas_names() {
        let day = Duration::from_secs(86_400);
        check(
            Cleanup::Delete { retention: None },
            None,
            &[("cleanup.policy", "delete"), ("retention.ms", "-1")],
        );
        check(
            Cleanup::CompactDelete { retention: day },
            None,
            &[
                ("cleanup.policy", "compact,delete"),
                ("retention.ms", "86400000"),
                ("message.timestamp.type", "CreateTime"),
            ],
        );
        check(
            Cleanup::Delete { retention: Some(day) },
            None,
            &[
                ("cleanup.policy", "delete"),
                ("retention.ms", "86400000"),
                ("message.timestamp.type", "LogAppendTime"),
            ],
        );
        check(
            Cleanup::Compact,
            Some(16_777_216),
            &[
                ("cleanup.policy", "compact"),
                ("retention.ms", "-1"),
                ("message.timestamp.type", "CreateTime"),
                ("max.message.bytes", "16777216"),
            ],
        );
    }

    #[test]
    fn another_number_of_partitions_is_refused_with_a_fix() {
        let spec = TopicSpec {
            name: Topic::new("outcomes"),
            partitions: 4,
            cleanup: Cleanup::Compact,
            message_bytes_max: None,
        };
        assert!(same_partitions(&spec, 4).is_ok());
        let Err(BrokerError::Fatal(text)) = same_partitions(&spec, 3) else {
            panic!("three are not four")
        };
        assert!(text.contains("configure 3"));
    }

    #[test]
    fn waiting_for_a_future_is_bounded() {
        let clock = Arc::new(ManualClock::at(WallTime(0)));
        let time: Arc<dyn Clock> = Arc::<ManualClock>::clone(&clock);
        assert_eq!(wait_for(std::future::ready(Ok(7)), REQUEST_TIMEOUT, &time), Ok(7));
        let never = std::future::poll_fn(|_| -> Poll<KafkaResult<()>> {
            clock.advance(REQUEST_TIMEOUT * 3);
            Poll::Pending
        });
        let expected = KafkaError::AdminOp(Code::OperationTimedOut);
        assert_eq!(wait_for(never, REQUEST_TIMEOUT, &time), Err(expected));
    }
}

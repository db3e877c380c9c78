//! Questions about topics, and their creation.

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
    token,
    topic_limits::Limits,
    unreachable::{ErrorCollector, Unreachable},
    watermarks::watermarks,
};
use foretell_streams::{
    record::{Offset, Topic, TopicPartition},
    runtime::broker::{BrokerError, Cleanup, Isolation, TopicSpec},
    time::Clock,
};

/// How long somebody has to answer.
pub(crate) const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// How long a new topic may take until all its partitions have leaders.
const USABLE_WITHIN: Duration = Duration::from_secs(30);

/// One look for a broker: in between, librdkafka's complaints are heard.
const LOOK: Duration = Duration::from_secs(2);

/// A topic that does not exist is asked for again, of any broker, for so long: one that has just started, or is
/// cut off from the others, may not know what they know. A new topic is known everywhere in well under a second.
const ABSENT_FOR: Duration = Duration::from_secs(3);

/// Complaints heard in one go: an error and some log lines for each broker.
const HEARD_MAX: usize = 100;

/// Between two questions.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(50);

impl ConsumerContext for LogOnly {}

/// One connection for all questions.
pub(crate) struct Admin {
    metadata: BaseConsumer<ErrorCollector>,
    /// Asks for the ends of partitions: a client asks by the isolation level that it is configured for.
    uncommitted: BaseConsumer<ErrorCollector>,
    client: AdminClient<LogOnly>,
    /// What topics take: asked once a process, so that nobody has to ask in the middle of an outage.
    pub(crate) topic_limits: Mutex<BTreeMap<Topic, Limits>>,
    /// The client's, for a token that has to be shown again.
    settings: ClientConfig,
    clock: Arc<dyn Clock>,
}

impl Admin {
    /// Connects, and waits until a broker has answered.
    pub(crate) fn connect(
        config: &KafkaConfig,
        clock: &Arc<dyn Clock>,
    ) -> Result<Self, Unreachable> {
        let metadata = listener(&config.metadata(Isolation::ReadCommitted))?;
        wait_for_a_broker(&metadata, config, clock)?;
        // Not before: each client complains for itself of nobody being there.
        let uncommitted = listener(&config.metadata(Isolation::ReadUncommitted))?;
        metadata.context().connected();
        uncommitted.context().connected();
        let settings = config.admin();
        let client = settings
            .create_with_context(LogOnly)
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

    /// What the cluster says of itself, of one topic or of all.
    pub(crate) fn metadata(&self, topic: Option<&Topic>) -> KafkaResult<Metadata> {
        self.serve();
        self.metadata.fetch_metadata(topic.map(Topic::as_str), ANSWER_WITHIN)
    }

    /// The cluster's own name for itself.
    pub(crate) fn cluster_id(&self) -> Option<String> {
        self.metadata.client().fetch_cluster_id(ANSWER_WITHIN)
    }

    /// The settings of a topic or a broker, those that have a value.
    pub(crate) fn settings_of(
        &self,
        what: &ResourceSpecifier<'_>,
    ) -> KafkaResult<BTreeMap<String, String>> {
        self.settings_within(ANSWER_WITHIN, what)
    }

    fn settings_within(
        &self,
        within: Duration,
        what: &ResourceSpecifier<'_>,
    ) -> KafkaResult<BTreeMap<String, String>> {
        token::install(self.client.inner(), &self.settings)?;
        let asked = self.client.describe_configs([what], &options(within));
        let answer = wait_for(asked, within, &self.clock)?;
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

    /// How many partitions `topic` has; none if it does not exist, which is to be heard for [`ABSENT_FOR`].
    pub(crate) fn partitions(&self, topic: &Topic) -> Result<Option<u32>, BrokerError> {
        self.partitions_unless(topic, ABSENT_FOR)
    }

    /// The same; that the topic does not exist is believed after `absent_for`.
    fn partitions_unless(
        &self,
        topic: &Topic,
        absent_for: Duration,
    ) -> Result<Option<u32>, BrokerError> {
        let deadline = Deadline::within(ANSWER_WITHIN, &self.clock);
        let mut absent: Option<Deadline> = None;
        loop {
            match self.look(topic) {
                Err(BrokerError::Retry(_)) if !deadline.passed() => {}
                // From the first such answer on: a question that nobody answered says nothing.
                Ok(None)
                    if !absent_for.is_zero() && absent.as_ref().is_none_or(|end| !end.passed()) =>
                {
                    absent.get_or_insert_with(|| Deadline::within(absent_for, &self.clock));
                }
                answer => return Ok(answer?.map(|seen| seen.partitions)),
            }
            pause_for(ASK_AGAIN_AFTER);
        }
    }

    /// The largest record batch that `topic` takes, in bytes, if we may know; also none if nobody says so soon. A worker asks
    /// before its first record for each topic, and must not be kept from polling its group.
    pub(crate) fn message_bytes_max(&self, topic: &Topic) -> Option<usize> {
        let settings = self.settings_within(LOOK, &ResourceSpecifier::Topic(topic.as_str()));
        settings.ok()?.get("max.message.bytes")?.parse().ok()
    }

    /// Creates those of `specs` that do not exist, waits until they can be used, and returns their names.
    pub(crate) fn create_topics(&self, specs: &[TopicSpec]) -> Result<Vec<Topic>, BrokerError> {
        let mut missing = Vec::new();
        for spec in specs {
            // The caller learns if the topic exists after all.
            match self.partitions_unless(&spec.name, Duration::ZERO)? {
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

    /// False if somebody else was quicker.
    fn create(&self, spec: &TopicSpec) -> Result<bool, BrokerError> {
        let settings = settings(spec);
        let partitions = i32::try_from(spec.partitions).map_err(|_| {
            BrokerError::Fatal(format!("{}: {} partitions", spec.name, spec.partitions))
        })?;
        // -1: as many replicas as the broker makes by default (Kafka 2.4, KIP-464; Redpanda too).
        let replication = TopicReplication::Fixed(-1);
        let mut topic = NewTopic::new(spec.name.as_str(), partitions, replication);
        for (name, value) in &settings {
            topic = topic.set(name, value);
        }
        let doing = format!("create topic {}", spec.name);
        let failed = |error: KafkaError| broker_error(&doing, &error);
        token::install(self.client.inner(), &self.settings).map_err(failed)?;
        let options = options(ANSWER_WITHIN);
        let asked = self.client.create_topics([&topic], &options);
        let answer = wait_for(asked, ANSWER_WITHIN, &self.clock).map_err(failed)?;
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
        let deadline = Deadline::within(USABLE_WITHIN, &self.clock);
        loop {
            match self.look(&spec.name) {
                Ok(Some(seen)) if seen.all_have_leaders => {
                    return same_partitions(spec, seen.partitions);
                }
                Ok(_) | Err(BrokerError::Retry(_)) => (),
                Err(error) => return Err(error),
            }
            if deadline.passed() {
                return Err(BrokerError::Retry(format!(
                    "topic {} was created, but has partitions without a leader after {} s",
                    spec.name,
                    USABLE_WITHIN.as_secs()
                )));
            }
            pause_for(ASK_AGAIN_AFTER);
        }
    }

    fn look(&self, topic: &Topic) -> Result<Option<Seen>, BrokerError> {
        let doing = format!("look at topic {topic}");
        let metadata = self.metadata(Some(topic)).map_err(|error| broker_error(&doing, &error))?;
        let Some(found) = metadata.topics().iter().find(|seen| seen.name() == topic.as_str())
        else {
            return Ok(None);
        };
        if let Some(error) = found.error() {
            // Before its partitions are touched: there is no list of them.
            let code = Code::from(error);
            let missing = matches!(code, Code::UnknownTopicOrPartition | Code::UnknownTopic);
            let error = broker_error(&doing, &KafkaError::MetadataFetch(code));
            return if missing { Ok(None) } else { Err(error) };
        }
        let partitions = found.partitions();
        Ok(Some(Seen {
            partitions: u32::try_from(partitions.len())
                .expect("Kafka counts partitions in 31 bits"),
            all_have_leaders: partitions.iter().all(|partition| partition.leader() >= 0),
        }))
    }

    /// Takes librdkafka's log lines and complaints.
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
    let deadline = Deadline::within(ANSWER_WITHIN, clock);
    while !deadline.passed() {
        serve(metadata);
        if metadata.fetch_metadata(None, deadline.remaining().min(LOOK)).is_ok() {
            return Ok(());
        }
        serve(metadata);
        if metadata.context().is_refused() {
            break;
        }
        pause_for(ASK_AGAIN_AFTER);
    }
    let mut collector = metadata.context();
    let listener;
    if collector.may_be_hanging_up() {
        listener = listen_for_hang_ups(config, clock)?;
        collector = listener.context();
    }
    Err(collector.unreachable(&config.bootstrap_servers, ANSWER_WITHIN.as_secs()))
}

/// Connections that end are passed over, since idle ones do all the time; but one that ends where it should
/// begin tells that the listener expects something else. So a client of its own listens for that.
fn listen_for_hang_ups(
    config: &KafkaConfig,
    clock: &Arc<dyn Clock>,
) -> Result<BaseConsumer<ErrorCollector>, Unreachable> {
    let mut all = config.metadata(Isolation::ReadCommitted);
    all.set("log.connection.close", "true");
    let listener = listener(&all)?;
    let deadline = Deadline::within(LOOK, clock);
    while !deadline.passed() && listener.context().may_be_hanging_up() {
        // Without a question it would not even connect.
        drop(listener.fetch_metadata(None, ASK_AGAIN_AFTER));
        serve(&listener);
    }
    Ok(listener)
}

fn listener(config: &ClientConfig) -> Result<BaseConsumer<ErrorCollector>, Unreachable> {
    let made = config.create_with_context(ErrorCollector::default());
    let made = made.and_then(|consumer: BaseConsumer<ErrorCollector>| {
        token::install(consumer.client(), config).map(|()| consumer)
    });
    made.map_err(|error| refused(broker_error("connect", &error)))
}

fn serve(consumer: &BaseConsumer<ErrorCollector>) {
    for _ in 0..HEARD_MAX {
        drop(consumer.poll(Duration::ZERO));
    }
}

/// The settings can't be right.
fn refused(error: BrokerError) -> Unreachable {
    Unreachable { detail: error.to_string(), fix: "correct it in [broker]".to_owned() }
}

struct Seen {
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

/// A topic's settings as Kafka names them.
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

/// Runs rdkafka's futures, which its own thread completes: no runtime is needed, and none must be
/// in the way, for this may be called from inside one. librdkafka has to answer `within`, and may forget it: twice that is the end.
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
    fn settings_have_kafkas_names() {
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
    fn another_number_of_partitions_is_refused_with_the_way_out() {
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
    fn a_future_is_waited_for_and_not_for_ever() {
        let clock = Arc::new(ManualClock::at(WallTime(0)));
        let time: Arc<dyn Clock> = Arc::<ManualClock>::clone(&clock);
        assert_eq!(wait_for(std::future::ready(Ok(7)), ANSWER_WITHIN, &time), Ok(7));
        let never = std::future::poll_fn(|_| -> Poll<KafkaResult<()>> {
            clock.advance(ANSWER_WITHIN * 3);
            Poll::Pending
        });
        let expected = KafkaError::AdminOp(Code::OperationTimedOut);
        assert_eq!(wait_for(never, ANSWER_WITHIN, &time), Err(expected));
    }
}

//! A producer that sends records and collects failed deliveries. `transaction` adds transactions.

use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use rdkafka::{
    ClientConfig, Message,
    error::KafkaError,
    producer::{BaseProducer, DeliveryResult, Producer, ProducerContext},
    types::RDKafkaErrorCode as Code,
};

use crate::{
    admin::Admin,
    deadline::{Deadline, pause},
    error::{Recovery, broker_error, recovery},
    logging::LoggingContext,
    raw_produce::{self, TopicHandles},
    record_limits::unsendable,
    token,
    topic_limits::TopicLimits,
};
use foretell_streams::{
    record::{OutputRecordRef, Topic},
    runtime::broker::BrokerError,
    time::Clock,
};

/// Time limit of `send` when librdkafka's queue is full.
const QUEUE_SPACE_WITHIN: Duration = Duration::from_secs(10);

/// Time limit of one flush call in `drain`, between which delivery reports are served.
const FLUSH_STEP: Duration = Duration::from_millis(5);

/// Time limit of connecting to a broker.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// A producer with handles and limits of its topics.
pub(crate) struct RecordProducer {
    // Declared before the producer, because they must be dropped before it.
    topics: TopicHandles,
    producer: BaseProducer<DeliveryContext>,
    topic_limits: TopicLimits,
    drain_time: Duration,
    clock: Arc<dyn Clock>,
}

/// The context of a producer.
pub(crate) type DeliveryContext = LoggingContext<Deliveries>;

/// The first delivery that failed, kept by the producer's callback.
#[derive(Default)]
pub(crate) struct Deliveries {
    failed: Mutex<Option<Failure>>,
}

struct Failure {
    topic: Topic,
    code: Code,
}

impl RecordProducer {
    pub(crate) fn new(
        config: &ClientConfig,
        admin: &Arc<Admin>,
        clock: &Arc<dyn Clock>,
    ) -> Result<Self, BrokerError> {
        let producer: BaseProducer<DeliveryContext> = config
            .create_with_context(DeliveryContext::default())
            .map_err(|error| broker_error("make a producer", &error))?;
        token::install(producer.client(), config)
            .map_err(|error| broker_error("make a producer", &error))?;
        Ok(Self {
            topics: TopicHandles::default(),
            producer,
            topic_limits: TopicLimits::new(admin),
            drain_time: Duration::ZERO,
            clock: Arc::clone(clock),
        })
    }

    pub(crate) fn client(&self) -> &BaseProducer<DeliveryContext> {
        &self.producer
    }

    /// Waits until a broker is connected. Without a connection, librdkafka's look-up of the transaction coordinator fails at
    /// once, and is retried after half a second.
    pub(crate) fn connect(&self, topic: &Topic) -> Result<(), BrokerError> {
        let found = self.producer.client().fetch_metadata(Some(topic.as_str()), CONNECT_WITHIN);
        found.map(drop).map_err(|error| broker_error("connect", &error))
    }

    /// Checks whether a record can be written at all.
    pub(crate) fn check(&mut self, record: OutputRecordRef<'_>) -> Result<(), BrokerError> {
        self.topic_limits.check(record)
    }

    /// Adds `record` to librdkafka's queue; waits only while that is full.
    pub(crate) fn send(&mut self, record: OutputRecordRef<'_>) -> Result<(), BrokerError> {
        let mut deadline = None;
        loop {
            let Err(code) = self.topics.send(&self.producer, record) else { return Ok(()) };
            let deadline =
                deadline.get_or_insert_with(|| Deadline::within(QUEUE_SPACE_WITHIN, &self.clock));
            if code == Code::QueueFull && !deadline.passed() {
                self.serve();
                pause();
            } else {
                return Err(self.refused(record, code));
            }
        }
    }

    fn refused(&mut self, record: OutputRecordRef<'_>, code: Code) -> BrokerError {
        let error = KafkaError::MessageProduction(code);
        if code == Code::QueueFull {
            let seconds = QUEUE_SPACE_WITHIN.as_secs();
            return BrokerError::Abort(format!("the producer's queue was full for {seconds} s"));
        }
        if code == Code::UnknownTopic {
            return self.explain_unknown(record);
        }
        if matches!(code, Code::MessageSizeTooLarge | Code::UnknownPartition) {
            self.topic_limits.invalidate(record.topic);
            return unsendable(record.topic, error.to_string());
        }
        broker_error(&format!("send to {}", record.topic), &error)
    }

    /// The error for a topic that librdkafka does not know: it was deleted, or it was recreated and librdkafka must refresh
    /// its metadata.
    fn explain_unknown(&mut self, record: OutputRecordRef<'_>) -> BrokerError {
        self.topic_limits.invalidate(record.topic);
        let found = self.check(record).and_then(|()| self.connect(record.topic));
        let unknown = || BrokerError::Retry(format!("topic {} was not known", record.topic));
        found.err().unwrap_or_else(unknown)
    }

    /// Serves delivery reports and log lines, without waiting.
    pub(crate) fn serve(&self) {
        loop {
            let in_flight = self.producer.in_flight_count();
            self.producer.poll(Duration::ZERO); // One event.
            if self.producer.in_flight_count() >= in_flight {
                return;
            }
        }
    }

    /// Waits until no record is in flight. rdkafka's `flush` would wait in steps of 100 ms.
    ///
    /// # Errors
    /// The error of a failed delivery; [`BrokerError::Retry`] if records are in flight after `within`.
    pub(crate) fn drain(&mut self, within: Duration) -> Result<(), BrokerError> {
        let started = self.clock.elapsed();
        let deadline = Deadline::within(within, &self.clock);
        while self.producer.in_flight_count() > 0 {
            if deadline.passed() {
                let count = self.producer.in_flight_count();
                return Err(BrokerError::Retry(format!("{count} records are still in flight")));
            }
            // A failed record counts as in flight until its report has been served.
            raw_produce::flush_for(&self.producer, FLUSH_STEP);
            self.serve();
        }
        self.serve();
        self.drain_time = self.clock.elapsed().saturating_sub(started);
        self.failure().map_or(Ok(()), Err)
    }

    /// How long the last successful [`Self::drain`] took.
    pub(crate) fn drain_time(&self) -> Duration {
        self.drain_time
    }

    /// Drops the failed delivery, which was part of the transaction that is aborted.
    pub(crate) fn discard_failure(&self) {
        self.producer.context().state.failed().take();
    }

    /// The error of the first failed delivery. If it was fatal, the limits of the topic are looked up again, so that a record
    /// which can never be written is refused instead of retried forever.
    fn failure(&mut self) -> Option<BrokerError> {
        let failure = self.producer.context().state.failed().take()?;
        if recovery(failure.code) == Recovery::Fatal || is_unknown(failure.code) {
            self.topic_limits.invalidate(&failure.topic);
        }
        Some(failure.into())
    }
}

impl From<Failure> for BrokerError {
    fn from(Failure { topic, code }: Failure) -> Self {
        let text = format!("a record for {topic} was not written: {code}");
        // A record that is too large is refused by the next check; the others of its transaction can be written.
        let is_permanent = recovery(code) == Recovery::Fatal && code != Code::MessageSizeTooLarge;
        if is_permanent { Self::Fatal(text) } else { Self::Abort(text) }
    }
}

/// Whether the topic was deleted, recreated or repartitioned.
fn is_unknown(code: Code) -> bool {
    matches!(code, Code::UnknownTopic | Code::UnknownPartition | Code::UnknownTopicOrPartition)
}

impl Deliveries {
    fn failed(&self) -> MutexGuard<'_, Option<Failure>> {
        self.failed.lock().expect("no code panics while holding this lock")
    }
}

impl ProducerContext for DeliveryContext {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, message)) = result {
            let code = error.rdkafka_error_code().unwrap_or(Code::Fail);
            let failure = Failure { topic: Topic::new(message.topic()), code };
            self.state.failed().get_or_insert(failure);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mock::Mock;
    use foretell_streams::record::OutputRecord;

    const TIMEOUT: Duration = Duration::from_secs(60);

    fn producer(mock: &Mock) -> RecordProducer {
        let admin = Arc::new(Admin::connect(&mock.config, &mock.clock).unwrap());
        RecordProducer::new(&mock.config.plain_producer(), &admin, &mock.clock).unwrap()
    }

    #[test]
    fn a_failed_delivery_is_fatal_only_if_it_would_fail_again() {
        let check = |code: Code, is_fatal: bool| {
            let error = BrokerError::from(Failure { topic: Topic::new("out"), code });
            assert!(error.to_string().contains("a record for out was not written"), "{error}");
            assert_eq!(matches!(error, BrokerError::Fatal(_)), is_fatal, "{code}");
            assert_eq!(matches!(error, BrokerError::Abort(_)), !is_fatal, "{code}");
        };
        check(Code::TopicAuthorizationFailed, true);
        check(Code::MessageSizeTooLarge, false);
        check(Code::MessageTimedOut, false);
        check(Code::UnknownTopicOrPartition, false);
    }

    #[test]
    fn errors_of_changed_topics_are_distinguished() {
        assert!(is_unknown(Code::UnknownTopic) && is_unknown(Code::UnknownTopicOrPartition));
        assert!(!is_unknown(Code::MessageTimedOut));
    }

    #[test]
    fn sending_waits_for_queue_space_only() {
        let mut mock = Mock::new();
        let only_one = ("producer.queue.buffering.max.messages".to_owned(), "1".to_owned());
        mock.config.properties.extend([only_one]);
        let mut producer = producer(&mock);
        for _ in 0..20 {
            producer.send(Mock::output().as_ref()).unwrap();
        }
        producer.drain(TIMEOUT).unwrap();
        assert_eq!(mock.written(), 20);
        // Larger than librdkafka's own limit.
        let large = OutputRecord { value: Some(vec![0; 64 << 20]), ..Mock::output() };
        let began = mock.clock.elapsed();
        let refused = producer.send(large.as_ref()).unwrap_err();
        assert!(matches!(refused, BrokerError::Unsendable { .. }), "{refused}");
        assert!(mock.clock.elapsed() - began < QUEUE_SPACE_WITHIN, "it was retried");
    }
}

//! One producer: records go out, failed deliveries come back. Transactions are `transaction`'s.

use std::{
    error::Error,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use rdkafka::{
    ClientConfig, ClientContext, Message,
    client::OAuthToken,
    config::RDKafkaLogLevel,
    error::KafkaError,
    producer::{BaseProducer, DeliveryResult, Producer, ProducerContext},
    types::RDKafkaErrorCode as Code,
};

use crate::{
    admin::Admin,
    deadline::{Deadline, pause},
    error::{Recovery, broker_error, recovery},
    logging,
    raw_produce::{self, TopicHandles},
    token,
    topic_limits::{TopicLimits, unsendable},
};
use foretell_streams::{
    record::{OutputRecordRef, Topic},
    runtime::broker::BrokerError,
    time::Clock,
};

/// How long `send` waits for room when too much is under way.
const ROOM_WITHIN: Duration = Duration::from_secs(10);

/// Between two looks at what failed, while waiting for everything under way.
const HURRY_STEP: Duration = Duration::from_millis(5);

/// How long a broker has to answer.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// A producer with what it knows of its topics.
pub(crate) struct RecordProducer {
    // Before the producer, so that they are dropped before it.
    topics: TopicHandles,
    producer: BaseProducer<Deliveries>,
    topic_limits: TopicLimits,
    clock: Arc<dyn Clock>,
}

/// The producer's callbacks: keeps the first delivery that failed.
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
        let producer: BaseProducer<Deliveries> = config
            .create_with_context(Deliveries::default())
            .map_err(|error| broker_error("make a producer", &error))?;
        token::install(producer.client(), config)
            .map_err(|error| broker_error("make a producer", &error))?;
        Ok(Self {
            topics: TopicHandles::default(),
            producer,
            topic_limits: TopicLimits::new(admin),
            clock: Arc::clone(clock),
        })
    }

    pub(crate) fn client(&self) -> &BaseProducer<Deliveries> {
        &self.producer
    }

    /// Waits until a broker is connected. Without one, librdkafka's search for the transactions' coordinator
    /// fails at once and waits half a second for the next try.
    pub(crate) fn connect(&self, topic: &Topic) -> Result<(), BrokerError> {
        let found = self.producer.client().fetch_metadata(Some(topic.as_str()), CONNECT_WITHIN);
        found.map(drop).map_err(|error| broker_error("connect", &error))
    }

    /// Refuses a record that can never be written.
    pub(crate) fn check(&mut self, record: OutputRecordRef<'_>) -> Result<(), BrokerError> {
        self.topic_limits.check(record)
    }

    /// Hands `record` to librdkafka; waits only for room.
    pub(crate) fn send(&mut self, record: OutputRecordRef<'_>) -> Result<(), BrokerError> {
        let mut deadline = None;
        loop {
            let Err(code) = self.topics.send(&self.producer, record) else { return Ok(()) };
            let deadline =
                deadline.get_or_insert_with(|| Deadline::within(ROOM_WITHIN, &self.clock));
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
            let seconds = ROOM_WITHIN.as_secs();
            return BrokerError::Abort(format!(
                "nothing sent in {seconds} s, too much is under way"
            ));
        }
        if code == Code::UnknownTopic {
            return self.explain_unknown(record);
        }
        if matches!(code, Code::MessageSizeTooLarge | Code::UnknownPartition) {
            self.topic_limits.forget(record.topic);
            return unsendable(record.topic, error.to_string());
        }
        broker_error(&format!("send to {}", record.topic), &error)
    }

    /// librdkafka knows of no such topic: it is gone, or it was recreated, and librdkafka has to look again as well.
    fn explain_unknown(&mut self, record: OutputRecordRef<'_>) -> BrokerError {
        self.topic_limits.forget(record.topic);
        let found = self.check(record).and_then(|()| self.connect(record.topic));
        let unknown = || BrokerError::Retry(format!("topic {} was not known", record.topic));
        found.err().unwrap_or_else(unknown)
    }

    /// Takes reports and log lines; never waits.
    pub(crate) fn serve(&self) {
        loop {
            let under_way = self.producer.in_flight_count();
            self.producer.poll(Duration::ZERO); // One event.
            if self.producer.in_flight_count() >= under_way {
                return;
            }
        }
    }

    /// Waits until nothing is under way, without rdkafka's steps of 100 ms.
    ///
    /// # Errors
    /// What a delivery failed with; [`BrokerError::Retry`] if `within` did not suffice.
    pub(crate) fn drain(&mut self, within: Duration) -> Result<(), BrokerError> {
        let deadline = Deadline::within(within, &self.clock);
        while self.producer.in_flight_count() > 0 {
            if deadline.passed() {
                let count = self.producer.in_flight_count();
                return Err(BrokerError::Retry(format!("{count} records are still under way")));
            }
            // What failed is under way until its report has been taken.
            raw_produce::hurry(&self.producer, HURRY_STEP);
            self.serve();
        }
        self.serve();
        self.failure().map_or(Ok(()), Err)
    }

    /// Forgets what failed: it was part of what is aborted now.
    pub(crate) fn forget_failure(&self) {
        self.producer.context().failed().take();
    }

    /// What the first failed delivery calls for. The next record for its topic is checked again, so
    /// that one which can never be written does not come round again and again.
    fn failure(&mut self) -> Option<BrokerError> {
        let failure = self.producer.context().failed().take()?;
        if recovery(failure.code) == Recovery::Fatal || is_unknown(failure.code) {
            self.topic_limits.forget(&failure.topic);
        }
        Some(failure.into())
    }
}

impl From<Failure> for BrokerError {
    fn from(Failure { topic, code }: Failure) -> Self {
        let text = format!("a record for {topic} was not written: {code}");
        // A record that is too large is refused by the next check; the others of its transaction are good.
        let stays = recovery(code) == Recovery::Fatal && code != Code::MessageSizeTooLarge;
        if stays { Self::Fatal(text) } else { Self::Abort(text) }
    }
}

/// Whether the topic is not what it was.
fn is_unknown(code: Code) -> bool {
    matches!(code, Code::UnknownTopic | Code::UnknownPartition | Code::UnknownTopicOrPartition)
}

impl Deliveries {
    fn failed(&self) -> MutexGuard<'_, Option<Failure>> {
        self.failed.lock().expect("nobody panics while holding this lock")
    }
}

impl ClientContext for Deliveries {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(&self, file: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        token::generate(file)
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        logging::forward(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        logging::report(&error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, message)) = result {
            let code = error.rdkafka_error_code().unwrap_or(Code::Fail);
            let failure = Failure { topic: Topic::new(message.topic()), code };
            self.failed().get_or_insert(failure);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mock::Mock;
    use foretell_streams::record::OutputRecord;

    const PATIENCE: Duration = Duration::from_secs(60);

    fn producer(mock: &Mock) -> RecordProducer {
        let admin = Arc::new(Admin::connect(&mock.config, &mock.clock).unwrap());
        RecordProducer::new(&mock.config.plain_producer(), &admin, &mock.clock).unwrap()
    }

    #[test]
    fn a_failed_delivery_ends_the_process_only_if_it_would_fail_again() {
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
    fn a_topic_that_changed_is_told_from_other_failures() {
        assert!(is_unknown(Code::UnknownTopic) && is_unknown(Code::UnknownTopicOrPartition));
        assert!(!is_unknown(Code::MessageTimedOut));
    }

    #[test]
    fn room_is_waited_for_and_nothing_else_is() {
        let mut mock = Mock::new();
        let only_one = ("producer.queue.buffering.max.messages".to_owned(), "1".to_owned());
        mock.config.properties.extend([only_one]);
        let mut producer = producer(&mock);
        for _ in 0..20 {
            producer.send(Mock::output().as_ref()).unwrap();
        }
        producer.drain(PATIENCE).unwrap();
        assert_eq!(mock.written(), 20);
        // librdkafka itself refuses it.
        let large = OutputRecord { value: Some(vec![0; 64 << 20]), ..Mock::output() };
        let began = mock.clock.elapsed();
        let refused = producer.send(large.as_ref()).unwrap_err();
        assert!(matches!(refused, BrokerError::Unsendable { .. }), "{refused}");
        assert!(mock.clock.elapsed() - began < ROOM_WITHIN, "it was tried again");
    }
}

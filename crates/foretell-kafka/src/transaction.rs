//! Exactly-once processing: a member's outputs and offsets are committed in one transaction (KIP-98, KIP-447).
//!
//! ```text
//!            send, or offsets to commit          drained, offsets sent
//!   Closed ─────────────────────────────▶ Open ───────────────────────▶ Committing ──▶ Closed
//!     ▲                                     │                               │ │  ▲
//!     └──────────────── abort ◀─────────────┴───────────────────────────────┘ └──┘ timed out: retry
//! ```

use std::{sync::Arc, time::Duration};

use rdkafka::{
    TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, KafkaResult},
    producer::Producer,
};

use crate::{
    deadline::{Deadline, pause},
    error::broker_error,
    producer::RecordProducer,
    rebalance::GroupContext,
};
use foretell_streams::{
    record::{OutputRecordRef, Topic},
    runtime::broker::BrokerError,
    time::Clock,
};

/// Time limit of one attempt of a call that is retried. The producer's events are served between attempts.
const ATTEMPT: Duration = Duration::from_secs(1);

/// Time limit of one attempt of an abort, which is short because the call waits for events that only `serve` handles.
const ABORT_ATTEMPT: Duration = Duration::from_millis(10);

/// Time limit of initialising a producer, which waits for the end of its predecessor's open transaction, and for a
/// coordinator that may be moving.
const INIT_WITHIN: Duration = Duration::from_secs(30);

/// Added to the transaction's time-out, after which the broker aborts it.
const GRACE: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// There is no open transaction.
    Closed,
    /// Records were sent in a transaction.
    Open,
    /// The commit was requested, and may have happened.
    Committing,
}

/// A transactional producer.
pub(crate) struct Transactions {
    producer: RecordProducer,
    phase: Phase,
    /// Time limit of each call that ends a transaction.
    end_within: Duration,
    clock: Arc<dyn Clock>,
}

impl Transactions {
    /// Initialises the producer: fences the previous one with its transactional id, and ends that one's open transaction.
    /// `topic` is used to connect, and can be any that exists.
    pub(crate) fn start(
        producer: RecordProducer,
        topic: &Topic,
        timeout: Duration,
        clock: &Arc<dyn Clock>,
    ) -> Result<Self, BrokerError> {
        let started = Self {
            producer,
            phase: Phase::Closed,
            end_within: timeout + GRACE,
            clock: Arc::clone(clock),
        };
        started.producer.connect(topic)?;
        started.retry("start transactions", INIT_WITHIN, |producer| {
            producer.client().init_transactions(ATTEMPT)
        })?;
        Ok(started)
    }

    /// Whether there is a transaction to commit or abort.
    pub(crate) fn is_open(&self) -> bool {
        self.phase != Phase::Closed
    }

    /// How long the last commit waited until the records were written.
    pub(crate) fn write_time(&self) -> Duration {
        self.producer.drain_time()
    }

    pub(crate) fn serve(&self) {
        self.producer.serve();
    }

    pub(crate) fn send(&mut self, record: OutputRecordRef<'_>) -> Result<(), BrokerError> {
        self.producer.check(record)?;
        self.open()?;
        self.producer.send(record)
    }

    /// Commits the sent records together with `offsets`. The group's metadata must be read before `assignment_lost`: read
    /// after it, they could be those of a later membership, which does not own the partitions.
    pub(crate) fn commit(
        &mut self,
        consumer: &BaseConsumer<GroupContext>,
        offsets: &TopicPartitionList,
    ) -> Result<(), BrokerError> {
        if self.phase != Phase::Committing {
            self.open()?;
            self.producer.drain(self.end_within)?;
            let metadata = consumer
                .group_metadata()
                .ok_or_else(|| BrokerError::Fatal("the consumer has no group".to_owned()))?;
            if consumer.assignment_lost() {
                return Err(BrokerError::Abort("the assignment is lost".to_owned()));
            }
            self.retry("add offsets", self.end_within, |producer| {
                producer.client().send_offsets_to_transaction(offsets, &metadata, ATTEMPT)
            })?;
            self.phase = Phase::Committing;
        }
        self.retry("commit", self.end_within, |producer| {
            producer.client().commit_transaction(ATTEMPT)
        })?;
        self.phase = Phase::Closed;
        Ok(())
    }

    /// Aborts the open transaction, if there is one.
    pub(crate) fn abort(&mut self, within: Duration) -> Result<(), BrokerError> {
        if self.phase == Phase::Closed {
            return Ok(());
        }
        self.retry("abort", within, |producer| producer.client().abort_transaction(ABORT_ATTEMPT))?;
        self.producer.serve();
        self.producer.discard_failure();
        self.phase = Phase::Closed;
        Ok(())
    }

    /// Aborts the open transaction, waiting until the broker would have aborted it by itself.
    pub(crate) fn abort_with_retries(&mut self) -> Result<(), BrokerError> {
        self.abort(self.end_within)
    }

    fn open(&mut self) -> Result<(), BrokerError> {
        match self.phase {
            Phase::Open => Ok(()),
            Phase::Committing => {
                Err(BrokerError::Retry("the last commit is in progress".to_owned()))
            }
            Phase::Closed => {
                let begun = self.producer.client().begin_transaction();
                begun.map_err(|error| broker_error("begin a transaction", &error))?;
                self.phase = Phase::Open;
                Ok(())
            }
        }
    }

    /// Repeats a call while its error is retriable. librdkafka requires the same call, and resumes it.
    fn retry(
        &self,
        doing: &str,
        within: Duration,
        call: impl Fn(&RecordProducer) -> KafkaResult<()>,
    ) -> Result<(), BrokerError> {
        let deadline = Deadline::within(within, &self.clock);
        loop {
            let Err(error) = call(&self.producer) else { return Ok(()) };
            self.producer.serve();
            if deadline.passed() || !is_retriable(&error) {
                return Err(broker_error(doing, &error));
            }
            pause();
        }
    }
}

pub(crate) fn is_retriable(error: &KafkaError) -> bool {
    if let KafkaError::Transaction(error) = error {
        return error.is_retriable() && !error.txn_requires_abort();
    }
    // `commit_transaction` flushes first, which can time out as well.
    matches!(error, KafkaError::Flush(_))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        admin::Admin,
        mock::{Mock, OUT},
    };
    use foretell_streams::runtime::broker::ProcessingGuarantee;

    const TIMEOUT: Duration = Duration::from_secs(60);

    fn begin(mock: &Mock) -> Transactions {
        let membership = Mock::membership(ProcessingGuarantee::ExactlyOnce);
        let admin = Arc::new(Admin::connect(&mock.config, &mock.clock).unwrap());
        let properties = mock.config.transactional_producer(&membership);
        let producer = RecordProducer::new(&properties, &admin, &mock.clock).unwrap();
        Transactions::start(producer, &Topic::new(OUT), TIMEOUT, &mock.clock).unwrap()
    }

    /// The response takes longer than one attempt ([`ATTEMPT`]).
    #[test]
    fn a_slow_response_is_waited_for() {
        let mock = Mock::new();
        let mut transactions = begin(&mock);
        assert!(!transactions.is_open());
        transactions.send(Mock::output().as_ref()).unwrap();
        assert!(transactions.is_open());
        transactions.producer.drain(TIMEOUT).unwrap();
        mock.delay_responses(ATTEMPT + ATTEMPT / 2);
        transactions.abort_with_retries().unwrap();
        assert!(!transactions.is_open());
    }
}

//! Exactly once: a member's outputs and offsets in one transaction (KIP-98, KIP-447).
//!
//! ```text
//!            send, or offsets to commit          drained, offsets sent
//!   Closed ─────────────────────────────▶ Open ───────────────────────▶ Committing ──▶ Closed
//!     ▲                                     │                               │ │  ▲
//!     └──────────────── abort ◀─────────────┴───────────────────────────────┘ └──┘ timed out: again
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
    rebalance::GroupEvents,
};
use foretell_streams::{
    record::{OutputRecordRef, Topic},
    runtime::broker::BrokerError,
    time::Clock,
};

/// One try of a call that is repeated: in between, the producer's events are served.
const TRY: Duration = Duration::from_secs(1);

/// One try of an abort, which serves no events itself and waits for some.
const ABORT_TRY: Duration = Duration::from_millis(10);

/// Starting waits for what the last owner of the name left open, and for a coordinator that may just
/// be moving.
const INIT_WITHIN: Duration = Duration::from_secs(30);

/// On top of the transaction's own time, after which the broker ends it.
const GRACE: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing since the last commit.
    Closed,
    /// Something was sent.
    Open,
    /// Its end has been asked for, and may have happened.
    Committing,
}

/// A producer whose records count only once committed.
pub(crate) struct Transactions {
    producer: RecordProducer,
    phase: Phase,
    /// No call that ends a transaction waits longer.
    patience: Duration,
    clock: Arc<dyn Clock>,
}

impl Transactions {
    /// Fences the previous producer of this name, and ends its open transaction. Any existing `topic` will do.
    pub(crate) fn start(
        producer: RecordProducer,
        topic: &Topic,
        timeout: Duration,
        clock: &Arc<dyn Clock>,
    ) -> Result<Self, BrokerError> {
        let started = Self {
            producer,
            phase: Phase::Closed,
            patience: timeout + GRACE,
            clock: Arc::clone(clock),
        };
        started.producer.connect(topic)?;
        started.again_while_retriable("start transactions", INIT_WITHIN, |producer| {
            producer.client().init_transactions(TRY)
        })?;
        Ok(started)
    }

    /// Whether there is anything to commit or abort.
    pub(crate) fn is_open(&self) -> bool {
        self.phase != Phase::Closed
    }

    pub(crate) fn serve(&self) {
        self.producer.serve();
    }

    pub(crate) fn send(&mut self, record: OutputRecordRef<'_>) -> Result<(), BrokerError> {
        self.producer.check(record)?;
        self.open()?;
        self.producer.send(record)
    }

    /// Commits what was sent together with `offsets`. The order of calls matters: were the group's metadata
    /// read after the check, they could be those of a membership that no longer owns the partitions.
    pub(crate) fn commit(
        &mut self,
        consumer: &BaseConsumer<GroupEvents>,
        offsets: &TopicPartitionList,
    ) -> Result<(), BrokerError> {
        if self.phase != Phase::Committing {
            self.open()?;
            self.producer.drain(self.patience)?;
            let metadata = consumer
                .group_metadata()
                .ok_or_else(|| BrokerError::Fatal("the consumer has no group".to_owned()))?;
            if consumer.assignment_lost() {
                return Err(BrokerError::Abort("the assignment is lost".to_owned()));
            }
            self.again_while_retriable("add offsets", self.patience, |producer| {
                producer.client().send_offsets_to_transaction(offsets, &metadata, TRY)
            })?;
            self.phase = Phase::Committing;
        }
        self.again_while_retriable("commit", self.patience, |producer| {
            producer.client().commit_transaction(TRY)
        })?;
        self.phase = Phase::Closed;
        Ok(())
    }

    /// Undoes what was sent since the last commit.
    pub(crate) fn abort(&mut self, within: Duration) -> Result<(), BrokerError> {
        if self.phase == Phase::Closed {
            return Ok(());
        }
        self.again_while_retriable("abort", within, |producer| {
            producer.client().abort_transaction(ABORT_TRY)
        })?;
        self.producer.serve();
        self.producer.forget_failure();
        self.phase = Phase::Closed;
        Ok(())
    }

    /// Undoes what was sent, waiting as long as that may take.
    pub(crate) fn abort_with_retries(&mut self) -> Result<(), BrokerError> {
        self.abort(self.patience)
    }

    fn open(&mut self) -> Result<(), BrokerError> {
        match self.phase {
            Phase::Open => Ok(()),
            Phase::Committing => Err(BrokerError::Retry("the last commit is under way".to_owned())),
            Phase::Closed => {
                let begun = self.producer.client().begin_transaction();
                begun.map_err(|error| broker_error("begin a transaction", &error))?;
                self.phase = Phase::Open;
                Ok(())
            }
        }
    }

    /// A retriable error asks for the very same call again: librdkafka goes on where it was.
    fn again_while_retriable(
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
    // `commit_transaction` flushes first, and that can run out of time as well.
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

    const PATIENCE: Duration = Duration::from_secs(60);

    fn begin(mock: &Mock) -> Transactions {
        let membership = Mock::membership(ProcessingGuarantee::ExactlyOnce);
        let admin = Arc::new(Admin::connect(&mock.config, &mock.clock).unwrap());
        let properties = mock.config.transactional_producer(&membership);
        let producer = RecordProducer::new(&properties, &admin, &mock.clock).unwrap();
        Transactions::start(producer, &Topic::new(OUT), PATIENCE, &mock.clock).unwrap()
    }

    /// Each call is tried for a second ([`TRY`]), and this is longer.
    #[test]
    fn an_answer_that_takes_longer_than_a_try_is_waited_for() {
        let mock = Mock::new();
        let mut transactions = begin(&mock);
        assert!(!transactions.is_open());
        transactions.send(Mock::output().as_ref()).unwrap();
        assert!(transactions.is_open());
        transactions.producer.drain(PATIENCE).unwrap();
        mock.answer_after(TRY + TRY / 2);
        transactions.abort_with_retries().unwrap();
        assert!(!transactions.is_open());
    }
}

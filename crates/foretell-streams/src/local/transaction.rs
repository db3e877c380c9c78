//! Transactional producers: the epoch that owns each transactional id, and the partitions that its open transaction has
//! written to. This module decides only; `topics.rs` writes the logs.
//!
//! ```text
//!            send                    commit
//!   Idle ───────────▶ Open ─────────────────────────▶ Idle
//!    ▲                 │ │ refused commit
//!    │                 │ └──────────────▶ MustAbort ──┐
//!    │        timeout  ▼                              │ timeout
//!    │ abort        Expired ◀─────────────────────────┘
//!    └── from Open, MustAbort, Expired
//! ```
//!
//! MustAbort and Expired refuse every send until `abort`. Otherwise the second half of a unit of work would be committed
//! as if it were the whole.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{
    record::{Topic, TopicPartition},
    runtime::broker::BrokerError,
};

/// The identity of a transaction, unique in the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TransactionId(u64);

/// The epoch of a session. Of two sessions with the same transactional id, the later one has the greater epoch. (Kafka
/// counts epochs for each transactional id. One sequence for the whole broker lets it drop ids that are not used.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Epoch(pub(crate) u64);

/// An open transaction.
#[derive(Debug)]
pub(crate) struct Transaction {
    pub(crate) id: TransactionId,
    /// The time at which it is aborted, if it is still open.
    pub(crate) deadline: Duration,
    /// The partitions that it has written to.
    pub(crate) partitions: BTreeSet<TopicPartition>,
}

#[derive(Debug)]
enum State {
    Idle,
    Open(Transaction),
    MustAbort(Transaction, String),
    Expired,
}

#[derive(Debug)]
struct Producer {
    epoch: Epoch,
    state: State,
}

/// All transactional producers, by transactional id.
#[derive(Debug, Default)]
pub(crate) struct Producers {
    by_name: BTreeMap<String, Producer>,
    transactions: u64,
}

impl Producers {
    /// Makes `epoch` the owner of a transactional id and fences the previous owner. Returns the transaction that the
    /// previous owner has left open.
    pub(crate) fn init(&mut self, name: &str, epoch: Epoch) -> Option<Transaction> {
        let producer = Producer { epoch, state: State::Idle };
        self.by_name.insert(name.to_owned(), producer)?.state.into_transaction()
    }

    /// Removes a transactional id. Returns the transaction that is left open.
    pub(crate) fn retire(&mut self, name: &str) -> Option<Transaction> {
        self.by_name.remove(name)?.state.into_transaction()
    }

    /// Whether `epoch` no longer owns the transactional id.
    pub(crate) fn is_fenced(&self, name: &str, epoch: Epoch) -> bool {
        self.by_name.get(name).is_none_or(|producer| producer.epoch != epoch)
    }

    /// Whether nothing was sent since the last commit or abort.
    pub(crate) fn is_idle(&self, name: &str) -> bool {
        matches!(self.state(name), State::Idle)
    }

    /// The open transaction. If there is none, opens one that must end by `deadline`.
    ///
    /// # Errors
    /// [`BrokerError::Abort`] if the transaction can no longer be committed.
    pub(crate) fn open(
        &mut self,
        name: &str,
        deadline: Duration,
    ) -> Result<&mut Transaction, BrokerError> {
        let state =
            &mut self.by_name.get_mut(name).expect("the caller has checked the epoch").state;
        if matches!(state, State::Idle) {
            let id = TransactionId(self.transactions);
            self.transactions += 1;
            *state = State::Open(Transaction { id, deadline, partitions: BTreeSet::new() });
        }
        match state {
            State::Open(transaction) => Ok(transaction),
            State::MustAbort(_, reason) => Err(BrokerError::Abort(reason.clone())),
            State::Expired => Err(expired()),
            State::Idle => unreachable!("it was opened just above"),
        }
    }

    /// Refuses to commit the open transaction from now on: it can only be aborted.
    pub(crate) fn require_abort(&mut self, name: &str, reason: &str) {
        let state = self.state_mut(name);
        *state = match std::mem::replace(state, State::Idle) {
            State::Open(transaction) => State::MustAbort(transaction, reason.to_owned()),
            other @ (State::Idle | State::MustAbort(..) | State::Expired) => other,
        };
    }

    /// Ends the transaction. Returns the one to commit, or `None` if nothing was sent.
    ///
    /// # Errors
    /// [`BrokerError::Abort`] if the transaction can no longer be committed.
    pub(crate) fn commit(&mut self, name: &str) -> Result<Option<Transaction>, BrokerError> {
        let state = self.state_mut(name);
        match std::mem::replace(state, State::Idle) {
            State::Idle => Ok(None),
            State::Open(transaction) => Ok(Some(transaction)),
            State::MustAbort(transaction, reason) => {
                let error = BrokerError::Abort(reason.clone());
                *state = State::MustAbort(transaction, reason);
                Err(error)
            }
            State::Expired => {
                *state = State::Expired;
                Err(expired())
            }
        }
    }

    /// Ends the transaction. Returns the one whose records must be removed.
    pub(crate) fn abort(&mut self, name: &str) -> Option<Transaction> {
        std::mem::replace(self.state_mut(name), State::Idle).into_transaction()
    }

    /// Takes the transactions whose deadline has passed, which must be aborted.
    pub(crate) fn expire(&mut self, now: Duration) -> Vec<Transaction> {
        let mut expired = Vec::new();
        for producer in self.by_name.values_mut() {
            if producer.state.transaction().is_some_and(|open| open.deadline <= now) {
                let state = std::mem::replace(&mut producer.state, State::Expired);
                expired.extend(state.into_transaction());
            }
        }
        expired
    }

    /// Removes the partitions of a deleted topic from all open transactions.
    pub(crate) fn remove_topic(&mut self, topic: &Topic) {
        for producer in self.by_name.values_mut() {
            match &mut producer.state {
                State::Open(open) | State::MustAbort(open, _) => {
                    open.partitions.retain(|partition| partition.topic != *topic);
                }
                State::Idle | State::Expired => {}
            }
        }
    }

    /// The earliest deadline of an open transaction.
    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        let open = self.by_name.values().filter_map(|producer| producer.state.transaction());
        open.map(|transaction| transaction.deadline).min()
    }

    fn state(&self, name: &str) -> &State {
        &self.by_name.get(name).expect("the caller has checked the epoch").state
    }

    fn state_mut(&mut self, name: &str) -> &mut State {
        &mut self.by_name.get_mut(name).expect("the caller has checked the epoch").state
    }
}

impl State {
    fn transaction(&self) -> Option<&Transaction> {
        match self {
            Self::Open(transaction) | Self::MustAbort(transaction, _) => Some(transaction),
            Self::Idle | Self::Expired => None,
        }
    }

    fn into_transaction(self) -> Option<Transaction> {
        match self {
            Self::Open(transaction) | Self::MustAbort(transaction, _) => Some(transaction),
            Self::Idle | Self::Expired => None,
        }
    }
}

fn expired() -> BrokerError {
    BrokerError::Abort("the transaction timed out and was aborted by the broker".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "worker-0";

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn producers() -> Producers {
        let mut producers = Producers::default();
        assert!(producers.init(NAME, Epoch(1)).is_none());
        producers
    }

    fn is_abort(result: Result<impl Sized, BrokerError>) -> bool {
        matches!(result, Err(BrokerError::Abort(_)))
    }

    #[test]
    fn a_commit_ends_the_transaction_that_the_first_send_has_opened() {
        let mut producers = producers();
        assert!(producers.commit(NAME).unwrap().is_none());
        let first = producers.open(NAME, at(10)).unwrap().id;
        assert_eq!(producers.open(NAME, at(20)).unwrap().id, first);
        assert_eq!(
            producers.next_deadline(),
            Some(at(10)),
            "the timeout starts with the first send"
        );
        assert_eq!(producers.commit(NAME).unwrap().unwrap().id, first);
        assert!(producers.is_idle(NAME));
        assert_ne!(producers.open(NAME, at(20)).unwrap().id, first);
    }

    #[test]
    fn a_refused_or_expired_transaction_must_be_aborted_before_anything_else() {
        let mut refused = producers();
        refused.open(NAME, at(10)).unwrap();
        refused.require_abort(NAME, "not its owner");
        let mut expired = producers();
        expired.open(NAME, at(10)).unwrap();
        assert!(expired.expire(at(9)).is_empty());
        assert_eq!(expired.expire(at(10)).len(), 1);
        for (mut producers, leaves_open) in [(refused, true), (expired, false)] {
            for _ in 0..2 {
                assert!(is_abort(producers.open(NAME, at(20))));
                assert!(is_abort(producers.commit(NAME)));
            }
            assert_eq!(producers.abort(NAME).is_some(), leaves_open);
            assert!(producers.open(NAME, at(20)).is_ok());
        }
    }

    #[test]
    fn a_refused_transaction_expires_like_any_other() {
        let mut producers = producers();
        producers.open(NAME, at(10)).unwrap();
        producers.require_abort(NAME, "not its owner");
        assert_eq!(producers.expire(at(10)).len(), 1);
        assert_eq!(producers.next_deadline(), None);
        assert!(is_abort(producers.open(NAME, at(20))));
    }

    #[test]
    fn a_new_owner_of_a_name_fences_the_old_one_and_ends_its_transaction() {
        let mut producers = producers();
        let abandoned = producers.open(NAME, at(10)).unwrap().id;
        assert_eq!(producers.init(NAME, Epoch(2)).unwrap().id, abandoned);
        assert!(producers.is_fenced(NAME, Epoch(1)) && !producers.is_fenced(NAME, Epoch(2)));
        assert!(producers.retire(NAME).is_none());
        assert!(producers.is_fenced(NAME, Epoch(2)));
    }
}

//! Transactional producers: who may write under a name, and what the open transaction has touched.
//! It decides only; the logs are written elsewhere.
//!
//! ```text
//!            send                    commit
//!   Idle ───────────▶ Open ─────────────────────────▶ Idle
//!    ▲                 │ │ refused commit
//!    │                 │ └──────────────▶ Doomed ──┐
//!    │      time's up  ▼                           │ time's up
//!    │ abort        Expired ◀──────────────────────┘
//!    └── of Open, Doomed, Expired
//! ```
//!
//! Doomed and Expired refuse every send until `abort`: else the second half of a unit of work would
//! be committed as if it were the whole.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{
    record::{Topic, TopicPartition},
    runtime::broker::BrokerError,
};

/// One transaction in the life of the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TransactionId(u64);

/// Tells the users of one name apart; a later one is greater. (Kafka's epochs restart with each
/// transactional id; one sequence for the whole broker lets us forget names.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Epoch(pub(crate) u64);

/// An open transaction.
#[derive(Debug)]
pub(crate) struct Transaction {
    pub(crate) id: TransactionId,
    /// When it is aborted, if it is still open.
    pub(crate) deadline: Duration,
    /// Where it wrote.
    pub(crate) partitions: BTreeSet<TopicPartition>,
}

#[derive(Debug)]
enum State {
    Idle,
    Open(Transaction),
    Doomed(Transaction, String),
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
    /// Takes a name over. The previous owner is fenced; returns the transaction that it leaves open.
    pub(crate) fn init(&mut self, name: &str, epoch: Epoch) -> Option<Transaction> {
        let producer = Producer { epoch, state: State::Idle };
        self.by_name.insert(name.to_owned(), producer)?.state.into_transaction()
    }

    /// Gives a name up; returns the transaction that is left open.
    pub(crate) fn retire(&mut self, name: &str) -> Option<Transaction> {
        self.by_name.remove(name)?.state.into_transaction()
    }

    /// Whether `epoch` still owns the name.
    pub(crate) fn is_fenced(&self, name: &str, epoch: Epoch) -> bool {
        self.by_name.get(name).is_none_or(|producer| producer.epoch != epoch)
    }

    /// Whether nothing was sent since the last commit or abort.
    pub(crate) fn is_idle(&self, name: &str) -> bool {
        matches!(self.state(name), State::Idle)
    }

    /// The transaction to send in; opened, to end by `deadline`, if there is none.
    ///
    /// # Errors
    /// [`BrokerError::Abort`] if it can't be committed any more.
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
            State::Doomed(_, reason) => Err(BrokerError::Abort(reason.clone())),
            State::Expired => Err(expired()),
            State::Idle => unreachable!("it was opened just above"),
        }
    }

    /// Refuses to commit what is open: only an abort gets out of it.
    pub(crate) fn doom(&mut self, name: &str, reason: &str) {
        let state = self.state_mut(name);
        *state = match std::mem::replace(state, State::Idle) {
            State::Open(transaction) => State::Doomed(transaction, reason.to_owned()),
            other @ (State::Idle | State::Doomed(..) | State::Expired) => other,
        };
    }

    /// Ends the transaction; returns the one that is to be committed, none if nothing was sent.
    ///
    /// # Errors
    /// [`BrokerError::Abort`] if it can't be committed any more.
    pub(crate) fn commit(&mut self, name: &str) -> Result<Option<Transaction>, BrokerError> {
        let state = self.state_mut(name);
        match std::mem::replace(state, State::Idle) {
            State::Idle => Ok(None),
            State::Open(transaction) => Ok(Some(transaction)),
            State::Doomed(transaction, reason) => {
                let error = BrokerError::Abort(reason.clone());
                *state = State::Doomed(transaction, reason);
                Err(error)
            }
            State::Expired => {
                *state = State::Expired;
                Err(expired())
            }
        }
    }

    /// Ends the transaction; returns the one whose records are to go away.
    pub(crate) fn abort(&mut self, name: &str) -> Option<Transaction> {
        std::mem::replace(self.state_mut(name), State::Idle).into_transaction()
    }

    /// Takes the transactions whose time is up, to be aborted.
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

    /// `topic` is not there any more: no open transaction has written there.
    pub(crate) fn forget(&mut self, topic: &Topic) {
        for producer in self.by_name.values_mut() {
            match &mut producer.state {
                State::Open(open) | State::Doomed(open, _) => {
                    open.partitions.retain(|partition| partition.topic != *topic);
                }
                State::Idle | State::Expired => {}
            }
        }
    }

    /// When the next transaction runs out of time.
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
            Self::Open(transaction) | Self::Doomed(transaction, _) => Some(transaction),
            Self::Idle | Self::Expired => None,
        }
    }

    fn into_transaction(self) -> Option<Transaction> {
        match self {
            Self::Open(transaction) | Self::Doomed(transaction, _) => Some(transaction),
            Self::Idle | Self::Expired => None,
        }
    }
}

fn expired() -> BrokerError {
    BrokerError::Abort("the transaction took too long, and the broker has aborted it".to_owned())
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

    fn must_abort(result: Result<impl Sized, BrokerError>) -> bool {
        matches!(result, Err(BrokerError::Abort(_)))
    }

    #[test]
    fn a_commit_ends_what_the_first_send_opened() {
        let mut producers = producers();
        assert!(producers.commit(NAME).unwrap().is_none());
        let first = producers.open(NAME, at(10)).unwrap().id;
        assert_eq!(producers.open(NAME, at(20)).unwrap().id, first);
        assert_eq!(producers.next_deadline(), Some(at(10)), "time runs from the first send");
        assert_eq!(producers.commit(NAME).unwrap().unwrap().id, first);
        assert!(producers.is_idle(NAME));
        assert_ne!(producers.open(NAME, at(20)).unwrap().id, first);
    }

    #[test]
    fn what_is_doomed_or_late_must_be_aborted_before_anything_else() {
        let mut doomed = producers();
        doomed.open(NAME, at(10)).unwrap();
        doomed.doom(NAME, "not its owner");
        let mut late = producers();
        late.open(NAME, at(10)).unwrap();
        assert!(late.expire(at(9)).is_empty());
        assert_eq!(late.expire(at(10)).len(), 1);
        for (mut producers, leaves_open) in [(doomed, true), (late, false)] {
            for _ in 0..2 {
                assert!(must_abort(producers.open(NAME, at(20))));
                assert!(must_abort(producers.commit(NAME)));
            }
            assert_eq!(producers.abort(NAME).is_some(), leaves_open);
            assert!(producers.open(NAME, at(20)).is_ok());
        }
    }

    #[test]
    fn a_doomed_transaction_runs_out_of_time_like_any_other() {
        let mut producers = producers();
        producers.open(NAME, at(10)).unwrap();
        producers.doom(NAME, "not its owner");
        assert_eq!(producers.expire(at(10)).len(), 1);
        assert_eq!(producers.next_deadline(), None);
        assert!(must_abort(producers.open(NAME, at(20))));
    }

    #[test]
    fn the_next_under_a_name_fences_the_last_and_ends_its_transaction() {
        let mut producers = producers();
        let abandoned = producers.open(NAME, at(10)).unwrap().id;
        assert_eq!(producers.init(NAME, Epoch(2)).unwrap().id, abandoned);
        assert!(producers.is_fenced(NAME, Epoch(1)) && !producers.is_fenced(NAME, Epoch(2)));
        assert!(producers.retire(NAME).is_none());
        assert!(producers.is_fenced(NAME, Epoch(2)));
    }
}

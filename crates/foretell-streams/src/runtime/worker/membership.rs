//! Membership of a worker in its consumer group.
//!
//! ```text
//!   Joined ──fenced, or an abort fails──▶ NotJoined ──join──▶ Joined, with a new member
//!      │                                      └── no broker answers: again at the next turn
//!      └── fenced more than FENCED_MAX times without a commit: the worker ends
//! ```

use crate::{
    record::InputRecord,
    runtime::{
        broker::{Broker, BrokerError, Member, Membership, Rebalance},
        error::WorkerError,
    },
};

/// The member of the group, and the number of times that it was fenced.
pub(super) struct GroupMember {
    state: State,
    /// Times fenced since the last commit.
    fenced: u32,
}

enum State {
    Joined(Joined),
    /// The fenced member is closed only after its successor has joined, or when the worker ends.
    NotJoined {
        fenced: Option<Box<dyn Member>>,
    },
}

/// A member of the group, and what it has not handed on yet.
pub(super) struct Joined {
    pub(super) member: Box<dyn Member>,
    /// Records polled and not yet added to their tasks: a poll that fails may return some.
    pub(super) polled: Vec<InputRecord>,
    /// A change of the assignment that is not answered yet.
    pub(super) pending: Option<Rebalance>,
    /// Whether it has received an assignment, perhaps of no tasks.
    pub(super) has_assignment: bool,
}

/// Attempts to join at a start. Each waits as long as the broker's own retries do.
const JOIN_TRIES_MAX: u32 = 5;
/// Times that a worker may be fenced without a commit in between.
const FENCED_MAX: u32 = 5;

impl Joined {
    fn new(member: Box<dyn Member>) -> Self {
        Self { member, polled: Vec::new(), pending: None, has_assignment: false }
    }
}

impl GroupMember {
    /// Joins at a start, with a bounded number of attempts.
    pub(super) fn join(broker: &dyn Broker, membership: &Membership) -> Result<Self, WorkerError> {
        let mut tries = 1;
        loop {
            match broker.join(membership) {
                Ok(member) => {
                    return Ok(Self { state: State::Joined(Joined::new(member)), fenced: 0 });
                }
                Err(BrokerError::Retry(reason)) if tries < JOIN_TRIES_MAX => {
                    tracing::warn!(member = membership.member, reason, "joining again");
                    tries += 1;
                }
                Err(error) => return Err(WorkerError::Broker(error)),
            }
        }
    }

    pub(super) fn is_joined(&self) -> bool {
        matches!(self.state, State::Joined(_))
    }

    /// The member, or [`BrokerError::Fenced`] while there is none.
    pub(super) fn joined(&mut self) -> Result<&mut Joined, BrokerError> {
        match &mut self.state {
            State::Joined(joined) => Ok(joined),
            State::NotJoined { .. } => Err(BrokerError::Fenced("it has not rejoined".to_owned())),
        }
    }

    /// Whether it has received an assignment since it joined.
    pub(super) fn has_assignment(&self) -> bool {
        matches!(&self.state, State::Joined(joined) if joined.has_assignment)
    }

    /// Stops using the present member. [`Self::rejoin`] makes another.
    ///
    /// # Errors
    /// [`WorkerError::FencedAgain`] if this has happened too often since the last commit.
    pub(super) fn fence(&mut self, membership: &Membership) -> Result<(), WorkerError> {
        self.fenced += 1;
        if self.fenced > FENCED_MAX {
            let member = membership.member.clone();
            return Err(WorkerError::FencedAgain { member, times: self.fenced });
        }
        let before = std::mem::replace(&mut self.state, State::NotJoined { fenced: None });
        let fenced = match before {
            State::Joined(joined) => Some(joined.member),
            State::NotJoined { fenced } => fenced,
        };
        self.state = State::NotJoined { fenced };
        Ok(())
    }

    /// Tries once to join again; returns whether it has. A worker that has run before waits for an unavailable broker
    /// without a bound, one attempt per turn, so that a stop does not have to wait.
    pub(super) fn rejoin(
        &mut self,
        broker: &dyn Broker,
        membership: &Membership,
    ) -> Result<bool, WorkerError> {
        match broker.join(membership) {
            Ok(member) => {
                self.state = State::Joined(Joined::new(member));
                Ok(true)
            }
            Err(BrokerError::Retry(reason)) => {
                tracing::warn!(member = membership.member, reason, "joining again");
                Ok(false)
            }
            Err(error) => Err(WorkerError::Broker(error)),
        }
    }

    /// Notes a successful commit: the name belongs to this worker, however often it was fenced before.
    pub(super) fn committed(&mut self) {
        self.fenced = 0;
    }

    pub(super) fn leave(self) -> Result<(), BrokerError> {
        match self.state {
            State::Joined(Joined { member, .. }) | State::NotJoined { fenced: Some(member) } => {
                member.leave()
            }
            State::NotJoined { fenced: None } => Ok(()),
        }
    }
}

#[cfg(test)]
impl GroupMember {
    /// The number of times that it was fenced since the last commit.
    pub(super) fn fenced_mut(&mut self) -> &mut u32 {
        &mut self.fenced
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        local::LocalBroker,
        record::Topic,
        runtime::broker::{Cleanup, ProcessingGuarantee, TopicSpec},
        time::{ManualClock, WallTime},
    };

    fn broker() -> LocalBroker {
        let broker = LocalBroker::new(Arc::new(ManualClock::at(WallTime(0))));
        let cleanup = Cleanup::Delete { retention: None };
        let spec =
            TopicSpec { name: Topic::new("in"), partitions: 1, cleanup, message_bytes_max: None };
        broker.create_topics(&[spec]).unwrap();
        broker
    }

    fn membership() -> Membership {
        Membership {
            group: "group".to_owned(),
            member: "worker".to_owned(),
            lead: Topic::new("in"),
            co_partitioned: Vec::new(),
            guarantee: ProcessingGuarantee::ExactlyOnce,
            commit_interval: Membership::COMMIT_INTERVAL,
        }
    }

    #[test]
    fn a_fenced_member_cannot_be_used_until_it_has_rejoined() {
        let (broker, membership) = (broker(), membership());
        let mut group = GroupMember::join(&broker, &membership).unwrap();
        group.joined().unwrap().has_assignment = true;
        assert!(group.is_joined() && group.has_assignment());
        group.fence(&membership).unwrap();
        assert!(!group.is_joined() && !group.has_assignment());
        assert!(matches!(group.joined(), Err(BrokerError::Fenced(_))));
        assert!(group.rejoin(&broker, &membership).unwrap());
        assert!(group.is_joined() && !group.has_assignment(), "with a new member");
        group.leave().unwrap();
    }

    #[test]
    fn fences_are_bounded_between_two_commits() {
        let (broker, membership) = (broker(), membership());
        let mut group = GroupMember::join(&broker, &membership).unwrap();
        for _ in 0..2 {
            for _ in 0..FENCED_MAX {
                group.fence(&membership).unwrap();
            }
            group.committed();
        }
        for _ in 0..FENCED_MAX {
            group.fence(&membership).unwrap();
        }
        let error = group.fence(&membership).unwrap_err();
        assert!(matches!(error, WorkerError::FencedAgain { times: 6, .. }), "{error}");
        group.leave().unwrap();
    }
}

//! Errors of the runtime: of one turn, which a worker recovers from, and of a worker, which end it.

use crate::{
    record::{Partition, Topic},
    runtime::broker::BrokerError,
    state::StateError,
};

/// An error that ends a worker, a standby or a topic monitor before it was asked to stop. An operator must act.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// A broker error from which the worker cannot recover.
    #[error(transparent)]
    Broker(BrokerError),
    /// Another process uses the name of this worker, so each fences the other.
    #[error(
        "`{member}` was fenced {times} times without a commit in between: does another process use \
         the same instance id? Give each process its own"
    )]
    FencedAgain {
        /// The name of the worker in its group.
        member: String,
        /// The number of times that it was fenced since its last commit.
        times: u32,
    },
    /// The stores cannot be used, and rebuilding them from their changelogs would not help.
    #[error("{0}")]
    State(String),
    /// Topics in use have another number of partitions than at the start: keys go to other tasks than those whose stores
    /// hold them.
    #[error("{}", list(.0))]
    Repartitioned(Vec<Repartitioned>),
}

/// A topic whose number of partitions has changed since the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repartitioned {
    /// The topic.
    pub topic: Topic,
    /// The number of partitions at the start.
    pub had: u32,
    /// The present number of partitions.
    pub has: u32,
}

fn list(topics: &[Repartitioned]) -> String {
    let changes = topics.iter().map(|Repartitioned { topic, had, has }| {
        format!("topic {topic} has {has} partitions, not {had} as at the start")
    });
    changes.collect::<Vec<_>>().join("; ")
}

/// An error that ends a turn early. The worker recovers from it, or ends with a [`WorkerError`].
#[derive(Debug)]
pub(super) enum TurnError {
    Broker(BrokerError),
    /// An error of a store of this task.
    Store(Partition, StateError),
}

impl From<BrokerError> for TurnError {
    fn from(error: BrokerError) -> Self {
        Self::Broker(error)
    }
}

impl TurnError {
    /// Adds the task to an error of one of its stores, for `map_err`.
    pub(super) fn in_task(task: Partition) -> impl Fn(StateError) -> Self {
        move |error| Self::Store(task, error)
    }
}

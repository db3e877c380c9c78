//! The parts of a worker, and their defaults.

use std::sync::Arc;

use crate::{
    metrics::StreamsMetrics,
    runtime::{
        StatusBoard, WorkerSettings,
        broker::{Broker, Membership},
    },
    state::{MemoryStores, StoreSupplier},
    time::{Clock, SystemClock},
    topology::Topology,
};

/// The parts of a [`Worker`](crate::runtime::Worker). [`WorkerParts::new`] fills in defaults.
pub struct WorkerParts {
    /// The cluster to join.
    pub broker: Arc<dyn Broker>,
    /// The topology whose tasks the worker runs.
    pub topology: Arc<Topology>,
    /// The consumer group, the name of the worker in it, and the guarantee and the interval of its commits.
    pub membership: Membership,
    /// The stores of its tasks, in memory or on disk. Workers of a process share them.
    pub stores: Arc<dyn StoreSupplier>,
    /// Its limits.
    pub settings: WorkerSettings,
    /// The clock for wall-clock punctuation, commit intervals and the upper bound of stream time.
    pub clock: Arc<dyn Clock>,
    /// The metrics that it updates. Workers of a process share them.
    pub metrics: StreamsMetrics,
    /// The board on which it publishes its status at each commit.
    pub board: StatusBoard,
}

impl WorkerParts {
    /// The parts of an exactly-once worker with stores in memory, the system clock, default settings, and its own metrics and
    /// status board. Every field can be replaced:
    ///
    /// ```
    /// # use std::{error::Error, sync::Arc};
    /// # use foretell_streams::{local::LocalBroker, runtime::{StatusBoard, WorkerParts}, time::SystemClock};
    /// # use foretell_streams::{codec::Utf8, record::Topic, topology::TopologyBuilder};
    /// # let mut builder = TopologyBuilder::new("copy", Topic::new("dead-letters"));
    /// # let lines = builder.source("in", Topic::new("in"), Arc::new(Utf8));
    /// # builder.sink("out", &[lines], Topic::new("out"), Arc::new(Utf8));
    /// # let topology = Arc::new(builder.build());
    /// # let broker = Arc::new(LocalBroker::new(Arc::new(SystemClock::new())));
    /// let board = StatusBoard::default();
    /// let parts = WorkerParts {
    ///     board: board.clone(),
    ///     ..WorkerParts::new(broker, &topology, "copy", "instance-1-worker-1")
    /// };
    /// assert_eq!(parts.membership.lead, Topic::new("in"));
    /// ```
    ///
    /// `member` must be unique among the workers of a group and the same after a restart: it is part of the transactional id,
    /// by which a worker fences its predecessor.
    #[must_use]
    pub fn new(
        broker: Arc<dyn Broker>,
        topology: &Arc<Topology>,
        group: &str,
        member: &str,
    ) -> Self {
        Self {
            broker,
            membership: Membership::new(topology, group, member),
            topology: Arc::clone(topology),
            stores: Arc::new(MemoryStores),
            settings: WorkerSettings::default(),
            clock: Arc::new(SystemClock::new()),
            metrics: StreamsMetrics::unregistered(),
            board: StatusBoard::default(),
        }
    }
}

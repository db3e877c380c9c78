//! Detection of topics that are deleted, or get another number of partitions, while they are in use. Nothing else detects
//! either. A reader of a deleted topic gets no records, loses its tasks or waits forever. Partitions added to one input
//! have no task, or a task whose other inputs lack them, and keys go to other tasks than those whose stores hold them.
//! A topic that is deleted and recreated between two checks is not detected.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use crate::{
    record::Topic,
    runtime::{
        broker::{Broker, BrokerError},
        error::{Repartitioned, WorkerError},
        stop_signal::StopSignal,
    },
    time::Clock,
};

/// The interval of checks: one request per topic, on a thread of its own.
const CHECK_EVERY: Duration = Duration::from_secs(5);

/// A monitor of the topics in use, for a thread of its own: it ends with an error when a topic is deleted or gets another
/// number of partitions.
///
/// ```
/// use std::{collections::BTreeMap, sync::Arc, thread};
/// use foretell_streams::{
///     local::LocalBroker, record::Topic,
///     runtime::{StopSignal, TopicMonitor, broker::{Broker, Cleanup, TopicSpec}},
///     time::{Clock, SystemClock},
/// };
///
/// let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
/// let broker = Arc::new(LocalBroker::new(Arc::clone(&clock)));
/// let orders = Topic::new("orders");
/// let cleanup = Cleanup::Delete { retention: None };
/// broker.create_topics(&[TopicSpec { name: orders.clone(), partitions: 4, cleanup, message_bytes_max: None }])?;
///
/// let stop = StopSignal::default();
/// let monitor = TopicMonitor::new(broker, BTreeMap::from([(orders, 4)]), clock);
/// let monitoring = thread::spawn({
///     let stop = stop.clone();
///     move || monitor.run(&stop)
/// });
/// stop.stop();
/// monitoring.join().expect("the thread does not panic")?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct TopicMonitor {
    broker: Arc<dyn Broker>,
    /// The number of partitions of each topic at the start.
    topics: BTreeMap<Topic, u32>,
    clock: Arc<dyn Clock>,
    checked_at: Duration,
    /// Topics that did not exist at the last check. A single answer may come from a broker with outdated metadata.
    missing: BTreeSet<Topic>,
}

impl TopicMonitor {
    /// A monitor of `topics`, which exist with these numbers of partitions.
    #[must_use]
    pub fn new(
        broker: Arc<dyn Broker>,
        topics: BTreeMap<Topic, u32>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let checked_at = clock.elapsed();
        Self { broker, topics, clock, checked_at, missing: BTreeSet::new() }
    }

    /// Checks the topics every 5 s until `stop`.
    ///
    /// # Errors
    /// [`BrokerError::Gone`] if a topic was deleted; [`WorkerError::Repartitioned`] if one has another number of partitions.
    pub fn run(mut self, stop: &StopSignal) -> Result<(), WorkerError> {
        while !stop.is_stopped() {
            self.turn(stop)?;
            stop.wait(CHECK_EVERY);
        }
        Ok(())
    }

    /// Checks the topics if a check is due. Ends early at `stop`.
    ///
    /// # Errors
    /// [`BrokerError::Gone`] if a topic did not exist at two checks in a row; [`WorkerError::Repartitioned`] with all topics
    /// that have another number of partitions.
    pub fn turn(&mut self, stop: &StopSignal) -> Result<(), WorkerError> {
        let now = self.clock.elapsed();
        if now < self.checked_at + CHECK_EVERY {
            return Ok(());
        }
        self.checked_at = now;
        let missing = std::mem::take(&mut self.missing);
        let mut repartitioned = Vec::new();
        for (topic, had) in self.topics.iter().take_while(|_| !stop.is_stopped()) {
            match self.broker.partitions(topic) {
                Ok(Some(has)) if has != *had => {
                    repartitioned.push(Repartitioned { topic: topic.clone(), had: *had, has });
                }
                Ok(Some(_)) => {}
                Ok(None) if missing.contains(topic) => {
                    return Err(WorkerError::Broker(BrokerError::Gone(topic.clone())));
                }
                Ok(None) => {
                    self.missing.insert(topic.clone());
                }
                Err(error) => {
                    // An error proves nothing about the topic, and the workers that use it report more.
                    tracing::debug!(%topic, %error, "cannot check whether the topic exists");
                    break;
                }
            }
        }
        match repartitioned.is_empty() {
            true => Ok(()),
            false => Err(WorkerError::Repartitioned(repartitioned)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        local::LocalBroker,
        runtime::broker::{Cleanup, TopicSpec},
        time::{ManualClock, WallTime},
    };

    /// A cluster with the topics `present`, with two partitions, and `other`, with one.
    struct Harness {
        clock: Arc<ManualClock>,
        broker: Arc<LocalBroker>,
    }

    impl Harness {
        fn new() -> Self {
            let clock = Arc::new(ManualClock::at(WallTime(0)));
            let time: Arc<dyn Clock> = Arc::<ManualClock>::clone(&clock);
            let broker = Arc::new(LocalBroker::new(time));
            let spec = |name, partitions| {
                let (name, cleanup) = (Topic::new(name), Cleanup::Delete { retention: None });
                TopicSpec { name, partitions, cleanup, message_bytes_max: None }
            };
            broker.create_topics(&[spec("present", 2), spec("other", 1)]).unwrap();
            Self { clock, broker }
        }

        fn monitor(&self, topics: &[(&str, u32)]) -> TopicMonitor {
            let topics = topics.iter().map(|(name, had)| (Topic::new(name), *had)).collect();
            let clock: Arc<dyn Clock> = Arc::<ManualClock>::clone(&self.clock);
            TopicMonitor::new(Arc::<LocalBroker>::clone(&self.broker), topics, clock)
        }

        fn check(&self, monitor: &mut TopicMonitor) -> Result<(), WorkerError> {
            self.clock.advance(CHECK_EVERY);
            monitor.turn(&StopSignal::default())
        }
    }

    #[test]
    fn a_topic_that_does_not_exist_at_two_checks_is_reported() {
        let harness = Harness::new();
        let mut of_present = harness.monitor(&[("present", 2)]);
        let mut of_both = harness.monitor(&[("present", 2), ("deleted", 2)]);
        assert!(harness.check(&mut of_present).is_ok());
        assert!(harness.check(&mut of_both).is_ok());
        assert!(harness.check(&mut of_present).is_ok());
        let Err(WorkerError::Broker(BrokerError::Gone(topic))) = harness.check(&mut of_both) else {
            panic!("it is not reported")
        };
        assert_eq!(topic, Topic::new("deleted"));
    }

    /// A single answer may come from a broker with outdated metadata.
    #[test]
    fn a_topic_that_exists_at_every_other_check_is_not_reported() {
        let harness = Harness::new();
        let mut monitor = harness.monitor(&[("present", 2)]);
        for _ in 0..3 {
            monitor.missing.insert(Topic::new("present"));
            assert!(harness.check(&mut monitor).is_ok());
            assert!(monitor.missing.is_empty(), "it exists");
        }
        let mut monitor = harness.monitor(&[("deleted", 2)]);
        assert!(harness.check(&mut monitor).is_ok());
        assert!(monitor.turn(&StopSignal::default()).is_ok(), "the next check is not due");
        monitor.missing.clear();
        assert!(harness.check(&mut monitor).is_ok(), "it exists at the check before");
    }

    #[test]
    fn added_partitions_are_reported_at_the_next_check() {
        let harness = Harness::new();
        let mut monitor = harness.monitor(&[("other", 1), ("present", 2)]);
        assert!(harness.check(&mut monitor).is_ok());
        harness.broker.with(|cluster, _| {
            cluster.add_partitions(&Topic::new("present"), 5);
            cluster.add_partitions(&Topic::new("other"), 3);
        });
        let message = harness.check(&mut monitor).expect_err("both have more").to_string();
        assert!(message.contains("other has 3 partitions, not 1"), "{message}");
        assert!(message.contains("present has 5 partitions, not 2"), "{message}");
    }
}

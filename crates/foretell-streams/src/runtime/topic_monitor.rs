//! Watches that the topics in use stay there, with the partitions that they had. Nothing else would notice: a reader of a
//! topic that was deleted hears no more of it, loses its tasks or waits for ever; and partitions that are added to one
//! input have no task, or a task whose other inputs lack them, while keys go to other tasks than what those remember. Who
//! has made a topic again before the next look goes on with the new one.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use crate::{
    record::Topic,
    runtime::{
        broker::{Broker, BrokerError},
        worker::{Repartitioned, StopSignal, WorkerError},
    },
    time::Clock,
};

/// How often it looks: a question a topic, beside the workers, on a thread of its own.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// A monitor of the topics in use, for a thread of its own: it ends with an error when a topic is deleted or gets another
/// number of partitions.
pub struct TopicMonitor {
    broker: Arc<dyn Broker>,
    /// How many partitions each has.
    topics: BTreeMap<Topic, u32>,
    clock: Arc<dyn Clock>,
    looked_at: Duration,
    /// Not there at the last look. One answer may come from a broker that knows less than the others.
    missed: BTreeSet<Topic>,
}

impl TopicMonitor {
    /// A monitor of `topics`, which exist with these numbers of partitions.
    #[must_use]
    pub fn new(
        broker: Arc<dyn Broker>,
        topics: BTreeMap<Topic, u32>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let looked_at = clock.elapsed();
        Self { broker, topics, clock, looked_at, missed: BTreeSet::new() }
    }

    /// Looks every few seconds until `stop`.
    ///
    /// # Errors
    /// [`BrokerError::Gone`], if a topic was deleted; [`WorkerError::Repartitioned`].
    pub fn run(mut self, stop: &StopSignal) -> Result<(), WorkerError> {
        while !stop.is_stopped() {
            self.turn(stop)?;
            stop.wait(LOOK_EVERY);
        }
        Ok(())
    }

    /// Looks, if it is time to, and not time to `stop`.
    ///
    /// # Errors
    /// [`BrokerError::Gone`], if a topic was not there at two looks in a row; [`WorkerError::Repartitioned`] with all
    /// that have other partitions.
    pub fn turn(&mut self, stop: &StopSignal) -> Result<(), WorkerError> {
        let now = self.clock.elapsed();
        if now < self.looked_at + LOOK_EVERY {
            return Ok(());
        }
        self.looked_at = now;
        let missed = std::mem::take(&mut self.missed);
        let mut repartitioned = Vec::new();
        for (topic, had) in self.topics.iter().take_while(|_| !stop.is_stopped()) {
            match self.broker.partitions(topic) {
                Ok(Some(has)) if has != *had => {
                    repartitioned.push(Repartitioned { topic: topic.clone(), had: *had, has });
                }
                Ok(Some(_)) => {}
                Ok(None) if missed.contains(topic) => {
                    return Err(WorkerError::Broker(BrokerError::Gone(topic.clone())));
                }
                Ok(None) => {
                    self.missed.insert(topic.clone());
                }
                Err(error) => {
                    // No answer says nothing, and the users of the topic report more.
                    tracing::debug!(%topic, %error, "could not look whether it is there");
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

    /// Watches `topics`, of which `there` exists with two partitions, and `other` with one.
    struct World {
        clock: Arc<ManualClock>,
        broker: Arc<LocalBroker>,
    }

    impl World {
        fn new() -> Self {
            let clock = Arc::new(ManualClock::at(WallTime(0)));
            let time: Arc<dyn Clock> = Arc::<ManualClock>::clone(&clock);
            let broker = Arc::new(LocalBroker::new(time));
            let spec = |name, partitions| {
                let (name, cleanup) = (Topic::new(name), Cleanup::Delete { retention: None });
                TopicSpec { name, partitions, cleanup, message_bytes_max: None }
            };
            broker.create_topics(&[spec("there", 2), spec("other", 1)]).unwrap();
            Self { clock, broker }
        }

        fn watch(&self, topics: &[(&str, u32)]) -> TopicMonitor {
            let topics = topics.iter().map(|(name, had)| (Topic::new(name), *had)).collect();
            let clock: Arc<dyn Clock> = Arc::<ManualClock>::clone(&self.clock);
            TopicMonitor::new(Arc::<LocalBroker>::clone(&self.broker), topics, clock)
        }

        fn look(&self, watch: &mut TopicMonitor) -> Result<(), WorkerError> {
            self.clock.advance(LOOK_EVERY);
            watch.turn(&StopSignal::default())
        }
    }

    #[test]
    fn a_topic_that_is_not_there_at_two_looks_is_reported() {
        let world = World::new();
        let mut calm = world.watch(&[("there", 2)]);
        let mut alarmed = world.watch(&[("there", 2), ("gone", 2)]);
        assert!(world.look(&mut calm).is_ok());
        assert!(world.look(&mut alarmed).is_ok());
        assert!(world.look(&mut calm).is_ok());
        let Err(WorkerError::Broker(BrokerError::Gone(told))) = world.look(&mut alarmed) else {
            panic!("it is not told")
        };
        assert_eq!(told, Topic::new("gone"));
    }

    /// One answer may come from a broker that knows less than the others, now and then.
    #[test]
    fn a_topic_that_is_there_at_every_other_look_is_not_told() {
        let world = World::new();
        let mut watch = world.watch(&[("there", 2)]);
        for _ in 0..3 {
            watch.missed.insert(Topic::new("there"));
            assert!(world.look(&mut watch).is_ok());
            assert!(watch.missed.is_empty(), "it was there");
        }
        let mut watch = world.watch(&[("gone", 2)]);
        assert!(world.look(&mut watch).is_ok());
        assert!(watch.turn(&StopSignal::default()).is_ok(), "it is not time to look again");
        watch.missed.clear();
        assert!(world.look(&mut watch).is_ok(), "it was missed before the last look");
    }

    #[test]
    fn partitions_that_are_added_are_reported_at_the_next_look() {
        let world = World::new();
        let mut watch = world.watch(&[("other", 1), ("there", 2)]);
        assert!(world.look(&mut watch).is_ok());
        world.broker.with(|cluster, _| {
            cluster.add_partitions(&Topic::new("there"), 5);
            cluster.add_partitions(&Topic::new("other"), 3);
        });
        let told = world.look(&mut watch).expect_err("both have more").to_string();
        assert!(told.contains("other has 3 partitions, not 1"), "{told}");
        assert!(told.contains("there has 5 partitions, not 2"), "{told}");
    }
}

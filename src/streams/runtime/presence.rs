//! Watches that the topics in use stay there. Nobody else would notice: whoever reads a topic that was deleted hears
//! no more of it, loses its tasks or waits for ever. Who has made it again before the next look goes on with the new one.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use crate::streams::{
    record::Topic,
    runtime::{
        broker::{Broker, BrokerError},
        worker::{StopSignal, WorkerError},
    },
    time::Clock,
};

/// How often it looks: a question a topic, beside the workers, on a thread of its own.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Between two looks at whether it is to stop.
const STOP_LOOK: Duration = Duration::from_millis(200);

/// One thread's watch over topics.
pub struct TopicWatch {
    broker: Arc<dyn Broker>,
    topics: BTreeSet<Topic>,
    clock: Arc<dyn Clock>,
    looked_at: Duration,
    /// Not there at the last look. One answer may come from a broker that knows less than the others.
    missed: BTreeSet<Topic>,
}

impl TopicWatch {
    /// Over `topics`, which exist.
    #[must_use]
    pub fn new(broker: Arc<dyn Broker>, topics: BTreeSet<Topic>, clock: Arc<dyn Clock>) -> Self {
        let looked_at = clock.elapsed();
        Self { broker, topics, clock, looked_at, missed: BTreeSet::new() }
    }

    /// Turns until `stop`.
    ///
    /// # Errors
    /// [`BrokerError::Gone`], if a topic was deleted.
    pub fn run(mut self, stop: &StopSignal) -> Result<(), WorkerError> {
        while !stop.is_stopped() {
            self.turn(stop)?;
            std::thread::park_timeout(STOP_LOOK);
        }
        Ok(())
    }

    /// Looks, if it is time to, and not time to `stop`.
    ///
    /// # Errors
    /// [`BrokerError::Gone`], if a topic was not there at two looks in a row.
    pub fn turn(&mut self, stop: &StopSignal) -> Result<(), WorkerError> {
        let now = self.clock.elapsed();
        if now < self.looked_at + LOOK_EVERY {
            return Ok(());
        }
        self.looked_at = now;
        let missed = std::mem::take(&mut self.missed);
        for topic in self.topics.iter().take_while(|_| !stop.is_stopped()) {
            match self.broker.partitions(topic) {
                Ok(Some(_)) => {}
                Ok(None) if missed.contains(topic) => {
                    return Err(WorkerError::Broker(BrokerError::Gone(topic.clone())));
                }
                Ok(None) => {
                    self.missed.insert(topic.clone());
                }
                Err(error) => {
                    // No answer is no bad news, and whoever uses the topic has more to say.
                    tracing::debug!(%topic, %error, "could not look whether it is there");
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::streams::{
        local::LocalBroker,
        runtime::broker::{Cleanup, TopicSpec},
        time::{ManualClock, WallTime},
    };

    #[test]
    fn a_topic_that_is_not_there_at_two_looks_is_told() {
        let clock = Arc::new(ManualClock::at(WallTime(0)));
        let time: Arc<dyn Clock> = Arc::<ManualClock>::clone(&clock);
        let broker = Arc::new(LocalBroker::new(Arc::clone(&time)));
        let (there, gone) = (Topic::new("there"), Topic::new("gone"));
        let cleanup = Cleanup::Delete { retention: None };
        let spec =
            TopicSpec { name: there.clone(), partitions: 1, cleanup, message_bytes_max: None };
        broker.create_topics(&[spec]).unwrap();
        let watch = |topics: &[&Topic]| {
            let topics = topics.iter().map(|topic| (*topic).clone()).collect();
            TopicWatch::new(Arc::<LocalBroker>::clone(&broker), topics, Arc::clone(&time))
        };
        let (mut calm, mut alarmed) = (watch(&[&there]), watch(&[&there, &gone]));
        let stop = StopSignal::default();
        for _ in 0..2 {
            assert!(calm.turn(&stop).is_ok());
            assert!(alarmed.turn(&stop).is_ok());
            clock.advance(LOOK_EVERY);
        }
        assert!(calm.turn(&stop).is_ok());
        let Err(WorkerError::Broker(BrokerError::Gone(told))) = alarmed.turn(&stop) else {
            panic!("it is not told")
        };
        assert_eq!(told, gone);
    }
}

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
}

impl TopicWatch {
    /// Over `topics`, which exist.
    #[must_use]
    pub fn new(broker: Arc<dyn Broker>, topics: BTreeSet<Topic>, clock: Arc<dyn Clock>) -> Self {
        let looked_at = clock.elapsed();
        Self { broker, topics, clock, looked_at }
    }

    /// Turns until `stop`.
    ///
    /// # Errors
    /// [`BrokerError::Gone`], if a topic was deleted.
    pub fn run(mut self, stop: &StopSignal) -> Result<(), WorkerError> {
        while !stop.is_stopped() {
            self.turn()?;
            std::thread::park_timeout(STOP_LOOK);
        }
        Ok(())
    }

    /// Looks, if it is time to.
    ///
    /// # Errors
    /// [`BrokerError::Gone`], if a topic was deleted.
    pub fn turn(&mut self) -> Result<(), WorkerError> {
        let now = self.clock.elapsed();
        if now < self.looked_at + LOOK_EVERY {
            return Ok(());
        }
        self.looked_at = now;
        for topic in &self.topics {
            match self.broker.partitions(topic) {
                Ok(Some(_)) => {}
                Ok(None) => return Err(WorkerError::Broker(BrokerError::Gone(topic.clone()))),
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
    fn a_topic_that_is_not_there_is_told_at_the_next_look() {
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
        assert!(alarmed.turn().is_ok(), "it is not time to look");
        clock.advance(LOOK_EVERY);
        assert!(calm.turn().is_ok());
        let told = alarmed.turn();
        let is_told = |told: &Result<(), WorkerError>| matches!(told, Err(WorkerError::Broker(BrokerError::Gone(topic))) if *topic == gone);
        assert!(is_told(&told), "{told:?}");
    }
}

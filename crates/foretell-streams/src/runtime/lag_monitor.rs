//! The lag: records that were committed to the inputs of this process' tasks and are not processed yet. A worker publishes
//! how far it has read, and this monitor asks the broker for the ends, on a thread of its own: a request per partition.
//!
//! The lag of an application is the sum over its processes, because each partition has one owner. A partition that has none,
//! because no process runs, is in no sum.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use crate::{
    metrics::StreamsMetrics,
    record::Topic,
    runtime::{
        broker::{Broker, BrokerError, Isolation},
        status::{InputStatus, StatusBoard},
        stop_signal::StopSignal,
    },
};

/// The interval of reading the ends. A request takes the broker 1 to 2 ms.
const READ_EVERY: Duration = Duration::from_secs(5);

/// Measures the lag of the workers of a process, for a thread of its own.
///
/// ```
/// use std::{sync::Arc, thread};
/// use foretell_streams::{
///     local::LocalBroker, metrics::StreamsMetrics,
///     runtime::{LagMonitor, StatusBoard, StopSignal}, time::SystemClock,
/// };
///
/// let broker = Arc::new(LocalBroker::new(Arc::new(SystemClock::new())));
/// let board = StatusBoard::default(); // A clone of it goes into `WorkerParts::board`.
/// let monitor = LagMonitor::new(broker, board, StreamsMetrics::unregistered());
/// let stop = StopSignal::default();
/// let monitoring = thread::spawn({
///     let stop = stop.clone();
///     move || monitor.run(&stop)
/// });
/// stop.stop();
/// monitoring.join().expect("the thread does not panic");
/// ```
pub struct LagMonitor {
    broker: Arc<dyn Broker>,
    board: StatusBoard,
    metrics: StreamsMetrics,
    /// The topics to measure, also without tasks here.
    topics: BTreeSet<Topic>,
}

impl LagMonitor {
    /// A monitor of the workers that publish on `board`.
    #[must_use]
    pub fn new(broker: Arc<dyn Broker>, board: StatusBoard, metrics: StreamsMetrics) -> Self {
        Self { broker, board, metrics, topics: BTreeSet::new() }
    }

    /// Also measures `topics` while no task of this process reads them: their lag here is 0.
    #[must_use]
    pub fn with_topics(mut self, topics: impl IntoIterator<Item = Topic>) -> Self {
        self.topics.extend(topics);
        self
    }

    /// Measures the lag every 5 s until `stop`. If the broker does not answer, the metric keeps its last value.
    pub fn run(mut self, stop: &StopSignal) {
        while !stop.is_stopped() {
            if let Err(error) = self.measure(stop) {
                tracing::debug!(%error, "cannot measure the lag");
            }
            stop.wait(READ_EVERY);
        }
    }

    /// Measures the lag once. Ends early at `stop`.
    ///
    /// # Errors
    /// [`BrokerError`] if the broker does not answer; then no topic gets a new value.
    pub fn measure(&mut self, stop: &StopSignal) -> Result<(), BrokerError> {
        let mut lags: BTreeMap<Topic, u64> =
            self.topics.iter().map(|topic| (topic.clone(), 0)).collect();
        for input in self.board.read_inputs() {
            if stop.is_stopped() {
                return Ok(());
            }
            let end = self.broker.end(&input.source, Isolation::ReadCommitted)?;
            *lags.entry(input.source.topic.clone()).or_default() += lag(&input, end.0);
        }
        for (topic, lag) in lags {
            self.metrics.lag(topic.as_str(), lag);
            self.topics.insert(topic);
        }
        Ok(())
    }
}

/// Records before `end` that were not fetched, and those that were fetched and not processed.
fn lag(input: &InputStatus, end: i64) -> u64 {
    let not_fetched = u64::try_from(end.saturating_sub(input.position.0)).unwrap_or(0);
    not_fetched.saturating_add(u64::try_from(input.buffered).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        local::LocalBroker,
        record::{Offset, OutputRecord, Partition, TopicPartition},
        runtime::broker::{Cleanup, TopicSpec},
        time::{EventTime, SystemClock},
    };

    fn input(topic: &str, partition: i32, position: i64, buffered: usize) -> InputStatus {
        let source = TopicPartition { topic: Topic::new(topic), partition: Partition(partition) };
        InputStatus { source, position: Offset(position), buffered }
    }

    #[test]
    fn the_lag_is_what_was_not_fetched_and_what_is_buffered() {
        let broker = Arc::new(LocalBroker::new(Arc::new(SystemClock::new())));
        let (name, cleanup) = (Topic::new("in"), Cleanup::Delete { retention: None });
        let spec =
            TopicSpec { name: name.clone(), partitions: 1, cleanup, message_bytes_max: None };
        broker.create_topics(&[spec]).unwrap();
        let mut publisher = broker.publish().unwrap();
        for _ in 0..10 {
            publisher.send(OutputRecord::new(&name, None, Some(b"x"), EventTime(0))).unwrap();
        }
        publisher.flush().unwrap();

        let (board, metrics) = (StatusBoard::default(), StreamsMetrics::unregistered());
        let port: Arc<dyn Broker> = Arc::<LocalBroker>::clone(&broker);
        let mut monitor = LagMonitor::new(port, board.clone(), metrics.clone());
        let stop = StopSignal::default();
        let mut check = |worker: &str, inputs: Vec<InputStatus>, expected: i64| {
            board.publish_inputs(worker, inputs);
            monitor.measure(&stop).unwrap();
            assert_eq!(metrics.lag_of("in"), expected);
        };
        check("one", vec![input("in", 0, 0, 0)], 10);
        check("one", vec![input("in", 0, 7, 2)], 5);
        check("one", vec![input("in", 0, 10, 0)], 0);
        check("two", vec![input("in", 0, 4, 0)], 6);
        // Its tasks have moved to other processes.
        check("two", Vec::new(), 0);

        // A topic that does not exist: no new values.
        board.publish_inputs("two", vec![input("in", 0, 4, 0), input("gone", 0, 0, 0)]);
        assert!(monitor.measure(&stop).is_err());
        assert_eq!(metrics.lag_of("in"), 0);
    }

    #[test]
    fn a_position_after_the_end_is_no_lag() {
        assert_eq!(lag(&input("in", 0, 12, 0), 10), 0);
        assert_eq!(lag(&input("in", 0, 0, usize::MAX), i64::MAX), u64::MAX);
    }
}

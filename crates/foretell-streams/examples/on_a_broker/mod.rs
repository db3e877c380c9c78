//! Code that the examples share: create a topology's topics, publish its input, run one worker until the expected outputs
//! are committed, and stop it.

use std::{error::Error, sync::Arc, thread, time::Duration};

use foretell_streams::{
    local::LocalBroker,
    record::{InputRecord, OutputRecord, Partition, Topic, TopicPartition},
    runtime::{
        StopSignal, Worker, WorkerParts,
        broker::{Broker, ReadFrom, TopicSpec},
    },
    time::SystemClock,
    topology::Topology,
};

/// One run of a topology.
pub(crate) struct Run {
    pub(crate) group: &'static str,
    pub(crate) topology: Topology,
    pub(crate) partitions: u32,
    pub(crate) input: Vec<OutputRecord>,
    /// The output topics to read.
    pub(crate) outputs: Vec<Topic>,
    /// The number of output records after which the run ends.
    pub(crate) expected: usize,
}

const WAIT: Duration = Duration::from_millis(100);

impl Run {
    /// Runs on a broker in this process.
    #[allow(dead_code, reason = "the word count example chooses its broker, which may be Kafka")]
    pub(crate) fn locally(self) -> Result<Vec<InputRecord>, Box<dyn Error>> {
        self.on(Arc::new(LocalBroker::new(Arc::new(SystemClock::new()))))
    }

    /// Runs on `broker`. Returns the records that this run wrote to the outputs, in order within each partition.
    pub(crate) fn on(self, broker: Arc<dyn Broker>) -> Result<Vec<InputRecord>, Box<dyn Error>> {
        let topology = Arc::new(self.topology);
        broker.create_topics(&TopicSpec::all_of(&topology, self.partitions))?;

        // Follow the outputs from their present ends: on Kafka, earlier runs may have written to them.
        let mut follower = broker.follow()?;
        for topic in &self.outputs {
            for partition in (0..).map(Partition).take(self.partitions.try_into()?) {
                follower
                    .open(&TopicPartition { topic: topic.clone(), partition }, ReadFrom::End)?;
            }
        }

        let mut publisher = broker.publish()?;
        for record in self.input {
            publisher.send(record)?;
        }
        publisher.flush()?;

        // A worker must join the group on the thread that runs it, because a member cannot move between threads.
        let parts = WorkerParts::new(broker, &topology, self.group, "worker-1");
        let stop = StopSignal::default();
        let worker = thread::spawn({
            let stop = stop.clone();
            move || Worker::join(parts)?.run(&stop)
        });
        let mut records = Vec::new();
        while records.len() < self.expected && !worker.is_finished() {
            follower.read(WAIT, &mut records)?;
        }
        stop.stop();
        worker.join().map_err(|_| "the worker panicked")??;
        Ok(records)
    }
}

/// A record's key or value as text.
pub(crate) fn text(bytes: Option<&[u8]>) -> String {
    String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned()
}

//! The writer thread: sends all queued records and flushes once, so that requests share round trips to the broker and none
//! occupies a thread.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use crate::processors::gateway::GatewayError;
use foretell_streams::{
    record::OutputRecord,
    runtime::broker::{BrokerError, Publisher},
};

/// Called once with the result, when the broker has stored the record or it has failed.
pub type Written = Box<dyn FnOnce(Result<(), GatewayError>) + Send>;

/// Maximum number of queued records. The limit on connections is normally reached first.
const QUEUED_MAX: usize = 10_000;
/// Maximum number of records per flush. librdkafka buffers 64 MiB before a send blocks.
const FLUSHED_MAX: usize = 1000;

struct Write {
    record: OutputRecord,
    written: Written,
}

/// The sending side of the queue.
pub(super) struct Writer {
    queue: SyncSender<Write>,
}

/// The thread's side of the queue.
pub(super) struct WriterThread {
    queue: Receiver<Write>,
    publisher: Box<dyn Publisher>,
}

pub(super) fn open(publisher: Box<dyn Publisher>) -> (Writer, WriterThread) {
    let (sender, queue) = sync_channel(QUEUED_MAX);
    (Writer { queue: sender }, WriterThread { queue, publisher })
}

impl Writer {
    /// Queues `record`. Does not block.
    pub(super) fn write(&self, record: OutputRecord, written: Written) -> Result<(), GatewayError> {
        let reason = match self.queue.try_send(Write { record, written }) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Full(_)) => "too many records wait to be written: try again",
            Err(TrySendError::Disconnected(_)) => "the instance is stopping: try again",
        };
        Err(GatewayError::Busy(reason))
    }
}

impl WriterThread {
    /// Runs until the last [`Writer`] is dropped and its records are written.
    pub(super) fn run(mut self) {
        let mut sent = Vec::new();
        while let Ok(first) = self.queue.recv() {
            self.send(first, &mut sent);
            while sent.len() < FLUSHED_MAX
                && let Ok(next) = self.queue.try_recv()
            {
                self.send(next, &mut sent);
            }
            if sent.is_empty() {
                continue;
            }
            let flushed = self.publisher.flush().map_err(|error| error.to_string());
            if let Err(error) = &flushed {
                tracing::warn!(error, records = sent.len(), "records of clients were not written");
            }
            for written in sent.drain(..) {
                // A flush does not say which record failed, so each may have been written or not.
                written(flushed.clone().map_err(GatewayError::Unavailable));
            }
        }
    }

    fn send(&mut self, write: Write, sent: &mut Vec<Written>) {
        match self.publisher.send(write.record) {
            Ok(()) => sent.push(write.written),
            Err(BrokerError::Unsendable { reason, .. }) => {
                (write.written)(Err(GatewayError::Unsendable(reason)));
            }
            Err(error) => (write.written)(Err(GatewayError::Unavailable(error.to_string()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc, Barrier,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    };

    use super::*;
    use foretell_streams::{record::Topic, time::EventTime};

    /// A publisher whose first flush waits until the test has queued more.
    struct Slow {
        flushes: Arc<AtomicUsize>,
        gate: Arc<Barrier>,
    }

    impl Publisher for Slow {
        fn send(&mut self, record: OutputRecord) -> Result<(), BrokerError> {
            match record.value {
                Some(value) if value == b"large" => {
                    Err(BrokerError::Unsendable { topic: record.topic, reason: "too large".into() })
                }
                _ => Ok(()),
            }
        }

        fn flush(&mut self) -> Result<(), BrokerError> {
            if self.flushes.fetch_add(1, Ordering::SeqCst) == 0 {
                self.gate.wait();
                self.gate.wait();
            }
            Ok(())
        }
    }

    fn record(value: &[u8]) -> OutputRecord {
        OutputRecord {
            topic: Topic::new("in"),
            partition: None,
            timestamp: EventTime(0),
            key: None,
            value: Some(value.to_vec()),
            headers: Vec::new(),
        }
    }

    #[test]
    fn records_queued_during_a_flush_share_the_next_one() {
        let (flushes, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(Barrier::new(2)));
        let slow = Slow { flushes: Arc::clone(&flushes), gate: Arc::clone(&gate) };
        let (writer, thread) = open(Box::new(slow));
        let thread = std::thread::spawn(move || thread.run());
        let (results, all) = mpsc::channel();
        let write = |value: &[u8]| {
            let results = results.clone();
            let written: Written = Box::new(move |result| results.send(result).unwrap());
            writer.write(record(value), written).unwrap();
        };
        write(b"first");
        gate.wait();
        for _ in 0..500 {
            write(b"more");
        }
        write(b"large");
        gate.wait();
        let all: Vec<_> = all.into_iter().take(502).collect();
        let refused =
            all.iter().filter(|result| matches!(result, Err(GatewayError::Unsendable(_))));
        assert_eq!(refused.count(), 1);
        assert_eq!(all.iter().filter(|result| result.is_ok()).count(), 501);
        assert_eq!(flushes.load(Ordering::SeqCst), 2);
        drop(writer);
        thread.join().unwrap();
    }
}

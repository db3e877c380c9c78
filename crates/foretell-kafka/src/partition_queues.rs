//! A consumer with one queue per partition, from which messages are taken in batches. With `poll`, each message would cost
//! an allocation, two clock reads and some locks: half of the total cost of consuming.
//!
//! ```text
//!   fetched ──▶ queue of the partition ──take──▶ messages, and errors of that partition
//!                        └──notifies──▶ Notify ◀──notifies──┐
//!   rebalances, errors of the client ──▶ queue of the client ──serve──▶ callbacks, errors
//! ```
//!
//! librdkafka drops messages that were fetched before a seek, a pause or another assignment.

#![expect(unsafe_code, reason = "rdkafka takes one message at a time")]

use std::{
    ffi::{CString, c_void},
    ops::Deref,
    ptr::{self, NonNull},
    sync::Arc,
    time::Duration,
};

use rdkafka::{
    TopicPartitionList,
    bindings::{
        rd_kafka_consume_batch_queue, rd_kafka_position, rd_kafka_queue_cb_event_enable,
        rd_kafka_queue_destroy, rd_kafka_queue_forward, rd_kafka_queue_get_partition,
        rd_kafka_queue_t, rd_kafka_t,
    },
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::{KafkaError, KafkaResult},
    types::RDKafkaErrorCode as Code,
};

use crate::{message::ReceivedMessage, notify::Notify};
use foretell_streams::record::{Offset, TopicPartition};

/// Maximum number of client events that are served at once. Only the first of the waiting ones notifies.
const SERVED_MAX: usize = 4;

/// Maximum number of messages that are taken from all partitions at once, if these are few. What a worker makes of them must
/// stay in the cache until it is sent: with 512 of each of four partitions, its thread took a twentieth longer.
const TAKEN_MAX: usize = 256;

/// Minimum number of messages that are taken from a partition at once.
const BATCH_MIN: usize = 32;

/// A consumer, and a queue for each partition that it may be assigned.
pub(crate) struct PartitionQueues<C: ConsumerContext + 'static> {
    // Declared before the consumer, because they must be dropped before it.
    queues: Vec<Queue>,
    consumer: BaseConsumer<C>,
    notify: Arc<Notify>,
}

/// The queue of a partition. It must not outlive its client.
struct Queue {
    source: TopicPartition,
    native: NonNull<rd_kafka_queue_t>,
    /// Keeps the address valid that the callback has.
    notify: Arc<Notify>,
}

// SAFETY: librdkafka's queues are not bound to a thread, and locked by it.
unsafe impl Send for Queue {}

impl<C: ConsumerContext + 'static> PartitionQueues<C> {
    pub(crate) fn new(mut consumer: BaseConsumer<C>) -> Self {
        let notify = Arc::new(Notify::default());
        let of_client = Arc::clone(&notify);
        consumer.set_nonempty_callback(move || of_client.notify_one());
        Self { queues: Vec::new(), consumer, notify }
    }

    /// Opens a queue for `source`, so that its messages are returned by [`Self::take`] only. Must be called before the
    /// partition is assigned.
    ///
    /// # Errors
    /// If librdkafka refuses the name.
    pub(crate) fn open(&mut self, source: &TopicPartition) -> KafkaResult<()> {
        if !self.queues.iter().any(|queue| queue.source == *source) {
            self.queues.push(Queue::open(&self.consumer, source, &self.notify)?);
        }
        Ok(())
    }

    /// Closes the queue of `source` and drops its messages. Must be called before the partition is unassigned: dropping
    /// messages moves librdkafka's position past them, where the next assignment would start, and unassigning resets it.
    pub(crate) fn close(&mut self, source: &TopicPartition) {
        self.queues.retain(|queue| {
            let is_closed = queue.source == *source;
            // A batch that is not full was the last one, or later messages are being fetched right now.
            while is_closed && queue.take(TAKEN_MAX, |_| {}) == TAKEN_MAX {}
            !is_closed
        });
    }

    /// Takes the available messages, and calls `visit` with each, in order within each partition. Never waits.
    pub(crate) fn take(&self, mut visit: impl FnMut(&TopicPartition, &ReceivedMessage)) {
        let share = TAKEN_MAX / self.queues.len().max(1);
        for queue in &self.queues {
            queue.take(share.max(BATCH_MIN), |message| visit(&queue.source, message));
        }
    }

    /// The offset after the last message of `source` that [`Self::take`] returned. It includes control records, which
    /// librdkafka does not return, and errors, which it counts as records. `None` if there was none since the partition was
    /// assigned or sought.
    pub(crate) fn position(&self, source: &TopicPartition) -> Option<Offset> {
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition(source.topic.as_str(), source.partition.0);
        // SAFETY: the client and the list are alive while borrowed. An unknown partition gets no offset.
        unsafe { rd_kafka_position(self.consumer.client().native_ptr(), list.ptr()) };
        let rdkafka::Offset::Offset(offset) = list.elements().first()?.offset() else {
            return None;
        };
        Some(Offset(offset))
    }

    /// Runs the client's callbacks.
    ///
    /// # Errors
    /// An error of the client.
    pub(crate) fn serve(&self) -> KafkaResult<()> {
        // `None` may mean that a callback has run.
        for _ in 0..SERVED_MAX {
            match self.consumer.poll(Duration::ZERO) {
                None => {}
                Some(Err(error)) => return Err(error),
                Some(Ok(_)) => {
                    panic!("each partition has a queue of its own before it is assigned")
                }
            }
        }
        Ok(())
    }

    /// Waits until there are messages to take or events to serve that have come since the last wait, or `at_most` is over.
    pub(crate) fn wait(&self, at_most: Duration) {
        self.notify.wait(at_most);
    }

    /// Closes the queues, and returns the consumer.
    pub(crate) fn into_consumer(self) -> BaseConsumer<C> {
        drop(self.queues);
        self.consumer
    }
}

impl<C: ConsumerContext + 'static> Deref for PartitionQueues<C> {
    type Target = BaseConsumer<C>;

    fn deref(&self) -> &BaseConsumer<C> {
        &self.consumer
    }
}

impl Queue {
    fn open<C: ConsumerContext>(
        consumer: &BaseConsumer<C>,
        source: &TopicPartition,
        notify: &Arc<Notify>,
    ) -> KafkaResult<Self> {
        let topic = CString::new(source.topic.as_str())?;
        // SAFETY: the client is alive while borrowed, and copies the name.
        let native = unsafe {
            rd_kafka_queue_get_partition(
                consumer.client().native_ptr(),
                topic.as_ptr(),
                source.partition.0,
            )
        };
        let native = NonNull::new(native)
            .ok_or(KafkaError::MessageConsumption(Code::UnknownTopicOrPartition))?;
        let queue = Self { source: source.clone(), native, notify: Arc::clone(notify) };
        let notify: *const Notify = Arc::as_ptr(&queue.notify);
        // SAFETY: the queue is alive. Forwarding it to null keeps librdkafka from forwarding it to the client's queue. The
        // callback has the address of `notify` until `drop` removes the callback, and uses it as a shared reference.
        unsafe {
            rd_kafka_queue_forward(native.as_ptr(), ptr::null_mut());
            rd_kafka_queue_cb_event_enable(
                native.as_ptr(),
                Some(notify_one),
                notify.cast_mut().cast(),
            );
        }
        Ok(queue)
    }

    /// Takes up to `batch_max` messages, at most `TAKEN_MAX`, and returns their number.
    fn take(&self, batch_max: usize, mut visit: impl FnMut(&ReceivedMessage)) -> usize {
        let mut messages = [ptr::null_mut(); TAKEN_MAX];
        let room = batch_max.min(messages.len());
        // SAFETY: the queue is alive, and there is room for as many pointers as are asked for.
        let count = unsafe {
            rd_kafka_consume_batch_queue(self.native.as_ptr(), 0, messages.as_mut_ptr(), room)
        };
        let count = usize::try_from(count).unwrap_or(0);
        for message in messages.into_iter().take(count) {
            // SAFETY: the call above returned the message, and nothing else refers to it.
            let Some(message) = (unsafe { ReceivedMessage::own(message) }) else { continue };
            visit(&message);
        }
        count
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: the queue is alive, and `self` is its only owner. Once the first call has returned, no callback runs.
        unsafe {
            rd_kafka_queue_cb_event_enable(self.native.as_ptr(), None, ptr::null_mut());
            rd_kafka_queue_destroy(self.native.as_ptr());
        }
    }
}

/// Called by librdkafka's threads when an empty queue has received something.
unsafe extern "C" fn notify_one(_: *mut rd_kafka_t, notify: *mut c_void) {
    // SAFETY: this is the address that `Queue::open` has passed, of a `Notify` that the queue keeps alive.
    let notify: &Notify = unsafe { &*notify.cast_const().cast() };
    notify.notify_one();
}

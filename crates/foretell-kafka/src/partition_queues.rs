//! What comes in: a consumer whose partitions have queues of their own, out of which messages are taken many at a
//! time. Through `poll`, each one costs an allocation, two looks at the clock and some locks: half of what
//! consuming costs at all.
//!
//! ```text
//!   fetched ──▶ its partition's queue ──take──▶ messages, and errors of that partition
//!                        └──rings──▶ Notify ◀──rings──┐
//!   rebalances, errors of the client ──▶ queue of the client ──serve──▶ callbacks, errors
//! ```
//! What was fetched before a seek, a pause or another assignment is outdated, and librdkafka leaves it out of what is taken.

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

/// How many events of the client are served at once; the bell is rung for the first of those that wait.
const SERVED_MAX: usize = 4;

/// How many messages of each partition are taken at once.
const BATCH_MAX: usize = 512;

/// A consumer, and a queue for each partition that it may be assigned.
pub(crate) struct PartitionQueues<C: ConsumerContext + 'static> {
    // Before the consumer, so that they are dropped before it.
    queues: Vec<Queue>,
    consumer: BaseConsumer<C>,
    notify: Arc<Notify>,
}

/// One partition's queue. It must not outlive its client.
struct Queue {
    source: TopicPartition,
    native: NonNull<rd_kafka_queue_t>,
    /// Held for the callback, which has its address.
    notify: Arc<Notify>,
}

// SAFETY: librdkafka locks its queues, whichever thread uses them; they belong to no thread.
unsafe impl Send for Queue {}

impl<C: ConsumerContext + 'static> PartitionQueues<C> {
    pub(crate) fn new(mut consumer: BaseConsumer<C>) -> Self {
        let notify = Arc::new(Notify::default());
        let of_client = Arc::clone(&notify);
        consumer.set_nonempty_callback(move || of_client.notify_one());
        Self { queues: Vec::new(), consumer, notify }
    }

    /// From now on, what is fetched of `source` comes out of [`Self::take`] alone. To be called before it is assigned.
    ///
    /// # Errors
    /// If librdkafka takes it for no partition's name.
    pub(crate) fn open(&mut self, source: &TopicPartition) -> KafkaResult<()> {
        if !self.queues.iter().any(|queue| queue.source == *source) {
            self.queues.push(Queue::open(&self.consumer, source, &self.notify)?);
        }
        Ok(())
    }

    /// `source` will not be assigned any more: what was fetched of it goes. To be called while it still is: librdkafka moves its
    /// position past what goes, and would begin there when it is assigned next; it forgets that when it stops fetching.
    pub(crate) fn close(&mut self, source: &TopicPartition) {
        self.queues.retain(|queue| {
            let is_closed = queue.source == *source;
            // A batch that is not full was the last, or what comes now is fetched while we look.
            while is_closed && queue.take(|_| {}) == BATCH_MAX {}
            !is_closed
        });
    }

    /// Hands what is there to `visit`, in order within each partition. Never waits.
    pub(crate) fn take(&self, mut visit: impl FnMut(&TopicPartition, &ReceivedMessage)) {
        for queue in &self.queues {
            queue.take(|message| visit(&queue.source, message));
        }
    }

    /// The offset behind the last of `source` that has come out of [`Self::take`], markers of transactions and errors included,
    /// which librdkafka keeps to itself or takes for records; none since it was assigned or sought.
    pub(crate) fn position(&self, source: &TopicPartition) -> Option<Offset> {
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition(source.topic.as_str(), source.partition.0);
        // SAFETY: the client and the list are alive while borrowed. What is unknown gets no offset.
        unsafe { rd_kafka_position(self.consumer.client().native_ptr(), list.ptr()) };
        let rdkafka::Offset::Offset(offset) = list.elements().first()?.offset() else {
            return None;
        };
        Some(Offset(offset))
    }

    /// Lets the client's callbacks run.
    ///
    /// # Errors
    /// What is wrong with the client.
    pub(crate) fn serve(&self) -> KafkaResult<()> {
        // That nothing comes may mean that a callback has run.
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

    /// Waits until there is something to take or to serve that was not there when it was last looked for.
    pub(crate) fn wait(&self, at_most: Duration) {
        self.notify.wait(at_most);
    }

    /// The consumer alone, to be closed.
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
        // SAFETY: the queue is alive. To forward it to nowhere keeps librdkafka from forwarding it to the client's.
        // The callback has the bell's address until `drop` takes it away, and does not change the bell.
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

    /// Returns how many came.
    fn take(&self, mut visit: impl FnMut(&ReceivedMessage)) -> usize {
        let mut messages = [ptr::null_mut(); BATCH_MAX];
        // SAFETY: the queue is alive, and there is room for as many pointers as are asked for.
        let count = unsafe {
            rd_kafka_consume_batch_queue(self.native.as_ptr(), 0, messages.as_mut_ptr(), BATCH_MAX)
        };
        let count = usize::try_from(count).unwrap_or(0);
        for message in messages.into_iter().take(count) {
            // SAFETY: it was handed to us just now, and to nobody else.
            let Some(message) = (unsafe { ReceivedMessage::own(message) }) else { continue };
            visit(&message);
        }
        count
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: the queue is alive, and this was its only owner. Once the first call has returned, no callback runs.
        unsafe {
            rd_kafka_queue_cb_event_enable(self.native.as_ptr(), None, ptr::null_mut());
            rd_kafka_queue_destroy(self.native.as_ptr());
        }
    }
}

/// Called by librdkafka's threads when something has come into an empty queue.
unsafe extern "C" fn notify_one(_: *mut rd_kafka_t, notify: *mut c_void) {
    // SAFETY: this is the address that `Queue::open` has given, of a bell that the queue holds.
    let notify: &Notify = unsafe { &*notify.cast_const().cast() };
    notify.notify_one();
}

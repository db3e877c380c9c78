//! What a processor may do while it processes: open stores, send on, ask the time, count, set aside.

use std::{any::Any, marker::PhantomData, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    metrics::Counter,
    record::{Header, InputRecord, Partition},
    state::{KeyValueHandle, KeyValueStore, Store, WindowHandle, WindowStore},
    time::{EventTime, WallTime},
    topology::{Node, Outbox, ProcessError, Record},
};

/// Which time a punctuation follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PunctuationKind {
    /// Stream time: see [`Context::stream_time`].
    StreamTime,
    /// The clock on the wall.
    WallClock,
}

/// The time that a punctuation was called for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Punctuation {
    /// Stream time.
    StreamTime(EventTime),
    /// The time of day.
    WallClock(WallTime),
}

/// A record's raw bytes and where they came from: what is kept of a record that can't be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Original {
    /// Its topic.
    pub topic: String,
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// The broker's timestamp for it.
    pub timestamp: EventTime,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub value: Option<Vec<u8>>,
    /// Its headers, in order.
    pub headers: Vec<Header>,
}

impl From<&InputRecord> for Original {
    fn from(record: &InputRecord) -> Self {
        Self {
            topic: record.source.topic.as_str().to_owned(),
            partition: record.source.partition.0,
            offset: record.offset.0,
            timestamp: record.timestamp,
            key: record.key.clone(),
            value: record.value.clone(),
            headers: record.headers.clone(),
        }
    }
}

/// A record set aside, with its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DeadLetter {
    pub(crate) original: Original,
    pub(crate) class: &'static str,
    pub(crate) schema_id: Option<u32>,
    pub(crate) message: String,
}

pub(crate) struct Schedule {
    pub(crate) node: usize,
    pub(crate) kind: PunctuationKind,
    pub(crate) interval: Duration,
    /// In milliseconds of its own time; none until that time is known.
    pub(crate) next: Option<i64>,
}

/// All that the nodes of one task share.
pub(crate) struct Scope {
    pub(crate) partition: Partition,
    /// Each is taken out while it runs.
    pub(crate) nodes: Vec<Option<Box<dyn Node>>>,
    pub(crate) children: Arc<Vec<Vec<usize>>>,
    pub(crate) stores: Vec<Store>,
    pub(crate) outbox: Outbox,
    pub(crate) dead_letters: Vec<DeadLetter>,
    pub(crate) counts: Vec<(Counter, u64)>,
    pub(crate) schedules: Vec<Schedule>,
    /// What is being processed; none in a punctuation.
    pub(crate) input: Option<InputRecord>,
    pub(crate) stream_time: EventTime,
    pub(crate) now: WallTime,
    /// See [`TopologyBuilder::clock_tolerance`](crate::topology::TopologyBuilder::clock_tolerance).
    pub(crate) clock_tolerance: Duration,
}

impl Scope {
    /// The latest that stream time may be: one record of a clock that is fast must not close the windows of all others.
    pub(crate) fn latest(&self) -> EventTime {
        EventTime(self.now.0) + self.clock_tolerance
    }

    /// Stream time follows a record of `time`.
    pub(crate) fn follow(&mut self, time: EventTime) {
        self.stream_time = self.stream_time.max(time.min(self.latest()));
    }

    /// The timestamp of an output: when it is written, so that the broker's retention counts from then, however long
    /// ago that happened which it tells of.
    pub(crate) fn written_at(&self) -> EventTime {
        EventTime(self.now.0.max(0))
    }

    /// The timestamp of a changelog's record: stream time, which a restore takes from there. Never before the epoch, and
    /// never ahead of the clock, for a broker refuses what is (`message.timestamp.after.max.ms`).
    pub(crate) fn changed_at(&self) -> EventTime {
        EventTime(self.stream_time.0.clamp(0, self.now.0.max(0)))
    }

    /// Runs `visit` on a node, which is not among the others meanwhile.
    pub(crate) fn with_node<R>(
        &mut self,
        index: usize,
        visit: impl FnOnce(&mut dyn Node, &mut Self) -> R,
    ) -> R {
        let mut node = self.nodes[index].take().expect("a topology has no cycles");
        let result = visit(node.as_mut(), self);
        self.nodes[index] = Some(node);
        result
    }
}

/// A processor's hands and eyes, for the time of one call.
pub struct Context<'t, Out> {
    scope: &'t mut Scope,
    node: usize,
    out: PhantomData<fn(Out)>,
}

impl<'t, Out: 'static> Context<'t, Out> {
    pub(crate) fn new(scope: &'t mut Scope, node: usize) -> Self {
        Self { scope, node, out: PhantomData }
    }

    /// Sends `record` on along every outgoing edge, and returns when all of it is processed.
    ///
    /// # Errors
    /// What a node further down says; hand it on with `?`.
    pub fn forward(&mut self, record: &Record<Out>) -> Result<(), ProcessError> {
        let record: &dyn Any = record;
        for place in 0..self.scope.children[self.node].len() {
            let child = self.scope.children[self.node][place];
            self.scope.with_node(child, |node, scope| node.process(record, scope, child))?;
        }
        Ok(())
    }

    /// Opens a key-value store.
    #[must_use]
    pub fn key_value<'s, V>(&'s mut self, handle: &'s KeyValueHandle<V>) -> KeyValueStore<'s, V> {
        let KeyValueHandle { id, changelog, values } = handle;
        KeyValueStore { store: &mut self.scope.stores[id.0], changelog, values: &**values }
    }

    /// Opens a window store.
    #[must_use]
    pub fn window<'s, V>(&'s mut self, handle: &'s WindowHandle<V>) -> WindowStore<'s, V> {
        let WindowHandle { id, changelog, values } = handle;
        WindowStore { store: &mut self.scope.stores[id.0], changelog, values: &**values }
    }

    /// Asks for a punctuation every `interval` from now on.
    pub fn schedule(&mut self, kind: PunctuationKind, interval: Duration) {
        self.scope.schedules.push(Schedule { node: self.node, kind, interval, next: None });
    }

    /// The task's number.
    #[must_use]
    pub fn partition(&self) -> Partition {
        self.scope.partition
    }

    /// The highest event time that this task has seen, but never further ahead of the clock than
    /// [`TopologyBuilder::clock_tolerance`](crate::topology::TopologyBuilder::clock_tolerance). Without records it
    /// stands still, until all inputs have been quiet for a while: then it goes on with the clock.
    #[must_use]
    pub fn stream_time(&self) -> EventTime {
        self.scope.stream_time
    }

    /// The time of day when this record was taken up.
    #[must_use]
    pub fn now(&self) -> WallTime {
        self.scope.now
    }

    /// The record that came in from the topic; none in a punctuation.
    #[must_use]
    pub fn input(&self) -> Option<&InputRecord> {
        self.scope.input.as_ref()
    }

    /// Counts something; it shows when it is committed.
    pub fn count(&mut self, counter: &Counter, by: u64) {
        if by > 0 {
            self.scope.counts.push((counter.clone(), by));
        }
    }

    /// Sets a record aside that was kept from earlier. (To set aside the present one, return
    /// [`ProcessError::Reject`].)
    pub fn dead_letter(&mut self, original: Original, class: &'static str, message: String) {
        self.scope.dead_letters.push(DeadLetter { original, class, schema_id: None, message });
    }
}

//! The context of a call to a processor: stores, child nodes, time, counters and the dead-letter topic.

use std::{any::Any, fmt, marker::PhantomData, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    metrics::Counter,
    record::{Header, InputRecord, Partition},
    state::{KeyValueHandle, KeyValueStore, Store, WindowHandle, WindowStore},
    time::{EventTime, WallTime},
    topology::{Node, Outbox, ProcessError, Record},
};

/// The time that a punctuation follows, for [`Context::schedule`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PunctuationKind {
    /// [`Context::stream_time`]. It advances with records, so a backfill is punctuated like live traffic.
    StreamTime,
    /// The time of day. It advances without records, too.
    WallClock,
}

/// The time for which [`Processor::punctuate`](crate::topology::Processor::punctuate) is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Punctuation {
    /// The stream time, which may be past several intervals.
    StreamTime(EventTime),
    /// The time of day.
    WallClock(WallTime),
}

/// A record as it was read: its position and bytes. A processor that stores records for later stores this with them, so that
/// [`Context::dead_letter`] can send the original to the dead-letter topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Original {
    /// The topic that it was read from.
    pub topic: String,
    /// The partition that it was read from.
    pub partition: i32,
    /// The offset in the partition.
    pub offset: i64,
    /// The timestamp of the record in its topic, in milliseconds since 1970; not its event time.
    pub timestamp: EventTime,
    /// The key, as bytes.
    pub key: Option<Vec<u8>>,
    /// The value, as bytes; `None` for a tombstone.
    pub value: Option<Vec<u8>>,
    /// The headers, in order.
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

/// A record for the dead-letter topic, and the reason.
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
    /// When it is due, in milliseconds of the time that it follows; `None` until that time is known.
    pub(crate) next: Option<i64>,
}

/// The state that the nodes of one task share.
pub(crate) struct Scope {
    pub(crate) partition: Partition,
    /// A node is taken out while it runs.
    pub(crate) nodes: Vec<Option<Box<dyn Node>>>,
    pub(crate) children: Arc<Vec<Vec<usize>>>,
    pub(crate) stores: Vec<Store>,
    pub(crate) outbox: Outbox,
    pub(crate) dead_letters: Vec<DeadLetter>,
    pub(crate) counts: Vec<(Counter, u64)>,
    pub(crate) schedules: Vec<Schedule>,
    /// The record that is being processed; `None` in a punctuation.
    pub(crate) input: Option<InputRecord>,
    pub(crate) stream_time: EventTime,
    pub(crate) now: WallTime,
    /// See [`TopologyBuilder::clock_tolerance`](crate::topology::TopologyBuilder::clock_tolerance).
    pub(crate) clock_tolerance: Duration,
}

impl Scope {
    /// The upper bound of stream time: one record of a producer whose clock is fast must not close the windows of all others.
    pub(crate) fn latest(&self) -> EventTime {
        EventTime(self.now.0) + self.clock_tolerance
    }

    /// Advances stream time to the event time of a record, up to the bound.
    pub(crate) fn observe_event_time(&mut self, time: EventTime) {
        self.stream_time = self.stream_time.max(time.min(self.latest()));
    }

    /// The timestamp of an output: the time of writing, so that the retention of the broker starts then, and not at the event
    /// time, which may be long ago.
    pub(crate) fn written_at(&self) -> EventTime {
        EventTime(self.now.0.max(0))
    }

    /// The timestamp of a changelog record: stream time, which a restore reads from there. It is neither before 1970 nor
    /// ahead of the clock, because a broker rejects such records (`message.timestamp.after.max.ms`).
    pub(crate) fn changed_at(&self) -> EventTime {
        EventTime(self.stream_time.0.clamp(0, self.now.0.max(0)))
    }

    /// Runs `visit` on a node, which is taken out of `nodes` meanwhile.
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

/// Access to stores, child nodes, time and counters for one call of a [`Processor`](crate::topology::Processor).
///
/// ```
/// use std::{sync::Arc, time::Duration};
/// use foretell_streams::{
///     codec::{Stored, Utf8}, local::TopologyDriver, metrics::StreamsMetrics, record::Topic,
///     state::KeyValueHandle, time::{EventTime, WallTime},
///     topology::{
///         Context, ProcessError, Processor, Punctuation, PunctuationKind, Record, TopologyBuilder,
///     },
/// };
///
/// /// Counts clicks, and forwards the count once a minute.
/// struct Report { counts: KeyValueHandle<u32> }
///
/// impl Processor for Report {
///     type In = String;
///     type Out = String;
///
///     fn start(&mut self, ctx: &mut Context<'_, String>) {
///         ctx.schedule(PunctuationKind::WallClock, Duration::from_secs(60));
///     }
///
///     fn process(&mut self, _click: &Record<String>, ctx: &mut Context<'_, String>) -> Result<(), ProcessError> {
///         let mut counts = ctx.key_value(&self.counts);
///         let count = counts.get("clicks")?.unwrap_or(0);
///         counts.put("clicks", &(count + 1))?;
///         Ok(())
///     }
///
///     fn punctuate(&mut self, _: Punctuation, ctx: &mut Context<'_, String>) -> Result<(), ProcessError> {
///         let count = ctx.key_value(&self.counts).get("clicks")?.unwrap_or(0);
///         let (key, time) = (None, ctx.stream_time());
///         ctx.forward(&Record { key, value: format!("{count} clicks"), time })
///     }
/// }
///
/// let mut builder = TopologyBuilder::new("report", Topic::new("dead-letters"));
/// let clicks = builder.source("clicks", Topic::new("clicks"), Arc::new(Utf8));
/// let counts = builder.key_value_store("counts", Arc::new(Stored::<u32>::version(1)));
/// let report = builder.process("report", &[clicks], &[counts.id()], move || Report { counts: counts.clone() });
/// builder.sink("reports", &[report], Topic::new("reports"), Arc::new(Utf8));
///
/// let mut driver = TopologyDriver::new(builder.build(), WallTime(0), &StreamsMetrics::unregistered());
/// driver.advance(Duration::ZERO)?; // The first interval begins.
/// driver.pipe(&Topic::new("clicks"), None, Some(b"buy"), EventTime(0))?;
/// driver.advance(Duration::from_secs(60))?;
/// driver.commit();
/// assert_eq!(driver.read(&Topic::new("reports"))[0].value.as_deref(), Some(&b"1 clicks"[..]));
/// # Ok::<(), foretell_streams::state::StateError>(())
/// ```
pub struct Context<'t, Out> {
    scope: &'t mut Scope,
    node: usize,
    out: PhantomData<fn(Out)>,
}

impl<Out> fmt::Debug for Context<'_, Out> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("partition", &self.scope.partition)
            .field("stream_time", &self.scope.stream_time)
            .field("now", &self.scope.now)
            .finish_non_exhaustive()
    }
}

impl<'t, Out: 'static> Context<'t, Out> {
    pub(crate) fn new(scope: &'t mut Scope, node: usize) -> Self {
        Self { scope, node, out: PhantomData }
    }

    /// Forwards `record` along every outgoing edge, and returns when the nodes downstream have processed it.
    ///
    /// # Errors
    /// The error of a node downstream. Return it with `?`: it rolls back the whole record.
    pub fn forward(&mut self, record: &Record<Out>) -> Result<(), ProcessError> {
        let record: &dyn Any = record;
        for index in 0..self.scope.children[self.node].len() {
            let child = self.scope.children[self.node][index];
            self.scope.with_node(child, |node, scope| node.process(record, scope, child))?;
        }
        Ok(())
    }

    /// Opens a key-value store of this task.
    #[must_use]
    pub fn key_value<'s, V>(&'s mut self, handle: &'s KeyValueHandle<V>) -> KeyValueStore<'s, V> {
        let KeyValueHandle { id, changelog, values } = handle;
        KeyValueStore { store: &mut self.scope.stores[id.0], changelog, values: &**values }
    }

    /// Opens a window store of this task.
    #[must_use]
    pub fn window<'s, V>(&'s mut self, handle: &'s WindowHandle<V>) -> WindowStore<'s, V> {
        let WindowHandle { id, changelog, values } = handle;
        WindowStore { store: &mut self.scope.stores[id.0], changelog, values: &**values }
    }

    /// Schedules a punctuation every `interval`. The first interval of stream time starts with the first record, that of the
    /// wall clock with the start of the task. Call it in [`Processor::start`](crate::topology::Processor::start).
    ///
    /// If time passes several intervals at once, there is one call. A call that fails is rolled back, counted, and retried
    /// when the next is due.
    pub fn schedule(&mut self, kind: PunctuationKind, interval: Duration) {
        self.scope.schedules.push(Schedule { node: self.node, kind, interval, next: None });
    }

    /// Returns the number of the task: the partition of its inputs.
    #[must_use]
    pub fn partition(&self) -> Partition {
        self.scope.partition
    }

    /// Returns the stream time: the highest event time so far, but at most
    /// [`TopologyBuilder::clock_tolerance`](crate::topology::TopologyBuilder::clock_tolerance) ahead of the clock. Without
    /// records it stalls, until all inputs have been quiet for a while
    /// ([`WorkerSettings::quiet_after`](crate::runtime::WorkerSettings::quiet_after)); then it advances with the clock.
    #[must_use]
    pub fn stream_time(&self) -> EventTime {
        self.scope.stream_time
    }

    /// Returns the time of day at which the processing of this record started, or of one of the few records before it: a
    /// worker does not read the clock for each record.
    #[must_use]
    pub fn now(&self) -> WallTime {
        self.scope.now
    }

    /// Returns the record as read from its topic, with headers and offset; `None` in a punctuation.
    #[must_use]
    pub fn input(&self) -> Option<&InputRecord> {
        self.scope.input.as_ref()
    }

    /// Adds `by` to a counter when this record is committed, so that an aborted record is not counted twice.
    pub fn count(&mut self, counter: &Counter, by: u64) {
        if by > 0 {
            self.scope.counts.push((counter.clone(), by));
        }
    }

    /// Sends an earlier record, whose [`Original`] was stored, to the dead-letter topic. (For the present record, return
    /// [`ProcessError::Reject`].) `class` is the error class, one word, for counters and headers.
    pub fn dead_letter(&mut self, original: Original, class: &'static str, message: String) {
        self.scope.dead_letters.push(DeadLetter { original, class, schema_id: None, message });
    }
}

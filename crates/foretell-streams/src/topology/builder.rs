//! The builder of topologies. Edges are typed, so nodes with different types cannot be connected.

use std::{
    collections::BTreeSet,
    fmt,
    marker::PhantomData,
    sync::{Arc, Once},
    time::Duration,
};

use crate::{
    codec::Codec,
    record::{InputRecord, Partition, Topic},
    state::{Access, KeyValueHandle, Store, StoreId, WindowHandle},
    time::{EventTime, WallTime},
    topology::{
        Node, Outbox, ProcessError, Processor, Scope,
        node::{ProcessorNode, SinkNode, SourceNode, TimestampExtractor},
    },
};

/// The output of a source or a processor, to be passed as an input to the next node.
///
/// It is a copyable token: several nodes may take the same edge, and a node several edges of one type.
pub struct Edge<T> {
    pub(crate) from: usize,
    value: PhantomData<fn() -> T>,
}

impl<T> fmt::Debug for Edge<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Edge").field("from", &self.from).finish()
    }
}

impl<T> Clone for Edge<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Edge<T> {}

type MakeNode = Box<dyn Fn() -> Box<dyn Node> + Send + Sync>;

pub(crate) struct NodeSpec {
    pub(crate) name: String,
    pub(crate) kind: NodeKind,
    pub(crate) stores: Vec<StoreId>,
    pub(crate) make: MakeNode,
}

pub(crate) enum NodeKind {
    Source(Topic),
    Processor,
    Sink(Topic),
}

/// A topic and the source node that reads it.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) topic: Topic,
    pub(crate) node: usize,
    /// Limits the warning to one per process: if one record has a wrong event time, many have.
    has_warned: Once,
}

impl Source {
    /// Logs a warning about the first record with an event time before 2000.
    pub(crate) fn warn_of_old_event_time(
        &self,
        record: &InputRecord,
        time: EventTime,
        now: WallTime,
    ) {
        self.has_warned.call_once(|| {
            let hint = match time.mistaken_unit(EventTime(now.0)) {
                Some(unit) => format!("it looks like {unit}; it has to be in milliseconds"),
                None => "is its unit milliseconds since 1970?".to_owned(),
            };
            tracing::warn!(
                topic = %self.topic, partition = %record.source.partition, offset = %record.offset,
                event_time = time.0, hint,
                "an event time before the year 2000: the record is unlikely to join anything; further ones on this topic \
                 are only counted, in foretell_stream_records_before_2000_total"
            );
        });
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StoreKind {
    KeyValue,
    Window,
}

impl StoreKind {
    pub(crate) fn access(self) -> Access {
        match self {
            Self::KeyValue => Access::ByKey,
            Self::Window => Access::Windowed,
        }
    }
}

/// A store and its changelog topic.
#[derive(Clone, Debug)]
pub(crate) struct StoreSpec {
    pub(crate) name: String,
    pub(crate) kind: StoreKind,
    pub(crate) changelog: Topic,
}

/// Builds a [`Topology`], node by node. Edges carry the type of their values, so nodes with different types cannot be
/// connected.
///
/// ```
/// use std::sync::Arc;
/// use foretell_streams::{codec::Utf8, record::Topic, topology::{
///     Context, ProcessError, Processor, Record, TopologyBuilder,
/// }};
///
/// struct Shout;
/// impl Processor for Shout {
///     type In = String;
///     type Out = String;
///     fn process(
///         &mut self,
///         record: &Record<String>,
///         ctx: &mut Context<'_, String>,
///     ) -> Result<(), ProcessError> {
///         let value = record.value.to_uppercase();
///         ctx.forward(&Record { value, ..record.clone() })
///     }
/// }
///
/// let mut topology = TopologyBuilder::new("shouting", Topic::new("dead-letters"));
/// let words = topology.source("words", Topic::new("words"), Arc::new(Utf8));
/// let loud = topology.process("shout", &[words], &[], || Shout);
/// topology.sink("loud", &[loud], Topic::new("loud"), Arc::new(Utf8));
/// let topology = topology.build();
/// assert!(topology.describe().contains("shout --> loud"));
/// ```
pub struct TopologyBuilder {
    application: String,
    dead_letters: Topic,
    nodes: Vec<NodeSpec>,
    children: Vec<Vec<usize>>,
    sources: Vec<Source>,
    stores: Vec<StoreSpec>,
    clock_tolerance: Duration,
}

impl fmt::Debug for TopologyBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TopologyBuilder")
            .field("application", &self.application)
            .field("sources", &self.sources)
            .field("stores", &self.stores)
            .finish_non_exhaustive()
    }
}

/// More than the clocks of synchronized machines differ.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(10);

impl TopologyBuilder {
    /// Starts an empty topology. The changelog of a store is named `<application>-<store>-changelog`; records that cannot be
    /// processed are sent to the topic `dead_letters`.
    #[must_use]
    pub fn new(application: &str, dead_letters: Topic) -> Self {
        Self {
            application: application.to_owned(),
            dead_letters,
            nodes: Vec::new(),
            children: Vec::new(),
            sources: Vec::new(),
            stores: Vec::new(),
            clock_tolerance: CLOCK_TOLERANCE,
        }
    }

    /// Sets how far stream time may be ahead of the time of day (10 s by default). A record with a later event time is
    /// processed and counted, but advances stream time no further than this.
    pub fn clock_tolerance(&mut self, tolerance: Duration) {
        self.clock_tolerance = tolerance;
    }

    /// Adds a source, which reads a topic and uses the timestamps of its records as event times.
    ///
    /// The first source is the lead: there is one task for each partition of its topic, and the topic of every other source
    /// must have as many partitions. A record without a value is dead-lettered.
    ///
    /// If a topic has `message.timestamp.type=LogAppendTime`, the timestamps are the times at which the broker appended the
    /// records (see [`Cleanup::timestamps`](crate::runtime::broker::Cleanup::timestamps)): then extract event times from the
    /// values, with [`Self::source_timed`].
    pub fn source<T: 'static>(
        &mut self,
        name: &str,
        topic: Topic,
        codec: Arc<dyn Codec<T>>,
    ) -> Edge<T> {
        self.source_timed(name, topic, codec, |_, record, _| Ok(record.timestamp))
    }

    /// Adds a source with a timestamp extractor: `time` computes a record's event time from its decoded value, the record
    /// as read, and the time of day, or rejects the record.
    ///
    /// The extractor is called when the record becomes the head of its queue, because the inputs of a task are merged by this
    /// time.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use foretell_streams::{
    ///     codec::Stored, local::TopologyDriver, metrics::StreamsMetrics, record::Topic,
    ///     time::{EventTime, WallTime}, topology::{ProcessError, TopologyBuilder},
    /// };
    /// # use foretell_streams::codec::Codec;
    ///
    /// /// Seconds since 1970, and a text.
    /// type Message = (i64, String);
    ///
    /// let mut builder = TopologyBuilder::new("chat", Topic::new("dead-letters"));
    /// builder.source_timed(
    ///     "messages",
    ///     Topic::new("messages"),
    ///     Arc::new(Stored::<Message>::version(1)),
    ///     |(seconds, _), _record, now| match EventTime(seconds * 1000) {
    ///         time if time.0 > now.0 => Err(ProcessError::reject("in_the_future", format!("{time}"))),
    ///         time => Ok(time),
    ///     },
    /// );
    ///
    /// # let mut bytes = Vec::new();
    /// # Stored::version(1).encode(&(1_704_067_200_i64, "hello".to_owned()), &mut bytes)?;
    /// let now = WallTime(1_704_070_000_000);
    /// let mut driver = TopologyDriver::new(builder.build(), now, &StreamsMetrics::unregistered());
    /// driver.pipe(&Topic::new("messages"), None, Some(&bytes), EventTime(0))?;
    /// assert_eq!(driver.task().stream_time(), EventTime(1_704_067_200_000));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn source_timed<T: 'static>(
        &mut self,
        name: &str,
        topic: Topic,
        codec: Arc<dyn Codec<T>>,
        time: impl Fn(&T, &InputRecord, WallTime) -> Result<EventTime, ProcessError>
        + Send
        + Sync
        + 'static,
    ) -> Edge<T> {
        let time: Arc<TimestampExtractor<T>> = Arc::new(time);
        let make = move || -> Box<dyn Node> {
            Box::new(SourceNode { codec: Arc::clone(&codec), time: Arc::clone(&time), head: None })
        };
        let node = self.add(name, NodeKind::Source(topic.clone()), &[], Box::new(make));
        self.sources.push(Source { topic, node, has_warned: Once::new() });
        Edge { from: node, value: PhantomData }
    }

    /// Adds a key-value store whose values are encoded by `values`. See [`KeyValueHandle`] for an example.
    pub fn key_value_store<V>(
        &mut self,
        name: &str,
        values: Arc<dyn Codec<V>>,
    ) -> KeyValueHandle<V> {
        let (id, changelog) = self.add_store(name, StoreKind::KeyValue);
        KeyValueHandle { id, changelog, values }
    }

    /// Adds a window store whose values are encoded by `values`. See [`WindowHandle`] for an example.
    pub fn window_store<V>(&mut self, name: &str, values: Arc<dyn Codec<V>>) -> WindowHandle<V> {
        let (id, changelog) = self.add_store(name, StoreKind::Window);
        WindowHandle { id, changelog, values }
    }

    /// Adds a processor of the records of `inputs`. Each task creates its own instance with `make`.
    ///
    /// `stores` are the stores that the processor uses. [`Topology::describe`] shows them; they are not checked.
    pub fn process<P: Processor>(
        &mut self,
        name: &str,
        inputs: &[Edge<P::In>],
        stores: &[StoreId],
        make: impl Fn() -> P + Send + Sync + 'static,
    ) -> Edge<P::Out> {
        let make = move || -> Box<dyn Node> { Box::new(ProcessorNode { processor: make() }) };
        let node = self.add(name, NodeKind::Processor, stores, Box::new(make));
        for input in inputs {
            self.children[input.from].push(node);
        }
        Edge { from: node, value: PhantomData }
    }

    /// Adds a sink, which writes the records of `inputs` to a topic. The key determines the partition
    /// ([`partition_of`](crate::record::partition_of)); the timestamp is the time of writing.
    pub fn sink<T: 'static>(
        &mut self,
        name: &str,
        inputs: &[Edge<T>],
        topic: Topic,
        codec: Arc<dyn Codec<T>>,
    ) {
        let kind = NodeKind::Sink(topic.clone());
        let make = move || -> Box<dyn Node> {
            Box::new(SinkNode {
                topic: topic.clone(),
                codec: Arc::clone(&codec),
                value: PhantomData,
            })
        };
        let node = self.add(name, kind, &[], Box::new(make));
        for input in inputs {
            self.children[input.from].push(node);
        }
    }

    /// Finishes the topology.
    ///
    /// # Panics
    /// If there is no source, if two sources read the same topic, or if two stores have the same name: they would share a
    /// changelog and overwrite each other.
    #[must_use]
    pub fn build(self) -> Topology {
        assert!(!self.sources.is_empty(), "a topology needs at least one source");
        let topics = self.sources.iter().map(|source| source.topic.as_str());
        if let Some(topic) = repeated(topics) {
            panic!("topic {topic} is read by two sources: add one and use its edge twice");
        }
        if let Some(name) = repeated(self.stores.iter().map(|store| store.name.as_str())) {
            panic!("two stores are named {name}: give each a name of its own");
        }
        Topology {
            dead_letters: self.dead_letters,
            nodes: self.nodes,
            children: Arc::new(self.children),
            sources: self.sources,
            stores: self.stores,
            clock_tolerance: self.clock_tolerance,
        }
    }

    fn add(&mut self, name: &str, kind: NodeKind, stores: &[StoreId], make: MakeNode) -> usize {
        self.nodes.push(NodeSpec { name: name.to_owned(), kind, stores: stores.to_vec(), make });
        self.children.push(Vec::new());
        self.nodes.len() - 1
    }

    fn add_store(&mut self, name: &str, kind: StoreKind) -> (StoreId, Topic) {
        let changelog = Topic::new(&format!("{}-{name}-changelog", self.application));
        let spec = StoreSpec { name: name.to_owned(), kind, changelog: changelog.clone() };
        self.stores.push(spec);
        (StoreId(self.stores.len() - 1), changelog)
    }
}

fn repeated<'n>(mut names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let mut seen = BTreeSet::new();
    names.find(|name| !seen.insert(*name))
}

/// A finished graph of sources, processors, sinks and stores, which every task instantiates.
pub struct Topology {
    pub(crate) dead_letters: Topic,
    pub(crate) nodes: Vec<NodeSpec>,
    pub(crate) children: Arc<Vec<Vec<usize>>>,
    pub(crate) sources: Vec<Source>,
    pub(crate) stores: Vec<StoreSpec>,
    pub(crate) clock_tolerance: Duration,
}

impl fmt::Debug for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Topology")
            .field("sources", &self.sources)
            .field("stores", &self.stores)
            .field("dead_letters", &self.dead_letters)
            .finish_non_exhaustive()
    }
}

impl Topology {
    /// Returns the topic of the first source. There is one task for each of its partitions.
    #[must_use]
    pub fn lead(&self) -> &Topic {
        &self.sources[0].topic
    }

    /// Returns the topics of the other sources: the inputs that are co-partitioned with the lead.
    #[must_use]
    pub fn co_partitioned(&self) -> Vec<Topic> {
        self.sources[1..].iter().map(|source| source.topic.clone()).collect()
    }

    /// Returns the changelog topics, one for each store, each with as many partitions as the lead.
    #[must_use]
    pub fn changelogs(&self) -> Vec<Topic> {
        self.stores.iter().map(|store| store.changelog.clone()).collect()
    }

    /// Returns every topic that is read or written: inputs, outputs, changelogs and the dead-letter topic.
    #[must_use]
    pub fn topics(&self) -> BTreeSet<Topic> {
        let of_nodes = self.nodes.iter().filter_map(|node| match &node.kind {
            NodeKind::Source(topic) | NodeKind::Sink(topic) => Some(topic.clone()),
            NodeKind::Processor => None,
        });
        of_nodes.chain(self.changelogs()).chain([self.dead_letters.clone()]).collect()
    }

    /// Whether `topic` must accept every record, because none of them can be dead-lettered: changelogs, and the dead-letter
    /// topic itself.
    pub(crate) fn must_accept(&self, topic: &Topic) -> bool {
        *topic == self.dead_letters || self.stores.iter().any(|store| store.changelog == *topic)
    }

    pub(crate) fn instantiate(
        &self,
        partition: Partition,
        stores: Vec<Store>,
        stream_time: EventTime,
    ) -> Scope {
        Scope {
            partition,
            nodes: self.nodes.iter().map(|spec| Some((spec.make)())).collect(),
            children: Arc::clone(&self.children),
            stores,
            outbox: Outbox::default(),
            dead_letters: Vec::new(),
            counts: Vec::new(),
            schedules: Vec::new(),
            input: None,
            stream_time,
            now: WallTime::default(),
            clock_tolerance: self.clock_tolerance,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Utf8;

    fn builder() -> TopologyBuilder {
        TopologyBuilder::new("test", Topic::new("dead-letters"))
    }

    #[test]
    #[should_panic(expected = "topic in is read by two sources")]
    fn two_sources_of_one_topic_are_rejected() {
        let mut builder = builder();
        builder.source("a", Topic::new("in"), Arc::new(Utf8));
        builder.source("b", Topic::new("in"), Arc::new(Utf8));
        drop(builder.build());
    }

    #[test]
    #[should_panic(expected = "two stores are named counts")]
    fn two_stores_with_one_name_are_rejected() {
        let mut builder = builder();
        builder.source("a", Topic::new("in"), Arc::new(Utf8));
        builder.key_value_store::<String>("counts", Arc::new(Utf8));
        builder.window_store::<String>("counts", Arc::new(Utf8));
        drop(builder.build());
    }

    #[test]
    #[should_panic(expected = "a topology needs at least one source")]
    fn a_topology_without_a_source_is_rejected() {
        drop(builder().build());
    }
}

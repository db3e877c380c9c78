//! Wires a topology. Edges are typed, so what does not fit does not compile.

use std::{
    collections::BTreeSet,
    marker::PhantomData,
    sync::{Arc, Once},
    time::Duration,
};

#[cfg(test)]
use crate::planted::Planted;
use crate::{
    codec::Codec,
    record::{InputRecord, Partition, Topic},
    state::{Access, KeyValueHandle, Store, StoreId, WindowHandle},
    time::{EventTime, WallTime},
    topology::{
        Node, Outbox, ProcessError, Processor, Scope,
        node::{ProcessorNode, SinkNode, SourceNode, TimeOf},
    },
};

/// Where a node's output can be picked up.
pub struct Edge<T> {
    pub(crate) from: usize,
    value: PhantomData<fn() -> T>,
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
    make: MakeNode,
}

pub(crate) enum NodeKind {
    Source(Topic),
    Processor,
    Sink(Topic),
}

/// A topic that feeds a node.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) topic: Topic,
    pub(crate) node: usize,
    /// Once a process: what is wrong with the clock of one record is wrong with many.
    has_warned: Once,
}

impl Source {
    /// Warns of a record from before 2000, the first time.
    pub(crate) fn warn_of_the_past(&self, record: &InputRecord, time: EventTime, now: WallTime) {
        self.has_warned.call_once(|| {
            let hint = match time.mistaken_unit(EventTime(now.0)) {
                Some(unit) => format!("it looks like {unit}, and has to be in milliseconds"),
                None => "is its unit milliseconds since 1970?".to_owned(),
            };
            tracing::warn!(
                topic = %self.topic, partition = %record.source.partition, offset = %record.offset,
                event_time = time.0, hint,
                "an event time before the year 2000: it can hardly join anything; more of them on this topic are \
                 only counted, in foretell_stream_records_before_2000_total"
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
            Self::Window => Access::ByRange,
        }
    }
}

/// A store and the topic that backs it.
#[derive(Clone, Debug)]
pub(crate) struct StoreSpec {
    pub(crate) name: String,
    pub(crate) kind: StoreKind,
    pub(crate) changelog: Topic,
}

/// Collects the parts of a topology.
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
    #[cfg(test)]
    planted: Option<Planted>,
}

/// Clocks of machines that keep them set differ by less.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(10);

impl TopologyBuilder {
    /// An empty topology. `application` prefixes its changelogs; `dead_letters` takes what can't be
    /// processed.
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
            #[cfg(test)]
            planted: None,
        }
    }

    /// Plants a bug for the simulation to find.
    #[cfg(test)]
    pub(crate) fn plant(&mut self, planted: Planted) {
        self.planted = Some(planted);
    }

    /// How far stream time may run ahead of the time of day (10 s by default). A record from further ahead is processed,
    /// counted, and moves stream time so far and no further.
    pub fn clock_tolerance(&mut self, tolerance: Duration) {
        self.clock_tolerance = tolerance;
    }

    /// Reads a topic. The first source is the lead: its partitions number the tasks, and every
    /// other source's topic has as many.
    pub fn source<T: 'static>(
        &mut self,
        name: &str,
        topic: Topic,
        codec: Arc<dyn Codec<T>>,
    ) -> Edge<T> {
        self.source_timed(name, topic, codec, |_, record, _| Ok(record.timestamp))
    }

    /// Reads a topic whose records tell their event time themselves: `time` is what Kafka Streams
    /// calls a `TimestampExtractor`. It gets the value, the record, and the time of day, and may
    /// reject the record. It is asked when the record becomes the head of its queue: by this time inputs are merged.
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
        let time: Arc<TimeOf<T>> = Arc::new(time);
        let make = move || -> Box<dyn Node> {
            Box::new(SourceNode { codec: Arc::clone(&codec), time: Arc::clone(&time), head: None })
        };
        let node = self.add(name, NodeKind::Source(topic.clone()), &[], Box::new(make));
        self.sources.push(Source { topic, node, has_warned: Once::new() });
        Edge { from: node, value: PhantomData }
    }

    /// Adds a key-value store.
    pub fn key_value_store<V>(
        &mut self,
        name: &str,
        values: Arc<dyn Codec<V>>,
    ) -> KeyValueHandle<V> {
        let (id, changelog) = self.add_store(name, StoreKind::KeyValue);
        KeyValueHandle { id, changelog, values }
    }

    /// Adds a window store.
    pub fn window_store<V>(&mut self, name: &str, values: Arc<dyn Codec<V>>) -> WindowHandle<V> {
        let (id, changelog) = self.add_store(name, StoreKind::Window);
        WindowHandle { id, changelog, values }
    }

    /// Adds a processor fed by `inputs`. `stores` are those it opens, for the drawing.
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

    /// Writes what comes along `inputs` to a topic, with its key.
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

    /// The finished topology.
    ///
    /// # Panics
    /// Without a source.
    #[must_use]
    pub fn build(self) -> Topology {
        assert!(!self.sources.is_empty(), "a topology has a source");
        Topology {
            dead_letters: self.dead_letters,
            nodes: self.nodes,
            children: Arc::new(self.children),
            sources: self.sources,
            stores: self.stores,
            clock_tolerance: self.clock_tolerance,
            #[cfg(test)]
            planted: self.planted,
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

/// A finished topology, from which every task makes its own nodes and stores.
pub struct Topology {
    pub(crate) dead_letters: Topic,
    pub(crate) nodes: Vec<NodeSpec>,
    pub(crate) children: Arc<Vec<Vec<usize>>>,
    pub(crate) sources: Vec<Source>,
    pub(crate) stores: Vec<StoreSpec>,
    pub(crate) clock_tolerance: Duration,
    #[cfg(test)]
    planted: Option<Planted>,
}

impl Topology {
    /// Whether a bug is planted.
    #[cfg(test)]
    pub(crate) fn has(&self, planted: Planted) -> bool {
        self.planted == Some(planted)
    }

    /// The topic whose partitions number the tasks.
    #[must_use]
    pub fn lead(&self) -> &Topic {
        &self.sources[0].topic
    }

    /// The other topics read, partition by partition beside the lead.
    #[must_use]
    pub fn companions(&self) -> Vec<Topic> {
        self.sources[1..].iter().map(|source| source.topic.clone()).collect()
    }

    /// The changelog topics, one a store, each with as many partitions as the lead.
    #[must_use]
    pub fn changelogs(&self) -> Vec<Topic> {
        self.stores.iter().map(|store| store.changelog.clone()).collect()
    }

    /// Every topic that is read or written.
    #[must_use]
    pub fn topics(&self) -> BTreeSet<Topic> {
        let of_nodes = self.nodes.iter().filter_map(|node| match &node.kind {
            NodeKind::Source(topic) | NodeKind::Sink(topic) => Some(topic.clone()),
            NodeKind::Processor => None,
        });
        of_nodes.chain(self.changelogs()).chain([self.dead_letters.clone()]).collect()
    }

    /// Whether a record for `topic` can't be set aside: changelogs, and the dead letters themselves.
    pub(crate) fn must_take(&self, topic: &Topic) -> bool {
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

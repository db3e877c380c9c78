//! The memory and time that it costs to recognise a repeated event, with as many events as the stores of the other
//! benchmarks have entries.

use std::{collections::BTreeMap, convert::Infallible, sync::Arc, time::Duration};

use foretell::{
    events::questionnaire::Fingerprint,
    processors::recent_events::{RecentEntry, RecentEvents},
};
use foretell_streams::{
    codec::Utf8,
    metrics::StreamsMetrics,
    record::{InputRecord, Offset, Partition, Topic, TopicPartition},
    state::MemoryStores,
    task::Task,
    time::{EventTime, WallTime},
    topology::{Context, ProcessError, Processor, Record, TopologyBuilder},
};
use prometheus::Registry;

use crate::usage::{self, Start};

/// All events of a run are within the retention.
const RETENTION: Duration = Duration::from_secs(3_600);
const EVENTS_A_COMMIT: u64 = 10_000;

struct Distinct(RecentEvents);

impl Processor for Distinct {
    type In = String;
    type Out = String;

    fn process(
        &mut self,
        record: &Record<String>,
        ctx: &mut Context<'_, String>,
    ) -> Result<(), ProcessError> {
        let number: u64 = record.value.parse().expect("the benchmark sends numbers");
        // Evenly distributed, like a hash.
        let spread = u128::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        let bytes = spread.to_be_bytes();
        let fingerprint: &Fingerprint = bytes.first_chunk().expect("16 bytes");
        assert!(self.0.insert(fingerprint, ctx)?, "{number} is not a repeat");
        Ok(())
    }
}

/// The cost of one event.
pub(crate) struct Cost {
    /// Resident memory.
    pub(crate) bytes: f64,
    /// CPU time of the thread, including the task and its commits.
    pub(crate) thread_micros: f64,
}

pub(crate) fn measure(events: u64) -> anyhow::Result<Cost> {
    let topic = Topic::new("events");
    let mut topology = TopologyBuilder::new("bench", Topic::new("dead-letters"));
    let source = topology.source("events", topic.clone(), Arc::new(Utf8));
    let store = topology.key_value_store("recent", Arc::new(RecentEntry::codec()));
    let recent = RecentEvents::new(RETENTION, store);
    let stores = [recent.store_id()];
    topology.process("distinct", &[source], &stores, move || Distinct(recent.clone()));
    let metrics = StreamsMetrics::register(&Registry::new())?;
    let topology = Arc::new(topology.build());
    let mut task = Task::open(&topology, Partition(0), &metrics, &MemoryStores)?;
    task.start(WallTime(0));
    let source = TopicPartition { topic, partition: Partition(0) };
    let before = usage::resident_bytes()?;
    let start = Start::now()?;
    for number in 0..events {
        task.add(InputRecord {
            source: source.clone(),
            offset: Offset(i64::try_from(number)?),
            timestamp: EventTime(0),
            key: None,
            value: Some(number.to_string().into_bytes()),
            headers: Vec::new(),
        });
        task.process_next(WallTime(0))?;
        if number % EVENTS_A_COMMIT == EVENTS_A_COMMIT - 1 {
            match task.flush_changes(|_| Ok::<(), Infallible>(())) {
                Ok(()) => task.apply_commit(WallTime(0), &BTreeMap::new())?,
            }
        }
    }
    let speed = start.until_now(events)?;
    let bytes = usage::resident_bytes()?.saturating_sub(before) as f64 / events as f64;
    // Freeing the task would leave pages in the heap that change the next measurement.
    std::mem::forget(task);
    Ok(Cost { bytes, thread_micros: speed.thread_micros })
}

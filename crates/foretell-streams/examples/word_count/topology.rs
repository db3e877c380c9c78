//! The word count topology, for any broker.
//!
//! ```text
//!   lines ─▶ split ─▶ words (a topic, keyed by word) ─▶ count ─▶ counts
//!                                                          └── store: counts
//! ```
//! `words` is a repartition topic: all occurrences of a word go to the same partition, and so to the same task.

use std::{collections::BTreeMap, error::Error, sync::Arc};

use foretell_streams::{
    codec::{Stored, Utf8},
    record::{OutputRecord, Topic},
    runtime::broker::Broker,
    state::KeyValueHandle,
    time::EventTime,
    topology::{Context, ProcessError, Processor, Record, Topology, TopologyBuilder},
};

use super::on_a_broker::{Run, text};

/// Forwards each word of a line with the word as key.
struct Split;

impl Processor for Split {
    type In = String;
    type Out = String;

    fn process(
        &mut self,
        line: &Record<String>,
        ctx: &mut Context<'_, String>,
    ) -> Result<(), ProcessError> {
        for word in line.value.split_whitespace() {
            let word = word.to_lowercase();
            let key = Some(word.clone().into_bytes());
            ctx.forward(&Record { key, value: word, time: line.time })?;
        }
        Ok(())
    }
}

/// Forwards the new count of each word.
struct Count {
    counts: KeyValueHandle<u64>,
}

impl Processor for Count {
    type In = String;
    type Out = String;

    fn process(
        &mut self,
        word: &Record<String>,
        ctx: &mut Context<'_, String>,
    ) -> Result<(), ProcessError> {
        let mut counts = ctx.key_value(&self.counts);
        let count = counts.get(&word.value)?.unwrap_or(0) + 1;
        counts.put(&word.value, &count)?;
        ctx.forward(&Record { value: count.to_string(), ..word.clone() })
    }
}

fn topology() -> Topology {
    let words = Topic::new("word-count-words");
    let mut builder = TopologyBuilder::new("word-count", Topic::new("word-count-dead-letters"));
    let lines = builder.source("lines", Topic::new("word-count-lines"), Arc::new(Utf8));
    let split = builder.process("split", &[lines], &[], || Split);
    builder.sink("words out", &[split], words.clone(), Arc::new(Utf8));

    let words = builder.source("words in", words, Arc::new(Utf8));
    let counts = builder.key_value_store("counts", Arc::new(Stored::<u64>::version(1)));
    let count = builder
        .process("count", &[words], &[counts.id()], move || Count { counts: counts.clone() });
    builder.sink("counts", &[count], Topic::new("word-count-counts"), Arc::new(Utf8));
    builder.build()
}

/// Counts the words of `lines`. On Kafka, the counts continue from those of earlier runs.
pub(crate) fn count_words(
    broker: Arc<dyn Broker>,
    lines: &[&str],
) -> Result<BTreeMap<String, u64>, Box<dyn Error>> {
    let topic = Topic::new("word-count-lines");
    let record = |line: &&str| {
        OutputRecord::new(&topic, None, Some(line.as_bytes()), EventTime(1_704_067_200_000))
    };
    let run = Run {
        group: "word-count",
        topology: topology(),
        partitions: 2,
        input: lines.iter().map(record).collect(),
        outputs: vec![Topic::new("word-count-counts")],
        expected: lines.iter().map(|line| line.split_whitespace().count()).sum(),
    };
    // The last record of each word has its final count.
    let mut counts = BTreeMap::new();
    for record in run.on(broker)? {
        let count = text(record.value.as_deref()).parse()?;
        counts.insert(text(record.key.as_deref()), count);
    }
    Ok(counts)
}

//! One scoring task without a broker: what an event with its outcome costs by stage, and what it allocates.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    ALLOCATOR,
    process::example,
    workload::{self, Workload},
};
use foretell::{
    app::{cluster::Cluster, schemas},
    config::Config,
    events::{
        answered::Encoded, codecs::Codecs, labelled_example::LabelledExample,
        prediction::Prediction,
    },
    processors::{
        contract::ContractBoard,
        convert,
        metrics::ApplicationMetrics,
        model_table::{ModelTable, Serving},
        topology::{ScoringParts, scoring},
    },
};
use foretell_ml::Scratch;
use foretell_streams::{
    codec::Codec as _,
    metrics::StreamsMetrics,
    record::{InputRecord, Offset, OutputRecord, Partition, TopicPartition},
    state::MemoryStores,
    task::{Progress, Task},
    time::{Clock, ManualClock},
    topology::Topology,
};

/// Events of one commit: 100 ms at 20,000 events a second.
const COMMIT_EVENTS: usize = 2_000;
const COMMITS: usize = 60;
/// Stores and the allocator have their sizes by then: the first outcomes come after 3,000 events.
const WARM_UP_COMMITS: usize = 10;

/// Cost of one event with its outcome.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub(crate) struct Cost {
    pub(crate) micros: f64,
    pub(crate) allocations: f64,
    pub(crate) bytes: f64,
}

/// Stages in the order in which a worker runs them, then parts of the second that can be measured alone.
pub(crate) struct Stages {
    pub(crate) stages: Vec<(&'static str, Cost)>,
    pub(crate) parts: Vec<(&'static str, Cost)>,
}

/// Sums the costs of a stage over commits.
#[derive(Default)]
struct Meter {
    spent: Duration,
    allocations: u64,
    bytes: u64,
    events: usize,
}

impl Meter {
    fn measure<T>(&mut self, events: usize, work: impl FnOnce() -> T) -> T {
        let before = ALLOCATOR.allocated();
        let start = Instant::now();
        let result = work();
        self.spent += start.elapsed();
        let after = ALLOCATOR.allocated();
        self.allocations += after.allocations - before.allocations;
        self.bytes += after.bytes - before.bytes;
        self.events += events;
        result
    }

    fn cost(&self) -> Cost {
        let events = self.events as f64;
        Cost {
            micros: self.spent.as_secs_f64() * 1e6 / events,
            allocations: self.allocations as f64 / events,
            bytes: self.bytes as f64 / events,
        }
    }
}

/// Runs the scoring topology on the worked example.
pub(crate) fn measure() -> anyhow::Result<Stages> {
    let config = Config::load(example().as_ref(), &[])?;
    let clock: Arc<dyn Clock> = foretell::app::clock();
    let cluster = Cluster::embedded(&clock);
    let levels = schemas::SetLevels::WithNewVersions;
    schemas::register_with(&config, cluster.registry.as_ref(), levels, &mut |_| {})?;
    let codecs = cluster.codecs(&config)?;
    let metrics = ApplicationMetrics::register(&prometheus::Registry::new())?;
    let serving = Serving::default();
    let mut table = ModelTable::new(serving.clone(), metrics.clone());
    for record in workload::announcements(&workload::model(&config)?)? {
        table.apply(&record)?;
    }
    let topology = Arc::new(topology(&config, &codecs, &serving, metrics));
    let streams_metrics = StreamsMetrics::register(&prometheus::Registry::new())?;
    let mut task = Task::open(&topology, Partition(0), &streams_metrics, &MemoryStores)?;
    let clock = ManualClock::at(clock.now());
    task.start(clock.now());
    let workload = Workload::new(&config, &cluster)?;
    let (start, mut outputs) = (workload::start(), Vec::new());
    let mut meters: [Meter; 5] = Default::default();
    for commit in 0..COMMITS {
        let mut records = Vec::new();
        for number in commit * COMMIT_EVENTS..(commit + 1) * COMMIT_EVENTS {
            let pair = workload.backlog(number, start)?;
            records.extend(pair.into_iter().map(|record| input(record, number)));
        }
        if commit == WARM_UP_COMMITS {
            meters = Default::default();
        }
        let [queue, process, send, flush, keep] = &mut meters;
        queue.measure(COMMIT_EVENTS, || records.drain(..).for_each(|record| task.add(record)));
        process.measure(COMMIT_EVENTS, || -> anyhow::Result<()> {
            while task.process_next(clock.now())? == Progress::Processed {}
            Ok(())
        })?;
        let sent = send.measure(COMMIT_EVENTS, || {
            let outbox = task.take_outbox();
            outbox.iter().for_each(|record| {
                black_box(record);
            });
            outbox
        });
        if commit + 1 == COMMITS {
            outputs.extend(sent.iter().map(|record| record.to_owned()));
        }
        task.return_outbox(sent);
        flush.measure(COMMIT_EVENTS, || {
            let flushed: Result<(), Infallible> = task.flush_changes(|record| {
                black_box(record);
                Ok(())
            });
            let Ok(()) = flushed;
        });
        keep.measure(COMMIT_EVENTS, || task.apply_commit(clock.now(), &BTreeMap::new()))?;
    }
    let names = ["queue", "process", "hand out outputs", "flush changes", "commit to stores"];
    let costs = meters.iter().map(Meter::cost);
    Ok(Stages {
        stages: names.into_iter().zip(costs).collect(),
        parts: parts(&config, &codecs, &serving, &workload, &outputs)?,
    })
}

fn topology(
    config: &Config,
    codecs: &Codecs,
    serving: &Serving,
    metrics: ApplicationMetrics,
) -> Topology {
    scoring(ScoringParts {
        application: "benchmark".to_owned(),
        topics: config.topics.clone(),
        codecs: codecs.clone(),
        gather: config.gather.clone(),
        join: config.join.clone(),
        partitions: 1,
        times: config.time_bounds(),
        duplicates_within: config.events.duplicates_within,
        serving: serving.clone(),
        contract: config.contract.clone(),
        board: ContractBoard::new(config.contract.policy, metrics.clone()),
        metrics,
    })
}

fn input(record: OutputRecord, number: usize) -> InputRecord {
    InputRecord {
        source: TopicPartition { topic: record.topic, partition: Partition(0) },
        offset: Offset(i64::try_from(number).unwrap()),
        timestamp: record.timestamp,
        key: record.key,
        value: record.value,
        headers: record.headers,
    }
}

/// What can be measured alone, of the same records.
fn parts(
    config: &Config,
    codecs: &Codecs,
    serving: &Serving,
    workload: &Workload,
    outputs: &[OutputRecord],
) -> anyhow::Result<Vec<(&'static str, Cost)>> {
    let scorer = serving.scorer().expect("a model was announced");
    let start = workload::start();
    let (mut event_bytes, mut outcome_bytes, mut rows) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..COMMIT_EVENTS {
        let [event, outcome] = workload.backlog(number, start)?;
        event_bytes.extend(event.value);
        outcome_bytes.extend(outcome.value);
        let (event, _) = workload.pair(number, start);
        rows.push(event.answers);
    }
    let values = |topic| outputs.iter().filter(move |record| record.topic == topic);
    let decoded = |record: &OutputRecord| record.value.clone().unwrap_or_default();
    let mut predictions: Vec<Encoded<Prediction>> = Vec::new();
    for record in values(config.topics.predictions.clone()) {
        predictions.push(codecs.prediction.decode(&decoded(record))?);
    }
    let mut labelled: Vec<Encoded<LabelledExample>> = Vec::new();
    for record in values(config.topics.labelled_examples.clone()) {
        labelled.push(codecs.labelled_example.decode(&decoded(record))?);
    }
    let (mut scratch, mut bytes) = (Scratch::default(), Vec::new());
    let layout = &config.gather.layout;
    let columns = convert::columns_by_question(scorer.columns(), &config.gather.questions);
    Ok(vec![
        (
            "decode the event",
            repeat(event_bytes.len(), |index| {
                black_box(codecs.questionnaire.decode(&event_bytes[index])).unwrap();
            }),
        ),
        (
            "decode the outcome",
            repeat(outcome_bytes.len(), |index| {
                black_box(codecs.outcome.decode(&outcome_bytes[index])).unwrap();
            }),
        ),
        (
            "evaluate the model",
            repeat(rows.len(), |index| {
                let values = convert::values_by_column(&columns, layout, black_box(&rows[index]));
                black_box(scorer.score_columns(values, &mut scratch));
            }),
        ),
        (
            "encode the prediction",
            repeat(predictions.len(), |index| {
                bytes.clear();
                codecs.prediction.encode(black_box(&predictions[index]), &mut bytes).unwrap();
            }),
        ),
        (
            "encode the example",
            repeat(labelled.len(), |index| {
                bytes.clear();
                codecs.labelled_example.encode(black_box(&labelled[index]), &mut bytes).unwrap();
            }),
        ),
    ])
}

const REPEATS: usize = 10;

/// Cost of `work`, called with each index, of the second repeat and on.
fn repeat(count: usize, mut work: impl FnMut(usize)) -> Cost {
    let mut meter = Meter::default();
    (0..count).for_each(&mut work);
    for _ in 0..REPEATS {
        meter.measure(count, || (0..count).for_each(&mut work));
    }
    meter.cost()
}

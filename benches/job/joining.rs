//! What the outcome join and the rules of actions cost, in this process:
//!
//! ```text
//!   join     1,000,000 predictions wait: CPU a record of the join's topology, less that of the same sources alone; memory of an entry
//!   rules    the scoring task with ten rules that hold for nobody, less that without rules
//!   timers   1,000,000 pending actions: memory of one, CPU of one that is due
//! ```
//! Prints a table with bounds, and writes `target/bench/join.json`. A missed bound does not fail the run. `FORETELL_BENCH_ONLY`
//! limits it to one of these parts. `FORETELL_BENCH_PENDING` changes its size.

use std::{collections::BTreeMap, convert::Infallible, hint::black_box, sync::Arc};

use foretell::{
    events::{
        answered::{ClassProbability, Encoded},
        labelled_example::LabelledExample,
        outcome::Outcome,
        prediction::{Prediction, ScoreTrigger},
    },
    processors::{
        metrics::ApplicationMetrics,
        outcome_join::{Join, OutcomeStore, StorePrediction},
        placement::Placement,
    },
};
use foretell_ml::ModelBundle;
use foretell_streams::{
    codec::Codec as _,
    metrics::{Counter, StreamsMetrics},
    record::{InputRecord, Offset, OutputRecord, Partition, TopicPartition},
    state::{MemoryStores, StoreId},
    task::{Progress, Task},
    time::{EventTime, WallTime},
    topology::{Topology, TopologyBuilder},
};
use prometheus::{IntCounter, Registry};
use serde_json::json;

use crate::{
    Settings,
    growth::entries::{COMMIT_EVENTS, scatter, size_of},
    measure::{
        usage::{median, resident_bytes},
        verdicts::{Bound, Verdicts},
    },
    meter::Meter,
    task::{Meters, ScoringTask},
    variable,
    workload::{self, Workload},
};

/// CPU that the join adds to a record.
const JOIN_MICROS_MAX: f64 = 5.0;
/// Memory of a prediction that waits: of its encoded bytes, and besides.
const PENDING_BYTES_MAX: (f64, f64) = (1.5, 100.0);
/// CPU that a rule adds to a prediction.
const RULE_MICROS_MAX: f64 = 1.0;
const RULES: usize = 10;
/// Rounds of which the median counts, and events of each.
const ROUNDS: usize = 5;
const ROUND_EVENTS: usize = 20_000;

pub(crate) fn measure(settings: &Settings, model: &ModelBundle) -> anyhow::Result<()> {
    let pending: usize = variable("PENDING", 1_000_000)?;
    let mut report = Verdicts::default();
    // Memory first, while the heap is empty.
    if settings.includes("join") {
        join(model, pending, &mut report)?;
    }
    if settings.includes("timers") {
        timers(model, pending, &mut report)?;
    }
    if settings.includes("rules") {
        rules(model, &mut report)?;
    }
    report.print("");
    report.write("join")
}

/// A task of predictions and outcomes.
struct JoinTask {
    task: Task,
    offset: i64,
    now: WallTime,
    /// Bytes of the changelogs.
    flushed: usize,
}

impl JoinTask {
    fn open(topology: &Arc<Topology>, now: WallTime) -> anyhow::Result<Self> {
        let metrics = StreamsMetrics::register(&Registry::new())?;
        let mut task = Task::open(topology, Partition(0), &metrics, &MemoryStores)?;
        task.start(now);
        Ok(Self { task, offset: 0, now, flushed: 0 })
    }

    /// Processes and commits records.
    fn run(&mut self, records: Vec<OutputRecord>, meter: &mut Meter) -> anyhow::Result<()> {
        let count = records.len();
        let inputs: Vec<InputRecord> =
            records.into_iter().map(|record| self.input(record)).collect();
        meter.measure(count, || -> anyhow::Result<()> {
            inputs.into_iter().for_each(|record| self.task.add(record));
            while self.task.process_next(self.now)? == Progress::Processed {}
            let outbox = self.task.take_outbox();
            outbox.iter().for_each(|record| {
                black_box(record);
            });
            self.task.return_outbox(outbox);
            let flushed = &mut self.flushed;
            let all: Result<(), Infallible> = self.task.flush_changes(|record| {
                *flushed += size_of(black_box(record));
                Ok(())
            });
            let Ok(()) = all;
            self.task.apply_commit(self.now, &BTreeMap::new())?;
            Ok(())
        })
    }

    fn input(&mut self, record: OutputRecord) -> InputRecord {
        self.offset += 1;
        InputRecord {
            source: TopicPartition { topic: record.topic, partition: Partition(0) },
            offset: Offset(self.offset),
            timestamp: record.timestamp,
            key: record.key,
            value: record.value,
            headers: record.headers,
        }
    }
}

/// Sources of predictions and outcomes, and the join if `is_joined`.
fn topology(scoring: &ScoringTask, is_joined: bool) -> anyhow::Result<Arc<Topology>> {
    let ScoringTask { config, codecs, .. } = scoring;
    let topics = &config.topics;
    let mut topology = TopologyBuilder::new("join", topics.dead_letters.clone());
    let prediction = Arc::clone(&codecs.prediction);
    let predicted = topology.source_timed(
        "predictions",
        topics.predictions.clone(),
        prediction,
        |prediction: &Encoded<Prediction>, _, _| Ok(prediction.get().event_time),
    );
    let outcomes = topology.source_timed(
        "outcomes",
        topics.outcomes.clone(),
        Arc::clone(&codecs.outcome),
        |outcome: &Outcome, _, _| Ok(outcome.outcome_time),
    );
    if is_joined {
        let metrics = ApplicationMetrics::register(&Registry::new())?;
        let join = config.join.clone();
        let store = OutcomeStore::add_to(&mut topology, join, &codecs.prediction, &metrics);
        let counter = Counter::new(IntCounter::new("misplaced", "of a benchmark")?);
        let placement = Placement::new(topics.outcomes.clone(), 1, counter);
        let (of_predictions, stores) = (store.clone(), store.ids().collect::<Vec<StoreId>>());
        let stored = topology.process("store-prediction", &[predicted], &stores, move || {
            StorePrediction::new(of_predictions.clone())
        });
        let joined = topology.process("join", &[outcomes], &stores, move || {
            Join::new(store.clone(), placement.clone())
        });
        let labelled: [_; 2] = [stored, joined];
        let codec = Arc::clone(&codecs.labelled_example);
        topology.sink::<Encoded<LabelledExample>>(
            "labelled-examples",
            &labelled,
            topics.labelled_examples.clone(),
            codec,
        );
    }
    Ok(Arc::new(topology.build()))
}

/// Makes predictions, and outcomes of those of earlier.
struct Pairs<'t> {
    scoring: &'t ScoringTask,
    workload: Workload,
    start: i64,
    pending: usize,
}

impl Pairs<'_> {
    fn at(&self, number: usize) -> EventTime {
        EventTime(self.start + i64::try_from(number).expect("a run of hours"))
    }

    fn prediction(&self, number: usize) -> anyhow::Result<OutputRecord> {
        let (event, _) = self.workload.pair(number, self.at(number));
        let config = &self.scoring.config;
        let class = |label| ClassProbability { label, probability: 0.5 };
        let prediction = Prediction {
            prediction_id: format!("{number:032x}"),
            respondent_id: event.respondent_id.clone(),
            event_id: event.event_id,
            event_time: event.event_time,
            received_at: self.scoring.now(),
            predicted_at: self.scoring.now(),
            model_version: "0123456789ab".to_owned(),
            label: config.classes[0].clone(),
            probabilities: config.classes.iter().map(|label| class(label)).collect(),
            challenger: None,
            trigger: ScoreTrigger::Complete,
            answers: event.answers,
        };
        let mut value = Vec::new();
        self.scoring.codecs.prediction.encode(&prediction, &mut value)?;
        let key = event.respondent_id.as_bytes();
        let topic = &config.topics.predictions;
        Ok(OutputRecord::new(topic, Some(key), Some(&value), event.event_time))
    }

    /// A prediction, and the outcome of one of those that wait, in another order than theirs.
    fn step(&self, number: usize) -> anyhow::Result<[OutputRecord; 2]> {
        let oldest = number - self.pending;
        let block = (self.pending / 10).max(1);
        let settled = oldest / block * block + scatter(oldest % block, block);
        let (_, outcome) = self.workload.pair(settled, self.at(number));
        Ok([self.prediction(number)?, self.workload.encode_outcome(&outcome)?])
    }
}

fn join(model: &ModelBundle, pending: usize, report: &mut Verdicts) -> anyhow::Result<()> {
    let scoring = ScoringTask::open(model, &["outcomes.grace=0s".to_owned()])?;
    let rounds = ROUNDS * ROUND_EVENTS;
    let start = scoring.now().0 - i64::try_from(2 * pending + 2 * rounds)?;
    let workload = Workload::new(&scoring.config, &scoring.cluster)?;
    let pairs = Pairs { scoring: &scoring, workload, start, pending };
    let mut tasks = Vec::new();
    let (mut bytes, mut encoded) = (0.0, 0.0);
    for is_joined in [true, false] {
        let before = resident_bytes()?;
        let mut task = JoinTask::open(&topology(&scoring, is_joined)?, scoring.now())?;
        for first in (0..pending).step_by(COMMIT_EVENTS) {
            let numbers = first..pending.min(first + COMMIT_EVENTS);
            let records: anyhow::Result<_> = numbers.map(|one| pairs.prediction(one)).collect();
            task.run(records?, &mut Meter::default())?;
        }
        if is_joined {
            bytes = resident_bytes()?.saturating_sub(before) as f64 / pending as f64;
            encoded = task.flushed as f64 / pending as f64;
        }
        tasks.push((task, Vec::new()));
    }
    for round in 0..ROUNDS {
        for (task, micros) in &mut tasks {
            let mut meter = Meter::default();
            let from = pending + round * ROUND_EVENTS;
            for first in (from..from + ROUND_EVENTS).step_by(COMMIT_EVENTS) {
                let mut records = Vec::new();
                for number in first..first + COMMIT_EVENTS {
                    records.extend(pairs.step(number)?);
                }
                task.run(records, &mut meter)?;
            }
            micros.push(meter.cost().micros);
        }
    }
    let [(_, with), (_, without)] = &tasks[..] else { unreachable!("there are two") };
    let added = median(with.iter().zip(without).map(|(with, without)| with - without).collect());
    report.ratio(
        &format!("µs CPU a record of the join, {pending} wait"),
        added,
        Some(Bound::AtMost(JOIN_MICROS_MAX)),
    );
    let both = (median(with.clone()), median(without.clone()));
    report.besides(format!("{:.2} with it, {:.2} of the sources alone", both.0, both.1));
    let bound = PENDING_BYTES_MAX.0 * encoded + PENDING_BYTES_MAX.1;
    let measured = format!("{bytes:.0} bytes");
    report.row(
        "memory of a waiting prediction",
        &format!("<= {bound:.0}"),
        measured,
        Some(bytes <= bound),
    );
    report.besides(format!("{encoded:.0} bytes encoded, with key"));
    report.figure(
        "join",
        json!({ "with": with, "without": without, "bytes": bytes, "encoded": encoded }),
    );
    Ok(())
}

/// Rules that differ in their names only.
fn rule_settings(count: usize, more: &str) -> String {
    let rules = (0..count).map(|number| format!("{{ name = \"rule{number}\", {more} }}"));
    format!("actions=[{}]", rules.collect::<Vec<_>>().join(", "))
}

/// Events with numbers from `from`, one a millisecond.
fn events(
    task: &mut ScoringTask,
    workload: &Workload,
    (from, count): (usize, usize),
    start: EventTime,
    meters: &mut Meters,
) -> anyhow::Result<usize> {
    let mut records = Vec::with_capacity(count);
    for number in from..from + count {
        let at = EventTime(start.0 + i64::try_from(number)?);
        records.push(workload.encode_event(&workload.pair(number, at).0)?);
    }
    let outbox = task.process(count, records, meters)?;
    let outputs = outbox.iter().count();
    task.commit(count, outbox, meters, |_| {})?;
    Ok(outputs)
}

fn total(meters: &Meters) -> f64 {
    meters.iter().map(|meter| meter.cost().micros).sum()
}

fn rules(model: &ModelBundle, report: &mut Verdicts) -> anyhow::Result<()> {
    let condition = "when = \"probability['>50K'] >= 0.5 && answers.age >= 200\"";
    let settings = [rule_settings(RULES, condition), rule_settings(0, "")];
    let mut tasks = Vec::new();
    for settings in settings {
        let task = ScoringTask::open(model, &[settings])?;
        let workload = Workload::new(&task.config, &task.cluster)?;
        tasks.push((task, workload, Vec::new()));
    }
    let start = workload::start();
    // The first round warms up.
    for round in 0..=ROUNDS {
        for (task, workload, micros) in &mut tasks {
            let mut meters = Meters::default();
            let from = round * ROUND_EVENTS;
            for first in (from..from + ROUND_EVENTS).step_by(COMMIT_EVENTS) {
                events(task, workload, (first, COMMIT_EVENTS), start, &mut meters)?;
            }
            if round > 0 {
                micros.push(total(&meters));
            }
        }
    }
    let [(.., with), (.., without)] = &tasks[..] else { unreachable!("there are two") };
    let added = with.iter().zip(without).map(|(with, without)| (with - without) / RULES as f64);
    let bound = Some(Bound::AtMost(RULE_MICROS_MAX));
    report.ratio("µs CPU a prediction of a rule", median(added.collect()), bound);
    let both = (median(with.clone()), median(without.clone()));
    report.besides(format!("{:.2} with {RULES} rules, {:.2} without", both.0, both.1));
    report.figure("rules", json!({ "with": with, "without": without }));
    Ok(())
}

fn timers(model: &ModelBundle, pending: usize, report: &mut Verdicts) -> anyhow::Result<()> {
    let after = "when = \"true\", after = \"10h\", reasons = 0";
    let mut bytes = Vec::new();
    let mut last = None;
    for settings in [rule_settings(0, ""), rule_settings(1, after)] {
        let before = resident_bytes()?;
        let mut task = ScoringTask::open(model, &[settings])?;
        let workload = Workload::new(&task.config, &task.cluster)?;
        let start = EventTime(task.now().0 - 72 * 3_600_000);
        for first in (0..pending).step_by(COMMIT_EVENTS) {
            let count = COMMIT_EVENTS.min(pending - first);
            events(&mut task, &workload, (first, count), start, &mut Meters::default())?;
        }
        bytes.push(resident_bytes()?.saturating_sub(before) as f64 / pending as f64);
        if let Some((task, ..)) = last.replace((task, workload, start)) {
            // Freeing it would leave pages in the heap that change the next measurement.
            std::mem::forget::<ScoringTask>(task);
        }
    }
    let (mut task, workload, start) = last.expect("two were filled");
    let of_timers = task.store_entries().get("actions-by-stream-time").copied();
    anyhow::ensure!(of_timers == Some(pending), "{of_timers:?} of {pending} actions are pending");
    // Each event makes stream time advance by a millisecond, and up to 10,000 actions fire.
    let day = EventTime(start.0 + 24 * 3_600_000);
    let (mut meters, mut fired, mut number) = (Meters::default(), 0, pending);
    while fired < pending {
        let outputs = events(&mut task, &workload, (number, 1), day, &mut meters)?;
        anyhow::ensure!(outputs > 1, "no action fires, after {fired}");
        // The prediction itself.
        fired += outputs - 1;
        number += 1;
    }
    let spent: f64 = total(&meters) * (number - pending) as f64;
    let measured = format!("{:.0} bytes", bytes[1] - bytes[0]);
    report.row(&format!("memory of a pending action, {pending}"), "-", measured, None);
    report.ratio("µs CPU of an action that is due", spent / fired as f64, None);
    report.besides(format!("up to {:.0} ms at once", spent / (number - pending) as f64 / 1e3));
    report.figure("timers", json!({ "bytes": bytes, "fired": fired, "micros": spent }));
    Ok(())
}

//! One scoring task without a broker: what an event with its outcome costs by stage, and what it allocates.

use std::hint::black_box;

use foretell::{
    events::{answered::Encoded, labelled_example::LabelledExample, prediction::Prediction},
    processors::convert,
};
use foretell_ml::{ModelBundle, Scratch};
use foretell_streams::{codec::Codec as _, record::OutputRecord};

use crate::{
    meter::{Cost, Meter},
    task::{Meters, STAGES, ScoringTask},
    workload::{self, Workload},
};

/// Events of one commit: 100 ms at 20,000 events a second.
const COMMIT_EVENTS: usize = 2_000;
const COMMITS: usize = 60;
/// Stores and the allocator have their sizes by then: the first outcomes come after 3,000 events.
const WARM_UP_COMMITS: usize = 10;

/// Stages in the order in which a worker runs them, then parts of the second that can be measured alone.
pub(crate) struct Stages {
    pub(crate) stages: Vec<(&'static str, Cost)>,
    pub(crate) parts: Vec<(&'static str, Cost)>,
    /// All stages together, while a challenger of the model's size is scored too.
    pub(crate) with_challenger: Cost,
}

/// Runs the scoring topology on the worked example.
pub(crate) fn measure(model: &ModelBundle) -> anyhow::Result<Stages> {
    let mut task = ScoringTask::open(model, &[])?;
    let workload = Workload::new(&task.config, &task.cluster)?;
    let (meters, outputs) = run(&mut task, &workload)?;
    let stages = STAGES.into_iter().zip(meters.iter().map(Meter::cost)).collect();
    let parts = parts(&task, &workload, &outputs)?;
    let mut challenged = ScoringTask::open(model, &[])?;
    challenged.challenge(model)?;
    let (meters, _) = run(&mut challenged, &workload)?;
    let mut with_challenger = Cost::default();
    meters.iter().for_each(|meter| with_challenger += meter.cost());
    Ok(Stages { stages, parts, with_challenger })
}

/// Processes all events and outcomes, and returns the outputs of the last commit.
fn run(task: &mut ScoringTask, workload: &Workload) -> anyhow::Result<(Meters, Vec<OutputRecord>)> {
    let (start, mut outputs) = (workload::start(), Vec::new());
    let mut meters = Meters::default();
    for commit in 0..COMMITS {
        let mut records = Vec::new();
        for number in commit * COMMIT_EVENTS..(commit + 1) * COMMIT_EVENTS {
            records.extend(workload.backlog(number, start)?);
        }
        if commit == WARM_UP_COMMITS {
            meters = Meters::default();
        }
        let outbox = task.process(COMMIT_EVENTS, records, &mut meters)?;
        if commit + 1 == COMMITS {
            outputs.extend(outbox.iter().map(|record| record.to_owned()));
        }
        task.commit(COMMIT_EVENTS, outbox, &mut meters, |_| {})?;
    }
    Ok((meters, outputs))
}

/// What can be measured alone, of the same records.
fn parts(
    task: &ScoringTask,
    workload: &Workload,
    outputs: &[OutputRecord],
) -> anyhow::Result<Vec<(&'static str, Cost)>> {
    let ScoringTask { config, codecs, serving, .. } = task;
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

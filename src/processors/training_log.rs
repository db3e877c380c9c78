//! The training set: the `labelled-examples` topic, read on from where the last training left off.

use std::{collections::BTreeMap, ops::ControlFlow, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    events::{
        labelled_example::{ExampleOrigin, LabelledExample},
        topics::TOPICS,
    },
    processors::{
        convert,
        initial_data::InitialData,
        metrics::ApplicationMetrics,
        model_table::Serving,
        trainer::{Progress, TrainingFailure, TrainingJob, TrainingRequest, TrainingResult},
    },
};
use foretell_ml::{Example, Origin, PipelineSpec, Recipe, Seed, training::train};
use foretell_streams::{
    codec::{Codec, CodecError},
    record::{InputRecord, Offset, TopicPartition},
    runtime::broker::{Broker, BrokerError, Isolation, ReadFrom, Reader},
};

/// What becomes of the initial data as examples come from the stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InitialPolicy {
    /// Every training uses them.
    #[default]
    Keep,
    /// They count as the oldest examples: with `stream_examples_max`, newer ones replace them.
    Age,
}

/// What a training learns from, and how.
pub struct TrainingLog {
    /// The cluster.
    pub broker: Arc<dyn Broker>,
    /// The one partition of `labelled-examples`.
    pub source: TopicPartition,
    /// How its values are read.
    pub codec: Arc<dyn Codec<LabelledExample>>,
    /// How features are made.
    pub spec: PipelineSpec,
    /// The labels, in the order of the model's classes.
    pub classes: Vec<String>,
    /// The newest examples that are learned from, besides the initial data if those are kept; none: all.
    pub stream_examples_max: Option<usize>,
    /// Whether the initial data are always learned from.
    pub initial: InitialPolicy,
    /// Where it counts.
    pub metrics: ApplicationMetrics,
    /// The model that serves lends its parameters.
    pub serving: Serving,
    /// The random seed of the training.
    pub seed: Seed,
    /// The decision threshold of the models: with two classes, the probability from which the second is the label.
    pub threshold: f64,
    /// What was read so far.
    pub read: ReadLog,
}

/// What was read of the log, in order.
#[derive(Default)]
pub struct ReadLog {
    reader: Option<Box<dyn Reader>>,
    /// Read, but beyond what was asked for.
    ahead: Vec<InputRecord>,
    /// None for one whose label is none of ours.
    initial: InitialData<Option<Example>>,
    stream: Vec<Example>,
    /// Where each stream example is, for its correction.
    places: BTreeMap<String, usize>,
    skipped: u64,
    /// Everything before this offset is taken in.
    through: i64,
}

/// The topic `models` takes 16 MiB; a megabyte is for what is around the bundle.
const RECORD_BYTES_MAX: usize = 15 << 20;
/// One wait for records that are known to be there.
const READ_WAIT: Duration = Duration::from_millis(500);
/// Waits in a row without a record before a training is given up: one minute.
const EMPTY_READS_MAX: u32 = 120;

impl TrainingJob for TrainingLog {
    fn train(&mut self, request: &TrainingRequest, progress: Progress<'_>) -> TrainingResult {
        if request.through < self.read.through {
            // An older request again, after an abort: it must not learn from what came later.
            self.read = ReadLog::default();
        }
        if request.through > self.read.through {
            // Put back when it is whole: what a failure or a panic leaves behind is read again.
            let mut read = std::mem::take(&mut self.read);
            self.read_through(&mut read, Offset(request.through), progress)?;
            read.through = request.through;
            self.read = read;
        }
        let (examples, initial_examples) = self.chosen()?;
        let stream_examples = examples.len() - initial_examples;
        let serving = self.serving.scorer();
        let params = serving.as_ref().map(|scorer| scorer.lineage().params.clone());
        let recipe = Recipe {
            spec: self.spec.clone(),
            classes: self.classes.clone(),
            threshold: self.threshold,
            params: params.unwrap_or_default(),
            seed: self.seed,
            origin: Origin {
                training: request.training,
                initial_examples: count(initial_examples),
                stream_examples: count(stream_examples),
                examples_through: request.through,
                parent: request.parent.clone(),
            },
        };
        let mut report = |iteration, of| {
            if progress(iteration, of) { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        let bundle = train(&examples, &recipe, &mut report)
            .map_err(|error| TrainingFailure::Failed(error.to_string()))?;
        let bytes =
            bundle.to_bytes().map_err(|error| TrainingFailure::Failed(error.to_string()))?;
        if bytes.len() > RECORD_BYTES_MAX {
            let reason = format!("a bundle of {} bytes does not go into a record", bytes.len());
            return Err(TrainingFailure::Failed(reason));
        }
        Ok(bundle)
    }
}

fn count(examples: usize) -> u64 {
    u64::try_from(examples).unwrap_or(u64::MAX)
}

impl TrainingLog {
    /// The examples to learn from, in order, and how many of them are initial ones.
    fn chosen(&self) -> Result<(Vec<Example>, usize), TrainingFailure> {
        let ReadLog { initial, stream, .. } = &self.read;
        let newest = self.stream_examples_max.unwrap_or(usize::MAX).min(stream.len());
        let room = match self.initial {
            InitialPolicy::Keep => usize::MAX,
            InitialPolicy::Age => self.stream_examples_max.unwrap_or(usize::MAX) - newest,
        };
        let mut examples = Vec::new();
        if room > 0 {
            let serving = self.serving.scorer();
            let at_least = serving.map_or(0, |scorer| scorer.lineage().origin.initial_examples);
            let whole = initial.whole(at_least);
            let whole = whole.map_err(|error| TrainingFailure::Incomplete(error.to_string()))?;
            let oldest = whole.len().saturating_sub(room);
            examples.extend(whole.into_iter().skip(oldest).flatten().cloned());
        }
        let initial_examples = examples.len();
        examples.extend_from_slice(&stream[stream.len() - newest..]);
        Ok((examples, initial_examples))
    }

    /// Reads on until everything before `through` is taken in.
    fn read_through(
        &self,
        read: &mut ReadLog,
        through: Offset,
        progress: Progress<'_>,
    ) -> Result<(), TrainingFailure> {
        let retry = |error: BrokerError| TrainingFailure::Retry(error.to_string());
        let mut records = std::mem::take(&mut read.ahead);
        let mut empty_reads = 0;
        loop {
            let is_there = records.last().is_some_and(|last| last.offset.next() >= through);
            let (now, ahead) = split(records, through);
            for record in &now {
                self.take_in(read, record)?;
            }
            if is_there {
                read.ahead = ahead;
                return Ok(());
            }
            records = Vec::new();
            if !progress(0, 1) {
                return Err(TrainingFailure::Retry("the process is stopping".to_owned()));
            }
            let reader = match &mut read.reader {
                Some(reader) => reader,
                none => {
                    none.insert(self.broker.read(&self.source, ReadFrom::Beginning).map_err(retry)?)
                }
            };
            reader.read(READ_WAIT, &mut records).map_err(retry)?;
            empty_reads = if records.is_empty() { empty_reads + 1 } else { 0 };
            let end = || self.broker.end(&self.source, Isolation::ReadUncommitted).map_err(retry);
            // No time brings back what ends before: the topic was recreated.
            if empty_reads > EMPTY_READS_MAX || (empty_reads > 0 && end()? < through) {
                return Err(TrainingFailure::Incomplete(format!(
                    "{} ends before offset {through}, which was there when the training fell due: records were \
                     deleted from it. The champion goes on serving",
                    self.source
                )));
            }
        }
    }

    /// That the schema registry is away is no reason to learn without an example.
    fn take_in(&self, read: &mut ReadLog, record: &InputRecord) -> Result<(), TrainingFailure> {
        let Some(bytes) = &record.value else { return Ok(()) };
        let labelled = match self.codec.decode(bytes) {
            Ok(labelled) => labelled,
            Err(CodecError::Unavailable { message }) => {
                return Err(TrainingFailure::Retry(message));
            }
            Err(error) => {
                read.skipped += 1;
                self.metrics.unreadable(TOPICS.labelled_examples.name);
                tracing::error!(source = %self.source, offset = %record.offset, %error,
                    skipped = read.skipped, "a labelled example cannot be read");
                return Ok(());
            }
        };
        let example = convert::example_of(&labelled, self.spec.columns(), &self.classes);
        if example.is_none() {
            read.skipped += 1;
            tracing::error!(
                label = labelled.label,
                skipped = read.skipped,
                "a labelled example has a label that is none of ours"
            );
        }
        match (labelled.origin, example) {
            (ExampleOrigin::Initial, example) => {
                read.initial.take(record, &labelled, example);
            }
            (ExampleOrigin::Stream, None) => {}
            (ExampleOrigin::Stream, Some(example)) => {
                let place = read.places.get(&labelled.example_id).copied();
                if let Some(place) = place {
                    read.stream[place] = example;
                } else {
                    read.places.insert(labelled.example_id, read.stream.len());
                    read.stream.push(example);
                }
            }
        }
        Ok(())
    }
}

fn split(records: Vec<InputRecord>, through: Offset) -> (Vec<InputRecord>, Vec<InputRecord>) {
    records.into_iter().partition(|record| record.offset < through)
}

//! The training set: the `labelled-examples` topic, read on from where the last training left off.

use std::{collections::BTreeMap, ops::ControlFlow, sync::Arc, time::Duration};

use crate::{
    events::labelled_example::{ExampleOrigin, LabelledExample},
    ml::{Example, Origin, PipelineSpec, Recipe, Seed, training::train},
    processors::{
        convert,
        model_table::Serving,
        trainer::{Progress, TrainingFailure, TrainingJob, TrainingRequest, TrainingResult},
    },
    streams::{
        codec::{Codec, CodecError},
        record::{InputRecord, Offset, TopicPartition},
        runtime::broker::{Broker, BrokerError, From, Isolation, Reader},
    },
};

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
    /// The newest examples from the stream that are learned from, besides the initial data; none: all.
    pub stream_examples_max: Option<usize>,
    /// The model that serves lends its parameters.
    pub serving: Serving,
    /// Where chance comes from.
    pub seed: Seed,
    /// What was read so far.
    pub read: ReadLog,
}

/// What was read of the log, in order.
#[derive(Default)]
pub struct ReadLog {
    reader: Option<Box<dyn Reader>>,
    /// Read, but beyond what was asked for.
    ahead: Vec<InputRecord>,
    initial: Vec<Example>,
    stream: Vec<Example>,
    /// Where each stream example is, for its correction.
    places: BTreeMap<String, usize>,
    skipped: u64,
    /// Everything before this offset is taken in.
    through: i64,
}

/// With two classes: from this probability of the second on, it is decided for.
pub const THRESHOLD: f64 = 0.5;
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
            let result = self.read_through(&mut read, Offset(request.through), progress);
            result.map_err(|error| match error {
                // No time brings it back: the next examples make the next training.
                BrokerError::OutOfRange(_) => TrainingFailure::Failed(format!(
                    "{} ends before offset {}, up to which it was to be learned from: it was made anew since",
                    self.source, request.through
                )),
                BrokerError::Retry(_)
                | BrokerError::Abort(_)
                | BrokerError::Fenced(_)
                | BrokerError::Unsendable { .. }
                | BrokerError::Gone(_)
                | BrokerError::Fatal(_) => TrainingFailure::Retry(error.to_string()),
            })?;
            read.through = request.through;
            self.read = read;
        }
        let stream = &self.read.stream;
        let newest = self.stream_examples_max.unwrap_or(usize::MAX).min(stream.len());
        let mut examples = self.read.initial.clone();
        examples.extend_from_slice(&stream[stream.len() - newest..]);
        let serving = self.serving.scorer();
        let params = serving.as_ref().map(|scorer| scorer.lineage().params.clone());
        let recipe = Recipe {
            spec: self.spec.clone(),
            classes: self.classes.clone(),
            threshold: THRESHOLD,
            params: params.unwrap_or_default(),
            seed: self.seed,
            origin: Origin {
                training: request.training,
                initial_examples: count(self.read.initial.len()),
                stream_examples: count(newest),
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
    /// Reads on until everything before `through` is taken in.
    fn read_through(
        &self,
        read: &mut ReadLog,
        through: Offset,
        progress: Progress<'_>,
    ) -> Result<(), BrokerError> {
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
                return Err(BrokerError::Retry("the process is stopping".to_owned()));
            }
            let reader = match &mut read.reader {
                Some(reader) => reader,
                none => none.insert(self.broker.read(&self.source, From::Beginning)?),
            };
            reader.read(READ_WAIT, &mut records)?;
            empty_reads = if records.is_empty() { empty_reads + 1 } else { 0 };
            if empty_reads > 0
                && self.broker.end(&self.source, Isolation::ReadUncommitted)? < through
            {
                return Err(BrokerError::OutOfRange(self.source.clone()));
            }
            if empty_reads > EMPTY_READS_MAX {
                let reason = format!("{} ends before offset {through}", self.source);
                return Err(BrokerError::Retry(reason));
            }
        }
    }

    /// That the schema registry is away is no reason to learn without an example.
    fn take_in(&self, read: &mut ReadLog, record: &InputRecord) -> Result<(), BrokerError> {
        let Some(bytes) = &record.value else { return Ok(()) };
        let labelled = match self.codec.decode(bytes) {
            Ok(labelled) => labelled,
            Err(CodecError::Unavailable { message }) => return Err(BrokerError::Retry(message)),
            Err(error) => {
                read.skipped += 1;
                tracing::error!(source = %self.source, offset = %record.offset, %error,
                    skipped = read.skipped, "a labelled example cannot be read");
                return Ok(());
            }
        };
        let Some(example) = convert::example_of(&labelled, self.spec.columns(), &self.classes)
        else {
            read.skipped += 1;
            tracing::error!(
                label = labelled.label,
                skipped = read.skipped,
                "a labelled example has a label that is none of ours"
            );
            return Ok(());
        };
        match labelled.origin {
            ExampleOrigin::Initial => read.initial.push(example),
            ExampleOrigin::Stream => {
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

//! The training set: reads the `labelled-examples` topic, from the position of the last training.

use std::{collections::BTreeMap, ops::ControlFlow, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    events::{
        labelled_example::{ExampleOrigin, LabelledExample},
        questionnaire::QuestionnaireSchema,
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

/// Treatment of the initial data when examples come from the stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InitialPolicy {
    /// Every training uses them.
    #[default]
    Keep,
    /// They count as the oldest examples: with `stream_examples_max`, newer examples replace them.
    Age,
}

/// The training job of the learning topology.
pub struct TrainingLog {
    /// The cluster.
    pub broker: Arc<dyn Broker>,
    /// The one partition of `labelled-examples`.
    pub source: TopicPartition,
    /// The codec of its values.
    pub codec: Arc<dyn Codec<LabelledExample>>,
    /// The event schema, whose questions the answers are to.
    pub events: Arc<QuestionnaireSchema>,
    /// The feature pipeline before it is fitted.
    pub spec: PipelineSpec,
    /// The labels, in the order of the model's classes.
    pub classes: Vec<String>,
    /// Maximum number of examples from the stream, the newest; none: all.
    pub stream_examples_max: Option<usize>,
    /// Treatment of the initial data.
    pub initial: InitialPolicy,
    /// The application's metrics.
    pub metrics: ApplicationMetrics,
    /// The model that serves, whose hyper-parameters are used.
    pub serving: Serving,
    /// The random seed of the training.
    pub seed: Seed,
    /// The decision threshold of the models: with two classes, the probability from which the second is the label.
    pub threshold: f64,
    /// The examples that were read so far.
    pub read: ReadLog,
}

/// The examples that were read from the log, in order.
#[derive(Default)]
pub struct ReadLog {
    reader: Option<Box<dyn Reader>>,
    /// Records that were read beyond the requested offset.
    ahead: Vec<InputRecord>,
    /// None for an example whose label is not configured.
    initial: InitialData<Option<Example>>,
    stream: Vec<Example>,
    /// The index of each stream example, for its correction.
    indices: BTreeMap<String, usize>,
    skipped: u64,
    /// Every record before this offset was read.
    through: i64,
}

/// Below the 16 MiB of a record of `models`; the rest is for the other fields.
const RECORD_BYTES_MAX: usize = 15 << 20;
/// Timeout of one read of records that are known to be in the log.
const READ_WAIT: Duration = Duration::from_millis(500);
/// Consecutive reads without a record after which a training fails: one minute.
const EMPTY_READS_MAX: u32 = 120;

impl TrainingJob for TrainingLog {
    fn train(&mut self, request: &TrainingRequest, progress: Progress<'_>) -> TrainingResult {
        if request.through < self.read.through {
            // An earlier request again, after an abort: later examples must not be used.
            self.read = ReadLog::default();
        }
        if request.through > self.read.through {
            // Put back when it is complete, so that everything is read again after a failure or a panic.
            let mut read = std::mem::take(&mut self.read);
            self.read_through(&mut read, Offset(request.through), progress)?;
            read.through = request.through;
            self.read = read;
        }
        let (examples, initial_examples) = self.training_set()?;
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
            let reason = format!("a bundle of {} bytes is too large for a record", bytes.len());
            return Err(TrainingFailure::Failed(reason));
        }
        Ok(bundle)
    }
}

fn count(examples: usize) -> u64 {
    u64::try_from(examples).unwrap_or(u64::MAX)
}

impl TrainingLog {
    /// The training set in order, and the number of initial examples in it.
    fn training_set(&self) -> Result<(Vec<Example>, usize), TrainingFailure> {
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
            let complete = initial.complete(at_least);
            let complete =
                complete.map_err(|error| TrainingFailure::Incomplete(error.to_string()))?;
            let oldest = complete.len().saturating_sub(room);
            examples.extend(complete.into_iter().skip(oldest).flatten().cloned());
        }
        let initial_examples = examples.len();
        examples.extend_from_slice(&stream[stream.len() - newest..]);
        Ok((examples, initial_examples))
    }

    /// Reads every record before `through`.
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
            let is_complete = records.last().is_some_and(|last| last.offset.next() >= through);
            let (now, ahead) = split(records, through);
            for record in &now {
                self.add(read, record)?;
            }
            if is_complete {
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
            // A log that ends before the offset was recreated or truncated; a retry would not help.
            if empty_reads > EMPTY_READS_MAX || (empty_reads > 0 && end()? < through) {
                return Err(TrainingFailure::Incomplete(format!(
                    "{} ends before offset {through}, which it had when the training became due: records were \
                     deleted from it. The champion continues to serve",
                    self.source
                )));
            }
        }
    }

    /// Adds a record. If the schema registry does not answer, the training is retried, so that no example is left out.
    fn add(&self, read: &mut ReadLog, record: &InputRecord) -> Result<(), TrainingFailure> {
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
                    skipped = read.skipped, "skipping a labelled example that cannot be decoded");
                return Ok(());
            }
        };
        let example =
            convert::example_of(&labelled, self.spec.columns(), &self.events, &self.classes);
        if example.is_none() {
            read.skipped += 1;
            tracing::error!(
                label = labelled.label,
                skipped = read.skipped,
                "skipping a labelled example whose label is not in [outcomes] labels"
            );
        }
        match (labelled.origin, example) {
            (ExampleOrigin::Initial, example) => {
                read.initial.take(record, &labelled, example);
            }
            (ExampleOrigin::Stream, None) => {}
            (ExampleOrigin::Stream, Some(example)) => {
                let index = read.indices.get(&labelled.example_id).copied();
                if let Some(index) = index {
                    read.stream[index] = example;
                } else {
                    read.indices.insert(labelled.example_id, read.stream.len());
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

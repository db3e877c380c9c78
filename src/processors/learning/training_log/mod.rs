//! The training set: reads the `labelled-examples` topic, from the position of the last training. What it keeps of it is a
//! pure function of the records before an offset, the policy and the seed.
//!
//! ```text
//!   labelled-examples ──▶ TrainingLog ──▶ Examples ──sample──▶ a training
//!                           ▲     │ save, between two jobs
//!                  restore  │     ▼
//!                          DiskCopy: the examples before an offset, if there is a `state_dir`
//! ```

mod blocks;
mod disk_copy;
mod examples;
mod record_mark;
mod restart;

use std::{sync::Arc, time::Duration};

use crate::{
    events::{
        labelled_example::{ExampleOrigin, LabelledExample},
        questionnaire::QuestionnaireSchema,
        topics::TOPICS,
    },
    processors::{
        convert,
        learning::{
            job::JobFailure,
            trainer::{Phase, Progress},
            training_log::{examples::Examples, record_mark::RecordMark},
        },
        metrics::ApplicationMetrics,
    },
};
use foretell_ml::{
    DataPolicy, Example, PipelineSpec, Sample, Seed,
    training_set::{Arrival, History},
};
use foretell_streams::{
    codec::{Codec, CodecError},
    record::{InputRecord, Offset, TopicPartition},
    runtime::broker::{Broker, BrokerError, Isolation, ReadFrom, Reader},
};

pub use self::disk_copy::DiskCopy;

/// The training log, and what was read of it.
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
    /// Which examples are used and how much they count.
    pub policy: DataPolicy,
    /// The application's metrics.
    pub metrics: ApplicationMetrics,
    /// The seed of a reservoir.
    pub seed: Seed,
    /// The examples that were read so far.
    pub read: ReadLog,
    /// The copy of the examples on disk; none without a `state_dir`.
    pub disk: Option<DiskCopy>,
}

/// What was read from the log.
#[derive(Default)]
pub struct ReadLog {
    reader: Option<Box<dyn Reader>>,
    /// Records that were read beyond the requested offset.
    ahead: Vec<InputRecord>,
    /// None before the first read.
    examples: Option<Examples>,
    skipped: u64,
    /// Whether one was skipped because the registry did not have its schema.
    has_unknown_schema: bool,
    /// Every record before this offset was read.
    through: i64,
    /// The first record, and the last one before that offset.
    first: Option<RecordMark>,
    last: Option<RecordMark>,
    /// The offset before which the copy on disk has everything; 0 without one.
    copied_through: i64,
}

/// Timeout of one read of records that are known to be in the log.
const READ_WAIT: Duration = Duration::from_millis(500);
/// Consecutive reads without a record after which a training fails: one minute.
const EMPTY_READS_MAX: u32 = 120;
/// The class of records whose schema the registry does not have.
const UNKNOWN_SCHEMA: &str = "unknown_schema";

fn retry(error: BrokerError) -> JobFailure {
    JobFailure::Retry(error.to_string())
}

fn stopping() -> JobFailure {
    JobFailure::Retry("the process is stopping".to_owned())
}

impl TrainingLog {
    /// Reads the log before an offset: the first time, and after a later offset, from what the copy on disk has of it, else
    /// from the beginning.
    ///
    /// # Errors
    /// [`JobFailure`] if the log cannot be read, or ends before the offset.
    pub fn read_to(&mut self, through: i64, progress: Progress<'_>) -> Result<(), JobFailure> {
        if through < self.read.through {
            // An earlier job again, after an abort: later examples must not be used.
            self.read = ReadLog::default();
        }
        if through > self.read.through {
            // Put back when it is complete, so that everything is read again after a failure or a panic.
            let mut read = std::mem::take(&mut self.read);
            if read.through == 0 {
                read = self.restore(through, progress)?;
            }
            if through > read.through {
                self.read_through(&mut read, Offset(through), progress)?;
            }
            read.through = through;
            self.read = read;
            let bytes = self.read.examples.as_ref().map_or(0, Examples::bytes);
            self.metrics.training_set_in_memory(bytes);
        }
        Ok(())
    }

    /// The examples from the stream that were read; none if there are no examples at all.
    #[must_use]
    pub fn stream(&self) -> Option<&History> {
        self.read.examples.as_ref().map(|examples| &examples.stream)
    }

    /// The examples to train on, and the number of initial ones among them, of which there must be `at_least` so many if
    /// the policy uses them.
    ///
    /// # Errors
    /// [`JobFailure`] if there are no examples, or initial ones are missing.
    pub fn sample(&self, at_least: u64) -> Result<(Sample<'_>, usize), JobFailure> {
        match &self.read.examples {
            Some(examples) => examples.sample(at_least),
            None => Err(JobFailure::Failed("there are no examples".to_owned())),
        }
    }

    /// Reads every record before `through`.
    fn read_through(
        &self,
        read: &mut ReadLog,
        through: Offset,
        progress: Progress<'_>,
    ) -> Result<(), JobFailure> {
        let mut records = std::mem::take(&mut read.ahead);
        let mut empty_reads = 0;
        loop {
            let is_complete = records.last().is_some_and(|last| last.offset.next() >= through);
            let (now, ahead) = split(records, through);
            for record in &now {
                self.add(read, record)?;
            }
            if let [first, ..] = now.as_slice() {
                read.first.get_or_insert_with(|| RecordMark::of(first));
                read.last = now.last().map(RecordMark::of);
            }
            if is_complete {
                read.ahead = ahead;
                return Ok(());
            }
            records = Vec::new();
            if !progress(Phase::Reading, 0, 1) {
                return Err(stopping());
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
                return Err(JobFailure::Incomplete(format!(
                    "{} ends before offset {through}, which it had when the training became due: records were \
                     deleted from it. The champion continues to serve",
                    self.source
                )));
            }
        }
    }

    /// Adds a record. If the schema registry does not answer, the training is retried, so that no example is left out.
    fn add(&self, read: &mut ReadLog, record: &InputRecord) -> Result<(), JobFailure> {
        let Some(bytes) = &record.value else { return Ok(()) };
        let labelled = match self.codec.decode(bytes) {
            Ok(labelled) => labelled,
            Err(CodecError::Unavailable { message }) => {
                return Err(JobFailure::Retry(message));
            }
            Err(error) => {
                read.skipped += 1;
                read.has_unknown_schema |=
                    matches!(error, CodecError::Unreadable { class: UNKNOWN_SCHEMA, .. });
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
        let examples = read
            .examples
            .get_or_insert_with(|| Examples::new(self.spec.columns(), self.policy, self.seed));
        match (labelled.origin, example) {
            (ExampleOrigin::Initial, example) => examples.add_initial(record, &labelled, example),
            (ExampleOrigin::Stream, None) => {}
            (ExampleOrigin::Stream, Some(Example { values, label })) => {
                let arrival = Arrival {
                    id: &labelled.example_id,
                    event_time: labelled.event_time.0,
                    offset: record.offset.0,
                    is_correction: labelled.correction,
                };
                examples.stream.add(arrival, &values, label);
            }
        }
        Ok(())
    }
}

fn split(records: Vec<InputRecord>, through: Offset) -> (Vec<InputRecord>, Vec<InputRecord>) {
    records.into_iter().partition(|record| record.offset < through)
}

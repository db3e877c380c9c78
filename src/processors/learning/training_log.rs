//! The training set: reads the `labelled-examples` topic, from the position of the last training. What it keeps of it is a
//! pure function of the records before an offset, the policy and the seed.

use std::{sync::Arc, time::Duration};

use crate::{
    events::{
        labelled_example::{ExampleOrigin, LabelledExample},
        questionnaire::QuestionnaireSchema,
        topics::TOPICS,
    },
    processors::{
        convert,
        initial_data::InitialData,
        learning::{
            job::JobFailure,
            trainer::{Phase, Progress},
        },
        metrics::ApplicationMetrics,
    },
};
use foretell_ml::{
    DataPolicy, Example, PipelineSpec, Sample, Seed, TrainingSet,
    training_set::{Arrival, History, InitialRow},
};
use foretell_streams::{
    codec::{Codec, CodecError},
    record::{InputRecord, Offset, TopicPartition},
    runtime::broker::{Broker, BrokerError, Isolation, ReadFrom, Reader},
};

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
    /// Every record before this offset was read.
    through: i64,
}

/// The examples of the log, in columns. The policy bounds those from the stream; the others are the newest table of `foretell
/// init`, and one that is being written.
struct Examples {
    /// The rows of the initial examples; none for one whose label is not configured.
    initial: InitialData<Option<InitialRow>>,
    initial_set: TrainingSet,
    stream: History,
}

/// Timeout of one read of records that are known to be in the log.
const READ_WAIT: Duration = Duration::from_millis(500);
/// Consecutive reads without a record after which a training fails: one minute.
const EMPTY_READS_MAX: u32 = 120;

impl TrainingLog {
    /// Reads the log before an offset. Offsets of successive calls ascend; after an earlier one, everything is read again.
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
            self.read_through(&mut read, Offset(through), progress)?;
            read.through = through;
            self.read = read;
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
        let Some(examples) = &self.read.examples else {
            return Err(JobFailure::Failed("there are no examples".to_owned()));
        };
        let mut rows = Vec::new();
        if examples.stream.uses_initial() {
            let complete = examples.initial.complete(at_least);
            let complete = complete.map_err(|error| JobFailure::Incomplete(error.to_string()))?;
            rows.extend(complete.into_iter().flatten().copied());
        }
        Ok(examples.stream.sample(&examples.initial_set, &rows))
    }

    /// Reads every record before `through`.
    fn read_through(
        &self,
        read: &mut ReadLog,
        through: Offset,
        progress: Progress<'_>,
    ) -> Result<(), JobFailure> {
        let retry = |error: BrokerError| JobFailure::Retry(error.to_string());
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
            if !progress(Phase::Reading, 0, 1) {
                return Err(JobFailure::Retry("the process is stopping".to_owned()));
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
        let examples = read.examples.get_or_insert_with(|| Examples::new(self));
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

impl Examples {
    fn new(log: &TrainingLog) -> Self {
        let columns = log.spec.columns();
        Self {
            initial: InitialData::default(),
            initial_set: TrainingSet::new(columns),
            stream: History::new(columns, log.policy, log.seed),
        }
    }

    fn add_initial(
        &mut self,
        record: &InputRecord,
        labelled: &LabelledExample,
        example: Option<Example>,
    ) {
        if self.initial.has(record, labelled) {
            return;
        }
        let row = example.map(|Example { values, label }| InitialRow {
            row: self.initial_set.push(&values, label),
            event_time: labelled.event_time.0,
        });
        self.initial.take(record, labelled, row);
        if let Some(left) = self.initial.remove_superseded() {
            let mut left: Vec<&mut InitialRow> = left.into_iter().flatten().collect();
            left.sort_by_key(|row| row.row);
            self.initial_set.retain(&left.iter().map(|row| row.row).collect::<Vec<_>>());
            for (row, moved) in (0..).zip(left) {
                moved.row = row;
            }
        }
    }
}

fn split(records: Vec<InputRecord>, through: Offset) -> (Vec<InputRecord>, Vec<InputRecord>) {
    records.into_iter().partition(|record| record.offset < through)
}

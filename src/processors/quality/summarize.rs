//! Counts what a scoring task scored, by window.

use std::{sync::Arc, time::Duration};

use crate::{
    events::{
        answered::{ClassProbability, Encoded},
        prediction::{Prediction, PredictionRef},
    },
    processors::{
        convert,
        gather::GatherSettings,
        model_table::Serving,
        quality::{ModelReference, WindowSummary, window_of},
    },
};
use foretell_ml::{Scorer, drift::LiveCounts};
use foretell_streams::{
    time::EventTime,
    topology::{Context, ProcessError, Processor, Punctuation, PunctuationKind, Record},
};

/// The interval of the summaries, in wall-clock time.
const SUMMARY_INTERVAL: Duration = Duration::from_secs(1);
/// Predictions of a task between two summaries that are all counted. Of those beyond, every [`SAMPLED`]th is, as that many: so
/// counting takes half a millisecond a second, and less than 0.1 µs for each prediction at high rates.
const ALL_COUNTED: u64 = 1_000;
const SAMPLED: u64 = 8;
/// Maximum number of windows with counts in memory: events of older windows come late, and a summary of the oldest window makes
/// room for another. Each takes 4 KiB for the scores of two classes, and up to 200 bytes for a column.
const WINDOWS_MAX: usize = 4;

/// The processor from predictions to summaries.
///
/// Counts are in memory until the next summary. So a crash loses those of the last second, and after an abort the records of the
/// aborted transaction are counted twice; no prediction or label is affected.
pub struct Summarize {
    serving: Serving,
    gather: GatherSettings,
    window: Duration,
    /// Predictions since the last summary.
    predictions: u64,
    counted: Option<Counted>,
}

/// The counts of the model that scored last.
struct Counted {
    scorer: Arc<Scorer>,
    reference: ModelReference,
    /// The index of the question, and of the column, for each column that has a question.
    columns: Vec<(usize, usize)>,
    windows: Vec<(EventTime, LiveCounts)>,
    /// The probabilities of one prediction, in memory that every record uses again.
    probabilities: Vec<f64>,
}

type SummaryContext<'t> = Context<'t, WindowSummary>;

impl Summarize {
    /// A processor that counts by `window`. `gather` has the questions and the layout of the answers.
    #[must_use]
    pub fn new(serving: Serving, gather: GatherSettings, window: Duration) -> Self {
        Self { serving, gather, window, predictions: 0, counted: None }
    }

    /// A processor with the same settings and without counts.
    pub(super) fn fresh(&self) -> Self {
        Self::new(self.serving.clone(), self.gather.clone(), self.window)
    }
}

impl Processor for Summarize {
    type In = Encoded<Prediction>;
    type Out = WindowSummary;

    fn start(&mut self, ctx: &mut SummaryContext<'_>) {
        ctx.schedule(PunctuationKind::WallClock, SUMMARY_INTERVAL);
    }

    fn process(
        &mut self,
        record: &Record<Encoded<Prediction>>,
        ctx: &mut SummaryContext<'_>,
    ) -> Result<(), ProcessError> {
        self.predictions += 1;
        let times = match self.predictions.checked_sub(ALL_COUNTED) {
            None | Some(0) => 1,
            Some(beyond) if beyond.is_multiple_of(SAMPLED) => SAMPLED,
            Some(_) => return Ok(()),
        };
        let prediction = record.value.get();
        let is_of = |counted: &Counted| counted.reference.version == prediction.model_version;
        if !self.counted.as_ref().is_some_and(is_of) {
            if let Some(before) = &mut self.counted {
                before.forward_all(ctx)?;
            }
            // Another model may serve since the prediction was made: at most one record for each swap is not counted.
            let scorer = self.serving.scorer();
            let scorer =
                scorer.filter(|scorer| scorer.version().as_str() == prediction.model_version);
            let Some(scorer) = scorer else { return Ok(()) };
            self.counted = Some(Counted::new(scorer, &self.gather));
        }
        let window = window_of(prediction.event_time, self.window);
        let counted = self.counted.as_mut().expect("it is set above");
        let index = counted.index_of(window, ctx)?;
        counted.add(index, &prediction, &self.gather, times);
        Ok(())
    }

    fn punctuate(
        &mut self,
        _punctuation: Punctuation,
        ctx: &mut SummaryContext<'_>,
    ) -> Result<(), ProcessError> {
        if let Some(counted) = &mut self.counted {
            counted.forward_all(ctx)?;
        }
        self.predictions = 0;
        Ok(())
    }
}

impl Counted {
    fn new(scorer: Arc<Scorer>, gather: &GatherSettings) -> Self {
        Self {
            reference: ModelReference::of(&scorer),
            columns: convert::columns_by_question(scorer.columns(), &gather.questions),
            windows: Vec::new(),
            probabilities: Vec::new(),
            scorer,
        }
    }

    /// Counts a prediction that stands for `times` ones in the window with this index.
    fn add(
        &mut self,
        index: usize,
        prediction: &PredictionRef<'_>,
        gather: &GatherSettings,
        times: u64,
    ) {
        let Self { scorer, columns, windows, probabilities, .. } = self;
        let (_, counts) = &mut windows[index];
        if let Some(profile) = scorer.profile() {
            let values = convert::values_by_column(columns, &gather.layout, prediction.answers);
            for value in values {
                counts.add_value(profile, value, times);
            }
        }
        probabilities.clear();
        let mut decided = 0.0;
        for ClassProbability { label, probability } in prediction.probabilities.iter() {
            probabilities.push(probability);
            if label == prediction.label {
                decided = probability;
            }
        }
        counts.add_prediction(probabilities.iter().copied(), decided, times);
    }

    /// The index of a window's counts.
    fn index_of(
        &mut self,
        window: EventTime,
        ctx: &mut SummaryContext<'_>,
    ) -> Result<usize, ProcessError> {
        if let Some(index) = self.windows.iter().position(|(start, _)| *start == window) {
            return Ok(index);
        }
        if self.windows.len() < WINDOWS_MAX {
            let classes = self.scorer.classes().len();
            self.windows.push((window, LiveCounts::new(self.scorer.profile(), classes)));
            return Ok(self.windows.len() - 1);
        }
        let oldest = self.windows.iter().enumerate().min_by_key(|(_, (start, _))| *start);
        let (index, _) = oldest.expect("there are windows");
        self.forward(index, ctx)?;
        self.windows[index].0 = window;
        Ok(index)
    }

    fn forward_all(&mut self, ctx: &mut SummaryContext<'_>) -> Result<(), ProcessError> {
        (0..self.windows.len()).try_for_each(|index| self.forward(index, ctx))
    }

    /// Forwards the counts of a window, if there are any, and sets them to 0.
    fn forward(&mut self, index: usize, ctx: &mut SummaryContext<'_>) -> Result<(), ProcessError> {
        let (window, counts) = &mut self.windows[index];
        if counts.predictions() == 0 {
            return Ok(());
        }
        let model = self.reference.clone();
        let key = Some(model.version.clone().into_bytes());
        let value = WindowSummary { window: *window, model, counts: counts.clone() };
        ctx.forward(&Record { key, value, time: *window })?;
        counts.clear();
        Ok(())
    }
}

//! Adds labels to the sums of their window, and requests a training when an alert rings.

use std::{sync::Arc, time::Duration};

use crate::{
    events::{
        command::{Command, CommandKind},
        labelled_example::{ExampleOrigin, LabelledExample},
    },
    processors::{
        metrics::ApplicationMetrics,
        model_table::Serving,
        quality::{QualitySettings, QualityStore, alert::Assessment},
    },
};
use foretell_ml::{Scorer, drift::Progressive};
use foretell_streams::{
    state::StateError,
    time::{EventTime, WallTime},
    topology::{Context, ProcessError, Processor, Punctuation, PunctuationKind, Record},
};

/// The interval at which alerts may request a training.
const REQUEST_INTERVAL: Duration = Duration::from_secs(5);
/// The name of drift in the commands that it requests.
pub const REQUESTED_BY_DRIFT: &str = "drift";

/// The processor from labelled examples to requests of trainings.
///
/// An example counts with the prediction that it was scored with, so every metric is that of a model which had not seen it. Initial
/// examples have no prediction. A correction replaces the label that was counted.
#[derive(Clone)]
pub struct CountLabels {
    /// The settings.
    pub settings: QualitySettings,
    /// The model that serves.
    pub serving: Serving,
    /// The application's metrics.
    pub metrics: ApplicationMetrics,
    /// The store.
    pub store: QualityStore,
}

/// A prediction of a labelled example.
struct Scored<'e> {
    version: &'e str,
    probabilities: Vec<f64>,
    label: Option<usize>,
    /// The label that a correction replaces.
    replaced: Option<Option<usize>>,
}

type RequestContext<'t> = Context<'t, Command>;

impl Processor for CountLabels {
    type In = LabelledExample;
    type Out = Command;

    fn start(&mut self, ctx: &mut RequestContext<'_>) {
        if self.settings.retrain_on_drift {
            ctx.schedule(PunctuationKind::WallClock, REQUEST_INTERVAL);
        }
    }

    fn process(
        &mut self,
        record: &Record<LabelledExample>,
        ctx: &mut RequestContext<'_>,
    ) -> Result<(), ProcessError> {
        let example = &record.value;
        // Corrections of earlier releases do not say which label they replace; it stays counted.
        if example.origin == ExampleOrigin::Initial
            || (example.correction && example.replaced.is_none())
        {
            return Ok(());
        }
        if let (Some(outcome_time), false) = (example.outcome_time, example.correction) {
            self.metrics
                .quality
                .labelled_after(outcome_time.since(example.event_time).as_secs_f64());
        }
        let window = self.settings.window_of(example.event_time);
        for scored in predictions_of(example) {
            if !self.count(window, &scored, ctx)? {
                ctx.count(&self.metrics.quality.late("labels"), 1);
            }
        }
        Ok(())
    }

    fn punctuate(
        &mut self,
        _punctuation: Punctuation,
        ctx: &mut RequestContext<'_>,
    ) -> Result<(), ProcessError> {
        let Some(serving) = self.serving.scorer() else { return Ok(()) };
        let mut store = self.store.open(ctx);
        let mut index = store.index()?;
        let version = serving.version().as_str();
        let model = index.reference_of(&serving);
        let assessment = Assessment::of(&serving, &model, &index, &self.settings, &mut store)?;
        let (Some(window), [first, ..]) = (assessment.newest, assessment.alerts.as_slice()) else {
            return Ok(());
        };
        let requested = Some((version.to_owned(), window));
        if index.requested == requested {
            return Ok(());
        }
        index.requested = requested;
        store.put_index(index)?;
        let reason = first.message.clone();
        tracing::warn!(version, reason, "drift requests a training");
        let command = command_of(version, window, reason, ctx.now());
        let key = Some(command.command_id.clone().into_bytes());
        let time = EventTime(ctx.now().0);
        ctx.forward(&Record { key, value: command, time })
    }
}

impl CountLabels {
    /// Adds a prediction to the sums of its model and window, or replaces its label. Returns false if the window is not stored any more.
    fn count(
        &self,
        window: EventTime,
        scored: &Scored<'_>,
        ctx: &mut RequestContext<'_>,
    ) -> Result<bool, StateError> {
        let mut store = self.store.open(ctx);
        let mut sums = match store.labels(window, scored.version)? {
            Some(sums) => sums,
            None if scored.replaced.is_some() => return Ok(false),
            None if store.add_window(window, scored.version, &self.settings)? => {
                let model = store.index()?.models.remove(scored.version);
                let threshold =
                    model.map_or_else(|| self.threshold_of(scored.version), |it| it.threshold);
                Progressive::new(scored.probabilities.len(), threshold)
            }
            None => return Ok(false),
        };
        let is_changed = match scored.replaced {
            None => sums.add(&scored.probabilities, scored.label),
            Some(from) => sums.replace(&scored.probabilities, from, scored.label),
        };
        if is_changed {
            store.put_labels(window, scored.version, sums)?;
        }
        Ok(true)
    }

    /// The threshold of a model from which no summary has come yet: it serves or is the challenger, or is unknown.
    fn threshold_of(&self, version: &str) -> f64 {
        let loaded = [self.serving.scorer(), self.serving.challenger()];
        let of_version = |scorer: &Arc<Scorer>| scorer.version().as_str() == version;
        let loaded = loaded.into_iter().flatten().find(of_version);
        loaded.map_or(0.5, |scorer| scorer.threshold())
    }
}

/// The predictions that the label of an example is the truth for: that of the model that served, and that of the challenger.
fn predictions_of(example: &LabelledExample) -> impl Iterator<Item = Scored<'_>> {
    let served = example.prediction.iter().map(|one| (&one.model_version, &one.probabilities));
    let challenger = example.challenger.iter().map(|one| (&one.model_version, &one.probabilities));
    served.chain(challenger).map(|(version, by_class)| {
        let place = |label: &str| by_class.iter().position(|class| class.label == label);
        Scored {
            version,
            probabilities: by_class.iter().map(|class| class.probability).collect(),
            label: place(&example.label),
            replaced: example.replaced.as_deref().map(place),
        }
    })
}

/// The request of a training. Its id is that of the model and the window, so a window requests one at most.
fn command_of(version: &str, window: EventTime, reason: String, now: WallTime) -> Command {
    Command {
        command_id: format!("{REQUESTED_BY_DRIFT}-{version}-{}", window.0),
        kind: CommandKind::Retrain,
        model_version: None,
        reason: Some(reason),
        requested_by: Some(REQUESTED_BY_DRIFT.to_owned()),
        requested_at: now,
    }
}

//! The first model of an application: a study on the initial examples, and a training with its best parameters. `foretell init`
//! and `foretell train` make the same model of the same examples.

use std::{ops::ControlFlow, time::Duration};

use crate::config::Config;
use foretell_ml::{
    ModelBundle, Origin, Params, Recipe, Seed, TrainingError, TrainingSet,
    training::{TrainingData, Trial, Tuned, Watch, train, tune},
    trees::importance,
};
use foretell_streams::{runtime::StopSignal, time::Clock};

/// A warning about a model that gives everyone the same probabilities; none about any other.
pub(super) fn warning_of(bundle: &ModelBundle) -> Option<String> {
    let has_split = importance(&bundle.booster).ok()?.iter().any(|feature| feature.splits > 0);
    (!has_split).then(|| {
        "the model has no split, so it gives everyone the same probabilities: no feature tells the labels apart, or there are \
         too few examples (of a label) to find out"
            .to_owned()
    })
}

/// Makes the first model.
pub(super) struct FirstTraining<'a> {
    pub(super) config: &'a Config,
    pub(super) examples: &'a TrainingSet,
    pub(super) clock: &'a dyn Clock,
    pub(super) stop: StopSignal,
}

impl FirstTraining<'_> {
    /// Runs the study, until it has all trials, `tuning.time` is over or the process stops. The trials of earlier studies
    /// warm-start it.
    ///
    /// # Errors
    /// If the examples cannot be tuned on.
    pub(super) fn tune(
        &self,
        earlier: &[Trial],
        on_trial: &mut dyn FnMut(&Trial) -> ControlFlow<()>,
    ) -> Result<Tuned, TrainingError> {
        let Self { config, examples, clock, stop } = self;
        let started = clock.elapsed();
        let is_over =
            || clock.elapsed().saturating_sub(started) > config.tuning.time || stop.is_stopped();
        let mut on_trial = |trial: &Trial| match on_trial(trial) {
            ControlFlow::Continue(()) if !is_over() => ControlFlow::Continue(()),
            ControlFlow::Continue(()) | ControlFlow::Break(()) => ControlFlow::Break(()),
        };
        let data = TrainingData {
            examples: &examples.sample(),
            spec: &config.pipeline,
            classes: config.classes.len(),
        };
        let watch = Watch { on_trial: &mut on_trial, stop: &is_over };
        tune(data, &config.tuning.study, Seed(config.learning.seed), earlier, watch)
    }

    /// Trains with these parameters. After a stop it goes on for at most `grace`.
    ///
    /// # Errors
    /// If the examples cannot be trained on, or the process stops.
    pub(super) fn train(
        &self,
        params: Params,
        grace: Duration,
    ) -> Result<ModelBundle, TrainingError> {
        let Self { config, examples, clock, stop } = self;
        let recipe = Recipe {
            spec: config.pipeline.clone(),
            classes: config.classes.clone(),
            threshold: config.learning.threshold,
            calibration: config.learning.calibration,
            intervals: true,
            profile: true,
            params,
            seed: Seed(config.learning.seed),
            origin: Origin {
                initial_examples: u64::try_from(examples.len()).unwrap_or(u64::MAX),
                ..Origin::default()
            },
        };
        let mut stopped_at = None;
        train(&examples.sample(), &recipe, &mut |_, _| {
            if !stop.is_stopped() {
                return ControlFlow::Continue(());
            }
            let now = clock.elapsed();
            let since = *stopped_at.get_or_insert(now);
            if now.saturating_sub(since) < grace {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        })
    }
}

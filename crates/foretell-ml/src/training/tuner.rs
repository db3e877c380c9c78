//! Hyper-parameter search: a sampler proposes parameters, cross-validation measures them, a budget of trials and time ends the
//! study.
//!
//! Trial 0 uses the caller's parameters, moved into the search space, so the result is never worse than they are.
//! Trial 1 uses the best parameters of earlier studies, if there are any. A few trials then cover the space evenly, and
//! the sampler proposes the rest. It is given losses relative to trial 0 of the same study, which makes losses of studies on
//! other data comparable.

use std::{error::Error as _, ops::ControlFlow};

use serde::{Deserialize, Serialize};

use crate::{
    Seed,
    training::{
        FoldOrder, Metric, Params, SamplerKind, Space, TrainingData, TrainingError,
        cross_validation::{CrossValidation, FoldResult, Limits},
        evaluation::mean,
        pruning::Pruning,
        search::Search,
        within,
    },
};

/// Upper bound of folds and of threads.
const FOLDS_MAX: f64 = 64.0;
/// Upper bound of the trials of a study.
const TRIALS_MAX: f64 = 10_000.0;

/// Settings of a study.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TuningSettings {
    /// Folds of the cross-validation, 2 to 64.
    pub folds: u32,
    /// Which examples a fold is trained on, and which it is validated on.
    pub order: FoldOrder,
    /// Maximum number of trials, up to 10,000. [`Watch`] can end the study earlier.
    pub trials: u32,
    /// Threads that train folds in parallel, 1 to 64. They change the duration of a study, never its result.
    pub threads: u32,
    /// Maximum boosting iterations of a trial, up to [`ITERATIONS_MAX`](crate::training::ITERATIONS_MAX).
    pub iterations_max: u32,
    /// Iterations without a lower validation log loss after which a fold stops, whatever the objective: metrics of ranking and
    /// of decisions jump from one iteration to the next.
    pub early_stopping_rounds: u32,
    /// The metric by which trials are compared: its mean over the folds.
    pub objective: Metric,
    /// What proposes the parameters of the trials.
    pub sampler: SamplerKind,
    /// Domains of the parameters that are searched.
    pub space: Space,
    /// Parameters of trial 0, each moved to the nearest value of its domain in `space`. Parameters that are not
    /// searched keep these values in every trial.
    pub start: Params,
}

impl Default for TuningSettings {
    fn default() -> Self {
        Self {
            folds: 4,
            order: FoldOrder::Shuffled,
            trials: 20,
            threads: 1,
            iterations_max: 800,
            early_stopping_rounds: 25,
            objective: Metric::LogLoss,
            sampler: SamplerKind::Tpe,
            space: Space::default(),
            start: Params::default(),
        }
    }
}

/// One set of parameters with its cross-validated metrics.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// Number of the trial in its study, from 0.
    pub number: u32,
    /// Parameters of the trial; `iterations` is the mean of the folds' best iterations.
    pub params: Params,
    /// Mean validation log loss (nats per example) over the folds that were run; infinite for a trial that failed.
    pub log_loss: f64,
    /// Mean validation AUC over the folds that were run and have examples of two classes.
    pub auc: Option<f64>,
    /// Mean of the folds' best iterations.
    pub iterations: u32,
    /// Whether the trial did not run all folds: it was ended after the first half of the folds, because their mean loss was
    /// above the median of the earlier trials (median pruning) or too far above the best trial's (racing), or it failed.
    pub pruned: bool,
    /// The metric that the study optimises.
    pub objective: Metric,
    /// Its mean over the folds that were run; `None` if it is undefined for them, or the trial failed.
    pub value: Option<f64>,
    /// What proposed the parameters.
    pub sampler: SamplerKind,
    /// Why LightGBM refused the parameters; `None` if it did not. Such a trial has no metrics, and the study goes on.
    pub failure: Option<String>,
}

impl Trial {
    /// The loss of the trial by a metric, lower is better; `None` if the trial does not have it.
    #[must_use]
    pub fn loss_by(&self, metric: Metric) -> Option<f64> {
        let value = match metric {
            _ if self.failure.is_some() => None,
            metric if metric == self.objective => self.value,
            Metric::LogLoss => Some(self.log_loss),
            Metric::Auc => self.auc,
            Metric::F1 | Metric::Accuracy => None,
        };
        value.map(|value| metric.loss(value))
    }

    /// The loss of the trial by the objective of its study.
    #[must_use]
    pub fn loss(&self) -> Option<f64> {
        self.loss_by(self.objective)
    }
}

/// The result of a study.
#[derive(Clone, Debug, PartialEq)]
pub struct Tuned {
    /// Parameters of the best trial that was not pruned, `iterations` included; without one, the parameters that
    /// trial 0 would have used.
    pub params: Params,
    /// All trials, by number.
    pub trials: Vec<Trial>,
}

/// Callbacks by which the caller observes a study and ends it when its time is over.
pub struct Watch<'a> {
    /// Called after every trial; [`ControlFlow::Break`] ends the study with the trials so far.
    pub on_trial: &'a mut dyn FnMut(&Trial) -> ControlFlow<()>,
    /// Called between boosting iterations, from several threads; `true` ends the study and discards the running trial.
    pub stop: &'a (dyn Fn() -> bool + Sync),
}

/// Searches for the parameters with the best cross-validated objective. `earlier` holds the trials of earlier
/// studies in order, each study from its trial 0 on; they warm-start the search, the newest
/// [`EARLIER_TRIALS_MAX`](crate::training::EARLIER_TRIALS_MAX) of them, and the older a study is, the fewer of its trials.
///
/// The same input and seed give the same trials on any number of threads, unless `watch` ends the study.
///
/// # Errors
/// [`TrainingError`] if the examples cannot be cross-validated, a setting is out of its bounds, or LightGBM fails in trial 0.
/// A later trial that fails has its [`failure`](Trial::failure), and the study goes on.
pub fn tune(
    data: TrainingData<'_>,
    settings: &TuningSettings,
    seed: Seed,
    earlier: &[Trial],
    watch: Watch<'_>,
) -> Result<Tuned, TrainingError> {
    settings.check()?;
    let settings = &settings.with_start_in_space();
    let validation = CrossValidation::new(data, &settings.start, seed, settings.limits())?;
    let mut study = Study {
        settings,
        validation,
        trials: Vec::new(),
        baseline: Vec::new(),
        pruning: Pruning::default(),
    };
    let mut search = Search::new(settings, seed, earlier);
    for number in 0..settings.trials {
        let params = match number {
            0 => settings.start.clone(),
            _ => search.next_params(),
        };
        let Some(trial) = study.run(number, params, watch.stop)? else {
            break;
        };
        search.record(&trial.params, study.relative_loss(&trial));
        let go_on = (watch.on_trial)(&trial);
        study.trials.push(trial);
        if go_on.is_break() {
            break;
        }
    }
    let params = best(&study.trials).map_or(&settings.start, |best| &best.params).clone();
    Ok(Tuned { params, trials: study.trials })
}

/// The trial with the lowest loss, of one study. Pruned trials have run too few folds to be chosen.
#[must_use]
pub fn best(trials: &[Trial]) -> Option<&Trial> {
    let finished = trials.iter().filter(|trial| !trial.pruned);
    let losses = finished.filter_map(|trial| Some((trial, trial.loss()?)));
    losses.min_by(|a, b| a.1.total_cmp(&b.1)).map(|(trial, _)| trial)
}

impl TuningSettings {
    /// Checks that each setting is within its bounds.
    ///
    /// # Errors
    /// [`TrainingError::Setting`] or [`TrainingError::Parameter`] for the first that is not.
    pub fn check(&self) -> Result<(), TrainingError> {
        within("folds", self.folds.into(), 2.0, FOLDS_MAX)?;
        within("trials", self.trials.into(), 0.0, TRIALS_MAX)?;
        within("threads", self.threads.into(), 1.0, FOLDS_MAX)?;
        within("early_stopping_rounds", self.early_stopping_rounds.into(), 1.0, 10_000.0)?;
        // The tuned parameters may have as many iterations, so they have the same bounds.
        Params { iterations: self.iterations_max, ..self.start.clone() }.check()?;
        self.start.check()?;
        self.space.check()
    }

    /// The settings with `start` moved into the space, so that trial 0, too, respects domains that exclude the
    /// defaults. A fixed parameter is a domain of one value.
    fn with_start_in_space(&self) -> Self {
        Self { start: self.space.clamp(self.start.clone()), ..self.clone() }
    }

    fn limits(&self) -> Limits {
        let index = |number: u32| usize::try_from(number).expect("32 bits fit into an index");
        Limits {
            folds: index(self.folds),
            order: self.order,
            threads: index(self.threads),
            iterations_max: self.iterations_max,
            early_stopping_rounds: self.early_stopping_rounds,
            objective: self.objective,
        }
    }
}

/// A study that is running: its trials and the losses that later trials are compared with.
struct Study<'a> {
    settings: &'a TuningSettings,
    validation: CrossValidation<'a>,
    trials: Vec<Trial>,
    /// Loss of trial 0 on each fold; NaN where it is undefined.
    baseline: Vec<f64>,
    pruning: Pruning,
}

impl Study<'_> {
    /// Runs a trial. `None` if `stop` ended it.
    fn run(
        &mut self,
        number: u32,
        params: Params,
        stop: &(dyn Fn() -> bool + Sync),
    ) -> Result<Option<Trial>, TrainingError> {
        match self.run_folds(&params, stop) {
            Ok(None) => Ok(None),
            Ok(Some((results, pruned))) => {
                if number == 0 {
                    self.baseline = self.losses(&results);
                }
                Ok(Some(self.trial(number, params, &results, pruned)))
            }
            // Without trial 0 there is nothing to compare with.
            Err(error @ (TrainingError::LightGbm(_) | TrainingError::Unservable { .. }))
                if number > 0 =>
            {
                Ok(Some(self.failed(number, params, &error)))
            }
            Err(error) => Err(error),
        }
    }

    /// Runs half of the folds, and the other half unless the trial is pruned.
    ///
    /// The number of folds before the decision must not depend on the number of threads, or results would.
    fn run_folds(
        &mut self,
        params: &Params,
        stop: &(dyn Fn() -> bool + Sync),
    ) -> Result<Option<(Vec<FoldResult>, bool)>, TrainingError> {
        let folds = self.settings.limits().folds;
        let first = first_folds(folds);
        let Some(mut results) = self.validation.run(0..first, params, stop)? else {
            return Ok(None);
        };
        let loss =
            |results: &[FoldResult]| defined_mean(&self.losses(results)).unwrap_or(f64::INFINITY);
        let on_first = loss(&results);
        let pruned = self.pruning.ends(on_first);
        let mut on_all = None;
        if !pruned {
            let Some(others) = self.validation.run(first..folds, params, stop)? else {
                return Ok(None);
            };
            results.extend(others);
            on_all = Some(loss(&results));
        }
        self.pruning.add(on_first, on_all);
        Ok(Some((results, pruned)))
    }

    fn trial(&self, number: u32, params: Params, results: &[FoldResult], pruned: bool) -> Trial {
        let total = results.iter().map(|result| u64::from(result.iterations)).sum::<u64>();
        let runs = u64::try_from(results.len()).expect("folds are few");
        let iterations =
            u32::try_from((total + runs / 2) / runs).expect("a mean of 32-bit numbers");
        let mean_of = |of: fn(&FoldResult) -> Option<f64>| {
            mean(&results.iter().filter_map(of).collect::<Vec<f64>>())
        };
        Trial {
            number,
            params: Params { iterations, ..params },
            log_loss: mean_of(|result| Some(result.log_loss)).expect("at least one fold was run"),
            auc: mean_of(|result| result.auc),
            iterations,
            pruned,
            objective: self.settings.objective,
            value: mean_of(|result| result.value),
            sampler: self.settings.sampler,
            failure: None,
        }
    }

    fn failed(&self, number: u32, params: Params, error: &TrainingError) -> Trial {
        // What LightGBM says, without the sentence that it failed.
        let failure = error.source().map_or_else(|| error.to_string(), ToString::to_string);
        Trial {
            number,
            log_loss: f64::INFINITY,
            auc: None,
            iterations: params.iterations,
            params,
            pruned: true,
            objective: self.settings.objective,
            value: None,
            sampler: self.settings.sampler,
            failure: Some(failure),
        }
    }

    /// The losses of folds by the objective; NaN where it is undefined.
    fn losses(&self, results: &[FoldResult]) -> Vec<f64> {
        let objective = self.settings.objective;
        let loss =
            |result: &FoldResult| result.value.map_or(f64::NAN, |value| objective.loss(value));
        results.iter().map(loss).collect()
    }

    /// A trial's loss divided by that of trial 0 on the same folds; infinite if the trial failed.
    fn relative_loss(&self, trial: &Trial) -> f64 {
        trial.loss().map_or(f64::INFINITY, |loss| relative_loss(loss, trial.pruned, &self.baseline))
    }
}

/// A loss divided by the mean of `baseline`, trial 0's losses by fold; of a pruned trial, by that of the first folds only,
/// which are the ones that it ran. If trial 0 is perfect, by how much it is worse.
fn relative_loss(loss: f64, pruned: bool, baseline: &[f64]) -> f64 {
    let folds = baseline.len();
    let run = if pruned { first_folds(folds) } else { folds };
    match defined_mean(&baseline[..run]) {
        Some(baseline) if baseline > 0.0 => loss / baseline,
        Some(_) | None => 1.0 + loss,
    }
}

/// Number of folds that are run before a trial may be pruned.
fn first_folds(folds: usize) -> usize {
    (folds / 2).max(1)
}

/// The mean without NaN; `None` if there is nothing else.
fn defined_mean(numbers: &[f64]) -> Option<f64> {
    mean(&numbers.iter().copied().filter(|number| !number.is_nan()).collect::<Vec<f64>>())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{
        Example, PipelineSpec, Sample, TrainingSet,
        training::{
            Domain, ParamValue, Recipe,
            tests::{examples, recipe, spec},
            train,
        },
    };

    pub(in crate::training) fn settings(trials: u32, threads: u32) -> TuningSettings {
        let start =
            Params { min_data_in_leaf: 5, learning_rate: 0.2, num_leaves: 5, ..Params::default() };
        let space = Space::default().with("num_leaves", Domain::linear(3.0, 15.0)).unwrap();
        TuningSettings {
            folds: 3,
            trials,
            threads,
            iterations_max: 40,
            early_stopping_rounds: 5,
            space,
            start,
            ..TuningSettings::default()
        }
    }

    pub(in crate::training) fn run(
        settings: &TuningSettings,
        classes: u32,
        earlier: &[Trial],
    ) -> Tuned {
        let (mut on_trial, stop) = (|_: &Trial| ControlFlow::Continue(()), || false);
        let watch = Watch { on_trial: &mut on_trial, stop: &stop };
        let (set, spec) = (set(&examples(300, classes, 5)), spec());
        let classes = usize::try_from(classes).unwrap();
        let data = TrainingData { examples: &set.sample(), spec: &spec, classes };
        tune(data, settings, Seed(1), earlier, watch).unwrap()
    }

    fn set(examples: &[Example]) -> TrainingSet {
        TrainingSet::of(spec().columns(), examples)
    }

    fn data<'a>(examples: &'a Sample<'a>, spec: &'a PipelineSpec) -> TrainingData<'a> {
        TrainingData { examples, spec, classes: 2 }
    }

    const FIXED: [(&str, f64); 9] = [
        ("num_leaves", 7.0),
        ("learning_rate", 0.17),
        ("min_data_in_leaf", 9.0),
        ("feature_fraction", 0.7),
        ("bagging_fraction", 0.9),
        ("lambda_l1", 0.25),
        ("lambda_l2", 0.125),
        ("cat_smooth", 3.0),
        ("cat_l2", 2.0),
    ];

    /// A space in which every parameter is fixed by a domain, and the parameters that it allows. All values differ from the
    /// start's.
    fn fixed_space(start: &Params, domain: impl Fn(f64) -> Domain) -> (Space, Params) {
        let fix =
            |space: Space, (name, value): &(&str, f64)| space.with(name, domain(*value)).unwrap();
        let space = FIXED.iter().fold(Space::default(), fix);
        let params = Params {
            num_leaves: 7,
            learning_rate: 0.17,
            min_data_in_leaf: 9,
            feature_fraction: 0.7,
            bagging_fraction: 0.9,
            lambda_l1: 0.25,
            lambda_l2: 0.125,
            cat_smooth: 3.0,
            cat_l2: 2.0,
            ..start.clone()
        };
        (space, params)
    }

    #[test]
    fn fixed_parameters_are_used_in_every_trial_and_in_the_model() {
        let settings = settings(9, 1);
        let (space, expected) = fixed_space(&settings.start, |value| Domain::log(value, value));
        // An earlier study, of another space, must not bring other values back.
        let earlier = [Trial { number: 0, ..trial(0.5, false) }, trial(0.1, false)];
        let tuned = run(&TuningSettings { space: space.clone(), ..settings.clone() }, 2, &earlier);
        assert_eq!(tuned.trials.len(), 9);
        for trial in &tuned.trials {
            let iterations = trial.params.iterations;
            assert_eq!(trial.params, Params { iterations, ..expected.clone() }, "{trial:?}");
        }
        let choice = |value| Domain::Choice(vec![ParamValue::Number(value)]);
        for domain in
            [&|value| Domain::linear(value, value) as Domain, &choice as &dyn Fn(f64) -> Domain]
        {
            let (space, _) = fixed_space(&settings.start, domain);
            let other = run(&TuningSettings { space, ..settings.clone() }, 2, &earlier);
            assert_eq!(other, tuned, "the form of a fixed parameter does not matter");
        }
        let none = run(&TuningSettings { space, trials: 0, ..settings }, 2, &[]);
        assert_eq!(none.params, expected, "without a trial, too");

        let recipe = Recipe { params: tuned.params, ..recipe(2) };
        let progress = &mut |_, _| ControlFlow::Continue(());
        let bundle = train(&set(&examples(300, 2, 5)).sample(), &recipe, progress).unwrap();
        for line in ["[num_leaves: 7]", "[min_data_in_leaf: 9]", "[cat_smooth: 3]"] {
            assert!(bundle.booster.contains(line), "LightGBM trained without {line}");
        }
    }

    #[test]
    fn trial_0_of_the_default_space_uses_the_default_parameters() {
        let settings = TuningSettings::default();
        assert_eq!(settings.with_start_in_space(), settings);
        assert_eq!(settings.start, Params::default());
    }

    #[test]
    fn a_study_finds_the_same_with_any_number_of_threads() {
        let alone = run(&settings(9, 1), 2, &[]);
        assert_eq!(run(&settings(9, 3), 2, &[]), alone);
        assert_eq!(alone.trials.len(), 9);
    }

    #[test]
    fn the_best_finished_trial_wins() {
        let tuned = run(&settings(12, 2), 2, &[]);
        let finished = tuned.trials.iter().filter(|trial| !trial.pruned);
        let least = finished.map(|trial| trial.log_loss).fold(f64::INFINITY, f64::min);
        let winner = tuned.trials.iter().find(|trial| trial.params == tuned.params).unwrap();
        assert_eq!(winner.log_loss.to_bits(), least.to_bits());
        assert!(least <= tuned.trials[0].log_loss);
        assert!(tuned.trials.iter().any(|trial| trial.pruned), "{:?}", tuned.trials);
        assert!(tuned.params.iterations == winner.iterations && winner.iterations >= 1);
    }

    pub(in crate::training) fn trial(log_loss: f64, pruned: bool) -> Trial {
        let params = settings(1, 1).start;
        Trial {
            number: 1,
            params,
            log_loss,
            auc: None,
            iterations: 9,
            pruned,
            objective: Metric::LogLoss,
            value: Some(log_loss),
            sampler: SamplerKind::Tpe,
            failure: None,
        }
    }

    #[test]
    fn a_pruned_trial_is_never_the_best() {
        let trials = [trial(0.5, false), trial(0.1, true), trial(0.3, false), trial(0.4, false)];
        assert_eq!(best(&trials), Some(&trials[2]));
        assert_eq!(best(&trials[1..2]), None);
    }

    #[test]
    fn losses_are_compared_on_the_same_folds() {
        let check = |loss: f64, pruned: bool, baseline: &[f64], expected: f64| {
            let found = relative_loss(loss, pruned, baseline);
            assert!((found - expected).abs() < 1e-12, "{found}, not {expected}");
        };
        check(2.5, false, &[1.0, 3.0, 6.0, 10.0], 0.5);
        check(1.0, true, &[1.0, 3.0, 6.0, 10.0], 0.5);
        check(1.0, false, &[f64::NAN, 2.0], 0.5);
        check(0.25, false, &[0.0, 0.0], 1.25);
    }

    #[test]
    fn three_classes_can_be_tuned() {
        let tuned = run(&settings(3, 2), 3, &[]);
        assert!(
            tuned.trials.iter().all(|trial| trial.auc.is_some_and(|auc| auc > 0.5)),
            "{:?}",
            tuned.trials
        );
    }

    #[test]
    fn earlier_trials_warm_start_a_study() {
        let study = |number, log_loss, num_leaves| Trial {
            number,
            params: Params { num_leaves, max_bin: 63, ..settings(1, 1).start },
            ..trial(log_loss, false)
        };
        // The loss of 0.5 is the lowest relative to trial 0 of its own study.
        let earlier = [
            study(0, 0.4, 5),
            study(1, 0.3, 6),
            study(0, 1.0, 5),
            study(1, 0.5, 7),
            study(2, 0.9, 8),
        ];
        let (warm, cold) = (run(&settings(3, 2), 2, &earlier), run(&settings(3, 2), 2, &[]));
        let tried = |tuned: &Tuned| {
            tuned.trials.iter().map(|t| (t.params.num_leaves, t.params.max_bin)).collect::<Vec<_>>()
        };
        assert_eq!(tried(&warm)[..2], [(5, 255), (7, 255)]);
        assert_ne!(tried(&warm)[2..], tried(&cold)[2..]);
    }

    #[test]
    fn a_study_can_be_stopped_after_a_trial_and_within_one() {
        let (settings, examples, spec) = (settings(9, 2), set(&examples(300, 2, 5)), spec());
        let sample = examples.sample();
        let data = data(&sample, &spec);
        let mut trials = 0;
        let mut on_trial = |_: &Trial| {
            trials += 1;
            if trials == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let watch = Watch { on_trial: &mut on_trial, stop: &|| false };
        let tuned = tune(data, &settings, Seed(1), &[], watch).unwrap();
        assert_eq!(tuned.trials.len(), 2);
        let mut on_trial = |_: &Trial| ControlFlow::Continue(());
        let watch = Watch { on_trial: &mut on_trial, stop: &|| true };
        let tuned = tune(data, &settings, Seed(1), &[], watch).unwrap();
        assert_eq!(tuned, Tuned { params: settings.start, trials: Vec::new() });
    }

    #[test]
    fn unusable_examples_and_settings_are_errors() {
        let check = |examples: &[Example], settings: &TuningSettings, expected: TrainingError| {
            let mut on_trial = |_: &Trial| ControlFlow::Continue(());
            let watch = Watch { on_trial: &mut on_trial, stop: &|| false };
            let spec = spec();
            let set = set(examples);
            let tuned = tune(data(&set.sample(), &spec), settings, Seed(1), &[], watch);
            assert_eq!(tuned, Err(expected));
        };
        let some = examples(100, 2, 1);
        check(&[], &settings(3, 1), TrainingError::NoExamples);
        let of_one: Vec<Example> =
            some.iter().filter(|example| example.label.0 == 0).cloned().collect();
        check(&of_one, &settings(3, 1), TrainingError::OneClass { class: 0 });
        let mut few = of_one;
        few.extend(some.iter().find(|example| example.label.0 == 1).cloned());
        check(
            &few,
            &settings(3, 1),
            TrainingError::TooFew { examples: few.len(), minority: 1, folds: 3 },
        );
        let folds = TuningSettings { folds: 1, ..settings(3, 1) };
        check(
            &some,
            &folds,
            TrainingError::Setting { name: "folds", value: 1.0, low: 2.0, high: FOLDS_MAX },
        );
    }

    /// An upgrade does not change what a study of the default space finds.
    #[test]
    fn a_study_of_the_default_space_is_that_of_the_first_release() {
        let settings = TuningSettings {
            iterations_max: 40,
            trials: 12,
            folds: 3,
            ..TuningSettings::default()
        };
        let expected = [
            (31, 20, 10.0, 0.676_521_492_171_816, false),
            (51, 26, 62.492_880_224_900_72, 0.667_814_732_146_746_4, false),
            (15, 7, 38.349_499_827_966_994, 0.679_165_442_070_365_8, false),
            (19, 106, 7.723_343_163_476_930_5, 0.692_947_167_224_478_4, false),
            (29, 19, 3.901_905_058_517_789, 0.671_545_308_371_968_6, false),
            (10, 83, 2.212_755_399_785_644, 0.692_947_167_224_478_4, true),
            (63, 21, 86.049_166_253_311_43, 0.670_516_166_673_395_2, false),
            (62, 37, 84.117_063_607_013_83, 0.663_348_949_516_313_3, false),
            (55, 49, 99.547_408_144_665_85, 0.674_987_435_874_146_8, false),
            (61, 14, 93.687_616_841_969_07, 0.665_901_114_613_036_1, false),
            (49, 9, 40.533_625_271_155_25, 0.662_934_072_236_585_4, false),
            (42, 9, 28.042_750_158_929_028, 0.692_066_159_471_073_5, true),
        ];
        let found = run(&settings, 2, &[]).trials;
        assert_eq!(found.len(), expected.len());
        for (trial, (num_leaves, min_data_in_leaf, cat_l2, log_loss, pruned)) in
            found.iter().zip(expected)
        {
            let params = &trial.params;
            let whole = (params.num_leaves, params.min_data_in_leaf, trial.pruned);
            assert_eq!(whole, (num_leaves, min_data_in_leaf, pruned), "{trial:?}");
            assert!((params.cat_l2 - cat_l2).abs() < 1e-9, "{trial:?}");
            assert!((trial.log_loss - log_loss).abs() < 1e-9, "{trial:?}");
        }
    }

    fn texts(texts: &[&str]) -> Domain {
        Domain::Choice(texts.iter().map(|text| ParamValue::of_text(text)).collect())
    }

    #[test]
    fn any_parameter_can_be_searched_by_any_sampler_on_any_number_of_threads() {
        let space = Space::default()
            .with("boosting", texts(&["gbdt", "dart"]))
            .and_then(|space| space.with("extra_trees", texts(&["true", "false"])))
            .and_then(|space| space.with("max_depth", Domain::int(2, 6)))
            .and_then(|space| {
                let bins = [15.0, 255.0].map(ParamValue::Number).to_vec();
                space.with("max_bin", Domain::Choice(bins))
            })
            .and_then(|space| space.with("path_smooth", Domain::log(0.01, 10.0)))
            .unwrap();
        for sampler in SamplerKind::ALL {
            let with = |threads| {
                let settings = settings(14, threads);
                run(&TuningSettings { space: space.clone(), sampler, ..settings }, 2, &[])
            };
            let tuned = with(1);
            assert_eq!(with(3), tuned);
            let tried = |name: &str| {
                let values = tuned.trials.iter().map(|trial| trial.params.get(name).unwrap());
                let mut values: Vec<String> = values.map(|value| value.to_string()).collect();
                values.sort();
                values.dedup();
                values
            };
            assert_eq!(tried("boosting"), ["dart", "gbdt"], "{sampler:?}");
            assert_eq!(tried("extra_trees"), ["false", "true"], "{sampler:?}");
            assert_eq!(tried("max_bin"), ["15", "255"], "{sampler:?}");
            assert!(tried("max_depth").len() > 2, "{sampler:?}");
            assert!(tuned.trials.iter().all(|trial| trial.sampler == sampler));
            assert!(tuned.trials.iter().all(|trial| trial.failure.is_none()), "{tuned:?}");
            let recipe = Recipe { params: tuned.params, ..recipe(2) };
            let progress = &mut |_, _| ControlFlow::Continue(());
            train(&set(&examples(300, 2, 5)).sample(), &recipe, progress).unwrap();
        }
    }

    #[test]
    fn a_trial_that_lightgbm_refuses_is_recorded_and_the_study_goes_on() {
        // GOSS draws examples itself, so it refuses a share of them.
        let space =
            Space::default().with("data_sample_strategy", texts(&["bagging", "goss"])).unwrap();
        for sampler in SamplerKind::ALL {
            let settings = TuningSettings { space: space.clone(), sampler, ..settings(12, 2) };
            let tuned = run(&settings, 2, &[]);
            assert_eq!(tuned.trials.len(), 12);
            let failed: Vec<&Trial> =
                tuned.trials.iter().filter(|trial| trial.failure.is_some()).collect();
            assert!(!failed.is_empty() && failed.len() < 11, "{sampler:?}: {failed:?}");
            for trial in failed {
                let failure = trial.failure.as_ref().unwrap();
                assert!(failure.contains("GOSS"), "{failure}");
                assert!(trial.pruned && trial.value.is_none() && trial.log_loss == f64::INFINITY);
                assert_ne!(tuned.params, trial.params);
            }
            // They can warm-start another study.
            assert_eq!(run(&settings, 2, &tuned.trials).trials.len(), 12);
        }
        // If the start is refused, there is nothing to compare with.
        let fixed = Space::default().with("data_sample_strategy", texts(&["goss"])).unwrap();
        let start = Params { bagging_fraction: 0.7, ..Params::default() };
        let settings = TuningSettings { space: fixed, start, ..settings(3, 1) };
        let (set, spec) = (set(&examples(300, 2, 5)), spec());
        let mut on_trial = |_: &Trial| ControlFlow::Continue(());
        let watch = Watch { on_trial: &mut on_trial, stop: &|| false };
        let failed = tune(data(&set.sample(), &spec), &settings, Seed(1), &[], watch);
        assert!(matches!(failed, Err(TrainingError::LightGbm(_))), "{failed:?}");
    }

    #[test]
    fn a_study_can_optimise_any_metric_of_any_number_of_classes() {
        for classes in [2, 3] {
            for objective in Metric::ALL {
                let tuned = run(&TuningSettings { objective, ..settings(8, 2) }, classes, &[]);
                let finished = tuned.trials.iter().filter(|trial| !trial.pruned);
                let value = |trial: &Trial| trial.value.unwrap();
                let most = finished.clone().map(value).fold(f64::NEG_INFINITY, f64::max);
                let least = finished.map(value).fold(f64::INFINITY, f64::min);
                let best = if objective.is_higher_better() { most } else { least };
                let winner = best_of(&tuned);
                assert_eq!(value(winner).to_bits(), best.to_bits(), "{objective:?} {classes}");
                assert_eq!(winner.objective, objective);
                match objective {
                    Metric::LogLoss => assert_eq!(winner.value, Some(winner.log_loss)),
                    Metric::Auc => assert_eq!(winner.value, winner.auc),
                    Metric::F1 | Metric::Accuracy => assert!(value(winner) > 0.4, "{winner:?}"),
                }
            }
        }
    }

    pub(in crate::training) fn best_of(tuned: &Tuned) -> &Trial {
        tuned.trials.iter().find(|trial| trial.params == tuned.params).unwrap()
    }

    #[test]
    fn folds_in_the_order_of_time_need_two_labels_at_the_beginning() {
        let settings = TuningSettings { order: FoldOrder::Time, ..settings(3, 1) };
        assert_eq!(run(&settings, 2, &[]).trials.len(), 3);
        let mut sorted = examples(300, 2, 5);
        sorted.sort_by_key(|example| example.label);
        let (set, spec) = (set(&sorted), spec());
        let mut on_trial = |_: &Trial| ControlFlow::Continue(());
        let watch = Watch { on_trial: &mut on_trial, stop: &|| false };
        let failed = tune(data(&set.sample(), &spec), &settings, Seed(1), &[], watch);
        assert_eq!(failed, Err(TrainingError::OneClassFirst { examples: 75 }));
    }
}

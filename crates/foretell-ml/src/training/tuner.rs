//! Hyper-parameter search: the tree-structured Parzen estimator (TPE; Bergstra et al., "Algorithms for Hyper-Parameter
//! Optimization", 2011) proposes parameters, cross-validation measures them, a budget of trials and time ends the study.
//!
//! Trial 0 uses the caller's parameters, moved into the search space, so the result is never worse than they are.
//! Trial 1 uses the best parameters of earlier studies, if there are any. A few trials then cover the space evenly, and
//! TPE proposes the rest. It is given losses relative to trial 0 of the same study, which makes losses of studies on
//! other data comparable.

use std::ops::ControlFlow;

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};
use serde::{Deserialize, Serialize};
use tpe::{TpeOptimizer, TpeOptimizerBuilder, parzen_estimator};

use crate::{
    Seed,
    training::{
        Params, Space, TrainingData, TrainingError,
        cross_validation::{CrossValidation, FoldResult, Limits},
        evaluation::mean,
        space::DIMENSIONS,
        within,
    },
};

/// Trials that cover the space before TPE proposes any; each earlier trial replaces one of them.
const COVERING_TRIALS: usize = 5;
/// Trials of a study that run all folds before any trial is pruned.
const UNPRUNED_TRIALS: usize = 4;
/// TPE's quantile γ: it models the best quarter of the trials as the good ones.
const GAMMA: f64 = 0.25;
/// Upper bound of folds and of threads.
const FOLDS_MAX: f64 = 64.0;
/// Upper bound of the trials of a study.
const TRIALS_MAX: f64 = 10_000.0;

/// Settings of a study.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TuningSettings {
    /// Folds of the stratified cross-validation, 2 to 64.
    pub folds: u32,
    /// Maximum number of trials, up to 10,000. [`Watch`] can end the study earlier.
    pub trials: u32,
    /// Threads that train folds in parallel, 1 to 64. They change the duration of a study, never its result.
    pub threads: u32,
    /// Maximum boosting iterations of a trial, up to [`ITERATIONS_MAX`](crate::training::ITERATIONS_MAX).
    pub iterations_max: u32,
    /// Iterations without a lower validation log loss after which a fold stops.
    pub early_stopping_rounds: u32,
    /// Ranges of the parameters that are searched.
    pub space: Space,
    /// Parameters of trial 0, each moved to the nearest value of its range in `space`. Parameters that are not
    /// searched keep these values in every trial.
    pub start: Params,
}

impl Default for TuningSettings {
    fn default() -> Self {
        Self {
            folds: 4,
            trials: 20,
            threads: 1,
            iterations_max: 800,
            early_stopping_rounds: 25,
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
    /// Mean validation log loss (nats per example) over the folds that were run.
    pub log_loss: f64,
    /// Mean validation AUC over the folds that were run and have examples of two classes.
    pub auc: Option<f64>,
    /// Mean of the folds' best iterations.
    pub iterations: u32,
    /// Whether the trial was ended after the first half of the folds, because their mean loss was above the median of
    /// the earlier trials (median pruning).
    pub pruned: bool,
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

/// Searches for the parameters with the lowest cross-validated log loss. `earlier` holds the trials of earlier
/// studies in order, each study from its trial 0 on; they warm-start the search.
///
/// The same input and seed give the same trials on any number of threads, unless `watch` ends the study.
///
/// # Errors
/// [`TrainingError`] if the examples cannot be cross-validated, a setting is out of its bounds, or LightGBM fails.
pub fn tune(
    data: TrainingData<'_>,
    settings: &TuningSettings,
    seed: Seed,
    earlier: &[Trial],
    watch: Watch<'_>,
) -> Result<Tuned, TrainingError> {
    settings.check()?;
    let settings = &settings.with_start_in_space();
    let bins = settings.start.to_lightgbm(data.classes, seed);
    let validation = CrossValidation::new(data, &bins, seed, settings.limits())?;
    let mut study = Study {
        settings,
        seed,
        validation,
        trials: Vec::new(),
        baseline: Vec::new(),
        first_folds: Vec::new(),
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

/// The trial with the lowest loss. Pruned trials have run too few folds to be chosen.
fn best(trials: &[Trial]) -> Option<&Trial> {
    let finished = trials.iter().filter(|trial| !trial.pruned);
    finished.min_by(|a, b| a.log_loss.total_cmp(&b.log_loss))
}

impl TuningSettings {
    /// Checks that each setting is within its bounds.
    ///
    /// # Errors
    /// [`TrainingError::Setting`] for the first that is not.
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

    /// The settings with `start` moved into the space, so that trial 0, too, respects ranges that exclude the
    /// defaults. A fixed parameter is a range of one value.
    fn with_start_in_space(&self) -> Self {
        Self { start: self.space.clamp(self.start.clone()), ..self.clone() }
    }

    fn limits(&self) -> Limits {
        let index = |number: u32| usize::try_from(number).expect("32 bits fit into an index");
        Limits {
            folds: index(self.folds),
            threads: index(self.threads),
            iterations_max: self.iterations_max,
            early_stopping_rounds: self.early_stopping_rounds,
        }
    }
}

/// A study that is running: its trials and the losses that later trials are compared with.
struct Study<'a> {
    settings: &'a TuningSettings,
    seed: Seed,
    validation: CrossValidation<'a>,
    trials: Vec<Trial>,
    /// Log loss of trial 0 on each fold.
    baseline: Vec<f64>,
    /// Mean log loss of each trial on the first half of the folds.
    first_folds: Vec<f64>,
}

impl Study<'_> {
    /// Runs half of the folds, and the other half unless the trial is pruned. `None` if `stop` ended it.
    ///
    /// The number of folds before the decision must not depend on the number of threads, or results would.
    fn run(
        &mut self,
        number: u32,
        params: Params,
        stop: &(dyn Fn() -> bool + Sync),
    ) -> Result<Option<Trial>, TrainingError> {
        let folds = self.settings.limits().folds;
        let first = first_folds(folds);
        let Some(mut results) = self.validation.run(0..first, &params, self.seed, stop)? else {
            return Ok(None);
        };
        let so_far = mean_log_loss(&results);
        let pruned = should_prune(so_far, &self.first_folds);
        self.first_folds.push(so_far);
        if !pruned {
            let Some(others) = self.validation.run(first..folds, &params, self.seed, stop)? else {
                return Ok(None);
            };
            results.extend(others);
        }
        if number == 0 {
            self.baseline = results.iter().map(|result| result.log_loss).collect();
        }
        let total = results.iter().map(|result| u64::from(result.iterations)).sum::<u64>();
        let runs = u64::try_from(results.len()).expect("folds are few");
        let iterations =
            u32::try_from((total + runs / 2) / runs).expect("a mean of 32-bit numbers");
        let aucs: Vec<f64> = results.iter().filter_map(|result| result.auc).collect();
        let params = Params { iterations, ..params };
        let log_loss = mean_log_loss(&results);
        Ok(Some(Trial { number, params, log_loss, auc: mean(&aucs), iterations, pruned }))
    }

    /// A trial's log loss divided by that of trial 0 on the same folds.
    fn relative_loss(&self, trial: &Trial) -> f64 {
        relative_loss(trial, &self.baseline)
    }
}

/// The choice of the next parameters: one TPE estimator per dimension, over fractions of its range.
struct Search<'a> {
    random: StdRng,
    settings: &'a TuningSettings,
    estimators: Vec<TpeOptimizer>,
    /// Trials that cover the space, and last, so that it is popped first, the best of earlier studies.
    planned: Vec<Plan>,
}

/// A trial that is made before TPE proposes any.
enum Plan {
    Params(Params),
    /// One fraction per dimension.
    Fractions(Vec<f64>),
}

impl<'a> Search<'a> {
    fn new(settings: &'a TuningSettings, seed: Seed, earlier: &[Trial]) -> Self {
        let mut random = StdRng::seed_from_u64(seed.0);
        let mut planned: Vec<Plan> =
            latin_hypercube(&mut random).into_iter().map(Plan::Fractions).collect();
        let losses = relative_losses(earlier);
        planned.truncate(COVERING_TRIALS.saturating_sub(losses.len()));
        let finished = losses.iter().filter(|(trial, _)| !trial.pruned);
        let best = finished.min_by(|a, b| a.1.total_cmp(&b.1));
        let best = best.map(|(trial, _)| with_searched_from(settings, &trial.params));
        planned.extend(best.filter(|params| *params != settings.start).map(Plan::Params));
        // The estimators work on fractions of a range, which also covers ranges of one value: `tpe` has no empty range.
        let range = tpe::range(0.0, 1.0).expect("0 is less than 1");
        let mut estimator = TpeOptimizerBuilder::new();
        estimator.gamma(GAMMA);
        let estimator = |_| estimator.build(parzen_estimator(), range).expect("gamma is a share");
        let estimators = DIMENSIONS.iter().map(estimator).collect();
        let mut search = Self { random, settings, estimators, planned };
        for (trial, loss) in losses {
            search.record(&trial.params, loss);
        }
        search
    }

    fn next_params(&mut self) -> Params {
        let fractions = match self.planned.pop() {
            Some(Plan::Params(params)) => return params,
            Some(Plan::Fractions(fractions)) => fractions,
            None => self.ask_estimators(),
        };
        let mut params = self.settings.start.clone();
        for (dimension, fraction) in DIMENSIONS.iter().zip(fractions) {
            dimension.set_fraction(&self.settings.space, &mut params, fraction);
        }
        params
    }

    fn ask_estimators(&mut self) -> Vec<f64> {
        let random = &mut self.random;
        let ask = |estimator: &mut TpeOptimizer| match estimator.ask(random) {
            Ok(fraction) => fraction,
            Err(never) => match never {},
        };
        self.estimators.iter_mut().map(ask).collect()
    }

    /// Gives the estimators the loss of a trial, relative to trial 0 of its study.
    fn record(&mut self, params: &Params, loss: f64) {
        if loss.is_nan() {
            return;
        }
        for (dimension, estimator) in DIMENSIONS.iter().zip(&mut self.estimators) {
            // NaN means to the estimator that the parameter was not searched. Its range excludes 1.
            let fraction = dimension
                .fraction(&self.settings.space, params)
                .map_or(f64::NAN, |fraction| fraction.min(1.0 - f64::EPSILON));
            estimator.tell(fraction, loss).expect("the fraction is in range, the loss a number");
        }
    }
}

/// The start with the searched parameters of a trial of another study, moved into today's space.
fn with_searched_from(settings: &TuningSettings, earlier: &Params) -> Params {
    let mut params = settings.start.clone();
    for dimension in &DIMENSIONS {
        dimension.copy(&settings.space, earlier, &mut params);
    }
    settings.space.clamp(params)
}

/// A Latin hypercube sample: in every dimension, each trial has an equal part of the range to itself.
fn latin_hypercube(random: &mut StdRng) -> Vec<Vec<f64>> {
    let mut trials = vec![Vec::new(); COVERING_TRIALS];
    for _ in &DIMENSIONS {
        let mut parts: Vec<usize> = (0..COVERING_TRIALS).collect();
        parts.shuffle(random);
        for (trial, part) in trials.iter_mut().zip(parts) {
            trial.push((part as f64 + random.random::<f64>()) / COVERING_TRIALS as f64);
        }
    }
    trials
}

/// Whether to prune a trial by its mean loss on the first folds and those of the earlier trials.
fn should_prune(so_far: f64, earlier: &[f64]) -> bool {
    earlier.len() >= UNPRUNED_TRIALS && so_far > median(earlier)
}

/// A trial's log loss divided by the mean of `baseline`, trial 0's losses by fold; for a pruned trial, of the first
/// folds only, which are the ones that it ran.
fn relative_loss(trial: &Trial, baseline: &[f64]) -> f64 {
    let folds = baseline.len();
    let run = if trial.pruned { first_folds(folds) } else { folds };
    trial.log_loss / mean(&baseline[..run]).expect("trial 0 has run every fold")
}

/// Number of folds that are run before a trial may be pruned.
fn first_folds(folds: usize) -> usize {
    (folds / 2).max(1)
}

/// Trials of earlier studies with their log loss divided by that of trial 0 of their study. Trials before the first
/// trial 0 are left out.
fn relative_losses(earlier: &[Trial]) -> Vec<(&Trial, f64)> {
    let mut baseline = None;
    let mut losses = Vec::new();
    for trial in earlier {
        if trial.number == 0 {
            baseline = Some(trial.log_loss);
        }
        losses.extend(
            baseline
                .filter(|baseline| *baseline > 0.0)
                .map(|baseline| (trial, trial.log_loss / baseline)),
        );
    }
    losses
}

fn mean_log_loss(results: &[FoldResult]) -> f64 {
    mean(&results.iter().map(|result| result.log_loss).collect::<Vec<_>>())
        .expect("at least one fold was run")
}

fn median(numbers: &[f64]) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Example, PipelineSpec, Sample, TrainingSet,
        training::{
            Range, Recipe,
            tests::{examples, recipe, spec},
            train,
        },
    };

    fn settings(trials: u32, threads: u32) -> TuningSettings {
        let start =
            Params { min_data_in_leaf: 5, learning_rate: 0.2, num_leaves: 5, ..Params::default() };
        let space = Space { num_leaves: Some(Range::linear(3.0, 15.0)), ..Space::default() };
        TuningSettings {
            folds: 3,
            trials,
            threads,
            iterations_max: 40,
            early_stopping_rounds: 5,
            space,
            start,
        }
    }

    fn run(settings: &TuningSettings, classes: u32, earlier: &[Trial]) -> Tuned {
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

    /// A space in which every parameter is fixed, some on a linear and some on a logarithmic scale, and the parameters
    /// that it allows. All values differ from the start's.
    fn fixed_space(start: &Params) -> (Space, Params) {
        let linear = |value| Some(Range::linear(value, value));
        let log = |value| Some(Range::log(value, value));
        let space = Space {
            num_leaves: log(7.0),
            learning_rate: linear(0.17),
            min_data_in_leaf: linear(9.0),
            feature_fraction: log(0.7),
            bagging_fraction: linear(0.9),
            lambda_l1: log(0.25),
            lambda_l2: linear(0.0),
            cat_smooth: log(3.0),
            cat_l2: linear(2.0),
        };
        let params = Params {
            num_leaves: 7,
            learning_rate: 0.17,
            min_data_in_leaf: 9,
            feature_fraction: 0.7,
            bagging_fraction: 0.9,
            lambda_l1: 0.25,
            lambda_l2: 0.0,
            cat_smooth: 3.0,
            cat_l2: 2.0,
            ..start.clone()
        };
        (space, params)
    }

    #[test]
    fn fixed_parameters_are_used_in_every_trial_and_in_the_model() {
        let settings = settings(9, 1);
        let (space, expected) = fixed_space(&settings.start);
        // An earlier study, of another space, must not bring other values back.
        let earlier = [Trial { number: 0, ..trial(0.5, false) }, trial(0.1, false)];
        let tuned = run(&TuningSettings { space: space.clone(), ..settings.clone() }, 2, &earlier);
        assert_eq!(tuned.trials.len(), 9);
        for trial in &tuned.trials {
            let iterations = trial.params.iterations;
            assert_eq!(trial.params, Params { iterations, ..expected.clone() }, "{trial:?}");
        }
        let swapped = |range: Option<Range>| range.map(|range| Range { log: !range.log, ..range });
        let other_scales = Space {
            num_leaves: swapped(space.num_leaves),
            learning_rate: swapped(space.learning_rate),
            min_data_in_leaf: swapped(space.min_data_in_leaf),
            feature_fraction: swapped(space.feature_fraction),
            bagging_fraction: swapped(space.bagging_fraction),
            lambda_l1: swapped(space.lambda_l1),
            cat_smooth: swapped(space.cat_smooth),
            cat_l2: swapped(space.cat_l2),
            ..space.clone()
        };
        let other = run(&TuningSettings { space: other_scales, ..settings.clone() }, 2, &earlier);
        assert_eq!(other, tuned, "the scale of a fixed parameter does not matter");
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

    #[test]
    fn proposals_follow_the_losses_of_earlier_studies() {
        let settings = settings(1, 1);
        let mean_proposal = |loss_of: fn(u32) -> f64| {
            let study = (0..12).map(|number| {
                let params = Params { num_leaves: 3 + number, ..settings.start.clone() };
                Trial { number, params, ..trial(loss_of(number), false) }
            });
            let study: Vec<Trial> = study.collect();
            let mut search = Search::new(&settings, Seed(1), &study);
            // The earlier trials have covered the space: only the best of them is planned.
            assert_eq!(search.planned.len(), 1);
            let proposed = (0..40).map(|_| f64::from(search.next_params().num_leaves));
            mean(&proposed.collect::<Vec<_>>()).unwrap()
        };
        let few = mean_proposal(|number| f64::from(number + 1));
        let many = mean_proposal(|number| f64::from(12 - number));
        assert!(few + 1.0 < many, "{few} {many}");
        assert_eq!(Search::new(&settings, Seed(1), &[]).planned.len(), COVERING_TRIALS);
    }

    fn trial(log_loss: f64, pruned: bool) -> Trial {
        let params = settings(1, 1).start;
        Trial { number: 1, params, log_loss, auc: None, iterations: 9, pruned }
    }

    #[test]
    fn a_pruned_trial_is_never_the_best() {
        let trials = [trial(0.5, false), trial(0.1, true), trial(0.3, false), trial(0.4, false)];
        assert_eq!(best(&trials), Some(&trials[2]));
        assert_eq!(best(&trials[1..2]), None);
    }

    #[test]
    fn a_trial_above_the_median_is_pruned_once_enough_trials_are_finished() {
        let check = |so_far: f64, earlier: &[f64], expected: bool| {
            assert_eq!(should_prune(so_far, earlier), expected, "{so_far} {earlier:?}");
        };
        check(9.0, &[], false);
        check(9.0, &[1.0, 2.0, 3.0], false);
        check(9.0, &[4.0, 1.0, 2.0, 3.0], true);
        check(3.1, &[4.0, 1.0, 2.0, 3.0], true);
        check(3.0, &[4.0, 1.0, 2.0, 3.0], false);
        check(0.5, &[4.0, 1.0, 2.0, 3.0, 5.0], false);
    }

    #[test]
    fn losses_are_compared_on_the_same_folds() {
        let check = |trial: &Trial, expected: f64| {
            let found = relative_loss(trial, &[1.0, 3.0, 6.0, 10.0]);
            assert!((found - expected).abs() < 1e-12, "{found}, not {expected}");
        };
        check(&trial(2.5, false), 0.5);
        check(&trial(1.0, true), 0.5);
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
            log_loss,
            auc: None,
            iterations: 9,
            pruned: false,
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
}

//! The search for better parameters: TPE asks, cross-validation answers, the budget ends it.
//!
//! Trial 0 is what the caller starts from, so a study never ends with worse; trial 1 the best of earlier studies, if
//! any; then a few that cover the space evenly; then what the tree-structured Parzen estimator asks for. Losses are
//! told to it in proportion to trial 0's of the same study, so that trials of other weeks' data can be told too.

use std::ops::ControlFlow;

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};
use serde::{Deserialize, Serialize};
use tpe::{TpeOptimizer, TpeOptimizerBuilder, parzen_estimator};

use crate::{
    Example, PipelineSpec, Seed,
    training::{
        Params, Space, TrainingError,
        cross_validation::{CrossValidation, FoldResult, Limits},
        evaluation::mean,
        space::DIMENSIONS,
        within,
    },
};

/// Trials that cover the space before the estimator is asked, unless earlier trials have done so.
const COVERING: usize = 5;
/// So many trials of a study are finished before one is pruned.
const UNPRUNED: usize = 4;
/// Where the estimator parts good trials from bad ones: the best quarter is what it imitates.
const GAMMA: f64 = 0.25;
/// More folds or threads than this are a mistake.
const MANY: f64 = 64.0;
/// More trials than this are a mistake.
const TRIALS_MAX: f64 = 10_000.0;

/// How a study is done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TuningSettings {
    /// Folds of the cross-validation.
    pub folds: u32,
    /// Trials at most; the caller stops it earlier.
    pub trials: u32,
    /// Folds trained at the same time. It changes how long a study takes, not what comes of it.
    pub threads: u32,
    /// Iterations a trial, at most.
    pub iterations_max: u32,
    /// A fold stops growing after so many iterations without a better log loss.
    pub early_stopping_rounds: u32,
    /// Where to look.
    pub space: Space,
    /// What trial 0 tries, and what parameters outside the space stay.
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

/// One set of parameters, and how good it was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// Its place in the study, from 0.
    pub number: u32,
    /// What was tried; `iterations` is the mean of the folds' best.
    pub params: Params,
    /// The mean over the folds that were run.
    pub log_loss: f64,
    /// The mean over the folds that were run and have two classes.
    pub auc: Option<f64>,
    /// The mean of the folds' best.
    pub iterations: u32,
    /// Given up after the first folds: they were worse than those of half of the trials before.
    pub pruned: bool,
}

/// What came of a study.
#[derive(Clone, Debug, PartialEq)]
pub struct Tuned {
    /// The best finished trial's, iterations included; the start's if none was finished.
    pub params: Params,
    /// In the order in which they were made.
    pub trials: Vec<Trial>,
}

/// How the caller looks on, and stops a study: it has the clock.
pub struct Watch<'a> {
    /// Told of every trial; breaking ends the study with what it has.
    pub on_trial: &'a mut dyn FnMut(&Trial) -> ControlFlow<()>,
    /// Asked between iterations, from several threads; `true` ends the study, and the trial it is in is dropped.
    pub stop: &'a (dyn Fn() -> bool + Sync),
}

/// Searches for the parameters with the lowest cross-validated log loss. `earlier` are the trials of earlier
/// studies in their order, each study from its trial 0 on: they save this one the groping about.
///
/// The same input and seed give the same trials, whatever the number of threads, unless the watch stops it.
///
/// # Errors
/// [`TrainingError`] if nothing can be learned from the examples, or the settings are out of their bounds.
pub fn tune(
    examples: &[Example],
    spec: &PipelineSpec,
    classes: usize,
    (settings, seed): (&TuningSettings, Seed),
    earlier: &[Trial],
    watch: Watch<'_>,
) -> Result<Tuned, TrainingError> {
    settings.check()?;
    let bins = settings.start.to_lightgbm(classes, seed);
    let validation = CrossValidation::new(examples, spec, &bins, classes, seed, settings.limits())?;
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
            _ => search.ask(),
        };
        let Some(trial) = study.run(number, params, watch.stop)? else {
            break;
        };
        search.tell(&trial.params, study.against_baseline(&trial));
        let go_on = (watch.on_trial)(&trial);
        study.trials.push(trial);
        if go_on.is_break() {
            break;
        }
    }
    let params = best(&study.trials).map_or(&settings.start, |best| &best.params).clone();
    Ok(Tuned { params, trials: study.trials })
}

/// The finished trial with the least loss; one that was given up says too little to be chosen.
fn best(trials: &[Trial]) -> Option<&Trial> {
    let finished = trials.iter().filter(|trial| !trial.pruned);
    finished.min_by(|a, b| a.log_loss.total_cmp(&b.log_loss))
}

impl TuningSettings {
    /// Refuses settings out of their bounds.
    ///
    /// # Errors
    /// [`TrainingError::Setting`] names the first.
    pub fn check(&self) -> Result<(), TrainingError> {
        within("folds", self.folds.into(), 2.0, MANY)?;
        within("trials", self.trials.into(), 0.0, TRIALS_MAX)?;
        within("threads", self.threads.into(), 1.0, MANY)?;
        within("early_stopping_rounds", self.early_stopping_rounds.into(), 1.0, 10_000.0)?;
        // Bounded as an iteration count that the tuned parameters may get.
        Params { iterations: self.iterations_max, ..self.start.clone() }.check()?;
        self.start.check()?;
        self.space.check()
    }

    fn limits(&self) -> Limits {
        let whole = |number: u32| usize::try_from(number).expect("32 bits fit into an index");
        let (iterations_max, patience) = (self.iterations_max, self.early_stopping_rounds);
        Limits { folds: whole(self.folds), threads: whole(self.threads), iterations_max, patience }
    }
}

/// The trials so far, and what a new one is pruned by.
struct Study<'a> {
    settings: &'a TuningSettings,
    seed: Seed,
    validation: CrossValidation,
    trials: Vec<Trial>,
    /// Trial 0's log loss on each fold.
    baseline: Vec<f64>,
    /// Each trial's mean log loss on the first folds.
    first_folds: Vec<f64>,
}

impl Study<'_> {
    /// Half of the folds are run before it is decided whether the others are worth it. How many does not depend on
    /// the number of threads, or results would.
    fn run(
        &mut self,
        number: u32,
        params: Params,
        stop: &(dyn Fn() -> bool + Sync),
    ) -> Result<Option<Trial>, TrainingError> {
        let folds = self.settings.limits().folds;
        let first = first_folds(folds);
        let Some(mut results) = self.validation.run((0, first), &params, self.seed, stop)? else {
            return Ok(None);
        };
        let so_far = mean_log_loss(&results);
        let pruned = is_to_be_pruned(so_far, &self.first_folds);
        self.first_folds.push(so_far);
        if !pruned {
            let Some(others) = self.validation.run((first, folds), &params, self.seed, stop)?
            else {
                return Ok(None);
            };
            results.extend(others);
        }
        if number == 0 {
            self.baseline = results.iter().map(|result| result.log_loss).collect();
        }
        let grown = results.iter().map(|result| u64::from(result.iterations)).sum::<u64>();
        let runs = u64::try_from(results.len()).expect("folds are few");
        let iterations =
            u32::try_from((grown + runs / 2) / runs).expect("a mean of 32-bit numbers");
        let aucs: Vec<f64> = results.iter().filter_map(|result| result.auc).collect();
        let params = Params { iterations, ..params };
        let log_loss = mean_log_loss(&results);
        Ok(Some(Trial { number, params, log_loss, auc: mean(&aucs), iterations, pruned }))
    }

    /// A trial's log loss in proportion to trial 0's on the same folds.
    fn against_baseline(&self, trial: &Trial) -> f64 {
        in_proportion(trial, &self.baseline)
    }
}

/// What to try next: one estimator a parameter that is searched, over its place in its range.
struct Search<'a> {
    random: StdRng,
    settings: &'a TuningSettings,
    estimators: Vec<TpeOptimizer>,
    /// The best of earlier studies, and then trials that cover the space; taken from the end.
    planned: Vec<Plan>,
}

enum Plan {
    Params(Params),
    /// One place a dimension.
    Places(Vec<f64>),
}

impl<'a> Search<'a> {
    fn new(settings: &'a TuningSettings, seed: Seed, earlier: &[Trial]) -> Self {
        let mut random = StdRng::seed_from_u64(seed.0);
        let mut planned: Vec<Plan> = cover(&mut random).into_iter().map(Plan::Places).collect();
        let told = against_their_baselines(earlier);
        planned.truncate(COVERING.saturating_sub(told.len()));
        let finished = told.iter().filter(|(trial, _)| !trial.pruned);
        let best = finished.min_by(|a, b| a.1.total_cmp(&b.1));
        let taken_over = best.map(|(trial, _)| take_over(settings, &trial.params));
        planned.extend(taken_over.filter(|params| *params != settings.start).map(Plan::Params));
        let range = tpe::range(0.0, 1.0).expect("0 is less than 1");
        let mut estimator = TpeOptimizerBuilder::new();
        estimator.gamma(GAMMA);
        let estimator = |_| estimator.build(parzen_estimator(), range).expect("gamma is a share");
        let estimators = DIMENSIONS.iter().map(estimator).collect();
        let mut search = Self { random, settings, estimators, planned };
        for (trial, loss) in told {
            search.tell(&trial.params, loss);
        }
        search
    }

    fn ask(&mut self) -> Params {
        let places = match self.planned.pop() {
            Some(Plan::Params(params)) => return params,
            Some(Plan::Places(places)) => places,
            None => self.ask_estimators(),
        };
        let mut params = self.settings.start.clone();
        for (dimension, place) in DIMENSIONS.iter().zip(places) {
            dimension.set(&self.settings.space, &mut params, place);
        }
        params
    }

    fn ask_estimators(&mut self) -> Vec<f64> {
        let random = &mut self.random;
        let ask = |estimator: &mut TpeOptimizer| match estimator.ask(random) {
            Ok(place) => place,
            Err(never) => match never {},
        };
        self.estimators.iter_mut().map(ask).collect()
    }

    fn tell(&mut self, params: &Params, loss: f64) {
        if loss.is_nan() {
            return;
        }
        for (dimension, estimator) in DIMENSIONS.iter().zip(&mut self.estimators) {
            // NaN tells the estimator that the parameter was not searched. Its range ends before 1.
            let place = dimension
                .place(&self.settings.space, params)
                .map_or(f64::NAN, |place| place.min(1.0 - f64::EPSILON));
            estimator.tell(place, loss).expect("the place is in the range and the loss a number");
        }
    }
}

/// The parameters that are searched, of a trial of another study; the others stay the start's.
fn take_over(settings: &TuningSettings, earlier: &Params) -> Params {
    let mut params = settings.start.clone();
    for dimension in &DIMENSIONS {
        dimension.copy(&settings.space, earlier, &mut params);
    }
    params
}

/// A Latin hypercube: in every dimension, each trial has a part of the range to itself.
fn cover(random: &mut StdRng) -> Vec<Vec<f64>> {
    let mut trials = vec![Vec::new(); COVERING];
    for _ in &DIMENSIONS {
        let mut parts: Vec<usize> = (0..COVERING).collect();
        parts.shuffle(random);
        for (trial, part) in trials.iter_mut().zip(parts) {
            trial.push((part as f64 + random.random::<f64>()) / COVERING as f64);
        }
    }
    trials
}

/// Whether a trial is given up that has lost so much in the first folds, where earlier ones have lost this.
fn is_to_be_pruned(so_far: f64, earlier: &[f64]) -> bool {
    earlier.len() >= UNPRUNED && so_far > median(earlier)
}

/// A trial's log loss in proportion to that of trial 0, of which each fold's is given; of a pruned one, in the first folds.
fn in_proportion(trial: &Trial, baseline: &[f64]) -> f64 {
    let folds = baseline.len();
    let run = if trial.pruned { first_folds(folds) } else { folds };
    trial.log_loss / mean(&baseline[..run]).expect("trial 0 has run every fold")
}

/// How many folds are run before a trial may be pruned.
fn first_folds(folds: usize) -> usize {
    (folds / 2).max(1)
}

/// Each trial's log loss in proportion to its study's trial 0; trials before the first such are left out.
fn against_their_baselines(earlier: &[Trial]) -> Vec<(&Trial, f64)> {
    let mut baseline = None;
    let mut told = Vec::new();
    for trial in earlier {
        if trial.number == 0 {
            baseline = Some(trial.log_loss);
        }
        told.extend(
            baseline
                .filter(|baseline| *baseline > 0.0)
                .map(|baseline| (trial, trial.log_loss / baseline)),
        );
    }
    told
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
    use crate::training::tests::{examples, spec};

    fn settings(trials: u32, threads: u32) -> TuningSettings {
        let start =
            Params { min_data_in_leaf: 5, learning_rate: 0.2, num_leaves: 5, ..Params::default() };
        let space = Space {
            num_leaves: Some(crate::training::Range::linear(3.0, 15.0)),
            ..Space::default()
        };
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
        let classes_count = usize::try_from(classes).unwrap();
        tune(
            &examples(300, classes, 5),
            &spec(),
            classes_count,
            (settings, Seed(1)),
            earlier,
            watch,
        )
        .unwrap()
    }

    #[test]
    fn threads_change_nothing_but_the_time() {
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
    fn what_is_tried_follows_what_earlier_studies_found() {
        let settings = settings(1, 1);
        let asked = |loss_of: fn(u32) -> f64| {
            let study = (0..12).map(|number| {
                let params = Params { num_leaves: 3 + number, ..settings.start.clone() };
                Trial { number, params, ..trial(loss_of(number), false) }
            });
            let study: Vec<Trial> = study.collect();
            let mut search = Search::new(&settings, Seed(1), &study);
            // They have covered the space: the best of them, and then the estimator.
            assert_eq!(search.planned.len(), 1);
            let asked = (0..40).map(|_| f64::from(search.ask().num_leaves));
            mean(&asked.collect::<Vec<_>>()).unwrap()
        };
        let (few, many) = (asked(|number| f64::from(number + 1)), asked(|n| f64::from(12 - n)));
        assert!(few + 1.0 < many, "{few} {many}");
        assert_eq!(Search::new(&settings, Seed(1), &[]).planned.len(), COVERING);
    }

    fn trial(log_loss: f64, pruned: bool) -> Trial {
        let params = settings(1, 1).start;
        Trial { number: 1, params, log_loss, auc: None, iterations: 9, pruned }
    }

    #[test]
    fn a_trial_that_was_given_up_is_never_the_best() {
        let trials = [trial(0.5, false), trial(0.1, true), trial(0.3, false), trial(0.4, false)];
        assert_eq!(best(&trials), Some(&trials[2]));
        assert_eq!(best(&trials[1..2]), None);
    }

    #[test]
    fn the_worse_half_is_given_up_when_there_is_something_to_compare_with() {
        let check = |so_far: f64, earlier: &[f64], expected: bool| {
            assert_eq!(is_to_be_pruned(so_far, earlier), expected, "{so_far} {earlier:?}");
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
            let found = in_proportion(trial, &[1.0, 3.0, 6.0, 10.0]);
            assert!((found - expected).abs() < 1e-12, "{found}, not {expected}");
        };
        check(&trial(2.5, false), 0.5);
        check(&trial(1.0, true), 0.5);
    }

    #[test]
    fn three_classes_are_tuned_too() {
        let tuned = run(&settings(3, 2), 3, &[]);
        assert!(
            tuned.trials.iter().all(|trial| trial.auc.is_some_and(|auc| auc > 0.5)),
            "{:?}",
            tuned.trials
        );
    }

    #[test]
    fn earlier_trials_warm_it_up() {
        let study = |number, log_loss, num_leaves| Trial {
            number,
            params: Params { num_leaves, max_bin: 63, ..settings(1, 1).start },
            log_loss,
            auc: None,
            iterations: 9,
            pruned: false,
        };
        // The loss of 0.5 is the best in proportion to its own study's trial 0.
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
        let (settings, examples) = (settings(9, 2), examples(300, 2, 5));
        let mut told = 0;
        let mut on_trial = |_: &Trial| {
            told += 1;
            if told == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let watch = Watch { on_trial: &mut on_trial, stop: &|| false };
        let tuned = tune(&examples, &spec(), 2, (&settings, Seed(1)), &[], watch).unwrap();
        assert_eq!(tuned.trials.len(), 2);
        let mut on_trial = |_: &Trial| ControlFlow::Continue(());
        let watch = Watch { on_trial: &mut on_trial, stop: &|| true };
        let tuned = tune(&examples, &spec(), 2, (&settings, Seed(1)), &[], watch).unwrap();
        assert_eq!(tuned, Tuned { params: settings.start, trials: Vec::new() });
    }

    #[test]
    fn what_cannot_be_tuned_is_an_error() {
        let check = |examples: &[Example], settings: &TuningSettings, expected: TrainingError| {
            let mut on_trial = |_: &Trial| ControlFlow::Continue(());
            let watch = Watch { on_trial: &mut on_trial, stop: &|| false };
            assert_eq!(tune(examples, &spec(), 2, (settings, Seed(1)), &[], watch), Err(expected));
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
            TrainingError::Setting { name: "folds", value: 1.0, low: 2.0, high: MANY },
        );
    }
}

//! Stratified k-fold cross-validation of one set of parameters, on a few threads.

use std::{
    convert::Infallible,
    ops::Range,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::{
    FittedPipeline, Label, Probabilities, Sample, Seed,
    lightgbm::{Booster, Dataset, Growth},
    training::{Params, TrainingData, TrainingError, auc, check_folds, dataset, folds},
    trees::{ParseError, Sums, Trees},
};

/// The folds of a study, binned once. The pipeline of each fold is fitted without its validation examples, so a
/// category that occurs only in them is unseen, as it is in serving.
pub(super) struct CrossValidation<'a> {
    /// Locked by the thread that works on the fold: a [`Dataset`] is not `Sync`.
    folds: Vec<Mutex<Fold<'a>>>,
    classes: usize,
    threads: usize,
    iterations_max: u32,
    early_stopping_rounds: u32,
}

struct Fold<'a> {
    training: Dataset,
    validation: Dataset,
    pipeline: FittedPipeline,
    /// The validation examples, to compute the AUC at the best iteration.
    held_out: Sample<'a>,
}

/// Settings of a cross-validation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) folds: usize,
    pub(super) threads: usize,
    pub(super) iterations_max: u32,
    /// Iterations without a lower log loss after which a fold stops.
    pub(super) early_stopping_rounds: u32,
}

/// Validation metrics of one fold at its best iteration.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct FoldResult {
    pub(super) log_loss: f64,
    pub(super) auc: Option<f64>,
    /// The best iteration, counted from 1.
    pub(super) iterations: u32,
}

impl<'a> CrossValidation<'a> {
    /// Splits the examples, and fits a pipeline and bins the features for each fold. Of `parameters`, only those about
    /// bins matter here.
    pub(super) fn new(
        data: TrainingData<'a>,
        parameters: &str,
        seed: Seed,
        limits: Limits,
    ) -> Result<Self, TrainingError> {
        let TrainingData { examples, spec, classes } = data;
        check_folds(examples, classes, limits.folds)?;
        let labels: Vec<Label> = examples.labels().collect();
        let fold_of = folds::stratified(&labels, limits.folds, seed);
        let mut folds = Vec::with_capacity(limits.folds);
        for number in 0..limits.folds {
            let without = examples.subset(|index| fold_of[index] != number);
            let held_out = examples.subset(|index| fold_of[index] == number);
            let pipeline = spec.fit(&without);
            let training = dataset::bin(&pipeline, &without, parameters)?;
            let validation = dataset::bin_like(&training, &pipeline, &held_out)?;
            folds.push(Mutex::new(Fold { training, validation, pipeline, held_out }));
        }
        let Limits { threads, iterations_max, early_stopping_rounds, .. } = limits;
        Ok(Self { folds, classes, threads, iterations_max, early_stopping_rounds })
    }

    /// Runs the folds in `range` and returns their results in order, for any number of threads; `None` if `stop`
    /// returned `true` between two iterations.
    pub(super) fn run(
        &self,
        range: Range<usize>,
        params: &Params,
        seed: Seed,
        stop: &(dyn Fn() -> bool + Sync),
    ) -> Result<Option<Vec<FoldResult>>, TrainingError> {
        let parameters = params.to_lightgbm(self.classes, seed);
        let next = AtomicUsize::new(range.start);
        let work = || -> Result<Vec<(usize, FoldResult)>, TrainingError> {
            let mut done = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= range.end {
                    return Ok(done);
                }
                let fold = self.folds[number].lock().unwrap_or_else(PoisonError::into_inner);
                let rounds = self.early_stopping_rounds;
                match fold.run(&parameters, self.iterations_max, rounds, stop)? {
                    Some(result) => done.push((number, result)),
                    None => return Ok(done),
                }
            }
        };
        let outcomes = std::thread::scope(|scope| {
            let workers: Vec<_> =
                (1..self.threads.min(range.len())).map(|_| scope.spawn(work)).collect();
            let mut outcomes = vec![work()];
            outcomes.extend(workers.into_iter().map(|worker| match worker.join() {
                Ok(outcome) => outcome,
                Err(panic) => std::panic::resume_unwind(panic),
            }));
            outcomes
        });
        let mut results = Vec::new();
        for outcome in outcomes {
            results.extend(outcome?);
        }
        results.sort_by_key(|(number, _)| *number);
        Ok((results.len() == range.len())
            .then(|| results.into_iter().map(|(_, result)| result).collect()))
    }
}

impl Fold<'_> {
    /// Trains until `early_stopping_rounds` iterations have not lowered the validation log loss; `None` if `stop`
    /// returned `true`.
    fn run(
        &self,
        parameters: &str,
        iterations_max: u32,
        early_stopping_rounds: u32,
        stop: &(dyn Fn() -> bool + Sync),
    ) -> Result<Option<FoldResult>, TrainingError> {
        let mut booster = Booster::new(&self.training, parameters)?;
        booster.validate_on(&self.validation)?;
        let (mut best_log_loss, mut best) = (f64::INFINITY, 1);
        for iteration in 1..=iterations_max {
            if stop() {
                return Ok(None);
            }
            let growth = booster.grow()?;
            // Data set 1 is the validation set; log loss is the only metric in our parameters.
            let log_loss = booster.evaluate(1)?.first().copied().unwrap_or(f64::INFINITY);
            if log_loss < best_log_loss {
                (best_log_loss, best) = (log_loss, iteration);
            }
            if growth == Growth::Finished || iteration - best >= early_stopping_rounds {
                break;
            }
        }
        let auc = self.auc(&booster.save(Some(best))?)?;
        Ok(Some(FoldResult { log_loss: best_log_loss, auc, iterations: best }))
    }

    fn auc(&self, model: &str) -> Result<Option<f64>, TrainingError> {
        let unservable =
            |error: ParseError| TrainingError::Unservable { reason: error.to_string() };
        let trees = Trees::parse(model).map_err(unservable)?;
        let (mut row, mut sums) = (Vec::new(), Sums::default());
        let mut predictions = Vec::with_capacity(self.held_out.len());
        let Ok(()) = self.pipeline.each_row(&self.held_out, |features| {
            row.clear();
            row.extend_from_slice(features);
            trees.sums(&mut row, &mut sums);
            predictions.push(Probabilities::new(trees.probabilities(&sums.sums)));
            Ok::<(), Infallible>(())
        });
        let labels: Vec<Label> = self.held_out.labels().collect();
        Ok(auc(&predictions, &labels))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;
    use crate::{
        Example, PipelineSpec, TrainingSet, Value,
        training::tests::{examples, recipe, spec},
    };

    const FOLDS: usize = 4;
    const EARLY_STOPPING_ROUNDS: u32 = 10;

    fn params() -> Params {
        Params { min_data_in_leaf: 1, learning_rate: 0.3, ..recipe(2).params }
    }

    fn set(examples: &[Example]) -> TrainingSet {
        TrainingSet::of(spec().columns(), examples)
    }

    fn validation<'a>(
        examples: &'a Sample<'a>,
        iterations_max: u32,
        threads: usize,
    ) -> CrossValidation<'a> {
        let parameters = params().to_lightgbm(2, Seed(1));
        let limits = Limits {
            folds: FOLDS,
            threads,
            iterations_max,
            early_stopping_rounds: EARLY_STOPPING_ROUNDS,
        };
        static SPEC: LazyLock<PipelineSpec> = LazyLock::new(spec);
        let data = TrainingData { examples, spec: &SPEC, classes: 2 };
        CrossValidation::new(data, &parameters, Seed(1), limits).unwrap()
    }

    fn run(validation: &CrossValidation<'_>, to: usize) -> Vec<FoldResult> {
        validation.run(0..to, &params(), Seed(1), &|| false).unwrap().unwrap()
    }

    #[test]
    fn a_fold_is_validated_on_examples_that_it_was_not_trained_on() {
        // Random labels: only a model that was trained on an example can predict its label.
        let mut unpredictable = examples(400, 2, 1);
        for (example, other) in unpredictable.iter_mut().zip(examples(400, 2, 77)) {
            example.label = other.label;
        }
        let set = set(&unpredictable);
        for result in run(&validation(&set.sample(), 60, 1), FOLDS) {
            assert!(result.log_loss > 0.6 && result.auc.unwrap() < 0.7, "{result:?}");
        }
    }

    #[test]
    fn categories_of_validation_examples_only_are_unseen() {
        let mut examples = examples(40, 2, 1);
        for (number, example) in examples.iter_mut().enumerate() {
            example.values[1] = Value::Text(format!("category {number}"));
        }
        let (set, mut codes) = (set(&examples), Vec::new());
        let sample = set.sample();
        let validation = validation(&sample, 10, 1);
        for fold in &validation.folds {
            let fold = fold.lock().unwrap();
            let held_out = fold.held_out.len();
            // The categories of the training examples have the codes before this one.
            let unseen = (examples.len() - held_out) as f64;
            assert!(held_out > 0);
            let Ok(()) = fold.pipeline.each_row(&fold.held_out, |row| {
                codes.push(row[1].to_bits());
                Ok::<(), Infallible>(())
            });
            assert!(codes.drain(..).all(|code| code == unseen.to_bits()));
        }
    }

    #[test]
    fn a_fold_stops_early_and_reports_its_best_iteration() {
        let examples = examples(400, 2, 1);
        let grown = AtomicUsize::new(0);
        let count = || {
            grown.fetch_add(1, Ordering::Relaxed);
            false
        };
        let set = set(&examples);
        let sample = set.sample();
        let whole = validation(&sample, 500, 1);
        let result = whole.run(0..1, &params(), Seed(1), &count).unwrap().unwrap()[0];
        let grown = u32::try_from(grown.into_inner()).unwrap();
        assert!(result.iterations > 1 && grown < 500, "it did not stop early: {result:?}");
        assert_eq!(grown, result.iterations + EARLY_STOPPING_ROUNDS);
        // The iterations after the best one do not change the result.
        assert_eq!(run(&validation(&sample, result.iterations, 1), 1), [result]);
    }

    #[test]
    fn results_are_in_the_order_of_the_folds() {
        let examples = examples(400, 2, 1);
        let set = set(&examples);
        let sample = set.sample();
        let expected = run(&validation(&sample, 30, 1), FOLDS);
        for threads in 2..=FOLDS {
            assert_eq!(run(&validation(&sample, 30, threads), FOLDS), expected, "{threads}");
        }
    }
}

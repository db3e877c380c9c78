//! k-fold cross-validation of one set of parameters, on a few threads.

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
    training::{
        FoldOrder, Metric, Params, TrainingData, TrainingError, auc, check_folds, dataset,
        fold_metrics,
        folds::{Folds, Part},
    },
    trees::{ParseError, Sums, Trees},
};

/// The folds of a study, binned once. The pipeline of each fold is fitted without its validation examples, so a
/// category that occurs only in them is unseen, as it is in serving.
pub(super) struct CrossValidation<'a> {
    /// Locked by the thread that works on the fold: a [`Dataset`] is not `Sync`.
    folds: Vec<Mutex<Fold<'a>>>,
    classes: usize,
    seed: Seed,
    limits: Limits,
}

struct Fold<'a> {
    pipeline: FittedPipeline,
    kept: Sample<'a>,
    /// The validation examples, to compute metrics at the best iteration.
    held_out: Sample<'a>,
    /// One for each `max_bin` that the study has tried, of which a space has at most four.
    bins: Vec<Bins>,
}

/// The examples of a fold as LightGBM takes them.
struct Bins {
    max_bin: u32,
    training: Dataset,
    validation: Dataset,
}

/// Settings of a cross-validation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) folds: usize,
    pub(super) order: FoldOrder,
    pub(super) threads: usize,
    pub(super) iterations_max: u32,
    /// Iterations without a lower log loss after which a fold stops.
    pub(super) early_stopping_rounds: u32,
    pub(super) objective: Metric,
}

/// Validation metrics of one fold at its best iteration.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct FoldResult {
    pub(super) log_loss: f64,
    pub(super) auc: Option<f64>,
    /// The metric that the study optimises, if it is defined for the fold.
    pub(super) value: Option<f64>,
    /// The best iteration, counted from 1.
    pub(super) iterations: u32,
}

impl<'a> CrossValidation<'a> {
    /// Splits the examples, and fits a pipeline and bins the features for each fold. Of `params`, only those about bins
    /// matter here.
    pub(super) fn new(
        data: TrainingData<'a>,
        params: &Params,
        seed: Seed,
        limits: Limits,
    ) -> Result<Self, TrainingError> {
        let TrainingData { examples, spec, classes } = data;
        check_folds(examples, classes, limits.folds, limits.order)?;
        let labels: Vec<Label> = examples.labels().collect();
        let parts = Folds::new(limits.order, &labels, limits.folds, seed);
        drop(labels);
        let mut folds = Vec::with_capacity(limits.folds);
        for number in 0..limits.folds {
            let of_part = |part| examples.subset(|index| parts.part(index, number) == part);
            let (kept, held_out) = (of_part(Part::Training), of_part(Part::Validation));
            let pipeline = spec.fit(&kept);
            let mut fold = Fold { pipeline, kept, held_out, bins: Vec::new() };
            fold.bin(params, &params.to_lightgbm(classes, seed))?;
            folds.push(Mutex::new(fold));
        }
        Ok(Self { folds, classes, seed, limits })
    }

    /// Runs the folds in `range` and returns their results in order, for any number of threads; `None` if `stop`
    /// returned `true` between two iterations.
    ///
    /// # Errors
    /// That of the first fold that fails, whichever is the first to do so.
    pub(super) fn run(
        &self,
        range: Range<usize>,
        params: &Params,
        stop: &(dyn Fn() -> bool + Sync),
    ) -> Result<Option<Vec<FoldResult>>, TrainingError> {
        let parameters = params.to_lightgbm(self.classes, self.seed);
        let next = AtomicUsize::new(range.start);
        let work = || {
            let mut done: Vec<(usize, Result<FoldResult, TrainingError>)> = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= range.end {
                    return done;
                }
                let mut fold = self.folds[number].lock().unwrap_or_else(PoisonError::into_inner);
                let result = match fold.run(params, &parameters, self.limits, stop) {
                    Ok(Some(result)) => Ok(result),
                    Ok(None) => return done,
                    Err(error) => Err(error),
                };
                let has_failed = result.is_err();
                done.push((number, result));
                if has_failed {
                    return done;
                }
            }
        };
        let mut results = std::thread::scope(|scope| {
            let workers: Vec<_> =
                (1..self.limits.threads.min(range.len())).map(|_| scope.spawn(work)).collect();
            let mut results = work();
            for worker in workers {
                match worker.join() {
                    Ok(done) => results.extend(done),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            results
        });
        results.sort_by_key(|(number, _)| *number);
        let results = results.into_iter().map(|(_, result)| result);
        let results = results.collect::<Result<Vec<FoldResult>, TrainingError>>()?;
        Ok((results.len() == range.len()).then_some(results))
    }
}

impl Fold<'_> {
    /// The index of the bins for some parameters, which are made if this is their first use.
    fn bin(&mut self, params: &Params, parameters: &str) -> Result<usize, TrainingError> {
        let max_bin = params.max_bin;
        if let Some(index) = self.bins.iter().position(|bins| bins.max_bin == max_bin) {
            return Ok(index);
        }
        let training = dataset::bin(&self.pipeline, &self.kept, parameters)?;
        let validation = dataset::bin_like(&training, &self.pipeline, &self.held_out)?;
        self.bins.push(Bins { max_bin, training, validation });
        Ok(self.bins.len() - 1)
    }

    /// Trains until `early_stopping_rounds` iterations have not lowered the validation log loss; `None` if `stop`
    /// returned `true`.
    fn run(
        &mut self,
        params: &Params,
        parameters: &str,
        limits: Limits,
        stop: &(dyn Fn() -> bool + Sync),
    ) -> Result<Option<FoldResult>, TrainingError> {
        let index = self.bin(params, parameters)?;
        let Bins { training, validation, .. } = &self.bins[index];
        let mut booster = Booster::new(training, parameters)?;
        booster.validate_on(validation)?;
        let (mut best_log_loss, mut best) = (f64::INFINITY, 1);
        for iteration in 1..=limits.iterations_max {
            if stop() {
                return Ok(None);
            }
            let growth = booster.grow()?;
            // Data set 1 is the validation set; log loss is the only metric in our parameters.
            let log_loss = booster.evaluate(1)?.first().copied().unwrap_or(f64::INFINITY);
            if log_loss < best_log_loss {
                (best_log_loss, best) = (log_loss, iteration);
            }
            if growth == Growth::Finished || iteration - best >= limits.early_stopping_rounds {
                break;
            }
        }
        if params.revises_trees() {
            // The first trees are not what they were at the best iteration.
            booster = Booster::new(training, parameters)?;
            for _ in 0..best {
                if stop() {
                    return Ok(None);
                }
                booster.grow()?;
            }
        }
        let predictions = self.predictions(&booster.save(Some(best))?)?;
        let labels: Vec<Label> = self.held_out.labels().collect();
        let value = match limits.objective {
            Metric::LogLoss => Some(best_log_loss),
            metric @ (Metric::Auc | Metric::F1 | Metric::Accuracy) => {
                fold_metrics::value_of(metric, &predictions, &labels)
            }
        };
        let auc = auc(&predictions, &labels);
        Ok(Some(FoldResult { log_loss: best_log_loss, auc, value, iterations: best }))
    }

    fn predictions(&self, model: &str) -> Result<Vec<Probabilities>, TrainingError> {
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
        Ok(predictions)
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
        let limits = Limits {
            folds: FOLDS,
            order: FoldOrder::Shuffled,
            threads,
            iterations_max,
            early_stopping_rounds: EARLY_STOPPING_ROUNDS,
            objective: Metric::LogLoss,
        };
        static SPEC: LazyLock<PipelineSpec> = LazyLock::new(spec);
        let data = TrainingData { examples, spec: &SPEC, classes: 2 };
        CrossValidation::new(data, &params(), Seed(1), limits).unwrap()
    }

    fn run(validation: &CrossValidation<'_>, to: usize) -> Vec<FoldResult> {
        validation.run(0..to, &params(), &|| false).unwrap().unwrap()
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
        let result = whole.run(0..1, &params(), &count).unwrap().unwrap()[0];
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

    /// Results for parameters that need more than the default ones.
    fn results(params: &Params, threads: usize, objective: Metric) -> Vec<FoldResult> {
        let set = set(&examples(400, 2, 1));
        let sample = set.sample();
        let mut validation = validation(&sample, 40, threads);
        validation.limits.objective = objective;
        validation.run(0..FOLDS, params, &|| false).unwrap().unwrap()
    }

    #[test]
    fn bins_of_another_number_are_made_when_they_are_tried() {
        let few = Params { max_bin: 4, ..params() };
        let set = set(&examples(400, 2, 1));
        let sample = set.sample();
        let validation = validation(&sample, 40, 2);
        let usual = run(&validation, FOLDS);
        let of_few = validation.run(0..FOLDS, &few, &|| false).unwrap().unwrap();
        assert_ne!(of_few, usual);
        assert_eq!(run(&validation, FOLDS), usual);
        for fold in &validation.folds {
            assert_eq!(fold.lock().unwrap().bins.len(), 2);
        }
    }

    #[test]
    fn metrics_of_trees_that_are_revised_are_those_of_the_best_iteration() {
        let dart = ("boosting".to_owned(), crate::training::ParamValue::of_text("dart"));
        let dart = Params { extra: [dart].into(), ..params() };
        let results = results(&dart, 2, Metric::Auc);
        let set = set(&examples(400, 2, 1));
        let sample = set.sample();
        for (number, result) in results.iter().enumerate() {
            // The model of so many iterations, trained as the model of a study is, has this log loss.
            let validation = validation(&sample, result.iterations, 1);
            let fold = validation.folds[number].lock().unwrap();
            let parameters = dart.to_lightgbm(2, Seed(1));
            let mut booster = Booster::new(&fold.bins[0].training, &parameters).unwrap();
            for _ in 0..result.iterations {
                booster.grow().unwrap();
            }
            let predictions = fold.predictions(&booster.save(None).unwrap()).unwrap();
            let labels: Vec<Label> = fold.held_out.labels().collect();
            let loss = crate::training::log_loss(&predictions, &labels).unwrap();
            assert!((loss - result.log_loss).abs() < 1e-9, "{loss} {result:?}");
            assert_eq!(result.auc, auc(&predictions, &labels));
            assert_eq!(result.value, result.auc);
        }
    }

    #[test]
    fn the_error_of_a_fold_is_the_same_on_any_number_of_threads() {
        let set = set(&examples(400, 2, 1));
        let sample = set.sample();
        let goss = crate::training::ParamValue::of_text("goss");
        let extra = [("data_sample_strategy".to_owned(), goss)].into();
        let refused = Params { bagging_fraction: 0.5, extra, ..params() };
        let error = |threads| {
            let validation = validation(&sample, 30, threads);
            validation.run(0..FOLDS, &refused, &|| false).unwrap_err()
        };
        assert!(matches!(error(1), TrainingError::LightGbm(_)), "{:?}", error(1));
        assert_eq!(error(1), error(3));
    }

    #[test]
    fn in_the_order_of_time_the_future_is_predicted_from_the_past() {
        // The concept turns around after half of the examples: only the past of a fold can tell its model.
        let mut turned = examples(2400, 2, 1);
        for example in &mut turned[1200..] {
            example.label.0 = 1 - example.label.0;
        }
        let set = set(&turned);
        let sample = set.sample();
        let of = |order| {
            let limits = Limits {
                folds: 3,
                order,
                threads: 2,
                iterations_max: 30,
                early_stopping_rounds: 5,
                objective: Metric::Auc,
            };
            static SPEC: LazyLock<PipelineSpec> = LazyLock::new(spec);
            let data = TrainingData { examples: &sample, spec: &SPEC, classes: 2 };
            let validation = CrossValidation::new(data, &params(), Seed(1), limits).unwrap();
            validation.run(0..3, &params(), &|| false).unwrap().unwrap()
        };
        let aucs: Vec<f64> = of(FoldOrder::Time).iter().map(|fold| fold.auc.unwrap()).collect();
        assert!(aucs[0] > 0.9, "before the turn: {aucs:?}");
        assert!(aucs[1] < 0.2, "at the turn: {aucs:?}");
        let shuffled = of(FoldOrder::Shuffled);
        assert!(
            shuffled.iter().all(|fold| (0.3..0.7).contains(&fold.auc.unwrap())),
            "{shuffled:?}"
        );
    }
}

//! One set of parameters, trained without each fold in turn and validated on it, on a few threads.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use crate::ml::{
    Example, Label, PipelineSpec, Probabilities, Seed,
    lightgbm::{Booster, Dataset, Growth},
    training::{
        Params, TrainingError, auc,
        dataset::{self, Table},
        folds,
    },
    trees::{ParseError, Sums, Trees},
};

/// The folds, binned once for a whole study. Each has a pipeline fitted without the examples that validate it: what
/// is never seen in training is never seen here either.
pub(super) struct CrossValidation {
    /// A fold belongs to whichever thread works on it.
    folds: Vec<Mutex<Fold>>,
    classes: usize,
    threads: usize,
    iterations_max: u32,
    patience: u32,
}

struct Fold {
    training: Dataset,
    validation: Dataset,
    /// What validates, to be scored once the best iteration is known.
    table: Table,
    labels: Vec<Label>,
}

/// How it is run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) folds: usize,
    pub(super) threads: usize,
    pub(super) iterations_max: u32,
    /// It stops after so many iterations without a better log loss.
    pub(super) patience: u32,
}

/// What one fold said.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct FoldResult {
    /// At the best iteration.
    pub(super) log_loss: f64,
    pub(super) auc: Option<f64>,
    /// The best one, counted from 1.
    pub(super) iterations: u32,
}

impl CrossValidation {
    /// Splits, fits and bins; of the parameters only those about bins matter here.
    pub(super) fn new(
        examples: &[Example],
        spec: &PipelineSpec,
        parameters: &str,
        classes: usize,
        seed: Seed,
        limits: Limits,
    ) -> Result<Self, TrainingError> {
        let minority = dataset::check(examples, classes)?;
        if minority < 2 {
            return Err(TrainingError::TooFew { minority });
        }
        let fold_of = folds::stratified(examples, limits.folds, seed);
        let numbered = || examples.iter().zip(&fold_of);
        let mut folds = Vec::with_capacity(limits.folds);
        for number in 0..limits.folds {
            let without =
                numbered().filter(|(_, fold)| **fold != number).map(|(example, _)| example);
            let held_out =
                numbered().filter(|(_, fold)| **fold == number).map(|(example, _)| example);
            if held_out.clone().next().is_none() {
                return Err(TrainingError::TooFew { minority });
            }
            let pipeline = dataset::fit(spec, without.clone());
            let training = Dataset::new(Table::new(&pipeline, without).matrix(), parameters)?;
            let table = Table::new(&pipeline, held_out.clone());
            let validation = training.aligned(table.matrix(), parameters)?;
            let labels = held_out.map(|example| example.label).collect();
            folds.push(Mutex::new(Fold { training, validation, table, labels }));
        }
        let Limits { threads, iterations_max, patience, .. } = limits;
        Ok(Self { folds, classes, threads, iterations_max, patience })
    }

    /// Runs the folds `from..to` and answers in their order, whatever the number of threads; none if `stop` said so
    /// between two iterations.
    pub(super) fn run(
        &self,
        (from, to): (usize, usize),
        params: &Params,
        seed: Seed,
        stop: &(dyn Fn() -> bool + Sync),
    ) -> Result<Option<Vec<FoldResult>>, TrainingError> {
        let parameters = params.to_lightgbm(self.classes, seed);
        let next = AtomicUsize::new(from);
        let work = || -> Result<Vec<(usize, FoldResult)>, TrainingError> {
            let mut done = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= to {
                    return Ok(done);
                }
                let fold = self.folds[number].lock().unwrap_or_else(PoisonError::into_inner);
                match fold.run(&parameters, self.iterations_max, self.patience, stop)? {
                    Some(result) => done.push((number, result)),
                    None => return Ok(done),
                }
            }
        };
        let outcomes = std::thread::scope(|scope| {
            let workers: Vec<_> =
                (1..self.threads.min(to - from)).map(|_| scope.spawn(work)).collect();
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
        Ok((results.len() == to - from)
            .then(|| results.into_iter().map(|(_, result)| result).collect()))
    }
}

impl Fold {
    /// Grows until `patience` iterations have not made the log loss better; none if `stop` said so.
    fn run(
        &self,
        parameters: &str,
        iterations_max: u32,
        patience: u32,
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
            // The only metric of our parameters; 1 is the validation set.
            let log_loss = booster.evaluate(1)?.first().copied().unwrap_or(f64::INFINITY);
            if log_loss < best_log_loss {
                (best_log_loss, best) = (log_loss, iteration);
            }
            if growth == Growth::Finished || iteration - best >= patience {
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
        let predict = |features: &[f64]| {
            row.clear();
            row.extend_from_slice(features);
            trees.sums(&mut row, &mut sums);
            Probabilities::new(trees.probabilities(&sums.sums))
        };
        Ok(auc(&self.table.rows().map(predict).collect::<Vec<_>>(), &self.labels))
    }
}

//! What is fitted to predictions for held-out examples, the calibration and the threshold, and the evaluation of both.

use crate::{
    Label, Metric, Probabilities,
    judge::{self, Predictions},
    training::{
        Calibrator, EvaluatedOn, Evaluation, Intervals, Recipe, Threshold, folds,
        threshold::{self, UNDECIDED},
    },
};

/// The evaluation fits calibration and threshold to all but one in this many held-out examples, in turn.
const FOLDS: usize = 5;

/// Predictions of the trees alone for examples that they were not trained on.
#[derive(Debug)]
pub(super) struct HeldOut {
    pub(super) probabilities: Vec<Probabilities>,
    pub(super) labels: Vec<Label>,
}

/// How the probabilities of the trees become the probabilities of a model and its decisions.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct DecisionRule {
    pub(super) calibrator: Option<Calibrator>,
    pub(super) threshold: f64,
}

impl DecisionRule {
    /// The rule without held-out examples.
    pub(super) fn unfitted(recipe: &Recipe) -> Self {
        let threshold = match recipe.threshold {
            Threshold::Fixed(threshold) => threshold,
            Threshold::Best(_) => UNDECIDED,
        };
        Self { calibrator: None, threshold }
    }

    /// Fits the calibration, and then the threshold to the calibrated probabilities.
    fn fit(recipe: &Recipe, probabilities: &[Probabilities], labels: &[Label]) -> Self {
        let mut rule = Self::unfitted(recipe);
        rule.calibrator = Calibrator::fit(recipe.calibration, probabilities, labels);
        if let Threshold::Best(metric) = recipe.threshold {
            let calibrated = |one| rule.calibrated(one);
            let calibrated: Vec<Probabilities> = probabilities.iter().map(calibrated).collect();
            rule.threshold = threshold::best(metric, &calibrated, labels).unwrap_or(UNDECIDED);
        }
        rule
    }

    fn calibrated(&self, probabilities: &Probabilities) -> Probabilities {
        let calibrator = self.calibrator.as_ref();
        calibrator.map_or_else(|| probabilities.clone(), |all| all.apply(probabilities))
    }
}

impl HeldOut {
    /// The rule of a recipe, fitted to all examples.
    pub(super) fn rule(&self, recipe: &Recipe) -> DecisionRule {
        DecisionRule::fit(recipe, &self.probabilities, &self.labels)
    }

    /// The probabilities that a model with this rule gives.
    pub(super) fn calibrated(&self, rule: &DecisionRule) -> Vec<Probabilities> {
        self.probabilities.iter().map(|one| rule.calibrated(one)).collect()
    }

    /// The evaluation of a recipe. What is fitted to held-out examples is fitted without those that it is evaluated on, so
    /// that the evaluation is not too optimistic.
    pub(super) fn evaluate(&self, recipe: &Recipe) -> Evaluation {
        let folds = if recipe.fits_to_held_out() { FOLDS } else { 1 };
        let fold_of = folds::stratified(&self.labels, folds, recipe.seed);
        let mut predictions = Predictions {
            probabilities: self.probabilities.clone(),
            decisions: self.labels.clone(),
        };
        for fold in 0..folds {
            let rule = if folds > 1 {
                let others = || fold_of.iter().zip(0..).filter(|(of, _)| **of != fold);
                let probabilities: Vec<Probabilities> = others()
                    .map(|(_, index): (_, usize)| self.probabilities[index].clone())
                    .collect();
                let labels: Vec<Label> = others().map(|(_, index)| self.labels[index]).collect();
                DecisionRule::fit(recipe, &probabilities, &labels)
            } else {
                DecisionRule::unfitted(recipe)
            };
            for (index, _) in fold_of.iter().enumerate().filter(|(_, of)| **of == fold) {
                let calibrated = rule.calibrated(&self.probabilities[index]);
                predictions.decisions[index] = calibrated.decide(rule.threshold);
                predictions.probabilities[index] = calibrated;
            }
        }
        evaluate_predictions(&predictions, &self.labels, recipe, EvaluatedOn::Fifth)
    }
}

/// The evaluation of predictions, with intervals if the recipe asks for them.
pub(super) fn evaluate_predictions(
    predictions: &Predictions,
    labels: &[Label],
    recipe: &Recipe,
    on: EvaluatedOn,
) -> Evaluation {
    let interval = |metric| {
        let settings = judge::Settings { metric, seed: recipe.seed, ..judge::Settings::default() };
        judge::interval(predictions, labels, &settings)
    };
    let intervals = || Intervals {
        confidence: judge::Settings::default().confidence,
        log_loss: interval(Metric::LogLoss),
        auc: interval(Metric::Auc),
        accuracy: interval(Metric::Accuracy),
        f1: interval(Metric::F1),
    };
    let metrics = Evaluation::new(&predictions.probabilities, &predictions.decisions, labels);
    Evaluation { on, intervals: recipe.intervals.then(intervals), ..metrics }
}

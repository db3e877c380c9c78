//! The quality of the predictions of a demo: by class, and against the truth of a made-up table.

use std::collections::BTreeMap;

use serde::Serialize;

use foretell_ml::{
    Label, Probabilities,
    training::{ConfusionMatrix, Evaluation, auc, auc_of_class, log_loss},
};

/// Quality of the predictions, each as it was published, with the final label of its example. The model that made a prediction
/// could not learn from that label before.
#[derive(Clone, Debug, Serialize)]
pub struct QualityReport {
    /// Number of predictions with a label.
    pub examples: u64,
    pub accuracy: Option<f64>,
    /// With two classes that of the second; with more the mean over the classes, each against the rest (macro AUC).
    pub auc: Option<f64>,
    pub log_loss: Option<f64>,
    /// As `auc`.
    pub f1: Option<f64>,
    /// In the order of `outcomes.labels`.
    pub classes: Vec<ClassReport>,
    /// For each true class, the number of predictions by the class that was decided on; both in the order of `classes`.
    pub confusion: ConfusionMatrix,
    /// The comparison with the true probabilities; null if the table does not have them (`truth`).
    pub truth: Option<TruthReport>,
}

/// Quality of the decisions about one class, and of its probability.
#[derive(Clone, Debug, Serialize)]
pub struct ClassReport {
    pub class: String,
    /// Number of examples of the class.
    pub support: u64,
    /// Number of predictions for which the class was decided on.
    pub decided: u64,
    pub precision: Option<f64>,
    pub recall: Option<f64>,
    pub f1: Option<f64>,
    /// Of this class against the rest.
    pub auc: Option<f64>,
}

/// The predictions whose true probabilities are known, between what the first model would have predicted and the truth, which no
/// model can beat but by chance.
#[derive(Clone, Debug, Serialize)]
pub struct TruthReport {
    pub examples: usize,
    pub log_loss: Option<f64>,
    /// That of the first model, if it had served all the time.
    pub log_loss_first: Option<f64>,
    /// That of the true probabilities.
    pub log_loss_best: Option<f64>,
    /// As [`QualityReport::auc`].
    pub auc: Option<f64>,
    pub auc_first: Option<f64>,
    pub auc_best: Option<f64>,
}

/// A prediction with its label.
pub(super) struct LabelledPrediction {
    /// Index of the model that made it.
    pub(super) model: usize,
    pub(super) probabilities: Probabilities,
    /// The probabilities of the first model for the same answers.
    pub(super) of_first_model: Probabilities,
    /// The class that was decided on.
    pub(super) decision: Label,
    pub(super) label: Label,
}

/// Metrics of predictions; none without any.
pub(super) fn evaluate<'p>(
    predictions: impl Iterator<Item = &'p LabelledPrediction>,
) -> Option<Evaluation> {
    let Columns { probabilities, decisions, labels } = Columns::of(predictions);
    (!labels.is_empty()).then(|| Evaluation::new(&probabilities, &decisions, &labels))
}

/// The report about predictions, which are given by id, as are the true probabilities; none without any.
pub(super) fn report(
    classes: &[String],
    predictions: &BTreeMap<String, LabelledPrediction>,
    truth: &BTreeMap<String, Vec<f64>>,
) -> Option<QualityReport> {
    let Evaluation { examples, accuracy, auc, log_loss, f1, .. } = evaluate(predictions.values())?;
    let Columns { probabilities, decisions, labels } = Columns::of(predictions.values());
    let confusion = ConfusionMatrix::new(classes.len(), &decisions, &labels);
    let of_class = |(class, name): (u32, &String)| {
        let index = usize::try_from(class).unwrap_or(usize::MAX);
        ClassReport {
            class: name.clone(),
            support: confusion.support(index),
            decided: confusion.decided(index),
            precision: confusion.precision(index),
            recall: confusion.recall(index),
            f1: confusion.f1(index),
            auc: auc_of_class(&probabilities, &labels, Label(class)),
        }
    };
    let classes = (0..).zip(classes).map(of_class).collect();
    let truth = compare(predictions, truth);
    Some(QualityReport { examples, accuracy, auc, log_loss, f1, classes, confusion, truth })
}

fn compare(
    predictions: &BTreeMap<String, LabelledPrediction>,
    truth: &BTreeMap<String, Vec<f64>>,
) -> Option<TruthReport> {
    let known = predictions.iter().filter_map(|(id, prediction)| {
        let best = Probabilities::new(truth.get(id)?.clone());
        Some((prediction, best))
    });
    let (known, best): (Vec<&LabelledPrediction>, Vec<Probabilities>) = known.unzip();
    let first: Vec<Probabilities> = known.iter().map(|one| one.of_first_model.clone()).collect();
    let Columns { probabilities, labels, .. } = Columns::of(known.into_iter());
    (!labels.is_empty()).then(|| TruthReport {
        examples: labels.len(),
        log_loss: log_loss(&probabilities, &labels),
        log_loss_first: log_loss(&first, &labels),
        log_loss_best: log_loss(&best, &labels),
        auc: auc(&probabilities, &labels),
        auc_first: auc(&first, &labels),
        auc_best: auc(&best, &labels),
    })
}

/// One of each per prediction.
struct Columns {
    probabilities: Vec<Probabilities>,
    decisions: Vec<Label>,
    labels: Vec<Label>,
}

impl Columns {
    fn of<'p>(predictions: impl Iterator<Item = &'p LabelledPrediction>) -> Self {
        let mut columns =
            Self { probabilities: Vec::new(), decisions: Vec::new(), labels: Vec::new() };
        for prediction in predictions {
            columns.probabilities.push(prediction.probabilities.clone());
            columns.decisions.push(prediction.decision);
            columns.labels.push(prediction.label);
        }
        columns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prediction(probabilities: [f64; 3], decision: u32, label: u32) -> LabelledPrediction {
        let probabilities = Probabilities::new(probabilities.to_vec());
        let (decision, label) = (Label(decision), Label(label));
        let of_first_model = Probabilities::new(vec![0.25, 0.5, 0.25]);
        LabelledPrediction { model: 0, probabilities, of_first_model, decision, label }
    }

    fn report_of(truth: &[(&str, [f64; 3])]) -> QualityReport {
        let predictions = BTreeMap::from([
            ("a".to_owned(), prediction([0.7, 0.2, 0.1], 0, 0)),
            ("b".to_owned(), prediction([0.5, 0.25, 0.25], 0, 1)),
            ("c".to_owned(), prediction([0.2, 0.6, 0.2], 1, 1)),
            ("d".to_owned(), prediction([0.5, 0.25, 0.25], 0, 0)),
        ]);
        let truth = truth.iter().map(|(id, truth)| ((*id).to_owned(), truth.to_vec())).collect();
        let classes = ["ignored", "liked", "bought"].map(str::to_owned);
        report(&classes, &predictions, &truth).unwrap()
    }

    #[test]
    fn every_class_has_its_metrics_also_one_that_never_came() {
        let report = report_of(&[]);
        assert_eq!((report.examples, report.accuracy), (4, Some(0.75)));
        let [ignored, liked, bought] = &report.classes[..] else { panic!("three classes") };
        assert_eq!((ignored.support, ignored.decided, ignored.recall), (2, 3, Some(1.0)));
        assert_eq!(
            (liked.precision, liked.recall, liked.f1),
            (Some(1.0), Some(0.5), Some(2.0 / 3.0))
        );
        // The pair of b and d ties.
        assert_eq!(liked.auc, Some(0.875));
        assert_eq!((bought.support, bought.precision, bought.auc), (0, None, None));
        assert_eq!(report.confusion.counts()[1], [1, 1, 0]);
        assert!(report.truth.is_none());
        assert!(super::report(&[], &BTreeMap::new(), &BTreeMap::new()).is_none());
    }

    #[test]
    fn the_truth_and_the_first_model_are_evaluated_on_the_same_examples() {
        let report = report_of(&[("b", [0.0, 1.0, 0.0]), ("z", [1.0, 0.0, 0.0])]);
        let truth = report.truth.unwrap();
        assert_eq!((truth.examples, truth.auc), (1, None), "one class has no AUC");
        assert_eq!(truth.log_loss, Some(4.0_f64.ln()));
        assert_eq!(truth.log_loss_first, Some(2.0_f64.ln()));
        assert_eq!(truth.log_loss_best, Some(0.0));
        // Of a and b, the predictions rank the classes as the truth does, and the first model does not rank.
        let truth = report_of(&[("a", [0.8, 0.1, 0.1]), ("b", [0.2, 0.7, 0.1])]).truth.unwrap();
        assert_eq!((truth.auc, truth.auc_first, truth.auc_best), (Some(1.0), Some(0.5), Some(1.0)));
    }
}

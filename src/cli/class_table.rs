//! The tables of a demo about the quality of its predictions: a row for each class, and the confusion matrix.

use crate::app::demo::QualityReport;

/// Lines of the tables.
pub(super) fn lines(quality: &QualityReport) -> Vec<String> {
    let number = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.4}"));
    let width = quality.classes.iter().map(|class| class.class.chars().count()).max();
    let width = width.unwrap_or(0).max("all classes".len());
    let mut lines = vec![format!(
        "{:<width$}  {:>8}  {:>8}  {:>9}  {:>8}  {:>8}  {:>8}",
        "class", "examples", "decided", "precision", "recall", "F1", "AUC"
    )];
    for class in &quality.classes {
        lines.push(format!(
            "{:<width$}  {:>8}  {:>8}  {:>9}  {:>8}  {:>8}  {:>8}",
            class.class,
            class.support,
            class.decided,
            number(class.precision),
            number(class.recall),
            number(class.f1),
            number(class.auc),
        ));
    }
    lines.push(format!(
        "{:<width$}  {:>8}  {:>8}  {:>9}  {:>8}  {:>8}  {:>8}",
        "all classes",
        quality.examples,
        "",
        "",
        "",
        number(quality.f1),
        number(quality.auc),
    ));
    lines.push(format!(
        "accuracy {}, log loss {}",
        number(quality.accuracy),
        number(quality.log_loss)
    ));
    if let Some(truth) = &quality.truth {
        lines.push(String::new());
        let title = format!("the {} predictions whose truth is known", truth.examples);
        let width = title.len();
        lines.push(format!("{title}  {:>8}  {:>8}", "log loss", "AUC"));
        for (name, log_loss, auc) in [
            ("by the first model, if it had stayed", truth.log_loss_first, truth.auc_first),
            ("by the models that served", truth.log_loss, truth.auc),
            ("by the truth, the best possible", truth.log_loss_best, truth.auc_best),
        ] {
            lines.push(format!("{name:<width$}  {:>8}  {:>8}", number(log_loss), number(auc)));
        }
    }
    lines.push(String::new());
    lines.extend(confusion(quality, width));
    lines
}

/// Classes with more than this many columns would not fit a line.
const CONFUSION_MAX: usize = 12;

fn confusion(quality: &QualityReport, width: usize) -> Vec<String> {
    let classes = &quality.classes;
    if classes.len() > CONFUSION_MAX {
        return vec![format!("confusion matrix of {} classes: see --json", classes.len())];
    }
    let title = "true class";
    let decided: Vec<String> = classes.iter().map(|class| format!("as {}", class.class)).collect();
    let cells = |cells: Vec<String>| -> String {
        let pairs = cells.iter().zip(&decided);
        pairs.map(|(cell, title)| format!("  {cell:>0$}", title.chars().count().max(6))).collect()
    };
    let mut lines = vec![format!("{title:<width$}{}", cells(decided.clone()))];
    for (class, counts) in classes.iter().zip(quality.confusion.counts()) {
        let counts = counts.iter().map(u64::to_string).collect();
        lines.push(format!("{:<width$}{}", class.class, cells(counts)));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::demo::{ClassReport, TruthReport};
    use foretell_ml::{Label, training::ConfusionMatrix};

    fn report(names: &[&str]) -> QualityReport {
        let labels = [Label(0), Label(0), Label(1)];
        let confusion = ConfusionMatrix::new(names.len(), &[Label(0), Label(1), Label(1)], &labels);
        let classes = names.iter().enumerate().map(|(index, name)| ClassReport {
            class: (*name).to_owned(),
            support: confusion.support(index),
            decided: confusion.decided(index),
            precision: confusion.precision(index),
            recall: confusion.recall(index),
            f1: confusion.f1(index),
            auc: Some(0.5),
        });
        QualityReport {
            examples: 3,
            accuracy: Some(2.0 / 3.0),
            auc: Some(0.75),
            log_loss: Some(0.5),
            f1: None,
            classes: classes.collect(),
            confusion: confusion.clone(),
            truth: Some(TruthReport {
                examples: 2000,
                log_loss: Some(0.4),
                log_loss_first: Some(0.5),
                log_loss_best: Some(0.25),
                auc: Some(0.75),
                auc_first: Some(0.625),
                auc_best: None,
            }),
        }
    }

    #[test]
    fn classes_and_counts_are_in_columns() {
        let expected = "\
class        examples   decided  precision    recall        F1       AUC
no                  2         1     1.0000    0.5000    0.6667    0.5000
perhaps             1         2     0.5000    1.0000    0.6667    0.5000
all classes         3                                        -    0.7500
accuracy 0.6667, log loss 0.5000

the 2000 predictions whose truth is known  log loss       AUC
by the first model, if it had stayed         0.5000    0.6250
by the models that served                    0.4000    0.7500
by the truth, the best possible              0.2500         -

true class    as no  as perhaps
no                1           1
perhaps           0           1";
        assert_eq!(lines(&report(&["no", "perhaps"])).join("\n"), expected);
    }

    #[test]
    fn many_classes_have_no_matrix_on_a_terminal() {
        let names: Vec<String> = (0..13).map(|number| number.to_string()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let last = lines(&report(&names)).pop().unwrap();
        assert_eq!(last, "confusion matrix of 13 classes: see --json");
    }
}

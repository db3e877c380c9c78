//! The reasons of a prediction: the features that contribute most to the log-odds of the predicted class.
//!
//! They are computed when somebody asks for them, from the answers as scored, and outside the workers: an explanation takes
//! some hundred times as long as a score.

use crate::{
    events::{
        prediction::Prediction,
        questionnaire::{AnswerRow, QuestionnaireSchema},
    },
    processors::{convert, model_table::ServedModels},
};
use foretell_ml::{Explanation, Label, Scorer, trees::NoLeafCounts};

/// The reasons of a prediction. Base, contributions and others add up to the log-odds of the predicted class before
/// calibration; with more than two classes, to its score before softmax.
#[derive(Clone, Debug, PartialEq)]
pub struct Reasons {
    /// The mean over the training data of the model.
    pub base: f64,
    /// The largest contributions, largest first; at most as many as asked for.
    pub largest: Vec<Reason>,
    /// The sum of the other contributions.
    pub others: f64,
}

/// The contribution of a feature to a prediction.
#[derive(Clone, Debug, PartialEq)]
pub struct Reason {
    /// The name of the question, or of the cross.
    pub feature: String,
    /// The index of the question, or those of the two questions of a cross; none if the event schema does not have it.
    pub questions: Vec<Option<usize>>,
    /// By how much its answer changes the log-odds.
    pub contribution: f64,
}

/// Why a prediction has no reasons.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoReasons {
    /// The model neither serves nor is the challenger.
    #[error(
        "model {version} made the prediction, and is neither the champion nor the challenger of this instance"
    )]
    OtherModel {
        /// The version of the model.
        version: String,
    },
    /// The model was imported without the numbers of training rows.
    #[error("model {version} has no contributions: {source}")]
    NoLeafCounts {
        /// The version of the model.
        version: String,
        /// The tree.
        source: NoLeafCounts,
    },
    /// The predicted label is not one of the model's classes.
    #[error("the label {label:?} is not one of the classes of model {version}")]
    OtherLabel {
        /// The label of the prediction.
        label: String,
        /// The version of the model.
        version: String,
    },
}

impl Reasons {
    /// The `most` largest reasons of a prediction, which one of `models` made.
    ///
    /// # Errors
    /// [`NoReasons`].
    pub fn of(
        prediction: &Prediction,
        models: &[&ServedModels],
        events: &QuestionnaireSchema,
        most: usize,
    ) -> Result<Self, NoReasons> {
        let version = &prediction.model_version;
        let Some(scorer) = models.iter().find_map(|models| models.scorer(version)) else {
            return Err(NoReasons::OtherModel { version: version.clone() });
        };
        let Some(label) = convert::label_of(&prediction.label, scorer.classes()) else {
            let (label, version) = (prediction.label.clone(), version.clone());
            return Err(NoReasons::OtherLabel { label, version });
        };
        Self::of_answers(scorer, &prediction.answers, label, events, most)
    }

    /// The `most` largest reasons for `label`, for answers that `scorer` has scored.
    ///
    /// # Errors
    /// [`NoReasons::NoLeafCounts`].
    pub fn of_answers(
        scorer: &Scorer,
        answers: &AnswerRow,
        label: Label,
        events: &QuestionnaireSchema,
        most: usize,
    ) -> Result<Self, NoReasons> {
        let columns = convert::columns_by_question(scorer.columns(), events.questions());
        let values = convert::values_by_column(&columns, events.layout(), answers);
        let explanation = scorer.explain(values, label).map_err(|source| {
            let version = scorer.version().as_str().to_owned();
            NoReasons::NoLeafCounts { version, source }
        })?;
        Ok(Self::largest(&explanation, scorer, events, most))
    }

    fn largest(
        explanation: &Explanation,
        scorer: &Scorer,
        events: &QuestionnaireSchema,
        most: usize,
    ) -> Self {
        let (largest, others) = explanation.largest(most);
        let questions = events.questions();
        let reason = |one: &foretell_ml::Contribution| {
            let columns = one.columns.iter().map(|column| &scorer.columns()[*column]);
            let found: Vec<Option<usize>> =
                columns.map(|column| convert::position_of(column, questions)).collect();
            // During an upgrade the model may have another name than the question.
            let feature = match found.as_slice() {
                [Some(question)] => &questions[*question].name,
                _ => &one.name,
            };
            Reason { feature: feature.clone(), questions: found, contribution: one.log_odds }
        };
        Self { base: explanation.base, largest: largest.into_iter().map(reason).collect(), others }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        events::{
            answered::{ClassProbabilities, ClassProbability},
            prediction::ScoreTrigger,
            questionnaire::Answer,
            small_schema::schema_of,
        },
        processors::small_model::small_bundle,
    };
    use foretell_ml::{ModelBundle, Scratch};
    use foretell_streams::time::{EventTime, WallTime};

    /// The questions of the small model, in another order, and one that it does not know.
    fn events() -> QuestionnaireSchema {
        let question = |name: &str, of: &str| {
            format!(r#"{{"name":"{name}","type":["null","{of}"],"default":null}}"#)
        };
        let questions =
            [("kind", "string"), ("later", "string"), ("x", "double"), ("noise", "double")];
        schema_of(&questions.map(|(name, of)| question(name, of)).join(","))
    }

    fn models(bundle: &ModelBundle) -> ServedModels {
        ServedModels { champion: Some(Arc::new(Scorer::new(bundle).unwrap())), challenger: None }
    }

    /// A prediction of `bundle`.
    fn predict(bundle: &ModelBundle, x: f64, kind: Option<&str>) -> Prediction {
        let (events, scorer) = (events(), Scorer::new(bundle).unwrap());
        let kind = kind.map(|kind| Answer::Text(kind.to_owned()));
        let answers = [kind, None, Some(Answer::Number(x)), None];
        let answers = events.layout().row_of(&answers);
        let columns = convert::columns_by_question(scorer.columns(), events.questions());
        let values = convert::values_by_column(&columns, events.layout(), &answers);
        let (probabilities, _) = scorer.score_columns(values, &mut Scratch::default());
        let label = &scorer.classes()[scorer.decide(&probabilities).0 as usize];
        let named = scorer.classes().iter().zip(probabilities.as_slice());
        let named =
            named.map(|(label, probability)| ClassProbability { label, probability: *probability });
        Prediction {
            prediction_id: "p".to_owned(),
            respondent_id: "r".to_owned(),
            event_id: "e".to_owned(),
            event_time: EventTime(0),
            received_at: WallTime(0),
            predicted_at: WallTime(0),
            model_version: scorer.version().as_str().to_owned(),
            label: label.clone(),
            probabilities: named.collect::<ClassProbabilities>(),
            challenger: None,
            trigger: ScoreTrigger::Complete,
            answers,
        }
    }

    #[test]
    fn reasons_add_up_to_the_log_odds_of_the_predicted_label() {
        for (threshold, expected) in [(0.99, "no"), (0.01, "yes")] {
            let bundle = ModelBundle { threshold, ..small_bundle() };
            let models = models(&bundle);
            for (x, kind) in [(0.1, Some("c")), (0.9, Some("b")), (0.4, None), (0.7, Some("new"))] {
                let prediction = predict(&bundle, x, kind);
                assert_eq!(prediction.label, expected);
                check_sum(&prediction, &models);
            }
        }
    }

    fn check_sum(prediction: &Prediction, models: &ServedModels) {
        let mut classes = prediction.probabilities.iter();
        let probability =
            classes.find(|class| class.label == prediction.label).unwrap().probability;
        for most in [1, 2, 100] {
            let reasons = Reasons::of(prediction, &[models], &events(), most).unwrap();
            let size = |reason: &Reason| reason.contribution.abs();
            assert!(reasons.largest.len() <= most.min(3), "{reasons:?}");
            assert!(reasons.largest.is_sorted_by(|a, b| size(a) >= size(b)), "{reasons:?}");
            let listed: f64 = reasons.largest.iter().map(|one| one.contribution).sum();
            let log_odds = reasons.base + listed + reasons.others;
            let expected = (probability / (1.0 - probability)).ln();
            assert!((log_odds - expected).abs() < 1e-9, "{log_odds}, not {expected}");
        }
    }

    #[test]
    fn a_reason_names_its_question() {
        let bundle = small_bundle();
        let prediction = predict(&bundle, 0.99, Some("b"));
        let reasons = Reasons::of(&prediction, &[&models(&bundle)], &events(), 100).unwrap();
        let question = |name: &str| {
            let reason = reasons.largest.iter().find(|reason| reason.feature == name);
            reason.unwrap().questions.clone()
        };
        assert_eq!((question("x"), question("kind")), (vec![Some(2)], vec![Some(0)]));
    }

    #[test]
    fn the_model_of_the_prediction_is_looked_up_in_all_models() {
        let (bundle, events) = (small_bundle(), events());
        let other = ModelBundle { threshold: 0.3, ..bundle.clone() };
        let prediction = predict(&bundle, 0.5, None);
        let swapped = models(&other);
        let error = Reasons::of(&prediction, &[&swapped], &events, 5).unwrap_err();
        assert!(error.to_string().contains(bundle.version().as_str()), "{error}");
        let error = Reasons::of(&prediction, &[&ServedModels::default()], &events, 5).unwrap_err();
        assert!(matches!(error, NoReasons::OtherModel { .. }), "{error}");
        Reasons::of(&prediction, &[&swapped, &models(&bundle)], &events, 5).unwrap();
        let challenger = Some(Arc::new(Scorer::new(&bundle).unwrap()));
        Reasons::of(&prediction, &[&ServedModels { challenger, ..swapped }], &events, 5).unwrap();
    }

    #[test]
    fn a_prediction_without_reasons_says_why() {
        let (bundle, events) = (small_bundle(), events());
        let booster = bundle.booster.replace("leaf_count=", "leaf_counts=");
        let imported = ModelBundle { booster, ..bundle.clone() };
        let prediction = predict(&imported, 0.5, None);
        let error = Reasons::of(&prediction, &[&models(&imported)], &events, 5).unwrap_err();
        assert!(error.to_string().contains("leaf_count"), "{error}");
        let prediction = Prediction { label: "maybe".to_owned(), ..predict(&bundle, 0.5, None) };
        let error = Reasons::of(&prediction, &[&models(&bundle)], &events, 5).unwrap_err();
        assert!(matches!(error, NoReasons::OtherLabel { .. }), "{error}");
    }
}

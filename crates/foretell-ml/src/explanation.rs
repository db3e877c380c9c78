//! Explanations of a score: how much each column of a row contributes to it.

use crate::features::FittedPipeline;

/// The log-odds of a class for a row, as a sum of contributions. With more than two classes, its score before softmax.
///
/// They are those of the trees: a calibration, which changes probabilities afterwards, is not part of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// The mean over the training rows, which the contributions start from.
    pub base: f64,
    /// One for each column, then one for each cross. Together with [`Self::base`] they add up to the log-odds.
    pub contributions: Vec<Contribution>,
}

/// The contribution of a column, or of a cross of two columns.
#[derive(Clone, Debug, PartialEq)]
pub struct Contribution {
    /// Name of the column or the cross.
    pub name: String,
    /// Indexes of the columns: one, or the two of a cross.
    pub columns: Vec<usize>,
    /// By how much the values change the log-odds.
    pub log_odds: f64,
}

impl Explanation {
    /// Sums the contributions of features by column, so that those of parts of a date belong to its column.
    pub(crate) fn new(
        base: f64,
        features: impl Iterator<Item = f64>,
        pipeline: &FittedPipeline,
    ) -> Self {
        let mut contributions: Vec<Contribution> = Vec::new();
        let named = pipeline.feature_names().into_iter().zip(pipeline.columns_of_features());
        for ((name, columns), log_odds) in named.zip(features) {
            // Columns come first, each with a feature of its own.
            match columns.as_slice() {
                [column] if *column < contributions.len() => {
                    contributions[*column].log_odds += log_odds;
                }
                _ => contributions.push(Contribution { name, columns, log_odds }),
            }
        }
        Self { base, contributions }
    }

    /// The log-odds.
    #[must_use]
    pub fn log_odds(&self) -> f64 {
        self.contributions.iter().fold(self.base, |sum, one| sum + one.log_odds)
    }

    /// The `most` contributions with the largest absolute values, largest first, and the sum of the others. Equal ones are in
    /// the order of the columns; contributions of 0 are not listed.
    #[must_use]
    pub fn largest(&self, most: usize) -> (Vec<&Contribution>, f64) {
        let is_listed = |one: &&Contribution| one.log_odds != 0.0;
        let mut listed: Vec<&Contribution> = self.contributions.iter().filter(is_listed).collect();
        listed.sort_by(|a, b| b.log_odds.abs().total_cmp(&a.log_odds.abs()));
        let others = listed.iter().skip(most).map(|one| one.log_odds).sum();
        listed.truncate(most);
        (listed, others)
    }
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

    use super::*;
    use crate::{
        CalendarFeature, CalendarPart, Column, ColumnKind, Example, Label, ModelBundle,
        PipelineSpec, Scaling, Scorer, Scratch, TimeUnit, TrainingSet, Value, ValueRef,
        training::{
            Recipe,
            tests::{examples, recipe, small_bundle},
            train,
        },
    };

    fn trained(recipe: &Recipe, examples: &[Example]) -> ModelBundle {
        let set = TrainingSet::of(recipe.spec.columns(), examples);
        train(&set.sample(), recipe, &mut |_, _| ControlFlow::Continue(())).unwrap()
    }

    fn explain(scorer: &Scorer, values: &[Value], label: u32) -> Explanation {
        scorer.explain(values.iter().map(ValueRef::from).enumerate(), Label(label)).unwrap()
    }

    #[track_caller]
    fn assert_close(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-9, "{found}, not {expected}");
    }

    #[test]
    fn contributions_add_up_to_the_log_odds_of_the_class() {
        let (scorer, mut scratch) = (Scorer::new(&small_bundle()).unwrap(), Scratch::default());
        for Example { values, .. } in examples(50, 2, 9) {
            let probabilities = scorer.score(&values, &mut scratch);
            let [zero, one] = probabilities.as_slice() else { panic!("{probabilities:?}") };
            let of_one = explain(&scorer, &values, 1);
            assert_close(of_one.log_odds(), (one / zero).ln());
            let of_zero = explain(&scorer, &values, 0);
            assert_close(of_zero.log_odds(), -of_one.log_odds());
            let names = of_one.contributions.iter().map(|one| one.name.as_str());
            assert_eq!(names.collect::<Vec<_>>(), ["x", "kind", "noise"]);
        }
    }

    #[test]
    fn with_three_classes_each_has_a_score_before_softmax() {
        let bundle = trained(&recipe(3), &examples(400, 3, 2));
        let (scorer, mut scratch) = (Scorer::new(&bundle).unwrap(), Scratch::default());
        for Example { values, .. } in examples(50, 3, 9) {
            let probabilities = scorer.score(&values, &mut scratch);
            let scores = [0, 1, 2].map(|label| explain(&scorer, &values, label).log_odds());
            let total: f64 = scores.iter().map(|score| score.exp()).sum();
            for (score, probability) in scores.iter().zip(probabilities.as_slice()) {
                assert_close(score.exp() / total, *probability);
            }
        }
    }

    #[test]
    fn parts_of_a_date_belong_to_its_column_and_a_cross_has_a_contribution_of_its_own() {
        let columns = vec![
            Column::new("at", ColumnKind::Numeric),
            Column::new("job", ColumnKind::Categorical),
            Column::new("land", ColumnKind::Categorical),
        ];
        let crosses = vec![("job".to_owned(), "land".to_owned())];
        let part = |part| CalendarFeature { column: "at".to_owned(), part, unit: TimeUnit::Days };
        let spec = PipelineSpec::new(columns, Scaling::None, crosses).unwrap();
        let calendar = vec![part(CalendarPart::Weekday), part(CalendarPart::Month)];
        let spec = spec.with_calendar(calendar).unwrap();
        let mut random = StdRng::seed_from_u64(5);
        let example = |_| {
            let (day, job, land) = (
                random.random_range(0..2000_u32),
                random.random_range(0..4_u32),
                random.random_range(0..4_u32),
            );
            let label = Label(u32::from(day % 7 < 3 && (job + land) % 2 == 0));
            let text = |number: u32| Value::Text(format!("t{number}"));
            Example { values: vec![Value::Number(day.into()), text(job), text(land)], label }
        };
        let examples: Vec<Example> = (0..600).map(example).collect();
        let bundle = trained(&Recipe { spec, ..recipe(2) }, &examples);
        let (scorer, mut scratch) = (Scorer::new(&bundle).unwrap(), Scratch::default());
        let mut of_at = 0.0_f64;
        for Example { values, .. } in &examples[..50] {
            let explanation = explain(&scorer, values, 1);
            let sources: Vec<(&str, &[usize])> = explanation
                .contributions
                .iter()
                .map(|one| (one.name.as_str(), one.columns.as_slice()))
                .collect();
            let expected: [(&str, &[usize]); 4] =
                [("at", &[0]), ("job", &[1]), ("land", &[2]), ("job_x_land", &[1, 2])];
            assert_eq!(sources, expected);
            let one = scorer.score(values, &mut scratch).as_slice()[1];
            assert_close(explanation.log_odds(), (one / (1.0 - one)).ln());
            of_at = of_at.max(explanation.contributions[0].log_odds.abs());
        }
        assert!(of_at > 0.1, "its weekday is known: {of_at}");
    }

    #[test]
    fn the_largest_contributions_are_listed_and_the_others_summed() {
        let contribution = |(column, log_odds): (usize, &f64)| Contribution {
            name: format!("c{column}"),
            columns: vec![column],
            log_odds: *log_odds,
        };
        let contributions = [0.5, 0.0, -2.0, -0.5, 0.25].iter().enumerate().map(contribution);
        let explanation = Explanation { base: 1.0, contributions: contributions.collect() };
        let check = |most: usize, expected: &[&str], rest: f64| {
            let (listed, others) = explanation.largest(most);
            let names: Vec<&str> = listed.iter().map(|one| one.name.as_str()).collect();
            assert_eq!(names, expected);
            assert_close(others, rest);
        };
        check(1, &["c2"], 0.25);
        check(3, &["c2", "c0", "c3"], 0.25);
        check(100, &["c2", "c0", "c3", "c4"], 0.0);
        check(0, &[], -1.75);
    }

    #[test]
    fn a_model_without_leaf_counts_scores_and_says_why_it_has_no_contributions() {
        let bundle = small_bundle();
        let booster = bundle.booster.replace("leaf_count=", "leaf_counts=");
        let scorer = Scorer::new(&ModelBundle { booster, ..bundle.clone() }).unwrap();
        let other = Scorer::new(&bundle).unwrap();
        let values = [Value::Number(0.5)];
        let mut scratch = Scratch::default();
        assert_eq!(scorer.score(&values, &mut scratch), other.score(&values, &mut scratch));
        let values = values.iter().map(ValueRef::from).enumerate();
        let error = scorer.explain(values, Label(1)).unwrap_err();
        assert!(error.to_string().contains("tree 0"), "{error}");
    }
}

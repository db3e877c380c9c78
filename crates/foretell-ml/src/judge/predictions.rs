//! Predictions of a model for a sample, whatever columns the model was fitted on.

use std::convert::Infallible;

use crate::{
    Column, Label, Probabilities, Sample,
    scorer::{Scorer, Scratch},
};

/// Predictions of a model, and the classes that it decides on; one of each per example.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Predictions {
    /// Probability of each class.
    pub probabilities: Vec<Probabilities>,
    /// Class that was decided on.
    pub decisions: Vec<Label>,
}

impl Predictions {
    /// The decisions of `scorer` on these probabilities.
    #[must_use]
    pub fn decided(probabilities: Vec<Probabilities>, scorer: &Scorer) -> Self {
        let decisions = probabilities.iter().map(|of_one| scorer.decide(of_one)).collect();
        Self { probabilities, decisions }
    }

    pub(super) fn has_nan(&self) -> bool {
        self.probabilities.iter().any(|of_one| of_one.as_slice().iter().any(|one| one.is_nan()))
    }
}

/// Scores the examples of a sample, whose columns are `columns`. The model finds each of its columns by name, then by an
/// alias of either: it may have been fitted on an earlier or later version of the event schema. A column that the sample
/// lacks is missing, and one that the model does not know is ignored.
#[must_use]
pub fn predict(scorer: &Scorer, columns: &[Column], sample: &Sample<'_>) -> Predictions {
    let mut scratch = Scratch::default();
    let mut probabilities = Vec::with_capacity(sample.len());
    let is_same =
        |(own, column): (&Column, &Column)| own.name == column.name && own.kind == column.kind;
    let own = scorer.columns();
    if own.len() == columns.len() && own.iter().zip(columns).all(is_same) {
        let Ok(()) = scorer.pipeline().each_row(sample, |row| {
            probabilities.push(scorer.score_features(row, &mut scratch));
            Ok::<(), Infallible>(())
        });
        return Predictions::decided(probabilities, scorer);
    }
    let found: Vec<(usize, usize)> = (0..)
        .zip(own)
        .filter_map(|(index, column)| Some((index, position_of(column, columns)?)))
        .collect();
    for part in sample.parts() {
        for row in part.rows() {
            let value = |(own, place): &(usize, usize)| (*own, part.columns()[*place].value(*row));
            let values = found.iter().map(value);
            probabilities.push(scorer.score_columns(values, &mut scratch).0);
        }
    }
    Predictions::decided(probabilities, scorer)
}

/// The index of the column of a sample that a model's `column` is called.
fn position_of(column: &Column, columns: &[Column]) -> Option<usize> {
    let named = columns.iter().position(|other| other.name == column.name);
    let is_renamed =
        |other: &Column| other.is_called(&column.name) || column.is_called(&other.name);
    named.or_else(|| columns.iter().position(is_renamed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ColumnKind, Example, TrainingSet, Value,
        training::tests::{examples, small_bundle, spec},
    };

    /// The predictions for examples in other columns: each has a place in the original values, or none.
    fn check(columns: &[(Column, Option<usize>)]) {
        let scorer = Scorer::new(&small_bundle()).unwrap();
        let examples = examples(50, 2, 9);
        let value = |example: &Example, place: Option<usize>| match place {
            Some(place) => example.values[place].clone(),
            None => Value::Number(1.0),
        };
        let moved: Vec<Example> = examples
            .iter()
            .map(|example| {
                let values = columns.iter().map(|(_, place)| value(example, *place)).collect();
                Example { values, label: example.label }
            })
            .collect();
        let (columns, places): (Vec<_>, Vec<_>) = columns.iter().cloned().unzip();
        let set = TrainingSet::of(&columns, &moved);
        let found = predict(&scorer, &columns, &set.sample());
        let mut scratch = Scratch::default();
        for (number, example) in examples.iter().enumerate() {
            let values: Vec<Value> = (0..3)
                .map(|place| match places.contains(&Some(place)) {
                    true => example.values[place].clone(),
                    false => Value::Missing,
                })
                .collect();
            let expected = scorer.score(&values, &mut scratch);
            assert_eq!(found.probabilities[number], expected, "{values:?}");
            assert_eq!(found.decisions[number], scorer.decide(&expected));
        }
    }

    fn called(name: &str, kind: ColumnKind, alias: Option<&str>) -> Column {
        Column {
            aliases: alias.into_iter().map(str::to_owned).collect(),
            ..Column::new(name, kind)
        }
    }

    #[test]
    fn a_model_scores_samples_of_other_schemas() {
        use ColumnKind::{Categorical, Numeric};
        let [x, kind, noise] = [0, 1, 2].map(|index| spec().columns()[index].clone());
        check(&[(x.clone(), Some(0)), (kind.clone(), Some(1)), (noise.clone(), Some(2))]);
        check(&[(noise.clone(), Some(2)), (x.clone(), Some(0)), (kind.clone(), Some(1))]);
        check(&[(x.clone(), Some(0)), (kind.clone(), Some(1))]);
        check(&[(x.clone(), Some(0)), (called("new", Numeric, None), None), (noise, Some(2))]);
        check(&[(called("later", Numeric, Some("x")), Some(0)), (kind.clone(), Some(1))]);
        // A column of the old name is not the one that was renamed.
        check(&[(called("later", Numeric, Some("x")), None), (x.clone(), Some(0))]);
        // Its kind has changed: each model takes the values as its own kind.
        check(&[
            (called("kind", Categorical, None), Some(1)),
            (called("x", Categorical, None), Some(0)),
        ]);
        check(&[(called("other", Categorical, None), None)]);
    }
}

//! The fitted pipeline, which transforms any row of values into one number per feature.

use std::{borrow::Cow, collections::BTreeMap};

use serde::{Deserialize, Serialize};

use crate::{
    example::{Column, ColumnKind, Value},
    features::{CalendarFeature, PipelineSpec, category::Categories, number::Scale},
};

/// A specification with its fitted encoders: the same values give the same features in training and in serving.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "RawPipeline", into = "RawPipeline")]
pub struct FittedPipeline {
    spec: PipelineSpec,
    /// One per column.
    encoders: Vec<Encoder>,
    /// One per cross; the keys are the codes of its two columns.
    crosses: Vec<Categories<(u32, u32)>>,
    /// Share of the training's rows in which each column was missing. Empty if an earlier release fitted the pipeline.
    missing_shares: Vec<f64>,
}

/// Numbers of values in a row that are outside the training's distribution.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutOfDistribution {
    /// Categories without a code of their own.
    pub unseen_categories: u64,
    /// Numbers below the smallest or above the largest of the training.
    pub out_of_range: u64,
    /// Texts in numeric columns that are not numbers. The model takes them as missing.
    pub not_numbers: u64,
}

/// Reasons why a deserialised pipeline is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FittedError {
    /// The numbers of encoders and columns, or of fitted crosses and crosses, differ.
    #[error("{encoders} encoders for {columns} columns, {fitted} fitted crosses for {crosses}")]
    Count {
        /// Number of encoders.
        encoders: usize,
        /// Number of columns.
        columns: usize,
        /// Number of fitted crosses.
        fitted: usize,
        /// Number of crosses in the specification.
        crosses: usize,
    },
    /// A column's encoder is of the wrong kind, or its scale is invalid.
    #[error("the encoder of column {column} does not fit it")]
    Encoder {
        /// Index of the column.
        column: usize,
    },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Encoder {
    Number(Scale),
    Category(Categories<String>),
}

impl FittedPipeline {
    /// Implements [`PipelineSpec::fit`].
    pub(super) fn fit<'a>(
        spec: &PipelineSpec,
        rows: impl Iterator<Item = &'a [Value]> + Clone,
    ) -> Self {
        let columns = spec.columns().iter().enumerate();
        let encoders = columns.map(|(index, column)| {
            let values = rows.clone().map(|row| row.get(index).unwrap_or(&Value::Missing));
            match column.kind {
                ColumnKind::Numeric => fit_numbers(spec, values),
                ColumnKind::Categorical => fit_categories(values),
            }
        });
        let mut fitted = Self {
            spec: spec.clone(),
            encoders: encoders.collect(),
            crosses: Vec::new(),
            missing_shares: missing_shares(spec, rows.clone()),
        };
        let mut pairs = vec![BTreeMap::<(u32, u32), u64>::new(); spec.crossed().len()];
        for row in rows {
            for ((left, right), counts) in spec.crossed().iter().zip(&mut pairs) {
                let pair =
                    (code_of(fitted.feature(row, *left)), code_of(fitted.feature(row, *right)));
                *counts.entry(pair).or_default() += 1;
            }
        }
        fitted.crosses = pairs.into_iter().map(Categories::fit).collect();
        fitted
    }

    /// Overwrites `row` with one number per feature. Values beyond the last column are ignored, absent ones count as
    /// missing. It never fails; the encoding is described in [`crate::features`].
    pub fn transform(&self, values: &[Value], row: &mut Vec<f64>) {
        row.clear();
        row.extend((0..self.encoders.len()).map(|column| self.feature(values, column)));
        for ((left, right), categories) in self.spec.crossed().iter().zip(&self.crosses) {
            let pair = (code_of(row[*left]), code_of(row[*right]));
            row.push(f64::from(categories.code(&pair)));
        }
        for (CalendarFeature { part, unit, .. }, column) in
            self.spec.calendar().iter().zip(self.spec.dated())
        {
            let number = number_of(values.get(*column).unwrap_or(&Value::Missing));
            row.push(match &self.encoders[*column] {
                Encoder::Number(scale) => {
                    scale.filled(number).map_or(f64::NAN, |number| part.of(number, *unit))
                }
                Encoder::Category(_) => f64::NAN,
            });
        }
    }

    /// Counts the values that are outside the training's distribution. They can be scored nevertheless.
    #[must_use]
    pub fn out_of_distribution(&self, values: &[Value]) -> OutOfDistribution {
        let mut out_of_distribution = OutOfDistribution::default();
        for (value, encoder) in values.iter().zip(&self.encoders) {
            match encoder {
                Encoder::Number(scale) => {
                    let number = number_of(value);
                    let is_outside = number.is_some_and(|number| !scale.is_in_range(number));
                    out_of_distribution.out_of_range += u64::from(is_outside);
                    let is_text = matches!(value, Value::Text(_));
                    out_of_distribution.not_numbers += u64::from(is_text && number.is_none());
                }
                Encoder::Category(categories) => {
                    let is_unseen =
                        text_of(value).is_some_and(|text| !categories.contains(text.as_ref()));
                    out_of_distribution.unseen_categories += u64::from(is_unseen);
                }
            }
        }
        out_of_distribution
    }

    /// Share of the training's rows, 0 to 1, in which the column with this index was missing; `None` if an earlier release
    /// fitted the pipeline, or there is no such column.
    #[must_use]
    pub fn missing_share(&self, column: usize) -> Option<f64> {
        self.missing_shares.get(column).copied()
    }

    /// The specification that was fitted.
    #[must_use]
    pub fn spec(&self) -> &PipelineSpec {
        &self.spec
    }

    /// Columns, in the order of a row's values.
    #[must_use]
    pub fn columns(&self) -> &[Column] {
        self.spec.columns()
    }

    /// Names of the features, in the order of a transformed row.
    #[must_use]
    pub fn feature_names(&self) -> Vec<String> {
        self.spec.feature_names()
    }

    /// Indexes of the categorical features.
    #[must_use]
    pub fn categorical_features(&self) -> Vec<usize> {
        self.spec.categorical_features()
    }

    /// Number of features of a transformed row.
    #[must_use]
    pub fn features(&self) -> usize {
        self.encoders.len() + self.crosses.len() + self.spec.calendar().len()
    }

    fn feature(&self, values: &[Value], column: usize) -> f64 {
        let value = values.get(column).unwrap_or(&Value::Missing);
        match &self.encoders[column] {
            Encoder::Number(scale) => scale.encode(number_of(value)),
            Encoder::Category(categories) => f64::from(match text_of(value) {
                Some(text) => categories.code(text.as_ref()),
                None => categories.missing(),
            }),
        }
    }
}

fn missing_shares<'a>(spec: &PipelineSpec, rows: impl Iterator<Item = &'a [Value]>) -> Vec<f64> {
    let (mut missing, mut count) = (vec![0_u64; spec.columns().len()], 0_u64);
    for row in rows {
        count += 1;
        for (index, (column, missing)) in spec.columns().iter().zip(&mut missing).enumerate() {
            let value = row.get(index).unwrap_or(&Value::Missing);
            let is_missing = match column.kind {
                ColumnKind::Numeric => number_of(value).is_none(),
                ColumnKind::Categorical => text_of(value).is_none(),
            };
            *missing += u64::from(is_missing);
        }
    }
    missing.into_iter().map(|missing| missing as f64 / count.max(1) as f64).collect()
}

fn fit_numbers<'a>(spec: &PipelineSpec, values: impl Iterator<Item = &'a Value>) -> Encoder {
    let (mut numbers, mut missing) = (Vec::new(), 0);
    for value in values {
        match number_of(value) {
            Some(number) => numbers.push(number),
            None => missing += 1,
        }
    }
    Encoder::Number(Scale::fit(spec.scaling(), numbers, missing))
}

fn fit_categories<'a>(values: impl Iterator<Item = &'a Value>) -> Encoder {
    let mut counts = BTreeMap::<String, u64>::new();
    for text in values.filter_map(text_of) {
        match counts.get_mut(text.as_ref()) {
            Some(count) => *count += 1,
            None => drop(counts.insert(text.into_owned(), 1)),
        }
    }
    Encoder::Category(Categories::fit(counts))
}

/// The finite number that a value is or can be parsed as.
fn number_of(value: &Value) -> Option<f64> {
    let number = match value {
        Value::Missing => None,
        Value::Number(number) => Some(*number),
        Value::Text(text) => return number_in(text),
    };
    number.filter(|number| number.is_finite())
}

/// Parses a text as a numeric column does: the finite number, or `None`, which it takes as missing.
#[must_use]
pub fn number_in(text: &str) -> Option<f64> {
    text.trim().parse().ok().filter(|number: &f64| number.is_finite())
}

/// The category of a value; that of a number is its text.
fn text_of(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::Missing => None,
        Value::Number(number) => number.is_finite().then(|| Cow::Owned(number.to_string())),
        Value::Text(text) => Some(Cow::Borrowed(text)),
    }
}

/// The code of a categorical feature.
#[expect(clippy::cast_sign_loss, reason = "it was a u32 before it became a feature")]
fn code_of(feature: f64) -> u32 {
    feature as u32
}

/// The serialised form of a pipeline, which is checked when it is read.
#[derive(Serialize, Deserialize)]
struct RawPipeline {
    spec: PipelineSpec,
    encoders: Vec<Encoder>,
    crosses: Vec<Categories<(u32, u32)>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    missing_shares: Vec<f64>,
}

impl TryFrom<RawPipeline> for FittedPipeline {
    type Error = FittedError;

    fn try_from(raw: RawPipeline) -> Result<Self, FittedError> {
        let RawPipeline { spec, encoders, crosses, missing_shares } = raw;
        if encoders.len() != spec.columns().len() || crosses.len() != spec.crosses().len() {
            let (columns, crossed) = (spec.columns().len(), spec.crosses().len());
            let (encoders, fitted) = (encoders.len(), crosses.len());
            return Err(FittedError::Count { encoders, columns, fitted, crosses: crossed });
        }
        for (index, (encoder, column)) in encoders.iter().zip(spec.columns()).enumerate() {
            let fits = match (encoder, column.kind) {
                (Encoder::Number(scale), ColumnKind::Numeric) => scale.is_valid(),
                (Encoder::Category(_), ColumnKind::Categorical) => true,
                (Encoder::Number(_), ColumnKind::Categorical)
                | (Encoder::Category(_), ColumnKind::Numeric) => false,
            };
            if !fits {
                return Err(FittedError::Encoder { column: index });
            }
        }
        Ok(Self { spec, encoders, crosses, missing_shares })
    }
}

impl From<FittedPipeline> for RawPipeline {
    fn from(fitted: FittedPipeline) -> Self {
        let FittedPipeline { spec, encoders, crosses, missing_shares } = fitted;
        Self { spec, encoders, crosses, missing_shares }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::{CalendarPart, Scaling, TimeUnit};

    fn text(text: &str) -> Value {
        Value::Text(text.to_owned())
    }

    /// Numeric `age` (nothing missing), numeric `pay` (one missing), categorical `job` and `land`, crossed.
    fn fitted() -> FittedPipeline {
        let column = Column::new;
        let columns = vec![
            column("age", ColumnKind::Numeric),
            column("pay", ColumnKind::Numeric),
            column("job", ColumnKind::Categorical),
            column("land", ColumnKind::Categorical),
        ];
        let crosses = vec![("job".to_owned(), "land".to_owned())];
        let spec = PipelineSpec::new(columns, Scaling::None, crosses).unwrap();
        let row = |age: f64, pay: Value, job: &str, land: &str| {
            vec![Value::Number(age), pay, text(job), text(land)]
        };
        let rows = [
            row(10.0, Value::Number(1.0), "cook", "it"),
            row(20.0, Value::Missing, "cook", "fr"),
            row(30.0, Value::Number(3.0), "7", "fr"),
        ];
        spec.fit(rows.iter().map(Vec::as_slice))
    }

    fn check(values: &[Value], expected: [f64; 5]) {
        let (pipeline, mut row) = (fitted(), vec![1.0; 9]);
        pipeline.transform(values, &mut row);
        let bits = |row: &[f64]| row.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&row), bits(&expected), "{values:?}: {row:?}, not {expected:?}");
    }

    #[test]
    fn every_kind_of_value_is_encoded() {
        const NAN: f64 = f64::NAN;
        let number = Value::Number;
        check(&[number(5.0), number(2.0), text("cook"), text("fr")], [5.0, 2.0, 0.0, 0.0, 0.0]);
        check(&[number(5.0), number(2.0), text("cook"), text("it")], [5.0, 2.0, 0.0, 1.0, 1.0]);
        // A number in a categorical column is the category of its text; an unseen pair has the code n.
        check(&[number(5.0), number(2.0), number(7.0), text("it")], [5.0, 2.0, 1.0, 1.0, 3.0]);
        // An unseen category, alone and in a cross, has the code n.
        check(&[number(5.0), number(2.0), text("poet"), text("it")], [5.0, 2.0, 2.0, 1.0, 3.0]);
        // Missing: the median of a complete column, else NaN; the code n + 1 of a category.
        check(
            &[Value::Missing, Value::Missing, Value::Missing, text("it")],
            [20.0, NAN, 3.0, 1.0, 3.0],
        );
        check(&[], [20.0, NAN, 3.0, 3.0, 3.0]);
        // Texts in numeric columns, and values that are not numbers.
        check(&[text(" 5 "), text("many"), text("cook"), text("it")], [5.0, NAN, 0.0, 1.0, 1.0]);
        check(
            &[text("inf"), number(NAN), number(NAN), number(f64::INFINITY)],
            [20.0, NAN, 3.0, 3.0, 3.0],
        );
        check(&[number(f64::NEG_INFINITY)], [20.0, NAN, 3.0, 3.0, 3.0]);
        // More values than columns.
        let many =
            [number(5.0), number(2.0), text("cook"), text("it"), text("new"), text("column")];
        check(&many, [5.0, 2.0, 0.0, 1.0, 1.0]);
    }

    #[test]
    fn a_missing_category_is_crossed_like_other_categories() {
        let rows = [
            [text("cook"), Value::Missing],
            [text("cook"), Value::Missing],
            [text("cook"), text("it")],
        ];
        let column = |name: &str| Column::new(name, ColumnKind::Categorical);
        let crosses = vec![("job".to_owned(), "land".to_owned())];
        let spec =
            PipelineSpec::new(vec![column("job"), column("land")], Scaling::None, crosses).unwrap();
        let (pipeline, mut row) = (spec.fit(rows.iter().map(<[Value; 2]>::as_slice)), Vec::new());
        pipeline.transform(&[text("cook")], &mut row);
        assert_eq!(row.iter().map(|feature| code_of(*feature)).collect::<Vec<_>>(), [0, 2, 0]);
    }

    #[test]
    fn parts_of_dates_come_last() {
        let column = Column::new("day", ColumnKind::Numeric);
        let part = |part| CalendarFeature { column: "day".to_owned(), part, unit: TimeUnit::Days };
        let spec = PipelineSpec::new(vec![column], Scaling::MinMax, Vec::new()).unwrap();
        let spec = spec.with_calendar(vec![part(CalendarPart::Year), part(CalendarPart::Weekday)]);
        let spec = spec.unwrap();
        let transformed = |rows: &[[Value; 1]], value: Value| {
            let pipeline = spec.fit(rows.iter().map(<[Value; 1]>::as_slice));
            let mut row = Vec::new();
            pipeline.transform(&[value], &mut row);
            assert_eq!(row.len(), pipeline.features());
            row
        };
        let whole = [[Value::Number(0.0)], [Value::Number(11_016.0)], [Value::Number(20_000.0)]];
        let row = transformed(&whole, Value::Number(11_016.0));
        assert_eq!(row, [11_016.0 / 20_000.0, 2000.0, 2.0]);
        // Like the date itself: the median if training had no missing value, else NaN.
        assert_eq!(transformed(&whole, Value::Missing)[1..], [2000.0, 2.0]);
        let gaps = [[Value::Number(0.0)], [Value::Missing]];
        assert!(transformed(&gaps, Value::Missing).iter().all(|feature| feature.is_nan()));
    }

    #[test]
    fn a_text_that_is_no_number_is_counted_in_a_numeric_column() {
        let odd = [text("7,25"), text("2.5"), text("cook"), text("it")];
        let expected = OutOfDistribution { not_numbers: 1, ..OutOfDistribution::default() };
        assert_eq!(fitted().out_of_distribution(&odd), expected);
    }

    #[test]
    fn the_share_of_missing_values_is_kept_for_every_column() {
        let column = |name: &str, kind| Column::new(name, kind);
        let columns = vec![
            column("age", ColumnKind::Numeric),
            column("job", ColumnKind::Categorical),
            column("later", ColumnKind::Categorical),
        ];
        let spec = PipelineSpec::new(columns, Scaling::None, Vec::new()).unwrap();
        let rows = [
            vec![Value::Number(1.0), Value::Missing],
            vec![text("a word"), Value::Missing],
            vec![Value::Missing, text("cook")],
            vec![Value::Number(f64::NAN), Value::Number(7.0)],
        ];
        let pipeline = spec.fit(rows.iter().map(Vec::as_slice));
        let shares: Vec<_> = (0..4).map(|column| pipeline.missing_share(column)).collect();
        assert_eq!(shares, [Some(0.75), Some(0.5), Some(1.0), None]);
        let none = spec.fit(std::iter::empty());
        assert_eq!(none.missing_share(0), Some(0.0));
    }

    #[test]
    fn a_pipeline_fitted_to_no_rows_can_transform() {
        let spec = fitted().spec().clone();
        let (pipeline, mut row) = (spec.fit(std::iter::empty()), Vec::new());
        pipeline
            .transform(&[Value::Number(1.0), Value::Missing, text("cook"), text("it")], &mut row);
        assert_eq!(row.len(), pipeline.features());
        assert!(row[1].is_nan());
    }

    #[test]
    fn a_pipeline_survives_a_round_trip_and_is_checked() {
        let json = serde_json::to_string(&fitted()).unwrap();
        assert_eq!(serde_json::from_str::<FittedPipeline>(&json).unwrap(), fitted());
        let refused = |from: &str, to: &str| {
            assert!(json.contains(from), "{json}");
            assert!(
                serde_json::from_str::<FittedPipeline>(&json.replacen(from, to, 1)).is_err(),
                "{to}"
            );
        };
        refused("\"span\":1.0", "\"span\":0.0");
        refused("{\"name\":\"pay\",\"kind\":\"numeric\"},", "");
        refused("\"kind\":\"numeric\"", "\"kind\":\"categorical\"");
    }
}

//! The fitted pipeline, which transforms any row of values into one number per feature.

use std::{fmt::Display, io::Write as _};

use serde::{Deserialize, Serialize};

use crate::{
    example::{Column, ColumnKind, ValueRef},
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
pub(super) enum Encoder {
    Number(Scale),
    Category(Categories<String>),
}

impl FittedPipeline {
    /// A pipeline without crosses, and the share of the rows in which each column is missing.
    pub(super) fn new(
        spec: &PipelineSpec,
        encoders: Vec<Encoder>,
        missing_shares: Vec<f64>,
    ) -> Self {
        Self { spec: spec.clone(), encoders, crosses: Vec::new(), missing_shares }
    }

    /// The pipeline with its crosses.
    pub(super) fn with_crosses(self, crosses: Vec<Categories<(u32, u32)>>) -> Self {
        Self { crosses, ..self }
    }

    /// Overwrites `row` with one number per feature, and counts the values that are outside the training's distribution,
    /// which can be scored nevertheless. Values beyond the last column are ignored, absent ones count as missing. It never
    /// fails; the encoding is described in [`crate::features`].
    pub fn transform<'v, V: Into<ValueRef<'v>>>(
        &self,
        values: impl IntoIterator<Item = V>,
        row: &mut Vec<f64>,
    ) -> OutOfDistribution {
        self.transform_columns(values.into_iter().map(Into::into).enumerate(), row)
    }

    /// As [`Self::transform`], for values in any order, each with the index of its column.
    pub fn transform_columns<'v>(
        &self,
        values: impl Iterator<Item = (usize, ValueRef<'v>)>,
        row: &mut Vec<f64>,
    ) -> OutOfDistribution {
        let features = self.features();
        row.clear();
        row.extend(self.encoders.iter().map(Encoder::missing));
        row.resize(self.transformed(), f64::NAN);
        let mut outside = OutOfDistribution::default();
        for (column, value) in values {
            let Some(encoder) = self.encoders.get(column) else { continue };
            row[column] = encoder.encode(value, &mut outside);
            if let Some(number) = row.get_mut(features + column) {
                *number = number_of(value).unwrap_or(f64::NAN);
            }
        }
        self.derive(row);
        row.truncate(features);
        outside
    }

    /// Length of a row while it is transformed. Parts of a date need its number before scaling: one per column, behind the
    /// features, NaN if it is missing.
    pub(super) fn transformed(&self) -> usize {
        let numbers = if self.spec.calendar().is_empty() { 0 } else { self.encoders.len() };
        self.features() + numbers
    }

    /// Computes crosses and parts of dates from the features of the columns and the numbers behind the features.
    pub(super) fn derive(&self, row: &mut [f64]) {
        let (columns, features) = (self.encoders.len(), self.features());
        let crosses = self.spec.crossed().iter().zip(&self.crosses);
        for (place, ((left, right), categories)) in (columns..).zip(crosses) {
            let pair = (code_of(row[*left]), code_of(row[*right]));
            row[place] = f64::from(categories.code(&pair));
        }
        let start = columns + self.crosses.len();
        let parts = self.spec.calendar().iter().zip(self.spec.dated());
        for (place, (CalendarFeature { part, unit, .. }, column)) in (start..).zip(parts) {
            let Encoder::Number(scale) = &self.encoders[*column] else { continue };
            let number = Some(row[features + column]).filter(|number| !number.is_nan());
            row[place] = scale.filled(number).map_or(f64::NAN, |number| part.of(number, *unit));
        }
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

    /// Indexes of the columns that each feature is computed from: one, or the two of a cross.
    #[must_use]
    pub fn columns_of_features(&self) -> Vec<Vec<usize>> {
        let columns = (0..self.encoders.len()).map(|column| vec![column]);
        let crosses = self.spec.crossed().iter().map(|(left, right)| vec![*left, *right]);
        let calendar = self.spec.dated().iter().map(|column| vec![*column]);
        columns.chain(crosses).chain(calendar).collect()
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

    /// The encoder of a column.
    pub(super) fn encoder(&self, column: usize) -> &Encoder {
        &self.encoders[column]
    }
}

impl Encoder {
    /// The feature of a missing value.
    fn missing(&self) -> f64 {
        match self {
            Self::Number(scale) => scale.encode(None),
            Self::Category(categories) => f64::from(categories.missing()),
        }
    }

    /// The feature of a value, which is counted if it is outside the training's distribution.
    fn encode(&self, value: ValueRef<'_>, outside: &mut OutOfDistribution) -> f64 {
        match self {
            Self::Number(scale) => {
                let number = number_of(value);
                match number {
                    Some(number) => {
                        outside.out_of_range += u64::from(!scale.is_in_range(number));
                    }
                    None => {
                        outside.not_numbers += u64::from(matches!(value, ValueRef::Text(_)));
                    }
                }
                scale.encode(number)
            }
            Self::Category(categories) => {
                let code = with_text(value, |text| categories.known(text));
                f64::from(match code {
                    None => categories.missing(),
                    Some(Some(code)) => code,
                    Some(None) => {
                        outside.unseen_categories += 1;
                        categories.unseen()
                    }
                })
            }
        }
    }
}

/// The finite number that a value is or can be parsed as.
pub(crate) fn number_of(value: ValueRef<'_>) -> Option<f64> {
    let number = match value {
        ValueRef::Missing => None,
        ValueRef::Number(number) => Some(number),
        ValueRef::Id(id) => Some(id as f64),
        ValueRef::Text(text) => return number_in(text),
    };
    number.filter(|number| number.is_finite())
}

/// Parses a text as a numeric column does: the finite number, or `None`, which it takes as missing.
#[must_use]
pub fn number_in(text: &str) -> Option<f64> {
    text.trim().parse().ok().filter(|number: &f64| number.is_finite())
}

/// Applies `read` to the category of a value; that of a number is its text. `None` if the value is missing.
pub(crate) fn with_text<R>(value: ValueRef<'_>, read: impl FnOnce(&str) -> R) -> Option<R> {
    /// More than the text of any 64-bit float: the smallest have 324 zeros and up to 17 digits.
    const TEXT_MAX: usize = 352;
    /// The text of `i64::MIN`.
    const DIGITS_MAX: usize = 20;
    match value {
        ValueRef::Missing => None,
        ValueRef::Text(text) => Some(read(text)),
        ValueRef::Id(id) => Some(with_text_of::<DIGITS_MAX, R>(id, read)),
        ValueRef::Number(number) if !number.is_finite() => None,
        ValueRef::Number(number) => Some(with_text_of::<TEXT_MAX, R>(number, read)),
    }
}

/// Applies `read` to the text of a number, which has up to `MAX` bytes.
fn with_text_of<const MAX: usize, R>(number: impl Display, read: impl FnOnce(&str) -> R) -> R {
    let mut buffer = [0; MAX];
    let mut rest = &mut buffer[..];
    write!(rest, "{number}").expect("the text of a number fits into the buffer");
    let left = rest.len();
    let text = std::str::from_utf8(&buffer[..MAX - left]);
    read(text.expect("the text of a number is ASCII"))
}

/// The code of a categorical feature.
#[expect(clippy::cast_sign_loss, reason = "it was a u32 before it became a feature")]
pub(super) fn code_of(feature: f64) -> u32 {
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
    use crate::{
        Example, Label, TrainingSet, Value,
        features::{CalendarPart, Scaling, TimeUnit},
    };

    fn fit(spec: &PipelineSpec, rows: &[&[Value]]) -> FittedPipeline {
        let example = |row: &&[Value]| Example { values: row.to_vec(), label: Label(0) };
        let examples: Vec<Example> = rows.iter().map(example).collect();
        spec.fit(&TrainingSet::of(spec.columns(), &examples).sample())
    }

    /// The features of rows as a training encodes them.
    fn trained(pipeline: &FittedPipeline, rows: &[&[Value]]) -> Vec<Vec<u64>> {
        let example = |row: &&[Value]| Example { values: row.to_vec(), label: Label(0) };
        let examples: Vec<Example> = rows.iter().map(example).collect();
        let set = TrainingSet::of(pipeline.columns(), &examples);
        let mut encoded = Vec::new();
        let Ok(()) = pipeline.each_row(&set.sample(), |row| {
            encoded.push(row.iter().map(|feature| feature.to_bits()).collect());
            Ok::<(), std::convert::Infallible>(())
        });
        encoded
    }

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
        fit(&spec, &rows.each_ref().map(Vec::as_slice))
    }

    fn check(values: &[Value], expected: [f64; 5]) {
        let (pipeline, mut row) = (fitted(), vec![1.0; 9]);
        pipeline.transform(values, &mut row);
        let bits = |row: &[f64]| row.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&row), bits(&expected), "{values:?}: {row:?}, not {expected:?}");
        assert_eq!(trained(&pipeline, &[values]), [bits(&expected)], "{values:?}");
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
        let (pipeline, mut row) =
            (fit(&spec, &rows.each_ref().map(<[Value; 2]>::as_slice)), Vec::new());
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
            let rows: Vec<&[Value]> = rows.iter().map(<[Value; 1]>::as_slice).collect();
            let pipeline = fit(&spec, &rows);
            let mut row = Vec::new();
            pipeline.transform(std::slice::from_ref(&value), &mut row);
            let bits: Vec<u64> = row.iter().map(|feature| feature.to_bits()).collect();
            assert_eq!(trained(&pipeline, &[&[value]]), [bits]);
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
        assert_eq!(fitted().transform(&odd, &mut Vec::new()), expected);
    }

    #[test]
    fn values_outside_the_training_are_counted_in_the_pass_that_encodes_them() {
        let check = |values: &[Value], unseen_categories: u64, out_of_range: u64| {
            let expected = OutOfDistribution { unseen_categories, out_of_range, not_numbers: 0 };
            assert_eq!(fitted().transform(values, &mut Vec::new()), expected, "{values:?}");
        };
        let number = Value::Number;
        check(&[number(10.0), number(1.0), text("cook"), number(7.0)], 1, 0);
        check(&[number(9.0), text("3.5"), number(7.0), text("it")], 0, 2);
        check(&[Value::Missing, number(f64::NAN), Value::Missing, text("")], 1, 0);
        check(&[], 0, 0);
    }

    #[test]
    fn values_can_come_in_any_order_with_their_columns() {
        let (pipeline, mut row, mut other) = (fitted(), Vec::new(), Vec::new());
        let values = [Value::Number(5.0), Value::Missing, text("poet"), text("it"), text("more")];
        let positional = pipeline.transform(&values, &mut row);
        let named = values.iter().map(ValueRef::from).enumerate();
        let backwards = pipeline.transform_columns(named.rev(), &mut other);
        let bits = |row: &[f64]| row.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert_eq!((bits(&row), positional), (bits(&other), backwards));
    }

    #[test]
    fn the_category_of_a_number_is_its_text() {
        let extremes = [f64::MAX, f64::MIN, f64::from_bits(1), -f64::MIN_POSITIVE, 5e-324, 0.1];
        for number in extremes.into_iter().chain([-0.0, 7.0, 1e300, 2.225_073_858_507_201e-308]) {
            let is_same = with_text(ValueRef::Number(number), |text| text == number.to_string());
            assert_eq!(is_same, Some(true), "{number}");
        }
        assert_eq!(with_text(ValueRef::Number(f64::NAN), str::len), None);
    }

    #[test]
    fn an_id_is_encoded_as_the_text_of_its_digits() {
        let (pipeline, mut row, mut other) = (fitted(), Vec::new(), Vec::new());
        for id in [7, 8, i64::MIN, i64::MAX, (1 << 53) + 1] {
            let outside = pipeline.transform([ValueRef::Id(id); 4], &mut row);
            let digits = id.to_string();
            let expected = pipeline.transform([ValueRef::Text(&digits); 4], &mut other);
            assert_eq!((row.as_slice(), outside), (other.as_slice(), expected), "{id}");
        }
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
        let pipeline = fit(&spec, &rows.each_ref().map(Vec::as_slice));
        let shares: Vec<_> = (0..4).map(|column| pipeline.missing_share(column)).collect();
        assert_eq!(shares, [Some(0.75), Some(0.5), Some(1.0), None]);
        let none = fit(&spec, &[]);
        assert_eq!(none.missing_share(0), Some(0.0));
    }

    #[test]
    fn a_pipeline_fitted_to_no_rows_can_transform() {
        let spec = fitted().spec().clone();
        let (pipeline, mut row) = (fit(&spec, &[]), Vec::new());
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

//! A pipeline over columns: fitting to a sample of a training set, and encoding of its rows.

use std::collections::BTreeMap;

use crate::{
    Column, ColumnKind, FittedPipeline, PipelineSpec,
    features::{
        category::Categories,
        fitted::{Encoder, code_of},
        number::Scale,
    },
    training_set::{CategoricalValues, ColumnValues, NumericValues, Part, Sample},
};

/// Fits one encoder to each column. Also returns the share of the rows in which each column is missing.
fn fit_encoders(spec: &PipelineSpec, sample: &Sample<'_>) -> (Vec<Encoder>, Vec<f64>) {
    let examples = sample.len().max(1) as f64;
    let fit = |(index, column): (usize, &Column)| {
        let (encoder, missing) = match column.kind {
            ColumnKind::Numeric => fit_numbers(spec, sample, index),
            ColumnKind::Categorical => fit_categories(sample, index),
        };
        (encoder, missing as f64 / examples)
    };
    spec.columns().iter().enumerate().map(fit).unzip()
}

/// Fits the crosses of a pipeline whose columns are fitted.
fn fit_crosses(pipeline: &FittedPipeline, sample: &Sample<'_>) -> Vec<Categories<(u32, u32)>> {
    let fit = |(left, right): &(usize, usize)| {
        let mut counts = BTreeMap::<(u32, u32), u64>::new();
        for part in sample.parts() {
            let [left, right] = [*left, *right].map(|column| pipeline.column(part, column));
            for row in part.rows() {
                let pair = (code_of(left.encode(*row)), code_of(right.encode(*row)));
                *counts.entry(pair).or_default() += 1;
            }
        }
        Categories::fit(counts)
    };
    pipeline.spec().crossed().iter().map(fit).collect()
}

fn fit_numbers(spec: &PipelineSpec, sample: &Sample<'_>, column: usize) -> (Encoder, usize) {
    let mut numbers = Vec::with_capacity(sample.len());
    for part in sample.parts() {
        let ColumnValues::Numeric(values) = &part.columns()[column] else { continue };
        let all = part.rows().iter().map(|row| values.get(*row));
        numbers.extend(all.filter(|number| !number.is_nan()));
    }
    let missing = sample.len() - numbers.len();
    (Encoder::Number(Scale::fit(spec.scaling(), numbers, missing)), missing)
}

fn fit_categories(sample: &Sample<'_>, column: usize) -> (Encoder, usize) {
    let (mut counts, mut missing) = (BTreeMap::<String, u64>::new(), 0);
    for part in sample.parts() {
        let ColumnValues::Categorical(values) = &part.columns()[column] else { continue };
        let mut by_code = vec![0_u64; values.categories().len()];
        for row in part.rows() {
            match values.code(*row) {
                Some(code) => by_code[code as usize] += 1,
                None => missing += 1,
            }
        }
        for (text, count) in values.categories().zip(by_code) {
            if count > 0 {
                *counts.entry(text.to_owned()).or_default() += count;
            }
        }
    }
    (Encoder::Category(Categories::fit(counts)), missing)
}

/// A column of one part of a sample with its encoder.
enum EncodedColumn<'a> {
    Number(&'a Scale, &'a NumericValues),
    /// The features by the code in the dictionary of the part, and the feature of a missing value.
    Category(Vec<f64>, f64, &'a CategoricalValues),
}

impl EncodedColumn<'_> {
    fn encode(&self, row: u32) -> f64 {
        match self {
            Self::Number(scale, values) => {
                let number = values.get(row);
                scale.encode((!number.is_nan()).then_some(number))
            }
            Self::Category(features, missing, values) => {
                values.code(row).map_or(*missing, |code| features[code as usize])
            }
        }
    }

    /// The number before scaling; NaN if it is missing or no number.
    fn number(&self, row: u32) -> f64 {
        match self {
            Self::Number(_, values) => values.get(row),
            Self::Category(..) => f64::NAN,
        }
    }
}

impl FittedPipeline {
    /// Implements [`PipelineSpec::fit`].
    pub(super) fn fit(spec: &PipelineSpec, sample: &Sample<'_>) -> Self {
        let (encoders, missing_shares) = fit_encoders(spec, sample);
        let fitted = Self::new(spec, encoders, missing_shares);
        let crosses = fit_crosses(&fitted, sample);
        fitted.with_crosses(crosses)
    }

    /// A column of a part of a sample of the same columns.
    fn column<'a>(&'a self, part: &Part<'a>, column: usize) -> EncodedColumn<'a> {
        match (self.encoder(column), &part.columns()[column]) {
            (Encoder::Number(scale), ColumnValues::Numeric(values)) => {
                EncodedColumn::Number(scale, values)
            }
            (Encoder::Category(categories), ColumnValues::Categorical(values)) => {
                let feature = |text: &str| f64::from(categories.code(text));
                let features = values.categories().map(feature).collect();
                EncodedColumn::Category(features, f64::from(categories.missing()), values)
            }
            (Encoder::Number(_), ColumnValues::Categorical(_))
            | (Encoder::Category(_), ColumnValues::Numeric(_)) => {
                unreachable!("a training set has the columns of its pipeline")
            }
        }
    }

    /// Calls `with` with the features of each example of a sample, in order, until it fails. They are those of
    /// [`Self::transform`], without a look-up of texts.
    ///
    /// # Errors
    /// The error of `with`.
    pub(crate) fn each_row<E>(
        &self,
        sample: &Sample<'_>,
        mut with: impl FnMut(&[f64]) -> Result<(), E>,
    ) -> Result<(), E> {
        let columns = self.columns().len();
        let mut features = vec![f64::NAN; self.transformed()];
        for part in sample.parts() {
            let encoded: Vec<EncodedColumn<'_>> =
                (0..columns).map(|column| self.column(part, column)).collect();
            for row in part.rows() {
                for (column, feature) in encoded.iter().zip(&mut features) {
                    *feature = column.encode(*row);
                }
                // The numbers before scaling, if there are parts of dates.
                for (column, number) in encoded.iter().zip(&mut features[self.features()..]) {
                    *number = column.number(*row);
                }
                self.derive(&mut features);
                with(&features[..self.features()])?;
            }
        }
        Ok(())
    }
}

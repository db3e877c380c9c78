//! The profile of a training: the bins and counts of its values and scores, which live ones are compared with.

use std::collections::{BTreeMap, HashMap};

use foldhash::fast::RandomState;
use serde::{Deserialize, Serialize};

use crate::{
    Column, Probabilities, Sample, ValueRef,
    drift::{
        LiveCounts,
        histogram::{ScoreHistogram, counted},
        psi,
    },
    features::{number_of, with_text},
    training_set::{CategoricalValues, ColumnValues, NumericValues},
};

/// A profile is that of at most this many examples, evenly spread over the sample: 800 KB of numbers at a time.
pub const PROFILE_ROWS_MAX: usize = 100_000;
/// Bins of a numeric column and of the scores: deciles.
const QUANTILES: usize = 10;
/// Categories of a column with a bin of their own; the others share one.
const CATEGORIES_MAX: usize = 20;

/// Histograms of a model's training data: of each column, and of the scores of held-out examples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "RawProfile", into = "RawProfile")]
pub struct Profile {
    examples: u64,
    columns: Vec<ColumnProfile>,
    scores: Vec<ScoreBaseline>,
}

#[derive(Clone, Debug, PartialEq)]
struct ColumnProfile {
    bins: ColumnBins,
    /// By bin, without missing values.
    counts: Vec<u64>,
}

#[derive(Clone, Debug, PartialEq)]
enum ColumnBins {
    /// The largest number of each bin but the last, ascending.
    Numbers(Vec<f64>),
    /// The bin of each frequent category; the others are in the bin after them.
    Categories(HashMap<String, usize, RandomState>),
}

/// What the bins of a column are.
pub(super) enum BinNames<'p> {
    /// The largest number of each bin but the last, ascending.
    Ends(&'p [f64]),
    /// The frequent categories, in the order of their bins. The others are in the bin after them.
    Categories(Vec<&'p str>),
}

/// The counts of a profile, without its bins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Baseline {
    /// Of each column, in the order of the model's columns.
    pub columns: Vec<ColumnBaseline>,
    /// Of each class; of two classes, of the second. Empty if no example was held out.
    pub scores: Vec<ScoreBaseline>,
}

/// The counts of a column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnBaseline {
    /// The name of the column.
    pub name: String,
    /// By bin; the last one is that of missing values.
    pub counts: Vec<u64>,
}

/// The scores of a class, in up to ten bins with about the same count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScoreBaseline {
    /// The last bin of a [`ScoreHistogram`] in each bin but the last, ascending.
    pub ends: Vec<usize>,
    /// By bin.
    pub counts: Vec<u64>,
}

/// A deserialised profile whose parts do not match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the profile of the training data has bins and counts that do not match")]
pub struct ProfileError;

impl Profile {
    /// The profile of the values of `sample`, whose columns a model has in this order. Every example counts the same, whatever its
    /// weight. The scores are added by [`Self::with_scores`].
    #[must_use]
    pub fn of(sample: &Sample<'_>) -> Self {
        let step = sample.len().div_ceil(PROFILE_ROWS_MAX).max(1);
        let sample = sample.subset(|index| index.is_multiple_of(step));
        let columns = sample.parts().first().map_or(0, |part| part.columns().len());
        let profile = |column| match values_of(&sample, column) {
            SampledColumn::Numbers(numbers) => ColumnProfile::of_numbers(numbers),
            SampledColumn::Categories(counts) => ColumnProfile::of_categories(&counts),
        };
        let examples = u64::try_from(sample.len()).expect("a length has at most 64 bits");
        Self { examples, columns: (0..columns).map(profile).collect(), scores: Vec::new() }
    }

    /// Adds the scores of examples that the scoring model was not trained on: those of its own training would be too certain.
    #[must_use]
    pub fn with_scores(self, held_out: &[Probabilities]) -> Self {
        let classes = held_out.first().map_or(0, |first| first.as_slice().len());
        let of_class = |class: usize| {
            let mut histogram = ScoreHistogram::new(classes);
            for probability in held_out.iter().filter_map(|one| one.as_slice().get(class)) {
                histogram.add(*probability, 1);
            }
            ScoreBaseline::of(&histogram)
        };
        Self { scores: counted(classes).map(of_class).collect(), ..self }
    }

    /// Number of columns.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.columns.len()
    }

    /// Number of a column's bins, without the one of missing values.
    pub(super) fn bins(&self, column: usize) -> usize {
        self.columns[column].counts.len()
    }

    /// What the bins of a column are, without the one of missing values.
    pub(super) fn bin_names(&self, column: usize) -> BinNames<'_> {
        match &self.columns[column].bins {
            ColumnBins::Numbers(ends) => BinNames::Ends(ends),
            ColumnBins::Categories(bins) => {
                let by_bin: BTreeMap<usize, &str> =
                    bins.iter().map(|(name, bin)| (*bin, name.as_str())).collect();
                BinNames::Categories(by_bin.into_values().collect())
            }
        }
    }

    /// The bin of a column's value; `None` if it is missing, or there is no such column.
    pub(super) fn bin(&self, column: usize, value: ValueRef<'_>) -> Option<usize> {
        match &self.columns.get(column)?.bins {
            ColumnBins::Numbers(ends) => {
                let number = number_of(value)?;
                Some(ends.partition_point(|end| *end < number))
            }
            ColumnBins::Categories(bins) => {
                with_text(value, |text| bins.get(text).copied().unwrap_or(bins.len()))
            }
        }
    }

    /// The counts. `columns` are those of the model.
    #[must_use]
    pub fn baseline(&self, columns: &[Column]) -> Baseline {
        let columns = self.columns.iter().zip(columns).map(|(profile, column)| {
            let missing = self.examples.saturating_sub(profile.counts.iter().sum());
            let counts = profile.counts.iter().copied().chain([missing]).collect();
            ColumnBaseline { name: column.name.clone(), counts }
        });
        Baseline { columns: columns.collect(), scores: self.scores.clone() }
    }
}

impl Baseline {
    /// The [`psi`] of each column by name, where it is defined.
    pub fn column_psi<'b>(&'b self, live: &'b LiveCounts) -> impl Iterator<Item = (&'b str, f64)> {
        self.columns.iter().enumerate().filter_map(|(index, column)| {
            Some((column.name.as_str(), psi(&column.counts, &live.column(index)?)?))
        })
    }

    /// The [`psi`] of the scores of each class, where it is defined; of two classes, of the second.
    pub fn score_psi(&self, live: &LiveCounts) -> impl Iterator<Item = Option<f64>> {
        self.scores
            .iter()
            .zip(live.scores())
            .map(|(baseline, histogram)| psi(&baseline.counts, &baseline.group(histogram)))
    }
}

impl ScoreBaseline {
    fn of(histogram: &ScoreHistogram) -> Self {
        let total: u64 = histogram.counts().iter().sum();
        let (mut ends, mut below, mut last) = (Vec::new(), 0_u64, 0);
        for (bin, count) in histogram.counts().iter().enumerate() {
            below += count;
            let quantile = below.saturating_mul(QUANTILES as u64) / total.max(1);
            if quantile > last && below < total {
                last = quantile;
                ends.push(bin);
            }
        }
        let mut baseline = Self { ends, counts: Vec::new() };
        baseline.counts = baseline.group(histogram);
        baseline
    }

    /// The counts of a histogram in these bins.
    fn group(&self, histogram: &ScoreHistogram) -> Vec<u64> {
        let mut counts = vec![0; self.ends.len() + 1];
        for (bin, count) in histogram.counts().iter().enumerate() {
            counts[self.ends.partition_point(|end| *end < bin)] += count;
        }
        counts
    }
}

impl ColumnProfile {
    fn of_numbers(mut numbers: Vec<f64>) -> Self {
        numbers.sort_unstable_by(f64::total_cmp);
        let quantile = |number: usize| numbers[(numbers.len() - 1) * number / QUANTILES];
        let mut ends: Vec<f64> = match numbers.as_slice() {
            [] => Vec::new(),
            [_, ..] => (1..QUANTILES).map(quantile).collect(),
        };
        ends.dedup();
        // A bin above the largest number would be empty.
        let most = numbers.last().copied();
        ends.retain(|end| most.is_some_and(|most| *end < most));
        let mut counts = vec![0; ends.len() + 1];
        for number in &numbers {
            counts[ends.partition_point(|end| end < number)] += 1;
        }
        Self { bins: ColumnBins::Numbers(ends), counts }
    }

    fn of_categories(counts: &BTreeMap<&str, u64>) -> Self {
        let mut by_count: Vec<(&str, u64)> = counts.iter().map(|(text, n)| (*text, *n)).collect();
        by_count.sort_by_key(|(text, count)| (std::cmp::Reverse(*count), *text));
        let (frequent, others) = by_count.split_at(by_count.len().min(CATEGORIES_MAX));
        let names = frequent.iter().map(|(text, _)| (*text).to_owned());
        let others = others.iter().map(|(_, count)| count).sum();
        let counts = frequent.iter().map(|(_, count)| *count).chain([others]).collect();
        Self { bins: ColumnBins::Categories(names.zip(0..).collect()), counts }
    }
}

/// The values of a column in a sample.
enum SampledColumn<'s> {
    Numbers(Vec<f64>),
    /// The number of rows of each category.
    Categories(BTreeMap<&'s str, u64>),
}

fn values_of<'s>(sample: &Sample<'s>, column: usize) -> SampledColumn<'s> {
    let (mut numbers, mut categories) = (Vec::new(), BTreeMap::new());
    let mut is_numeric = false;
    for part in sample.parts() {
        match &part.columns()[column] {
            ColumnValues::Numeric(values) => {
                is_numeric = true;
                numbers.extend(numbers_in(values, part.rows()));
            }
            ColumnValues::Categorical(values) => {
                count_categories(values, part.rows(), &mut categories);
            }
        }
    }
    if is_numeric { SampledColumn::Numbers(numbers) } else { SampledColumn::Categories(categories) }
}

fn numbers_in(values: &NumericValues, rows: &[u32]) -> impl Iterator<Item = f64> {
    rows.iter().map(|row| values.get(*row)).filter(|number| !number.is_nan())
}

fn count_categories<'s>(
    values: &'s CategoricalValues,
    rows: &[u32],
    counts: &mut BTreeMap<&'s str, u64>,
) {
    let mut by_code = vec![0_u64; values.categories().len()];
    for code in rows.iter().filter_map(|row| values.code(*row)) {
        by_code[usize::try_from(code).expect("32 bits fit into an index")] += 1;
    }
    for (text, count) in values.categories().zip(by_code).filter(|(_, count)| *count > 0) {
        *counts.entry(text).or_default() += count;
    }
}

/// The serialised form of a profile, which is checked when it is read.
#[derive(Serialize, Deserialize)]
struct RawProfile {
    examples: u64,
    columns: Vec<RawColumn>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    scores: Vec<ScoreBaseline>,
}

#[derive(Serialize, Deserialize)]
struct RawColumn {
    bins: RawBins,
    counts: Vec<u64>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RawBins {
    Numbers(Vec<f64>),
    Categories(Vec<String>),
}

impl TryFrom<RawProfile> for Profile {
    type Error = ProfileError;

    fn try_from(raw: RawProfile) -> Result<Self, ProfileError> {
        let RawProfile { examples, columns, scores } = raw;
        let columns = columns.into_iter().map(ColumnProfile::try_from);
        let columns = columns.collect::<Result<_, _>>()?;
        let fits = |one: &ScoreBaseline| {
            one.counts.len() == one.ends.len() + 1 && one.ends.is_sorted_by(|a, b| a < b)
        };
        if scores.iter().all(fits) {
            Ok(Self { examples, columns, scores })
        } else {
            Err(ProfileError)
        }
    }
}

impl TryFrom<RawColumn> for ColumnProfile {
    type Error = ProfileError;

    fn try_from(RawColumn { bins, counts }: RawColumn) -> Result<Self, ProfileError> {
        let (bins, ends) = match bins {
            RawBins::Numbers(ends) => {
                let ascend = ends.is_sorted_by(|one, next| one < next);
                let length = ascend.then_some(ends.len()).ok_or(ProfileError)?;
                (ColumnBins::Numbers(ends), length)
            }
            RawBins::Categories(names) => {
                let length = names.len();
                let bins: HashMap<_, _, _> = names.into_iter().zip(0..).collect();
                let length = (bins.len() == length).then_some(length).ok_or(ProfileError)?;
                (ColumnBins::Categories(bins), length)
            }
        };
        if counts.len() == ends + 1 { Ok(Self { bins, counts }) } else { Err(ProfileError) }
    }
}

impl From<Profile> for RawProfile {
    fn from(Profile { examples, columns, scores }: Profile) -> Self {
        Self { examples, columns: columns.into_iter().map(RawColumn::from).collect(), scores }
    }
}

impl From<ColumnProfile> for RawColumn {
    fn from(ColumnProfile { bins, counts }: ColumnProfile) -> Self {
        let bins = match bins {
            ColumnBins::Numbers(ends) => RawBins::Numbers(ends),
            ColumnBins::Categories(bins) => {
                // In the order of the bins, so that the same profile gives the same bytes.
                let by_bin: BTreeMap<usize, String> =
                    bins.into_iter().map(|(name, bin)| (bin, name)).collect();
                RawBins::Categories(by_bin.into_values().collect())
            }
        };
        Self { bins, counts }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ColumnKind, Label, TrainingSet, Value};
    use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

    fn columns() -> [Column; 2] {
        [Column::new("x", ColumnKind::Numeric), Column::new("kind", ColumnKind::Categorical)]
    }

    fn set(values: impl IntoIterator<Item = (Value, Value)>) -> TrainingSet {
        let mut set = TrainingSet::new(&columns());
        for (x, kind) in values {
            set.push(&[x, kind], Label(0));
        }
        set
    }

    fn text(text: &str) -> Value {
        Value::Text(text.to_owned())
    }

    /// A fifth of the numbers is missing, and `shift` moves the others.
    fn random(number: usize, shift: f64, kinds: u8, seed: u64) -> Vec<(Value, Value)> {
        let mut random = StdRng::seed_from_u64(seed);
        let mut one = || {
            let x = random.random_range(0.0..1.0) + shift;
            let kind = char::from(b'a' + random.random_range(0..kinds));
            let is_missing = random.random_range(0..5) == 0;
            (if is_missing { Value::Missing } else { Value::Number(x) }, text(&kind.to_string()))
        };
        (0..number).map(|_| one()).collect()
    }

    fn count(profile: &Profile, rows: &[(Value, Value)]) -> LiveCounts {
        let mut counts = LiveCounts::new(Some(profile), 2);
        for (x, kind) in rows {
            counts.add_value(profile, (0, x.into()), 1);
            counts.add_value(profile, (1, kind.into()), 1);
            counts.add_prediction([0.5, 0.5].into_iter(), 0.5, 1);
        }
        counts
    }

    fn psi_of(profile: &Profile, live: &[(Value, Value)]) -> Vec<(String, f64)> {
        let baseline = profile.baseline(&columns());
        let live = count(profile, live);
        baseline.column_psi(&live).map(|(name, psi)| (name.to_owned(), psi)).collect()
    }

    #[test]
    fn exactly_the_drifted_columns_have_a_high_index() {
        let profile = Profile::of(&set(random(5_000, 0.0, 4, 1)).sample());
        let check = |live: Vec<(Value, Value)>, expected: &[&str]| {
            let found = psi_of(&profile, &live);
            let drifted = found.iter().filter(|(_, psi)| *psi >= 0.25);
            let names: Vec<&str> = drifted.map(|(name, _)| name.as_str()).collect();
            assert_eq!(names, expected, "{found:?}");
        };
        check(random(2_000, 0.0, 4, 2), &[]);
        check(random(2_000, 0.3, 4, 3), &["x"]);
        check(random(2_000, 0.0, 8, 4), &["kind"]);
        check(random(2_000, 0.3, 8, 5), &["x", "kind"]);
        let missing = random(2_000, 0.0, 4, 6).into_iter().map(|(_, kind)| (Value::Missing, kind));
        check(missing.collect(), &["x"]);
    }

    #[test]
    fn a_number_that_is_frequent_has_a_bin_of_its_own() {
        let numbers = (0..100).map(|n| Value::Number(if n < 90 { 0.0 } else { f64::from(n) }));
        let profile = Profile::of(&set(numbers.map(|x| (x, text("a")))).sample());
        assert_eq!(profile.baseline(&columns()).columns[0].counts, [90, 10, 0]);
        let bin = |number: f64| profile.bin(0, ValueRef::Number(number));
        assert_eq!(
            [bin(-1.0), bin(0.0), bin(0.1), bin(1e308)],
            [Some(0), Some(0), Some(1), Some(1)]
        );
        assert_eq!(bin(f64::NAN), None);
        assert_eq!(profile.bin(0, ValueRef::Text("many")), None, "it is scored as missing");
        assert_eq!(profile.bin(7, ValueRef::Number(1.0)), None);
    }

    #[test]
    fn rare_categories_share_a_bin_with_those_never_seen() {
        let kinds = (0..30).flat_map(|kind| (0..=kind).map(move |_| text(&format!("{kind:02}"))));
        let profile = Profile::of(&set(kinds.map(|kind| (Value::Missing, kind))).sample());
        let baseline = profile.baseline(&columns());
        assert_eq!(baseline.columns[1].counts.len(), CATEGORIES_MAX + 2);
        assert_eq!(baseline.columns[1].counts[CATEGORIES_MAX], (1..=10).sum::<u64>());
        assert_eq!(baseline.columns[0].counts, [0, 465], "a column of missing values only");
        let bin = |text| profile.bin(1, ValueRef::Text(text));
        assert_eq!(
            [bin("29"), bin("10"), bin("09"), bin("never")].map(Option::unwrap),
            [0, 19, 20, 20]
        );
    }

    #[test]
    fn the_profile_of_a_large_sample_is_that_of_a_part() {
        let rows = (0..PROFILE_ROWS_MAX + 2).map(|n| (Value::Number(n as f64), text("a")));
        let profile = Profile::of(&set(rows).sample());
        let counts = &profile.baseline(&columns()).columns[0].counts;
        assert_eq!(counts.iter().sum::<u64>(), PROFILE_ROWS_MAX as u64 / 2 + 1);
        assert_eq!(counts.len(), QUANTILES + 1);
    }

    #[test]
    fn scores_are_compared_in_quantiles_of_the_held_out_ones() {
        let scores = |shift: f64| -> Vec<Probabilities> {
            let one = |n: u32| f64::from(n) / 1_100.0 + shift;
            (0..1_000).map(|n| Probabilities::new(vec![1.0 - one(n), one(n)])).collect()
        };
        let none = Profile::of(&set([]).sample());
        let baseline = none.clone().with_scores(&scores(0.0)).baseline(&[]);
        let counts = &baseline.scores[0].counts;
        assert_eq!((baseline.scores.len(), counts.len()), (1, QUANTILES));
        assert!(counts.iter().all(|count| (90..=110).contains(count)), "{counts:?}");
        let psi = |shift: f64| {
            let mut live = LiveCounts::new(None, 2);
            for prediction in scores(shift) {
                live.add_prediction(prediction.as_slice().iter().copied(), 0.5, 1);
            }
            baseline.score_psi(&live).next().unwrap().unwrap()
        };
        assert!(psi(0.0) < 0.001 && psi(0.09) > 0.1, "{} {}", psi(0.0), psi(0.09));
        assert!(none.with_scores(&[]).baseline(&[]).scores.is_empty());
    }

    #[test]
    fn a_profile_survives_a_round_trip_and_others_are_refused() {
        let profile = Profile::of(&set(random(500, 0.0, 4, 1)).sample());
        let profile = profile.with_scores(&[Probabilities::new(vec![0.2, 0.8])]);
        let json = serde_json::to_string(&profile).unwrap();
        let back: Profile = serde_json::from_str(&json).unwrap();
        assert_eq!(back, profile);
        assert_eq!(serde_json::to_string(&back).unwrap(), json);
        for (bins, counts) in [
            (r#"{"numbers":[2.0,1.0]}"#, "[1,1,1]"),
            (r#"{"numbers":[1.0]}"#, "[1,1,1]"),
            (r#"{"categories":["a","a"]}"#, "[1,1,1]"),
            (r#"{"categories":[]}"#, "[]"),
        ] {
            let json =
                format!(r#"{{"examples":3,"columns":[{{"bins":{bins},"counts":{counts}}}]}}"#);
            assert!(serde_json::from_str::<Profile>(&json).is_err(), "{json}");
        }
        let json = r#"{"examples":3,"columns":[],"scores":[{"ends":[5,2],"counts":[1,1,1]}]}"#;
        assert!(serde_json::from_str::<Profile>(json).is_err());
    }

    #[test]
    fn merged_counts_are_those_of_all_values() {
        let rows = random(700, 0.0, 4, 1);
        let profile = Profile::of(&set(rows.clone()).sample());
        let mut merged = count(&profile, &rows[..200]);
        merged.merge(&count(&profile, &rows[200..]));
        assert_eq!(merged, count(&profile, &rows));
        merged.clear();
        assert_eq!(merged, LiveCounts::new(Some(&profile), 2));
    }

    #[test]
    fn a_prediction_may_stand_for_several() {
        let rows = random(100, 0.0, 4, 1);
        let profile = Profile::of(&set(rows.clone()).sample());
        let mut often = LiveCounts::new(Some(&profile), 2);
        let mut once = often.clone();
        for (x, kind) in &rows {
            for (counts, times, repeats) in [(&mut often, 1, 8), (&mut once, 8, 1)] {
                for _ in 0..repeats {
                    counts.add_value(&profile, (0, x.into()), times);
                    counts.add_value(&profile, (1, kind.into()), times);
                    counts.add_prediction([0.25, 0.75].into_iter(), 0.75, times);
                }
            }
        }
        assert_eq!(once, often);
        assert_eq!(once.predictions(), 800);
    }
}

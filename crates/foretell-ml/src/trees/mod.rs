//! Evaluation of LightGBM's trees in Rust: bit-identical to LightGBM's own prediction, from any thread, without its lock.
//!
//! ```text
//!  model text ──parse──▶ Trees ──sums(row)──▶ one sum of leaves per class ──probabilities──▶ one probability per class
//!                        flat, immutable, Send + Sync
//! ```
//!
//! [`contributions`] says how much each feature adds to the sums of a row.
//!
//! Trees of up to 64 leaves are looked up in [`tables`], larger ones are walked; both give the same sums.
//!
//! Sums are added in the order of the trees, as in LightGBM, and `exp` is the same function of the same C library, so
//! results are equal to the bit. As in LightGBM, a number within 1e-35 of 0 is replaced by 0 before the walk.

mod contributions;
mod importance;
mod parse;
mod tables;

pub use contributions::{Contributions, NoLeafCounts, TreeShap};
pub use importance::{FeatureImportance, importance};
pub use parse::{ParseError, Section};

use crate::trees::tables::Tables;

/// LightGBM's `kZeroThreshold`, the `float` 1e-35: absolute values up to it count as 0.
const ZERO: f64 = 1e-35_f32 as f64;

/// The trees of a model, parsed and checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Trees {
    feature_names: Vec<String>,
    output: Output,
    /// The root of each tree, encoded as a child (see [`Node::left`]). The trees of an iteration, one per sum, are
    /// adjacent.
    roots: Vec<i32>,
    nodes: Vec<Node>,
    leaves: Vec<f64>,
    /// Number of training rows in each leaf. Shorter if the text does not have those of every tree.
    leaf_rows: Vec<u32>,
    /// The sets of categories, one bit per category.
    bits: Vec<u32>,
    /// `None` if the trees must be walked.
    tables: Option<Tables>,
}

/// Sums of a row's leaves, with scratch space; a thread reuses it for the next row.
#[derive(Clone, Debug, Default)]
pub struct Sums {
    /// LightGBM's raw scores: one per class, or a single one for a binary model.
    pub sums: Vec<f64>,
    /// Leaves of each tree that are not excluded yet, as bits; scratch space of [`Tables::add`].
    rows: Vec<usize>,
}

/// Conversion of sums into probabilities.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Output {
    /// One sum; class 1 has the probability `1 / (1 + exp(-sigmoid × sum))`.
    Binary { sigmoid: f64 },
    /// One sum a class; softmax.
    Multiclass { classes: usize },
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Node {
    split: Split,
    feature: u32,
    /// A child: the index of a node, or `!leaf`, which is negative. The index is greater than the parent's, which
    /// [`Trees::parse`] checks, so every walk ends.
    left: i32,
    right: i32,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Split {
    /// Left if the value is at most the threshold. The direction of NaN follows from LightGBM's missing type and default
    /// direction.
    Number { threshold: f64, nan_left: bool },
    /// Like `Number`, but 0 counts as missing too.
    NumberOrZero { threshold: f64, missing_left: bool },
    /// Left if the category's bit is set in `bits[start..start + words]`.
    Category { start: u32, words: u32 },
}

impl Trees {
    /// Number of features of a row.
    #[must_use]
    pub fn features(&self) -> usize {
        self.feature_names.len()
    }

    /// The names of the features, in the order of a row.
    #[must_use]
    pub fn feature_names(&self) -> &[String] {
        &self.feature_names
    }

    /// Number of classes; two for a binary model.
    #[must_use]
    pub fn classes(&self) -> usize {
        match self.output {
            Output::Binary { .. } => 2,
            Output::Multiclass { classes } => classes,
        }
    }

    /// Number of boosting iterations.
    #[must_use]
    pub fn iterations(&self) -> usize {
        self.roots.len() / self.sums_per_row()
    }

    /// Sums the leaves that a row falls into. Overwrites `sums`, and replaces numbers within 1e-35 of 0 in `row` by 0.
    ///
    /// # Panics
    /// If the length of `row` is not [`Self::features`].
    pub fn sums(&self, row: &mut [f64], Sums { sums, rows }: &mut Sums) {
        assert_eq!(row.len(), self.features(), "a row has one number per feature");
        for feature in row.iter_mut() {
            if feature.abs() <= ZERO {
                *feature = 0.0;
            }
        }
        sums.clear();
        sums.resize(self.sums_per_row(), 0.0);
        match &self.tables {
            Some(tables) => tables.add(row, rows, sums),
            None => self.walk(row, sums),
        }
    }

    /// Converts the sums of [`Self::sums`] into one probability per class: sigmoid for two classes, softmax for more.
    #[must_use]
    pub fn probabilities(&self, sums: &[f64]) -> Vec<f64> {
        match self.output {
            Output::Binary { sigmoid } => {
                let probability = 1.0 / (1.0 + (-sigmoid * sums[0]).exp());
                vec![1.0 - probability, probability]
            }
            Output::Multiclass { .. } => {
                let most = sums.iter().copied().fold(sums[0], f64::max);
                let mut shares: Vec<f64> = sums.iter().map(|sum| (sum - most).exp()).collect();
                let mut total = 0.0;
                for share in &shares {
                    total += share;
                }
                for share in &mut shares {
                    *share /= total;
                }
                shares
            }
        }
    }

    /// Index of the sum that a class depends on, and the factor by which the sum becomes the log-odds of the class; with more
    /// than two classes, the class's score before softmax.
    ///
    /// # Panics
    /// If there is no such class.
    #[must_use]
    pub fn sum_of_class(&self, class: usize) -> (usize, f64) {
        assert!(class < self.classes(), "there is no class {class}");
        match self.output {
            Output::Binary { sigmoid } if class == 0 => (0, -sigmoid),
            Output::Binary { sigmoid } => (0, sigmoid),
            Output::Multiclass { .. } => (class, 1.0),
        }
    }

    fn sums_per_row(&self) -> usize {
        match self.output {
            Output::Binary { .. } => 1,
            Output::Multiclass { classes } => classes,
        }
    }

    fn walk(&self, row: &[f64], sums: &mut [f64]) {
        for iteration in self.roots.chunks_exact(self.sums_per_row()) {
            for (root, sum) in iteration.iter().zip(sums.iter_mut()) {
                *sum += self.leaf(*root, row);
            }
        }
    }

    #[inline]
    fn leaf(&self, root: i32, row: &[f64]) -> f64 {
        let mut at = root;
        while let Ok(index) = usize::try_from(at) {
            let node = &self.nodes[index];
            at = if self.goes_left(node.split, row[node.feature as usize]) {
                node.left
            } else {
                node.right
            };
        }
        self.leaves[(!at).unsigned_abs() as usize]
    }

    #[inline]
    fn goes_left(&self, split: Split, value: f64) -> bool {
        match split {
            Split::Number { threshold, nan_left } => {
                value <= threshold || (nan_left && value.is_nan())
            }
            Split::NumberOrZero { threshold, missing_left } => {
                let missing = value.is_nan() || value.abs() <= ZERO;
                if missing { missing_left } else { value <= threshold }
            }
            Split::Category { start, words } => self.has_category(start, words, value),
        }
    }

    #[inline]
    fn has_category(&self, start: u32, words: u32, value: f64) -> bool {
        let Some(category) = category_of(value) else {
            return false;
        };
        let word = category / 32;
        word < words && (self.bits[(start + word) as usize] >> (category % 32)) & 1 == 1
    }
}

/// The category of a value: truncated to a 32-bit integer as in LightGBM; `None` for NaN and negative values. LightGBM
/// wraps values of more than 31 bits to negative ones; here they are a category beyond every set, or `None`.
#[inline]
fn category_of(value: f64) -> Option<u32> {
    if value.is_nan() { None } else { u32::try_from(value as i64).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lightgbm::{
        Booster, PredictionKind,
        tests::{Matrix, dataset},
    };
    use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

    const FEATURES: usize = 5;

    /// Two numbers (one often missing, one often 0), two categories (one often missing), and a constant.
    fn row(random: &mut StdRng) -> [f64; FEATURES] {
        let missing = random.random_bool(0.2);
        let number = if missing { f64::NAN } else { random.random_range(-3.0..3.0) };
        let zero = if random.random_bool(0.4) { 0.0 } else { random.random_range(-1.0..1.0) };
        let category = f64::from(random.random_range(0..90_u8));
        let rare = if random.random_bool(0.3) {
            f64::NAN
        } else {
            f64::from(random.random_range(0..4_u8))
        };
        [number, zero, category, rare, 1.0]
    }

    fn label(row: &[f64; FEATURES], classes: u8, random: &mut StdRng) -> f32 {
        let score = row[0].max(-1.0)
            + 2.0 * row[1]
            + f64::from(u8::from(row[2] % 3.0 < 1.0))
            + row[3].max(1.5);
        let noisy = score + random.random_range(-1.0..1.0);
        f32::from(
            (0..classes - 1).filter(|class| noisy > f64::from(*class) * 1.5 + 1.0).count() as u8
        )
    }

    fn train(classes: u8, parameters: &str) -> String {
        let mut random = StdRng::seed_from_u64(u64::from(classes));
        let examples = (0..3000).map(|_| {
            let row = row(&mut random);
            (row, label(&row, classes, &mut random))
        });
        train_on(&examples.collect::<Vec<_>>(), classes, parameters)
    }

    fn train_on(examples: &[([f64; FEATURES], f32)], classes: u8, parameters: &str) -> String {
        let rows: Vec<f64> = examples.iter().flat_map(|(row, _)| *row).collect();
        let labels: Vec<f32> = examples.iter().map(|(_, label)| *label).collect();
        let names: Vec<String> = (0..FEATURES).map(|n| format!("f{n}")).collect();
        let matrix =
            Matrix { rows: &rows, labels: &labels, feature_names: &names, categorical: &[2, 3] };
        let objective = match classes {
            2 => "objective=binary".to_owned(),
            _ => format!("objective=multiclass num_class={classes}"),
        };
        let parameters =
            format!("{objective} min_data_per_group=5 min_data_in_leaf=5 {parameters}");
        let training = dataset(matrix, &parameters).unwrap();
        let mut booster = Booster::new(&training, &parameters).unwrap();
        for _ in 0..30 {
            booster.grow().unwrap();
        }
        booster.save(None).unwrap()
    }

    fn edge_case(random: &mut StdRng) -> f64 {
        const EDGE_CASES: [f64; 21] = [
            f64::NAN,
            0.0,
            -0.0,
            1e-36,
            -1e-36,
            1e-35,
            -1e-34,
            -1.0,
            -0.5,
            0.5,
            2.7,
            31.0,
            32.0,
            89.0,
            90.0,
            1e5,
            2_147_483_648.0,
            4_294_967_297.0,
            1e300,
            -1e300,
            f64::INFINITY,
        ];
        EDGE_CASES[random.random_range(0..EDGE_CASES.len())]
    }

    /// Compares predictions for thousands of ordinary rows and edge cases with LightGBM's, bit by bit.
    fn check(model: &str) -> Trees {
        let (trees, booster) = (Trees::parse(model).unwrap(), Booster::load(model).unwrap());
        let mut random = StdRng::seed_from_u64(7);
        let mut rows = Vec::new();
        for number in 0..4000 {
            let mut row = row(&mut random);
            for feature in &mut row {
                if number % 2 == 1 && random.random_bool(0.3) {
                    *feature = edge_case(&mut random);
                }
            }
            rows.extend(row);
        }
        let raw = booster.predict(&rows, PredictionKind::Raw).unwrap();
        let transformed = booster.predict(&rows, PredictionKind::Probability).unwrap();
        let per_row = raw.len() / 4000;
        let walked = Trees { tables: None, ..trees.clone() };
        let (mut looked_up, mut sums) = (Sums::default(), Sums::default());
        for (number, row) in rows.chunks_exact(FEATURES).enumerate() {
            trees.sums(&mut row.to_vec(), &mut looked_up);
            walked.sums(&mut row.to_vec(), &mut sums);
            let Sums { sums, .. } = &sums;
            let mut probabilities = trees.probabilities(sums);
            if per_row == 1 {
                probabilities.remove(0);
            }
            let bits = |numbers: &[f64]| numbers.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            let range = number * per_row..(number + 1) * per_row;
            assert_eq!(bits(sums), bits(&raw[range.clone()]), "the sums of {row:?}");
            assert_eq!(bits(&looked_up.sums), bits(sums), "the looked-up sums of {row:?}");
            assert_eq!(
                bits(&probabilities),
                bits(&transformed[range]),
                "the probabilities of {row:?}"
            );
        }
        trees
    }

    #[test]
    fn a_binary_model_predicts_as_lightgbm_does() {
        let model = train(2, "");
        assert!(model.contains("cat_threshold="), "it splits on categories");
        let trees = check(&model);
        assert_eq!((trees.classes(), trees.iterations(), trees.features()), (2, 30, FEATURES));
        assert!(trees.tables.is_some());
        let large = check(&train(2, "num_leaves=64 min_data_in_leaf=1"));
        assert!(large.tables.is_some());
        let larger = check(&train(2, "num_leaves=65 min_data_in_leaf=1"));
        assert!(larger.tables.is_none());
    }

    #[test]
    fn a_model_of_three_classes_predicts_as_lightgbm_does() {
        let trees = check(&train(3, "num_leaves=15"));
        assert_eq!((trees.classes(), trees.iterations()), (3, 30));
    }

    #[test]
    fn every_missing_type_predicts_as_lightgbm_does() {
        assert!(check(&train(2, "zero_as_missing=true")).tables.is_none());
        check(&train(2, "use_missing=false"));
        check(&train(2, "sigmoid=0.7 max_cat_to_onehot=100"));
    }

    #[test]
    fn a_split_between_missing_and_other_values_predicts_as_lightgbm_does() {
        let mut random = StdRng::seed_from_u64(5);
        let examples = (0..3000).map(|_| {
            let row = row(&mut random);
            (row, f32::from(u8::from(row[0].is_nan() == random.random_bool(0.9))))
        });
        let model = train_on(&examples.collect::<Vec<_>>(), 2, "num_leaves=7");
        assert!(model.contains("inf"), "the model has no such split");
        check(&model);
    }
}

//! Contributions of the features to the sums of a row: path-dependent SHAP values, as LightGBM's `pred_contrib`.
//!
//! The contribution of a feature is its Shapley value: the change of a tree's expected value when the feature becomes known,
//! averaged over all orders in which the features become known. At a split on a feature that is not known, the expected value
//! follows both branches, by their shares of the training rows (Lundberg et al., 2018, "Consistent Individualized Feature
//! Attribution for Tree Ensembles"). The base, which is the expected value without any feature, and the contributions
//! add up to the row's sum.
//!
//! A feature has one condition on the path to a leaf of value v: all its splits on the path. A share z of the training rows
//! meets it (the product of the shares of these splits' branches), and a row meets it (o = 1) or does not (o = 0). If
//! each feature becomes known at a time of its own, uniform in [0, 1], then those known at time t are a random set before feature i,
//! and the mean over all orders is an integral over t (Owen, 1972):
//!
//! ```text
//!   contribution of feature i = Σ over leaves  v × (oᵢ - zᵢ) × ∫ Π over j ≠ i (t oⱼ + (1 - t) zⱼ) dt
//! ```
//!
//! It is the integral of a polynomial, so [`mod@quadrature`] is exact with half as many points as a path has different
//! features. All factors and weights are positive, so no digits cancel, on paths of any length. The leaves share the factors on
//! their paths: a walk down a tree multiplies them, and a walk up adds the leaves' values, for a block of points at a time. So
//! a row takes time in proportion to splits × features of a path, as in Linear TreeSHAP (Yu et al., 2022), which represents the
//! same polynomials by twice as many points. `make bench-scorer` measures it.

mod lanes;
mod paths;
mod quadrature;

use std::collections::BTreeMap;

use crate::trees::{
    Split, Trees, ZERO,
    contributions::{
        lanes::Lanes,
        paths::{PathSplit, Paths, TreePaths},
        quadrature::{Points, blocks_for, quadrature},
    },
};

/// The reason that there are no contributions to the sums of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("tree {tree} does not say how many training rows its leaves have (leaf_count)")]
pub struct NoLeafCounts {
    /// Number of the tree, from 0.
    pub tree: usize,
}

/// The parts of contributions that follow from the model alone. Immutable; 44 bytes for each split of the model and 40 for each tree.
#[derive(Clone, Debug, PartialEq)]
pub struct TreeShap {
    paths: Paths,
    /// Nodes of the model by feature and threshold. In this order the processor can predict most decisions.
    by_threshold: Vec<u32>,
    /// The quadratures that the trees need, by their number of blocks.
    quadratures: BTreeMap<usize, Vec<Points>>,
}

/// Contributions to the sums of a row, with scratch space; a thread reuses it for the next row.
#[derive(Clone, Debug, Default)]
pub struct Contributions {
    /// The expected value of each sum, without any feature.
    pub base: Vec<f64>,
    /// The contribution of each feature to the first sum, then of each to the second, and so on.
    pub features: Vec<f64>,
    /// By node of the model: whether the row goes left.
    lefts: Vec<bool>,
    walk: Walk,
}

/// Scratch space for one tree; branches and subtrees are numbered as in [`PathSplit`].
#[derive(Clone, Debug, Default)]
struct Walk {
    /// By branch: whether the row meets the condition of the split's feature on the path up to here. True for no branch.
    meets: Vec<bool>,
    /// By subtree: on the way down the product of the factors on the path, on the way up the sum of the leaves' products.
    products: Vec<Lanes>,
    /// By split: 1 over the factor of the feature, if the row meets its condition; 1 for no split.
    inverses: Vec<Lanes>,
}

impl TreeShap {
    /// Prepares contributions to the sums of a model.
    ///
    /// # Errors
    /// [`NoLeafCounts`] if the model's text does not have the numbers of training rows.
    pub fn new(trees: &Trees) -> Result<Self, NoLeafCounts> {
        let paths = Paths::new(trees)?;
        let blocks = paths.trees.iter().map(|tree| blocks_for(tree.features_max));
        let quadratures = blocks.map(|blocks| (blocks, quadrature(blocks)));
        Ok(Self { quadratures: quadratures.collect(), by_threshold: by_threshold(trees), paths })
    }

    /// Computes the contribution of each feature of a row to each sum of `trees`, which are those of [`Self::new`]. Overwrites `out`,
    /// and replaces numbers within 1e-35 of 0 in `row` by 0.
    ///
    /// # Panics
    /// If the trees are others, or the length of `row` is not [`Trees::features`].
    pub fn contributions(&self, trees: &Trees, row: &mut [f64], out: &mut Contributions) {
        assert_eq!(trees.nodes.len(), self.paths.splits.len(), "it was made for other trees");
        assert_eq!(row.len(), trees.features(), "a row has one number per feature");
        for feature in row.iter_mut() {
            if feature.abs() <= ZERO {
                *feature = 0.0;
            }
        }
        let Contributions { base, features, lefts, walk } = out;
        base.clone_from(&self.paths.base);
        features.clear();
        features.resize(base.len() * row.len(), 0.0);
        lefts.clear();
        lefts.resize(trees.nodes.len(), false);
        for index in &self.by_threshold {
            let node = &trees.nodes[*index as usize];
            lefts[*index as usize] = trees.goes_left(node.split, row[node.feature as usize]);
        }
        for (number, tree) in self.paths.trees.iter().enumerate() {
            let TreePaths { splits, leaves, features_max } = tree;
            let (lefts, splits) = (&lefts[splits.clone()], &self.paths.splits[splits.clone()]);
            let class = number % base.len();
            let features = &mut features[class * row.len()..(class + 1) * row.len()];
            walk.start(lefts, splits);
            for points in &self.quadratures[&blocks_for(*features_max)] {
                walk.down(splits, &trees.leaves[leaves.clone()], points);
                walk.up(splits, points, features);
            }
        }
    }
}

/// The nodes by feature and threshold; categorical splits come after numeric ones.
fn by_threshold(trees: &Trees) -> Vec<u32> {
    let nodes = u32::try_from(trees.nodes.len()).expect("children are 32-bit numbers");
    let mut order: Vec<u32> = (0..nodes).collect();
    let key = |index: u32| {
        let node = &trees.nodes[index as usize];
        match node.split {
            Split::Number { threshold, .. } | Split::NumberOrZero { threshold, .. } => {
                (node.feature, false, threshold)
            }
            Split::Category { .. } => (node.feature, true, 0.0),
        }
    };
    order.sort_by(|a, b| {
        let ((a, a_category, a_threshold), (b, b_category, b_threshold)) = (key(*a), key(*b));
        (a, a_category).cmp(&(b, b_category)).then(a_threshold.total_cmp(&b_threshold))
    });
    order
}

impl Walk {
    /// Finds the conditions that the row meets.
    fn start(&mut self, lefts: &[bool], splits: &[PathSplit]) {
        let no_branch = 2 * splits.len();
        self.meets.clear();
        self.meets.resize(no_branch + 1, true);
        for (index, (goes_left, split)) in lefts.iter().zip(splits).enumerate() {
            let meets = self.meets[split.above as usize];
            self.meets[2 * index] = meets & goes_left;
            self.meets[2 * index + 1] = meets & !goes_left;
        }
        self.products.clear();
        self.products.resize(2 * splits.len() + 1, Lanes::ZERO);
        self.inverses.clear();
        self.inverses.resize(splits.len() + 1, Lanes::ONE);
    }

    /// Computes the product of the factors of each path, times the weight of the point and the value of the leaf.
    fn down(&mut self, splits: &[PathSplit], leaves: &[f64], points: &Points) {
        let Self { meets, products, inverses } = self;
        products[0] = points.weight;
        for (index, split) in splits.iter().enumerate() {
            let product = products[index];
            let Some(side) = side_met(meets, index) else {
                // Not met above, and so on neither side: the factor of the feature stays (1 - t) × share.
                for (child, share) in split.children.iter().zip(split.shares) {
                    products[*child as usize] = product * share;
                }
                continue;
            };
            let [share, other_share] =
                [side, 1 - side].map(|side| split.share_above * split.shares[side]);
            // The feature has one factor on a path: this one replaces that of the branches above.
            let others = product * inverses[split.above as usize / 2];
            let factor = points.at + points.rest * share;
            products[split.children[side] as usize] = others * factor;
            products[split.children[1 - side] as usize] = others * points.rest * other_share;
            inverses[index] = factor.inverse();
        }
        for (product, leaf) in products[splits.len()..].iter_mut().zip(leaves) {
            *product = *product * *leaf;
        }
    }

    /// Adds up the leaves below each split, and their contributions to the split's feature.
    fn up(&mut self, splits: &[PathSplit], points: &Points, features: &mut [f64]) {
        let Self { meets, products, inverses } = self;
        for (index, split) in splits.iter().enumerate().rev() {
            let [left, right] = split.children;
            let both = products[left as usize] + products[right as usize];
            products[index] = both;
            // If the condition is not met above, the branches above count these leaves as they are.
            let Some(side) = side_met(meets, index) else { continue };
            let met = products[split.children[side] as usize];
            let not_met = products[split.children[1 - side] as usize];
            let share = split.share_above * split.shares[side];
            let above = inverses[split.above as usize / 2];
            // (o - z) / factor is (1 - z) × inverse if o = 1, and -1 / (1 - t) if o = 0; minus what the branches above count.
            features[split.feature as usize] += (1.0 - share) * (met * inverses[index]).sum()
                - (not_met * points.over_rest).sum()
                - (1.0 - split.share_above) * (both * above).sum();
        }
    }
}

/// The side of the branch below a split on which the condition of the split's feature is met; `None` if it is not met above.
#[inline]
fn side_met(meets: &[bool], split: usize) -> Option<usize> {
    let [left, right] = [meets[2 * split], meets[2 * split + 1]];
    (left | right).then_some(usize::from(right))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{SeedableRng as _, rngs::StdRng};

    use super::*;
    use crate::{
        lightgbm::{
            Booster, DatasetBuilder, LightGbmError, PredictionKind,
            tests::{Matrix, dataset},
        },
        trees::Sums,
    };

    /// Data of any number of features: of four, two are numeric (one is often missing or 0), two are categorical.
    #[derive(Clone, Copy, Debug)]
    struct Data {
        features: usize,
        classes: u8,
        rows: usize,
        seed: u64,
        is_weighted: bool,
    }

    const DATA: Data = Data { features: 6, classes: 2, rows: 1500, seed: 1, is_weighted: false };

    fn row(random: &mut StdRng, features: usize) -> Vec<f64> {
        let feature = |feature: usize| {
            let is_missing = random.random_bool(0.15);
            match feature % 4 {
                1 if is_missing => f64::NAN,
                1 if random.random_bool(0.3) => 0.0,
                0 | 1 => random.random_range(-2.0..2.0),
                2 if is_missing => f64::NAN,
                2 => f64::from(random.random_range(0..70_u8)),
                _ => f64::from(random.random_range(0..4_u8)),
            }
        };
        (0..features).map(feature).collect()
    }

    fn label(row: &[f64], classes: u8, random: &mut StdRng) -> f32 {
        let mut score = random.random_range(-1.0..1.0);
        for (index, value) in row.iter().enumerate() {
            let known = if value.is_nan() { 0.7 } else { *value };
            score += match index % 4 {
                0 | 1 => known * (1.0 + row[0]),
                _ => 1.5 * f64::from(u8::from(known % 3.0 < 1.0)) - 0.5,
            };
        }
        f32::from((1..classes).filter(|class| score > f64::from(*class) - 1.0).count() as u8)
    }

    impl Data {
        fn train(self, iterations: usize, parameters: &str) -> String {
            self.try_train(iterations, parameters).unwrap()
        }

        /// LightGBM estimates the numbers of rows of a split from their weights. If a branch turns out to have none, it is an
        /// error.
        fn try_train(self, iterations: usize, parameters: &str) -> Result<String, LightGbmError> {
            let Self { features, classes, rows: number, seed, is_weighted } = self;
            let mut random = StdRng::seed_from_u64(seed);
            let (mut rows, mut labels) = (Vec::new(), Vec::new());
            for _ in 0..number {
                let row = row(&mut random, features);
                labels.push(label(&row, classes, &mut random));
                rows.extend(row);
            }
            let feature_names: Vec<String> = (0..features).map(|n| format!("f{n}")).collect();
            let categorical: Vec<usize> = (0..features).filter(|n| n % 4 >= 2).collect();
            let matrix = Matrix {
                rows: &rows,
                labels: &labels,
                feature_names: &feature_names,
                categorical: &categorical,
            };
            let objective = match classes {
                2 => "binary".to_owned(),
                _ => format!("multiclass num_class={classes}"),
            };
            // Of a repeated parameter, LightGBM takes the first.
            let parameters = format!(
                "objective={objective} {parameters} min_data_per_group=5 min_data_in_leaf=3"
            );
            let mut training = dataset(matrix, &parameters).unwrap();
            if is_weighted {
                let mut builder =
                    DatasetBuilder::aligned(&training, number, &feature_names).unwrap();
                rows.chunks_exact(features).for_each(|row| builder.push(row).unwrap());
                let weights: Vec<f32> =
                    (0..number).map(|_| random.random_range(0.1..3.0)).collect();
                training = builder.finish(&labels, &weights).unwrap();
            }
            let mut booster = Booster::new(&training, &parameters).unwrap();
            for _ in 0..iterations {
                booster.grow()?;
            }
            booster.save(None)
        }
    }

    /// Compares the contributions for `number` rows with LightGBM's, and the sums that they add up to.
    #[track_caller]
    fn check(model: &str, number: usize) {
        let (trees, booster) = (Trees::parse(model).unwrap(), Booster::load(model).unwrap());
        let shap = TreeShap::new(&trees).unwrap();
        let (mut random, features) = (StdRng::seed_from_u64(77), trees.features());
        let rows: Vec<f64> = (0..number).flat_map(|_| row(&mut random, features)).collect();
        let expected = booster.predict(&rows, PredictionKind::Contributions).unwrap();
        let (mut found, mut sums) = (Contributions::default(), Sums::default());
        let per_row = expected.len() / number;
        for (row, expected) in rows.chunks_exact(features).zip(expected.chunks_exact(per_row)) {
            let mut row = row.to_vec();
            shap.contributions(&trees, &mut row, &mut found);
            trees.sums(&mut row, &mut sums);
            for (class, expected) in expected.chunks_exact(features + 1).enumerate() {
                let of_class = &found.features[class * features..(class + 1) * features];
                let sum = of_class.iter().sum::<f64>() + found.base[class];
                assert!((sum - sums.sums[class]).abs() < 1e-11, "{sum} of {:?}", sums.sums);
                let all = of_class.iter().chain([&found.base[class]]);
                for (index, (found, expected)) in all.zip(expected).enumerate() {
                    let difference = (found - expected).abs();
                    assert!(difference < 1e-9, "{index} of {row:?}: {found}, not {expected}");
                }
            }
        }
    }

    #[test]
    fn numbers_categories_and_missing_values_contribute_as_in_lightgbm() {
        for parameters in [
            "",
            "zero_as_missing=true",
            "use_missing=false",
            "max_cat_to_onehot=100",
            "num_leaves=2",
            "max_depth=2",
            "num_leaves=70 min_data_in_leaf=1",
            "bagging_fraction=0.5 bagging_freq=1 feature_fraction=0.5",
        ] {
            check(&DATA.train(20, parameters), 200);
        }
    }

    #[test]
    fn classes_and_weights_contribute_as_in_lightgbm() {
        check(&Data { classes: 3, ..DATA }.train(10, ""), 200);
        check(&Data { is_weighted: true, ..DATA }.train(20, "num_leaves=40"), 200);
        // The text does not have the weights of the rows, but their numbers.
        check(
            &Data { is_weighted: true, classes: 4, ..DATA }.train(5, "boost_from_average=true"),
            50,
        );
    }

    #[test]
    fn trees_of_one_leaf_contribute_to_the_base_only() {
        let model = DATA.train(3, "min_gain_to_split=1000000");
        assert!(model.contains("num_leaves=1\n"), "{model}");
        check(&model, 10);
    }

    #[test]
    fn a_feature_that_a_path_splits_on_many_times_contributes_once() {
        let model = Data { features: 2, ..DATA }.train(20, "num_leaves=60 min_data_in_leaf=1");
        let depth = |shap: &TreeShap| shap.paths.trees.iter().map(|tree| tree.features_max).max();
        let shap = TreeShap::new(&Trees::parse(&model).unwrap()).unwrap();
        assert_eq!(depth(&shap), Some(2));
        check(&model, 300);
    }

    #[test]
    fn paths_with_many_features_take_several_blocks_of_points() {
        let model = Data { features: 60, rows: 4000, ..DATA }.train(
            5,
            "num_leaves=300 min_data_in_leaf=1 min_sum_hessian_in_leaf=0 feature_fraction=0.4",
        );
        let shap = TreeShap::new(&Trees::parse(&model).unwrap()).unwrap();
        assert!(*shap.quadratures.keys().last().unwrap() >= 2, "{:?}", shap.quadratures.keys());
        check(&model, 50);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn contributions_are_those_of_lightgbm(
            data in (1_usize..12, 2_u8..5, 50_usize..1500, any::<u64>(), any::<bool>()),
            leaves in 2_u8..80,
            parameters in prop::sample::select(vec![
                "", "zero_as_missing=true", "use_missing=false", "max_depth=3",
                "min_data_in_leaf=1 min_sum_hessian_in_leaf=0", "extra_trees=true",
                "lambda_l2=5 cat_smooth=1", "feature_fraction=0.3", "learning_rate=1",
            ]),
        ) {
            let (features, classes, rows, seed, is_weighted) = data;
            let data = Data { features, classes, rows, seed, is_weighted };
            let model = data.try_train(6, &format!("num_leaves={leaves} {parameters}"));
            let model = model.map_err(|error| TestCaseError::reject(error.to_string()))?;
            check(&model, 40);
        }
    }

    /// A tree of `x ≤ 0.5` (and, on the left, `y ≤ 0.5`), with the values and the training rows of the leaves.
    fn model(splits: &str, leaves: &str, rows: &str) -> Trees {
        let count = leaves.split(' ').count();
        let text = format!(
            "tree\nversion=v4\nnum_class=1\nnum_tree_per_iteration=1\nmax_feature_idx=1\nobjective=binary sigmoid:1\n\
             feature_names=x y\ntree_sizes=1\n\nTree=0\nnum_leaves={count}\nnum_cat=0\n{splits}\nleaf_value={leaves}\n\
             leaf_count={rows}\nis_linear=0\n\n\nend of trees\n"
        );
        Trees::parse(&text).unwrap()
    }

    const BOTH: &str = "split_feature=0 1\nthreshold=0.5 0.5\ndecision_type=2 2\nleft_child=1 -1\nright_child=-3 -2";
    const ONE: &str =
        "split_feature=0\nthreshold=0.5\ndecision_type=2\nleft_child=-1\nright_child=-2";
    /// `x ≤ 0.5`, and on the left `x ≤ 0.25`.
    const TWICE: &str = "split_feature=0 0\nthreshold=0.5 0.25\ndecision_type=2 2\nleft_child=1 -1\nright_child=-3 -2";

    #[track_caller]
    fn check_by_hand(trees: &Trees, row: [f64; 2], expected: [f64; 3]) {
        let mut out = Contributions::default();
        TreeShap::new(trees).unwrap().contributions(trees, &mut row.clone(), &mut out);
        let found = [out.features[0], out.features[1], out.base[0]];
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-13, "{row:?}: {found:?}, not {expected:?}");
        }
    }

    #[test]
    fn contributions_are_those_by_hand() {
        // One feature has all of the effect.
        let one = model(ONE, "0 8", "75 25");
        check_by_hand(&one, [0.0, 0.0], [-2.0, 0.0, 2.0]);
        check_by_hand(&one, [1.0, 0.0], [6.0, 0.0, 2.0]);
        // Both are needed: they share the effect equally if both are as rare.
        let both = model(BOTH, "8 0 0", "25 25 50");
        check_by_hand(&both, [0.0, 0.0], [3.0, 3.0, 2.0]);
        // Expected: 2; 4 with x; 0 with y, so x: ((4 - 2) + (0 - 0)) / 2.
        check_by_hand(&both, [0.0, 1.0], [1.0, -3.0, 2.0]);
        check_by_hand(&both, [1.0, 0.0], [-3.0, 1.0, 2.0]);
        check_by_hand(&both, [1.0, 1.0], [-1.0, -1.0, 2.0]);
        let twice = model(TWICE, "8 4 0", "25 25 50");
        check_by_hand(&twice, [0.0, 0.0], [5.0, 0.0, 3.0]);
        check_by_hand(&twice, [0.4, 0.0], [1.0, 0.0, 3.0]);
        check_by_hand(&twice, [1.0, 0.0], [-3.0, 0.0, 3.0]);
    }

    #[test]
    fn a_branch_without_training_rows_counts_only_for_rows_that_take_it() {
        // LightGBM divides by zero. Expected: 2; 0 with x ≤ 0.5; 6 with y ≤ 0.5.
        let empty = model(BOTH, "8 0 4", "0 50 50");
        check_by_hand(&empty, [0.0, 0.0], [0.0, 6.0, 2.0]);
        check_by_hand(&empty, [1.0, 0.0], [0.0, 2.0, 2.0]);
        check_by_hand(&empty, [0.0, 1.0], [-2.0, 0.0, 2.0]);
        check_by_hand(&empty, [1.0, 1.0], [2.0, 0.0, 2.0]);
        // Nor do subtrees without any.
        let empty = model(BOTH, "8 2 4", "0 0 50");
        check_by_hand(&empty, [1.0, 0.0], [0.0, 0.0, 4.0]);
        check_by_hand(&empty, [0.0, 0.0], [0.0, 4.0, 4.0]);
    }

    #[test]
    fn a_model_whose_text_lacks_training_rows_has_no_contributions() {
        let check = |rows: &str| {
            let trees = model(BOTH, "8 0 4", rows);
            assert_eq!(TreeShap::new(&trees), Err(NoLeafCounts { tree: 0 }), "{rows}");
        };
        check("0 0 0");
        check("1 2");
        check("1 2 x");
        check("1 2 -3");
        check("");
        let second = DATA.train(3, "");
        let at = second.rfind("leaf_count=").unwrap();
        let without = format!("{}leaf_counts={}", &second[..at], &second[at + 11..]);
        let error = TreeShap::new(&Trees::parse(&without).unwrap()).unwrap_err();
        assert_eq!(error, NoLeafCounts { tree: 2 });
    }

    #[test]
    fn a_tree_of_any_depth_is_walked_without_recursion() {
        let number = 50_000;
        let list = |element: &dyn Fn(usize) -> String, count| {
            (0..count).map(element).collect::<Vec<_>>().join(" ")
        };
        let splits = number - 1;
        let left =
            list(&|n| if n + 1 < splits { (n + 1).to_string() } else { "-1".to_owned() }, splits);
        let right = list(&|n| format!("-{}", n + 2), splits);
        let splits = format!(
            "split_feature={}\nthreshold={}\ndecision_type={}\nleft_child={left}\nright_child={right}",
            list(&|n| (n % 2).to_string(), splits),
            list(&|n| (number - n).to_string(), splits),
            list(&|_| "2".to_owned(), splits),
        );
        let trees =
            model(&splits, &list(&|n| n.to_string(), number), &list(&|_| "1".to_owned(), number));
        let (mut out, mut sums) = (Contributions::default(), Sums::default());
        let mut row = [25_000.5, 3.0];
        TreeShap::new(&trees).unwrap().contributions(&trees, &mut row, &mut out);
        trees.sums(&mut row, &mut sums);
        let sum = out.features.iter().sum::<f64>() + out.base[0];
        assert!((sum - sums.sums[0]).abs() < 1e-6, "{sum}, not {:?}", sums.sums);
    }
}

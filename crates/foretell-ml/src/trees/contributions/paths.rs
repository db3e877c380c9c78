//! The shares of the training rows on the paths of a model's trees, computed once.

use std::ops::Range;

use crate::trees::{Trees, contributions::NoLeafCounts};

/// The paths of all trees: 40 bytes for each split, and for each tree.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Paths {
    pub(super) trees: Vec<TreePaths>,
    /// In the order of the model's nodes.
    pub(super) splits: Vec<PathSplit>,
    /// The mean of each sum over the training rows.
    pub(super) base: Vec<f64>,
}

/// The place of a tree in the model.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct TreePaths {
    /// Indexes of its splits.
    pub(super) splits: Range<usize>,
    /// Indexes of its leaves.
    pub(super) leaves: Range<usize>,
    /// The largest number of different features on a path.
    pub(super) features_max: usize,
}

/// A split, with the shares of the training rows that its branches have.
///
/// The subtrees of a tree are numbered: first the splits, then the leaves, in the order of the model. Its branches are
/// numbered, too: `2 × split` is to the left, `2 × split + 1` to the right.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct PathSplit {
    pub(super) feature: u32,
    /// The subtrees on the left and on the right.
    pub(super) children: [u32; 2],
    /// The nearest branch above whose split is on the same feature; `2 × splits` if there is none.
    pub(super) above: u32,
    /// The product of the shares of all branches above whose splits are on the same feature.
    pub(super) share_above: f64,
    /// The shares of the split's training rows that go left and right.
    pub(super) shares: [f64; 2],
}

/// The nearest branch above of a split on a feature.
#[derive(Clone, Copy)]
struct Above {
    branch: u32,
    share: f64,
}

/// A step of the walk through a tree. The walk has a stack of its own: an untrusted model may have a tree of any depth.
enum Step {
    /// Visits a split below a branch of a split on `feature`.
    Enter { split: usize, feature: u32, branch: Above, features: usize },
    /// Returns from below that branch.
    Leave { feature: u32, before: Above },
}

impl Paths {
    /// Computes the paths of a model.
    ///
    /// # Errors
    /// [`NoLeafCounts`] if the model does not say how many training rows a tree and its leaves have.
    pub(super) fn new(trees: &Trees) -> Result<Self, NoLeafCounts> {
        let mut paths = Self {
            trees: places(trees),
            splits: Vec::new(),
            base: vec![0.0; trees.sums_per_row()],
        };
        paths.splits.reserve_exact(trees.nodes.len());
        let classes = paths.base.len();
        for tree in 0..paths.trees.len() {
            let mean = paths.add(trees, tree).ok_or(NoLeafCounts { tree })?;
            paths.base[tree % classes] += mean;
        }
        Ok(paths)
    }

    /// Adds the splits of the next tree, and returns the mean of its leaves; `None` without training rows.
    fn add(&mut self, trees: &Trees, tree: usize) -> Option<f64> {
        let TreePaths { splits, leaves, .. } = &self.trees[tree];
        let (splits, leaves) = (splits.clone(), leaves.clone());
        let rows = trees.leaf_rows.get(leaves.clone())?;
        if splits.is_empty() {
            return Some(trees.leaves[leaves.start]);
        }
        let total: u64 = rows.iter().map(|rows| u64::from(*rows)).sum();
        if total == 0 {
            return None;
        }
        let mut mean = 0.0;
        for (value, rows) in trees.leaves[leaves.clone()].iter().zip(rows) {
            mean += value * f64::from(*rows) / total as f64;
        }
        let none = u32::try_from(2 * splits.len()).expect("children are 32-bit numbers");
        for node in &trees.nodes[splits.clone()] {
            // A node is `first + index`, a leaf `!(first + index)`; the leaves come after the splits.
            let number = |child: i32| match usize::try_from(child) {
                Ok(node) => node - splits.start,
                Err(_) => (!child).unsigned_abs() as usize - leaves.start + splits.len(),
            };
            let children = [node.left, node.right]
                .map(|child| u32::try_from(number(child)).expect("children are 32-bit numbers"));
            self.splits.push(PathSplit {
                feature: node.feature,
                children,
                above: none,
                share_above: 1.0,
                shares: [0.0; 2],
            });
        }
        let splits = &mut self.splits[splits];
        set_shares(splits, rows);
        self.trees[tree].features_max = set_above(splits, trees.features(), none);
        Some(mean)
    }
}

/// The places of the trees in the arrays of the model.
fn places(trees: &Trees) -> Vec<TreePaths> {
    let mut end = trees.nodes.len();
    let mut places: Vec<TreePaths> = Vec::with_capacity(trees.roots.len());
    for root in trees.roots.iter().rev() {
        // A tree that is a single leaf has no splits.
        let start = usize::try_from(*root).unwrap_or(end);
        places.push(TreePaths { splits: start..end, leaves: 0..0, features_max: 0 });
        end = start;
    }
    places.reverse();
    let mut start = 0;
    for place in &mut places {
        place.leaves = start..start + place.splits.len() + 1;
        start = place.leaves.end;
    }
    places
}

/// Computes the shares from the numbers of training rows in the leaves. A branch of a split without rows has the share 0.
fn set_shares(splits: &mut [PathSplit], rows_of_leaves: &[u32]) {
    let mut rows = vec![0_u64; splits.len()];
    rows.extend(rows_of_leaves.iter().map(|rows| u64::from(*rows)));
    // Children come after their parents.
    for (index, split) in splits.iter_mut().enumerate().rev() {
        let [left, right] = split.children.map(|child| rows[child as usize]);
        rows[index] = left + right;
        let total = rows[index].max(1) as f64;
        split.shares = [left as f64 / total, right as f64 / total];
    }
}

/// Computes what is above each split, and returns the largest number of different features on a path.
fn set_above(splits: &mut [PathSplit], features: usize, none: u32) -> usize {
    let mut above = vec![Above { branch: none, share: 1.0 }; features];
    let mut steps = Vec::new();
    let mut features_max = 0;
    let mut visit = |split: usize, above: &[Above], features: usize, steps: &mut Vec<Step>| {
        let (count, path) = (splits.len(), &mut splits[split]);
        let Above { branch, share } = above[path.feature as usize];
        (path.above, path.share_above) = (branch, share);
        let features = features + usize::from(branch == none);
        features_max = features_max.max(features);
        for side in 0..2 {
            let child = path.children[side] as usize;
            if child < count {
                let branch = u32::try_from(2 * split + side).expect("it is less than `none`");
                let branch = Above { branch, share: share * path.shares[side] };
                steps.push(Step::Enter { split: child, feature: path.feature, branch, features });
            }
        }
    };
    visit(0, &above, 0, &mut steps);
    while let Some(step) = steps.pop() {
        match step {
            Step::Enter { split, feature, branch, features } => {
                let before = std::mem::replace(&mut above[feature as usize], branch);
                steps.push(Step::Leave { feature, before });
                visit(split, &above, features, &mut steps);
            }
            Step::Leave { feature, before } => above[feature as usize] = before,
        }
    }
    features_max
}

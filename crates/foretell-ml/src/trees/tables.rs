//! Look-up tables that evaluate all trees at once: one look-up per feature, and no branch to mispredict.
//!
//! The leaves of each tree are bits of a word, numbered from left to right. A split that sends a row right excludes the
//! leaves on its left. When all splits are applied, the lowest bit that remains is the leaf that a walk would reach
//! (QuickScorer: Lucchese et al., SIGIR 2015). The leaves that the splits on one feature exclude depend only on which of
//! their thresholds the value exceeds, or on its category. So they are computed once, into a table per feature:
//!
//! ```text
//!              tree 0   tree 1   tree 2 …
//!  bin 0        1111     1111     1111       one row per bin of the feature: the leaves that remain in each tree
//!  bin 1        1100     1111     1111
//!  bin 2        1100     1110     1111
//! ```
//!
//! Scoring looks up one row per feature, and combines them with AND: a block of trees at a time, so that the words of a
//! block stay in registers. `make bench-scorer` measures it.

use crate::trees::{Node, Split, Trees, category_of};

/// Maximum leaves of a tree, which are the bits of a `u64`.
const LEAVES_MAX: usize = 64;
/// Maximum size of a model's tables; larger models are walked. 420 trees × 2500 bins (thirteen columns and two crosses)
/// take 8 MiB.
const TABLE_BYTES_MAX: usize = 64 << 20;

/// Trees that are combined at a time: as many words as fit a few vector registers.
const LANES: usize = 8;
/// The leaves that remain, one word per tree of a block.
type Masks = [u64; LANES];

/// The tables of a model, one per feature that is split on.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tables {
    tables: Vec<Table>,
    /// Rows of all tables, each of `blocks` elements. In the last block, all leaves remain of trees that do not exist.
    masks: Vec<Masks>,
    /// Blocks of [`LANES`] trees.
    blocks: usize,
    /// Index of each tree's first leaf in `leaves`.
    starts: Vec<usize>,
    /// Values of the leaves, tree after tree, each from left to right.
    leaves: Vec<f64>,
}

#[derive(Clone, Debug, PartialEq)]
struct Table {
    feature: usize,
    bins: Bins,
    /// Index of the first row in [`Tables::masks`].
    start: usize,
}

#[derive(Clone, Debug, PartialEq)]
enum Bins {
    /// The bin is the number of thresholds below the value; the last bin is for NaN, the one before it for values above
    /// all thresholds.
    Number { thresholds: Vec<f64> },
    /// The bin is the category; the last one is for categories beyond all sets and for values that are no category.
    Category { categories: usize },
}

/// A split, with the leaves of its tree that it excludes when it sends a row right.
struct Cut {
    tree: usize,
    node: Node,
    left: u64,
}

impl Tables {
    /// Builds the tables of a model. `None` if it must be walked: a tree has more than 64 leaves, zeros count as missing,
    /// or the tables would exceed `TABLE_BYTES_MAX`.
    pub(super) fn new(trees: &Trees) -> Option<Self> {
        let mut tables = Self {
            tables: Vec::new(),
            masks: Vec::new(),
            blocks: trees.roots.len().div_ceil(LANES),
            starts: Vec::new(),
            leaves: Vec::new(),
        };
        let mut cuts = Vec::new();
        for (tree, root) in trees.roots.iter().enumerate() {
            tables.starts.push(tables.leaves.len());
            tables.add_subtree(trees, tree, *root, 0, &mut cuts)?;
        }
        // By feature and kind of split; the sort is stable.
        let is_category = |cut: &Cut| matches!(cut.node.split, Split::Category { .. });
        cuts.sort_by_key(|cut| (cut.node.feature, is_category(cut)));
        for cuts in cuts
            .chunk_by(|a, b| a.node.feature == b.node.feature && is_category(a) == is_category(b))
        {
            let bins =
                if is_category(&cuts[0]) { categories(trees, cuts) } else { thresholds(cuts)? };
            let masks = bins.rows().saturating_mul(tables.blocks);
            if tables.masks.len().saturating_add(masks) > TABLE_BYTES_MAX / size_of::<Masks>() {
                return None;
            }
            tables.add_table(trees, bins, cuts);
        }
        Some(tables)
    }

    /// Numbers the leaves below `child` and collects the splits. Returns the leaves as bits, or `None` if there are too
    /// many.
    fn add_subtree(
        &mut self,
        trees: &Trees,
        tree: usize,
        child: i32,
        depth: usize,
        cuts: &mut Vec<Cut>,
    ) -> Option<u64> {
        // A tree this deep has more leaves than bits. The check bounds the recursion for any model text.
        if depth >= LEAVES_MAX {
            return None;
        }
        let Ok(index) = usize::try_from(child) else {
            let leaf = self.leaves.len() - self.starts[tree];
            self.leaves.push(trees.leaves[(!child).unsigned_abs() as usize]);
            return (leaf < LEAVES_MAX).then(|| 1 << leaf);
        };
        let node = trees.nodes[index];
        let left = self.add_subtree(trees, tree, node.left, depth + 1, cuts)?;
        let right = self.add_subtree(trees, tree, node.right, depth + 1, cuts)?;
        cuts.push(Cut { tree, node, left });
        Some(left | right)
    }

    /// Appends the table of the feature that `cuts` split on.
    fn add_table(&mut self, trees: &Trees, bins: Bins, cuts: &[Cut]) {
        let start = self.masks.len();
        for bin in 0..bins.rows() {
            let value = bins.representative(bin);
            let row = self.masks.len();
            self.masks.resize(row + self.blocks, [u64::MAX; LANES]);
            for cut in cuts {
                if !trees.goes_left(cut.node.split, value) {
                    self.masks[row + cut.tree / LANES][cut.tree % LANES] &= !cut.left;
                }
            }
        }
        self.tables.push(Table { feature: cuts[0].node.feature as usize, bins, start });
    }

    /// Adds the value of each tree's leaf to its sum, in the order of the trees. `rows` is scratch space.
    pub(super) fn add(&self, row: &[f64], rows: &mut Vec<usize>, sums: &mut [f64]) {
        rows.clear();
        rows.extend(
            self.tables
                .iter()
                .map(|table| table.start + table.bins.bin(row[table.feature]) * self.blocks),
        );
        let mut class = 0;
        for (block, starts) in self.starts.chunks(LANES).enumerate() {
            let mut remaining = [u64::MAX; LANES];
            for row in rows.iter() {
                for (remaining, mask) in remaining.iter_mut().zip(&self.masks[row + block]) {
                    *remaining &= mask;
                }
            }
            // At least one leaf remains: the splits on the path to the reached leaf do not exclude it.
            let leaves = starts
                .iter()
                .zip(remaining)
                .map(|(start, remaining)| self.leaves[start + remaining.trailing_zeros() as usize]);
            match &mut *sums {
                [sum] => *sum = leaves.fold(*sum, |sum, leaf| sum + leaf),
                sums => {
                    for leaf in leaves {
                        sums[class] += leaf;
                        class = (class + 1) % sums.len();
                    }
                }
            }
        }
    }
}

impl Bins {
    #[inline]
    fn bin(&self, value: f64) -> usize {
        match self {
            Self::Number { thresholds } if value.is_nan() => thresholds.len() + 1,
            Self::Number { thresholds } => {
                thresholds.partition_point(|threshold| *threshold < value)
            }
            Self::Category { categories } => category_of(value)
                .map_or(*categories, |category| (category as usize).min(*categories)),
        }
    }

    fn rows(&self) -> usize {
        match self {
            Self::Number { thresholds } => thresholds.len() + 2,
            Self::Category { categories } => categories + 1,
        }
    }

    /// A value of the bin. Its row is computed with the splits themselves, so table and walk cannot differ.
    fn representative(&self, bin: usize) -> f64 {
        match self {
            Self::Number { thresholds } => match thresholds.get(bin) {
                Some(threshold) => *threshold,
                None if bin == thresholds.len() => f64::INFINITY,
                None => f64::NAN,
            },
            Self::Category { categories } if bin == *categories => f64::NAN,
            Self::Category { .. } => bin as f64,
        }
    }
}

/// The bins of a numeric feature; `None` if zero counts as missing, which would need a bin of its own.
fn thresholds(cuts: &[Cut]) -> Option<Bins> {
    let mut thresholds = Vec::with_capacity(cuts.len());
    for cut in cuts {
        match cut.node.split {
            Split::Number { threshold, .. } => thresholds.push(threshold),
            Split::NumberOrZero { .. } | Split::Category { .. } => return None,
        }
    }
    thresholds.sort_by(f64::total_cmp);
    // Compared as numbers: -0 and 0 are the same threshold.
    #[expect(
        clippy::float_cmp,
        reason = "the same threshold is the same bits, or a zero of either sign"
    )]
    thresholds.dedup_by(|a, b| a == b);
    Some(Bins::Number { thresholds })
}

/// The bins of a categorical feature, up to the largest category in any of the splits' sets.
fn categories(trees: &Trees, cuts: &[Cut]) -> Bins {
    let end = |cut: &Cut| match cut.node.split {
        Split::Category { start, words } => {
            let set = &trees.bits[start as usize..(start + words) as usize];
            let last = set.iter().rposition(|word| *word != 0);
            last.map_or(0, |word| word * 32 + 32 - set[word].leading_zeros() as usize)
        }
        Split::Number { .. } | Split::NumberOrZero { .. } => 0,
    };
    Bins::Category { categories: cuts.iter().map(end).max().unwrap_or(0) }
}

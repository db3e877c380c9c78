//! The trees as tables: all trees at once, one look-up a feature, no branch to mispredict.
//!
//! Each tree's leaves are bits of a word, numbered from left to right. A split that sends a row right cuts off the
//! leaves on its left; when all such splits have cut, the lowest bit left is the leaf that a walk would have reached
//! (QuickScorer: Lucchese and others, SIGIR 2015). What the splits on one feature cut off depends on nothing but
//! which of their thresholds the value is above, or which category it is, so it is worked out once, into a table:
//!
//! ```text
//!              tree 0   tree 1   tree 2 …
//!  bin 0        1111     1111     1111       one row a bin of the feature: the leaves that its splits leave
//!  bin 1        1100     1111     1111       in each tree
//!  bin 2        1100     1110     1111
//! ```
//!
//! To score is to look up one row a feature, and to combine them. Measured on the Adult data, 297 trees of 31 leaves,
//! features included: 2.7 µs a row; LightGBM's own single-row prediction takes 22 µs for features that are ready.

use crate::trees::{Node, Split, Trees, category_of};

/// The leaves of a tree are the bits of a `u64`.
const LEAVES_MAX: usize = 64;
/// More than this is walked: 420 trees × 2500 bins (thirteen columns and two crosses) are 8 MiB.
const TABLE_BYTES_MAX: usize = 64 << 20;

/// The tables of a model.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tables {
    tables: Vec<Table>,
    /// The first leaf of each tree in `leaves`.
    starts: Vec<usize>,
    /// Tree after tree, each from left to right.
    leaves: Vec<f64>,
}

#[derive(Clone, Debug, PartialEq)]
struct Table {
    feature: usize,
    bins: Bins,
    /// Row after row: for each tree, the leaves that are left.
    rows: Vec<u64>,
}

#[derive(Clone, Debug, PartialEq)]
enum Bins {
    /// The bin is the number of thresholds below the value. The last row but one is for above all, the last for NaN.
    Number { thresholds: Vec<f64> },
    /// The bin is the category; the last row is for those beyond all sets, and for what is no category.
    Category { categories: usize },
}

/// A split: what it leaves of its tree where it sends a row right.
struct Cut {
    tree: usize,
    node: Node,
    left: u64,
}

impl Tables {
    /// The tables of a model; none if it has to be walked: a tree of more than 64 leaves, zeros that count as missing,
    /// or tables that would be too large.
    pub(super) fn new(trees: &Trees) -> Option<Self> {
        let mut tables = Self { tables: Vec::new(), starts: Vec::new(), leaves: Vec::new() };
        let mut cuts = Vec::new();
        for (tree, root) in trees.roots.iter().enumerate() {
            tables.starts.push(tables.leaves.len());
            tables.place(trees, tree, (*root, 0), &mut cuts)?;
        }
        // By feature, and kind of split; a stable sort keeps them otherwise as they were.
        let is_category = |cut: &Cut| matches!(cut.node.split, Split::Category { .. });
        cuts.sort_by_key(|cut| (cut.node.feature, is_category(cut)));
        let mut bytes = 0_usize;
        for cuts in cuts
            .chunk_by(|a, b| a.node.feature == b.node.feature && is_category(a) == is_category(b))
        {
            let bins =
                if is_category(&cuts[0]) { categories(trees, cuts) } else { thresholds(cuts)? };
            bytes = bytes
                .saturating_add(bins.rows().saturating_mul(trees.roots.len() * size_of::<u64>()));
            if bytes > TABLE_BYTES_MAX {
                return None;
            }
            tables.tables.push(Table::new(trees, bins, cuts));
        }
        Some(tables)
    }

    /// Numbers the leaves below `child` and notes the splits; answers the leaves, or none if there are too many.
    fn place(
        &mut self,
        trees: &Trees,
        tree: usize,
        (child, depth): (i32, usize),
        cuts: &mut Vec<Cut>,
    ) -> Option<u64> {
        // A tree this deep has more leaves than there are bits: this bounds the recursion, whatever the text said.
        if depth >= LEAVES_MAX {
            return None;
        }
        let Ok(index) = usize::try_from(child) else {
            let leaf = self.leaves.len() - self.starts[tree];
            self.leaves.push(trees.leaves[(!child).unsigned_abs() as usize]);
            return (leaf < LEAVES_MAX).then(|| 1 << leaf);
        };
        let node = trees.nodes[index];
        let left = self.place(trees, tree, (node.left, depth + 1), cuts)?;
        let right = self.place(trees, tree, (node.right, depth + 1), cuts)?;
        cuts.push(Cut { tree, node, left });
        Some(left | right)
    }

    /// Adds each tree's leaf to its sum, in the order of the trees.
    pub(super) fn add(&self, row: &[f64], alive: &mut Vec<u64>, sums: &mut [f64]) {
        alive.clear();
        alive.resize(self.starts.len(), u64::MAX);
        for table in &self.tables {
            for (alive, left) in alive.iter_mut().zip(table.row(row[table.feature])) {
                *alive &= left;
            }
        }
        let mut leaves = self.starts.iter().zip(alive.iter()).map(|(start, alive)| {
            // One leaf is always left: the one that the splits on the way to it do not cut off.
            self.leaves[start + alive.trailing_zeros() as usize]
        });
        for _ in 0..self.starts.len() / sums.len() {
            for (sum, leaf) in sums.iter_mut().zip(&mut leaves) {
                *sum += leaf;
            }
        }
    }
}

impl Table {
    fn new(trees: &Trees, bins: Bins, cuts: &[Cut]) -> Self {
        let width = trees.roots.len();
        let mut rows = vec![u64::MAX; bins.rows() * width];
        for (bin, row) in rows.chunks_exact_mut(width).enumerate() {
            let value = bins.example(bin);
            for cut in cuts {
                if !trees.goes_left(cut.node.split, value) {
                    row[cut.tree] &= !cut.left;
                }
            }
        }
        let feature = cuts[0].node.feature as usize;
        Self { feature, bins, rows }
    }

    #[inline]
    fn row(&self, value: f64) -> &[u64] {
        let bin = match &self.bins {
            Bins::Number { thresholds } if value.is_nan() => thresholds.len() + 1,
            Bins::Number { thresholds } => {
                thresholds.partition_point(|threshold| *threshold < value)
            }
            Bins::Category { categories } => category_of(value)
                .map_or(*categories, |category| (category as usize).min(*categories)),
        };
        let width = self.rows.len() / self.bins.rows();
        &self.rows[bin * width..(bin + 1) * width]
    }
}

impl Bins {
    fn rows(&self) -> usize {
        match self {
            Self::Number { thresholds } => thresholds.len() + 2,
            Self::Category { categories } => categories + 1,
        }
    }

    /// A value of the bin: the row is what the splits say of it, so that table and walk cannot differ.
    fn example(&self, bin: usize) -> f64 {
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

/// None if a zero counts as missing: it would need a bin of its own.
fn thresholds(cuts: &[Cut]) -> Option<Bins> {
    let mut thresholds = Vec::with_capacity(cuts.len());
    for cut in cuts {
        match cut.node.split {
            Split::Number { threshold, .. } => thresholds.push(threshold),
            Split::NumberOrZero { .. } | Split::Category { .. } => return None,
        }
    }
    thresholds.sort_by(f64::total_cmp);
    // As numbers: -0 and 0 are one threshold.
    #[expect(
        clippy::float_cmp,
        reason = "the same threshold is the same bits, or a zero of either sign"
    )]
    thresholds.dedup_by(|a, b| a == b);
    Some(Bins::Number { thresholds })
}

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

//! Parser of LightGBM's model text. The text is untrusted: every index is checked here, once, so that a walk cannot
//! leave the arrays and cannot loop.

use std::{collections::BTreeMap, fmt, str::FromStr};

use crate::trees::{Node, Output, Split, Trees, tables::Tables};

/// A section of a model's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// The lines before the first tree.
    Header,
    /// The lines of one tree, numbered from 0.
    Tree(usize),
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header => f.write_str("the model's header"),
            Self::Tree(number) => write!(f, "tree {number}"),
        }
    }
}

/// Reasons why a text is not a model that [`Trees`] supports.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// A required field is missing.
    #[error("{section} has no {field}")]
    Missing {
        /// Section of the text.
        section: Section,
        /// Name of the field.
        field: &'static str,
    },
    /// A field has an invalid value.
    #[error("{section} has a malformed {field}")]
    Malformed {
        /// Section of the text.
        section: Section,
        /// Name of the field.
        field: &'static str,
    },
    /// A list does not have the length that another field implies.
    #[error("{section} has {found} elements in {field}, not {expected}")]
    Length {
        /// Section of the text.
        section: Section,
        /// Name of the field.
        field: &'static str,
        /// Number of elements.
        found: usize,
        /// Number of elements that the other field implies.
        expected: usize,
    },
    /// A valid model with a feature that [`Trees`] does not support.
    #[error("{section} has {feature}, which is not supported")]
    Unsupported {
        /// Section of the text.
        section: Section,
        /// Name of the unsupported feature.
        feature: &'static str,
    },
    /// The text ends early, or does not have as many trees as the header says.
    #[error("there are {found} whole trees, not {expected}")]
    Trees {
        /// Number of complete trees in the text.
        found: usize,
        /// Number of trees in the header.
        expected: usize,
    },
}

impl Trees {
    /// Parses a model of the objective `binary` or `multiclass`, in the format `v4` of LightGBM 4.
    ///
    /// # Errors
    /// [`ParseError`] for any other text. It never panics, and allocates in proportion to the text.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let mut lines = text.lines();
        let header = Fields::read(Section::Header, &mut lines);
        let (mut trees, expected) = read_header(&header)?;
        let mut found = 0;
        loop {
            match lines.next() {
                Some("") => (),
                Some(line) if line.starts_with("Tree=") => {
                    let fields = Fields::read(Section::Tree(found), &mut lines);
                    trees.add(&fields)?;
                    found += 1;
                }
                Some("end of trees") if found == expected => {
                    trees.tables = Tables::new(&trees);
                    return Ok(trees);
                }
                Some(_) | None => return Err(ParseError::Trees { found, expected }),
            }
        }
    }

    fn add(&mut self, fields: &Fields<'_>) -> Result<(), ParseError> {
        let leaves = fields.number::<usize>("num_leaves")?;
        if fields.text("is_linear").is_ok_and(|linear| linear != "0") {
            return Err(fields.unsupported("linear leaves"));
        }
        let values = fields.finite("leaf_value", leaves)?;
        let Some(splits) = leaves.checked_sub(1) else {
            return Err(fields.malformed("num_leaves"));
        };
        let (first_node, first_leaf) = (self.nodes.len(), self.leaves.len());
        if i32::try_from(first_leaf + leaves).is_err() {
            return Err(fields.unsupported("more than 2^31 leaves before it"));
        }
        self.leaves.extend(values);
        // Scoring does not need them, so a text without them is not malformed. Without those of one tree, those of later trees
        // are of no use.
        if let Ok(rows) = fields.list("leaf_count", leaves)
            && self.leaf_rows.len() == first_leaf
        {
            self.leaf_rows.extend::<Vec<u32>>(rows);
        }
        self.roots.push(if splits == 0 { !to_i32(first_leaf) } else { to_i32(first_node) });
        if splits == 0 {
            return Ok(());
        }
        let sets = self.read_sets(fields)?;
        // A split between missing and all other values has an infinite threshold.
        let thresholds = fields.list::<f64>("threshold", splits)?;
        if thresholds.iter().any(|threshold| threshold.is_nan()) {
            return Err(fields.malformed("threshold"));
        }
        let decisions = fields.list::<u8>("decision_type", splits)?;
        let features = fields.list::<u32>("split_feature", splits)?;
        let (lefts, rights) =
            (fields.list("left_child", splits)?, fields.list("right_child", splits)?);
        let mut children = Children { splits, has_parent: vec![false; splits + leaves] };
        let mut child = |field, node, child| match children.take(node, child) {
            Some(Child::Node(index)) => Ok(to_i32(first_node + index)),
            Some(Child::Leaf(index)) => Ok(!to_i32(first_leaf + index)),
            None => Err(fields.malformed(field)),
        };
        for node in 0..splits {
            let feature = features[node];
            if feature as usize >= self.features() {
                return Err(fields.malformed("split_feature"));
            }
            let split = read_split(fields, decisions[node], thresholds[node], &sets)?;
            let left = child("left_child", node, lefts[node])?;
            let right = child("right_child", node, rights[node])?;
            self.nodes.push(Node { split, feature, left, right });
        }
        Ok(())
    }

    /// Appends a tree's sets of categories to `bits`; returns the start and the number of words of each set.
    fn read_sets(&mut self, fields: &Fields<'_>) -> Result<Vec<(u32, u32)>, ParseError> {
        let sets = fields.number::<usize>("num_cat")?;
        if sets == 0 {
            return Ok(Vec::new());
        }
        let malformed = || fields.malformed("cat_boundaries");
        let boundaries = fields.list::<u32>("cat_boundaries", sets.saturating_add(1))?;
        let words = *boundaries.last().ok_or_else(malformed)?;
        let bits = fields.list::<u32>("cat_threshold", words as usize)?;
        let first = u32::try_from(self.bits.len())
            .map_err(|_| fields.unsupported("too many categories before it"))?;
        if first.checked_add(words).is_none() || !boundaries.is_sorted() {
            return Err(malformed());
        }
        self.bits.extend(bits);
        Ok(boundaries.windows(2).map(|pair| (first + pair[0], pair[1] - pair[0])).collect())
    }
}

/// Parses the header into an empty [`Trees`] and the number of trees that must follow.
fn read_header(header: &Fields<'_>) -> Result<(Trees, usize), ParseError> {
    let missing = |field| ParseError::Missing { section: Section::Header, field };
    if !header.has_line("tree") {
        return Err(missing("first line `tree`"));
    }
    if header.text("version")? != "v4" {
        return Err(header.unsupported("a version other than v4"));
    }
    if header.has_line("average_output") {
        return Err(header.unsupported("averaged trees (a random forest)"));
    }
    let output = read_output(header)?;
    let trees = header.text("tree_sizes")?.split_ascii_whitespace().count();
    let per_iteration = match output {
        Output::Binary { .. } => 1,
        Output::Multiclass { classes } => classes,
    };
    if header.number::<usize>("num_tree_per_iteration")? != per_iteration {
        return Err(header.malformed("num_tree_per_iteration"));
    }
    if trees == 0 || trees % per_iteration != 0 {
        return Err(header.malformed("tree_sizes"));
    }
    let feature_names: Vec<String> =
        header.text("feature_names")?.split(' ').map(str::to_owned).collect();
    let last_feature = header.number::<usize>("max_feature_idx")?;
    if feature_names.len() - 1 != last_feature {
        return Err(header.malformed("max_feature_idx"));
    }
    let empty = Trees {
        feature_names,
        output,
        roots: Vec::new(),
        nodes: Vec::new(),
        leaves: Vec::new(),
        leaf_rows: Vec::new(),
        bits: Vec::new(),
        tables: None,
    };
    Ok((empty, trees))
}

fn read_output(header: &Fields<'_>) -> Result<Output, ParseError> {
    let malformed = || header.malformed("objective");
    let mut words = header.text("objective")?.split(' ');
    let objective = words.next().unwrap_or_default();
    let options: BTreeMap<&str, &str> = words.filter_map(|word| word.split_once(':')).collect();
    match objective {
        "binary" => {
            let sigmoid: Option<f64> =
                options.get("sigmoid").and_then(|sigmoid| sigmoid.parse().ok());
            let sigmoid = sigmoid.filter(|sigmoid| sigmoid.is_finite() && *sigmoid > 0.0);
            Ok(Output::Binary { sigmoid: sigmoid.ok_or_else(malformed)? })
        }
        "multiclass" => {
            let classes: Option<usize> =
                options.get("num_class").and_then(|classes| classes.parse().ok());
            let classes = classes.filter(|classes| *classes >= 2);
            Ok(Output::Multiclass { classes: classes.ok_or_else(malformed)? })
        }
        _ => Err(header.unsupported("an objective other than `binary` and `multiclass`")),
    }
}

/// Decodes LightGBM's `decision_type`. Bit 0: a split by category. Bit 1: missing values go left. Bits 2 and 3: which
/// values are missing (0 none, 1 zero, 2 NaN).
fn read_split(
    fields: &Fields<'_>,
    decision: u8,
    threshold: f64,
    sets: &[(u32, u32)],
) -> Result<Split, ParseError> {
    let (category, default_left) = (decision & 1 == 1, decision & 2 == 2);
    let missing = decision >> 2;
    if category {
        // The threshold is the number of a set. It is compared as a float, because `as usize` would turn a negative or
        // fractional number into the number of another set.
        let set = (0..sets.len()).find(|set| (*set as f64).total_cmp(&threshold).is_eq());
        let (start, words) = set.map(|set| sets[set]).ok_or(fields.malformed("threshold"))?;
        return Ok(Split::Category { start, words });
    }
    match missing {
        // No value is missing: LightGBM takes NaN for 0.
        0 => Ok(Split::Number { threshold, nan_left: 0.0 <= threshold }),
        1 => Ok(Split::NumberOrZero { threshold, missing_left: default_left }),
        2 => Ok(Split::Number { threshold, nan_left: default_left }),
        _ => Err(fields.malformed("decision_type")),
    }
}

/// The children of a tree's nodes: checks that the nodes form a tree.
struct Children {
    splits: usize,
    /// Whether each node, then each leaf, has a parent.
    has_parent: Vec<bool>,
}

enum Child {
    Node(usize),
    Leaf(usize),
}

impl Children {
    /// Decodes a child as the text has it: a node's index, or `!leaf`. A node must come after its parent, as LightGBM
    /// numbers them, so that there is no cycle, and must not have a second parent. `None` if it is no valid child.
    fn take(&mut self, parent: usize, child: i32) -> Option<Child> {
        let (index, child) = match child {
            0.. => {
                let node = usize::try_from(child)
                    .ok()
                    .filter(|node| (parent + 1..self.splits).contains(node))?;
                (node, Child::Node(node))
            }
            _ => {
                let leaf = usize::try_from(!child).ok()?;
                (self.splits.checked_add(leaf)?, Child::Leaf(leaf))
            }
        };
        let has_parent = self.has_parent.get_mut(index)?;
        (!std::mem::replace(has_parent, true)).then_some(child)
    }
}

fn to_i32(index: usize) -> i32 {
    i32::try_from(index).expect("there are fewer nodes than leaves, and their number was checked")
}

/// The lines of a section, as `field=value`. Of a duplicate field the last one counts, as in LightGBM.
pub(super) struct Fields<'a> {
    section: Section,
    values: BTreeMap<&'a str, &'a str>,
}

impl<'a> Fields<'a> {
    /// Reads up to an empty line.
    pub(super) fn read(section: Section, lines: &mut impl Iterator<Item = &'a str>) -> Self {
        let fields = lines.take_while(|line| !line.is_empty());
        Self {
            section,
            values: fields.map(|line| line.split_once('=').unwrap_or((line, ""))).collect(),
        }
    }

    fn has_line(&self, line: &str) -> bool {
        self.values.contains_key(line)
    }

    fn text(&self, field: &'static str) -> Result<&'a str, ParseError> {
        self.values.get(field).copied().ok_or(ParseError::Missing { section: self.section, field })
    }

    pub(super) fn number<T: FromStr>(&self, field: &'static str) -> Result<T, ParseError> {
        self.text(field)?.parse().map_err(|_| self.malformed(field))
    }

    pub(super) fn list<T: FromStr>(
        &self,
        field: &'static str,
        expected: usize,
    ) -> Result<Vec<T>, ParseError> {
        let mut list = Vec::new();
        for element in self.text(field)?.split_ascii_whitespace() {
            list.push(element.parse().map_err(|_| self.malformed(field))?);
        }
        let found = list.len();
        if found == expected {
            Ok(list)
        } else {
            Err(ParseError::Length { section: self.section, field, found, expected })
        }
    }

    pub(super) fn finite(
        &self,
        field: &'static str,
        expected: usize,
    ) -> Result<Vec<f64>, ParseError> {
        let list = self.list::<f64>(field, expected)?;
        if list.iter().all(|number| number.is_finite()) {
            Ok(list)
        } else {
            Err(self.malformed(field))
        }
    }

    fn malformed(&self, field: &'static str) -> ParseError {
        ParseError::Malformed { section: self.section, field }
    }

    fn unsupported(&self, feature: &'static str) -> ParseError {
        ParseError::Unsupported { section: self.section, feature }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trees::Sums;

    /// Two trees: `x <= 0.5 ? (c in {1, 33} ? 1 : 2) : 4`, and a constant.
    const MODEL: &str = "tree\nversion=v4\nnum_class=1\nnum_tree_per_iteration=1\nlabel_index=0\nmax_feature_idx=1\n\
        objective=binary sigmoid:1\nfeature_names=x c\nfeature_infos=[0:1] 0:1:33\ntree_sizes=1 1\n\n\
        Tree=0\nnum_leaves=3\nnum_cat=1\nsplit_feature=0 1\nthreshold=0.5 0\ndecision_type=8 1\n\
        left_child=1 -1\nright_child=-2 -3\nleaf_value=1 4 2\ncat_boundaries=0 2\ncat_threshold=2 2\nis_linear=0\n\
        shrinkage=1\n\n\nTree=1\nnum_leaves=1\nnum_cat=0\nsplit_feature=\nthreshold=\ndecision_type=\nleft_child=\n\
        right_child=\nleaf_value=0.25\nis_linear=0\nshrinkage=1\n\n\nend of trees\n\nfeature_importances:\nx=1\n";

    #[test]
    fn a_handwritten_model_is_evaluated() {
        let (trees, mut sums) = (Trees::parse(MODEL).unwrap(), Sums::default());
        let mut check = |x: f64, c: f64, expected: f64| {
            trees.sums(&mut [x, c], &mut sums);
            let sums = &sums.sums;
            assert!((sums[0] - expected).abs() < 1e-12, "{x} {c}: {sums:?}, not {expected}");
        };
        check(0.5, 1.0, 1.25);
        check(0.5, 33.9, 1.25);
        check(0.5, 2.0, 2.25);
        check(0.5, 64.0, 2.25);
        check(0.5, -1.0, 2.25);
        check(0.5, f64::NAN, 2.25);
        check(0.6, 1.0, 4.25);
        check(f64::NAN, 1.0, 4.25);
    }

    #[test]
    fn a_malformed_model_is_an_error() {
        let check = |from: &str, to: &str, expected: ParseError| {
            assert!(MODEL.contains(from), "{from}");
            assert_eq!(Trees::parse(&MODEL.replacen(from, to, 1)), Err(expected), "{from} → {to}");
        };
        let (header, first) = (Section::Header, Section::Tree(0));
        let malformed = |section, field| ParseError::Malformed { section, field };
        let unsupported = |section, feature| ParseError::Unsupported { section, feature };
        let missing = |section, field| ParseError::Missing { section, field };
        check("tree\n", "wood\n", missing(header, "first line `tree`"));
        check("version=v4", "version=v9", unsupported(header, "a version other than v4"));
        check("version=v4", "", missing(header, "version"));
        check(
            "version=v4",
            "version=v4\naverage_output",
            unsupported(header, "averaged trees (a random forest)"),
        );
        let objective = "an objective other than `binary` and `multiclass`";
        check("binary sigmoid:1", "custom", unsupported(header, objective));
        check("sigmoid:1", "sigmoid:none", malformed(header, "objective"));
        check(
            "binary sigmoid:1",
            "multiclass num_class:9",
            malformed(header, "num_tree_per_iteration"),
        );
        check("max_feature_idx=1", "max_feature_idx=7", malformed(header, "max_feature_idx"));
        check("tree_sizes=1 1", "tree_sizes=", malformed(header, "tree_sizes"));
        check("tree_sizes=1 1", "tree_sizes=1 1 1", ParseError::Trees { found: 2, expected: 3 });
        check("end of trees", "the end", ParseError::Trees { found: 2, expected: 2 });
        check("is_linear=0", "is_linear=1", unsupported(first, "linear leaves"));
        check(
            "num_leaves=3",
            "num_leaves=0",
            ParseError::Length { section: first, field: "leaf_value", found: 3, expected: 0 },
        );
        check(
            "num_leaves=3",
            "num_leaves=2147483647",
            ParseError::Length {
                section: first,
                field: "leaf_value",
                found: 3,
                expected: 2_147_483_647,
            },
        );
        check("leaf_value=1 4 2", "leaf_value=1 nan 2", malformed(first, "leaf_value"));
        check("threshold=0.5 0", "threshold=nan 0", malformed(first, "threshold"));
        check("threshold=0.5 0", "threshold=0.5 1", malformed(first, "threshold"));
        check("threshold=0.5 0", "threshold=0.5 -1", malformed(first, "threshold"));
        check("decision_type=8 1", "decision_type=12 1", malformed(first, "decision_type"));
        check("split_feature=0 1", "split_feature=0 2", malformed(first, "split_feature"));
        check("left_child=1 -1", "left_child=0 -1", malformed(first, "left_child"));
        check("left_child=1 -1", "left_child=1 0", malformed(first, "left_child"));
        check("left_child=1 -1", "left_child=2 -1", malformed(first, "left_child"));
        check("left_child=1 -1", "left_child=1 -2147483648", malformed(first, "left_child"));
        check("right_child=-2 -3", "right_child=-2 -4", malformed(first, "right_child"));
        check("right_child=-2 -3", "right_child=-2 -1", malformed(first, "right_child"));
        check("cat_boundaries=0 2", "cat_boundaries=3 2", malformed(first, "cat_boundaries"));
        check(
            "num_cat=1",
            "num_cat=18446744073709551615",
            ParseError::Length {
                section: first,
                field: "cat_boundaries",
                found: 2,
                expected: usize::MAX,
            },
        );
    }

    #[test]
    fn truncated_and_changed_models_do_not_panic() {
        for end in 0..MODEL.len() - "feature_importances:\nx=1\n".len() - 3 {
            assert!(Trees::parse(&MODEL[..end]).is_err(), "the first {end} bytes");
        }
        for (at, _) in MODEL.match_indices(|c: char| c.is_ascii_digit()) {
            for with in ["", "-", "9", "-9", "99999999999999999999", "1e400", "x", " 1 "] {
                let changed = format!("{}{with}{}", &MODEL[..at], &MODEL[at + 1..]);
                if let Ok(trees) = Trees::parse(&changed) {
                    let mut sums = Sums::default();
                    trees.sums(&mut vec![1.0; trees.features()], &mut sums);
                }
            }
        }
    }
}

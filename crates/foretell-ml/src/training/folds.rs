//! Assignment of examples to folds: stratified at random, or in the order of time.

use serde::{Deserialize, Serialize};

use crate::{
    Label, Seed,
    random::{self, GOLDEN},
};

/// Which examples a fold is trained on, and which it is validated on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FoldOrder {
    /// Each fold has its share of every label, drawn at random, and is validated by a model of all other examples.
    #[default]
    Shuffled,
    /// The examples are cut, in the order of the training log, into one block more than there are folds. Each block but the
    /// first is validated by a model of all blocks before it: what the past says about the future. It needs more examples for
    /// the same precision, and is right where the world changes.
    Time,
}

/// The part that an example has in a fold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Training,
    Validation,
    Unused,
}

/// The folds of a study.
pub(super) struct Folds {
    order: FoldOrder,
    /// The fold of each example, or its block.
    fold_of: Vec<usize>,
}

impl Folds {
    pub(super) fn new(order: FoldOrder, labels: &[Label], folds: usize, seed: Seed) -> Self {
        let fold_of = match order {
            FoldOrder::Shuffled => stratified(labels, folds, seed),
            FoldOrder::Time => blocks(labels.len(), folds + 1),
        };
        Self { order, fold_of }
    }

    /// The part of an example in a fold.
    pub(super) fn part(&self, index: usize, fold: usize) -> Part {
        let of = self.fold_of[index];
        match self.order {
            FoldOrder::Shuffled if of == fold => Part::Validation,
            FoldOrder::Shuffled => Part::Training,
            FoldOrder::Time if of <= fold => Part::Training,
            FoldOrder::Time if of == fold + 1 => Part::Validation,
            FoldOrder::Time => Part::Unused,
        }
    }
}

/// The block of each example: blocks differ in size by at most one.
fn blocks(examples: usize, blocks: usize) -> Vec<usize> {
    (0..examples).map(|index| index * blocks / examples).collect()
}

/// The fold of each example, given its label, from 0 to `folds - 1`. The examples of each class are shuffled and assigned to the folds in
/// turn; a class continues where the one before it stopped, so that the sizes of the folds differ by at most one.
pub(super) fn stratified(labels: &[Label], folds: usize, seed: Seed) -> Vec<usize> {
    let mut order: Vec<usize> = (0..labels.len()).collect();
    // A sort by hash is a shuffle that no release of a library changes: an old model must be reproducible to the bit.
    // The index decides between two equal hashes.
    order.sort_by_cached_key(|index| (labels[*index], mix(seed, *index), *index));
    let mut fold_of = vec![0; labels.len()];
    for (turn, index) in order.into_iter().enumerate() {
        fold_of[index] = turn % folds;
    }
    fold_of
}

/// The hash of an example's index.
pub(super) fn mix(seed: Seed, index: usize) -> u64 {
    let index = u64::try_from(index).expect("an index has at most 64 bits");
    random::mix(seed.0.wrapping_mul(GOLDEN) ^ index.wrapping_add(1).wrapping_mul(GOLDEN))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labelled(labels: impl Iterator<Item = u32>) -> Vec<Label> {
        labels.map(Label).collect()
    }

    #[test]
    fn every_fold_has_its_share_of_every_class() {
        let examples = labelled((0..103).map(|n| u32::from(n % 4 == 0)));
        let folds = stratified(&examples, 5, Seed(1));
        for fold in 0..5 {
            let share = |label| {
                (0..103).filter(|n| folds[*n] == fold && examples[*n] == Label(label)).count()
            };
            assert!((5..=6).contains(&share(1)) && (15..=16).contains(&share(0)), "{fold}");
            assert!((20..=21).contains(&(share(0) + share(1))), "{fold}");
        }
    }

    #[test]
    fn in_the_order_of_time_a_block_is_validated_by_those_before_it() {
        let labels = labelled((0..10).map(|n| n % 2));
        let folds = Folds::new(FoldOrder::Time, &labels, 4, Seed(1));
        for fold in 0..4 {
            let parts: Vec<Part> = (0..10).map(|index| folds.part(index, fold)).collect();
            let end = 2 * (fold + 1);
            assert!(parts[..end].iter().all(|part| *part == Part::Training), "{parts:?}");
            assert!(parts[end..end + 2].iter().all(|part| *part == Part::Validation), "{parts:?}");
            assert!(parts[end + 2..].iter().all(|part| *part == Part::Unused), "{parts:?}");
        }
        assert_eq!(blocks(7, 3), [0, 0, 0, 1, 1, 2, 2]);
    }

    #[test]
    fn shuffled_each_example_is_validated_once() {
        let labels = labelled((0..40).map(|n| n % 2));
        let folds = Folds::new(FoldOrder::Shuffled, &labels, 4, Seed(1));
        for index in 0..40 {
            let validations = (0..4).filter(|fold| folds.part(index, *fold) == Part::Validation);
            assert_eq!(validations.count(), 1);
            assert!((0..4).all(|fold| folds.part(index, fold) != Part::Unused));
        }
    }

    #[test]
    fn the_seed_decides() {
        let examples = labelled((0..50).map(|n| n % 2));
        assert_eq!(stratified(&examples, 5, Seed(1)), stratified(&examples, 5, Seed(1)));
        assert_ne!(stratified(&examples, 5, Seed(1)), stratified(&examples, 5, Seed(2)));
        // Must never change: an old model is reproduced with the same folds.
        let folds = stratified(&labelled((0..10).map(|_| 0)), 5, Seed(0));
        assert_eq!(folds, [2, 0, 0, 4, 1, 4, 2, 1, 3, 3]);
    }

    #[test]
    fn fewer_examples_than_folds_leave_some_empty() {
        assert_eq!(stratified(&labelled(std::iter::once(0)), 5, Seed(1)), [0]);
        assert!(stratified(&[], 5, Seed(1)).is_empty());
    }
}

//! Stratified assignment of examples to folds.

use crate::{
    Label, Seed,
    random::{self, GOLDEN},
};

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
fn mix(seed: Seed, index: usize) -> u64 {
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

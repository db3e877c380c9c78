//! Which trials of a study end after the first half of the folds.

/// Trials of a study that run all folds before any trial is pruned.
const UNPRUNED_TRIALS: usize = 4;
/// How many standard deviations of what the other folds change a trial may be behind the best one.
const DEVIATIONS: f64 = 2.0;
/// Standard deviations of a normal distribution in the median of its absolute values.
const DEVIATIONS_OF_MEDIAN: f64 = 1.4826;

/// The losses by which the trials of a study are pruned.
#[derive(Default)]
pub(super) struct Pruning {
    /// Mean loss of each trial on the first folds.
    first: Vec<f64>,
    /// Those that ran all folds.
    finished: Vec<Finished>,
}

/// Mean losses of a trial that ran all folds.
struct Finished {
    first: f64,
    all: f64,
}

impl Pruning {
    /// Whether a trial with this mean loss on the first folds ends there.
    pub(super) fn ends(&self, first: f64) -> bool {
        self.is_of_the_worse_half(first) || self.cannot_win(first)
    }

    /// Adds a trial, with its mean loss on all folds if it ran them.
    pub(super) fn add(&mut self, first: f64, all: Option<f64>) {
        self.first.push(first);
        self.finished.extend(all.map(|all| Finished { first, all }));
    }

    /// Median pruning.
    fn is_of_the_worse_half(&self, first: f64) -> bool {
        self.first.len() >= UNPRUNED_TRIALS && first > median(&self.first)
    }

    /// Whether the trial is so far behind the best one that the other folds will hardly make up for it. How much they can is
    /// estimated from the trials that ran all folds, so it needs no scale of the metric. Racing, as in Maron and Moore,
    /// "Hoeffding Races" (1994), by the spread that was seen in place of a bound.
    fn cannot_win(&self, first: f64) -> bool {
        let Some(best) = self.finished.iter().min_by(|a, b| a.all.total_cmp(&b.all)) else {
            return false;
        };
        let change = |trial: &Finished| ((trial.first - best.first) - (trial.all - best.all)).abs();
        let changes: Vec<f64> = self
            .finished
            .iter()
            .filter(|trial| !std::ptr::eq(*trial, best))
            .map(change)
            .filter(|change| change.is_finite())
            .collect();
        changes.len() + 1 >= UNPRUNED_TRIALS
            && first - best.first > DEVIATIONS * DEVIATIONS_OF_MEDIAN * median(&changes)
    }
}

fn median(numbers: &[f64]) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pruning(trials: &[(f64, Option<f64>)]) -> Pruning {
        let mut pruning = Pruning::default();
        trials.iter().for_each(|&(first, all)| pruning.add(first, all));
        pruning
    }

    #[test]
    fn a_trial_of_the_worse_half_ends_once_enough_trials_are_finished() {
        let check = |first: f64, earlier: &[f64], expected: bool| {
            let earlier: Vec<_> = earlier.iter().map(|&first| (first, None)).collect();
            assert_eq!(pruning(&earlier).ends(first), expected, "{first} {earlier:?}");
        };
        check(9.0, &[], false);
        check(9.0, &[1.0, 2.0, 3.0], false);
        check(9.0, &[4.0, 1.0, 2.0, 3.0], true);
        check(3.1, &[4.0, 1.0, 2.0, 3.0], true);
        check(3.0, &[4.0, 1.0, 2.0, 3.0], false);
        check(0.5, &[4.0, 1.0, 2.0, 3.0, 5.0], false);
    }

    #[test]
    fn a_trial_that_is_further_behind_than_folds_differ_cannot_win() {
        // The best trial is 1.0 on the first folds; the others changed by 0.1, 0.2 and 0.3 on all of them.
        let finished = [(2.0, Some(1.9)), (1.0, Some(1.0)), (3.0, Some(3.2)), (4.0, Some(3.7))];
        let bound = 1.0 + DEVIATIONS * DEVIATIONS_OF_MEDIAN * 0.2;
        assert!(!pruning(&finished).cannot_win(bound - 1e-9));
        assert!(pruning(&finished).cannot_win(bound + 1e-9));
        assert!(!pruning(&finished[..3]).cannot_win(9.0), "two changes tell too little");
        assert!(!pruning(&[]).cannot_win(9.0));
    }

    #[test]
    fn a_trial_whose_loss_is_undefined_on_some_folds_tells_nothing() {
        let undefined = (f64::INFINITY, Some(1.5));
        let finished = [(1.0, Some(1.0)), (2.0, Some(2.1)), (3.0, Some(3.1)), undefined];
        assert!(!pruning(&finished).cannot_win(9.0), "two of the three changes are numbers");
        assert!(!pruning(&[(f64::INFINITY, None); 4]).ends(f64::INFINITY));
    }
}

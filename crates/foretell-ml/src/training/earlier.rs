//! What the trials of earlier studies say about a study: their losses on one scale, and which of them still count.

use crate::{
    Seed,
    training::{Metric, Params, Trial, folds::mix},
};

/// Newest trials of earlier studies that a study uses.
pub const EARLIER_TRIALS_MAX: usize = 1000;
/// Studies after which half of a study's trials still count.
const HALF_LIFE_STUDIES: f64 = 4.0;

/// A trial of an earlier study with its loss on the scale of all studies.
pub(super) struct Earlier<'t> {
    pub(super) trial: &'t Trial,
    pub(super) loss: f64,
}

/// Losses of earlier studies on one scale, in the order of the trials.
///
/// Within a study, a loss is relative to that of its trial 0 on the same examples and folds, which makes studies of other
/// data comparable. Trial 0 of a later study has parameters that an earlier study found, and so a known loss on the scale,
/// by which the losses of that study are multiplied.
pub(super) struct EarlierTrials<'t> {
    trials: Vec<Earlier<'t>>,
}

impl<'t> EarlierTrials<'t> {
    /// Of `trials`, which are in order, each study from its trial 0 on, the newest count. Trials before the first trial 0,
    /// failed trials, and those of studies whose loss was another one, are left out.
    pub(super) fn new(trials: &'t [Trial], objective: Metric) -> Self {
        let mut found = Self { trials: Vec::new() };
        let mut baseline = None;
        for trial in &trials[trials.len().saturating_sub(EARLIER_TRIALS_MAX)..] {
            let loss = trial.loss_by(objective).filter(|loss| loss.is_finite());
            if trial.number == 0 {
                // The scale of the study: the loss that its trial 0 has on the scale of all.
                let known = found.loss_of(&trial.params).unwrap_or(1.0);
                baseline = loss.filter(|loss| *loss > 0.0).map(|loss| (loss, known));
            }
            if let (Some(loss), Some((of_first, known))) = (loss, baseline) {
                found.trials.push(Earlier { trial, loss: known * loss / of_first });
            }
        }
        found
    }

    /// The newest known loss of some parameters; `None` if no trial that ran all folds had them.
    pub(super) fn loss_of(&self, params: &Params) -> Option<f64> {
        let is_same = |earlier: &&Earlier<'_>| {
            let iterations = params.iterations;
            !earlier.trial.pruned
                && *params == Params { iterations, ..earlier.trial.params.clone() }
        };
        self.trials.iter().rev().find(is_same).map(|earlier| earlier.loss)
    }

    /// The trials that still count: all of the newest study, and of those before it a share that halves every
    /// [`HALF_LIFE_STUDIES`] studies, drawn by `seed`.
    pub(super) fn decayed(self, seed: Seed) -> Vec<Earlier<'t>> {
        let studies = self.trials.iter().filter(|earlier| earlier.trial.number == 0).count();
        let mut begun = 0;
        let mut kept = self.trials;
        kept.retain(|earlier| {
            begun += usize::from(earlier.trial.number == 0);
            let age = studies - begun;
            let share = 0.5_f64.powf(age as f64 / HALF_LIFE_STUDIES);
            // The same trial is drawn whatever is tried later: its study's number from the first one is not known.
            let number = usize::try_from(earlier.trial.number).unwrap_or(usize::MAX);
            let draw = mix(Seed(mix(seed, age)), number);
            (draw >> 11) as f64 / (1_u64 << 53) as f64 <= share
        });
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::training::SamplerKind;

    fn trial(number: u32, num_leaves: u32, log_loss: f64) -> Trial {
        let params = Params { num_leaves, iterations: 7 * (number + 1), ..Params::default() };
        Trial {
            number,
            params,
            log_loss,
            auc: None,
            iterations: 7,
            pruned: false,
            objective: Metric::LogLoss,
            value: Some(log_loss),
            sampler: SamplerKind::Tpe,
            failure: None,
        }
    }

    fn losses(trials: &[Trial]) -> Vec<(u32, f64)> {
        let earlier = EarlierTrials::new(trials, Metric::LogLoss);
        let pair = |earlier: &Earlier<'_>| (earlier.trial.params.num_leaves, earlier.loss);
        earlier.trials.iter().map(pair).collect()
    }

    fn assert_losses(trials: &[Trial], expected: &[(u32, f64)]) {
        let found = losses(trials);
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (found, expected) in found.iter().zip(expected) {
            let is_same = found.0 == expected.0 && (found.1 - expected.1).abs() < 1e-12;
            assert!(is_same, "{found:?}, not {expected:?}");
        }
    }

    #[test]
    fn losses_are_relative_to_trial_0_of_their_study() {
        let trials = [trial(3, 2, 0.1), trial(0, 5, 0.4), trial(1, 6, 0.3)];
        assert_losses(&trials, &[(5, 1.0), (6, 0.75)]);
    }

    #[test]
    fn a_study_that_starts_from_what_another_found_continues_its_scale() {
        // On other data, where losses are twice as high, the champion of 6 leaves is trial 0.
        let trials = [
            trial(0, 5, 0.4),
            trial(1, 6, 0.3),
            trial(0, 6, 0.6),
            trial(1, 7, 0.5),
            trial(0, 9, 1.0),
        ];
        assert_losses(&trials, &[(5, 1.0), (6, 0.75), (6, 0.75), (7, 0.625), (9, 1.0)]);
        let earlier = EarlierTrials::new(&trials, Metric::LogLoss);
        let of = |num_leaves| earlier.loss_of(&Params { num_leaves, ..Params::default() });
        assert!((of(7).unwrap() - 0.625).abs() < 1e-12);
        assert_eq!(of(31), None);
    }

    #[test]
    fn trials_without_a_comparable_loss_are_left_out() {
        let failed = Trial { log_loss: f64::INFINITY, value: None, ..trial(1, 6, 0.3) };
        let by_auc = Trial { objective: Metric::Auc, value: Some(0.9), ..trial(0, 8, 0.3) };
        assert_losses(&[trial(0, 5, 0.4), failed], &[(5, 1.0)]);
        // Every trial has its log loss, but not its F1.
        assert_eq!(
            EarlierTrials::new(std::slice::from_ref(&by_auc), Metric::LogLoss).trials.len(),
            1
        );
        assert_eq!(EarlierTrials::new(std::slice::from_ref(&by_auc), Metric::F1).trials.len(), 0);
        assert_eq!(EarlierTrials::new(&[by_auc], Metric::Auc).trials.len(), 1);
    }

    #[test]
    fn older_studies_count_less_and_the_newest_as_a_whole() {
        let study = |_| (0..20).map(|number| trial(number, 5, 0.4));
        let trials: Vec<Trial> = (0..9).flat_map(study).collect();
        let by_study = |seed: u64| -> Vec<usize> {
            let kept = EarlierTrials::new(&trials, Metric::LogLoss).decayed(Seed(seed));
            let index = |earlier: &Earlier<'_>| {
                let offset = trials.iter().position(|trial| std::ptr::eq(trial, earlier.trial));
                offset.unwrap() / 20
            };
            let of: Vec<usize> = kept.iter().map(index).collect();
            (0..9).map(|study| of.iter().filter(|other| **other == study).count()).collect()
        };
        let kept = by_study(1);
        assert_eq!(kept[8], 20, "{kept:?}");
        assert!((5..=15).contains(&kept[4]), "half of it: {kept:?}");
        assert!(kept[0] <= 10, "a quarter of it: {kept:?}");
        assert_eq!(by_study(1), kept);
        assert_ne!(by_study(2), kept);
    }

    #[test]
    fn only_the_newest_trials_are_used() {
        let many: Vec<Trial> =
            (0..3).flat_map(|_| (0..600).map(|number| trial(number, 5, 0.4))).collect();
        let found = EarlierTrials::new(&many, Metric::LogLoss);
        // The study in which the bound falls has no trial 0 any more.
        assert_eq!(found.trials.len(), 600);
    }
}

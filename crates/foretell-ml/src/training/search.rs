//! The choice of the parameters of a study's trials: those that are planned, then what the sampler proposes.

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};

use crate::{
    Seed,
    training::{Params, Trial, TuningSettings, earlier::EarlierTrials, sampler::Sampler},
};

/// Of the trials of a study that continues earlier ones, one in this many covers the space.
const COVERING_ONE_IN: u32 = 3;

/// The choice of the next parameters.
pub(super) struct Search<'a> {
    random: StdRng,
    settings: &'a TuningSettings,
    sampler: Box<dyn Sampler>,
    /// Trials that cover the space, and last, so that it is popped first, the best of earlier studies.
    planned: Vec<Plan>,
    /// The loss of the start on the scale of the earlier studies.
    scale: f64,
}

/// A trial that is made before the sampler proposes any.
enum Plan {
    Params(Params),
    /// One fraction per dimension.
    Fractions(Vec<f64>),
}

impl<'a> Search<'a> {
    pub(super) fn new(settings: &'a TuningSettings, seed: Seed, earlier: &[Trial]) -> Self {
        let mut random = StdRng::seed_from_u64(seed.0);
        let axes = settings.space.axes();
        let covering = settings.sampler.covering_trials();
        let mut planned: Vec<Plan> = latin_hypercube(axes.len(), covering, &mut random)
            .into_iter()
            .map(Plan::Fractions)
            .collect();
        let earlier = EarlierTrials::new(earlier, settings.objective);
        let scale = earlier.loss_of(&settings.start).unwrap_or(1.0);
        let earlier = earlier.decayed(seed);
        // A part of them stays in every study: what earlier studies found may not hold for examples that have changed.
        let some = covering.min(usize::try_from(settings.trials / COVERING_ONE_IN).unwrap_or(0));
        planned.truncate(covering.saturating_sub(earlier.len()).max(some));
        let finished = earlier.iter().filter(|earlier| !earlier.trial.pruned);
        let best = finished.min_by(|a, b| a.loss.total_cmp(&b.loss));
        let best = best.map(|best| {
            settings.space.with_searched_from(settings.start.clone(), &best.trial.params)
        });
        planned.extend(best.filter(|params| *params != settings.start).map(Plan::Params));
        let sampler = settings.sampler.sampler(axes);
        let mut search = Self { random, settings, sampler, planned, scale: 1.0 };
        for earlier in earlier {
            search.record(&earlier.trial.params, earlier.loss);
        }
        search.scale = scale;
        search
    }

    pub(super) fn next_params(&mut self) -> Params {
        let start = &self.settings.start;
        let point = match self.planned.pop() {
            Some(Plan::Params(params)) => return params,
            Some(Plan::Fractions(fractions)) => self.settings.space.stretched(&fractions),
            None => self.sampler.ask(&mut self.random),
        };
        self.settings.space.at(start.clone(), &point)
    }

    /// Gives the sampler the loss of a trial, relative to trial 0 of its study.
    pub(super) fn record(&mut self, params: &Params, loss: f64) {
        if !loss.is_nan() {
            self.sampler.tell(&self.settings.space.point_of(params), loss * self.scale);
        }
    }
}

/// A Latin hypercube sample: in every dimension, each trial has an equal part of the range to itself.
fn latin_hypercube(dimensions: usize, number: usize, random: &mut StdRng) -> Vec<Vec<f64>> {
    let mut trials = vec![Vec::new(); number];
    for _ in 0..dimensions {
        let mut parts: Vec<usize> = (0..number).collect();
        parts.shuffle(random);
        for (trial, part) in trials.iter_mut().zip(parts) {
            trial.push((part as f64 + random.random::<f64>()) / number as f64);
        }
    }
    trials
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::training::{
        evaluation::mean,
        tuner::tests::{best_of, run, settings, trial},
    };

    #[test]
    fn proposals_follow_the_losses_of_earlier_studies() {
        let settings = settings(1, 1);
        let mean_proposal = |loss_of: fn(u32) -> f64| {
            let study = (0..12).map(|number| {
                let params = Params { num_leaves: 3 + number, ..settings.start.clone() };
                Trial { number, params, ..trial(loss_of(number), false) }
            });
            let study: Vec<Trial> = study.collect();
            let mut search = Search::new(&settings, Seed(1), &study);
            // The earlier trials have covered the space: only the best of them is planned.
            assert_eq!(search.planned.len(), 1);
            let proposed = (0..40).map(|_| f64::from(search.next_params().num_leaves));
            mean(&proposed.collect::<Vec<_>>()).unwrap()
        };
        let few = mean_proposal(|number| f64::from(number + 1));
        let many = mean_proposal(|number| f64::from(12 - number));
        assert!(few + 1.0 < many, "{few} {many}");
        assert_eq!(Search::new(&settings, Seed(1), &[]).planned.len(), 5);
    }

    #[test]
    fn a_study_that_starts_from_the_champion_continues_the_scale_of_the_studies_before() {
        let settings = settings(8, 1);
        let first = run(&settings, 2, &[]);
        let champion = first.params.clone();
        let retraining = TuningSettings { start: champion.clone(), ..settings.clone() };
        let search = Search::new(&retraining, Seed(1), &first.trials);
        let relative = best_of(&first).log_loss / first.trials[0].log_loss;
        assert!((search.scale - relative).abs() < 1e-12, "{} {relative}", search.scale);
        // The best of the earlier trials is the start, so it is not planned again; a few trials still cover the space.
        let is_covering = |plan: &Plan| matches!(plan, Plan::Fractions(_));
        assert_eq!(search.planned.len(), 2);
        assert!(search.planned.iter().all(is_covering));
        let second = run(&retraining, 2, &first.trials);
        let iterations = second.trials[0].params.iterations;
        assert_eq!(second.trials[0].params, Params { iterations, ..champion });
    }
}

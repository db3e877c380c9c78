//! The time between two attempts: exponential back-off with full jitter, or what the receiver asked for.

use std::time::Duration;

use rand::{RngExt, rngs::StdRng};

/// The bound of the first wait.
const BASE: Duration = Duration::from_secs(1);
/// The bound of every wait that the receiver did not ask for.
const WAIT_MAX: Duration = Duration::from_secs(5 * 60);
/// The bound of a wait that the receiver asked for (`Retry-After`).
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60 * 60);

/// The wait after the attempt with this number, from 1: any time up to a bound, which doubles with each attempt. Receivers that
/// come back get the repeated attempts spread over that time.
pub(super) fn wait(attempt: u32, asked_for: Option<Duration>, random: &mut StdRng) -> Duration {
    if let Some(asked_for) = asked_for {
        return asked_for.min(RETRY_AFTER_MAX);
    }
    let doublings = attempt.saturating_sub(1).min(31);
    let bound = BASE.saturating_mul(1 << doublings).min(WAIT_MAX);
    bound.mul_f64(random.random::<f64>())
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn waits_are_random_below_a_bound_that_doubles() {
        let mut random = StdRng::seed_from_u64(1);
        for (attempt, bound) in [(1, 1), (2, 2), (3, 4), (9, 256), (10, 300), (u32::MAX, 300)] {
            let bound = Duration::from_secs(bound);
            let waits: Vec<_> = (0..200).map(|_| wait(attempt, None, &mut random)).collect();
            let (least, most) = (waits.iter().min().unwrap(), waits.iter().max().unwrap());
            assert!(*most < bound && *most > bound.mul_f64(0.9), "{attempt}: {most:?}");
            assert!(*least < bound.mul_f64(0.1), "{attempt}: {least:?}");
        }
        let [one, other] = [7, 7].map(|seed| wait(5, None, &mut StdRng::seed_from_u64(seed)));
        assert_eq!(one, other, "the same seed gives the same wait");
    }

    #[test]
    fn the_receiver_may_ask_for_a_wait_up_to_a_bound() {
        let mut random = StdRng::seed_from_u64(1);
        for (asked_for, expected) in [(0, 0), (90, 90), (86_400, 3_600)] {
            let asked_for = Some(Duration::from_secs(asked_for));
            assert_eq!(wait(1, asked_for, &mut random), Duration::from_secs(expected));
        }
    }
}

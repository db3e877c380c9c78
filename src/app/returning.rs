//! Warns about respondents who return within the outcome window: an outcome is then joined by the policy `learn_from`, which
//! may not be what the user expects.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::processors::outcome_join::{JoinSettings, LearnFrom};
use foretell_streams::time::EventTime;

/// A warning, if respondents return within the window. Each of `visits` is a respondent and a time.
pub(super) fn warning<'a>(
    visits: impl Iterator<Item = (&'a str, EventTime)>,
    join: &JoinSettings,
) -> Option<String> {
    let mut times: BTreeMap<&str, Vec<EventTime>> = BTreeMap::new();
    for (respondent, at) in visits {
        times.entry(respondent).or_default().push(at);
    }
    let mut returning: BTreeSet<&str> = BTreeSet::new();
    let (mut returns, mut shortest) = (0, Duration::MAX);
    for (respondent, times) in &mut times {
        times.sort_unstable();
        for pair in times.windows(2) {
            let after = pair[1].since(pair[0]);
            if after <= join.window {
                returning.insert(respondent);
                returns += 1;
                shortest = shortest.min(after);
            }
        }
    }
    if returning.is_empty() {
        return None;
    }
    let shown = |span| humantime_serde::re::humantime::format_duration(span).to_string();
    let consequence = match join.learn_from {
        LearnFrom::First => "only the first prediction within a window is learned from",
        LearnFrom::Last => {
            "only the prediction that is the last when the first outcome comes is learned from"
        }
        LearnFrom::Every => {
            "every prediction is learned from with the first outcome within a window of it, also one that came before it"
        }
    };
    // The configuration rejects a window of 0 s.
    let smaller_window = if shortest > Duration::from_millis(1) {
        format!("set [outcomes] window below {}, or ", shown(shortest))
    } else {
        String::new()
    };
    Some(format!(
        "{} of {} respondents come back within [outcomes] window ({}), {returns} times, the soonest after {}: an outcome is \
         about its respondent, and with learn_from = {:?} {consequence}. If each event has an outcome of its own, {smaller_window}name \
         a field in [events] respondent_id that differs from visit to visit; with conflict = \"last\" the later outcome counts",
        returning.len(),
        times.len(),
        shown(join.window),
        shown(shortest),
        learn_from(join.learn_from),
    ))
}

fn learn_from(learn_from: LearnFrom) -> &'static str {
    match learn_from {
        LearnFrom::First => "first",
        LearnFrom::Last => "last",
        LearnFrom::Every => "every",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::processors::outcome_join::{ConflictPolicy, Emit, UnlabelledPolicy};

    fn check(learn_from: LearnFrom, visits: &[(&str, i64)]) -> Option<String> {
        let join = JoinSettings {
            window: Duration::from_secs(7_200),
            grace: Duration::ZERO,
            conflict: ConflictPolicy::First,
            learn_from,
            predictions_max: 100,
            emit: Emit::OnUpdate,
            unlabelled: UnlabelledPolicy::Drop,
            classes: Vec::new(),
        };
        let visits = visits.iter().map(|(who, minute)| (*who, EventTime(minute * 60_000)));
        warning(visits, &join)
    }

    #[test]
    fn respondents_who_return_within_the_window_are_counted() {
        let visits = [("ann", 0), ("bob", 0), ("ann", 130), ("ann", 300), ("cyd", 60), ("ann", 90)];
        let text = check(LearnFrom::Every, &visits).expect("Ann comes back");
        assert!(text.contains("1 of 3 respondents"), "{text}");
        assert!(text.contains("(2h), 2 times, the soonest after 40m"), "{text}");
        assert!(text.contains("\"every\"") && text.contains("window below 40m"), "{text}");
        let text = check(LearnFrom::First, &visits).expect("Ann comes back");
        assert!(text.contains("only the first prediction"), "{text}");
    }

    #[test]
    fn respondents_who_return_later_are_not_counted() {
        assert_eq!(check(LearnFrom::Every, &[("ann", 0), ("ann", 121), ("bob", 1)]), None);
        let at_once =
            check(LearnFrom::Last, &[("ann", 0), ("ann", 0)]).expect("Ann is there twice");
        assert!(!at_once.contains("window below"), "{at_once}");
    }
}

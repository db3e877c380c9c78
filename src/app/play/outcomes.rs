//! The outcomes of a script: after random delays, or as the table has them.

use std::time::Duration;

use rand::{RngExt, rngs::StdRng};

use crate::{
    app::{
        play::{Action, Pace, PlaySettings, PotentialLabels, Script, pace},
        table::{Row, TimedOutcome},
    },
    events::outcome::Outcome,
    processors::outcome_join::JoinSettings,
};
use foretell_streams::time::EventTime;

/// One outcome in this many is not sent, unless the table says which outcomes come.
const LOST_ONE_IN: u32 = 50;
/// One outcome in this many is sent twice.
const REPEATED_ONE_IN: u32 = 100;

/// What outcomes are about: a respondent, and the event time of the prediction.
pub(super) struct Visit {
    pub(super) respondent_id: String,
    pub(super) scored_at: EventTime,
}

impl Script {
    /// The label as the only outcome of a visit, after a random time.
    pub(super) fn push_label(&mut self, visit: &Visit, label: &str, pace: &Pace, rng: &mut StdRng) {
        let delay_max = u64::try_from(pace.outcome_delay_max.as_millis()).unwrap_or(u64::MAX);
        let delay = Duration::from_millis(rng.random_range(0..=delay_max));
        if rng.random_ratio(1, LOST_ONE_IN) {
            return;
        }
        self.push_outcome(visit, label, visit.scored_at + delay, pace.piece_gap, rng);
    }

    /// The outcomes of the table that come in any case.
    pub(super) fn push_outcomes(
        &mut self,
        visit: &Visit,
        row: &Row,
        delays: &Delays,
        rng: &mut StdRng,
    ) {
        let if_acted = row.outcomes_if_acted.as_ref().filter(|_| delays.with_actions);
        let is_certain = |outcome: &&TimedOutcome| if_acted.is_none_or(|one| one.contains(outcome));
        for outcome in row.outcomes.iter().flatten().filter(is_certain) {
            let at = visit.scored_at + outcome.after.mul_f64(delays.scale);
            self.push_outcome(visit, &outcome.label, at, delays.repeated_after, rng);
        }
    }

    /// The outcomes that come with an action only, or without one only. They are at their times in the table, and never repeated.
    pub(super) fn push_conditional(&mut self, visit: &Visit, row: &Row, join: &JoinSettings) {
        let (Some(without), Some(if_acted)) = (&row.outcomes, &row.outcomes_if_acted) else {
            return;
        };
        let Some(prediction_ids) = self.predictions_by_row.last().cloned() else { return };
        let labels = PotentialLabels {
            without: join.final_label(without.iter().map(|one| one.label.as_str())),
            if_acted: join.final_label(if_acted.iter().map(|one| one.label.as_str())),
        };
        self.potential.extend(prediction_ids.iter().map(|id| (id.clone(), labels.clone())));
        for (outcomes, others, is_acted) in [(without, if_acted, false), (if_acted, without, true)]
        {
            for TimedOutcome { label, after } in outcomes.iter().filter(|one| !others.contains(one))
            {
                let Visit { respondent_id, scored_at: predicted } = visit;
                let (outcome_time, predicted) = (*predicted + *after, *predicted);
                let outcome = Outcome {
                    respondent_id: respondent_id.clone(),
                    outcome_time,
                    label: label.clone(),
                    outcome_id: None,
                };
                let prediction_ids = prediction_ids.clone();
                let action = Action::OutcomeIf { outcome, prediction_ids, predicted, is_acted };
                self.push(outcome_time, action);
                // Its events and outcomes are in order, as those of respondents who return.
                self.returning.insert(respondent_id.clone());
            }
        }
    }

    fn push_outcome(
        &mut self,
        visit: &Visit,
        label: &str,
        outcome_time: EventTime,
        repeated_after: Duration,
        rng: &mut StdRng,
    ) {
        let outcome = Outcome {
            respondent_id: visit.respondent_id.clone(),
            outcome_time,
            label: label.to_owned(),
            outcome_id: None,
        };
        if rng.random_ratio(1, REPEATED_ONE_IN) {
            self.push(outcome_time + repeated_after, Action::Outcome(outcome.clone()));
        }
        self.push(outcome_time, Action::Outcome(outcome));
    }
}

/// What a user should know about the outcomes that the rows have: those that come too late to be joined, and those that do not make
/// the label of their row.
pub fn warnings(rows: &[Row], join: &JoinSettings) -> Vec<String> {
    let mut warnings = Vec::new();
    let (mut late, mut other, mut first_other) = (0, 0, None);
    for row in rows {
        let Some(outcomes) = &row.outcomes else { continue };
        let in_time = outcomes.iter().filter(|one| one.after <= join.window);
        late += outcomes.len() - in_time.clone().count();
        let made = join.final_label(in_time.map(|one| one.label.as_str()));
        if !row.label.is_empty() && made.as_deref() != Some(row.label.as_str()) {
            other += 1;
            first_other.get_or_insert((row.label.as_str(), made));
        }
    }
    if late > 0 {
        let window = humantime_serde::re::humantime::format_duration(join.window);
        warnings.push(format!(
            "{late} outcomes come more than outcomes.window ({window}) after their events, so they are not joined with them"
        ));
    }
    if let Some((label, made)) = first_other {
        let made = made.map_or("none".to_owned(), |made| format!("{made:?}"));
        warnings.push(format!(
            "the label of {other} rows is not the one that their outcomes make: the first has the label {label:?}, and its \
             outcomes make {made}. The outcomes are played"
        ));
    }
    warnings
}

/// Delays of the outcomes that the table has.
pub(super) struct Delays {
    /// Time in the play for each unit of time in the table.
    scale: f64,
    /// Whether some outcomes depend on actions.
    with_actions: bool,
    /// Time between an outcome and its repetition.
    repeated_after: Duration,
}

impl Delays {
    /// With event times of the past, delays are the table's. Otherwise the longest is that of the settings.
    pub(super) fn new(rows: &[Row], settings: &PlaySettings) -> Self {
        let PlaySettings { pace, with_times, .. } = settings;
        let longest = pace::delay_max_of(rows).filter(|longest| !longest.is_zero() && !with_times);
        let scale = longest.map_or(1.0, |longest| pace.outcome_delay_max.div_duration_f64(longest));
        let with_actions = settings.with_actions;
        Self { scale, with_actions, repeated_after: pace.piece_gap }
    }
}

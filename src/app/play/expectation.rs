//! The expected result of a script, by the rules of `processors::gather` and `processors::outcome_join`, and where a
//! play has to wait so that records are processed in that order.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    app::play::{Action, EventFactory, PlaySettings, Script},
    events::questionnaire::{EventSource, QuestionnaireEvent},
    processors::{
        gather::{
            ScoreWhen,
            session::{Joining, SessionRules, Span},
        },
        outcome_join::JoinSettings,
    },
};
use foretell_streams::time::EventTime;

/// An open session.
struct Session {
    span: Span,
    answered: Vec<bool>,
    is_scored: bool,
    /// Id of the prediction at the end of the session.
    end_id: String,
}

/// Sets `is_scored` of each event, and returns the ids of the predictions at the ends of sessions. Whether these come depends on
/// how far stream time advances. The script is sorted by event time.
pub(super) fn mark_scored(
    script: &mut Script,
    factory: &EventFactory,
    settings: &PlaySettings,
) -> BTreeSet<String> {
    let mut expectation = Expectation {
        factory,
        rules: &settings.sessions,
        open: BTreeMap::new(),
        ends: BTreeSet::new(),
    };
    let mut known: BTreeSet<&str> = BTreeSet::new();
    for scheduled in &mut script.actions {
        if let Action::Event { event, is_scored, prediction_id } = &mut scheduled.action {
            // An event with the same content and time as another is a repeat.
            let is_new = known.insert(prediction_id);
            *is_scored = is_new && expectation.gather(event);
        }
    }
    let Expectation { open, mut ends, .. } = expectation;
    ends.extend(
        open.into_values().filter(|session| !session.is_scored).map(|session| session.end_id),
    );
    if factory.scores_session_ends { ends } else { BTreeSet::new() }
}

struct Expectation<'a> {
    factory: &'a EventFactory,
    rules: &'a SessionRules,
    /// The open session of each respondent.
    open: BTreeMap<String, Session>,
    /// Ids of the predictions at the ends of sessions so far.
    ends: BTreeSet<String>,
}

impl Expectation<'_> {
    /// Adds an event to the session of its respondent, or begins another one. Returns whether the result is scored.
    fn gather(&mut self, event: &QuestionnaireEvent) -> bool {
        let Self { factory, rules, open, ends } = self;
        let mut span = Span::of_event(event.event_time);
        let mut answered = factory.answered(&event.answers);
        let mut was_scored = false;
        if let Some(before) = open.remove(&event.respondent_id) {
            match rules.joining(span, before.span) {
                Joining::Together(both) if rules.is_near(before.span, event.event_time) => {
                    span = both;
                    was_scored = before.is_scored;
                    answered.iter_mut().zip(&before.answered).for_each(|(now, then)| *now |= then);
                }
                Joining::Together(_) | Joining::Ends(_) | Joining::Apart => {
                    ends.extend((!before.is_scored).then_some(before.end_id));
                }
            }
        }
        let is_complete = event.completed || answered.iter().all(|is_answered| *is_answered);
        let count = answered.iter().filter(|is_answered| **is_answered).count();
        let is_due = match factory.when {
            ScoreWhen::Complete => is_complete,
            ScoreWhen::Answers(enough) => !was_scored && (is_complete || count >= enough),
            ScoreWhen::EveryEvent => true,
            ScoreWhen::SessionEnd => false,
        };
        let is_scored = was_scored || is_due;
        let end_id = factory.session_end_id(event);
        if is_complete {
            return is_due;
        }
        if rules.is_full(span) {
            ends.extend((!is_scored).then_some(end_id));
        } else {
            let session = Session { span, answered, is_scored, end_id };
            open.insert(event.respondent_id.clone(), session);
        }
        is_due
    }
}

/// Each wait takes about a commit interval: two minutes for all of them, if that is 100 ms.
const WAITS_MAX: usize = 1_000;

/// The topic of an action, of those whose records may be processed in either order.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Input<'s> {
    Events(&'s EventSource),
    Outcomes,
}

impl Input<'_> {
    /// The respondent of an action, and its topic; none for invalid records.
    fn of(action: &Action) -> Option<(&str, Input<'_>)> {
        match action {
            Action::Event { event, .. } => {
                Some((event.respondent_id.as_str(), Input::Events(&event.source)))
            }
            Action::Outcome(outcome) | Action::OutcomeIf { outcome, .. } => {
                Some((outcome.respondent_id.as_str(), Input::Outcomes))
            }
            Action::Bad { .. } => None,
        }
    }
}

/// Indexes of actions before which everything sent must be processed, so that events of several sources are gathered in the order
/// of their event times: then it is known which event completes an observation. Empty without companions.
///
/// # Errors
/// If there are more than [`WAITS_MAX`].
pub(super) fn waits_for_parts(script: &Script) -> Result<BTreeSet<usize>, String> {
    let mut waits = BTreeSet::new();
    // Respondents whose last event may not be processed yet, with its source.
    let mut open: BTreeMap<&str, Input<'_>> = BTreeMap::new();
    for (index, scheduled) in script.actions.iter().enumerate().filter(|_| script.has_companions) {
        let Some((respondent, input @ Input::Events(_))) = Input::of(&scheduled.action) else {
            continue;
        };
        if open.get(respondent).is_some_and(|before| *before != input) {
            waits.insert(index);
            open.clear();
        }
        open.insert(respondent, input);
    }
    if waits.len() > WAITS_MAX {
        return Err(format!(
            "the events of the table are so far apart that to process the parts of each in order takes more than {WAITS_MAX} waits: \
             play fewer with --limit"
        ));
    }
    Ok(waits)
}

/// Indexes of actions before which everything sent must be processed, so that the joins do not depend on timing. Events
/// and outcomes are on two topics, so records sent at the same time are processed in either order. The order matters
/// only for respondents with several rows: it decides which of their predictions exist when an outcome arrives, and
/// whether stream time has closed a window by then.
///
/// # Errors
/// If there are more than [`WAITS_MAX`], or if sessions are scored at their ends, which stream time decides.
pub(super) fn waits(script: &Script, settings: &JoinSettings) -> Result<BTreeSet<usize>, String> {
    if !script.session_ends.is_empty() {
        return Err("sessions are scored at their ends, which come with stream time".to_owned());
    }
    let mut waits = BTreeSet::new();
    // Returning respondents with records that may not be processed yet, and the topic of the last one.
    let mut open: BTreeMap<&str, Input<'_>> = BTreeMap::new();
    let mut oldest: Option<EventTime> = None;
    for (index, scheduled) in script.actions.iter().enumerate() {
        let Some((respondent, input)) = Input::of(&scheduled.action) else { continue };
        let is_other = open.get(respondent).is_some_and(|before| *before != input);
        let is_late = oldest.is_some_and(|oldest| scheduled.at > oldest + settings.grace);
        if is_other || is_late {
            waits.insert(index);
            open.clear();
            oldest = None;
        }
        if script.returning.contains(respondent) {
            open.insert(respondent, input);
            oldest.get_or_insert(scheduled.at);
        }
    }
    if waits.len() > WAITS_MAX {
        return Err(format!(
            "respondents of the table have several rows, and to process their events and outcomes in order takes more \
             than {WAITS_MAX} waits: send fewer with --limit"
        ));
    }
    Ok(waits)
}

//! The expected result of a script, by the rules of `processors::gather` and `processors::outcome_join`, and where a
//! play has to wait so that records are processed in that order.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    app::play::{Action, EventFactory, PlaySettings, Script, SessionEnds, session_ends},
    events::questionnaire::{EventSource, QuestionnaireEvent},
    processors::gather::{
        ScoreWhen,
        session::{Joining, SessionEnd, SessionRules, Span},
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

/// Sets `is_scored` of each event, and returns the predictions at the ends of sessions. The script is sorted by event time.
pub(super) fn mark_scored(
    script: &mut Script,
    factory: &EventFactory,
    settings: &PlaySettings,
) -> SessionEnds {
    let rules = &settings.sessions;
    let ends = SessionEnds::new(rules);
    let mut expectation = Expectation { factory, rules, open: BTreeMap::new(), ends };
    let mut known: BTreeSet<&str> = BTreeSet::new();
    for scheduled in &mut script.actions {
        if let Action::Event { event, is_scored, prediction_id } = &mut scheduled.action {
            // An event with the same content and time as another is a repeat.
            let is_new = known.insert(prediction_id);
            *is_scored = is_new && expectation.gather(event);
        }
    }
    for (respondent, session) in std::mem::take(&mut expectation.open) {
        expectation.end(respondent, session, SessionEnd::Gap);
    }
    expectation.ends.sort();
    expectation.ends
}

struct Expectation<'a> {
    factory: &'a EventFactory,
    rules: &'a SessionRules,
    /// The open session of each respondent.
    open: BTreeMap<String, Session>,
    /// The predictions at the ends of sessions so far.
    ends: SessionEnds,
}

impl Expectation<'_> {
    /// Adds an event to the session of its respondent, or begins another one. Returns whether the result is scored.
    fn gather(&mut self, event: &QuestionnaireEvent) -> bool {
        let Self { factory, rules, .. } = *self;
        let mut span = Span::of_event(event.event_time);
        let mut answered = factory.answered(&event.answers);
        let mut was_scored = false;
        if let Some(before) = self.open.remove(&event.respondent_id) {
            let is_near = rules.is_near(before.span, event.event_time);
            match rules.joining(span, before.span) {
                Joining::Together(both) if is_near => {
                    span = both;
                    was_scored = before.is_scored;
                    answered.iter_mut().zip(&before.answered).for_each(|(now, then)| *now |= then);
                }
                Joining::Ends(end) if is_near => {
                    self.end(event.respondent_id.clone(), before, end);
                }
                Joining::Together(_) | Joining::Ends(_) | Joining::Apart => {
                    self.end(event.respondent_id.clone(), before, SessionEnd::Gap);
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
        let session = Session { span, answered, is_scored, end_id };
        if rules.is_full(span) {
            self.end(event.respondent_id.clone(), session, SessionEnd::EventsMax);
        } else {
            self.open.insert(event.respondent_id.clone(), session);
        }
        is_due
    }

    fn end(&mut self, respondent_id: String, session: Session, end: SessionEnd) {
        if self.factory.scores_session_ends && !session.is_scored {
            let at = self.rules.end_of(session.span, end);
            self.ends.add(session.end_id, respondent_id, at);
        }
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

/// Whether the outcomes of a session that is scored at its end find its prediction whenever the end comes: they wait for it long
/// enough, or come after it, or are never near it.
fn ends_join_in_any_order(script: &Script, play: &PlaySettings) -> bool {
    let PlaySettings { sessions, pace, join, leave, .. } = play;
    let open = join.window + join.grace;
    let late = session_ends::ending(true, sessions) - sessions.gap;
    let is_in_time = match leave {
        Some(_) => late < open,
        None => {
            let is_never_near = sessions.gap > join.window + pace.outcome_delay_max;
            is_never_near || (sessions.gap + late) * 2 < open
        }
    };
    script.returning.is_empty() && is_in_time
}

/// Indexes of actions before which everything sent must be processed, so that the joins do not depend on timing. Events
/// and outcomes are on two topics, so records sent at the same time are processed in either order. The order matters
/// only for respondents with several rows: it decides which of their predictions exist when an outcome arrives, and
/// whether stream time has closed a window by then.
///
/// # Errors
/// If there are more than [`WAITS_MAX`], or if stream time decides what joins with the predictions at the ends of sessions.
pub(super) fn waits(script: &Script, play: &PlaySettings) -> Result<BTreeSet<usize>, String> {
    let settings = &play.join;
    if !script.session_ends.is_empty() && !ends_join_in_any_order(script, play) {
        return Err(
            "sessions are scored at their ends, and what joins with these predictions depends on how stream time advances"
                .to_owned(),
        );
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

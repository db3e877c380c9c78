//! The predictions of a script that are made when sessions end, and the events that end the last sessions.
//!
//! ```text
//!   event time   ├─ events ─┤├── gap ──┤├─ grace ─┤
//!                  last event         end         made, by the next punctuation       closed
//!                                      └ event time of the prediction
//! ```

use std::time::Duration;

use crate::{
    app::{
        play::{Action, EventFactory, PlaySettings, ScheduledAction, Script},
        table::Row,
    },
    events::questionnaire::{AnswerRow, EventSource, QuestionnaireEvent},
    processors::gather::session::SessionRules,
};
use foretell_streams::time::EventTime;

/// Stream time in which a punctuation finds the sessions that have ended, with a second to spare.
const PUNCTUATION: Duration = Duration::from_secs(2);

/// The predictions at the ends of sessions that were not scored before, by their event times.
#[derive(Clone, Debug, Default)]
pub struct SessionEnds {
    predictions: Vec<ScheduledAction>,
    /// Stream time from the end of a session to its prediction, at most.
    delay: Duration,
}

impl SessionEnds {
    pub(super) fn new(rules: &SessionRules) -> Self {
        Self { predictions: Vec::new(), delay: rules.grace + PUNCTUATION }
    }

    /// Adds the prediction of a session that has ended at this time.
    pub(super) fn add(&mut self, prediction_id: String, respondent_id: String, at: EventTime) {
        let event = QuestionnaireEvent {
            source: EventSource::Lead,
            event_id: String::new(),
            respondent_id,
            event_time: at,
            completed: false,
            answers: AnswerRow::default(),
        };
        let action = Action::Event { event, prediction_id, is_scored: true };
        self.predictions.push(ScheduledAction { at, action });
    }

    pub(super) fn sort(&mut self) {
        self.predictions.sort_by_key(|prediction| prediction.at);
    }

    /// Whether no session ends with a prediction.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.predictions.is_empty()
    }

    /// Ids of all predictions. Those of the last sessions come only if stream time advances so far.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.predictions.iter().filter_map(id_of)
    }

    /// Ids of the predictions that are certainly made when stream time has reached `stream_time`.
    pub fn ids_made_by(&self, stream_time: EventTime) -> impl Iterator<Item = &str> {
        self.made_by(stream_time).filter_map(id_of)
    }

    pub(super) fn made_by(&self, stream_time: EventTime) -> impl Iterator<Item = &ScheduledAction> {
        let made = move |one: &&ScheduledAction| one.at + self.delay <= stream_time;
        self.predictions.iter().take_while(made)
    }
}

fn id_of(prediction: &ScheduledAction) -> Option<&str> {
    match &prediction.action {
        Action::Event { prediction_id, .. } => Some(prediction_id),
        Action::Outcome(_) | Action::OutcomeIf { .. } | Action::Bad { .. } => None,
    }
}

/// Event time after the last event by which all sessions have ended, and their predictions are made; none if they are not scored
/// then.
pub(super) fn ending(scores_session_ends: bool, rules: &SessionRules) -> Duration {
    if scores_session_ends { rules.gap + rules.grace + PUNCTUATION } else { Duration::ZERO }
}

impl Script {
    /// Adds complete events of new respondents in each partition, by which all other sessions end. There are none if the ends of
    /// sessions are not scored.
    pub fn end_sessions(
        &mut self,
        sample: &Row,
        partitions: u32,
        factory: &mut EventFactory,
        settings: &PlaySettings,
    ) {
        if !factory.scores_session_ends {
            return;
        }
        let is_event = |one: &&ScheduledAction| matches!(one.action, Action::Event { .. });
        let last = self.actions.iter().rfind(is_event).map_or(EventTime::MIN, |one| one.at);
        let end = self.end();
        self.enders_after = Some(end);
        // Before the outcomes have waited too long for the predictions that they are about.
        let of_outcomes = end + settings.sessions.grace + PUNCTUATION;
        let of_all = of_outcomes.max(last + ending(true, &settings.sessions));
        let mut times = [of_outcomes, of_all].map(|at| at + Duration::from_millis(1)).to_vec();
        times.dedup();
        // A punctuation scores a bounded number, and the next one the others.
        for at in times.into_iter().flat_map(|at| [at, at + PUNCTUATION]) {
            for respondent in factory.new_respondents_everywhere("ender", partitions) {
                let event = factory.event_of(&respondent, at, sample.answers.clone());
                self.push_event(&event, factory);
            }
        }
        self.finish(factory, settings);
    }
}

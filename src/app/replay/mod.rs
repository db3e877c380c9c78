//! Plays a table as live questionnaires: some in one piece, some in two, their outcomes later, at random
//! and out of order, a few never, a few twice. The same rows and seed make the same script.
//!
//! ```text
//!  rows + schema ─▶ EventForm ─┐
//!  windows, clock ─▶ Pace ─────┴▶ Script: actions in order of time, each event with whether it is scored
//!                                   ├─▶ Joins: what must come of it
//!                                   └─▶ where to wait, so that it comes of it
//! ```

use std::{collections::BTreeSet, time::Duration};

use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::{
    app::table::Row,
    events::{
        outcome::Outcome,
        questionnaire::{Answer, QuestionnaireEvent},
    },
    processors::outcome_join::JoinSettings,
};
use foretell_ml::Seed;
use foretell_streams::time::EventTime;

pub use crate::app::replay::{
    batch_join::{Joins, join},
    form::EventForm,
    pace::{Pace, closing},
};

mod bad_input;
mod batch_join;
mod expectation;
mod form;
pub mod io;
mod pace;

/// How a table is played.
#[derive(Clone, Debug)]
pub struct ReplaySettings {
    /// Where chance comes from.
    pub seed: Seed,
    /// How event time goes.
    pub pace: Pace,
    /// Whether event times of the table are played.
    pub with_times: bool,
    /// How long the other side waits for the next piece of a questionnaire.
    pub retention: Duration,
    /// How it joins predictions and outcomes.
    pub join: JoinSettings,
}

/// One questionnaire in this many comes in two events.
const SPLIT_ONE_IN: u32 = 5;
/// One outcome in this many never comes.
const LOST_ONE_IN: u32 = 50;
/// One outcome in this many comes twice.
const REPEATED_ONE_IN: u32 = 100;

/// An action, and its event time.
#[derive(Clone, Debug, PartialEq)]
pub struct ScheduledAction {
    /// When.
    pub at: EventTime,
    /// What.
    pub action: Action,
}

/// What is sent.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// A respondent answers.
    Event {
        /// What is sent.
        event: QuestionnaireEvent,
        /// How a prediction for it is called.
        prediction_id: String,
        /// Whether it is to be scored.
        is_scored: bool,
    },
    /// What turned out to be true.
    Outcome(Outcome),
    /// A record among the events that is none.
    Bad {
        /// The record's key.
        key: String,
        /// The record's value.
        value: Vec<u8>,
        /// The class under which it is dead-lettered.
        class: &'static str,
    },
}

/// A play.
#[derive(Clone, Debug, Default)]
pub struct Script {
    /// In order of time.
    pub actions: Vec<ScheduledAction>,
    /// Rows that the event schema does not take, such as those without a mandatory answer.
    pub unfit: usize,
    /// Rows with the respondent and the event id of one before.
    pub repeated: usize,
    /// Respondents who come in more than one row.
    pub returning: BTreeSet<String>,
    /// Of each row that is played, the predictions of which one at least is made of it.
    rows: Vec<Vec<String>>,
}

impl Script {
    /// Plays `rows`.
    #[must_use]
    pub fn of(rows: &[Row], form: &mut EventForm, settings: &ReplaySettings) -> Self {
        let mut rng = StdRng::seed_from_u64(settings.seed.0);
        let mut script = Self::default();
        let mut respondents: BTreeSet<String> = BTreeSet::new();
        let mut predictions: BTreeSet<String> = BTreeSet::new();
        let mut at = settings.pace.start + settings.pace.gap;
        for row in rows {
            let who = form.new_respondent("row");
            let mut event = form.event_of(&who, at, row.answers.clone());
            put_metadata(&mut event, row, form, settings);
            if !form.takes(&event) {
                script.unfit += 1;
                continue;
            }
            if !predictions.insert(form.prediction_id(&event)) {
                script.repeated += 1;
                continue;
            }
            if !respondents.insert(event.respondent_id.clone()) {
                script.returning.insert(event.respondent_id.clone());
            }
            script.outcome(&event, &row.label, settings, &mut rng);
            script.questionnaire(event, form, settings, &mut rng);
            at = at + settings.pace.gap;
        }
        script.finish(form, settings);
        script
    }

    /// Adds what a careless world sends besides, each kind `times` times. `sample` is a questionnaire that is scored.
    /// True if the schema lets events without a respondent be written.
    pub fn add_bad_input(
        &mut self,
        (sample, label): (&[Option<Answer>], &str),
        times: u32,
        form: &mut EventForm,
        settings: &ReplaySettings,
    ) -> bool {
        let has_nobody = bad_input::add(self, sample, label, times, form);
        self.finish(form, settings);
        has_nobody
    }

    fn finish(&mut self, form: &EventForm, settings: &ReplaySettings) {
        self.actions.sort_by_key(|scheduled| scheduled.at);
        expectation::mark_scored(self, form, settings);
    }

    /// What joins of the first `actions`, if all of it is processed in order of time.
    #[must_use]
    pub fn joins(&self, actions: usize, settings: &JoinSettings) -> Joins {
        join(&self.actions[..actions], settings)
    }

    /// Before which actions all before them have to be processed, so that it is.
    ///
    /// # Errors
    /// If those are too many.
    pub fn waits(&self, settings: &JoinSettings) -> Result<BTreeSet<usize>, String> {
        expectation::waits(self, settings)
    }

    /// Rows that are played and of which no prediction is made: they never have all answers that it takes.
    #[must_use]
    pub fn incomplete_rows(&self) -> usize {
        let scored = self.actions.iter().filter_map(|scheduled| match &scheduled.action {
            Action::Event { prediction_id, is_scored: true, .. } => Some(prediction_id.as_str()),
            Action::Event { .. } | Action::Outcome(_) | Action::Bad { .. } => None,
        });
        let scored: BTreeSet<&str> = scored.collect();
        let is_scored = |row: &&Vec<String>| row.iter().any(|id| scored.contains(id.as_str()));
        self.rows.len() - self.rows.iter().filter(is_scored).count()
    }

    /// Who is predicted, and when, in order of time.
    pub fn visits(&self) -> impl Iterator<Item = (&str, EventTime)> {
        self.actions.iter().filter_map(|scheduled| match &scheduled.action {
            Action::Event { event, is_scored: true, .. } => {
                Some((event.respondent_id.as_str(), scheduled.at))
            }
            Action::Event { .. } | Action::Outcome(_) | Action::Bad { .. } => None,
        })
    }

    /// The event time of the first action.
    #[must_use]
    pub fn start(&self) -> EventTime {
        self.actions.first().map_or(EventTime::MIN, |first| first.at)
    }

    /// The event time of the last action.
    #[must_use]
    pub fn end(&self) -> EventTime {
        self.actions.last().map_or(EventTime::MIN, |last| last.at)
    }

    fn questionnaire(
        &mut self,
        event: QuestionnaireEvent,
        form: &EventForm,
        settings: &ReplaySettings,
        rng: &mut StdRng,
    ) {
        let is_split = rng.random_ratio(1, SPLIT_ONE_IN);
        // The first piece a little earlier, with the questions up to a random one.
        let cut = rng.random_range(1..event.answers.len().max(2));
        let (mut first, mut last) = (event.clone(), event.clone());
        let name =
            format!("{}-{}-{}-first", event.respondent_id, event.event_id, event.event_time.0);
        first.event_id = form.event_id(&name);
        first.completed = false;
        first.event_time = event.event_time - settings.pace.gap;
        first.answers.iter_mut().skip(cut).for_each(|answer| *answer = None);
        last.answers.iter_mut().take(cut).for_each(|answer| *answer = None);
        // One answer is one piece; and where answers are mandatory, there are no pieces.
        let has_pieces = first.answers.iter().any(Option::is_some)
            && last.answers.iter().any(Option::is_some)
            && form.takes(&first)
            && form.takes(&last);
        let pieces = if is_split && has_pieces { vec![first, last] } else { vec![event] };
        self.rows.push(pieces.iter().map(|piece| form.prediction_id(piece)).collect());
        for piece in pieces {
            self.push_event(piece, form);
        }
    }

    fn outcome(
        &mut self,
        event: &QuestionnaireEvent,
        label: &str,
        settings: &ReplaySettings,
        rng: &mut StdRng,
    ) {
        let pace = &settings.pace;
        let delay_max = u64::try_from(pace.outcome_delay_max.as_millis()).unwrap_or(u64::MAX);
        let delay = Duration::from_millis(rng.random_range(0..=delay_max));
        let outcome_time = event.event_time + delay;
        if rng.random_ratio(1, LOST_ONE_IN) {
            return;
        }
        let outcome = Outcome {
            respondent_id: event.respondent_id.clone(),
            outcome_time,
            label: label.to_owned(),
            outcome_id: None,
        };
        if rng.random_ratio(1, REPEATED_ONE_IN) {
            self.push(outcome_time + pace.gap, Action::Outcome(outcome.clone()));
        }
        self.push(outcome_time, Action::Outcome(outcome));
    }

    fn push_event(&mut self, event: QuestionnaireEvent, form: &EventForm) {
        let prediction_id = form.prediction_id(&event);
        // Known when the script is whole.
        let is_scored = false;
        self.push(event.event_time, Action::Event { event, prediction_id, is_scored });
    }

    fn push(&mut self, at: EventTime, action: Action) {
        self.actions.push(ScheduledAction { at, action });
    }
}

/// What the table says of the event takes the place of what was made up.
fn put_metadata(
    event: &mut QuestionnaireEvent,
    row: &Row,
    form: &EventForm,
    settings: &ReplaySettings,
) {
    if let Some(time) = row.event_time.filter(|_| settings.with_times) {
        event.event_time = time - settings.pace.moved_back;
    }
    if !row.respondent_id.is_empty() {
        event.respondent_id.clone_from(&row.respondent_id);
        // Respondents may come back: with their times, events of theirs are told apart.
        let name = format!("{}-{}", row.respondent_id, event.event_time.0);
        event.event_id = form.event_id(&name);
    }
    if !row.event_id.is_empty() {
        event.event_id.clone_from(&row.event_id);
    }
}

/// Events that are scored, one in each partition, by which stream time gets to `at` everywhere.
#[must_use]
pub fn time_advancers(
    at: EventTime,
    partitions: u32,
    sample: &[Option<Answer>],
    form: &mut EventForm,
) -> Vec<QuestionnaireEvent> {
    let respondents = form.new_respondents_everywhere("advancer", partitions);
    let event = |respondent: &String| form.event_of(respondent, at, sample.to_vec());
    respondents.iter().map(event).collect()
}

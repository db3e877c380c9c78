//! Turns a table into live traffic: questionnaires in one or two events, outcomes after a random delay and out of order,
//! a few lost, a few sent twice. If the table says which outcomes come and when, such as liked and then bought, they come so,
//! and none is lost. The same rows and seed give the same script.
//!
//! ```text
//!  rows + schema ─▶ EventFactory ─┐
//!  windows, clock ─▶ Pace ────────┴▶ Script: actions in order of event time, and whether each event is scored
//!                                      ├─▶ Joins: the expected result
//!                                      └─▶ where to wait, so that the result does not depend on timing
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::{
    app::{
        play::{
            metadata::EventNames,
            outcomes::{Delays, Visit},
        },
        table::Row,
    },
    events::{
        outcome::Outcome,
        questionnaire::{AnswerRow, EventSource, QuestionnaireEvent},
    },
    processors::{
        gather::session::SessionRules,
        outcome_join::{Emit, JoinSettings},
    },
};
use foretell_ml::Seed;
use foretell_streams::time::EventTime;

pub use crate::app::play::{
    batch_join::{JoinedExample, Joins, join, join_examples},
    event_factory::EventFactory,
    outcomes::warnings as outcome_warnings,
    pace::{Pace, closing},
    session_ends::SessionEnds,
    sources::PlaySources,
};

mod bad_input;
mod batch_join;
mod event_factory;
mod expectation;
pub mod io;
mod metadata;
mod outcomes;
mod pace;
mod session_ends;
mod sources;

/// Settings of a play.
#[derive(Clone, Debug)]
pub struct PlaySettings {
    pub seed: Seed,
    pub pace: Pace,
    /// Whether events have the event times of the table, where it has some.
    pub with_times: bool,
    /// Rules of sessions in the application.
    pub sessions: SessionRules,
    /// Settings of the outcome join in the application.
    pub join: JoinSettings,
    /// Whether it is known when an action is requested, so that outcomes can depend on it.
    pub with_actions: bool,
    /// Respondents leave without completing their questionnaires, which are scored this long after their last events; none:
    /// they complete them.
    pub leave: Option<Duration>,
}

impl PlaySettings {
    /// The event of a respondent who leaves, if the respondents do.
    fn left(&self, event: QuestionnaireEvent, factory: &EventFactory) -> QuestionnaireEvent {
        if self.leave.is_some() { factory.left(event) } else { event }
    }
}

/// One questionnaire in this many is split into two events.
const SPLIT_ONE_IN: u32 = 5;

/// An action with its event time.
#[derive(Clone, Debug, PartialEq)]
pub struct ScheduledAction {
    pub at: EventTime,
    pub action: Action,
}

/// A record to send.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    Event {
        event: QuestionnaireEvent,
        /// Id of the prediction, if the event is scored.
        prediction_id: String,
        is_scored: bool,
    },
    Outcome(Outcome),
    /// An outcome that comes only if an action was requested for one of the predictions, or only if none was. No join has it
    /// before that is known: see [`Script::decide`].
    OutcomeIf {
        outcome: Outcome,
        /// Ids of the predictions that the row's events may get.
        prediction_ids: Vec<String>,
        /// Event time of the row.
        predicted: EventTime,
        is_acted: bool,
    },
    /// An invalid record on the topic of the events.
    Bad {
        key: String,
        value: Vec<u8>,
        /// Error class in the dead-letter topic.
        class: &'static str,
    },
}

/// All records to send, and the expected result.
#[derive(Clone, Debug, Default)]
pub struct Script {
    /// In order of event time.
    pub actions: Vec<ScheduledAction>,
    /// Number of rows that the event schema rejects, such as those without a mandatory answer. They are not sent.
    pub rejected_rows: usize,
    /// Number of rows with the respondent and event id of an earlier row. They are not sent.
    pub repeated_rows: usize,
    /// Respondents with more than one row.
    pub returning: BTreeSet<String>,
    /// By prediction id, the final labels without and with an action, if the table has both.
    pub potential: BTreeMap<String, PotentialLabels>,
    /// By prediction id, the true probabilities of the labels, if the table has them.
    pub truth: BTreeMap<String, Vec<f64>>,
    /// The predictions at the ends of sessions.
    pub session_ends: SessionEnds,
    /// Before the first action after this time, everything sent must be processed, because it ends the sessions.
    enders_after: Option<EventTime>,
    /// Whether the events of a respondent are on several topics.
    has_companions: bool,
    /// For each row that is sent, the ids of the predictions that its events and their sessions may get.
    predictions_by_row: Vec<Vec<String>>,
}

/// The final labels of a row; none if no outcome comes and such rows get no label.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PotentialLabels {
    pub without: Option<String>,
    pub if_acted: Option<String>,
}

impl Script {
    /// The script of `rows`.
    #[must_use]
    pub fn of(rows: &[Row], factory: &mut EventFactory, settings: &PlaySettings) -> Self {
        let mut rng = StdRng::seed_from_u64(settings.seed.0);
        let mut script = Self::default();
        let mut respondents: BTreeSet<String> = BTreeSet::new();
        let mut predictions: BTreeSet<String> = BTreeSet::new();
        let mut names = EventNames::default();
        let delays = Delays::new(rows, settings);
        script.has_companions = factory.has_companions();
        factory.ahead = pace::ahead(rows, settings);
        let mut at = settings.pace.start + settings.pace.gap;
        if factory.has_companions() && !settings.with_times {
            // Live traffic: nothing can be sent before the start.
            at = at + factory.ahead;
        }
        for row in rows {
            let respondent = factory.new_respondent("row");
            let mut event = factory.event_of(&respondent, at, row.answers.clone());
            let is_alone = metadata::set(&mut event, row, (factory, &mut names), settings);
            let event = settings.left(event, factory);
            if !factory.accepts(&event) {
                script.rejected_rows += 1;
                continue;
            }
            if !predictions.insert(factory.prediction_id(&event)) {
                script.repeated_rows += 1;
                continue;
            }
            if !respondents.insert(event.respondent_id.clone()) {
                script.returning.insert(event.respondent_id.clone());
            }
            let scored_at = event.event_time + settings.leave.unwrap_or_default();
            let visit = Visit { respondent_id: event.respondent_id.clone(), scored_at };
            match &row.outcomes {
                Some(_) => script.push_outcomes(&visit, row, &delays, &mut rng),
                None => script.push_label(&visit, &row.label, &settings.pace, &mut rng),
            }
            let is_split = rng.random_ratio(1, SPLIT_ONE_IN) && is_alone;
            let whole = WholeEvent { event, is_split, truth: &row.truth };
            script.push_questionnaire(whole, (factory, &settings.pace), &mut rng);
            if settings.with_actions {
                script.push_conditional(&visit, row, &settings.join);
            }
            at = at + settings.pace.gap;
        }
        script.finish(factory, settings);
        script
    }

    /// Says which of the outcomes that depend on actions have come; the others are removed. `sent` has their indexes.
    pub fn decide(&mut self, sent: &BTreeSet<usize>) {
        let actions = std::mem::take(&mut self.actions).into_iter().enumerate();
        self.actions = actions
            .filter_map(|(index, scheduled)| match scheduled.action {
                Action::OutcomeIf { outcome, .. } => {
                    let action = Action::Outcome(outcome);
                    sent.contains(&index).then_some(ScheduledAction { action, ..scheduled })
                }
                Action::Event { .. } | Action::Outcome(_) | Action::Bad { .. } => Some(scheduled),
            })
            .collect();
    }

    /// Adds invalid and unusual records, each kind `times` times. `sample` is a row that is scored. Returns whether the
    /// schema allows events without a respondent, which are among them then.
    pub fn add_bad_input(
        &mut self,
        sample: &Row,
        times: u32,
        factory: &mut EventFactory,
        settings: &PlaySettings,
    ) -> bool {
        let respondent_is_optional = bad_input::add(self, sample, times, factory, settings);
        self.finish(factory, settings);
        respondent_is_optional
    }

    /// Replaces the labels of the outcomes whose examples have these numbers, in the order of joining, each by the next class.
    pub fn invert_labels(
        &mut self,
        examples: Range<usize>,
        classes: &[String],
        settings: &JoinSettings,
    ) {
        let indexes: Vec<usize> = (0..self.actions.len()).collect();
        let index_of = |examples: usize| {
            indexes.partition_point(|at| self.joins(*at, settings).joined < examples)
        };
        let (from, to) = (index_of(examples.start), index_of(examples.end));
        for scheduled in &mut self.actions[from..to] {
            if let Action::Outcome(outcome) = &mut scheduled.action
                && let Some(place) = classes.iter().position(|class| *class == outcome.label)
            {
                outcome.label.clone_from(&classes[(place + 1) % classes.len()]);
            }
        }
    }

    /// Keeps only the events of one source; the outcomes with those of the lead.
    pub fn keep_source(
        &mut self,
        source: &EventSource,
        factory: &EventFactory,
        settings: &PlaySettings,
    ) {
        self.actions.retain(|scheduled| match &scheduled.action {
            Action::Event { event, .. } => event.source == *source,
            Action::Outcome(_) | Action::OutcomeIf { .. } | Action::Bad { .. } => {
                *source == EventSource::Lead
            }
        });
        self.finish(factory, settings);
    }

    fn finish(&mut self, factory: &EventFactory, settings: &PlaySettings) {
        self.actions.sort_by_key(|scheduled| scheduled.at);
        self.session_ends = expectation::mark_scored(self, factory, settings);
    }

    /// The first `actions`, with the predictions at the ends of sessions that are certainly made by then.
    fn arrivals(&self, actions: usize, settings: &JoinSettings) -> Vec<&ScheduledAction> {
        let mut arrivals: Vec<&ScheduledAction> = self.actions[..actions].iter().collect();
        arrivals.extend(self.session_ends.made_by(self.reached(actions, settings)));
        arrivals.sort_by_key(|arrival| arrival.at);
        arrivals
    }

    /// Stream time that every partition certainly has reached after the first `actions`: some are a little behind, and those that
    /// end the sessions come partition by partition.
    fn reached(&self, actions: usize, settings: &JoinSettings) -> EventTime {
        let Some(last) = self.actions[..actions].last() else { return EventTime::MIN };
        if actions == self.actions.len() {
            return last.at;
        }
        last.at.min(self.enders_after.unwrap_or(EventTime::MAX)) - settings.window / 10
    }

    /// Expected joins of the first `actions`, if they are processed in order of event time.
    #[must_use]
    pub fn joins(&self, actions: usize, settings: &JoinSettings) -> Joins {
        join(self.arrivals(actions, settings), settings)
    }

    /// Number of examples that the first `actions` certainly have: those that are made at once, and those of windows that have
    /// closed, also in a partition whose stream time is a little behind.
    #[must_use]
    pub fn examples(&self, actions: usize, settings: &JoinSettings) -> usize {
        let (examples, _) = join_examples(self.arrivals(actions, settings), settings);
        let last = self.actions[..actions].last().map_or(EventTime::MIN, |last| last.at);
        let behind = last.min(self.enders_after.unwrap_or(EventTime::MAX)) - settings.window / 10;
        let closed_before = behind - closing(settings);
        let is_made = |example: &&JoinedExample<'_>| match (settings.emit, example.outcome_time) {
            (Emit::OnUpdate, Some(_)) => !example.correction,
            (Emit::OnUpdate, None) | (Emit::OnClose, _) => example.predicted < closed_before,
        };
        examples.iter().filter(is_made).count()
    }

    /// Number of examples once all windows have closed.
    #[must_use]
    pub fn examples_in_the_end(&self, settings: &JoinSettings) -> usize {
        self.joins(self.actions.len(), settings).examples(settings)
    }

    /// Indexes of actions before which everything sent must be processed, so that [`Script::joins`] holds.
    ///
    /// # Errors
    /// If there are too many of them to wait for.
    pub fn waits(&self, settings: &PlaySettings) -> Result<BTreeSet<usize>, String> {
        expectation::waits(self, settings)
    }

    /// Indexes of actions before which everything sent must be processed, so that the parts of an event are gathered in order,
    /// and that sessions end after everything else. Empty without companions and ends of sessions.
    ///
    /// # Errors
    /// If there are too many of them to wait for.
    pub fn waits_for_parts(&self) -> Result<BTreeSet<usize>, String> {
        let mut waits = expectation::waits_for_parts(self)?;
        let after = self.enders_after;
        waits.extend(self.actions.iter().position(|one| after.is_some_and(|end| one.at > end)));
        Ok(waits)
    }

    /// Number of rows that are sent but not scored: they never have all answers that scoring needs.
    #[must_use]
    pub fn incomplete_rows(&self) -> usize {
        let scored: BTreeSet<&str> =
            self.scored_events().map(|(id, ..)| id).chain(self.session_ends.ids()).collect();
        let is_incomplete = |row: &&Vec<String>| !row.iter().any(|id| scored.contains(id.as_str()));
        self.predictions_by_row.iter().filter(is_incomplete).count()
    }

    /// Prediction id, respondent and event time of each event that is scored, in order of time.
    pub fn scored_events(&self) -> impl Iterator<Item = (&str, &str, EventTime)> {
        self.actions.iter().filter_map(|scheduled| match &scheduled.action {
            Action::Event { event, prediction_id, is_scored: true } => {
                Some((prediction_id.as_str(), event.respondent_id.as_str(), scheduled.at))
            }
            Action::Event { .. }
            | Action::Outcome(_)
            | Action::OutcomeIf { .. }
            | Action::Bad { .. } => None,
        })
    }

    /// Event time of the first action.
    #[must_use]
    pub fn start(&self) -> EventTime {
        self.actions.first().map_or(EventTime::MIN, |first| first.at)
    }

    /// Event time of the last action.
    #[must_use]
    pub fn end(&self) -> EventTime {
        self.actions.last().map_or(EventTime::MIN, |last| last.at)
    }

    fn push_questionnaire(
        &mut self,
        WholeEvent { event, is_split, truth }: WholeEvent<'_>,
        (factory, pace): (&EventFactory, &Pace),
        rng: &mut StdRng,
    ) {
        // The first piece is a little earlier, and has the questions before a random one.
        let questions = factory.answered(&event.answers).len();
        let cut = rng.random_range(1..questions.max(2));
        let (mut first, mut last) = (event.clone(), event.clone());
        let name =
            format!("{}-{}-{}-first", event.respondent_id, event.event_id, event.event_time.0);
        first.event_id = factory.event_id(&name);
        first.completed = false;
        first.event_time = event.event_time - pace.piece_gap;
        first.answers = factory.keep(&event.answers, |index| index < cut);
        last.answers = factory.keep(&event.answers, |index| index >= cut);
        // A single answer cannot be split, nor mandatory answers.
        let can_split = [&first, &last].iter().all(|piece| {
            factory.answered(&piece.answers).contains(&true) && factory.accepts(piece)
        });
        // With companions, the event has parts already.
        let is_split = is_split && can_split && !factory.has_companions();
        let pieces = if is_split { vec![first, last] } else { factory.parts(&event) };
        let ids = |piece| [factory.prediction_id(piece), factory.session_end_id(piece)];
        let predictions: Vec<String> = pieces.iter().flat_map(ids).collect();
        if !truth.is_empty() {
            self.truth.extend(predictions.iter().map(|id| (id.clone(), truth.to_vec())));
        }
        self.predictions_by_row.push(predictions);
        for piece in pieces {
            self.push_part(piece, factory);
        }
    }

    /// Adds the parts of a whole event.
    fn push_event(&mut self, whole: &QuestionnaireEvent, factory: &EventFactory) {
        for part in factory.parts(whole) {
            self.push_part(part, factory);
        }
    }

    fn push_part(&mut self, event: QuestionnaireEvent, factory: &EventFactory) {
        let prediction_id = factory.prediction_id(&event);
        // `finish` decides whether it is scored.
        self.push(event.event_time, Action::Event { event, prediction_id, is_scored: false });
    }

    fn push(&mut self, at: EventTime, action: Action) {
        self.actions.push(ScheduledAction { at, action });
    }
}

/// The questionnaire of a row.
struct WholeEvent<'a> {
    event: QuestionnaireEvent,
    /// Whether it is to be sent in two pieces, if that is possible.
    is_split: bool,
    truth: &'a [f64],
}

/// Events of one new respondent in each partition, which advance stream time everywhere to `at`. With companions, each has parts,
/// and those at `at` must be sent when the others are processed.
#[must_use]
pub fn time_advancers(
    at: EventTime,
    partitions: u32,
    sample: &AnswerRow,
    factory: &mut EventFactory,
    settings: &PlaySettings,
) -> Vec<ScheduledAction> {
    let mut script = Script::default();
    for respondent in factory.new_respondents_everywhere("advancer", partitions) {
        script.push_event(&factory.event_of(&respondent, at, sample.clone()), factory);
    }
    script.finish(factory, settings);
    script.actions
}

/// The nearest-rank percentile of sorted values; `None` of no values.
#[must_use]
pub fn percentile<T: Copy>(sorted: &[T], percent: usize) -> Option<T> {
    let rank = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(rank).copied()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        app::table::TimedOutcome,
        processors::outcome_join::{ConflictPolicy, LearnFrom, UnlabelledPolicy},
    };

    const MINUTE: i64 = 60_000;

    fn join(unlabelled: UnlabelledPolicy) -> JoinSettings {
        JoinSettings {
            window: Duration::from_secs(3_600),
            grace: Duration::from_secs(600),
            conflict: ConflictPolicy::Max,
            learn_from: LearnFrom::First,
            predictions_max: 100,
            emit: Emit::OnUpdate,
            unlabelled,
            classes: ["ignored", "liked", "bought"].map(str::to_owned).into(),
        }
    }

    fn event(who: &str, minute: i64) -> ScheduledAction {
        let at = EventTime(minute * MINUTE);
        let event = QuestionnaireEvent {
            source: EventSource::Lead,
            event_id: String::new(),
            respondent_id: who.to_owned(),
            event_time: at,
            completed: true,
            answers: AnswerRow::default(),
        };
        let prediction_id = format!("{who}-{minute}");
        ScheduledAction { at, action: Action::Event { event, prediction_id, is_scored: true } }
    }

    fn outcome(who: &str, minute: i64, label: &str) -> ScheduledAction {
        let outcome = Outcome {
            respondent_id: who.to_owned(),
            outcome_time: EventTime(minute * MINUTE),
            label: label.to_owned(),
            outcome_id: None,
        };
        ScheduledAction { at: outcome.outcome_time, action: Action::Outcome(outcome) }
    }

    #[test]
    fn examples_are_those_with_an_outcome_and_those_whose_window_has_certainly_closed() {
        let actions = vec![
            event("ann", 0),
            event("bob", 1),
            outcome("ann", 10, "liked"),
            outcome("ann", 20, "bought"),
            event("ann", 100),
            event("cyd", 200),
        ];
        let script = Script { actions, ..Script::default() };
        let check = |unlabelled: UnlabelledPolicy, emit, expected: [usize; 7], in_the_end| {
            let settings = JoinSettings { emit, ..join(unlabelled) };
            let found: Vec<usize> = (0..=6).map(|at| script.examples(at, &settings)).collect();
            assert_eq!(found, expected);
            assert_eq!(script.examples_in_the_end(&settings), in_the_end);
        };
        check(UnlabelledPolicy::Drop, Emit::OnUpdate, [0, 0, 0, 1, 1, 1, 1], 1);
        check(UnlabelledPolicy::Drop, Emit::OnClose, [0, 0, 0, 0, 0, 1, 1], 1);
        // An upgrade is not another example. The window of the second event closes 70 minutes after it.
        let ignored = || UnlabelledPolicy::Label("ignored".to_owned());
        check(ignored(), Emit::OnUpdate, [0, 0, 0, 1, 1, 2, 3], 4);
        check(ignored(), Emit::OnClose, [0, 0, 0, 0, 0, 2, 3], 4);
    }

    #[test]
    fn outcomes_that_depend_on_actions_join_once_it_is_decided_whether_they_came() {
        let conditional = |minute: i64, label: &str, is_acted| {
            let scheduled = outcome("ann", minute, label);
            let Action::Outcome(outcome) = scheduled.action else { unreachable!("an outcome") };
            let (prediction_ids, predicted) = (vec!["ann-0".to_owned()], EventTime(0));
            let action = Action::OutcomeIf { outcome, prediction_ids, predicted, is_acted };
            ScheduledAction { at: scheduled.at, action }
        };
        let actions =
            vec![event("ann", 0), conditional(10, "liked", false), conditional(20, "bought", true)];
        let settings = join(UnlabelledPolicy::Drop);
        let mut script = Script { actions, ..Script::default() };
        assert_eq!(script.joins(3, &settings).joined, 0);
        script.decide(&BTreeSet::from([2]));
        assert_eq!(script.actions, [event("ann", 0), outcome("ann", 20, "bought")]);
        assert_eq!(script.joins(2, &settings).joined, 1);
    }

    #[test]
    fn outcomes_that_come_too_late_or_contradict_the_label_are_named() {
        let row = |label: &str, outcomes: &[(&str, u64)]| Row {
            label: label.to_owned(),
            outcomes: Some(
                outcomes
                    .iter()
                    .map(|(label, minutes)| TimedOutcome {
                        label: (*label).to_owned(),
                        after: Duration::from_secs(minutes * 60),
                    })
                    .collect(),
            ),
            ..Row::default()
        };
        let settings = join(UnlabelledPolicy::Label("ignored".to_owned()));
        let good = [
            row("bought", &[("liked", 5), ("bought", 60)]),
            row("ignored", &[]),
            row("", &[("liked", 5)]),
            Row { label: "bought".to_owned(), ..Row::default() },
        ];
        assert_eq!(outcome_warnings(&good, &settings), [""; 0]);
        let bad =
            [row("bought", &[("bought", 61)]), row("liked", &[]), row("liked", &[("liked", 1)])];
        let [late, other] = <[String; 2]>::try_from(outcome_warnings(&bad, &settings)).unwrap();
        assert!(late.starts_with("1 outcomes come more than outcomes.window (1h) after"), "{late}");
        assert!(other.contains("the label of 2 rows") && other.contains("\"ignored\""), "{other}");
        let dropped = outcome_warnings(&bad, &join(UnlabelledPolicy::Drop));
        assert!(dropped[1].contains("make none"), "{dropped:?}");
    }

    #[test]
    fn the_final_label_follows_the_policies() {
        let check = |conflict, unlabelled: UnlabelledPolicy, outcomes: &[&str], expected| {
            let settings = JoinSettings { conflict, ..join(unlabelled) };
            let found = settings.final_label(outcomes.iter().copied());
            assert_eq!(found.as_deref(), expected, "{conflict:?} {outcomes:?}");
        };
        let drop = || UnlabelledPolicy::Drop;
        let three = ["liked", "bought", "liked"];
        check(ConflictPolicy::First, drop(), &three[..2], Some("liked"));
        check(ConflictPolicy::Last, drop(), &three, Some("liked"));
        check(ConflictPolicy::Max, drop(), &three, Some("bought"));
        check(ConflictPolicy::Max, drop(), &[], None);
        let ignored = UnlabelledPolicy::Label("ignored".to_owned());
        check(ConflictPolicy::Max, ignored, &[], Some("ignored"));
    }
}

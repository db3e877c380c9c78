//! Plays a table as live questionnaires: some in one piece, some in two, their outcomes later, at random
//! and out of order, a few never, a few twice. Pure: the same rows and seed make the same script.

use std::time::Duration;

use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::{
    app::table::Row,
    events::{
        outcome::Outcome,
        questionnaire::{Answer, QuestionnaireEvent},
    },
    ml::Seed,
    processors::{gather::ScoreWhen, outcome_join::LearnFrom},
    streams::{
        record::{Partition, partition_of},
        time::EventTime,
    },
};

/// How a table is played.
#[derive(Clone, Debug)]
pub struct PlaySettings {
    /// Where chance comes from.
    pub seed: Seed,
    /// The event time of the first event.
    pub start: EventTime,
    /// Event time between one respondent and the next.
    pub gap: Duration,
    /// The longest that an outcome takes.
    pub outcome_delay_max: Duration,
    /// When the other side scores, so that we know what to expect.
    pub when: ScoreWhen,
    /// Which predictions the other side learns from, for the same reason.
    pub learn_from: LearnFrom,
    /// Begins every respondent's id, so that two plays are two crowds.
    pub crowd: String,
}

/// One questionnaire in this many comes in two events.
const SPLIT_ONE_IN: u32 = 5;
/// One outcome in this many never comes.
const LOST_ONE_IN: u32 = 50;
/// One outcome in this many comes twice.
const REPEATED_ONE_IN: u32 = 100;

/// Something that happens out there.
#[derive(Clone, Debug, PartialEq)]
pub struct Happening {
    /// When.
    pub at: EventTime,
    /// What.
    pub what: What,
}

/// What happens.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// A respondent answers.
    Event {
        /// What is sent.
        event: QuestionnaireEvent,
        /// Whether it is to be scored.
        is_scored: bool,
    },
    /// What turned out to be true.
    Outcome(Outcome),
    /// Bytes that are no event of ours.
    Garbage {
        /// The record's key.
        key: String,
        /// The record's value.
        value: Vec<u8>,
        /// The class under which it is to be set aside.
        class: &'static str,
    },
}

/// A play, in order of time, and what must come of it.
#[derive(Clone, Debug, Default)]
pub struct Script {
    /// In order of time.
    pub happenings: Vec<Happening>,
    /// Labelled examples: outcomes with the predictions that are learned from.
    pub joined: usize,
    /// Predictions whose outcome never comes.
    pub unlabelled: usize,
}

impl Script {
    /// Plays `rows`.
    #[must_use]
    pub fn of(rows: &[Row], settings: &PlaySettings) -> Self {
        let mut rng = StdRng::seed_from_u64(settings.seed.0);
        let mut script = Self::default();
        let mut at = settings.start;
        for (number, row) in rows.iter().enumerate() {
            let respondent_id = format!("{}-{number}", settings.crowd);
            let scored = script.questionnaire(&respondent_id, row, at, settings, &mut rng);
            let is_known = script.outcome(&respondent_id, row, at, settings, &mut rng);
            match (is_known, settings.learn_from) {
                (true, LearnFrom::First | LearnFrom::Last) => script.joined += 1,
                (true, LearnFrom::Every) => script.joined += scored,
                (false, _) => script.unlabelled += scored,
            }
            at = at + settings.gap;
        }
        script.happenings.sort_by_key(|happening| happening.at);
        script
    }

    /// The event time of the last thing that happens.
    #[must_use]
    pub fn end(&self) -> EventTime {
        self.happenings.last().map_or(EventTime::MIN, |last| last.at)
    }

    /// Returns how many of its events are to be scored.
    fn questionnaire(
        &mut self,
        respondent_id: &str,
        row: &Row,
        at: EventTime,
        settings: &PlaySettings,
        rng: &mut StdRng,
    ) -> usize {
        let event = QuestionnaireEvent {
            event_id: format!("{respondent_id}-last"),
            respondent_id: respondent_id.to_owned(),
            event_time: at,
            completed: true,
            answers: row.answers.clone(),
        };
        if !rng.random_ratio(1, SPLIT_ONE_IN) {
            self.push_event(event, true);
            return 1;
        }
        // The first piece a little earlier, with the questions up to a random one.
        let cut = rng.random_range(1..row.answers.len().max(2));
        let (mut first, mut last) = (event.clone(), event);
        first.event_id = format!("{respondent_id}-first");
        first.completed = false;
        first.event_time = at - settings.gap;
        first.answers.iter_mut().skip(cut).for_each(|answer| *answer = None);
        last.answers.iter_mut().take(cut).for_each(|answer| *answer = None);
        let answered = first.answers.iter().flatten().count();
        let (first_is_scored, last_is_scored) = match settings.when {
            ScoreWhen::Complete => (false, true),
            ScoreWhen::Answers(enough) => (answered >= enough, answered < enough),
            ScoreWhen::EveryEvent => (true, true),
        };
        self.push_event(first, first_is_scored);
        self.push_event(last, last_is_scored);
        usize::from(first_is_scored) + usize::from(last_is_scored)
    }

    /// False if it never comes.
    fn outcome(
        &mut self,
        respondent_id: &str,
        row: &Row,
        at: EventTime,
        settings: &PlaySettings,
        rng: &mut StdRng,
    ) -> bool {
        let delay_max = u64::try_from(settings.outcome_delay_max.as_millis()).unwrap_or(u64::MAX);
        let outcome_time = at + Duration::from_millis(rng.random_range(0..=delay_max));
        if rng.random_ratio(1, LOST_ONE_IN) {
            return false;
        }
        let outcome = Outcome {
            respondent_id: respondent_id.to_owned(),
            outcome_time,
            label: row.label.clone(),
            outcome_id: None,
        };
        if rng.random_ratio(1, REPEATED_ONE_IN) {
            self.push(outcome_time + settings.gap, What::Outcome(outcome.clone()));
        }
        self.push(outcome_time, What::Outcome(outcome));
        true
    }

    fn push_event(&mut self, event: QuestionnaireEvent, is_scored: bool) {
        self.push(event.event_time, What::Event { event, is_scored });
    }

    /// Adds something; the caller sorts, or adds at the end.
    pub fn push(&mut self, at: EventTime, what: What) {
        self.happenings.push(Happening { at, what });
    }
}

/// What a careless world sends besides: one of each, several times, spread over the play.
pub fn add_mischief(script: &mut Script, sample: &[Row], times: usize, settings: &PlaySettings) {
    let span = script.end().since(settings.start);
    for (round, row) in (0_u32..).zip(sample.iter().cycle().take(times)) {
        let share =
            f64::from(round + 1) / (f64::from(u32::try_from(times).unwrap_or(u32::MAX)) + 1.0);
        let at = settings.start + span.mul_f64(share);
        let name = |kind: &str| format!("{}-{kind}-{round}", settings.crowd);
        let garbage = |kind: &str, value: &[u8], class| What::Garbage {
            key: name(kind),
            value: value.to_vec(),
            class,
        };
        script.push(at, garbage("garbage", b"\xff\xfe not avro at all", "framing"));
        // The wire format's header, with a schema id that nobody has given out.
        script
            .push(at, garbage("unknown-schema", b"\x00\x7f\xff\xff\xf0\x02\x02", "unknown_schema"));
        let event = |kind: &str, answers: Vec<Option<Answer>>| QuestionnaireEvent {
            event_id: name(kind),
            respondent_id: name(kind),
            event_time: at,
            completed: true,
            answers,
        };
        let nobody = QuestionnaireEvent {
            respondent_id: String::new(),
            ..event("nobody", row.answers.clone())
        };
        script.push(at, What::Event { event: nobody, is_scored: false });
        let unseen = row.answers.iter().map(|answer| match answer {
            Some(Answer::Text(_)) => Some(Answer::Text("never seen before".to_owned())),
            other => other.clone(),
        });
        let unseen = event("unseen", unseen.collect());
        script.push(at, What::Event { event: unseen, is_scored: true });
        let huge = row.answers.iter().map(|answer| match answer {
            Some(Answer::Number(_)) => Some(Answer::Number(1e9)),
            other => other.clone(),
        });
        let huge = event("out-of-range", huge.collect());
        script.push(at, What::Event { event: huge, is_scored: true });
        script.unlabelled += 2;
        let for_nobody = Outcome {
            respondent_id: name("stranger"),
            outcome_time: at,
            label: row.label.clone(),
            outcome_id: None,
        };
        script.push(at, What::Outcome(for_nobody));
    }
    script.happenings.sort_by_key(|happening| happening.at);
}

/// Respondents who begin and never go on, one in each partition, so that stream time passes `at` there.
#[must_use]
pub fn passers_by(
    at: EventTime,
    partitions: u32,
    questions: usize,
    settings: &PlaySettings,
) -> Vec<QuestionnaireEvent> {
    let mut missing: Vec<Partition> =
        (0..partitions).filter_map(|number| Some(Partition(i32::try_from(number).ok()?))).collect();
    let mut found = Vec::new();
    let mut number = 0_u64;
    while !missing.is_empty() {
        let respondent_id = format!("{}-passer-by-{number}", settings.crowd);
        number += 1;
        let partition = partition_of(respondent_id.as_bytes(), partitions);
        if let Some(place) = missing.iter().position(|open| *open == partition) {
            missing.remove(place);
            found.push(QuestionnaireEvent {
                event_id: respondent_id.clone(),
                respondent_id,
                event_time: at,
                completed: false,
                answers: vec![None; questions],
            });
        }
    }
    found
}

//! Plays a table as live questionnaires: some in one piece, some in two, their outcomes later, at random
//! and out of order, a few never, a few twice. Pure: the same rows and seed make the same script.

use std::{collections::BTreeMap, time::Duration};

use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::{
    app::table::Row,
    events::{
        outcome::Outcome,
        questionnaire::{Answer, EventIdentity, Question, QuestionKind, QuestionnaireEvent},
    },
    ml::{ColumnKind, Seed},
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
    /// Whether answers to a question, by its place, are learned from as words or as numbers; neither if it is ignored.
    pub learned_as: Vec<Option<ColumnKind>>,
    /// When the other side scores, so that we know what to expect.
    pub when: ScoreWhen,
    /// Which predictions the other side learns from, for the same reason.
    pub learn_from: LearnFrom,
    /// Begins every respondent's id, so that two plays are two crowds.
    pub crowd: String,
}

/// An event as the other side reads it; none if the schema does not take it.
pub type RoundTrip<'a> = &'a dyn Fn(&QuestionnaireEvent) -> Option<QuestionnaireEvent>;

/// What the schema lets an event be, found by trying.
pub struct Form<'a> {
    round_trip: RoundTrip<'a>,
    questions: &'a [Question],
    respondent_bits: Option<u32>,
    event_bits: Option<u32>,
}

/// Ids are texts, or numbers of a `long` that a double can hold, or of an `int`.
const ID_FORMS: [Option<u32>; 3] = [None, Some(52), Some(31)];

impl<'a> Form<'a> {
    /// Tries which ids the schema takes; none if it takes no event of `row` at all.
    #[must_use]
    pub fn of(questions: &'a [Question], row: &Row, round_trip: RoundTrip<'a>) -> Option<Self> {
        for respondent_bits in ID_FORMS {
            for event_bits in ID_FORMS {
                let form = Self { round_trip, questions, respondent_bits, event_bits };
                let event = form.event("a", "b", EventTime(0), row.answers.clone());
                if form.takes(&event) {
                    return Some(form);
                }
            }
        }
        None
    }

    fn event(
        &self,
        respondent: &str,
        name: &str,
        at: EventTime,
        answers: Vec<Option<Answer>>,
    ) -> QuestionnaireEvent {
        QuestionnaireEvent {
            event_id: id_of(name, self.event_bits),
            respondent_id: self.respondent(respondent),
            event_time: at,
            completed: true,
            answers,
        }
    }

    fn respondent(&self, name: &str) -> String {
        id_of(name, self.respondent_bits)
    }

    fn takes(&self, event: &QuestionnaireEvent) -> bool {
        (self.round_trip)(event).is_some()
    }

    /// Whether the other side takes the questionnaire to be finished with it: the schema may have no field for that.
    fn is_finished(&self, event: &QuestionnaireEvent) -> bool {
        let read = (self.round_trip)(event);
        read.is_some_and(|read| read.completed || read.answers.iter().all(Option::is_some))
    }

    /// The id that the event's prediction bears.
    #[must_use]
    pub fn id(&self, event: &QuestionnaireEvent) -> String {
        match (self.round_trip)(event) {
            Some(read) if read.event_id.is_empty() => {
                EventIdentity::of(&read, self.questions, &[]).id()
            }
            Some(read) => read.event_id,
            None => event.event_id.clone(),
        }
    }
}

/// A name as an id: itself, or the first bits of its hash.
fn id_of(name: &str, bits: Option<u32>) -> String {
    let Some(bits) = bits else { return name.to_owned() };
    let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325, mix);
    // The last bits of such a hash are its weakest: fold the halves.
    let hash = (hash ^ (hash >> 29)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (hash >> (64 - bits)).to_string()
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
    /// Records to be set aside, by class.
    pub set_aside: BTreeMap<&'static str, usize>,
    /// Events with a word that no model has seen.
    pub unseen: usize,
    /// Events with a number beyond all others.
    pub out_of_range: usize,
}

impl Script {
    /// Plays `rows`.
    #[must_use]
    pub fn of(rows: &[Row], settings: &PlaySettings, form: &Form<'_>) -> Self {
        let mut rng = StdRng::seed_from_u64(settings.seed.0);
        let mut script = Self::default();
        let mut at = settings.start;
        for (number, row) in rows.iter().enumerate() {
            let respondent_id = format!("{}-{number}", settings.crowd);
            let event = form.event(
                &respondent_id,
                &format!("{respondent_id}-last"),
                at,
                row.answers.clone(),
            );
            let respondent_id = event.respondent_id.clone();
            let scored = script.questionnaire(event, settings, form, &mut rng);
            at = at + settings.gap;
            if scored == 0 {
                // Its outcome would wait for a prediction that never comes.
                continue;
            }
            let at = at - settings.gap;
            let is_known = script.outcome(&respondent_id, row, at, settings, &mut rng);
            match (is_known, settings.learn_from) {
                (true, LearnFrom::First | LearnFrom::Last) => script.joined += 1,
                (true, LearnFrom::Every) => script.joined += scored,
                (false, _) => script.unlabelled += scored,
            }
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
        event: QuestionnaireEvent,
        settings: &PlaySettings,
        form: &Form<'_>,
        rng: &mut StdRng,
    ) -> usize {
        let is_split = rng.random_ratio(1, SPLIT_ONE_IN);
        let cut = rng.random_range(1..event.answers.len().max(2));
        let is_finished = form.is_finished(&event);
        let all = event.answers.iter().flatten().count();
        // The first piece a little earlier, with the questions up to a random one.
        let (mut first, mut last) = (event.clone(), event.clone());
        first.event_id = id_of(&format!("{}-first", event.event_id), form.event_bits);
        first.completed = false;
        first.event_time = event.event_time - settings.gap;
        first.answers.iter_mut().skip(cut).for_each(|answer| *answer = None);
        last.answers.iter_mut().take(cut).for_each(|answer| *answer = None);
        // A mandatory answer can't come later.
        let can_be_split = event.answers.len() > 1 && form.takes(&first) && form.takes(&last);
        if !is_split || !can_be_split {
            let is_scored = match settings.when {
                ScoreWhen::Complete => is_finished,
                ScoreWhen::Answers(enough) => is_finished || all >= enough,
                ScoreWhen::EveryEvent => true,
            };
            self.push_event(event, is_scored);
            return usize::from(is_scored);
        }
        let answered = first.answers.iter().flatten().count();
        let (first_is_scored, last_is_scored) = match settings.when {
            ScoreWhen::Complete => (false, is_finished),
            ScoreWhen::Answers(enough) => {
                (answered >= enough, answered < enough && (is_finished || all >= enough))
            }
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

/// Numbers that no table holds, of a `long` or a `double`, and of an `int`.
const HUGE: [f64; 2] = [1e15, 1e9];

/// What a careless world sends besides: what the schema lets be wrong, several times, spread over the play.
pub fn add_bad_input(
    script: &mut Script,
    sample: &[Row],
    times: usize,
    settings: &PlaySettings,
    form: &Form<'_>,
) {
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
        script.push_bad(at, garbage("garbage", b"\xff\xfe not avro at all", "framing"), "framing");
        // The wire format's header, with a schema id that nobody has given out.
        let unknown = garbage("unknown-schema", b"\x00\x7f\xff\xff\xf0\x02\x02", "unknown_schema");
        script.push_bad(at, unknown, "unknown_schema");
        let event = |kind: &str| form.event(&name(kind), &name(kind), at, row.answers.clone());
        let nobody = QuestionnaireEvent { respondent_id: String::new(), ..event("nobody") };
        if form.respondent_bits.is_none() {
            let what = What::Event { event: nobody, is_scored: false };
            script.push_bad(at, what, "missing_field");
        }
        let word = [Answer::Text("never seen before".to_owned())];
        script.push_odd(event("unseen"), &word, settings, form);
        script.push_odd(event("out-of-range"), &HUGE.map(Answer::Number), settings, form);
        let for_nobody = Outcome {
            respondent_id: form.respondent(&name("stranger")),
            outcome_time: at,
            label: row.label.clone(),
            outcome_id: None,
        };
        script.push_bad(at, What::Outcome(for_nobody), "unmatched_outcome");
    }
    script.happenings.sort_by_key(|happening| happening.at);
}

impl Script {
    fn push_bad(&mut self, at: EventTime, what: What, class: &'static str) {
        *self.set_aside.entry(class).or_default() += 1;
        self.push(at, what);
    }

    /// Adds `event` with `odd` answers wherever the schema takes one, if it does anywhere.
    fn push_odd(
        &mut self,
        mut event: QuestionnaireEvent,
        odd: &[Answer],
        settings: &PlaySettings,
        form: &Form<'_>,
    ) {
        let mut kinds = Vec::new();
        for place in 0..event.answers.len() {
            let before = event.answers[place].clone();
            let is_alike = |odd: &&Answer| {
                matches!(
                    (odd, form.questions[place].kind),
                    (Answer::Text(_), QuestionKind::Text)
                        | (Answer::Number(_), QuestionKind::Number)
                )
            };
            for odd in odd.iter().filter(is_alike) {
                event.answers[place] = Some(odd.clone());
                if form.takes(&event) {
                    kinds.push(settings.learned_as.get(place).copied().flatten());
                    break;
                }
                event.answers[place].clone_from(&before);
            }
        }
        if kinds.is_empty() {
            return;
        }
        self.unseen += usize::from(kinds.contains(&Some(ColumnKind::Categorical)));
        self.out_of_range += usize::from(kinds.contains(&Some(ColumnKind::Numeric)));
        let all = event.answers.iter().flatten().count();
        let is_scored = match settings.when {
            ScoreWhen::Complete => form.is_finished(&event),
            ScoreWhen::Answers(enough) => form.is_finished(&event) || all >= enough,
            ScoreWhen::EveryEvent => true,
        };
        self.unlabelled += usize::from(is_scored);
        self.push_event(event, is_scored);
    }
}

/// Events of respondents, one in each partition, at `time`: the answers of `row` first, and what moves stream time at
/// `last`, which is as little as the schema takes.
#[must_use]
pub fn time_advancers(
    time: EventTime,
    last: EventTime,
    partitions: u32,
    row: &Row,
    settings: &PlaySettings,
    form: &Form<'_>,
) -> Vec<(QuestionnaireEvent, bool)> {
    let mut missing: Vec<Partition> =
        (0..partitions).filter_map(|number| Some(Partition(i32::try_from(number).ok()?))).collect();
    let mut found = Vec::new();
    let mut number = 0_u64;
    while !missing.is_empty() {
        let name = format!("{}-time-advancer-{number}", settings.crowd);
        number += 1;
        let event_name = format!("{name}-{}", if time == last { "last" } else { "first" });
        let full = form.event(&name, &event_name, time, row.answers.clone());
        let partition = partition_of(full.respondent_id.as_bytes(), partitions);
        if let Some(place) = missing.iter().position(|open| *open == partition) {
            missing.remove(place);
            let nothing = vec![None; full.answers.len()];
            let bare = QuestionnaireEvent { completed: false, answers: nothing, ..full.clone() };
            let event = if time == last && form.takes(&bare) { bare } else { full };
            let all = event.answers.iter().flatten().count();
            let is_finished = all > 0 && form.is_finished(&event);
            let is_scored = match settings.when {
                ScoreWhen::Complete => is_finished,
                ScoreWhen::Answers(enough) => is_finished || all >= enough,
                ScoreWhen::EveryEvent => true,
            };
            found.push((event, is_scored));
        }
    }
    found
}

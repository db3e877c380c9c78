//! Gathers the pieces of a questionnaire into an observation, and says when it is to be scored.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    events::questionnaire::{self, Answer, Question, QuestionnaireEvent},
    streams::{
        state::{WindowHandle, Windowed},
        time::{EventTime, WallTime},
        topology::{Context, ProcessError, Processor, Punctuation, PunctuationKind, Record},
    },
};

/// When an observation is scored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScoreWhen {
    /// Once: when the respondent has submitted, or everything is answered.
    #[default]
    Complete,
    /// Once: when so many questions are answered, or the respondent has submitted before.
    Answers(usize),
    /// At every event, with all answers so far.
    EveryEvent,
}

/// What one respondent has answered so far.
#[derive(Clone, Debug, PartialEq)]
pub struct Observation {
    /// Who.
    pub respondent_id: String,
    /// The event that completed it.
    pub event_id: String,
    /// When that event happened.
    pub event_time: EventTime,
    /// When that event was written to its topic.
    pub received_at: WallTime,
    /// One a question, in the order of the schema's questions.
    pub answers: Vec<Option<Answer>>,
}

/// An observation that waits for more, as it is stored: answers by name, so that it survives a change of the schema.
/// During an upgrade it may go from instance to instance, each with its own schema: what one does not know it keeps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Partial {
    /// What is answered, by the names of the questions.
    pub answers: Vec<(String, Answer)>,
    /// Whether that was scored already.
    pub scored: bool,
}

impl Partial {
    /// The version of what is stored. It is of this type and all that it holds: another field takes another version.
    pub const FORMAT: u8 = 1;
}

/// See [`Gather`].
#[derive(Clone, Debug)]
pub struct GatherSettings {
    /// When to score.
    pub when: ScoreWhen,
    /// How long, in event time, an observation waits for its next event before it is forgotten.
    pub retention: Duration,
    /// The questions, in the order of the schema.
    pub questions: Arc<[Question]>,
}

/// Events in, observations to be scored out.
pub struct Gather {
    /// See [`GatherSettings`].
    pub settings: GatherSettings,
    /// Observations that wait for more.
    pub observations: WindowHandle<Partial>,
}

/// Entries removed at once, at most, so that a long backlog is never in memory twice.
const EXPIRED_AT_ONCE_MAX: usize = 10_000;

impl Processor for Gather {
    type In = QuestionnaireEvent;
    type Out = Observation;

    fn start(&mut self, ctx: &mut Context<'_, Observation>) {
        let interval = (self.settings.retention / 20).max(Duration::from_secs(1));
        ctx.schedule(PunctuationKind::StreamTime, interval);
    }

    fn process(
        &mut self,
        record: &Record<QuestionnaireEvent>,
        ctx: &mut Context<'_, Observation>,
    ) -> Result<(), ProcessError> {
        let event = &record.value;
        let Some(input) = ctx.input() else {
            return Err(ProcessError::reject("malformed", "an event outside a record"));
        };
        let received_at = WallTime(input.timestamp.0);
        let event_id = if event.event_id.is_empty() {
            format!("{}-{}", input.source.partition, input.offset)
        } else {
            event.event_id.clone()
        };
        let is_submitted = event.completed || event.answers.iter().all(Option::is_some);
        let before = self.observation_of(&event.respondent_id, record.time, ctx)?;
        if before.is_none() && is_submitted {
            // The common case: the whole questionnaire in one event never touches the store.
            let observation = Observation {
                respondent_id: event.respondent_id.clone(),
                event_id,
                event_time: record.time,
                received_at,
                answers: event.answers.clone(),
            };
            return forward(observation, record, ctx);
        }
        let (answers, was_scored) = self.merge(before.as_ref(), event);
        let is_complete = is_submitted || answers.iter().all(Option::is_some);
        let is_due = match self.settings.when {
            ScoreWhen::Complete => is_complete,
            ScoreWhen::Answers(enough) => {
                let answered = answers.iter().flatten().count();
                !was_scored && (is_complete || answered >= enough)
            }
            ScoreWhen::EveryEvent => true,
        };
        let mut store = ctx.window(&self.observations);
        if let Some(before) = &before {
            store.remove(before);
        }
        if !is_complete {
            let partial = self.partial(before.as_ref(), &answers, was_scored || is_due);
            store.add(&event.respondent_id, record.time, &partial)?;
        }
        if is_due {
            let observation = Observation {
                respondent_id: event.respondent_id.clone(),
                event_id,
                event_time: record.time,
                received_at,
                answers,
            };
            return forward(observation, record, ctx);
        }
        Ok(())
    }

    fn punctuate(
        &mut self,
        punctuation: Punctuation,
        ctx: &mut Context<'_, Observation>,
    ) -> Result<(), ProcessError> {
        if let Punctuation::StreamTime(now) = punctuation {
            let before = now - self.settings.retention;
            let mut store = ctx.window(&self.observations);
            while store.expire(before, EXPIRED_AT_ONCE_MAX)?.len() == EXPIRED_AT_ONCE_MAX {}
        }
        Ok(())
    }
}

impl Gather {
    /// The newest observation of a respondent that is not yet forgotten.
    fn observation_of(
        &self,
        respondent_id: &str,
        now: EventTime,
        ctx: &mut Context<'_, Observation>,
    ) -> Result<Option<Windowed<Partial>>, ProcessError> {
        let retention = self.settings.retention;
        let store = ctx.window(&self.observations);
        Ok(store.fetch(respondent_id, now - retention, now + retention)?.pop())
    }

    /// A later answer to the same question replaces the earlier one.
    fn merge(
        &self,
        before: Option<&Windowed<Partial>>,
        event: &QuestionnaireEvent,
    ) -> (Vec<Option<Answer>>, bool) {
        let mut answers = event.answers.clone();
        let Some(before) = before else { return (answers, false) };
        for (name, answer) in &before.value.answers {
            if let Some(open) = self.place_of(name).and_then(|place| answers.get_mut(place)) {
                open.get_or_insert_with(|| answer.clone());
            }
        }
        (answers, before.value.scored)
    }

    /// The question that has, or had, this name.
    fn place_of(&self, name: &str) -> Option<usize> {
        questionnaire::place_of(name, &self.settings.questions)
    }

    fn partial(
        &self,
        before: Option<&Windowed<Partial>>,
        answers: &[Option<Answer>],
        scored: bool,
    ) -> Partial {
        let named = self.settings.questions.iter().zip(answers);
        let known =
            named.filter_map(|(question, answer)| Some((question.name.clone(), answer.clone()?)));
        let before = before.into_iter().flat_map(|before| &before.value.answers);
        let foreign = before.filter(|(name, _)| self.place_of(name).is_none()).cloned();
        Partial { answers: known.chain(foreign).collect(), scored }
    }
}

fn forward(
    observation: Observation,
    record: &Record<QuestionnaireEvent>,
    ctx: &mut Context<'_, Observation>,
) -> Result<(), ProcessError> {
    ctx.forward(&Record { key: record.key.clone(), value: observation, time: record.time })
}

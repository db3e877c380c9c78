//! Respondents who have given a part of their answers. Each step is an event of one of them with new answers to the same
//! questions: it is looked up among the recent events, merged with the observation, and both are stored.

use foretell::events::questionnaire::{QuestionnaireEvent, RowLayout};
use foretell_ml::ModelBundle;
use foretell_streams::{record::OutputRecord, time::EventTime};

use crate::{
    growth::entries::{COMMIT_EVENTS, Growing, Grown, Steps, in_turns, scatter},
    task::ScoringTask,
    workload::Workload,
};

const SMALLEST: usize = 10_000;
/// Events of a round: few, because every event is one more among the recent ones.
const ROUND: usize = 20 * COMMIT_EVENTS;
/// Nothing expires.
const KEPT: &str = "10d";
/// Questions that are answered.
const ANSWERED: usize = 6;

struct Pieces {
    workload: Workload,
    layout: RowLayout,
    start: i64,
    respondents: usize,
}

impl Steps for Pieces {
    const OUTPUTS: usize = 0;

    fn fill(&self, number: usize) -> anyhow::Result<Vec<OutputRecord>> {
        self.piece(number, number)
    }

    fn step(&self, number: usize) -> anyhow::Result<Vec<OutputRecord>> {
        self.piece(number, scatter(number, self.respondents))
    }
}

impl Pieces {
    /// The event with this number, of this respondent.
    fn piece(&self, number: usize, respondent: usize) -> anyhow::Result<Vec<OutputRecord>> {
        let at = EventTime(self.start + i64::try_from(number)?);
        let (event, _) = self.workload.pair(number, at);
        let event = QuestionnaireEvent {
            respondent_id: format!("respondent-{respondent}"),
            completed: false,
            answers: self.layout.keep(&event.answers, |question| question < ANSWERED),
            ..event
        };
        Ok(vec![self.workload.encode_event(&event)?])
    }
}

/// The smallest and the largest number of respondents.
pub(crate) fn measure(model: &ModelBundle, largest: usize) -> anyhow::Result<Vec<Grown>> {
    let settings = [format!("sessions.gap={KEPT}"), format!("events.duplicates_within={KEPT}")];
    let filled = |respondents| {
        let steps = |task: &ScoringTask| {
            let workload = Workload::new(&task.config, &task.cluster)?;
            let layout = task.config.gather.layout.clone();
            // A millisecond an event, and all of them in the past.
            let start = task.now().0 - 2 * i64::try_from(respondents)? - 3_600_000;
            Ok(Pieces { workload, layout, start, respondents })
        };
        let mut size = Growing::fill(model, &settings, respondents, "observations", steps)?;
        size.run(ROUND)?;
        anyhow::Ok(size)
    };
    in_turns(vec![filled(SMALLEST)?, filled(largest)?], ROUND)
}

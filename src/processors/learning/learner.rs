//! The processors of the learning topology: they count examples, take commands, and have the trainer run the jobs that become
//! due. All state is in one store ([`LearningState`]).

use std::time::Duration;

use crate::{
    events::{
        command::Command,
        decision::DecisionOutcome,
        labelled_example::{ExampleOrigin, LabelledExample},
    },
    processors::{
        learning::{
            job::{Job, JobFailure},
            outputs::{self, Learned},
            rules::{Draft, Rules},
            schedule::Schedule,
            state::{LearningState, ModelRef},
            trainer::Trainer,
        },
        metrics::ApplicationMetrics,
        model_table::Serving,
    },
};
use foretell_streams::{
    state::KeyValueHandle,
    time::{EventTime, WallTime},
    topology::{Context, ProcessError, Processor, Punctuation, PunctuationKind, Record},
};

/// The processor from labelled examples, and from the results of jobs, to models and decisions.
pub struct Learner {
    /// The rules by which jobs become due and models are promoted.
    pub rules: Rules,
    /// The schedule of trainings.
    pub schedule: Option<Schedule>,
    /// The application's metrics.
    pub metrics: ApplicationMetrics,
    /// The time at which this task saw the running job first.
    pub running_since: Option<WallTime>,
    /// The model that serves, which is the first model before any decision.
    pub serving: Serving,
    /// The trainer thread.
    pub trainer: Trainer,
    /// Holds one [`LearningState`].
    pub state: KeyValueHandle<LearningState>,
}

/// The processor of commands.
pub struct Obey {
    /// See [`Learner::serving`].
    pub serving: Serving,
    /// The application's metrics.
    pub metrics: ApplicationMetrics,
    /// The store of [`Learner`].
    pub state: KeyValueHandle<LearningState>,
}

/// The key of the [`LearningState`] in its store.
pub const STATE_KEY: &str = "learning";
/// The interval at which the trainer is polled.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

type LearnerContext<'t> = Context<'t, Learned>;

impl Processor for Learner {
    type In = LabelledExample;
    type Out = Learned;

    fn start(&mut self, ctx: &mut LearnerContext<'_>) {
        ctx.schedule(PunctuationKind::WallClock, POLL_INTERVAL);
    }

    fn process(
        &mut self,
        record: &Record<LabelledExample>,
        ctx: &mut LearnerContext<'_>,
    ) -> Result<(), ProcessError> {
        let example = &record.value;
        let Some(through) = ctx.input().map(|input| input.offset.next()) else {
            return Err(ProcessError::reject("malformed", "an example outside a record"));
        };
        let mut store = ctx.key_value(&self.state);
        let mut state = store.get(STATE_KEY)?.unwrap_or_default();
        state.through = through.0;
        if example.origin == ExampleOrigin::Stream && !example.correction {
            note_champion(&mut state, &self.serving);
            state.count_example(through.0, &self.rules);
        }
        let refused = state.begin_due();
        store.put(STATE_KEY, &state)?;
        publish_refused(refused, &self.metrics, ctx)
    }

    fn punctuate(
        &mut self,
        _punctuation: Punctuation,
        ctx: &mut LearnerContext<'_>,
    ) -> Result<(), ProcessError> {
        let now = ctx.now();
        let mut state = ctx.key_value(&self.state).get(STATE_KEY)?.unwrap_or_default();
        if let Some(schedule) = &self.schedule
            && schedule.advance(&mut state, now)
        {
            note_champion(&mut state, &self.serving);
            let refused = state.begin_due();
            ctx.key_value(&self.state).put(STATE_KEY, &state)?;
            publish_refused(refused, &self.metrics, ctx)?;
        }
        let Some(job) = state.running.clone() else {
            self.running_since = None;
            self.metrics.training_pending(0.0);
            return Ok(());
        };
        let since = *self.running_since.get_or_insert(now);
        if matches!(job, Job::Train(_)) {
            let pending = EventTime(now.0).since(EventTime(since.0));
            self.metrics.training_pending(pending.as_secs_f64());
        }
        let Some(result) = self.trainer.poll(&job) else { return Ok(()) };
        if let Err(JobFailure::Retry(reason)) = &result {
            tracing::warn!(reason, "a job of the learner will be retried");
            return Ok(());
        }
        self.running_since = None;
        let finished = state.finish(result, &self.rules);
        let refused = state.begin_due();
        ctx.key_value(&self.state).put(STATE_KEY, &state)?;
        if let Some(draft) = &finished.decision {
            report(draft, &self.metrics);
            if matches!(job, Job::Train(_)) {
                self.metrics.training_decided(draft.outcome);
            }
        }
        outputs::publish(finished, ctx)?;
        publish_refused(refused, &self.metrics, ctx)
    }
}

impl Drop for Learner {
    /// Resets the gauges, because the task has moved to another instance.
    fn drop(&mut self) {
        self.metrics.training_pending(0.0);
        self.metrics.reset_trainings_in_a_row();
    }
}

impl Processor for Obey {
    type In = Command;
    type Out = Learned;

    fn process(
        &mut self,
        record: &Record<Command>,
        ctx: &mut LearnerContext<'_>,
    ) -> Result<(), ProcessError> {
        let mut store = ctx.key_value(&self.state);
        let mut state = store.get(STATE_KEY)?.unwrap_or_default();
        note_champion(&mut state, &self.serving);
        let mut refused: Vec<Draft> = state.take_command(&record.value).into_iter().collect();
        refused.extend(state.begin_due());
        store.put(STATE_KEY, &state)?;
        publish_refused(refused, &self.metrics, ctx)
    }
}

/// Notes the model that serves as the champion before any decision.
fn note_champion(state: &mut LearningState, serving: &Serving) {
    if state.champion.is_none() {
        state.champion = serving.scorer().map(|scorer| ModelRef {
            version: scorer.version().clone(),
            training: scorer.lineage().origin.training,
        });
    }
}

fn publish_refused(
    refused: Vec<Draft>,
    metrics: &ApplicationMetrics,
    ctx: &mut LearnerContext<'_>,
) -> Result<(), ProcessError> {
    refused.iter().for_each(|draft| report(draft, metrics));
    outputs::publish_refused(refused, ctx)
}

/// Counts and logs a decision.
fn report(draft: &Draft, metrics: &ApplicationMetrics) {
    metrics.decided(draft.outcome);
    let candidate = draft.candidate.as_ref().map(ToString::to_string);
    if draft.outcome == DecisionOutcome::Failed {
        let (decision, reason) = (&draft.decision_id, &draft.reason);
        tracing::warn!(decision, reason, "the champion goes on serving");
        return;
    }
    tracing::info!(
        decision = draft.decision_id,
        outcome = draft.outcome.name(),
        candidate,
        reason = draft.reason,
        "decided"
    );
}

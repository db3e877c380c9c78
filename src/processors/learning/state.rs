//! The stored state of the learner: which jobs are due, which one runs, and what follows from its result. It is pure, and
//! stored after each step, so that a job is run again after a crash or a move of the task, and is neither lost nor done twice.
//!
//! ```text
//!   examples, commands,       begin_due                 finish
//!   schedule, drift ──▶ Due ────────────▶ running: Job ──────────▶ Finished: decision, aliases, bundle
//!                                           │      ▲
//!                                           └──────┘ a crash: restored, run again
//! ```

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::{
    events::decision::DecisionOutcome,
    processors::{
        learning::{
            job::{
                Cause, CheckRequest, Job, JobFailure, JobOutput, JobResult, JudgementRequest,
                Purpose, Trained, TrainingRequest,
            },
            rules::{Draft, Rules, better, fell, numbers, too_few, undecided, worse},
        },
        model_table::{CHALLENGER, CHAMPION, PREDECESSOR},
    },
};
use foretell_ml::{
    ModelVersion,
    judge::{Comparison, Verdict},
};

/// The state of the learner.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LearningState {
    /// Number of labelled examples from the stream, without corrections.
    pub examples: u64,
    /// Offset after the last record of the training log that was processed.
    pub through: i64,
    /// Number of finished trainings, with the failed ones.
    pub trainings: u64,
    /// The running job.
    pub running: Option<Job>,
    /// The training that a command has interrupted, which is run again after the commands.
    pub interrupted: Option<TrainingRequest>,
    /// The jobs that are due.
    pub due: Due,
    /// The champion, as of the last decision; else the model that served at the first example.
    pub champion: Option<ModelRef>,
    /// The champion's predecessor.
    pub predecessor: Option<Predecessor>,
    /// The challenger.
    pub challenger: Option<Challenger>,
    /// The schedule of trainings, and when the next one is due, in milliseconds since 1970.
    pub schedule: Option<(String, i64)>,
    /// The ids of recent commands, oldest first.
    pub recent_commands: VecDeque<String>,
}

/// The jobs that are due.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Due {
    /// A training on the records before an offset. Of several, the last covers all examples.
    pub training: Option<(i64, Cause)>,
    /// A comparison of the challenger with the champion, on the examples before an offset.
    pub judgement: Option<i64>,
    /// A comparison of the champion with its predecessor, on the examples before an offset.
    pub rollback_check: Option<i64>,
    /// Commands about models, in order.
    pub commands: VecDeque<CheckRequest>,
}

/// A model on the topic of models.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelRef {
    /// Its version.
    pub version: ModelVersion,
    /// The number of its training.
    pub training: u64,
}

/// The champion's predecessor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Predecessor {
    /// The model.
    pub model: ModelRef,
    /// Offset of the first example after the promotion.
    pub since: i64,
    /// [`LearningState::examples`] at the promotion.
    pub examples: u64,
    /// Whether it replaces the champion on its own if it is better. Not after the promotion by a command: a person decided.
    pub is_automatic: bool,
}

/// The challenger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Challenger {
    /// The model.
    pub model: ModelRef,
    /// Offset of the first example that it was not trained on.
    pub since: i64,
}

/// What follows from the result of a job.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Finished {
    /// The decision; none for a comparison with the predecessor that changes nothing.
    pub decision: Option<Draft>,
    /// The new model, which is published before the aliases move.
    pub trained: Option<Trained>,
    /// The aliases that move, in order.
    pub aliases: Vec<AliasMove>,
}

/// The move of an alias to a model, or to none.
pub type AliasMove = (&'static str, Option<ModelRef>);

impl LearningState {
    /// The format version of this type and all types in it. A changed field needs a new version.
    pub const FORMAT: u8 = 2;

    /// Counts an example from the stream that is not a correction; `through` is the offset after it.
    pub fn count_example(&mut self, through: i64, rules: &Rules) {
        self.examples += 1;
        if self.examples.is_multiple_of(rules.retrain_after) {
            self.make_training_due(through, &Cause::examples());
            if self.challenger.is_some() {
                self.due.judgement = Some(through);
            }
        }
        let watched = self.predecessor.as_ref().filter(|predecessor| predecessor.is_automatic);
        if rules.check_after > 0
            && watched.is_some_and(|predecessor| {
                (self.examples - predecessor.examples).is_multiple_of(rules.check_after)
            })
        {
            self.due.rollback_check = Some(through);
        }
    }

    /// Makes a training due on the records before an offset. Returns whether its decision will name the cause, for which there
    /// is no room after too many others.
    pub fn make_training_due(&mut self, through: i64, cause: &Cause) -> bool {
        let (due_through, causes) =
            self.due.training.get_or_insert_with(|| (through, Cause::default()));
        *due_through = through.max(*due_through);
        causes.add(cause)
    }

    /// Starts the next job if none runs. A command does not wait for a training: it is interrupted, and run again afterwards.
    /// Returns the decisions about commands that are refused without a job.
    pub fn begin_due(&mut self) -> Vec<Draft> {
        let mut refused = Vec::new();
        if !self.due.commands.is_empty()
            && let Some(Job::Train(request)) = self.running.take_if(|job| job.is_training())
        {
            self.interrupted = Some(request);
        }
        while self.running.is_none() {
            if let Some(command) = self.due.commands.pop_front() {
                match self.check(command) {
                    Ok(check) => self.running = Some(Job::Check(check)),
                    Err(draft) => refused.push(*draft),
                }
                continue;
            }
            self.running = self.next_comparison().or_else(|| self.next_training());
            break;
        }
        refused
    }

    /// The comparison that is due. Jobs are run in the order of their offsets, because the training log is read forwards;
    /// at one offset comparisons come first, because a training is compared with their champion.
    fn next_comparison(&mut self) -> Option<Job> {
        let due = self.due.training.as_ref().map(|(through, _)| *through);
        let interrupted = self.interrupted.as_ref().map(|request| request.through);
        let training = interrupted.or(due).unwrap_or(i64::MAX);
        let champion = self.champion.clone()?.version;
        let (predecessor, challenger) = (self.predecessor.clone(), self.challenger.clone());
        let check = self.due.rollback_check.take_if(|through| *through <= training);
        if let (Some(through), Some(Predecessor { model, since, .. })) = (check, predecessor) {
            let (purpose, candidate, from) = (Purpose::Rollback, model.version, since);
            let request = JudgementRequest { purpose, candidate, champion, from, through };
            return Some(Job::Judge(request));
        }
        let judgement = self.due.judgement.take_if(|through| *through <= training);
        let (through, Challenger { model, since }) = judgement.zip(challenger)?;
        let (purpose, candidate, from) = (Purpose::Challenger, model.version, since);
        Some(Job::Judge(JudgementRequest { purpose, candidate, champion, from, through }))
    }

    fn next_training(&mut self) -> Option<Job> {
        let interrupted = self.interrupted.take().map(|request| (request.through, request.cause));
        let (through, cause) = interrupted.or_else(|| self.due.training.take())?;
        let parent = self.champion.as_ref().map(|champion| champion.version.clone());
        let training = self.trainings + 1;
        Some(Job::Train(TrainingRequest { training, through, parent, cause }))
    }

    /// Ends the running job with its result, which is not [`JobFailure::Retry`].
    pub fn finish(&mut self, result: JobResult, rules: &Rules) -> Finished {
        let Some(job) = self.running.take() else { return Finished::default() };
        match (job, result) {
            (Job::Train(request), Ok(JobOutput::Trained(trained))) => {
                self.trainings += 1;
                self.finish_training(request, *trained, rules)
            }
            (Job::Train(request), Err(failure)) => {
                self.trainings += 1;
                let draft = self.draft(DecisionOutcome::Failed, failure.to_string(), request.cause);
                Finished::of(Draft {
                    decision_id: training_id(request.training),
                    training: Some(request.training),
                    offsets: Some((request.through, request.through)),
                    ..draft
                })
            }
            (Job::Judge(request), Ok(JobOutput::Judged(comparison))) => {
                self.finish_judgement(&request, comparison, rules)
            }
            (Job::Judge(request), Err(failure)) => self.fail_judgement(&request, &failure),
            (Job::Check(check), Ok(JobOutput::Checked(training))) => self.obey(check, training),
            (Job::Check(check), Err(failure)) => self.refuse(check, &failure),
            (_, Ok(_)) => unreachable!("the trainer answers each job with its own output"),
        }
    }

    fn finish_training(
        &mut self,
        request: TrainingRequest,
        trained: Trained,
        rules: &Rules,
    ) -> Finished {
        let candidate = trained.bundle.version();
        let comparison = trained.comparison.as_ref();
        let verdict = comparison.map(|comparison| comparison.verdict(rules.margin));
        let (outcome, reason) = match (verdict, &self.champion) {
            _ if rules.always => (DecisionOutcome::Promoted, "every model is promoted".to_owned()),
            (_, None) => (DecisionOutcome::Promoted, "there was no champion".to_owned()),
            (Some(Verdict::Better), _) => (DecisionOutcome::Promoted, better(comparison, rules)),
            (Some(Verdict::Worse), _) => (DecisionOutcome::Refused, worse(comparison)),
            (Some(Verdict::Undecided), _) => (DecisionOutcome::Challenger, undecided(comparison)),
            (None, _) => (DecisionOutcome::Challenger, too_few()),
        };
        let draft = Draft {
            decision_id: training_id(request.training),
            training: Some(request.training),
            candidate: Some(candidate.clone()),
            comparison: trained.comparison.as_ref().map(|found| numbers(found, rules)),
            offsets: Some((trained.held_out_from.unwrap_or(request.through), request.through)),
            ..self.draft(outcome, reason, request.cause)
        };
        let model = ModelRef { version: candidate, training: request.training };
        let aliases = match outcome {
            DecisionOutcome::Promoted => self.promote(model, true),
            DecisionOutcome::Challenger => self.challenge(model, request.through),
            DecisionOutcome::Refused | DecisionOutcome::RolledBack | DecisionOutcome::Failed => {
                Vec::new()
            }
        };
        Finished { decision: Some(draft), trained: Some(trained), aliases }
    }

    fn finish_judgement(
        &mut self,
        request: &JudgementRequest,
        comparison: Option<Comparison>,
        rules: &Rules,
    ) -> Finished {
        let verdict = comparison.as_ref().map(|comparison| comparison.verdict(rules.margin));
        let comparison = comparison.as_ref();
        let mut aliases = Vec::new();
        let (outcome, reason) = match (request.purpose, verdict) {
            (Purpose::Rollback, Some(Verdict::Better)) => {
                aliases = self.roll_back();
                (DecisionOutcome::RolledBack, fell(comparison, rules))
            }
            (Purpose::Rollback, _) => return Finished::default(),
            (Purpose::Challenger, Some(Verdict::Better)) => {
                let challenger = self.challenger.take().expect("it was compared");
                aliases = self.promote(challenger.model, true);
                aliases.push((CHALLENGER, None));
                (DecisionOutcome::Promoted, better(comparison, rules))
            }
            (Purpose::Challenger, Some(Verdict::Worse)) => {
                aliases.extend(self.clear_challenger());
                (DecisionOutcome::Refused, worse(comparison))
            }
            (Purpose::Challenger, Some(Verdict::Undecided)) => {
                (DecisionOutcome::Challenger, undecided(comparison))
            }
            (Purpose::Challenger, None) => (DecisionOutcome::Challenger, too_few()),
        };
        let draft = Draft {
            decision_id: judgement_id(request),
            candidate: Some(request.candidate.clone()),
            champion: Some(request.champion.clone()),
            comparison: comparison.map(|found| numbers(found, rules)),
            offsets: Some((request.from, request.through)),
            ..self.draft(outcome, reason, Cause::examples())
        };
        Finished { decision: Some(draft), trained: None, aliases }
    }

    /// Ends a comparison that cannot be made, such as one with a model that was deleted: the candidate is given up.
    fn fail_judgement(&mut self, request: &JudgementRequest, failure: &JobFailure) -> Finished {
        let aliases = match request.purpose {
            Purpose::Challenger => self.clear_challenger().into_iter().collect(),
            Purpose::Rollback => {
                self.predecessor = None;
                vec![(PREDECESSOR, None)]
            }
        };
        let draft = self.draft(DecisionOutcome::Failed, failure.to_string(), Cause::examples());
        let draft = Draft {
            decision_id: judgement_id(request),
            candidate: Some(request.candidate.clone()),
            offsets: Some((request.from, request.through)),
            ..draft
        };
        Finished { decision: Some(draft), trained: None, aliases }
    }

    pub(super) fn promote(&mut self, model: ModelRef, is_automatic: bool) -> Vec<AliasMove> {
        let before = self.champion.replace(model.clone());
        let predecessor = before.clone().map(|model| {
            let (since, examples) = (self.through, self.examples);
            Predecessor { model, since, examples, is_automatic }
        });
        self.predecessor = predecessor;
        self.due.rollback_check = None;
        let mut aliases = vec![(CHAMPION, Some(model))];
        aliases.extend(before.map(|before| (PREDECESSOR, Some(before))));
        aliases.extend(self.clear_challenger());
        aliases
    }

    /// Makes the predecessor the champion again.
    pub(super) fn roll_back(&mut self) -> Vec<AliasMove> {
        let Some(predecessor) = self.predecessor.take() else { return Vec::new() };
        self.champion = Some(predecessor.model.clone());
        self.due.rollback_check = None;
        let mut aliases = vec![(CHAMPION, Some(predecessor.model)), (PREDECESSOR, None)];
        aliases.extend(self.clear_challenger());
        aliases
    }

    pub(super) fn challenge(&mut self, model: ModelRef, since: i64) -> Vec<AliasMove> {
        self.challenger = Some(Challenger { model: model.clone(), since });
        self.due.judgement = None;
        vec![(CHALLENGER, Some(model))]
    }

    fn clear_challenger(&mut self) -> Option<AliasMove> {
        self.due.judgement = None;
        self.challenger.take().map(|_| (CHALLENGER, None))
    }

    pub(super) fn draft(&self, outcome: DecisionOutcome, reason: String, cause: Cause) -> Draft {
        Draft {
            decision_id: String::new(),
            outcome,
            reason,
            cause,
            training: None,
            candidate: None,
            champion: self.champion.as_ref().map(|champion| champion.version.clone()),
            comparison: None,
            offsets: None,
        }
    }
}

impl Finished {
    pub(super) fn of(decision: Draft) -> Self {
        Self { decision: Some(decision), ..Self::default() }
    }
}

fn training_id(training: u64) -> String {
    format!("training-{training}")
}

fn judgement_id(request: &JudgementRequest) -> String {
    let name = match request.purpose {
        Purpose::Challenger => "judgement",
        Purpose::Rollback => "rollback",
    };
    format!("{name}-{}", request.through)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{
        events::command::{Command, CommandKind},
        processors::small_model::small_bundle,
    };
    use foretell_ml::{Metric, ModelBundle, Origin};
    use foretell_streams::time::WallTime;

    pub(in crate::processors::learning) const N: u64 = 10;

    fn rules() -> Rules {
        Rules { retrain_after: N, check_after: 4, always: false, margin: 0.01, confidence: 0.95 }
    }

    /// A different model for each training.
    pub(in crate::processors::learning) fn model(training: u64) -> ModelBundle {
        let mut bundle = small_bundle();
        bundle.lineage.origin = Origin { training, ..Origin::default() };
        bundle
    }

    pub(in crate::processors::learning) fn version(training: u64) -> ModelVersion {
        model(training).version()
    }

    pub(in crate::processors::learning) fn reference(training: u64) -> ModelRef {
        ModelRef { version: version(training), training }
    }

    /// A comparison with this interval of the improvement.
    fn interval(low: f64, high: f64) -> Comparison {
        Comparison {
            metric: Metric::LogLoss,
            examples: 100,
            candidate: 0.3,
            champion: 0.3 + f64::midpoint(low, high),
            difference: f64::midpoint(low, high),
            low,
            high,
        }
    }

    const BETTER: (f64, f64) = (0.02, 0.04);
    const UNDECIDED: (f64, f64) = (-0.02, 0.04);
    const WORSE: (f64, f64) = (-0.04, -0.02);

    pub(in crate::processors::learning) struct Learner(
        pub(in crate::processors::learning) LearningState,
    );

    impl Learner {
        /// A learner whose champion is the first model.
        pub(in crate::processors::learning) fn new() -> Self {
            Self(LearningState { champion: Some(reference(0)), ..LearningState::default() })
        }

        pub(in crate::processors::learning) fn examples(&mut self, number: u64) {
            for _ in 0..number {
                self.0.through += 1;
                self.0.count_example(self.0.through, &rules());
            }
        }

        pub(in crate::processors::learning) fn command(
            &mut self,
            id: &str,
            kind: CommandKind,
            training: Option<u64>,
        ) -> Option<Draft> {
            self.0.take_command(&Command {
                command_id: id.to_owned(),
                kind,
                model_version: training.map(|training| version(training).as_str().to_owned()),
                reason: Some("a test".to_owned()),
                requested_by: Some("ann".to_owned()),
                requested_at: WallTime(0),
            })
        }

        pub(in crate::processors::learning) fn begin(&mut self) -> &Job {
            assert!(self.0.begin_due().is_empty());
            self.0.running.as_ref().expect("a job is due")
        }

        pub(in crate::processors::learning) fn finish(
            &mut self,
            result: JobResult,
        ) -> (DecisionOutcome, Vec<AliasMove>) {
            let finished = self.0.finish(result, &rules());
            (finished.decision.expect("a decision").outcome, finished.aliases)
        }

        /// Ends the training that is due next with a model that has this interval.
        fn train(
            &mut self,
            training: u64,
            found: Option<(f64, f64)>,
        ) -> (DecisionOutcome, Vec<AliasMove>) {
            let expected = Job::Train(TrainingRequest {
                training,
                through: self.0.through,
                parent: self.0.champion.as_ref().map(|champion| champion.version.clone()),
                cause: Cause::examples(),
            });
            assert_eq!(*self.begin(), expected);
            let comparison = found.map(|(low, high)| interval(low, high));
            let trained = Trained { comparison, ..Trained::new(model(training)) };
            self.finish(Ok(JobOutput::Trained(Box::new(trained))))
        }

        fn judge(&mut self, purpose: Purpose, found: (f64, f64)) -> Finished {
            let Job::Judge(request) = self.begin() else { panic!("{:?}", self.0.running) };
            assert_eq!(request.purpose, purpose);
            let comparison = Some(interval(found.0, found.1));
            self.0.finish(Ok(JobOutput::Judged(comparison)), &rules())
        }

        pub(in crate::processors::learning) fn versions(&self) -> [Option<ModelVersion>; 3] {
            let Self(state) = self;
            let of = |model: &ModelRef| model.version.clone();
            [
                state.champion.as_ref().map(of),
                state.predecessor.as_ref().map(|predecessor| of(&predecessor.model)),
                state.challenger.as_ref().map(|challenger| of(&challenger.model)),
            ]
        }
    }

    #[test]
    fn without_a_number_of_examples_only_other_causes_make_a_training_due() {
        let mut learner = Learner::new();
        let rules = Rules { retrain_after: 0, check_after: 0, ..rules() };
        for through in 1..100 {
            learner.0.through = through;
            learner.0.count_example(through, &rules);
        }
        assert_eq!((learner.0.examples, &learner.0.due), (99, &Due::default()));
        assert!(learner.0.make_training_due(99, &Cause::examples()));
        assert!(learner.0.begin_due().is_empty() && learner.0.running.is_some());
    }

    #[test]
    fn a_candidate_is_promoted_refused_or_becomes_the_challenger() {
        let check = |found, outcome, [champion, predecessor, challenger]: [Option<u64>; 3]| {
            let mut learner = Learner::new();
            learner.examples(N);
            assert_eq!(learner.train(1, found).0, outcome, "{found:?}");
            let expected = [champion, predecessor, challenger].map(|model| model.map(version));
            assert_eq!(learner.versions(), expected, "{found:?}");
        };
        check(Some(BETTER), DecisionOutcome::Promoted, [Some(1), Some(0), None]);
        check(Some(UNDECIDED), DecisionOutcome::Challenger, [Some(0), None, Some(1)]);
        check(None, DecisionOutcome::Challenger, [Some(0), None, Some(1)]);
        check(Some(WORSE), DecisionOutcome::Refused, [Some(0), None, None]);
        // Better, and not by the margin.
        check(Some((0.005, 0.015)), DecisionOutcome::Challenger, [Some(0), None, Some(1)]);
    }

    #[test]
    fn every_model_is_promoted_if_the_policy_says_so() {
        let mut learner = Learner::new();
        learner.examples(N);
        learner.begin();
        let comparison = Some(interval(WORSE.0, WORSE.1));
        let trained = Trained { comparison, ..Trained::new(model(1)) };
        let rules = Rules { always: true, ..rules() };
        let finished = learner.0.finish(Ok(JobOutput::Trained(Box::new(trained))), &rules);
        assert_eq!(finished.decision.unwrap().outcome, DecisionOutcome::Promoted);
        assert_eq!(learner.versions()[0], Some(version(1)));
    }

    #[test]
    fn a_challenger_is_judged_after_n_examples_and_before_the_next_training() {
        let check = |found, champion: u64, challenger: Option<u64>| {
            let mut learner = Learner::new();
            learner.examples(N);
            learner.train(1, None);
            learner.examples(N - 1);
            assert!(learner.0.begin_due().is_empty() && learner.0.running.is_none());
            learner.examples(1);
            let expected = Job::Judge(JudgementRequest {
                purpose: Purpose::Challenger,
                candidate: version(1),
                champion: version(0),
                from: 10,
                through: 20,
            });
            assert_eq!(*learner.begin(), expected);
            let finished = learner.judge(Purpose::Challenger, found);
            assert_eq!(finished.decision.unwrap().decision_id, "judgement-20");
            let [now, _, still] = learner.versions();
            assert_eq!((now, still), (Some(version(champion)), challenger.map(version)));
            // The training is compared with the champion that follows from the judgement.
            learner.train(2, Some(UNDECIDED));
            assert_eq!(learner.versions()[2], Some(version(2)), "it is the newer challenger");
        };
        check(BETTER, 1, None);
        check(UNDECIDED, 0, Some(1));
        check(WORSE, 0, None);
    }

    #[test]
    fn a_champion_that_falls_below_its_predecessor_is_rolled_back() {
        let mut learner = Learner::new();
        learner.examples(N);
        learner.train(1, Some(BETTER));
        learner.examples(4);
        let quiet = learner.judge(Purpose::Rollback, UNDECIDED);
        assert_eq!(quiet, Finished::default(), "nothing changes");
        learner.examples(4);
        let finished = learner.judge(Purpose::Rollback, BETTER);
        let decision = finished.decision.unwrap();
        assert_eq!(decision.outcome, DecisionOutcome::RolledBack);
        assert_eq!(decision.decision_id, "rollback-18");
        assert_eq!(decision.offsets, Some((10, 18)), "since the promotion");
        assert_eq!(finished.aliases, [(CHAMPION, Some(reference(0))), (PREDECESSOR, None)]);
        assert_eq!(learner.versions(), [Some(version(0)), None, None]);
        learner.examples(1);
        assert!(learner.0.begin_due().is_empty() && learner.0.running.is_none());
    }

    #[test]
    fn jobs_run_in_the_order_of_their_offsets() {
        let mut learner = Learner::new();
        learner.examples(N);
        learner.train(1, Some(BETTER));
        learner.begin_nothing();
        // A training becomes due at 20, and a check at 22, while none runs.
        learner.examples(12);
        let Job::Train(request) = learner.begin() else { panic!("{:?}", learner.0.running) };
        assert_eq!(request.through, 20);
        let trained = Trained::new(model(2));
        learner.finish(Ok(JobOutput::Trained(Box::new(trained))));
        let Job::Judge(request) = learner.begin() else { panic!("{:?}", learner.0.running) };
        assert_eq!((request.purpose, request.through), (Purpose::Rollback, 22));
    }

    impl Learner {
        fn begin_nothing(&mut self) {
            assert!(self.0.begin_due().is_empty() && self.0.running.is_none());
        }
    }

    #[test]
    fn triggers_during_a_training_are_combined_into_the_next() {
        let mut learner = Learner::new();
        learner.examples(N);
        learner.begin();
        learner.examples(2 * N);
        assert_eq!(learner.command("c-1", CommandKind::Retrain, None), None);
        assert_eq!(learner.command("c-1", CommandKind::Retrain, None), None, "a repetition");
        learner.finish(Ok(JobOutput::Trained(Box::new(Trained::new(model(1))))));
        // The challenger became due, too, while it was trained: it has no examples yet.
        let Job::Train(request) = learner.begin() else { panic!("{:?}", learner.0.running) };
        assert_eq!((request.training, request.through), (2, 30));
        assert_eq!(request.cause.trigger, "labelled examples; request c-1");
        assert_eq!(request.cause.requested_by, "ann");
        let failure = Err(JobFailure::Failed("all examples are of class 0".to_owned()));
        assert_eq!(learner.finish(failure), (DecisionOutcome::Failed, Vec::new()));
        assert_eq!(learner.0.trainings, 2);
        learner.begin_nothing();
    }

    #[test]
    fn a_comparison_that_cannot_be_made_gives_the_candidate_up() {
        let mut learner = Learner::new();
        learner.examples(N);
        learner.train(1, Some(BETTER));
        learner.examples(4);
        learner.begin();
        let (outcome, aliases) =
            learner.finish(Err(JobFailure::Failed("there is no model".to_owned())));
        assert_eq!((outcome, aliases), (DecisionOutcome::Failed, vec![(PREDECESSOR, None)]));
        assert_eq!(learner.versions(), [Some(version(1)), None, None]);
    }

    #[test]
    fn the_texts_of_a_cause_are_bounded() {
        let mut cause = Cause::default();
        for number in 0..1_000 {
            cause.add(&Cause { trigger: format!("request {number}"), ..Cause::default() });
        }
        assert!(!cause.add(&Cause { trigger: "request more".to_owned(), ..Cause::default() }));
        assert!(cause.add(&Cause { trigger: "request 1".to_owned(), ..Cause::default() }), "known");
        assert!(cause.trigger.starts_with("request 0; request 1;"), "{}", cause.trigger);
        assert!(cause.trigger.len() < 4_100, "{}", cause.trigger.len());
    }
}

//! Commands about models: which are refused, which job one needs, and what follows from it.

use crate::{
    events::{
        command::{Command, CommandKind},
        decision::DecisionOutcome,
    },
    processors::learning::{
        job::{Cause, CheckRequest, JobFailure},
        rules::Draft,
        state::{Finished, LearningState, ModelRef},
    },
};
use foretell_ml::ModelVersion;

/// Maximum number of commands that wait for the learner. Others are refused.
pub const COMMANDS_MAX: usize = 64;
/// Number of the most recent commands that are recognised if they are repeated.
const RECENT_COMMANDS: usize = 256;

impl LearningState {
    /// Takes a command. Returns a decision if it is refused; a repeated command is ignored.
    pub fn take_command(&mut self, command: &Command) -> Option<Draft> {
        if self.recent_commands.contains(&command.command_id) {
            return None;
        }
        self.recent_commands.push_back(command.command_id.clone());
        if self.recent_commands.len() > RECENT_COMMANDS {
            self.recent_commands.pop_front();
        }
        let cause = Cause::of_command(command);
        if command.kind == CommandKind::Retrain {
            if self.make_training_due(self.through, &cause) {
                return None;
            }
            let reason = "too many requests wait for the next training, which serves them all; send it again later";
            let draft = self.draft(DecisionOutcome::Refused, reason.to_owned(), cause);
            return Some(Draft { decision_id: command.command_id.clone(), ..draft });
        }
        let named = command.model_version.clone().filter(|version| !version.is_empty());
        let problem = match (command.kind, &named) {
            _ if self.due.commands.len() >= COMMANDS_MAX => {
                format!("{COMMANDS_MAX} commands wait already; send it again later")
            }
            (CommandKind::Promote | CommandKind::Challenge, None) => {
                "the command names no model".to_owned()
            }
            _ => {
                // The predecessor is looked up when the command is run: an earlier one may change it.
                self.due.commands.push_back(CheckRequest {
                    command_id: command.command_id.clone(),
                    kind: command.kind,
                    version: ModelVersion::new(named.unwrap_or_default()),
                    reason: command.reason.clone(),
                    requested_by: command.requested_by.clone(),
                });
                return None;
            }
        };
        Some(Draft {
            decision_id: command.command_id.clone(),
            candidate: named.map(ModelVersion::new),
            ..self.draft(DecisionOutcome::Refused, problem, cause)
        })
    }

    /// The job of a command, or the decision that refuses it.
    pub(super) fn check(&self, command: CheckRequest) -> Result<CheckRequest, Box<Draft>> {
        let mut check = command;
        let champion = self.champion.as_ref().map(|champion| &champion.version);
        let problem = match (check.kind, &self.predecessor) {
            (CommandKind::RollBack, None) => "the champion has no predecessor".to_owned(),
            (CommandKind::RollBack, Some(predecessor)) => {
                check.version = predecessor.model.version.clone();
                return Ok(check);
            }
            (_, _) if champion == Some(&check.version) => {
                format!("{} is the champion already", check.version)
            }
            (_, _) => return Ok(check),
        };
        let draft = self.draft(DecisionOutcome::Refused, problem, check.cause());
        let candidate = (check.kind != CommandKind::RollBack).then_some(check.version);
        Err(Box::new(Draft { decision_id: check.command_id, candidate, ..draft }))
    }

    /// Refuses a command whose model cannot be used.
    pub(super) fn refuse(&self, check: CheckRequest, failure: &JobFailure) -> Finished {
        let draft = self.draft(DecisionOutcome::Refused, failure.to_string(), check.cause());
        let candidate = Some(check.version);
        Finished::of(Draft { decision_id: check.command_id, candidate, ..draft })
    }

    /// Does what a command says, after its model was checked.
    pub(super) fn obey(&mut self, check: CheckRequest, training: u64) -> Finished {
        let cause = check.cause();
        let (outcome, reason) = match check.kind {
            CommandKind::Challenge => (DecisionOutcome::Challenger, "a command"),
            CommandKind::RollBack => (DecisionOutcome::RolledBack, "a command"),
            CommandKind::Promote | CommandKind::Retrain => (DecisionOutcome::Promoted, "a command"),
        };
        let reason = check.reason.clone().unwrap_or_else(|| reason.to_owned());
        let draft = Draft {
            decision_id: check.command_id,
            training: Some(training),
            candidate: Some(check.version.clone()),
            ..self.draft(outcome, reason, cause)
        };
        let model = ModelRef { version: check.version, training };
        let aliases = match check.kind {
            CommandKind::Challenge => self.challenge(model, self.through),
            CommandKind::RollBack => self.roll_back(),
            CommandKind::Promote | CommandKind::Retrain => self.promote(model, false),
        };
        Finished { decision: Some(draft), trained: None, aliases }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::processors::{
        learning::{
            job::{Job, JobOutput, Trained},
            state::tests::{Learner, N, model, reference, version},
        },
        model_table::{CHALLENGER, CHAMPION, PREDECESSOR},
    };

    #[test]
    fn commands_move_aliases_after_a_check_of_the_model() {
        let mut learner = Learner::new();
        assert_eq!(learner.command("c-1", CommandKind::Challenge, Some(7)), None);
        assert_eq!(learner.command("c-2", CommandKind::Promote, Some(8)), None);
        assert_eq!(learner.command("c-3", CommandKind::RollBack, None), None);
        let checked = |learner: &mut Learner, training: u64| {
            let Job::Check(check) = learner.begin() else { panic!("{:?}", learner.0.running) };
            assert_eq!(check.version, version(training));
            learner.finish(Ok(JobOutput::Checked(training)))
        };
        let (outcome, aliases) = checked(&mut learner, 7);
        assert_eq!(outcome, DecisionOutcome::Challenger);
        assert_eq!(aliases, [(CHALLENGER, Some(reference(7)))]);
        let (outcome, aliases) = checked(&mut learner, 8);
        assert_eq!(outcome, DecisionOutcome::Promoted);
        let moved =
            [(CHAMPION, Some(reference(8))), (PREDECESSOR, Some(reference(0))), (CHALLENGER, None)];
        assert_eq!(aliases, moved);
        // A promotion by a person is not rolled back automatically.
        learner.examples(4);
        assert_eq!(learner.0.due.rollback_check, None);
        let (outcome, aliases) = checked(&mut learner, 0);
        assert_eq!(outcome, DecisionOutcome::RolledBack);
        assert_eq!(aliases, [(CHAMPION, Some(reference(0))), (PREDECESSOR, None)]);
    }

    #[test]
    fn a_command_interrupts_a_training_which_is_run_again() {
        let mut learner = Learner::new();
        learner.examples(N);
        learner.begin();
        learner.examples(N);
        learner.command("c-1", CommandKind::Promote, Some(7));
        let Job::Check(_) = learner.begin() else { panic!("{:?}", learner.0.running) };
        learner.finish(Ok(JobOutput::Checked(7)));
        // With the new champion, and on its own examples.
        let Job::Train(request) = learner.begin() else { panic!("{:?}", learner.0.running) };
        assert_eq!((request.training, request.through), (1, 10));
        assert_eq!(request.parent, Some(version(7)));
        learner.finish(Ok(JobOutput::Trained(Box::new(Trained::new(model(1))))));
        let Job::Train(request) = learner.begin() else { panic!("{:?}", learner.0.running) };
        assert_eq!((request.training, request.through), (2, 20));
    }

    #[test]
    fn a_training_request_that_its_decision_cannot_name_is_refused() {
        let mut learner = Learner::new();
        learner.examples(N);
        learner.begin();
        let refused = (0..1_000)
            .find_map(|number| learner.command(&format!("c-{number}"), CommandKind::Retrain, None));
        let refused = refused.expect("there is no room for all");
        assert!(refused.reason.contains("send it again later"), "{}", refused.reason);
        let (_, cause) = learner.0.due.training.as_ref().unwrap();
        assert!(!cause.trigger.contains(&refused.decision_id), "{}", cause.trigger);
    }

    #[test]
    fn impossible_commands_are_refused_with_the_reason() {
        let mut learner = Learner::new();
        let mut refused = |kind, training, words: &str| {
            let id = format!("c-{words}");
            let draft = learner.command(&id, kind, training);
            let draft = draft.or_else(|| learner.0.begin_due().pop()).expect("it is refused");
            assert_eq!((draft.outcome, &draft.decision_id), (DecisionOutcome::Refused, &id));
            assert!(draft.reason.contains(words), "{}", draft.reason);
            assert_eq!(learner.0.running, None);
        };
        refused(CommandKind::Promote, None, "names no model");
        refused(CommandKind::Promote, Some(0), "is the champion already");
        refused(CommandKind::RollBack, None, "has no predecessor");
        learner.command("c", CommandKind::Promote, Some(5));
        learner.begin();
        let failure = Err(JobFailure::Failed("there is no model".to_owned()));
        assert_eq!(learner.finish(failure), (DecisionOutcome::Refused, Vec::new()));
        assert_eq!(learner.versions(), [Some(version(0)), None, None], "nothing has changed");
        for number in 0..COMMANDS_MAX {
            let id = format!("many-{number}");
            assert_eq!(learner.command(&id, CommandKind::Promote, Some(5)), None);
        }
        let draft = learner.command("one more", CommandKind::Promote, Some(5)).unwrap();
        assert!(draft.reason.contains("commands wait already"), "{}", draft.reason);
    }
}

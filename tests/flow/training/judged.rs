//! Decisions about models: promotion, refusal, rollback and commands, with real trainings and comparisons.

use std::{ops::Range, sync::mpsc, time::Duration};

use foretell::{
    events::{
        command::{Command, CommandKind},
        decision::{Decision, DecisionOutcome},
        labelled_example::LabelledExample,
    },
    processors::{
        learning::rules::Rules,
        model_table::{CHALLENGER, CHAMPION},
    },
};
use foretell_ml::{ModelBundle, ModelVersion, Origin};
use foretell_streams::time::{EventTime, WallTime};

use super::{
    Application, OFTEN, SELDOM,
    cycle::{Learning, PATIENCE},
    stream,
};
use crate::{
    fixture::{first_model, second_model},
    scored::{decoded, encoded},
};

/// A model must be better by the interval. A batch of 100 holds 30 examples out.
const RULES: Rules =
    Rules { retrain_after: 100, check_after: 50, always: false, margin: 0.0, confidence: 0.95 };

/// What was read of `models` and `decisions`.
#[derive(Default)]
struct Read {
    decisions: Vec<Decision>,
    /// The version of each alias, as of its last record.
    champion: Option<String>,
    challenger: Option<String>,
}

struct Judged {
    learning: Learning,
    read: Read,
}

impl Judged {
    fn new() -> Self {
        Self { learning: Learning::with_rules(RULES), read: Read::default() }
    }

    /// Sends examples one by one, and waits for every job that becomes due, so that nothing overlaps.
    fn learn(&mut self, examples: &[LabelledExample], decisions: usize) -> Vec<Decision> {
        let before = self.read.decisions.len();
        self.learning.send(examples);
        self.until(|read| read.decisions.len() >= before + decisions);
        self.read.decisions[before..].to_vec()
    }

    /// Ticks until the condition holds.
    fn until(&mut self, holds: impl Fn(&Read) -> bool) {
        // A channel without a sender, to wait a little for the other thread.
        let (_sender, silence) = mpsc::channel::<()>();
        for _ in 0..PATIENCE.as_millis() {
            if holds(&self.read) {
                return;
            }
            assert!(silence.recv_timeout(Duration::from_millis(1)).is_err());
            self.tick();
        }
        panic!("{:?}", self.read.decisions);
    }

    fn tick(&mut self) {
        let Self { learning, read } = self;
        learning.tick();
        learning.driver.commit();
        let (topics, codecs) =
            (&learning.application.fixture.topics, &learning.application.fixture.codecs);
        let models = learning.driver.read(&topics.models);
        let models: Vec<_> =
            models.iter().map(|record| decoded(codecs.model.as_ref(), record)).collect();
        for decision in learning.driver.read(&topics.decisions) {
            read.decisions.push(decoded(codecs.decision.as_ref(), &decision));
        }
        for model in &models {
            let alias = match model.alias.as_deref() {
                Some(CHAMPION) => &mut read.champion,
                Some(CHALLENGER) => &mut read.challenger,
                Some(_) | None => continue,
            };
            *alias = Some(model.version.clone()).filter(|version| !version.is_empty());
        }
        learning.application.announce(&models);
    }

    fn command(&mut self, id: &str, kind: CommandKind, version: Option<&ModelVersion>) -> Decision {
        let fixture = &self.learning.application.fixture;
        let command = Command {
            command_id: id.to_owned(),
            kind,
            model_version: version.map(|version| version.as_str().to_owned()),
            reason: Some("a test".to_owned()),
            requested_by: Some("ann".to_owned()),
            requested_at: WallTime(1),
        };
        let bytes = encoded(fixture.codecs.command.as_ref(), &command);
        let topic = fixture.topics.commands.clone();
        let before = self.read.decisions.len();
        self.learning.driver.pipe(&topic, Some(id.as_bytes()), Some(&bytes), EventTime(0)).unwrap();
        self.until(|read| read.decisions.len() > before);
        self.read.decisions[before].clone()
    }

    /// Failed trainings, and refused models, in a row.
    fn in_a_row(&self) -> [String; 2] {
        ["foretell_trainings_failed_in_a_row", "foretell_models_refused_in_a_row"]
            .map(|name| self.learning.application.gauge(name, "").to_string())
    }

    fn serving(&self) -> ModelVersion {
        self.learning.application.serving.scorer().unwrap().version().clone()
    }
}

fn outcomes(decisions: &[Decision]) -> Vec<DecisionOutcome> {
    decisions.iter().map(|decision| decision.outcome).collect()
}

#[test]
fn a_better_model_is_promoted_with_its_numbers() {
    let mut judged = Judged::new();
    let decisions = judged.learn(&stream(0..100, OFTEN), 1);
    assert_eq!(outcomes(&decisions), [DecisionOutcome::Promoted]);
    let decision = &decisions[0];
    assert_eq!(decision.decision_id, "training-1");
    assert_eq!(decision.champion.as_deref(), Some(first_model().version().as_str()));
    assert_eq!(decision.trigger.as_deref(), Some("labelled examples"));
    let comparison = decision.comparison.as_ref().unwrap();
    assert_eq!((comparison.metric.as_str(), comparison.examples), ("log_loss", 30));
    assert!(comparison.low > 0.0 && comparison.low <= comparison.difference, "{comparison:?}");
    assert!(comparison.candidate < comparison.champion, "{comparison:?}");
    assert_eq!((decision.first_offset, decision.end_offset), (Some(70), Some(100)));
    assert_eq!(decision.candidate, judged.read.champion);
    assert_eq!(Some(judged.serving().as_str()), judged.read.champion.as_deref());
}

/// A good model that has seen nothing of the log.
fn good_model() -> ModelBundle {
    model_of(100)
}

/// A model of as many right examples, which has seen nothing of the log.
fn model_of(examples: u32) -> ModelBundle {
    let mut other = Application::new();
    other.append(&stream(0..examples, OFTEN));
    let mut bundle = other.log().train(0, examples.into(), &|_, _, _| true).unwrap();
    bundle.lineage.origin = Origin::default();
    bundle
}

#[test]
fn a_model_of_wrong_labels_is_rolled_back_and_its_successor_is_refused() {
    let mut judged = Judged::new();
    judged.learning.application.serve(&good_model());
    let right = judged.serving();
    // Among wrong labels the model that learned from them is better.
    let poisoned = judged.learn(&stream(0..100, SELDOM), 1);
    assert_eq!(outcomes(&poisoned), [DecisionOutcome::Promoted]);
    assert_ne!(judged.serving(), right);
    let decisions = judged.learn(&stream(100..150, OFTEN), 1);
    assert_eq!(outcomes(&decisions), [DecisionOutcome::RolledBack]);
    assert_eq!(decisions[0].decision_id, "rollback-150");
    assert_eq!(decisions[0].candidate.as_deref(), Some(right.as_str()));
    assert_eq!(judged.serving(), right);
    // The next training has the wrong labels in its examples.
    let decisions = judged.learn(&stream(150..200, OFTEN), 1);
    assert_eq!(outcomes(&decisions), [DecisionOutcome::Refused], "{decisions:?}");
    assert_eq!(judged.serving(), right);
    assert_eq!(judged.in_a_row(), ["0", "1"]);
    // A command is no training.
    let promote = judged.command("c", CommandKind::Promote, None);
    assert_eq!(promote.outcome, DecisionOutcome::Refused);
    assert_eq!(judged.in_a_row(), ["0", "1"]);
    judged.learning.crash();
    assert_eq!(judged.in_a_row(), ["0", "0"], "the task starts anew");
}

#[test]
fn wrong_labels_are_held_out_for_one_training_only() {
    let mut judged = Judged::new();
    judged.learning.application.serve(&model_of(1000));
    let right = judged.serving();
    let mut learn = |numbers: Range<u32>, concept| {
        let decisions = judged.learn(&stream(numbers, concept), 1);
        assert_eq!(decisions.len(), 1, "{decisions:?}");
        (decisions[0].outcome, decisions[0].first_offset)
    };
    // The champion is not replaced by models of fewer right examples and some wrong ones, so it has seen nothing of the log.
    assert_eq!(learn(0..100, SELDOM), (DecisionOutcome::Promoted, Some(70)));
    assert_eq!(learn(100..150, OFTEN).0, DecisionOutcome::RolledBack);
    let through = [(200, 140), (300, 210), (400, 300), (500, 400)];
    let mut from = 150;
    for (through, held_out_from) in through {
        let expected = (DecisionOutcome::Refused, Some(held_out_from));
        assert_eq!(learn(from..through, OFTEN), expected);
        from = through;
    }
    assert_eq!(learn(500..600, SELDOM), (DecisionOutcome::Promoted, Some(500)));
    assert_eq!(learn(600..650, OFTEN).0, DecisionOutcome::RolledBack);
    // Three tenths of all that the champion has not seen would have wrong labels among them.
    assert_eq!(learn(650..700, OFTEN), (DecisionOutcome::Refused, Some(600)));
    assert_eq!(judged.serving(), right);
}

#[test]
fn failed_trainings_and_refused_models_in_a_row_are_counted() {
    let mut judged = Judged::new();
    judged.learning.application.serve(&good_model());
    for (number, expected) in [["1", "0"], ["2", "0"]].into_iter().enumerate() {
        let from = u32::try_from(number).unwrap() * 100;
        judged.learning.application.codec.panic_after(5);
        let failed = judged.learn(&stream(from..from + 100, OFTEN), 1);
        assert_eq!(outcomes(&failed), [DecisionOutcome::Failed]);
        assert_eq!(judged.in_a_row(), expected);
    }
    let decisions = judged.learn(&stream(200..300, OFTEN), 1);
    assert_ne!(outcomes(&decisions), [DecisionOutcome::Failed]);
    assert_eq!(judged.in_a_row()[0], "0");
}

#[test]
fn the_decisions_after_a_crash_are_the_same() {
    let run = |crash: bool| {
        let mut judged = Judged::new();
        judged.learning.application.serve(&good_model());
        for (number, batch) in [stream(0..100, SELDOM), stream(100..150, OFTEN)].iter().enumerate()
        {
            judged.learning.send(batch);
            if crash {
                judged.learning.crash();
            }
            judged.until(|read| read.decisions.len() > number);
        }
        let without_time = |decision: Decision| Decision { decided_at: WallTime(0), ..decision };
        judged.read.decisions.into_iter().map(without_time).collect::<Vec<_>>()
    };
    assert_eq!(run(true), run(false));
}

#[test]
fn a_command_promotes_challenges_and_rolls_back() {
    let mut judged = Judged::new();
    judged.learning.application.store(second_model());
    judged.learn(&stream(0..1, OFTEN), 0);
    let second = second_model().version();
    let decision = judged.command("c-1", CommandKind::Challenge, Some(&second));
    assert_eq!(
        (decision.decision_id.as_str(), decision.outcome),
        ("c-1", DecisionOutcome::Challenger)
    );
    assert_eq!(judged.read.challenger.as_deref(), Some(second.as_str()));
    let decision = judged.command("c-2", CommandKind::Promote, Some(&second));
    assert_eq!(decision.outcome, DecisionOutcome::Promoted);
    assert_eq!(
        (decision.reason.as_str(), decision.requested_by.as_deref()),
        ("a test", Some("ann"))
    );
    assert_eq!((judged.serving(), judged.read.challenger.as_ref()), (second.clone(), None));
    let decision = judged.command("c-3", CommandKind::RollBack, None);
    assert_eq!(decision.outcome, DecisionOutcome::RolledBack);
    assert_eq!(judged.serving(), first_model().version());
    let decision = judged.command("c-4", CommandKind::Promote, Some(&ModelVersion::new("no such")));
    assert_eq!(decision.outcome, DecisionOutcome::Refused);
    assert!(decision.reason.contains("there is no model no such"), "{}", decision.reason);
    let decision = judged.command("c-5", CommandKind::Retrain, None);
    assert_eq!(decision.decision_id, "training-1");
    assert_eq!(decision.trigger.as_deref(), Some("request c-5"));
    assert_eq!(judged.serving(), first_model().version(), "one example makes no better model");
}

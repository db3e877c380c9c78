//! Sends a command to the learner, and waits for the decision that answers it.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use rand::{TryRng, rngs::SysRng};

use crate::{
    app::{cluster::Cluster, shutdown::Shutdown},
    config::Config,
    events::{
        command::{Command, CommandKind},
        decision::{Decision, DecisionOutcome},
    },
    processors::gateway::{CommandRequest, command_record},
};
use foretell_streams::{
    codec::{Codec, CodecError},
    record::{Offset, Partition, TopicPartition},
    runtime::broker::{BrokerError, Isolation, ReadFrom, Reader},
    time::Clock,
};

/// A command that was written, and the reader of the decisions after it.
pub struct SentCommand {
    /// The command.
    pub command: Command,
    reader: Box<dyn Reader>,
    codec: Arc<dyn Codec<Decision>>,
}

/// The end of a wait.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// The learner has decided.
    Decided(Box<Decision>),
    /// There was no decision in time.
    Late,
    /// The process was asked to stop.
    Interrupted,
}

/// Maximum time between two looks at the clock.
const WAIT: Duration = Duration::from_millis(200);

/// Writes a command. The learner carries it out when it runs, whether or not this process waits.
///
/// # Errors
/// If it cannot be written.
pub fn send(
    config: &Config,
    cluster: &Cluster,
    clock: &dyn Clock,
    request: CommandRequest,
) -> anyhow::Result<SentCommand> {
    let decisions =
        TopicPartition { topic: config.topics.decisions.clone(), partition: Partition(0) };
    let codec = cluster.codec::<Decision>(config, &decisions.topic)?;
    // Opened before the command is written, so that its decision is after this offset.
    let from = match cluster.broker.end(&decisions, Isolation::ReadCommitted)? {
        Offset(0) => ReadFrom::Beginning,
        end => ReadFrom::Offset(end),
    };
    let reader = cluster.broker.read(&decisions, from)?;
    let now = clock.now();
    let unique = SysRng.try_next_u64().context("the system has no random numbers")?;
    let id = Command::new_id(now, &format!("command-{unique:016x}"));
    let command = request.into_command(id, now)?;
    let topic = &config.topics.commands;
    let writing = cluster.codec::<Command>(config, topic)?;
    let mut publisher = cluster.broker.publish()?;
    publisher.send(command_record(&command, topic, writing.as_ref())?)?;
    publisher.flush()?;
    Ok(SentCommand { command, reader, codec })
}

impl SentCommand {
    /// Waits for the decision, for at most `at_most`. `show` gets the time that has passed, several times a second.
    ///
    /// # Errors
    /// If the decisions cannot be read.
    pub fn wait(
        &mut self,
        clock: &dyn Clock,
        at_most: Duration,
        shutdown: &Shutdown,
        show: &mut dyn FnMut(Duration),
    ) -> anyhow::Result<Answer> {
        let started = clock.elapsed();
        loop {
            let mut records = Vec::new();
            match self.reader.read(WAIT, &mut records) {
                Ok(_) | Err(BrokerError::Retry(_)) => {}
                Err(error) => return Err(error.into()),
            }
            for bytes in records.iter().filter_map(|record| record.value.as_ref()) {
                match self.codec.decode(bytes) {
                    Ok(decision) if decision.answers(&self.command.command_id) => {
                        return Ok(Answer::Decided(Box::new(decision)));
                    }
                    Ok(_) => {}
                    Err(error @ CodecError::Unavailable { .. }) => return Err(error.into()),
                    Err(error) => tracing::warn!(%error, "skipping a decision"),
                }
            }
            let passed = clock.elapsed().saturating_sub(started);
            if shutdown.signal().is_stopped() {
                return Ok(Answer::Interrupted);
            }
            if passed >= at_most {
                return Ok(Answer::Late);
            }
            show(passed);
        }
    }
}

/// Whether the learner has done what the command requests. A training that gave a model is done, whatever was decided about
/// the model.
#[must_use]
pub fn is_done(kind: CommandKind, outcome: DecisionOutcome) -> bool {
    match (kind, outcome) {
        (_, DecisionOutcome::Failed) => false,
        (CommandKind::Retrain, _)
        | (CommandKind::Promote, DecisionOutcome::Promoted)
        | (CommandKind::RollBack, DecisionOutcome::RolledBack)
        | (CommandKind::Challenge, DecisionOutcome::Challenger | DecisionOutcome::Promoted) => true,
        (CommandKind::Promote | CommandKind::RollBack | CommandKind::Challenge, _) => false,
    }
}

#[cfg(test)]
mod tests {
    use std::{ops::ControlFlow, thread};

    use super::*;
    use crate::app::{
        library::{self, fixture::Project},
        shutdown::StopReason,
    };
    use foretell_streams::{
        record::OutputRecord,
        time::{EventTime, WallTime},
    };

    fn request(kind: CommandKind) -> CommandRequest {
        CommandRequest {
            kind,
            model_version: Some("v".to_owned()),
            reason: "because".to_owned(),
            requested_by: Some("ann".to_owned()),
        }
    }

    /// A decision with this id and trigger.
    fn decision(id: &str, trigger: Option<&str>, outcome: DecisionOutcome) -> Decision {
        Decision {
            decision_id: id.to_owned(),
            outcome,
            reason: "the learner says so".to_owned(),
            trigger: trigger.map(ToOwned::to_owned),
            requested_by: Some("ann".to_owned()),
            training: None,
            candidate: Some("v".to_owned()),
            champion: None,
            comparison: None,
            first_offset: None,
            end_offset: None,
            decided_at: WallTime(7),
        }
    }

    impl Project {
        fn decide(&self, decision: &Decision) {
            let topic = self.config.topics.decisions.clone();
            let codec = self.cluster.codec::<Decision>(&self.config, &topic).unwrap();
            let mut value = Vec::new();
            codec.encode(decision, &mut value).unwrap();
            let mut publisher = self.cluster.broker.publish().unwrap();
            let record = OutputRecord {
                topic,
                partition: None,
                timestamp: EventTime(0),
                key: Some(decision.decision_id.clone().into_bytes()),
                value: Some(value),
                headers: Vec::new(),
            };
            publisher.send(record).unwrap();
            publisher.flush().unwrap();
        }

        /// The only command on the topic, once it is there.
        fn command(&self) -> Command {
            let clock = crate::app::clock();
            while clock.elapsed() < Duration::from_secs(60) {
                let mut found = None;
                let topic = &self.config.topics.commands;
                let read = self.cluster.read_values(&self.config, topic, |command: Command| {
                    found = Some(command);
                    ControlFlow::Continue(())
                });
                read.unwrap();
                if let Some(command) = found {
                    return command;
                }
            }
            panic!("no command was written within a minute")
        }
    }

    #[test]
    fn a_command_is_written_and_answered_by_its_decision() {
        let project = Project::new();
        let clock = crate::app::clock();
        project.decide(&decision("before", None, DecisionOutcome::Refused));
        let answer = thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                let (config, cluster) = (&project.config, &project.cluster);
                let request = request(CommandKind::Promote);
                let mut sent = send(config, cluster, clock.as_ref(), request).unwrap();
                let shutdown = Shutdown::default();
                let at_most = Duration::from_secs(600);
                sent.wait(clock.as_ref(), at_most, &shutdown, &mut |_| {}).unwrap()
            });
            let command = project.command();
            assert_eq!(command.kind, CommandKind::Promote);
            assert_eq!(command.model_version.as_deref(), Some("v"));
            assert_eq!(command.reason.as_deref(), Some("because"));
            assert_eq!(command.requested_by.as_deref(), Some("ann"));
            project.decide(&decision("another", None, DecisionOutcome::Refused));
            project.decide(&decision(&command.command_id, None, DecisionOutcome::Promoted));
            waiting.join().unwrap()
        });
        let Answer::Decided(decision) = answer else { panic!("{answer:?}") };
        assert_eq!(decision.outcome, DecisionOutcome::Promoted);
        let library = library::open(&project.config, &project.cluster).unwrap();
        let ids: Vec<_> =
            library.decisions().unwrap().into_iter().map(|one| one.decision_id).collect();
        assert_eq!(ids[1..], ["another", "before"]);
    }

    #[test]
    fn a_training_that_names_the_command_answers_it() {
        let check = |id: &str, trigger: Option<&str>, expected: bool| {
            let decision = decision(id, trigger, DecisionOutcome::Refused);
            assert_eq!(decision.answers("id-1"), expected, "{id} {trigger:?}");
        };
        check("training-4", Some("request id-1"), true);
        check("training-4", Some("labelled examples; request id-1; request id-2"), true);
        check("training-4", Some("request id-2"), false);
        check("training-4", Some("labelled examples"), false);
        check("id-1", None, true);
    }

    #[test]
    fn a_wait_ends_when_it_is_late_or_interrupted() {
        let project = Project::new();
        let clock = crate::app::clock();
        let request = request(CommandKind::Retrain);
        let mut sent = send(&project.config, &project.cluster, clock.as_ref(), request).unwrap();
        let shutdown = Shutdown::default();
        let mut shown = 0;
        let mut wait = |at_most: Duration| {
            sent.wait(clock.as_ref(), at_most, &shutdown, &mut |_| shown += 1).unwrap()
        };
        assert_eq!(wait(Duration::ZERO), Answer::Late);
        shutdown.stop(StopReason::Asked);
        assert_eq!(wait(Duration::from_secs(600)), Answer::Interrupted);
        assert_eq!(shown, 0);
    }

    #[test]
    fn the_outcome_says_whether_the_command_is_done() {
        use DecisionOutcome::{Challenger, Failed, Promoted, Refused, RolledBack};
        let done = |kind| {
            let all = [Promoted, Challenger, Refused, RolledBack, Failed];
            all.into_iter().filter(|outcome| is_done(kind, *outcome)).collect::<Vec<_>>()
        };
        assert_eq!(done(CommandKind::Retrain), [Promoted, Challenger, Refused, RolledBack]);
        assert_eq!(done(CommandKind::Promote), [Promoted]);
        assert_eq!(done(CommandKind::RollBack), [RolledBack]);
        assert_eq!(done(CommandKind::Challenge), [Promoted, Challenger]);
    }
}

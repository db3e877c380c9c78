//! The flags of commands to the learner, the wait for its decision, and what is printed about it.

use std::{io::IsTerminal as _, process::ExitCode, time::Duration};

use clap::Args;

use crate::{
    app::{
        self,
        cluster::Cluster,
        library::command::{self, Answer},
        shutdown::{self, Shutdown},
    },
    cli::{model_text, print, progress::Progress},
    config::Config,
    events::{command::CommandKind, decision::Decision},
    processors::gateway::CommandRequest,
};

/// The exit code if the decision is not known: the command is written, and may still be carried out.
const UNDECIDED: u8 = 3;

/// Who requests something, why, and how long to wait.
#[derive(Args)]
pub(super) struct Request {
    /// The reason, which is stored with the decision.
    #[arg(long)]
    pub(super) reason: String,
    #[command(flatten)]
    pub(super) waiting: Waiting,
}

/// Who requests something, and how long to wait.
#[derive(Args, Clone)]
pub(super) struct Waiting {
    /// Who requests it; stored with the decision.
    #[arg(long, env = "USER", hide_env_values = true, value_name = "NAME")]
    pub(super) by: Option<String>,
    /// Maximum time to wait for the learner's decision, such as `30s` or `10m`.
    ///
    /// By default 60 s, for a training 10 minutes.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(super) wait: Option<Duration>,
    /// Write the command and end, without waiting for the decision.
    #[arg(long, conflicts_with = "wait")]
    pub(super) no_wait: bool,
}

fn duration(text: &str) -> Result<Duration, String> {
    let parsed = humantime_serde::re::humantime::parse_duration(text);
    parsed.map_err(|_| "it must be a duration, such as 500ms, 30s or 2m".to_owned())
}

/// Default of `--wait`: a decision about a model takes a commit or two of the learner.
const WAIT: Duration = Duration::from_secs(60);
/// Default of `--wait` for a training.
const TRAINING_WAIT: Duration = Duration::from_secs(600);

/// Sends a command, about a model if the command is, and waits for the decision. Ends with 0 if the learner has done it, 1 if
/// not, 3 if that is not known.
pub(super) fn send(
    config: &Config,
    cluster: &Cluster,
    kind: CommandKind,
    model_version: Option<String>,
    request: &Request,
) -> anyhow::Result<ExitCode> {
    let Request { reason, waiting } = request;
    let (reason, requested_by) = (reason.clone(), waiting.by.clone());
    let request = CommandRequest { kind, model_version, reason, requested_by };
    let clock = app::clock();
    let shutdown = Shutdown::default();
    let _signals = shutdown::stop_when_asked(&shutdown)?;
    let mut sent = command::send(config, cluster, clock.as_ref(), request)?;
    let command_id = sent.command.command_id.clone();
    if waiting.no_wait {
        print(&format!("command {command_id} is written: {}", see(&command_id)));
        return Ok(ExitCode::SUCCESS);
    }
    let default = if kind == CommandKind::Retrain { TRAINING_WAIT } else { WAIT };
    let at_most = waiting.wait.unwrap_or(default);
    let mut progress = Progress::new();
    let mut show = |passed: Duration| {
        let bar = progress.bar("waiting", at_most.as_secs().max(1));
        bar.set_position(passed.as_secs());
        bar.set_message(format!("for the decision about command {command_id}"));
    };
    let answer = sent.wait(clock.as_ref(), at_most, &shutdown, &mut show);
    progress.finish();
    match answer? {
        Answer::Decided(decision) => {
            print(&decided(&decision));
            let is_done = command::is_done(kind, decision.outcome);
            Ok(if is_done { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Answer::Late => {
            progress.line(&format!(
                "no decision within {at_most:?}. Command {command_id} is written, and the learner carries it out when it \
                 runs: is an instance running? `foretell doctor` shows the group of the learner and its lag; {}",
                see(&command_id)
            ));
            Ok(ExitCode::from(UNDECIDED))
        }
        Answer::Interrupted => {
            progress.line(&format!(
                "stopped waiting. Command {command_id} is written, and the learner carries it out: {}",
                see(&command_id)
            ));
            Ok(ExitCode::from(UNDECIDED))
        }
    }
}

fn see(command_id: &str) -> String {
    format!(
        "the result is on topic decisions, and at GET /api/v1/decisions?command_id={command_id} of any instance"
    )
}

fn decided(decision: &Decision) -> String {
    model_text::Text::new(std::io::stdout().is_terminal()).decision(decision)
}

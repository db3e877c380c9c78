//! `foretell retrain`

use std::process::ExitCode;

use clap::Args;

use crate::{
    app::{self, cluster::Cluster, library},
    cli::{Global, Sets, learner_command, learner_command::Request},
    events::command::CommandKind,
};

/// Train a model now, on the labelled examples so far.
///
/// The learner trains it as any other model: it is judged, and becomes the champion only if the configuration says so. If
/// a training runs, this one follows it. The reason is stored with the decision.
///
/// The command ends with 0 if a model was trained, whatever was decided about it; with 1 if none was; and with 3 if the
/// decision was not known within --wait. An interrupted wait does not take the request back.
#[derive(Args)]
#[command(after_help = "\
Examples:
  foretell retrain --reason \"the price list changed\"
  foretell retrain --reason nightly --by cron --no-wait
  foretell models list                                    see what it gave")]
pub(super) struct Retrain {
    #[command(flatten)]
    request: Request,
    #[command(flatten)]
    pub(super) sets: Sets,
}

impl Retrain {
    pub(super) fn run(&self, global: &Global) -> anyhow::Result<ExitCode> {
        let config = global.start("warn,librdkafka=off")?;
        let cluster = Cluster::connect(&config, &app::clock())?;
        library::open(&config, &cluster)?;
        learner_command::send(&config, &cluster, CommandKind::Retrain, None, &self.request)
    }
}

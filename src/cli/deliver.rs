//! `foretell deliver`

use std::process::ExitCode;

use clap::Args;

use crate::{
    app::{
        self,
        cluster::Cluster,
        deliver::{self, Delivery},
        shutdown::{self, Shutdown},
    },
    cli::{Global, Sets, print},
};

/// Deliver actions to webhooks and by e-mail, until Ctrl-C or SIGTERM.
///
/// Each requested action of the topic `actions` goes to every channel in [[delivery.webhooks]] and [[delivery.emails]]
/// that wants its rule: at least once, with an idempotency key. You can run several processes; they share the partitions
/// of the topic. Each serves health and metrics at delivery.bind.
#[derive(Args)]
#[command(after_help = "\
Examples:
  foretell deliver
  foretell deliver --dry-run                  show what would be sent for the newest actions
  foretell deliver --set application.instance=two --set delivery.bind=127.0.0.1:8002
                                              a second process on this host")]
pub(super) struct Deliver {
    /// Show what would be sent for the newest actions, and send nothing. It does not join the group.
    #[arg(long)]
    dry_run: bool,
    /// Number of actions that --dry-run shows.
    #[arg(long, default_value_t = 10, requires = "dry_run", value_name = "NUMBER")]
    limit: usize,
    #[command(flatten)]
    pub(super) sets: Sets,
}

impl Deliver {
    pub(super) fn run(&self, global: &Global) -> anyhow::Result<ExitCode> {
        let config = global.start("info,librdkafka=warn")?;
        let clock = app::clock();
        for warning in config.warnings() {
            tracing::warn!("{warning}");
        }
        deliver::check(&config, &clock)?;
        if self.dry_run {
            let cluster = Cluster::connect(&config, &clock)?;
            deliver::dry_run(&config, &cluster, &clock, self.limit, &mut |text| print(text))?;
            return Ok(ExitCode::SUCCESS);
        }
        let shutdown = Shutdown::default();
        let _signals = shutdown::stop_when_asked(&shutdown)?;
        let cluster = Cluster::connect(&config, &clock)?;
        let delivery = Delivery::start(&config, &cluster, &clock, shutdown.clone())?;
        tracing::info!(address = %delivery.address, "serving");
        let reason = shutdown.wait_until_asked();
        tracing::info!(?reason, "stopping");
        delivery.stop()?;
        Ok(ExitCode::SUCCESS)
    }
}

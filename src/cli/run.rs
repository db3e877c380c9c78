//! `foretell run`

use std::process::ExitCode;

use clap::Args;

use crate::{
    app::{
        self,
        cluster::Cluster,
        init,
        shutdown::{self, Shutdown},
        start::{self, Instance},
    },
    cli::{Global, Sets, progress::Progress},
};

/// Score events and learn from outcomes, until Ctrl-C or SIGTERM.
///
/// Run `foretell init` first. You can run several instances: they share the partitions of the topics, one of them
/// trains models, and all of them serve the newest. Each serves health, metrics and an API at http.bind.
#[derive(Args)]
#[command(after_help = "\
Examples:
  foretell run
  foretell run --embedded                     without a broker or a registry
  foretell run --set application.instance=two --set http.bind=127.0.0.1:8001
                                              a second instance on this host")]
pub(super) struct Run {
    /// Use a broker and a registry inside this process, and run `init` first. Nothing is kept after it ends.
    #[arg(long)]
    embedded: bool,
    #[command(flatten)]
    pub(super) sets: Sets,
}

impl Run {
    pub(super) fn run(&self, global: &Global) -> anyhow::Result<ExitCode> {
        let config = global.start("info,librdkafka=warn")?;
        let clock = app::clock();
        let shutdown = Shutdown::default();
        let _signals = shutdown::stop_when_asked(&shutdown)?;
        let cluster = if self.embedded {
            start::check_local(&config)?;
            let cluster = Cluster::embedded(&clock);
            let mut progress = Progress::new();
            init::init(&config, &cluster, &clock, &shutdown, false, &mut progress)?;
            progress.finish();
            cluster
        } else {
            // Before a broker is asked, which may take long.
            start::check_tracking(&config)?;
            Cluster::connect(&config, &clock)?
        };
        let instance = Instance::start(&config, &cluster, &clock, shutdown.clone())?;
        tracing::info!(address = %instance.address, "serving");
        let reason = shutdown.wait_until_asked();
        tracing::info!(?reason, "stopping");
        instance.stop()?;
        Ok(ExitCode::SUCCESS)
    }
}

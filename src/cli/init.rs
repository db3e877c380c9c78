//! `foretell init`

use std::process::ExitCode;

use clap::Args;

use crate::{
    app::{
        self,
        cluster::Cluster,
        init::{self, FirstModel},
        shutdown::{self, Shutdown},
    },
    cli::{Global, Sets, print, progress::Progress},
};

/// Create topics, register schemas and train the first model.
///
/// It also writes the initial examples, of the table in [data.initial], into the training log. What exists already is
/// left as it is, so you can run it again at any time, also after it was interrupted.
///
/// The table is checked before anything is written. It is a CSV file, which may be gzipped: set `path`, `label` (the
/// column with the outcome) and, if the first line does not name the columns, `columns` (an empty name skips a column).
#[derive(Args)]
#[command(after_help = "\
Examples:
  foretell init
  foretell init --set tuning.trials=50 --set tuning.time=10m
  foretell init --force          train another first model; it reuses the trials so far")]
pub(super) struct Init {
    /// Train a new first model although one serves. If [data.initial] has changed, it replaces the initial examples.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    pub(super) sets: Sets,
}

impl Init {
    pub(super) fn run(&self, global: &Global) -> anyhow::Result<ExitCode> {
        let config = global.start("warn,librdkafka=off")?;
        let clock = app::clock();
        let cluster = Cluster::connect(&config, &clock)?;
        let shutdown = Shutdown::default();
        let _signals = shutdown::stop_when_asked(&shutdown)?;
        let mut progress = Progress::new();
        let first = init::init(&config, &cluster, &clock, &shutdown, self.force, &mut progress);
        progress.finish();
        if let Some(first) = first? {
            print(&summary(&first));
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn summary(first: &FirstModel) -> String {
    let model = format!("first model {}, the best of {} trials", first.version, first.trials);
    let Some(evaluation) = &first.evaluation else { return model };
    let number = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.4}"));
    format!(
        "{model}\non the {} rows of [data.play], which it was not trained with: AUC {}, log loss {}, accuracy {}, F1 {}",
        evaluation.examples,
        number(evaluation.auc),
        number(evaluation.log_loss),
        number(evaluation.accuracy),
        number(evaluation.f1),
    )
}

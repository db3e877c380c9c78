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
    cli::{Global, Sets, progress::Progress},
};

/// Makes what is missing, and leaves alone what is there: run it again at any time, also after it was
/// interrupted.
///
/// The table of [data.initial] is CSV, perhaps gzipped: path, label (the column that holds it), and, if its first line does
/// not name the columns, their names in `columns` (an empty name is a column that is not used). It is looked at before
/// anything is written.
#[derive(Args)]
#[command(after_help = "\
Examples:
  foretell init
  foretell init --set tuning.trials=50 --set tuning.time=10m
  foretell init --force          a new first model, building on the trials of the study so far; of another
                                 table, if [data.initial] names one by now")]
pub(super) struct Init {
    /// Makes a new first model even where one serves; initial data of another table replace those in the training log.
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
            print(&first);
        }
        Ok(ExitCode::SUCCESS)
    }
}

#[expect(clippy::print_stdout, reason = "the command's result")]
fn print(first: &FirstModel) {
    println!("first model {}, the best of {} trials", first.version, first.trials);
    if let Some(evaluation) = &first.evaluation {
        let number =
            |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.4}"));
        println!(
            "on the {} rows of [data.play], which it has never seen: AUC {}, log loss {}, accuracy {}, F1 {}",
            evaluation.examples,
            number(evaluation.auc),
            number(evaluation.log_loss),
            number(evaluation.accuracy),
            number(evaluation.f1),
        );
    }
}

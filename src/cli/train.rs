//! `foretell train`

use std::{path::PathBuf, process::ExitCode};

use clap::Args;

use crate::{
    app::{
        self,
        shutdown::{self, Shutdown},
        train::{self, TrainObserver, TrainedModel, TrainingJob},
    },
    cli::{
        Global, Sets, print,
        progress::{Progress, one_line},
    },
};
use foretell_ml::{Evaluation, training::Trial};

/// Tune and train a model of tables alone, as SageMaker runs a training job
///
/// It makes the model that `foretell init` would make of the same tables, without a broker, and
/// writes it with the parts of the configuration that scoring needs: for `foretell serve`, for
/// `foretell models import`, and for Python. SageMaker runs this command of the image, with
/// /opt/ml as the root:
///
///   input/data/training/     tables of examples (or train/)
///   input/data/config/       foretell.toml and the event schema, if not beside the tables
///   input/data/validation/   a table to evaluate the model on (or test/)
///   input/config/hyperparameters.json
///                            keys of the configuration, such as {"tuning.trials": "50"}
///   model/                   the result
///   output/failure           the reason, if it fails
///
/// Without a channel of tables it reads those of [data.initial] and [data.play]. SIGTERM ends
/// the study, and the model is made with the best parameters so far.
#[derive(Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  foretell train -c deploy/adult/foretell.toml --root ./job     write ./job/model
  foretell train --root ./job --set tuning.trials=50 --set tuning.time=10m
  foretell train                                                in SageMaker"
)]
pub(super) struct Train {
    /// The folder with `input`, `model` and `output`.
    #[arg(long, value_name = "DIR", default_value = "/opt/ml")]
    root: PathBuf,
    #[command(flatten)]
    pub(super) sets: Sets,
}

impl Train {
    pub(super) fn run(&self, global: &Global) -> anyhow::Result<ExitCode> {
        TrainingJob::forget_failure(&self.root)?;
        let trained = self.train(global);
        if let Err(error) = &trained
            && let Err(unwritten) = TrainingJob::fail(&self.root, &one_line(error))
        {
            tracing::error!(%unwritten, "the reason of the failure cannot be written");
        }
        print(&summary(&trained?));
        Ok(ExitCode::SUCCESS)
    }

    fn train(&self, global: &Global) -> anyhow::Result<TrainedModel> {
        global.log("warn")?;
        let shutdown = Shutdown::default();
        let _signals = shutdown::stop_when_asked(&shutdown)?;
        let job = TrainingJob::read(&self.root, global.given_config(), &global.sets)?;
        let mut metrics = Metrics(Progress::new());
        let trained = train::run(&job, &app::clock(), &shutdown, &mut metrics);
        metrics.0.finish();
        trained
    }
}

/// Prints a line for each trial, which `metric_definitions` of a training job can read.
struct Metrics(Progress);

impl TrainObserver for Metrics {
    fn warning(&mut self, line: &str) {
        self.0.line(&format!("- warning: {line}"));
    }

    fn trial(&mut self, trial: &Trial, of: u32) {
        let Trial { number, log_loss, auc, iterations, pruned, failure, .. } = trial;
        let name = format!("trial {} of {of}", number + 1);
        print(&match failure {
            Some(reason) => format!("{name}: failed: {reason}"),
            None => {
                let pruned = if *pruned { " (pruned)" } else { "" };
                let metrics = named(&[("log_loss", Some(*log_loss)), ("auc", *auc)]);
                format!("{name}: {metrics} iterations={iterations}{pruned}")
            }
        });
    }
}

/// Metrics as `name=value`, without those that are not defined.
fn named(metrics: &[(&str, Option<f64>)]) -> String {
    let known = metrics.iter().filter_map(|(name, value)| Some(format!("{name}={:.6}", (*value)?)));
    known.collect::<Vec<String>>().join(" ")
}

fn evaluation(of: &str, evaluation: &Evaluation) -> String {
    let Evaluation { examples, log_loss, auc, accuracy, f1, .. } = evaluation;
    let metrics =
        named(&[("log_loss", *log_loss), ("auc", *auc), ("accuracy", *accuracy), ("f1", *f1)]);
    format!("{of}: {metrics} examples={examples}")
}

fn summary(trained: &TrainedModel) -> String {
    let TrainedModel { version, trials, best, held_out, validation, files } = trained;
    let best = named(&[("log_loss", Some(best.log_loss)), ("auc", best.auc)]);
    let mut lines = vec![format!("best of {trials} trials: {best}")];
    lines.push(evaluation("held out", held_out));
    lines.extend(validation.iter().map(|found| evaluation("validation", found)));
    let files: Vec<String> = files.iter().map(|path| path.display().to_string()).collect();
    lines.push(format!("model {version}: {}", files.join(", ")));
    lines.join("\n")
}

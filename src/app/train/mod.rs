//! `foretell train`: makes the first model of files alone, without a broker, as SageMaker runs a training job.
//!
//! ```text
//!   input/config/hyperparameters.json ─┐
//!   input/data/config/                ─┼▶ configuration ─┐
//!   input/data/training/              ─┴▶ examples ──────┴▶ study ─▶ training ─▶ model/
//!   input/data/validation/            ──▶ evaluation          └──── any error ─▶ output/failure
//! ```

mod job;

use std::{ops::ControlFlow, path::PathBuf, sync::Arc, time::Duration};

pub use job::{TrainingJob, TrainingJobError};

use crate::app::{
    first_training::{FirstTraining, warning_of},
    initial::Prepared,
    library::files,
    shutdown::Shutdown,
};
use foretell_ml::{
    Evaluation, ModelVersion, Scorer,
    training::{Trial, best_trial, evaluate},
};
use foretell_streams::time::Clock;

/// After the signal to stop, SageMaker waits 120 s before it kills the process. The rest is for writing the files.
const SAVING_MAX: Duration = Duration::from_secs(100);

/// Receives the progress of a training job.
pub trait TrainObserver {
    /// A problem that does not prevent training.
    fn warning(&mut self, line: &str);
    /// A trial is complete. `of` is the number of trials.
    fn trial(&mut self, trial: &Trial, of: u32);
}

/// The result of a training job.
#[derive(Clone, Debug)]
pub struct TrainedModel {
    /// The model version.
    pub version: ModelVersion,
    /// The number of trials, pruned ones included.
    pub trials: usize,
    /// The best trial.
    pub best: Trial,
    /// The evaluation on examples of the training channel that its model was not trained on.
    pub held_out: Evaluation,
    /// The evaluation on the channel `validation`; none without it.
    pub validation: Option<Evaluation>,
    /// The files of the model.
    pub files: Vec<PathBuf>,
}

/// Runs the job, and writes the model. If the process is asked to stop, the model is made with the best parameters so far.
///
/// # Errors
/// If the examples cannot be used, or no trial was finished before a stop. The message says what to do.
pub fn run(
    job: &TrainingJob,
    clock: &Arc<dyn Clock>,
    shutdown: &Shutdown,
    observer: &mut dyn TrainObserver,
) -> anyhow::Result<TrainedModel> {
    let TrainingJob { config, tables, model_folder, warnings } = job;
    let prepared = Prepared::of_files(config, tables)?;
    for warning in warnings.iter().chain(&prepared.warnings) {
        observer.warning(warning);
    }
    let Prepared { examples, unseen, .. } = prepared;
    if let (Some([]), Some(table)) = (unseen.as_deref(), &config.data.play) {
        anyhow::bail!(
            "{}: it has no row to evaluate the model on: give it rows, or leave it out",
            table.path.display()
        );
    }
    let first = FirstTraining {
        config,
        examples: &examples,
        clock: clock.as_ref(),
        stop: shutdown.signal(),
    };
    let tuned = first.tune(&[], &mut |trial| {
        observer.trial(trial, config.tuning.study.trials);
        ControlFlow::Continue(())
    })?;
    let Some(best) = best_trial(&tuned.trials).cloned() else {
        anyhow::bail!(
            "no trial was finished before the end of the study: give it more time (tuning.time, and the time limit of the job)"
        );
    };
    let bundle = first.train(tuned.params, SAVING_MAX)?;
    warning_of(&bundle).into_iter().for_each(|warning| observer.warning(&warning));
    let validation = match unseen {
        Some(unseen) => Some(evaluate(&Scorer::new(&bundle)?, &unseen)),
        None => None,
    };
    let exported = files::export_to(config, &bundle, model_folder, true)?;
    exported.warning().into_iter().for_each(|warning| observer.warning(&warning));
    Ok(TrainedModel {
        version: bundle.version(),
        trials: tuned.trials.len(),
        best,
        held_out: bundle.evaluation,
        validation,
        files: exported.paths,
    })
}

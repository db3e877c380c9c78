//! The work of the trainer thread: trains, compares and checks models.

use std::{
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use crate::{
    events::{topics::TOPICS, trial::Trial as TrialRecord},
    processors::{
        learning::{
            job::{
                CheckRequest, Job, JobFailure, JobOutput, JobResult, JudgementRequest, Trained,
                TrainingRequest,
            },
            trainer::{Phase, Progress, Work},
            training_log::TrainingLog,
        },
        model_archive::{ArchiveError, ModelArchive},
        topic_reader::TopicReader,
        trial_log::TrialLog,
    },
};
use foretell_ml::{
    ModelBundle, ModelVersion, Origin, Params, Recipe, Sample, Scorer, Seed, TrainingError,
    judge::{self, Comparison},
    training::{
        Calibration, Holdout, Threshold, TrainingData, Trial, TuningSettings, Watch, train,
        train_judged, tune,
    },
};
use foretell_streams::{runtime::broker::BrokerError, time::Clock};

/// The work of the trainer thread.
pub struct LearningWork {
    /// The training log.
    pub log: TrainingLog,
    /// The models.
    pub models: ModelArchive,
    /// The trials of all studies.
    pub trials: TopicReader<TrialRecord>,
    /// How models are made and compared.
    pub settings: WorkSettings,
    /// Limits the time of a study.
    pub clock: Arc<dyn Clock>,
    /// Models that were read or trained recently, at most [`RECENT_MODELS`].
    pub recent: Vec<(ModelVersion, Arc<ModelBundle>)>,
}

/// How models are made and compared.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkSettings {
    /// Choice of the decision threshold.
    pub threshold: Threshold,
    /// Calibration of the probabilities.
    pub calibration: Calibration,
    /// Random seed.
    pub seed: Seed,
    /// Settings of comparisons, without their seed.
    pub judge: judge::Settings,
    /// Which examples are held out to compare a new model with the champion.
    pub holdout: HoldoutRule,
    /// The studies of trainings.
    pub tuning: TuningPlan,
}

/// How many examples, the newest, are held out to compare a new model with the champion.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HoldoutRule {
    /// Share of the examples that the champion was not trained on.
    pub share: f64,
    /// Number of examples between two trainings. At most as many are held out (but enough for a comparison), so that wrong
    /// labels are in the holdout of one training only. 0: no training becomes due by their number, and there is no such bound.
    pub retrain_after: u64,
}

impl HoldoutRule {
    /// Number of held-out examples, if the champion was not trained on `unseen`; none if they are too few to compare models.
    fn examples(self, unseen: usize) -> usize {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of a length is one"
        )]
        let share = (unseen as f64 * self.share) as usize;
        let batch = match usize::try_from(self.retrain_after) {
            Ok(0) | Err(_) => COMPARED_MAX,
            Ok(examples) => examples.clamp(judge::EXAMPLES_MIN, COMPARED_MAX),
        };
        Some(share.min(batch)).filter(|examples| *examples >= judge::EXAMPLES_MIN).unwrap_or(0)
    }
}

/// The studies of trainings.
#[derive(Clone, Debug, PartialEq)]
pub struct TuningPlan {
    /// Settings of a study; its `start` is replaced by the champion's parameters. Without trials there is none.
    pub study: TuningSettings,
    /// Time limit of a study.
    pub time: Duration,
    /// Number of trainings of which the first tunes; at least 1. The others use the champion's parameters.
    pub every: u32,
}

/// Below the 16 MiB of a record of `models`; the rest is for the other fields.
const RECORD_BYTES_MAX: usize = 15 << 20;
/// The champion, its predecessor, the challenger and the newest model.
const RECENT_MODELS: usize = 4;
/// Maximum number of examples that models are compared on.
const COMPARED_MAX: usize = 10_000;

impl Work for LearningWork {
    fn run(&mut self, job: &Job, progress: Progress<'_>) -> JobResult {
        match job {
            Job::Train(request) => {
                self.train(request, progress).map(Box::new).map(JobOutput::Trained)
            }
            Job::Judge(request) => self.judge(request, progress).map(JobOutput::Judged),
            Job::Check(request) => self.check(request).map(JobOutput::Checked),
        }
    }

    fn between_jobs(&mut self, goes_on: &dyn Fn() -> bool) {
        self.log.save(goes_on);
    }
}

/// The examples of a training.
struct Split<'s> {
    all: Sample<'s>,
    initial_examples: usize,
    kept: Sample<'s>,
    held_out: Sample<'s>,
    /// Offset of the first held-out example.
    held_out_from: Option<i64>,
}

impl LearningWork {
    fn train(
        &mut self,
        request: &TrainingRequest,
        progress: Progress<'_>,
    ) -> Result<Trained, JobFailure> {
        self.log.read_to(request.through, progress)?;
        let champion = match &request.parent {
            Some(version) => self.champion(version)?,
            None => None,
        };
        let split = self.split(champion.as_deref())?;
        let start = champion
            .as_ref()
            .map_or_else(Params::default, |champion| champion.lineage.params.clone());
        let tuned = self.tune(request, &split.kept, start.clone(), progress)?;
        let (params, trials) = tuned.unwrap_or((start, Vec::new()));
        let recipe = self.recipe(request, &split, params);
        let opponent = champion.and_then(|champion| Scorer::new(&champion).ok());
        let mut report = |iteration, of| match progress(Phase::Training, iteration, of) {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        };
        let failed = |error: TrainingError| JobFailure::Failed(self.describe(&error));
        let (bundle, comparison) = if split.held_out.is_empty() {
            (train(&split.all, &recipe, &mut report).map_err(failed)?, None)
        } else {
            let judge = self.judge_settings(request.training);
            let (kept, held_out) = (&split.kept, &split.held_out);
            let holdout = Holdout { kept, held_out, opponent: opponent.as_ref(), judge };
            let judged =
                train_judged(&split.all, &holdout, &recipe, &mut report).map_err(failed)?;
            (judged.bundle, judged.comparison)
        };
        check_size(&bundle)?;
        let held_out_from = comparison.as_ref().and(split.held_out_from);
        self.remember(bundle.version(), Arc::new(bundle.clone()));
        Ok(Trained { bundle, comparison, held_out_from, trials })
    }

    /// Splits the newest examples off, which the champion was not trained on.
    fn split(&self, champion: Option<&ModelBundle>) -> Result<Split<'_>, JobFailure> {
        let at_least = champion.map_or(0, |champion| champion.lineage.origin.initial_examples);
        let (all, initial_examples) = self.log.sample(at_least)?;
        let offsets = self.log.stream().map_or_else(Vec::new, |stream| stream.offsets(&all));
        let unseen = champion.map_or(0, |champion| {
            let from = champion.lineage.origin.examples_through;
            offsets.len() - offsets.partition_point(|offset| *offset < from)
        });
        let held_out = self.settings.holdout.examples(unseen);
        let kept = all.len() - held_out;
        Ok(Split {
            initial_examples,
            kept: all.subset(|index| index < kept),
            held_out: all.subset(|index| index >= kept),
            held_out_from: (held_out > 0).then(|| offsets[offsets.len() - held_out]),
            all,
        })
    }

    fn recipe(&self, request: &TrainingRequest, split: &Split<'_>, params: Params) -> Recipe {
        let stream_examples = split.all.len() - split.initial_examples;
        Recipe {
            spec: self.log.spec.clone(),
            classes: self.log.classes.clone(),
            threshold: self.settings.threshold,
            calibration: self.settings.calibration,
            intervals: true,
            profile: true,
            params,
            seed: self.settings.seed,
            origin: Origin {
                training: request.training,
                initial_examples: count(split.initial_examples),
                stream_examples: count(stream_examples),
                examples_through: request.through,
                parent: request.parent.clone(),
                policy: self.log.policy,
            },
        }
    }

    /// Runs a study if one is due. The champion's parameters are its first trial.
    fn tune(
        &self,
        request: &TrainingRequest,
        examples: &Sample<'_>,
        start: Params,
        progress: Progress<'_>,
    ) -> Result<Option<(Params, Vec<Trial>)>, JobFailure> {
        let plan = &self.settings.tuning;
        if plan.study.trials == 0 || !(request.training - 1).is_multiple_of(plan.every.into()) {
            return Ok(None);
        }
        let earlier = self.earlier_trials()?;
        let study = TuningSettings { start, ..plan.study.clone() };
        let (clock, of) = (self.clock.as_ref(), study.trials);
        let started = clock.elapsed();
        let is_over = || clock.elapsed().saturating_sub(started) > plan.time;
        let done = AtomicU32::new(0);
        let stop = || is_over() || !progress(Phase::Tuning, done.load(Ordering::Relaxed), of);
        let mut on_trial = |trial: &Trial| {
            done.store(trial.number + 1, Ordering::Relaxed);
            ControlFlow::Continue(())
        };
        let watch = Watch { on_trial: &mut on_trial, stop: &stop };
        let (spec, classes) = (&self.log.spec, self.log.classes.len());
        let data = TrainingData { examples, spec, classes };
        let seed = Seed(self.settings.seed.0.wrapping_add(request.training));
        match tune(data, &study, seed, &earlier, watch) {
            Ok(tuned) => Ok(Some((tuned.params, tuned.trials))),
            // Examples that cannot be cross-validated may still be trained on.
            Err(TrainingError::TooFew { .. } | TrainingError::OneClassFirst { .. }) => Ok(None),
            Err(error) => Err(JobFailure::Failed(self.describe(&error))),
        }
    }

    /// An error of a training, which names a label and not its index.
    fn describe(&self, error: &TrainingError) -> String {
        let TrainingError::OneClass { class } = error else { return error.to_string() };
        let label = self.log.classes.get(usize::try_from(*class).unwrap_or(usize::MAX));
        label.map_or_else(|| error.to_string(), |label| format!("all examples are {label:?}"))
    }

    fn earlier_trials(&self) -> Result<Vec<Trial>, JobFailure> {
        let mut log = TrialLog::default();
        let read = self.trials.visit(TOPICS.trials.name, |record| log.take(&record));
        read.map_err(unavailable)?;
        Ok(log.by_study())
    }

    fn judge(
        &mut self,
        request: &JudgementRequest,
        progress: Progress<'_>,
    ) -> Result<Option<Comparison>, JobFailure> {
        self.log.read_to(request.through, progress)?;
        let [candidate, champion] =
            [self.scorer(&request.candidate)?, self.scorer(&request.champion)?];
        let Some(stream) = self.log.stream() else { return Ok(None) };
        let sample = stream.sample_since(request.from);
        let skipped = sample.len().saturating_sub(COMPARED_MAX);
        let sample = sample.subset(|index| index >= skipped);
        let columns = self.log.spec.columns();
        let labels: Vec<_> = sample.labels().collect();
        let [candidate, champion] =
            [&candidate, &champion].map(|scorer| judge::predict(scorer, columns, &sample));
        let settings = self.judge_settings(request.through.unsigned_abs());
        Ok(judge::compare(&candidate, &champion, &labels, &settings))
    }

    /// The settings of one comparison, each with random numbers of its own.
    fn judge_settings(&self, number: u64) -> judge::Settings {
        let seed = Seed(self.settings.seed.0.wrapping_add(number));
        judge::Settings { seed, ..self.settings.judge }
    }

    fn check(&mut self, request: &CheckRequest) -> Result<u64, JobFailure> {
        Ok(self.scorer(&request.version)?.lineage().origin.training)
    }

    /// The scorer of a model that can serve in place of the champion.
    fn scorer(&mut self, version: &ModelVersion) -> Result<Scorer, JobFailure> {
        let bundle = self.bundle(version)?;
        if bundle.classes != self.log.classes {
            return Err(JobFailure::Failed(format!(
                "model {version} has the classes {:?}, and [outcomes] labels is {:?}",
                bundle.classes, self.log.classes
            )));
        }
        Scorer::new(&bundle).map_err(|error| {
            JobFailure::Failed(format!("model {version} cannot be served: {error}"))
        })
    }

    /// The bundle of the champion; none if it cannot be read: a training must be possible then, too.
    fn champion(&mut self, version: &ModelVersion) -> Result<Option<Arc<ModelBundle>>, JobFailure> {
        match self.bundle(version) {
            Ok(bundle) => Ok(Some(bundle)),
            Err(JobFailure::Retry(reason)) => Err(JobFailure::Retry(reason)),
            Err(failure) => {
                tracing::error!(%version, %failure, "the champion cannot be read: the new model is not compared with it");
                Ok(None)
            }
        }
    }

    fn bundle(&mut self, version: &ModelVersion) -> Result<Arc<ModelBundle>, JobFailure> {
        if let Some((_, bundle)) = self.recent.iter().find(|(recent, _)| recent == version) {
            return Ok(Arc::clone(bundle));
        }
        let bundle = self.models.bundle(version.as_str()).map_err(|error| match error {
            ArchiveError::Broker(error) => unavailable(error),
            error @ (ArchiveError::Unknown(_)
            | ArchiveError::Bundle { .. }
            | ArchiveError::OtherVersion { .. }) => JobFailure::Failed(with_cause(&error)),
        })?;
        let bundle = Arc::new(bundle);
        self.remember(version.clone(), Arc::clone(&bundle));
        Ok(bundle)
    }

    fn remember(&mut self, version: ModelVersion, bundle: Arc<ModelBundle>) {
        self.recent.retain(|(recent, _)| *recent != version);
        if self.recent.len() >= RECENT_MODELS {
            self.recent.remove(0);
        }
        self.recent.push((version, bundle));
    }
}

fn check_size(bundle: &ModelBundle) -> Result<(), JobFailure> {
    let bytes = bundle.to_bytes().map_err(|error| JobFailure::Failed(error.to_string()))?;
    if bytes.len() > RECORD_BYTES_MAX {
        let reason = format!("a bundle of {} bytes is too large for a record", bytes.len());
        return Err(JobFailure::Failed(reason));
    }
    Ok(())
}

fn unavailable(error: BrokerError) -> JobFailure {
    JobFailure::Retry(error.to_string())
}

/// An error with its cause.
fn with_cause(error: &ArchiveError) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

fn count(examples: usize) -> u64 {
    u64::try_from(examples).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_the_unseen_examples_is_held_out_and_at_most_as_many_as_between_two_trainings() {
        let check = |share: f64, retrain_after: u64, unseen: usize, expected: usize| {
            let rule = HoldoutRule { share, retrain_after };
            assert_eq!(rule.examples(unseen), expected, "{rule:?} of {unseen}");
        };
        check(0.3, 1000, 0, 0);
        check(0.3, 1000, 99, 0);
        check(0.3, 1000, 100, 30);
        check(0.3, 1000, 1000, 300);
        check(0.3, 1000, 3334, 1000);
        check(0.3, 1000, 9000, 1000);
        check(0.9, 1000, 1000, 900);
        // Fewer than 30 cannot be compared, however often a model is trained.
        check(0.3, 10, 99, 0);
        check(0.3, 10, 100, 30);
        check(0.3, 10, 9000, 30);
        // Trainings by schedule or request only.
        check(0.3, 0, 9000, 2700);
        check(0.3, 0, 90_000, 10_000);
        check(0.3, 50_000, 90_000, 10_000);
        check(0.3, u64::MAX, 9000, 2700);
    }
}

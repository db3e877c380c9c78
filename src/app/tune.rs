//! `foretell tune`: runs a study with each of several samplers on the initial data, on the same folds, and compares what they
//! found.

use std::{ops::ControlFlow, sync::Arc, time::Duration};

use anyhow::Context;

use crate::{
    app::{
        cluster::Cluster,
        init::write_trial,
        initial::Prepared,
        plot::{self, LineChart, Series},
        shutdown::Shutdown,
    },
    config::Config,
    events::trial::Trial as TrialRecord,
};
use foretell_ml::{
    Metric, Params, Seed,
    training::{
        SEARCHABLE, SamplerKind, Searchable, TrainingData, Trial, TuningSettings, Watch,
        best_trial, tune,
    },
};
use foretell_streams::{codec::Codec, runtime::broker::Publisher, time::Clock};

/// Numbers of trials after which the table shows the best, besides the last.
const CHECKPOINTS: [usize; 8] = [1, 5, 10, 20, 30, 50, 100, 200];

/// Receives the progress of the studies.
pub trait TuneObserver {
    /// A problem that does not prevent tuning.
    fn warning(&mut self, line: &str);
    /// A trial is complete. `of` is the number of trials.
    fn trial(&mut self, trial: &Trial, of: u32);
}

/// What to compare.
#[derive(Clone, Debug)]
pub struct TuneRequest {
    /// The samplers, each once.
    pub samplers: Vec<SamplerKind>,
    /// Trials of each.
    pub trials: u32,
    /// Seed of folds, samplers and models.
    pub seed: u64,
}

/// What the samplers found.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// The metric that was optimised.
    pub objective: Metric,
    /// Number of folds.
    pub folds: u32,
    /// One study for each sampler, in the order of the request.
    pub studies: Vec<SamplerStudy>,
}

/// The study with one sampler.
#[derive(Clone, Debug)]
pub struct SamplerStudy {
    /// The sampler.
    pub sampler: SamplerKind,
    /// Its trials, by number.
    pub trials: Vec<Trial>,
    /// The time from the start of the study to the end of each trial.
    pub ends: Vec<Duration>,
}

/// Runs the studies, each up to `tuning.time`. With a cluster, each trial is written to the `trials` topic when it ends, where
/// it warm-starts later studies. A stop ends the comparison with the trials so far.
///
/// # Errors
/// If the initial data cannot be tuned on, or a trial cannot be written. The message says what to do.
pub fn compare(
    config: &Config,
    clock: &Arc<dyn Clock>,
    shutdown: &Shutdown,
    cluster: Option<&Cluster>,
    request: &TuneRequest,
    observer: &mut dyn TuneObserver,
) -> anyhow::Result<Comparison> {
    let prepared = Prepared::from(config)?;
    for warning in &prepared.warnings {
        observer.warning(warning);
    }
    let mut writer = match cluster {
        Some(cluster) => Some(Writer::open(config, cluster, clock)?),
        None => None,
    };
    let settings = TuningSettings { trials: request.trials, ..config.tuning.study.clone() };
    let (objective, folds) = (settings.objective, settings.folds);
    let mut comparison = Comparison { objective, folds, studies: Vec::new() };
    let data = TrainingData {
        examples: &prepared.examples.sample(),
        spec: &config.pipeline,
        classes: config.classes.len(),
    };
    for sampler in &request.samplers {
        let started = clock.elapsed();
        let passed = || clock.elapsed().saturating_sub(started);
        let is_over = || passed() > config.tuning.time || shutdown.signal().is_stopped();
        let (mut ends, mut failed) = (Vec::new(), None);
        let mut on_trial = |trial: &Trial| {
            ends.push(passed());
            observer.trial(trial, request.trials);
            if let Some(Err(error)) = writer.as_mut().map(|writer| writer.write(trial, clock)) {
                failed = Some(error);
                return ControlFlow::Break(());
            }
            if is_over() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let settings = TuningSettings { sampler: *sampler, ..settings.clone() };
        let watch = Watch { on_trial: &mut on_trial, stop: &is_over };
        let tuned = tune(data, &settings, Seed(request.seed), &[], watch)?;
        if let Some(error) = failed {
            return Err(error).context("cannot write a trial");
        }
        comparison.studies.push(SamplerStudy { sampler: *sampler, trials: tuned.trials, ends });
        if shutdown.signal().is_stopped() {
            break;
        }
    }
    if let Some(mut writer) = writer {
        writer.publisher.flush()?;
    }
    Ok(comparison)
}

/// Writes trials to the `trials` topic.
struct Writer<'c> {
    config: &'c Config,
    codec: Arc<dyn Codec<TrialRecord>>,
    publisher: Box<dyn Publisher>,
    /// Begins the names of the studies, so that they replace no earlier ones.
    prefix: String,
}

impl<'c> Writer<'c> {
    fn open(config: &'c Config, cluster: &Cluster, clock: &Arc<dyn Clock>) -> anyhow::Result<Self> {
        let topic = &config.topics.trials;
        let is_there = cluster.broker.partitions(topic)?.is_some();
        anyhow::ensure!(is_there, "there is no topic {topic}: run `foretell init` first");
        let codec = cluster.codec::<TrialRecord>(config, topic)?;
        let publisher = cluster.broker.publish()?;
        let prefix = format!("{}-tune-{}", config.application(), clock.now().0);
        Ok(Self { config, codec, publisher, prefix })
    }

    fn write(&mut self, trial: &Trial, clock: &Arc<dyn Clock>) -> anyhow::Result<()> {
        let study = format!("{}-{}", self.prefix, trial.sampler.name());
        let (topic, codec) = (&self.config.topics.trials, self.codec.as_ref());
        write_trial(self.publisher.as_mut(), topic, codec, &study, trial, clock.now())
    }
}

impl SamplerStudy {
    /// The best trial of the first `number`.
    #[must_use]
    pub fn best_of(&self, number: usize) -> Option<&Trial> {
        best_trial(&self.trials[..number.min(self.trials.len())])
    }

    /// The best value after each trial that has one, with the trial's number from 1 and its end.
    fn course(&self) -> impl Iterator<Item = (usize, Duration, f64)> + '_ {
        (1..)
            .zip(&self.ends)
            .filter_map(|(number, end)| Some((number, *end, self.best_of(number)?.value?)))
    }
}

/// The points of a line that stays at a value until the next one.
fn steps(points: impl Iterator<Item = (f64, f64)>) -> Vec<(f64, f64)> {
    let mut line: Vec<(f64, f64)> = Vec::new();
    for (x, y) in points {
        line.extend(line.last().map(|(_, before)| (x, *before)));
        line.push((x, y));
    }
    line
}

impl Comparison {
    /// The study with the best trial, and that trial.
    #[must_use]
    pub fn winner(&self) -> Option<(&SamplerStudy, &Trial)> {
        let best = |study| {
            let study: &SamplerStudy = study;
            Some((study, study.best_of(study.trials.len())?))
        };
        let bests = self.studies.iter().filter_map(best);
        bests.min_by(|a, b| {
            a.1.loss().unwrap_or(f64::NAN).total_cmp(&b.1.loss().unwrap_or(f64::NAN))
        })
    }

    /// The best value of each sampler by the number of trials, and the seconds that it took; the first row is the head.
    #[must_use]
    pub fn table(&self) -> Vec<Vec<String>> {
        let most = self.studies.iter().map(|study| study.trials.len()).max().unwrap_or(0);
        let before = CHECKPOINTS.into_iter().filter(|number| *number < most);
        let numbers: Vec<usize> = before.chain((most > 0).then_some(most)).collect();
        let mut head = vec!["sampler".to_owned()];
        head.extend(numbers.iter().map(usize::to_string));
        head.extend(["pruned", "failed", "seconds"].map(str::to_owned));
        let mut table = vec![head];
        for study in &self.studies {
            let mut row = vec![study.sampler.name().to_owned()];
            row.extend(numbers.iter().map(|number| {
                let is_reached = *number <= study.trials.len();
                let best = study.best_of(*number).filter(|_| is_reached);
                let value = best.and_then(|trial| trial.value);
                value.map_or("-".to_owned(), |value| format!("{value:.5}"))
            }));
            let failed = study.trials.iter().filter(|trial| trial.failure.is_some()).count();
            let pruned = study.trials.iter().filter(|trial| trial.pruned).count() - failed;
            row.extend([pruned.to_string(), failed.to_string()]);
            let seconds = study.ends.last().map_or(0.0, Duration::as_secs_f64);
            row.push(format!("{seconds:.1}"));
            table.push(row);
        }
        table
    }

    /// The title of the comparison.
    #[must_use]
    pub fn title(&self) -> String {
        let better = if self.objective.is_higher_better() { "higher" } else { "lower" };
        let objective = self.objective.name();
        format!(
            "best {objective} by number of trials ({better} is better; mean of {} folds)",
            self.folds
        )
    }

    /// A page of HTML with the course of each study by trials and by time, the table, and the best parameters.
    ///
    /// # Errors
    /// As [`plot::page`].
    pub fn page(&self) -> anyhow::Result<String> {
        let chart = |x_label: &str, x: fn((usize, Duration, f64)) -> f64| {
            let series = self.studies.iter().map(|study| Series {
                name: study.sampler.name().to_owned(),
                points: steps(study.course().map(|point| (x(point), point.2))),
                marks: Vec::new(),
            });
            LineChart {
                title: format!("best {} by {x_label}", self.objective.name()),
                x_label: x_label.to_owned(),
                y_label: self.objective.name().to_owned(),
                series: series.collect(),
            }
        };
        let charts = [
            chart("trials", |(number, _, _)| number as f64),
            chart("seconds", |(_, end, _)| end.as_secs_f64()),
        ];
        let mut table = self.table();
        for (row, study) in table.iter_mut().skip(1).zip(&self.studies) {
            let best = study.best_of(study.trials.len());
            row.push(best.map_or(String::new(), |best| in_toml(&best.params).join(", ")));
        }
        table[0].push("best parameters".to_owned());
        plot::page(&self.title(), &charts, &[("The best trial of each sampler", table)])
    }
}

/// The parameters that differ from the defaults, as keys of `[tuning.space]`.
#[must_use]
pub fn in_toml(params: &Params) -> Vec<String> {
    let default = Params::default();
    let differs = SEARCHABLE.iter().filter(|one| params.get(one.name) != default.get(one.name));
    let line =
        |one: &Searchable| Some(format!("{} = {}", one.name, params.get(one.name)?.to_toml()));
    differs.filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::app::init::{InitObserver, earlier_trials, init};
    use foretell_ml::training::ParamValue;
    use foretell_streams::time::SystemClock;

    fn study(sampler: SamplerKind, values: &[f64]) -> SamplerStudy {
        let trial = |(number, value): (u32, &f64)| Trial {
            number,
            params: Params::default(),
            log_loss: *value,
            auc: None,
            iterations: 9,
            pruned: *value > 0.5,
            objective: Metric::LogLoss,
            value: Some(*value),
            sampler,
            failure: None,
        };
        let trials: Vec<Trial> = (0..).zip(values).map(trial).collect();
        let ends = (1..).map(Duration::from_secs).take(values.len()).collect();
        SamplerStudy { sampler, trials, ends }
    }

    fn comparison() -> Comparison {
        let studies = vec![
            study(SamplerKind::Tpe, &[0.5, 0.4, 0.45, 0.9, 0.3, 0.35]),
            study(SamplerKind::Gp, &[0.5, 0.2]),
            study(SamplerKind::Random, &[]),
        ];
        Comparison { objective: Metric::LogLoss, folds: 3, studies }
    }

    #[test]
    fn the_table_has_the_best_by_number_of_trials() {
        let lines: Vec<String> = comparison().table().iter().map(|row| row.join(" ")).collect();
        let expected = [
            "sampler 1 5 6 pruned failed seconds",
            "tpe 0.50000 0.30000 0.30000 1 0 6.0",
            "gp 0.50000 - - 0 0 2.0",
            "random - - - 0 0 0.0",
        ];
        assert_eq!(lines, expected);
        let comparison = comparison();
        let (study, best) = comparison.winner().unwrap();
        assert_eq!((study.sampler, best.number), (SamplerKind::Gp, 1));
    }

    #[test]
    fn the_page_has_a_course_for_each_sampler() {
        let page = comparison().page().unwrap();
        assert_eq!(page.matches("<svg").count(), 2);
        assert!(page.contains("best parameters") && page.contains("best log_loss by seconds"));
        let none = Comparison { studies: Vec::new(), ..comparison() };
        assert!(none.winner().is_none());
        none.page().unwrap();
    }

    #[test]
    fn the_course_is_the_best_so_far_without_pruned_trials() {
        let comparison = comparison();
        let values: Vec<f64> = comparison.studies[0].course().map(|point| point.2).collect();
        assert_eq!(values, [0.5, 0.4, 0.4, 0.4, 0.3, 0.3]);
    }

    #[test]
    fn parameters_are_shown_as_keys_of_the_space() {
        let dart = ParamValue::of_text("dart");
        let params = Params {
            num_leaves: 7,
            extra: [("boosting".to_owned(), dart)].into(),
            ..Params::default()
        };
        assert_eq!(in_toml(&params), ["num_leaves = 7", "boosting = \"dart\""]);
    }

    struct Silent;

    impl TuneObserver for Silent {
        fn warning(&mut self, _line: &str) {}

        fn trial(&mut self, _trial: &Trial, _of: u32) {}
    }

    impl InitObserver for Silent {
        fn step(&mut self, _line: &str) {}

        fn trial(&mut self, _trial: &Trial, _of: u32) {}
    }

    #[test]
    fn trials_that_are_written_warm_start_the_next_study() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        write(
            "event.avsc",
            r#"{"type":"record","name":"R","fields":[{"name":"who","type":"string"},
            {"name":"at","type":"long"},{"name":"age","type":["null","int"],"default":null}]}"#,
        );
        let rows: String =
            (0..400).map(|row| format!("{},{}\n", row % 40, i32::from(row % 40 > 20))).collect();
        write("initial.csv", &format!("age,out\n{rows}"));
        write(
            "foretell.toml",
            "application.id = \"shop\"\n[events]\nschema = \"event.avsc\"\nrespondent_id = \"who\"\n\
             event_time = \"at\"\n[outcomes]\nlabels = [0, 1]\n[tuning]\ntrials = 1\nfolds = 2\n\
             iterations_max = 5\n[data.initial]\npath = \"initial.csv\"\nlabel = \"out\"\n",
        );
        let config = Config::load(&folder.path().join("foretell.toml"), &[]).unwrap();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let (cluster, shutdown) = (Cluster::embedded(&clock), Shutdown::default());
        let samplers = vec![SamplerKind::Gp, SamplerKind::Random];
        let request = TuneRequest { samplers, trials: 3, seed: 1 };
        let compare = || compare(&config, &clock, &shutdown, Some(&cluster), &request, &mut Silent);
        let error = compare().unwrap_err().to_string();
        assert!(error.contains("run `foretell init` first"), "{error}");
        init(&config, &cluster, &clock, &shutdown, false, &mut Silent).unwrap();
        let compared = compare().unwrap();
        let earlier = earlier_trials(&config, &cluster).unwrap();
        assert_eq!(earlier.len(), 1 + 2 * 3);
        assert_eq!(earlier[1..4], compared.studies[0].trials);
        assert_eq!(earlier[4..], compared.studies[1].trials);
        assert_eq!(compared.studies[0].ends.len(), 3);
    }
}

//! Brings MLflow to what one record says. Every step can be repeated: it searches before it creates, so that a record which is
//! sent again after a crash adds nothing.
//!
//! ```text
//!   trial     run of the training ◀─ run of the trial
//!   model     run of the training ─▶ logged model ─▶ artifacts ─▶ registered version ─▶ the run ends
//!   alias     alias of the registered version
//!   decision  tags and metrics of the run of the candidate
//!   quality   metrics of the run of the model
//! ```
//!
//! Two processes can create the same entity at the same time, for example if the session of one has timed out during a
//! request. So after creating a run or a version, a process searches once more, and deletes duplicates.

use std::collections::BTreeMap;

use crate::{
    config::MlflowSettings,
    events::{
        decision::{Decision, DecisionOutcome},
        model::Model,
        quality::Quality,
        trial::Trial,
    },
    tracking::{
        api::{LoggedModel, Run},
        artifacts,
        client::{Client, TrackingError},
        mapping::{
            self, Content, MODEL_VERSION, PARENT, RunStatus, TRAINING_ID, TRIAL, TrainingId, tag,
        },
    },
};
use foretell_ml::ModelBundle;
use foretell_streams::{record::Topic, runtime::StopSignal, time::WallTime};

/// One or more records of the log.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Entry {
    Trial(Box<Trial>),
    /// A model, or the move of an alias.
    Model(Box<Model>),
    Decision(Box<Decision>),
    Quality(Vec<Quality>),
}

impl Entry {
    /// The label in metrics and logs.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Trial(_) => "trial",
            Self::Model(model) if model.alias.is_some() => "alias",
            Self::Model(_) => "model",
            Self::Decision(_) => "decision",
            Self::Quality(_) => "quality",
        }
    }

    /// The number of records.
    pub(super) fn records(&self) -> usize {
        match self {
            Self::Trial(_) | Self::Model(_) | Self::Decision(_) => 1,
            Self::Quality(windows) => windows.len(),
        }
    }
}

/// Maximum number of runs whose ids are kept.
const KNOWN_MAX: usize = 64;

/// A run, and its logged model if it has one.
#[derive(Clone, Debug)]
struct KnownRun {
    run: String,
    model: Option<String>,
}

/// Writes entries to one server.
pub(super) struct Tracker {
    client: Client,
    settings: MlflowSettings,
    application: String,
    /// The topic of labelled examples, the dataset of trainings.
    examples: Topic,
    /// Id of the experiment, once it is known.
    experiment: Option<String>,
    /// Whether the registered model is known to exist.
    is_registered: bool,
    /// Runs of models, by version.
    known: BTreeMap<String, KnownRun>,
}

impl Tracker {
    pub(super) fn new(
        client: Client,
        settings: MlflowSettings,
        application: String,
        examples: Topic,
    ) -> Self {
        Self {
            client,
            settings,
            application,
            examples,
            experiment: None,
            is_registered: false,
            known: BTreeMap::new(),
        }
    }

    /// From now on, another thread stops the requests by this signal.
    pub(super) fn stop_by(&mut self, cancel: StopSignal) {
        self.client.stop_by(cancel);
    }

    /// Forgets ids: the server may have lost or deleted what they identify.
    pub(super) fn forget(&mut self) {
        self.experiment = None;
        self.is_registered = false;
        self.known.clear();
    }

    /// Brings the server to what an entry says.
    ///
    /// # Errors
    /// [`TrackingError`]. The entry can be applied again.
    pub(super) fn apply(&mut self, entry: &Entry) -> Result<(), TrackingError> {
        match entry {
            Entry::Trial(trial) => self.trial(trial),
            Entry::Model(model) => match &model.alias {
                Some(alias) => self.alias(alias, &model.version),
                None => self.model(model),
            },
            Entry::Decision(decision) => self.decision(decision),
            Entry::Quality(windows) => self.quality(windows),
        }
    }

    fn trial(&mut self, trial: &Trial) -> Result<(), TrackingError> {
        let id = mapping::trial_id(trial);
        let found = self.run_tagged(TRIAL, &id)?;
        if found.as_ref().is_some_and(|run| !run.is_running()) {
            return Ok(());
        }
        let training = TrainingId::of_study(&trial.study, &self.application);
        let parent = self.run_of_training(&training, trial.created_at)?;
        let run = match found {
            Some(run) => run.id,
            None => {
                let tags = [tag(TRIAL, &id), tag(PARENT, &parent.id)];
                let name = format!("trial-{}", trial.number);
                self.create_run(&name, trial.created_at, &tags)?;
                self.existing(TRIAL, &id)?.id
            }
        };
        self.client.log(&run, &mapping::trial(trial), None)?;
        self.client.log(&parent.id, &mapping::tuning(trial, &parent.metrics), None)?;
        if !training.ends {
            self.client.end_run(&parent.id, RunStatus::Finished, trial.created_at)?;
        }
        // Last: a trial whose run has ended is complete.
        self.client.end_run(&run, mapping::trial_status(trial), trial.created_at)
    }

    fn model(&mut self, model: &Model) -> Result<(), TrackingError> {
        let bundle = bundle_of(model)?;
        let version = &model.version;
        let run = match self.run_tagged(MODEL_VERSION, version)? {
            Some(run) => run,
            None => {
                let training = TrainingId::of_number(i64::from(model.training));
                let run = self.run_of_training(&training, model.created_at)?.id;
                let content =
                    Content { tags: vec![tag(MODEL_VERSION, version)], ..Content::default() };
                self.client.log(&run, &content, None)?;
                self.existing(MODEL_VERSION, version)?
            }
        };
        let logged = self.logged_model(&run.id, version)?;
        self.client.log(&run.id, &mapping::model(model, &bundle), Some(&logged.id))?;
        if let Some(dataset) = mapping::dataset(model, &self.examples) {
            self.client.log_dataset(&run.id, &dataset)?;
        }
        if !run.models.contains(&logged.id) {
            self.client.add_output(&run.id, &logged.id)?;
        }
        if !logged.is_ready {
            let files = artifacts::files(model, &bundle, &run.id, &logged)
                .map_err(|error| TrackingError::refused("MODEL", error.to_string()))?;
            for file in files {
                self.client.upload(&logged.artifact_uri, &file.path, file.content)?;
            }
            self.client.finish_logged_model(&logged.id)?;
        }
        self.registered_version(&run.id, &logged.id, version)?;
        if run.is_running() {
            self.client.end_run(&run.id, RunStatus::Finished, model.created_at)?;
        }
        self.remember(version, KnownRun { run: run.id, model: Some(logged.id) });
        Ok(())
    }

    /// The logged model of a run; creates it if there is none.
    fn logged_model(&mut self, run: &str, version: &str) -> Result<LoggedModel, TrackingError> {
        let experiment = self.experiment()?;
        let mut found = self.client.logged_models(&experiment, run)?;
        if found.is_empty() {
            let tags = [tag(MODEL_VERSION, version)];
            let name = format!("foretell-{version}");
            self.client.create_logged_model(&experiment, run, &name, &tags)?;
            found = self.client.logged_models(&experiment, run)?;
        }
        // One that another process has just completed, or else the same one for both.
        found.sort_by_key(|model| (!model.is_ready, model.id.clone()));
        let first = found.into_iter().next();
        first.ok_or_else(|| {
            TrackingError::unavailable("the logged model that was created is missing")
        })
    }

    /// Registers a model once, as one version.
    fn registered_version(
        &mut self,
        run: &str,
        model: &str,
        version: &str,
    ) -> Result<(), TrackingError> {
        let name = self.settings.registered_model.clone();
        if !self.is_registered {
            let tags = [tag("foretell.application", &self.application)];
            self.client.register(&name, &tags)?;
            self.is_registered = true;
        }
        let filter = format!("run_id = '{run}'");
        if self.client.versions(&name, &filter)?.is_empty() {
            let tags = [tag(MODEL_VERSION, version)];
            self.client.create_version(&name, model, run, &tags)?;
        }
        for twice in self.client.versions(&name, &filter)?.iter().skip(1) {
            self.client.delete_version(&name, &twice.version)?;
        }
        Ok(())
    }

    fn alias(&mut self, alias: &str, version: &str) -> Result<(), TrackingError> {
        let name = self.settings.registered_model.clone();
        if version.is_empty() {
            return self.client.delete_alias(&name, alias);
        }
        let filter = format!("tags.`{MODEL_VERSION}` = '{version}'");
        let versions = self.client.versions(&name, &filter)?;
        let Some(registered) = versions.first() else {
            let problem = format!("alias {alias}: model {version} is not registered");
            return Err(TrackingError::refused("UNKNOWN_MODEL", problem));
        };
        self.client.set_alias(&name, alias, &registered.version)
    }

    fn decision(&mut self, decision: &Decision) -> Result<(), TrackingError> {
        let content = mapping::decision(decision);
        if let Some(version) = &decision.candidate
            && let Some(known) = self.run_of_model(version)?
        {
            return self.client.log(&known.run, &content, known.model.as_deref());
        }
        let Some(training) = decision.training.filter(|_| is_of_training(decision)) else {
            // A command that was refused is about no model that is known.
            return Ok(());
        };
        let training = TrainingId::of_number(training);
        let run = self.run_of_training(&training, decision.decided_at)?.id;
        self.client.log(&run, &content, None)?;
        let status = match decision.outcome {
            DecisionOutcome::Failed => RunStatus::Failed,
            DecisionOutcome::Promoted
            | DecisionOutcome::Challenger
            | DecisionOutcome::Refused
            | DecisionOutcome::RolledBack => RunStatus::Finished,
        };
        self.client.end_run(&run, status, decision.decided_at)
    }

    fn quality(&mut self, windows: &[Quality]) -> Result<(), TrackingError> {
        let mut of_versions = BTreeMap::<&str, Content>::new();
        for window in windows {
            let content = of_versions.entry(&window.model_version).or_default();
            content.metrics.extend(mapping::quality(window).metrics);
        }
        let mut unknown = Vec::new();
        for (version, content) in of_versions {
            match self.run_of_model(version)? {
                Some(known) => self.client.log(&known.run, &content, known.model.as_deref())?,
                None => unknown.push(version),
            }
        }
        if unknown.is_empty() {
            return Ok(());
        }
        let problem = format!("there is no run of {}", unknown.join(", "));
        Err(TrackingError::refused("UNKNOWN_MODEL", problem))
    }

    /// The run of a model; none if there is none.
    fn run_of_model(&mut self, version: &str) -> Result<Option<KnownRun>, TrackingError> {
        if let Some(known) = self.known.get(version) {
            return Ok(Some(known.clone()));
        }
        let Some(run) = self.run_tagged(MODEL_VERSION, version)? else { return Ok(None) };
        let known = KnownRun { run: run.id, model: run.models.into_iter().next() };
        self.remember(version, known.clone());
        Ok(Some(known))
    }

    fn remember(&mut self, version: &str, run: KnownRun) {
        if self.known.len() >= KNOWN_MAX {
            self.known.clear();
        }
        self.known.insert(version.to_owned(), run);
    }

    /// The run of a training to which something belongs that ended `at` a time; creates it if there is none. A training that is
    /// repeated under the same number has a run of its own.
    fn run_of_training(
        &mut self,
        training: &TrainingId,
        at: WallTime,
    ) -> Result<Run, TrackingError> {
        if let Some(run) = self.open_run(training, at)? {
            return Ok(run);
        }
        let tags = [tag(TRAINING_ID, &training.id)];
        self.create_run(&training.id, at, &tags)?;
        let created = self.open_run(training, at)?;
        created.ok_or_else(|| TrackingError::unavailable("the run that was created is missing"))
    }

    fn open_run(
        &mut self,
        training: &TrainingId,
        at: WallTime,
    ) -> Result<Option<Run>, TrackingError> {
        let runs = self.search(TRAINING_ID, &training.id)?;
        let is_open = |run: &&Run| {
            !training.ends || run.end.is_none_or(|end| run.is_running() || end >= at.0)
        };
        let open: Vec<Run> = runs.iter().filter(is_open).cloned().collect();
        // Runs without a model, which two processes have created for the same training.
        let (with_model, without): (Vec<Run>, Vec<Run>) =
            open.into_iter().partition(|run| run.tags.contains_key(MODEL_VERSION));
        match with_model.into_iter().next() {
            Some(run) => Ok(Some(run)),
            None => self.keep_one(without),
        }
    }

    /// The run with a tag that no two runs should have.
    fn run_tagged(&mut self, key: &str, value: &str) -> Result<Option<Run>, TrackingError> {
        let runs = self.search(key, value)?;
        self.keep_one(runs)
    }

    fn existing(&mut self, key: &str, value: &str) -> Result<Run, TrackingError> {
        let found = self.run_tagged(key, value)?;
        found.ok_or_else(|| TrackingError::unavailable("the run that was created is missing"))
    }

    /// Of runs of the same, keeps the one with most content, and deletes the others.
    fn keep_one(&self, mut runs: Vec<Run>) -> Result<Option<Run>, TrackingError> {
        runs.sort_by_key(|run| (run.is_running(), usize::MAX - run.entries, run.id.clone()));
        let mut runs = runs.into_iter();
        let kept = runs.next();
        for twice in runs {
            tracing::warn!(run = twice.id, "deleting a run that MLflow has twice");
            self.client.delete_run(&twice.id)?;
        }
        Ok(kept)
    }

    fn search(&mut self, key: &str, value: &str) -> Result<Vec<Run>, TrackingError> {
        let experiment = self.experiment()?;
        self.client.runs(&experiment, &format!("tags.`{key}` = '{value}'"))
    }

    fn create_run(
        &mut self,
        name: &str,
        start: WallTime,
        tags: &[(String, String)],
    ) -> Result<(), TrackingError> {
        let experiment = self.experiment()?;
        let tags = [tags, &mapping::source_tags(&self.application)].concat();
        self.client.create_run(&experiment, name, start, &tags).map(drop)
    }

    fn experiment(&mut self) -> Result<String, TrackingError> {
        if let Some(id) = &self.experiment {
            return Ok(id.clone());
        }
        // MLflow's pages show runs of this kind first, not those of language models.
        let kind = tag("mlflow.experimentKind", "custom_model_development");
        let tags = [tag("foretell.application", &self.application), kind];
        let id = self.client.experiment(&self.settings.experiment, &tags)?;
        Ok(self.experiment.insert(id).clone())
    }
}

/// Whether a decision ends a training. Others name one, too: that of the model that they are about.
fn is_of_training(decision: &Decision) -> bool {
    decision.decision_id.starts_with("training-")
}

fn bundle_of(model: &Model) -> Result<ModelBundle, TrackingError> {
    let refuse = |problem: String| TrackingError::refused("MODEL", problem);
    let bytes = model.bundle.as_deref();
    let bytes = bytes.ok_or_else(|| refuse("the record has no bundle".to_owned()))?;
    let (bundle, found) =
        ModelBundle::with_version(bytes).map_err(|error| refuse(error.to_string()))?;
    if found.as_str() != model.version {
        return Err(refuse(format!("the bundle announced as {} is {found:?}", model.version)));
    }
    Ok(bundle)
}

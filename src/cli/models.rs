//! `foretell models`

use std::{
    io::IsTerminal as _,
    path::PathBuf,
    process::ExitCode,
    sync::{Mutex, PoisonError},
};

use clap::{Args, Subcommand};

use crate::{
    app::{
        self,
        cluster::Cluster,
        library::{
            self, files,
            reproduce::{self, Reproduction},
        },
        shutdown::{self, Shutdown},
    },
    cli::{
        Global, Sets,
        learner_command::{self, Request, Waiting},
        model_text::Text,
        print,
        progress::Progress,
    },
    config::Config,
    events::command::CommandKind,
    processors::{
        learning::trainer::Phase,
        library::{Library, ModelDifference},
        model_table::{CHAMPION, PREDECESSOR},
    },
};

/// List, show, compare, promote, roll back, reproduce, export and import models.
///
/// A model is named by its version, by the first characters of it if they are unique, or by an alias: `champion` (the
/// model that serves), `challenger` (scored beside it) or `predecessor` (the champion before it).
///
/// The models are on the topic `models`; the learner of a running instance moves the aliases. With `foretell demo` and
/// `foretell run --embedded` there is no broker to connect to: use the HTTP API, /api/v1/models.
#[derive(Args)]
#[command(after_help = "\
Examples:
  foretell models list
  foretell models show                          everything about the champion
  foretell models show 3fa --json | jq .importance
  foretell models diff predecessor champion     what changed with the last promotion
  foretell models rollback --reason \"conversions fell since noon\"
  foretell models promote 3fa8c1 --reason \"checked by hand\"
  foretell models reproduce 3fa8c1              the same bytes from the training log
  foretell models export champion --to notebook/
  foretell models import notebook/              offer it as challenger")]
pub(super) struct ModelsCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    List(List),
    Show(Show),
    Diff(Diff),
    Promote(Promote),
    Rollback(Rollback),
    Reproduce(Reproduce),
    Export(Export),
    Import(Import),
}

/// List the models, newest first, with their metrics and aliases.
#[derive(Args)]
struct List {
    /// Print one JSON object on standard output.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    sets: Sets,
}

/// Show a model: metrics, parameters, lineage, feature importance and the decisions about it.
///
/// Metrics are of examples that the model was not trained on, with intervals if it has them. Parameters that differ from
/// the defaults are marked. The importance of a feature is the sum of the gains of its splits, and their number.
#[derive(Args)]
struct Show {
    /// Version, first characters of one, or alias.
    #[arg(default_value = CHAMPION)]
    model: String,
    /// Print one JSON object on standard output.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    sets: Sets,
}

/// Show what is different between two models, and only that.
#[derive(Args)]
struct Diff {
    /// Version, first characters of one, or alias.
    from: String,
    /// The model to compare with it.
    #[arg(default_value = CHAMPION)]
    to: String,
    /// Print one JSON object on standard output.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    sets: Sets,
}

/// Make a model the champion.
///
/// The learner checks that it can serve, and moves the alias; every instance swaps models between two records. The command
/// ends with 0 if it is the champion, with 1 if the learner refused, and with 3 if the decision was not known within --wait.
#[derive(Args)]
struct Promote {
    /// Version, first characters of one, or alias.
    model: String,
    #[command(flatten)]
    request: Request,
    #[command(flatten)]
    sets: Sets,
}

/// Make the champion's predecessor the champion again.
///
/// The command ends with 0 if it is the champion, with 1 if the learner refused, and with 3 if the decision was not known
/// within --wait.
#[derive(Args)]
struct Rollback {
    #[command(flatten)]
    request: Request,
    #[command(flatten)]
    sets: Sets,
}

/// Train a model again from its lineage and the training log, and compare the bytes.
///
/// The examples before its offset, their policy, the parameters and the seed determine a model, so the same build of
/// Foretell gives the same bytes on any machine. Nothing is written. The command ends with 0 if the bytes are identical, and
/// with 1 if they are not, with the first difference, or if the model cannot be reproduced: it was imported, another
/// LightGBM trained it, the log lacks records, or the event schema lacks its columns.
#[derive(Args)]
struct Reproduce {
    /// Version, first characters of one, or alias.
    #[arg(default_value = CHAMPION)]
    model: String,
    #[command(flatten)]
    sets: Sets,
}

/// Write a model as files that other tools can read.
///
/// `model.txt` has the trees, as LightGBM's model text; `pipeline.json` how answers become features, the classes, the
/// threshold and the calibration; `lineage.json` the inputs of the training and the evaluation; `foretell_model.py` is a
/// Python module that predicts from the first two with lightgbm and numpy. `foretell.toml` and the event schema are the
/// part of the configuration that scoring needs: `foretell serve --root DIR` serves the folder without a broker.
#[derive(Args)]
struct Export {
    /// Version, first characters of one, or alias.
    #[arg(default_value = CHAMPION)]
    model: String,
    /// The folder to write to; it is created if it does not exist.
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// Replace files that exist. Those of an earlier export are removed; others stay, with a warning.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    sets: Sets,
}

/// Import a model that was trained elsewhere, and offer it as challenger.
///
/// The model is a folder with `model.txt` (LightGBM's model text) and `pipeline.json`, or these files. It must have the
/// classes of `[outcomes] labels` and columns of the event schema, with their kinds; else all differences are printed and
/// nothing is written. The learner makes it the challenger: it is scored beside the champion, judged on examples that come
/// later, and promoted if it is better.
#[derive(Args)]
struct Import {
    /// Folder, or files with the names of an export.
    #[arg(required = true, value_name = "DIR|FILE")]
    paths: Vec<PathBuf>,
    /// Write the model to the topic of models only, and do not make it the challenger.
    #[arg(long)]
    no_challenge: bool,
    /// The reason, which is stored with the decision.
    #[arg(long, default_value = "imported")]
    reason: String,
    #[command(flatten)]
    waiting: Waiting,
    #[command(flatten)]
    sets: Sets,
}

impl ModelsCommand {
    pub(super) fn sets(&self) -> &Sets {
        match &self.action {
            Action::List(list) => &list.sets,
            Action::Show(show) => &show.sets,
            Action::Diff(diff) => &diff.sets,
            Action::Promote(promote) => &promote.sets,
            Action::Rollback(rollback) => &rollback.sets,
            Action::Reproduce(reproduce) => &reproduce.sets,
            Action::Export(export) => &export.sets,
            Action::Import(import) => &import.sets,
        }
    }

    pub(super) fn run(&self, global: &Global) -> anyhow::Result<ExitCode> {
        let config = global.start("warn,librdkafka=off")?;
        let cluster = Cluster::connect(&config, &app::clock())?;
        let library = library::open(&config, &cluster)?;
        match &self.action {
            Action::List(list) => list.run(&library),
            Action::Show(show) => show.run(&library),
            Action::Diff(diff) => diff.run(&library),
            Action::Promote(promote) => promote.run(&config, &cluster, &library),
            Action::Rollback(rollback) => rollback.run(&config, &cluster, &library),
            Action::Reproduce(reproduce) => reproduce.run(&config, &cluster, &library),
            Action::Export(export) => export.run(&config, &library),
            Action::Import(import) => import.run(&config, &cluster),
        }
    }
}

/// Text for standard output, coloured on a terminal.
fn text() -> Text {
    Text::new(std::io::stdout().is_terminal())
}

impl List {
    fn run(&self, library: &Library) -> anyhow::Result<ExitCode> {
        let summary = library.summary()?;
        print(&if self.json { serde_json::to_string(&summary)? } else { text().list(&summary) });
        Ok(ExitCode::SUCCESS)
    }
}

impl Show {
    fn run(&self, library: &Library) -> anyhow::Result<ExitCode> {
        let details = library.details(Some(&self.model))?;
        print(&if self.json { serde_json::to_string(&details)? } else { text().details(&details) });
        Ok(ExitCode::SUCCESS)
    }
}

impl Diff {
    fn run(&self, library: &Library) -> anyhow::Result<ExitCode> {
        let (from, to) = (library.details(Some(&self.from))?, library.details(Some(&self.to))?);
        let difference = ModelDifference::between(&from, &to);
        print(&if self.json {
            serde_json::to_string(&difference)?
        } else {
            text().difference(&from.summary.version, &to.summary.version, &difference)
        });
        Ok(ExitCode::SUCCESS)
    }
}

impl Promote {
    fn run(
        &self,
        config: &Config,
        cluster: &Cluster,
        library: &Library,
    ) -> anyhow::Result<ExitCode> {
        let version = library.version_of(&self.model)?;
        let champion = library.summary()?.aliases.remove(CHAMPION);
        if champion.is_some_and(|champion| champion.version == version) {
            print(&format!("{version} is the champion already: nothing was sent"));
            return Ok(ExitCode::SUCCESS);
        }
        let kind = CommandKind::Promote;
        learner_command::send(config, cluster, kind, Some(version), &self.request)
    }
}

impl Rollback {
    fn run(
        &self,
        config: &Config,
        cluster: &Cluster,
        library: &Library,
    ) -> anyhow::Result<ExitCode> {
        anyhow::ensure!(
            library.summary()?.aliases.contains_key(PREDECESSOR),
            "the champion has no predecessor to roll back to: choose a version of `foretell models list`, and promote it"
        );
        learner_command::send(config, cluster, CommandKind::RollBack, None, &self.request)
    }
}

impl Reproduce {
    fn run(
        &self,
        config: &Config,
        cluster: &Cluster,
        library: &Library,
    ) -> anyhow::Result<ExitCode> {
        let shutdown = Shutdown::default();
        let _signals = shutdown::stop_when_asked(&shutdown)?;
        let signal = shutdown.signal();
        let shown = Mutex::new(Progress::new());
        let report = |phase: Phase, done: u32, of: u32| {
            let mut shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
            shown.bar(phase.name(), of.into()).set_position(done.into());
            !signal.is_stopped()
        };
        let found = reproduce::reproduce(config, cluster, library, &self.model, &report);
        shown.lock().unwrap_or_else(PoisonError::into_inner).finish();
        match found? {
            Reproduction::Identical { version, bytes } => {
                print(&format!("identical: model {version}, {bytes} bytes"));
                Ok(ExitCode::SUCCESS)
            }
            Reproduction::Different { version, found, difference } => {
                print(&format!("different: model {version} is now {found}; first in {difference}"));
                Ok(ExitCode::FAILURE)
            }
        }
    }
}

impl Export {
    fn run(&self, config: &Config, library: &Library) -> anyhow::Result<ExitCode> {
        let bundle = library.bundle(&self.model)?;
        let version = bundle.version();
        let exported = files::export_to(config, &bundle, &self.to, self.force)?;
        if let Some(warning) = exported.warning() {
            Progress::new().line(&format!("- warning: {warning}"));
        }
        let paths = exported.paths.iter().map(|path| path.display().to_string());
        let paths: Vec<String> = paths.collect();
        print(&format!("model {version}: {}", paths.join(", ")));
        Ok(ExitCode::SUCCESS)
    }
}

impl Import {
    fn run(&self, config: &Config, cluster: &Cluster) -> anyhow::Result<ExitCode> {
        let bundle = files::read(config, &self.paths)?;
        files::write(config, cluster, app::clock().as_ref(), &bundle)?;
        let version = bundle.version().as_str().to_owned();
        print(&format!("model {version} is on topic {}", config.topics.models));
        if self.no_challenge {
            return Ok(ExitCode::SUCCESS);
        }
        let request = Request { reason: self.reason.clone(), waiting: self.waiting.clone() };
        learner_command::send(config, cluster, CommandKind::Challenge, Some(version), &request)
    }
}

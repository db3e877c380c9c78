//! `foretell schema`

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Subcommand};

use crate::{
    app::{
        check_result::{CheckResult, Report},
        schemas::{
            self, Edit, EventFields, EventSchemaFile, History, KindChange, Registered, Version,
        },
    },
    cli::{Global, Sets, print, progress::Progress},
    config::Config,
};

/// Evolve, compare, check and register schemas.
///
/// A subject has a folder with all released versions of its schema (`v1.avsc`, `v2.avsc`, …) and a `subject.toml` with
/// the compatibility level (`compatibility = "FULL_TRANSITIVE"`), which decides which versions must be able to read each
/// other, and the digests of the released files. Set `[events] schema` to the version in use.
#[derive(Args)]
#[command(after_help = "\
Examples:
  foretell schema evolve schemas/questionnaire-event --add smoker:boolean --rename gender=sex
  foretell schema diff schemas/questionnaire-event/v1.avsc schemas/questionnaire-event/v2.avsc
  foretell schema check schemas      check the files only: in CI, before a commit
  foretell schema check              check the schemas of the configuration against the registry
  foretell schema register           register them; `foretell run` never does
  foretell schema show predictions   print the schema of a topic's records")]
pub(super) struct SchemaCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    Check(Check),
    Register(Register),
    Diff(Diff),
    Evolve(Evolve),
    Show(Show),
}

/// Check schema files, or the schemas of the configuration against the registry. Nothing is changed.
///
/// With folders, only their files are checked: released files are unchanged, all versions that the level covers read
/// each other (by apache-avro and by Foretell's own resolution), no alias is lost, everything has a `doc`, and no question
/// of the event schema has another kind of answers than before, which predictions and labelled examples refuse. Without
/// folders, the folder of `[events] schema` is checked, if it is the folder of a subject, and whether the registry
/// accepts all schemas of the configuration. The command ends with 0 if nothing failed, else with 1.
#[derive(Args)]
struct Check {
    /// Folder of a subject, or a folder with such folders.
    folders: Vec<PathBuf>,
    /// Print one JSON object on standard output.
    ///
    /// Its form is `{"ok": …, "checks": [{"name", "status", "detail", "fix"}]}`.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    sets: Sets,
}

/// Register the schemas of the configuration: every version, in order, and the level of each subject.
///
/// Registered versions keep their ids. If one schema is refused, none is registered. The versions of the event schema are then released: their digests are written
/// into `subject.toml`, and their files must not change any more.
#[derive(Args)]
struct Register {
    #[command(flatten)]
    sets: Sets,
}

/// Show what is different between two schemas, and what it means for readers, writers, the model and the predictions.
///
/// Without files, the newest event schema of the registry is compared with the one of the configuration.
#[derive(Args)]
struct Diff {
    /// File of the old schema.
    #[arg(requires = "new")]
    old: Option<PathBuf>,
    /// File of the new schema.
    new: Option<PathBuf>,
    /// Topic of the events whose schema is compared, with its prefix or without it. Without it, `questionnaire-events`.
    #[arg(long, value_name = "TOPIC", conflicts_with = "old")]
    source: Option<String>,
    /// Leave out what a change does to models and predictions: the records are not events.
    #[arg(long)]
    no_model: bool,
    /// Print one JSON object on standard output.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    sets: Sets,
}

/// Write the next version of a schema as a draft, and show what the change means.
///
/// New fields are nullable and null by default. A renamed field keeps its old name as an alias. If the newest version is
/// a draft, it is changed instead. Nothing is written if the level forbids the change, or if a question gets answers of
/// another kind.
#[derive(Args)]
struct Evolve {
    /// Folder of the subject.
    folder: PathBuf,
    /// Add a field. TYPE is a name such as `string`, or JSON.
    #[arg(long, value_name = "NAME:TYPE", value_parser = add)]
    add: Vec<Edit>,
    /// Rename a field.
    #[arg(long, value_name = "OLD=NEW", value_parser = rename)]
    rename: Vec<Edit>,
    /// Change the type of a field.
    #[arg(long, value_name = "NAME:TYPE", value_parser = retype)]
    retype: Vec<Edit>,
    /// Remove a field.
    #[arg(long, value_name = "NAME", value_parser = remove)]
    remove: Vec<Edit>,
    /// Set the description of a field.
    #[arg(long, value_name = "NAME=SENTENCE", value_parser = describe)]
    doc: Vec<Edit>,
    /// Print the schema on standard output, and what the change means on standard error, and write nothing. What cannot be written is
    /// refused as without it.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    sets: Sets,
}

/// Print the schema of a topic's records, to generate classes or write queries from it.
///
/// It is the one that this configuration registers: in predictions and labelled examples, the record `answers` has a
/// field for each question of the event schema. Records of other releases and configurations have other versions; the
/// registry has all of them, under the topic's subject (`<topic>-value`).
#[derive(Args)]
#[command(after_help = "\
Examples:
  foretell schema show predictions > prediction.avsc
  foretell schema show labelled-examples | jq '.fields[-1].type.fields'")]
struct Show {
    /// Name of the topic, with its prefix or without it.
    topic: String,
    #[command(flatten)]
    sets: Sets,
}

impl SchemaCommand {
    pub(super) fn sets(&self) -> &Sets {
        match &self.action {
            Action::Check(check) => &check.sets,
            Action::Register(register) => &register.sets,
            Action::Diff(diff) => &diff.sets,
            Action::Evolve(evolve) => &evolve.sets,
            Action::Show(show) => &show.sets,
        }
    }

    pub(super) fn run(&self, global: &Global) -> anyhow::Result<ExitCode> {
        global.log("warn")?;
        match &self.action {
            Action::Check(check) => check.run(global),
            Action::Register(register) => register.run(global),
            Action::Diff(diff) => diff.run(global),
            Action::Evolve(evolve) => evolve.run(global),
            Action::Show(show) => show.run(global),
        }
    }
}

impl Check {
    fn run(&self, global: &Global) -> anyhow::Result<ExitCode> {
        let mut results = Vec::new();
        let mut show = |result: CheckResult| {
            if !self.json {
                print(&result.to_string());
            }
            results.push(result);
        };
        let config = configured(global)?;
        for folder in &self.folders {
            for history in schemas::histories(folder)? {
                let fields = EventFields::of(&history.folder, config.as_ref());
                history.check().into_iter().for_each(&mut show);
                schemas::check_answers(&history, &fields).into_iter().for_each(&mut show);
            }
        }
        if self.folders.is_empty() {
            let config = Config::load(&global.config, &global.sets)?;
            schemas::check_registry(&config, &mut show)?;
        }
        let report = Report::of(results);
        print(&if self.json { serde_json::to_string(&report)? } else { report.to_string() });
        Ok(if report.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

impl Register {
    fn run(&self, global: &Global) -> anyhow::Result<ExitCode> {
        let config = Config::load(&global.config, &global.sets)?;
        let mut show = |Registered { subject, level, ids, new }: Registered| {
            let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
            let level = level.unwrap_or("no level of its own");
            print(&format!("{subject}: ids {}, {new} of them new; {level}", ids.join(", ")));
        };
        schemas::register(&config, &mut show)?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Diff {
    fn run(&self, global: &Global) -> anyhow::Result<ExitCode> {
        let (fields, (old, new)) = match (&self.old, &self.new) {
            (Some(old), Some(new)) => {
                let folder = new.parent().unwrap_or(Path::new("."));
                let known = EventFields::of(folder, configured(global)?.as_ref());
                // Without --no-model, the records are events.
                let fields = if known == EventFields::None { EventFields::Unknown } else { known };
                (fields, (schemas::read_schema(old)?, schemas::read_schema(new)?))
            }
            (_, _) => {
                let config = Config::load(&global.config, &global.sets)?;
                let source = EventSchemaFile::of(&config, self.source.as_deref())?;
                let fields = EventFields::Except(source.other_fields());
                (fields, schemas::registered_and_configured(&config, &source)?)
            }
        };
        let fields = if self.no_model { EventFields::None } else { fields };
        let difference = schemas::difference(&old, &new, &fields)?;
        print(&if self.json {
            serde_json::to_string(&difference)?
        } else {
            difference.to_string()
        });
        Ok(ExitCode::SUCCESS)
    }
}

impl Show {
    fn run(&self, global: &Global) -> anyhow::Result<ExitCode> {
        let config = Config::load(&global.config, &global.sets)?;
        print(&schemas::schema_of(&config, &self.topic)?);
        Ok(ExitCode::SUCCESS)
    }
}

impl Evolve {
    fn run(&self, global: &Global) -> anyhow::Result<ExitCode> {
        let histories = schemas::histories(&self.folder)?;
        let [history] = histories.as_slice() else {
            anyhow::bail!(
                "{} holds {} subjects: name the folder of one",
                self.folder.display(),
                histories.len()
            );
        };
        let lists = [&self.rename, &self.retype, &self.remove, &self.add, &self.doc];
        let edits: Vec<Edit> = lists.into_iter().flatten().cloned().collect();
        anyhow::ensure!(
            !edits.is_empty(),
            "there is nothing to change: see `foretell schema evolve --help`"
        );
        let next = schemas::evolve(history, &edits)?;
        let (before, after) = (&history.newest().schema, followed_by(history, &next));
        let fields = EventFields::of(&history.folder, configured(global)?.as_ref());
        let kinds = schemas::newest_kind_changes(&after, &fields);
        let difference = schemas::difference_with(before, &next.schema, &fields, &kinds)?;
        if let EventFields::Except(_) = fields
            && !kinds.is_empty()
        {
            let refused: Vec<String> = kinds.iter().map(ToString::to_string).collect();
            anyhow::bail!(
                "predictions and labelled-examples refuse this; nothing was written: {}: {}",
                refused.join("; "),
                KindChange::FIX
            );
        }
        let problems = problems(&after);
        anyhow::ensure!(
            problems.is_empty(),
            "{} does not allow this; nothing was written: {}",
            history.level.name(),
            problems.join("; ")
        );
        let undescribed = schemas::undescribed(&edits);
        let advice = match undescribed.first() {
            Some(name) => format!(
                "\ndescribe {} before you register it: foretell schema evolve … --doc {name}=\"…\"",
                undescribed.join(", ")
            ),
            None => String::new(),
        };
        if self.dry_run {
            Progress::new().line(&format!("{difference}{advice}\nnothing was written"));
            print(next.text.trim_end());
            return Ok(ExitCode::SUCCESS);
        }
        next.write()?;
        let path = next.path.display();
        print(&format!(
            "{difference}\n{path} is a draft: you can change it until `foretell schema register`{advice}"
        ));
        Ok(ExitCode::SUCCESS)
    }
}

/// The configuration, if it can be read. Commands on files do not need it, but it says which fields are questions. One that is
/// named by an argument has to be valid.
fn configured(global: &Global) -> anyhow::Result<Option<Config>> {
    let is_named = global.is_config_argument || !global.sets.is_empty();
    match Config::load(&global.config, &global.sets) {
        Ok(config) => Ok(Some(config)),
        Err(error) if is_named => Err(error.into()),
        Err(_) => Ok(None),
    }
}

fn followed_by(history: &History, next: &Version) -> History {
    let mut after = history.clone();
    after.versions.retain(|version| version.number < next.number);
    after.versions.push(next.clone());
    after
}

/// Failed checks of the history. A missing `doc` is allowed in a draft.
fn problems(after: &History) -> Vec<String> {
    let failed = after.check().into_iter().filter(|result| result.fix.is_some());
    let failed = failed.filter(|result| !result.name.ends_with(" docs"));
    failed.map(|result| result.detail).collect()
}

/// The texts before and after the first `separator`.
fn split(text: &str, separator: char) -> Result<(String, String), String> {
    let (left, right) =
        text.split_once(separator).ok_or_else(|| format!("it must contain {separator:?}"))?;
    let (left, right) = (left.trim(), right.trim());
    if left.is_empty() || right.is_empty() {
        return Err(format!("it needs text on both sides of {separator:?}"));
    }
    Ok((left.to_owned(), right.to_owned()))
}

fn add(text: &str) -> Result<Edit, String> {
    split(text, ':').map(|(name, kind)| Edit::Add { name, kind })
}

fn rename(text: &str) -> Result<Edit, String> {
    split(text, '=').map(|(from, to)| Edit::Rename { from, to })
}

fn retype(text: &str) -> Result<Edit, String> {
    split(text, ':').map(|(name, kind)| Edit::Retype { name, kind })
}

#[expect(clippy::unnecessary_wraps, reason = "the type that clap expects of a parser")]
fn remove(text: &str) -> Result<Edit, String> {
    Ok(Edit::Remove { name: text.to_owned() })
}

fn describe(text: &str) -> Result<Edit, String> {
    split(text, '=').map(|(name, doc)| Edit::Describe { name, doc })
}

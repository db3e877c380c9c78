//! `foretell schema`

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Subcommand};

use crate::{
    app::{
        check_result::{CheckResult, Report},
        schemas::{self, Difference, Edit, Registered, Version},
    },
    cli::{Global, Sets},
    config::Config,
};

/// Lets schemas evolve: checks files and the registry before a deployment, says what a change means, makes the next
/// version, registers.
///
/// A subject is a folder with all the versions that were ever released (`v1.avsc`, `v2.avsc`, …) and a `subject.toml`
/// that says which of them must be able to read each other (`compatibility = "FULL_TRANSITIVE"`) and what the released
/// files' digests are. `[events] schema` names the version in use.
#[derive(Args)]
#[command(after_help = "\
Examples:
  foretell schema evolve schemas/questionnaire-event --add smoker:boolean --rename gender=sex
  foretell schema diff schemas/questionnaire-event/v1.avsc schemas/questionnaire-event/v2.avsc
  foretell schema check schemas                     the files alone: for CI, and before a commit
  foretell schema check                             the configuration's schemas, and whether its registry takes them
  foretell schema register                          on purpose: `foretell run` never registers anything")]
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
}

/// Checks that schemas keep what they promise; it changes nothing.
///
/// With folders: the files in them. Released files are as they were, every pair of versions that the level speaks of
/// reads each other (apache-avro and our own resolution have to agree), no alias is lost, and everything is described.
/// Without: the folder of `[events] schema`, if it is a version in one, and whether the registry takes all the
/// configuration's schemas. It ends with 0 if nothing failed, with 1 if something did.
#[derive(Args)]
struct Check {
    /// A subject's folder, or one that holds such folders.
    folders: Vec<PathBuf>,
    /// Prints one JSON object on standard output.
    ///
    /// It is `{"ok": …, "checks": [{"name", "status", "detail", "fix"}]}`.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    sets: Sets,
}

/// Registers the configuration's schemas: every version, in order, each subject with its level.
///
/// Versions that are there already keep their ids. The event schema's versions are from then on released: their digests
/// go into `subject.toml`, and they may not change any more.
#[derive(Args)]
struct Register {
    #[command(flatten)]
    sets: Sets,
}

/// Says in words what is different between two schemas, and what it means for readers, writers and the model.
///
/// Without files: the registry's newest event schema, and the configuration's.
#[derive(Args)]
struct Diff {
    /// The schema before.
    #[arg(requires = "new")]
    old: Option<PathBuf>,
    /// The schema after.
    new: Option<PathBuf>,
    /// The records are no events: nothing is said of models.
    #[arg(long)]
    no_model: bool,
    /// Prints one JSON object on standard output.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    sets: Sets,
}

/// Makes the next version of a subject, a draft, and says what it means.
///
/// New fields are nullable and null by default; a renamed field keeps its old name as an alias. Where the newest version
/// is a draft already, that is changed. Nothing is written if the level does not allow it.
#[derive(Args)]
struct Evolve {
    /// The subject's folder.
    folder: PathBuf,
    /// A new field; TYPE is a name such as `string`, or JSON.
    #[arg(long, value_name = "NAME:TYPE", value_parser = add)]
    add: Vec<Edit>,
    /// Another name for a field.
    #[arg(long, value_name = "OLD=NEW", value_parser = rename)]
    rename: Vec<Edit>,
    /// Another type for a field.
    #[arg(long, value_name = "NAME:TYPE", value_parser = retype)]
    retype: Vec<Edit>,
    /// A field less.
    #[arg(long, value_name = "NAME", value_parser = remove)]
    remove: Vec<Edit>,
    /// What a field is, in a sentence.
    #[arg(long, value_name = "NAME=SENTENCE", value_parser = describe)]
    doc: Vec<Edit>,
    /// Shows the schema on standard output, and writes nothing.
    #[arg(long)]
    dry_run: bool,
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
        }
    }

    pub(super) fn run(&self, global: &Global) -> anyhow::Result<ExitCode> {
        global.log("warn")?;
        match &self.action {
            Action::Check(check) => check.run(global),
            Action::Register(register) => register.run(global),
            Action::Diff(diff) => diff.run(global),
            Action::Evolve(evolve) => evolve.run(),
        }
    }
}

impl Check {
    fn run(&self, global: &Global) -> anyhow::Result<ExitCode> {
        let mut found = Vec::new();
        let mut tell = |finding: CheckResult| {
            if !self.json {
                print(&finding.to_string());
            }
            found.push(finding);
        };
        for folder in &self.folders {
            for history in schemas::histories(folder)? {
                history.check().into_iter().for_each(&mut tell);
            }
        }
        if self.folders.is_empty() {
            let config = Config::load(&global.config, &global.sets)?;
            schemas::check_registry(&config, &mut tell)?;
        }
        let report = Report::of(found);
        print(&if self.json { serde_json::to_string(&report)? } else { report.to_string() });
        Ok(if report.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

impl Register {
    fn run(&self, global: &Global) -> anyhow::Result<ExitCode> {
        let config = Config::load(&global.config, &global.sets)?;
        let mut tell = |Registered { subject, level, ids, new }: Registered| {
            let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
            let level = level.unwrap_or("no level of its own");
            print(&format!("{subject}: ids {}, {new} of them new; {level}", ids.join(", ")));
        };
        schemas::register(&config, &mut tell)?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Diff {
    fn run(&self, global: &Global) -> anyhow::Result<ExitCode> {
        let (old, new) = match (&self.old, &self.new) {
            (Some(old), Some(new)) => (schemas::read_schema(old)?, schemas::read_schema(new)?),
            (_, _) => {
                let config = Config::load(&global.config, &global.sets)?;
                schemas::registered_and_configured(&config)?
            }
        };
        let difference = schemas::difference(&old, &new, !self.no_model)?;
        print(&if self.json {
            serde_json::to_string(&difference)?
        } else {
            difference.to_string()
        });
        Ok(ExitCode::SUCCESS)
    }
}

impl Evolve {
    fn run(&self) -> anyhow::Result<ExitCode> {
        let histories = schemas::histories(&self.folder)?;
        let [history] = histories.as_slice() else {
            anyhow::bail!(
                "{} holds {} subjects: name one of them",
                self.folder.display(),
                histories.len()
            );
        };
        let lists = [&self.rename, &self.retype, &self.remove, &self.add, &self.doc];
        let edits: Vec<Edit> = lists.into_iter().flatten().cloned().collect();
        anyhow::ensure!(
            !edits.is_empty(),
            "nothing is to be changed: see `foretell schema evolve --help`"
        );
        let next = schemas::evolve(history, &edits)?;
        let before = history.newest();
        let difference = schemas::difference(&before.schema, &next.schema, true)?;
        if self.dry_run {
            print(next.text.trim_end());
            return Ok(ExitCode::SUCCESS);
        }
        let problems = problems(history, &next);
        anyhow::ensure!(
            problems.is_empty(),
            "{} does not allow this, and nothing was written: {}",
            history.level.name(),
            problems.join("; ")
        );
        next.write()?;
        print(&difference_of(&difference, &next));
        Ok(ExitCode::SUCCESS)
    }
}

/// What the next version would break that the folder promises; what it lacks in words can still be added.
fn problems(history: &schemas::History, next: &Version) -> Vec<String> {
    let mut after = history.clone();
    after.versions.retain(|version| version.number < next.number);
    after.versions.push(next.clone());
    let failed = after.check().into_iter().filter(|finding| finding.fix.is_some());
    let failed = failed.filter(|finding| !finding.name.ends_with(" docs"));
    failed.map(|finding| finding.detail).collect()
}

fn difference_of(difference: &Difference, next: &Version) -> String {
    format!(
        "{difference}\n{} is a draft: change it as you like, until `foretell schema register`",
        next.path.display()
    )
}

fn pair(text: &str, between: char) -> Result<(String, String), String> {
    let (left, right) =
        text.split_once(between).ok_or_else(|| format!("there is no {between:?} in it"))?;
    let (left, right) = (left.trim(), right.trim());
    if left.is_empty() || right.is_empty() {
        return Err(format!("something is missing beside {between:?}"));
    }
    Ok((left.to_owned(), right.to_owned()))
}

fn add(text: &str) -> Result<Edit, String> {
    pair(text, ':').map(|(name, kind)| Edit::Add { name, kind })
}

fn rename(text: &str) -> Result<Edit, String> {
    pair(text, '=').map(|(from, to)| Edit::Rename { from, to })
}

fn retype(text: &str) -> Result<Edit, String> {
    pair(text, ':').map(|(name, kind)| Edit::Retype { name, kind })
}

#[expect(clippy::unnecessary_wraps, reason = "the form that clap asks for")]
fn remove(text: &str) -> Result<Edit, String> {
    Ok(Edit::Remove { name: text.to_owned() })
}

fn describe(text: &str) -> Result<Edit, String> {
    pair(text, '=').map(|(name, doc)| Edit::Describe { name, doc })
}

#[expect(clippy::print_stdout, reason = "the command's result")]
fn print(line: &str) {
    println!("{line}");
}

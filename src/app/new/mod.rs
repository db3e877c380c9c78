//! `foretell new`: makes an application from a CSV file that nobody has tuned for it.
//!
//! ```text
//!  file ─▶ source: text ─▶ dialect ─▶ rows ─▶ column, labels: what is known ─▶ decide: form and role of each column
//!                                     rows ─▶ table: class and time of each row ─▶ split
//!                                     rows ─▶ table: data/initial.csv, data/play.csv
//!                                             files: the schema, foretell.toml, README.md
//! ```
//! The file is read four times, so that memory is bounded by the number of columns and not by its size. It stays as it is; why the
//! tables are copies is in `docs/decisions/030-new-writes-clean-tables.md`.

mod column;
mod decide;
mod dialect;
mod files;
mod form;
mod labels;
mod names;
mod progress;
mod report;
mod rows;
mod source;
mod split;
mod table;
#[cfg(test)]
mod tests;
mod units;
mod values;

use std::{
    collections::BTreeSet,
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};

pub use crate::app::new::{
    dialect::HeaderChoice,
    report::{ColumnReport, LabelReport, Report},
    split::SplitRule,
    values::{DayOrder, DecimalMark},
};
use crate::{
    app::{
        generate,
        new::{
            column::ColumnSummary,
            decide::{ColumnPlan, Decisions, NamedColumns, Role},
            dialect::{Dialect, DialectChoice},
            files::Application,
            form::FileForm,
            labels::Classes,
            progress::Steps,
            source::Source,
            split::Split,
            table::{Conversion, Dropped, FileTable},
            values::MissingMarks,
        },
    },
    config::Config,
};

/// What the user wants, and what they know about the file.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The CSV file.
    pub file: PathBuf,
    /// The folder to write.
    pub folder: PathBuf,
    /// Name of the application; unset: that of the folder.
    pub id: Option<String>,
    /// Names of columns.
    pub label: Option<String>,
    pub respondent_id: Option<String>,
    pub event_time: Option<String>,
    pub ignored: Vec<String>,
    pub used: Vec<String>,
    /// The positive one of two labels.
    pub positive: Option<String>,
    /// The texts that mean "no answer", in place of the default ones.
    pub missing: Option<Vec<String>>,
    pub delimiter: Option<u8>,
    pub header: HeaderChoice,
    pub encoding: Option<String>,
    pub decimal: Option<DecimalMark>,
    pub dates: Option<DayOrder>,
    /// Whether existing files are replaced.
    pub force: bool,
    /// Whether only the tables are written again.
    pub data_only: bool,
}

const CONFIGURATION: &str = "foretell.toml";
const README: &str = "README.md";
const INITIAL: &str = "data/initial.csv";
const PLAY: &str = "data/play.csv";

/// Gets the name of the pass over the file, the bytes read, and the bytes of the file. An error stops the command.
pub type Observer<'a> = dyn FnMut(&'static str, u64, u64) -> anyhow::Result<()> + 'a;

/// Makes the application, and returns what was assumed.
///
/// # Errors
/// If the file cannot be used as it is; the message says what to do. Files that exist are replaced with `force` only.
pub fn new(request: &Request, observer: &mut Observer<'_>) -> anyhow::Result<Report> {
    let id = id_of(request)?;
    let paths = Paths::new(&request.folder, &id);
    paths.check(request)?;
    let mut steps = Steps::new(observer);
    let path = request.file.display().to_string();
    let source = Source::open(&request.file, request.encoding.as_deref(), &mut steps)?;
    let choice = DialectChoice { delimiter: request.delimiter, header: request.header };
    let dialect = Dialect::find(&source, choice, &path)?;
    let marks = MissingMarks::new(request.missing.as_deref());
    let table = FileTable { source: &source, dialect: &dialect, path, marks: &marks };
    let Some(label) = &request.label else {
        let (summaries, _) = table.summarise(None, &mut steps)?;
        bail!("{}", candidates(&summaries));
    };
    let labels = if request.data_only { Some(paths.labels()?) } else { None };
    let understood = understand(&table, label, request, labels.as_deref(), &mut steps)?;
    let Understood { decisions, classes, .. } = &understood;
    let conversion = Conversion { columns: &decisions.columns, classes };
    let (rows, dropped) = table.measure(&conversion, &mut steps)?;
    let has_times = decisions.columns.iter().any(|column| column.role == Role::EventTime);
    let split = Split::of(&rows, classes.classes.len(), has_times);
    let split = split.with_context(|| table.path.clone())?;
    let mut report = report(request, &table, &understood, (&split, dropped));
    let application = Application {
        id: &id,
        columns: &decisions.columns,
        classes: &classes.classes,
        report: &report,
    };
    if request.data_only {
        paths.check_same_fields(&application)?;
    }
    let tables = |initial: &mut dyn Write| {
        generate::write_file(&paths.in_folder(PLAY), true, |play| {
            table.write(&conversion, &split, [initial, play], &mut steps)
        })
    };
    paths.make_folders()?;
    generate::write_file(&paths.in_folder(INITIAL), true, tables)?;
    let mut written = vec![paths.in_folder(INITIAL), paths.in_folder(PLAY)];
    if !request.data_only {
        written.extend(paths.write_texts(&application)?);
    }
    report.written = written;
    Ok(report)
}

/// What is known of a file after all of it was read once.
struct Understood {
    summaries: Vec<ColumnSummary>,
    classes: Classes,
    decisions: Decisions,
}

fn understand(
    table: &FileTable<'_>,
    label: &str,
    request: &Request,
    spelled: Option<&[String]>,
    steps: &mut Steps<'_>,
) -> anyhow::Result<Understood> {
    let named = named_columns(&table.dialect.names, label, request)?;
    let (summaries, labels) = table.summarise(Some(named.label), steps)?;
    let classes = labels.classes(label, request.positive.as_deref());
    let mut classes = classes.with_context(|| table.path.clone())?;
    if let Some(spelled) = spelled {
        classes.spell(spelled).with_context(|| table.path.clone())?;
    }
    let delimiter = table.dialect.delimiter;
    let form = FileForm::of(&summaries, request.decimal, request.dates, delimiter);
    let decisions = decide::decide(&summaries, &form, &named, (&labels, &classes));
    let decisions = decisions.with_context(|| table.path.clone())?;
    Ok(Understood { summaries, classes, decisions })
}

fn report(
    request: &Request,
    table: &FileTable<'_>,
    Understood { summaries, classes, decisions }: &Understood,
    (split, dropped): (&Split, Dropped),
) -> Report {
    let FileTable { source, dialect, .. } = table;
    Report {
        file: file_name(&request.file),
        encoding: source.encoding.name().to_owned(),
        encoding_reason: source.encoding_reason.clone(),
        delimiter: dialect.delimiter_name(),
        has_header: dialect.has_header,
        rows_skipped: dialect.preamble,
        rows: summaries.first().map_or(0, |column| column.rows),
        rows_initial: split.is_played.len() - split.played,
        rows_played: split.played,
        split: split.rule,
        rows_without_label: dropped.no_label,
        rows_without_respondent: dropped.no_respondent,
        rows_without_event_time: dropped.no_event_time,
        columns: decisions.columns.iter().map(ColumnPlan::report).collect(),
        labels: labels_of(classes),
        missing_marks: decisions.missing_marks.clone(),
        notes: notes_of(source, dialect, decisions),
        warnings: decisions.warnings.clone(),
        written: Vec::new(),
    }
}

/// The folder that is made for a file if the user names none: beside the current one, called as the file.
#[must_use]
pub fn folder_of(file: &Path) -> PathBuf {
    let name = file_name(file);
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
    PathBuf::from(names::of_application(stem))
}

fn file_name(file: &Path) -> String {
    file.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

fn id_of(request: &Request) -> anyhow::Result<String> {
    let Some(id) = &request.id else {
        return Ok(names::of_application(&file_name(&request.folder)));
    };
    let is_valid = |character: char| character.is_ascii_alphanumeric() || "._-".contains(character);
    anyhow::ensure!(
        !id.is_empty() && id.chars().all(is_valid),
        "--id {id:?} may have letters, digits, `.`, `_` and `-` only"
    );
    Ok(id.clone())
}

/// The files of an application.
struct Paths {
    folder: PathBuf,
    schema: PathBuf,
    subject: PathBuf,
}

impl Paths {
    fn new(folder: &Path, id: &str) -> Self {
        let subject = folder.join("schemas").join(files::namespace(id));
        Self {
            folder: folder.to_owned(),
            schema: subject.join("v1.avsc"),
            subject: subject.join("subject.toml"),
        }
    }

    fn in_folder(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Checks that no file is replaced by mistake, and that the file to read is not among them.
    fn check(&self, request: &Request) -> anyhow::Result<()> {
        let folder = self.folder.display();
        let tables = [self.in_folder(INITIAL), self.in_folder(PLAY)];
        let is_source = |path: &PathBuf| {
            fs::canonicalize(path)
                .ok()
                .is_some_and(|path| fs::canonicalize(&request.file).ok() == Some(path))
        };
        anyhow::ensure!(
            !tables.iter().any(is_source),
            "{} is a table that `foretell new` has written: name the file that it was made from",
            request.file.display()
        );
        if request.data_only {
            let configuration = self.in_folder(CONFIGURATION);
            anyhow::ensure!(
                configuration.is_file(),
                "--data-only writes the tables of an application again, and there is no {}",
                configuration.display()
            );
            return Ok(());
        }
        let others = [
            self.schema.clone(),
            self.subject.clone(),
            self.in_folder(README),
            self.in_folder(CONFIGURATION),
        ];
        let existing: Vec<String> = others
            .iter()
            .chain(&tables)
            .filter(|path| path.exists())
            .map(|path| path.strip_prefix(&self.folder).unwrap_or(path).display().to_string())
            .collect();
        anyhow::ensure!(
            existing.is_empty() || request.force,
            "{folder} has {} already: choose another folder with --directory, replace them with --force, or write only the tables \
             again with --data-only",
            existing.join(", ")
        );
        Ok(())
    }

    /// The labels of the configuration that is there.
    fn labels(&self) -> anyhow::Result<Vec<String>> {
        let config = Config::load(&self.in_folder(CONFIGURATION), &[]);
        Ok(config.context("--data-only cannot read the labels")?.classes)
    }

    /// Checks that the tables fit the schema that is there.
    fn check_same_fields(&self, application: &Application<'_>) -> anyhow::Result<()> {
        let path = self.schema.display();
        let text = fs::read_to_string(&self.schema)
            .with_context(|| format!("--data-only cannot read the schema {path}"))?;
        let fields = |text: &str| -> Option<Vec<(String, String)>> {
            let schema: serde_json::Value = serde_json::from_str(text).ok()?;
            let fields = schema.get("fields")?.as_array()?;
            fields
                .iter()
                .map(|field| Some((field.get("name")?.to_string(), field.get("type")?.to_string())))
                .collect()
        };
        let there = fields(&text).with_context(|| format!("{path} is no Avro record"))?;
        let wanted = fields(&application.schema()).unwrap_or_default();
        let differing: Vec<&str> = wanted
            .iter()
            .filter(|field| !there.contains(field))
            .chain(there.iter().filter(|field| !wanted.contains(field)))
            .map(|(name, _)| name.as_str())
            .collect();
        let differing: BTreeSet<&str> = differing.into_iter().collect();
        anyhow::ensure!(
            differing.is_empty(),
            "the file no longer fits {path}: {} differ, so the tables are as they were. Evolve the schema with `foretell schema evolve`, use the \
             flags that the application was made with, or make another application with --directory",
            differing.into_iter().collect::<Vec<_>>().join(", ")
        );
        Ok(())
    }

    /// Writes the files besides the tables; the configuration is the last, so that it is there once all others are.
    fn write_texts(&self, application: &Application<'_>) -> anyhow::Result<[PathBuf; 4]> {
        let texts = [
            (self.schema.clone(), application.schema()),
            (self.subject.clone(), files::SUBJECT.to_owned()),
            (self.in_folder(README), application.readme()),
            (self.in_folder(CONFIGURATION), application.configuration()),
        ];
        for (path, text) in &texts {
            generate::write_file(path, true, |to| Ok(to.write_all(text.as_bytes())?))?;
        }
        Ok(texts.map(|(path, _)| path))
    }

    fn make_folders(&self) -> anyhow::Result<()> {
        for path in [&self.schema, &self.in_folder(INITIAL)] {
            let folder = path.parent().unwrap_or(path);
            fs::create_dir_all(folder)
                .with_context(|| format!("cannot make the folder {}", folder.display()))?;
        }
        Ok(())
    }
}

/// The columns that the user names.
fn named_columns(names: &[String], label: &str, request: &Request) -> anyhow::Result<NamedColumns> {
    let one = |flag: &str, name: &Option<String>| {
        name.as_deref().map(|name| index_of(names, flag, name)).transpose()
    };
    let many = |flag: &str, listed: &[String]| {
        listed.iter().map(|name| index_of(names, flag, name)).collect::<anyhow::Result<Vec<_>>>()
    };
    let named = NamedColumns {
        label: index_of(names, "--label", label)?,
        respondent_id: one("--respondent-id", &request.respondent_id)?,
        event_time: one("--event-time", &request.event_time)?,
        ignored: many("--ignore", &request.ignored)?,
        used: many("--use", &request.used)?,
    };
    let roles = [Some(named.label), named.respondent_id, named.event_time];
    let all = roles.into_iter().flatten().chain(named.ignored.iter().chain(&named.used).copied());
    let mut all: Vec<usize> = all.collect();
    all.sort_unstable();
    if let Some(pair) = all.windows(2).find(|pair| pair[0] == pair[1]) {
        bail!("column {:?} is named by two options: name it once", names[pair[0]]);
    }
    Ok(named)
}

/// The column with this name, or else with this name in another case or as a field.
fn index_of(names: &[String], flag: &str, name: &str) -> anyhow::Result<usize> {
    let matches = |is_same: &dyn Fn(&str) -> bool| -> Vec<usize> {
        (0..names.len()).filter(|index| is_same(&names[*index])).collect()
    };
    let wanted = names::valid(name).map(|name| name.to_lowercase());
    for found in [
        matches(&|other| other == name),
        // Columns without names are named by their numbers.
        matches(&|other| other.strip_prefix("column_") == Some(name.trim())),
        matches(&|other| other.trim().eq_ignore_ascii_case(name.trim())),
        matches(&|other| {
            wanted.is_some() && names::valid(other).map(|other| other.to_lowercase()) == wanted
        }),
    ] {
        match found[..] {
            [] => {}
            [only] => return Ok(only),
            [..] => bail!(
                "{flag} {name:?} names {} columns: give them different names in the file",
                found.len()
            ),
        }
    }
    let distance =
        |other: &String| strsim::damerau_levenshtein(&other.to_lowercase(), &name.to_lowercase());
    let nearest = names.iter().min_by_key(|other| distance(other));
    let nearest = nearest.filter(|other| distance(other) * 2 <= other.chars().count().max(1));
    let hint = nearest.map_or_else(String::new, |nearest| format!(" Did you mean {nearest:?}?"));
    bail!("{flag}: there is no column {name:?}.{hint} The file has {}", listed(names))
}

/// Names for a message: not all of many.
fn listed(names: &[String]) -> String {
    const NAMES: usize = 50;
    let shown: Vec<String> = names.iter().take(NAMES).map(|name| format!("{name:?}")).collect();
    let more = names.len().saturating_sub(NAMES);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    shown.join(", ") + &more
}

/// The message if the user names no label: the columns that may be one.
fn candidates(summaries: &[ColumnSummary]) -> String {
    const CLASSES_MAX: usize = 20;
    const WORDS: &[&str] = &[
        "label",
        "outcome",
        "target",
        "class",
        "y",
        "result",
        "response",
        "converted",
        "churn",
        "churned",
        "survived",
        "status",
    ];
    let mut found: Vec<(bool, usize, &ColumnSummary)> = summaries
        .iter()
        .enumerate()
        .filter(|(_, column)| {
            (2..=CLASSES_MAX).contains(&column.values.len()) && !column.has_more_values
        })
        .map(|(index, column)| {
            let words = form::words_of(&column.name);
            (!words.iter().any(|word| WORDS.contains(&word.as_str())), index, column)
        })
        .collect();
    // Named as a label first, then from the last column on.
    found.sort_by_key(|(is_other, index, _)| (*is_other, std::cmp::Reverse(*index)));
    let shown = found.iter().take(10).map(|(_, _, column)| {
        let values: Vec<String> =
            column.values.keys().take(4).map(|value| format!("{value:?}")).collect();
        let more = if column.values.len() > 4 { ", …" } else { "" };
        format!(
            "  --label {:?}  ({} values: {}{more})",
            column.name,
            column.values.len(),
            values.join(", ")
        )
    });
    let shown: Vec<String> = shown.collect();
    let names: Vec<String> = summaries.iter().map(|column| column.name.clone()).collect();
    if shown.is_empty() {
        return format!(
            "name the column to predict with --label. No column has from 2 to {CLASSES_MAX} values; there are {}",
            listed(&names)
        );
    }
    format!("name the column to predict with --label, such as\n{}", shown.join("\n"))
}

fn labels_of(classes: &Classes) -> Vec<LabelReport> {
    let classes = classes.classes.iter();
    classes.map(|class| LabelReport { label: class.name.clone(), rows: class.rows }).collect()
}

fn notes_of(source: &Source, dialect: &Dialect, decisions: &Decisions) -> Vec<String> {
    let mut notes = Vec::new();
    if source.is_compressed {
        notes.push("the file is compressed with gzip".to_owned());
    }
    if dialect.has_escapes {
        notes.push("quotes inside of cells have a backslash before them".to_owned());
    }
    if dialect.quote == b'\'' {
        notes.push("cells are enclosed in single quotes".to_owned());
    }
    notes.extend(decisions.notes.iter().cloned());
    notes
}

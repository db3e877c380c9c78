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
mod encoding;
mod files;
mod form;
mod ids;
mod labels;
mod names;
mod options;
mod paths;
mod plan;
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
use crate::app::{
    generate,
    new::{
        column::ColumnSummary,
        decide::Decisions,
        dialect::{Dialect, DialectChoice},
        files::Application,
        form::FileForm,
        labels::Classes,
        paths::Paths,
        plan::{ColumnPlan, Role},
        progress::Steps,
        source::Source,
        split::Split,
        table::{Conversion, Dropped, FileTable},
        values::MissingMarks,
    },
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
    /// Names of columns; `ignored` and `used` are lists that are separated by commas.
    pub label: Option<String>,
    pub respondent_id: Option<String>,
    pub event_time: Option<String>,
    pub ignored: Vec<String>,
    pub used: Vec<String>,
    /// The positive one of two labels.
    pub positive: Option<String>,
    /// Lists of the texts that mean "no answer", in place of the default ones.
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
    let missing = request.missing.as_ref();
    let missing: Option<Vec<String>> =
        missing.map(|lists| lists.iter().flat_map(|list| options::items_of(list)).collect());
    let marks = MissingMarks::new(missing.as_deref());
    let table = FileTable { source: &source, dialect: &dialect, path, marks: &marks };
    let Some(label) = &request.label else {
        let (summaries, _) = table.summarise(None, &mut steps)?;
        bail!("{}", options::candidates(&summaries));
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
    let named = options::named_columns(&table.dialect.names, label, request)?;
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
        warnings: source.warning.iter().chain(&decisions.warnings).cloned().collect(),
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

//! `foretell new`

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, ValueEnum};

use crate::{
    app::{
        new::{self, ColumnReport, DayOrder, DecimalMark, HeaderChoice, Report, Request},
        shutdown::{self, Shutdown},
    },
    cli::{Global, print, progress::Progress},
};

/// Make an application from a CSV file: the event schema, the configuration, a README and two tables.
///
/// The file has a row for each person or visit, and a column with what happened in the end: the label. It may come from a
/// spreadsheet, pandas, R or a database: the encoding, the delimiter, decimal commas, dates and marks of missing values are
/// found, and a table says what was assumed about each column and why. The file stays as it is. Then `foretell demo` runs on it.
/// No broker is needed.
#[derive(Args)]
#[command(after_help = "\
Examples:
  foretell new visits.csv                              list the columns that may be the label
  foretell new visits.csv --label outcome              make the application in the folder visits
  foretell demo --config visits/foretell.toml          run it
  foretell new export.csv.gz --label Churned --directory churn --event-time 'Signed up' --dates dmy
  foretell new rows.csv --label 5 --header no --ignore 1,2
  foretell new visits.csv --label outcome --ignore 'Name, first' --ignore notes,agent
  foretell new visits.csv --label outcome --data-only  write the tables again from newer rows")]
pub(super) struct New {
    /// The file: CSV with any of the usual delimiters and encodings, also compressed with gzip.
    file: PathBuf,
    /// The column to predict. Without it, the columns that may be one are listed.
    #[arg(long, value_name = "COLUMN")]
    label: Option<String>,
    /// The folder to write. Unset: one in the current folder, called as the file.
    #[arg(short, long, value_name = "FOLDER")]
    directory: Option<PathBuf>,
    /// Name of the application. Unset: that of the folder.
    #[arg(long, value_name = "NAME")]
    id: Option<String>,
    /// The column that says who. Unset: an id that differs from row to row, or none.
    #[arg(long, value_name = "COLUMN")]
    respondent_id: Option<String>,
    /// The column that says when. Unset: the only date or time that every row has, or none.
    #[arg(long, value_name = "COLUMN")]
    event_time: Option<String>,
    /// Columns to leave out, separated by commas; repeatable. A value that is the name of a column is this column, also with commas;
    /// in a list, such a name has quotes around it.
    #[arg(long, value_name = "COLUMNS")]
    ignore: Vec<String>,
    /// Columns to learn from although they look like ids or free text; listed as for `--ignore`.
    #[arg(long = "use", value_name = "COLUMNS")]
    used: Vec<String>,
    /// The positive one of two labels. Unset: the one that is not `no`, `false` or `0`, or else the rarer one.
    #[arg(long, value_name = "LABEL")]
    positive: Option<String>,
    /// Texts that mean "no answer", separated by commas, in place of NA, N/A, NULL, None, NaN, ?, - and the like; repeatable. A text
    /// with a comma has quotes around it.
    #[arg(long, value_name = "TEXTS")]
    missing: Option<Vec<String>>,
    /// The character between two cells; `tab` is a tab. Unset: the one of , ; tab | that makes a table.
    #[arg(long, value_name = "CHARACTER", value_parser = delimiter)]
    delimiter: Option<u8>,
    /// Whether the first row names the columns. Without names, they are `column_1`, `column_2`, or just their numbers.
    #[arg(long, value_enum, default_value_t)]
    header: Header,
    /// The character encoding, such as utf-8, utf-16le or windows-1252. Unset: it is found from the bytes.
    #[arg(long, value_name = "NAME")]
    encoding: Option<String>,
    /// The decimal mark of numbers: `.` or `,`. Unset: it is found from the numbers.
    #[arg(long, value_name = "MARK", value_parser = decimal_mark)]
    decimal: Option<DecimalMark>,
    /// The order of day and month in dates such as 05/04/2026. Unset: it is found from the dates.
    #[arg(long, value_enum)]
    dates: Option<Dates>,
    /// Replace the files of an application.
    #[arg(long, conflicts_with = "data_only")]
    force: bool,
    /// Write only the tables of an application again, such as from newer rows. The fields have to be the same.
    #[arg(long)]
    data_only: bool,
    /// Print one JSON object on standard output, and nothing else.
    #[arg(long)]
    json: bool,
}

// A doc comment on a variant would be shown in the help.
#[derive(Clone, Copy, Default, ValueEnum)]
enum Header {
    #[default]
    Guess,
    Yes,
    No,
}

#[derive(Clone, Copy, ValueEnum)]
enum Dates {
    Dmy,
    Mdy,
}

fn delimiter(text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        [byte] if byte.is_ascii() && !byte.is_ascii_alphanumeric() && *byte != b'"' => Ok(*byte),
        _ if text == "tab" || text == "\\t" => Ok(b'\t'),
        _ => {
            Err("it must be one ASCII character that is no letter, digit or quote; or `tab`"
                .to_owned())
        }
    }
}

fn decimal_mark(text: &str) -> Result<DecimalMark, String> {
    match text {
        "." => Ok(DecimalMark::Point),
        "," => Ok(DecimalMark::Comma),
        _ => Err("it must be `.` or `,`".to_owned()),
    }
}

impl New {
    pub(super) fn run(&self, global: &Global) -> anyhow::Result<ExitCode> {
        global.log("warn")?;
        let shutdown = Shutdown::default();
        let _signals = shutdown::stop_when_asked(&shutdown)?;
        let mut progress = Progress::new();
        let mut observer = |pass: &'static str, done: u64, of: u64| {
            progress.bar(pass, of).set_position(done);
            anyhow::ensure!(!shutdown.signal().is_stopped(), "stopped before the end");
            Ok(())
        };
        let request = self.request();
        let made = new::new(&request, &mut observer);
        progress.finish();
        let report = made?;
        print(&if self.json { serde_json::to_string(&report)? } else { text(&report, &request) });
        Ok(ExitCode::SUCCESS)
    }

    fn request(&self) -> Request {
        Request {
            file: self.file.clone(),
            folder: self.directory.clone().unwrap_or_else(|| new::folder_of(&self.file)),
            id: self.id.clone(),
            label: self.label.clone(),
            respondent_id: self.respondent_id.clone(),
            event_time: self.event_time.clone(),
            ignored: self.ignore.clone(),
            used: self.used.clone(),
            positive: self.positive.clone(),
            missing: self.missing.clone(),
            delimiter: self.delimiter,
            header: match self.header {
                Header::Guess => HeaderChoice::Guess,
                Header::Yes => HeaderChoice::Yes,
                Header::No => HeaderChoice::No,
            },
            encoding: self.encoding.clone(),
            decimal: self.decimal,
            dates: self.dates.map(|dates| match dates {
                Dates::Dmy => DayOrder::DayFirst,
                Dates::Mdy => DayOrder::MonthFirst,
            }),
            force: self.force,
            data_only: self.data_only,
        }
    }
}

fn text(report: &Report, request: &Request) -> String {
    let mut rows = vec![
        ["column", "field", "type", "used as", "missing", "example", "why"].map(str::to_owned),
    ];
    rows.extend(report.columns.iter().map(|column| {
        let ColumnReport { name, field, kind, role, missing, example, why } = column;
        let missing =
            if *missing > 0.0 { format!("{:.1}%", missing * 100.0) } else { "-".to_owned() };
        let shown = |text: &str| shortened(text);
        let field = if name == field { "=" } else { field };
        [
            shown(name),
            shown(field),
            (*kind).to_owned(),
            (*role).to_owned(),
            missing,
            shown(example),
            why.clone(),
        ]
    }));
    let mut lines = left_aligned(&rows);
    lines.push(String::new());
    lines.extend(report.lines());
    lines.push(String::new());
    lines.push(format!(
        "wrote {}",
        report.written.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
    ));
    lines.push(
        "to change what a column is used as: --ignore, --use, --respondent-id, --event-time with --force, or edit foretell.toml (README.md \
         says how)"
            .to_owned(),
    );
    let configuration = request.folder.join("foretell.toml");
    let configuration = quoted(&configuration.display().to_string());
    lines.push(format!("next: foretell demo --config {configuration}"));
    lines.join("\n")
}

/// A path as a word of a shell.
fn quoted(path: &str) -> String {
    let is_plain =
        |character: char| character.is_alphanumeric() || "/._-+:=@,%".contains(character);
    if path.chars().all(is_plain) {
        path.to_owned()
    } else {
        format!("'{}'", path.replace('\'', "'\\''"))
    }
}

/// A text on one line, of at most 32 characters.
fn shortened(text: &str) -> String {
    const LENGTH_MAX: usize = 32;
    let line = text.chars().map(|character| if character.is_control() { ' ' } else { character });
    let line: String = line.collect();
    if line.chars().count() <= LENGTH_MAX {
        return line;
    }
    line.chars().take(LENGTH_MAX - 1).chain(['…']).collect()
}

/// Lines of a table; the last column has no padding.
fn left_aligned(rows: &[[String; 7]]) -> Vec<String> {
    let width =
        |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..7).map(width).collect();
    let line = |row: &[String; 7]| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delimiters_and_decimal_marks() {
        assert_eq!(delimiter(";"), Ok(b';'));
        assert_eq!(delimiter("tab"), Ok(b'\t'));
        assert_eq!(delimiter("\\t"), Ok(b'\t'));
        for wrong in ["", ";;", "a", "\"", "ä"] {
            assert!(delimiter(wrong).is_err(), "{wrong}");
        }
        assert_eq!(decimal_mark(","), Ok(DecimalMark::Comma));
        assert!(decimal_mark("'").is_err());
    }

    #[test]
    fn paths_are_words_of_a_shell() {
        assert_eq!(quoted("visits/foretell.toml"), "visits/foretell.toml");
        assert_eq!(quoted("my visits/it's.toml"), "'my visits/it'\\''s.toml'");
    }

    #[test]
    fn long_texts_are_cut() {
        assert_eq!(shortened("a\nb"), "a b");
        assert_eq!(shortened(&"ö".repeat(40)), format!("{}…", "ö".repeat(31)));
    }
}

//! Reads a table of answers and labels from a CSV file, which may be compressed with gzip.

use std::{
    borrow::Cow,
    fs::File,
    io::{self, BufReader, Read},
    path::{Path, PathBuf},
};

use flate2::read::MultiGzDecoder;
use sha2::{Digest as _, Sha256};

pub use crate::app::timed_outcomes::TimedOutcome;
use crate::{
    app::{
        table_columns::{self, ColumnRole},
        timed_outcomes,
    },
    config::{Config, TableSettings},
    events::{
        label,
        questionnaire::{AnswerRef, AnswerRow, EntryError, QuestionnaireSchema, RowLayout},
    },
};
use foretell_streams::time::EventTime;

/// The answers of one respondent, in the layout of the schema, and the label.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    pub answers: AnswerRow,
    pub label: String,
    /// Empty without a column for it. `send` and `demo` use it, like the other metadata; models do not learn from it.
    pub respondent_id: String,
    /// Empty without a column for it.
    pub event_id: String,
    /// None without a column for it.
    pub event_time: Option<EventTime>,
    /// What happens after the event, in order of time; none without a column for it.
    pub outcomes: Option<Vec<TimedOutcome>>,
    /// What happens if an action was requested; none without a column for it.
    pub outcomes_if_acted: Option<Vec<TimedOutcome>>,
    /// The true probability of each label; empty without columns for them.
    pub truth: Vec<f64>,
}

/// The rows of a file. Equal rows with the same column names and types have the same digest.
#[derive(Clone, Debug)]
pub struct Table {
    /// In the order of the file.
    pub rows: Vec<Row>,
    /// SHA-256 in 64 hexadecimal digits, of the answers that are given with the names of their columns. So it stays the same
    /// when a question is added to the event schema or renamed in it.
    pub digest: String,
    /// The questions without a column.
    pub unanswered: Vec<String>,
}

/// A table that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The file cannot be read.
    #[error("cannot open the data {path}", path = path.display())]
    Unopenable {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The columns do not match the event schema or the configuration.
    #[error("{path}: {problem}", path = path.display())]
    Columns {
        /// The file.
        path: PathBuf,
        /// The problem, and what to change.
        problem: String,
    },
    /// A row cannot be read.
    #[error("{path}, line {line}: {problem}", path = path.display())]
    Row {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: u64,
        /// The problem.
        problem: String,
    },
}

/// Reads the rows of a whole table.
///
/// # Errors
/// See [`load`].
pub fn read(table: &TableSettings, schema: &QuestionnaireSchema) -> Result<Vec<Row>, TableError> {
    Ok(load(table, schema, &[])?.rows)
}

/// Reads the table of the configuration section `key`. Its labels must be among `labels`, unless `labels` is empty.
///
/// # Errors
/// See [`load`]. An error of the file or its columns names the line of the configuration.
pub fn of_configuration(
    config: &Config,
    key: &str,
    table: &TableSettings,
    labels: &[String],
) -> anyhow::Result<Table> {
    load(table, &config.event_schema, labels).map_err(|error| match &error {
        TableError::Unopenable { .. } => {
            let source = config.sources.named(&format!("{key}.path"));
            anyhow::Error::new(error).context(source)
        }
        TableError::Columns { .. } => {
            let source = format!("{}: [{key}]", config.sources.of(key));
            anyhow::Error::new(error).context(source)
        }
        TableError::Row { .. } => error.into(),
    })
}

/// Reads a whole table. Its labels must be among `labels`, unless `labels` is empty.
///
/// # Errors
/// [`TableError`] at the first invalid row, so that no model is trained on a part of the data.
pub fn load(
    table: &TableSettings,
    schema: &QuestionnaireSchema,
    labels: &[String],
) -> Result<Table, TableError> {
    let path = &table.path;
    let text = contents(path)?;
    let comment = table.comment.and_then(|mark| u8::try_from(mark).ok());
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(u8::try_from(table.delimiter).unwrap_or(b','))
        .comment(comment)
        .has_headers(table.columns.is_empty())
        .trim(csv::Trim::All)
        .from_reader(text.as_slice());
    let invalid_row = |position: Option<&csv::Position>, problem: String| {
        let line = position.map_or(1, |position| line_at(&text, position.byte(), comment));
        TableError::Row { path: path.clone(), line, problem }
    };
    let unreadable = |error: csv::Error| invalid_row(error.position(), without_position(&error));
    let names: Vec<String> = if table.columns.is_empty() {
        reader.headers().map_err(unreadable)?.iter().map(str::to_owned).collect()
    } else {
        table.columns.clone()
    };
    let roles = table_columns::roles_of(&names, table, schema);
    let roles = roles.map_err(|problem| TableError::Columns { path: path.clone(), problem })?;
    let mut digest = Sha256::new();
    let mut rows = Vec::new();
    let mut record = csv::StringRecord::new();
    while reader.read_record(&mut record).map_err(unreadable)? {
        let is_first = rows.is_empty() && !table.columns.is_empty();
        if is_first && is_header(&record, &names) {
            let problem = "it has the names of the columns, which `columns` says that the file lacks: leave out `columns`";
            return Err(invalid_row(record.position(), problem.to_owned()));
        }
        let row = row_of(&record, &roles, (table, labels), schema);
        let row = row.and_then(|mut row| {
            if let Some(class) = label::class_of(&row.label, labels) {
                row.label.clone_from(class);
                return Ok(row);
            }
            if labels.is_empty() {
                return Ok(row);
            }
            let known = labels.join(", ");
            Err(format!(
                "column {:?} is {:?}, which is not one of [outcomes] labels: {known}",
                table.label, row.label
            ))
        });
        let row = row.map_err(|problem| {
            let hint = if is_first {
                "; if this line names the columns, leave out `columns`, which is for files without such a line"
            } else {
                ""
            };
            invalid_row(record.position(), problem + hint)
        })?;
        add_row(&mut digest, &row, schema.layout(), (&roles, &names));
        rows.push(row);
    }
    let is_answered = |index: usize| {
        roles.iter().any(|role| matches!(role, ColumnRole::Question(q) if *q == index))
    };
    let questions = schema.questions().iter().enumerate();
    let unanswered = questions.filter(|(index, _)| !is_answered(*index));
    Ok(Table {
        rows,
        digest: hex::encode(digest.finalize()),
        unanswered: unanswered.map(|(_, question)| question.name.clone()).collect(),
    })
}

/// Whether each cell equals the name of its column.
fn is_header(record: &csv::StringRecord, names: &[String]) -> bool {
    let pairs = record.iter().zip(names).filter(|(_, name)| !name.is_empty());
    record.len() == names.len()
        && pairs.clone().next().is_some()
        && pairs.clone().all(|(cell, name)| cell == name)
}

fn contents(path: &Path) -> Result<Vec<u8>, TableError> {
    let unopenable = |source| TableError::Unopenable { path: path.to_owned(), source };
    let mut file = BufReader::new(File::open(path).map_err(unopenable)?);
    let mut text = Vec::new();
    if path.extension().is_some_and(|extension| extension == "gz") {
        MultiGzDecoder::new(file).read_to_end(&mut text).map_err(unopenable)?;
    } else {
        file.read_to_end(&mut text).map_err(unopenable)?;
    }
    Ok(text)
}

/// The line of the record at `byte`. The CSV reader's position is before what it skips: the rest of a CRLF, empty lines and
/// comments.
fn line_at(text: &[u8], byte: u64, comment: Option<u8>) -> u64 {
    let newlines = |text: &[u8]| text.iter().filter(|byte| **byte == b'\n').count();
    let mut at = usize::try_from(byte).unwrap_or(usize::MAX).min(text.len());
    while let Some(next) = text.get(at) {
        if *next == b'\n' || *next == b'\r' {
            at += 1;
        } else if Some(*next) == comment {
            at = text[at..]
                .iter()
                .position(|byte| *byte == b'\n')
                .map_or(text.len(), |end| at + end);
        } else {
            break;
        }
    }
    u64::try_from(newlines(&text[..at])).unwrap_or(u64::MAX).saturating_add(1)
}

/// The message of a CSV error, without the position that the `csv` crate adds.
#[expect(clippy::wildcard_enum_match_arm, reason = "csv's enum: the other kinds have no position")]
fn without_position(error: &csv::Error) -> String {
    match error.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("{len} fields, expected {expected_len}")
        }
        csv::ErrorKind::Utf8 { err, .. } => format!("column {}: not UTF-8", err.field() + 1),
        _ => error.to_string(),
    }
}

fn row_of(
    record: &csv::StringRecord,
    roles: &[ColumnRole],
    (table, labels): (&TableSettings, &[String]),
    schema: &QuestionnaireSchema,
) -> Result<Row, String> {
    if record.len() != roles.len() {
        return Err(format!("{} fields, expected {}", record.len(), roles.len()));
    }
    let mut row = Row::default();
    let mut answers = vec![None; schema.questions().len()];
    for (text, role) in record.iter().zip(roles) {
        match role {
            ColumnRole::Unused => {}
            ColumnRole::Label => {
                let suffix = table.label_suffix.as_str();
                text.strip_suffix(suffix).unwrap_or(text).clone_into(&mut row.label);
            }
            ColumnRole::RespondentId => {
                row.respondent_id = respondent_of(text, table, schema)?;
            }
            ColumnRole::EventId if !table.is_missing(text) => {
                row.event_id = schema.parse_event_id(text).map_err(cell_problem)?;
            }
            ColumnRole::EventId => {}
            ColumnRole::EventTime => {
                row.event_time = Some(schema.parse_event_time(text).map_err(cell_problem)?);
            }
            ColumnRole::Outcomes => {
                row.outcomes = Some(outcomes_of(text, &table.outcomes, (table, labels))?);
            }
            ColumnRole::OutcomesIfActed => {
                let outcomes = outcomes_of(text, &table.outcomes_if_acted, (table, labels))?;
                row.outcomes_if_acted = Some(outcomes);
            }
            ColumnRole::Truth(label) => {
                let probability = probability_of(text);
                row.truth.resize(table.truth.len(), 0.0);
                row.truth[*label] =
                    probability.map_err(|why| in_column(&table.truth[*label], &why))?;
            }
            ColumnRole::Question(index) => {
                if table.is_missing(text) {
                    continue;
                }
                let question = &schema.questions()[*index];
                answers[*index] = schema.parse_answer(question, text).map_err(cell_problem)?;
            }
        }
    }
    check_truth(&row.truth, table)?;
    row.answers = schema.layout().row_of(&answers);
    Ok(row)
}

/// How much the sum of the true probabilities may differ from 1: they may be rounded.
const ROUNDING_MAX: f64 = 0.01;

fn check_truth(truth: &[f64], table: &TableSettings) -> Result<(), String> {
    let sum: f64 = truth.iter().sum();
    if truth.is_empty() || (sum - 1.0).abs() <= ROUNDING_MAX {
        return Ok(());
    }
    let columns = table.truth.join(", ");
    Err(format!("the true probabilities of the labels ({columns}) have the sum {sum:.3}, not 1"))
}

fn outcomes_of(
    text: &str,
    column: &str,
    (table, labels): (&TableSettings, &[String]),
) -> Result<Vec<TimedOutcome>, String> {
    let text = if table.is_missing(text) { "" } else { text };
    timed_outcomes::parse(text, labels).map_err(|why| in_column(column, &why))
}

fn in_column(column: &str, problem: &str) -> String {
    format!("column {column:?}: {problem}")
}

fn probability_of(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number| (0.0..=1.0).contains(number));
    number.ok_or_else(|| format!("{text:?} is not a probability, from 0 to 1"))
}

/// The respondent of a row. A blank is an error: a made-up id would give the row a respondent of its own, whose outcomes the
/// table does not have.
fn respondent_of(
    text: &str,
    table: &TableSettings,
    schema: &QuestionnaireSchema,
) -> Result<String, String> {
    let id = match table.is_missing(text) {
        true => Cow::Borrowed(""),
        false => schema.respondent_id(text).map_err(cell_problem)?,
    };
    if id.is_empty() {
        let column = &schema.metadata().respondent_id;
        return Err(format!(
            "column {column:?} is {text:?}, so it names no respondent: fill it in, remove the row, or name the column in `skip` if \
             the table is to be used without respondents"
        ));
    }
    Ok(id.into_owned())
}

fn cell_problem(error: EntryError) -> String {
    match error {
        EntryError::WrongValue { field, found, wanted }
        | EntryError::InvalidValue { field, found, wanted } => {
            format!("column {field:?} is {found}: it must be {wanted}")
        }
        EntryError::NotAnObject
        | EntryError::UnknownField { .. }
        | EntryError::MissingField { .. } => error.to_string(),
    }
}

impl TableSettings {
    /// Whether a cell has one of the texts that mean "no answer".
    fn is_missing(&self, text: &str) -> bool {
        self.missing.iter().any(|missing| missing.trim() == text)
    }
}

/// Adds a row to the digest. Each part is preceded by its length, so that different rows have different bytes.
fn add_row(
    digest: &mut Sha256,
    row: &Row,
    layout: &RowLayout,
    (roles, names): (&[ColumnRole], &[String]),
) {
    let mut add = |kind: u8, bytes: &[u8]| {
        digest.update([kind]);
        digest.update(u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_be_bytes());
        digest.update(bytes);
    };
    add(b'l', row.label.as_bytes());
    let answers: Vec<AnswerRef<'_>> = layout.answers(&row.answers).collect();
    for (role, name) in roles.iter().zip(names) {
        let ColumnRole::Question(index) = role else { continue };
        let answer = answers[*index];
        if answer.is_missing() {
            continue;
        }
        add(b'c', name.as_bytes());
        match answer {
            AnswerRef::Missing => {}
            AnswerRef::Number(number) => add(b'n', &number.to_bits().to_be_bytes()),
            // As a model sees it: rounded to the nearest float.
            AnswerRef::Whole(whole) => add(b'n', &(whole as f64).to_bits().to_be_bytes()),
            AnswerRef::Id(id) => add(b't', id.to_string().as_bytes()),
            AnswerRef::Text(text) => add(b't', text.as_bytes()),
            AnswerRef::Flag(flag) => add(b't', if flag { b"true" } else { b"false" }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::events::questionnaire::{MetadataFields, ReadingRules};

    fn schema() -> QuestionnaireSchema {
        let avsc = r#"{"type":"record","name":"R","fields":[
            {"name":"who","type":"string"},{"name":"at","type":"long"},
            {"name":"age","type":["null","int"]},{"name":"job","aliases":["trade"],"type":["null","string"]},
            {"name":"pay","type":["null","string"]},
            {"name":"born","type":["null",{"type":"int","logicalType":"date"}]}]}"#;
        let fields = MetadataFields {
            event_id: None,
            respondent_id: "who".to_owned(),
            event_time: "at".to_owned(),
            completed: None,
        };
        let rules = ReadingRules { numeric: vec!["pay".to_owned()], ..ReadingRules::default() };
        QuestionnaireSchema::new(avsc, &fields, &[]).unwrap().read_as(&rules)
    }

    fn try_load(text: &str, change: impl FnOnce(&mut TableSettings)) -> Result<Table, TableError> {
        let mut file = tempfile::NamedTempFile::with_suffix(".csv").unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let mut table = TableSettings {
            path: file.path().to_owned(),
            columns: Vec::new(),
            skip: Vec::new(),
            label: "out".to_owned(),
            delimiter: ',',
            comment: Some('#'),
            missing: vec!["?".to_owned()],
            label_suffix: String::new(),
            outcomes: String::new(),
            outcomes_if_acted: String::new(),
            truth: Vec::new(),
        };
        change(&mut table);
        load(&table, &schema(), &["no".to_owned(), "yes".to_owned()])
    }

    fn check_invalid(text: &str, words: &[&str]) {
        let message = try_load(text, |_| {}).expect_err(text).to_string();
        for word in words.iter().chain(&[".csv"]) {
            assert!(message.contains(word), "{word:?} is not in {message:?}");
        }
    }

    #[test]
    fn an_error_names_file_line_column_and_value() {
        check_invalid("age,out\n1,no\nold,yes\n", &["line 3", "\"age\"", "\"old\"", "32 bits"]);
        check_invalid("age,out\r\n1,no\r\nold,yes\r\n", &["line 3", "\"old\""]);
        check_invalid("# a\r\nage,out\r\n\r\n# b\r\n\r\nold,yes\r\n", &["line 6"]);
        check_invalid("age,out\n1,no\n2,maybe\n", &["line 3", "\"out\"", "\"maybe\"", "no, yes"]);
        check_invalid("age,out\n1,no\n1,2,no\n", &["line 3", "3 fields"]);
        check_invalid(
            "pay,out\n7.25,no\n\"7,25\",no\n",
            &["line 3", "\"pay\"", "\"7,25\"", "numeric"],
        );
        check_invalid("wage,out\n1,no\n", &["\"wage\"", "age, job"]);
        check_invalid("born,out\n17.5.1990,no\n", &["line 2", "1990-05-17"]);
    }

    #[test]
    fn with_column_names_in_the_configuration_the_file_has_no_header() {
        let columns = |names: &'static [&'static str]| {
            move |table: &mut TableSettings| {
                table.columns = names.iter().map(|name| (*name).to_owned()).collect();
            }
        };
        let rows = try_load("cook,no\nnurse,yes\n", columns(&["job", "out"])).unwrap().rows;
        assert_eq!(rows.len(), 2);
        let check = |text: &str, names, words: &[&str]| {
            let message = try_load(text, columns(names)).expect_err(text).to_string();
            for word in words {
                assert!(message.contains(word), "{word:?} is not in {message:?}");
            }
        };
        // A header of text columns, which is valid apart from its label.
        check("job,out\ncook,no\n", &["job", "out"], &["line 1", "leave out `columns`"]);
        check(
            "years,result\n1,no\n",
            &["age", "out"],
            &["line 1", "if this line names the columns"],
        );
        check_invalid(
            "cook,no\nnurse,yes\n",
            &["\"out\"", "cook, no", "name the columns in `columns`"],
        );
    }

    #[test]
    fn two_columns_of_one_answer_are_invalid() {
        check_invalid("age,job,age,out\n1,a,2,no\n", &["columns 1 and 3", "\"age\""]);
        check_invalid("trade,job,out\n1,a,no\n", &["columns 1 and 2", "\"trade\"", "\"job\""]);
        check_invalid("age,out,out\n1,no,yes\n", &["columns 2 and 3", "\"out\""]);
        let named = |columns: &[&str]| {
            let columns = columns.iter().map(|name| (*name).to_owned()).collect();
            try_load("1,2,no\n", |table| table.columns = columns)
        };
        assert!(named(&["age", "age", "out"]).is_err());
        assert!(named(&["", "", "out"]).is_ok());
    }

    #[test]
    fn metadata_columns_are_read_and_other_columns_must_be_skipped_by_name() {
        let text = "who,at,age,note,out\na,1970-01-01T00:00:01Z,1,x,no\nb,2500,2,y,yes\n";
        check_invalid(text, &["\"note\"", "`skip`"]);
        let skip = |name: &str| {
            let name = name.to_owned();
            try_load(text, move |table| table.skip.push(name))
        };
        let table = skip("note").unwrap();
        let of = |row: &Row| (row.respondent_id.clone(), row.event_time);
        assert_eq!(of(&table.rows[0]), ("a".to_owned(), Some(EventTime(1_000))));
        assert_eq!(of(&table.rows[1]), ("b".to_owned(), Some(EventTime(2_500))));
        // Metadata does not change the training data.
        assert_eq!(table.digest, try_load("age,out\n1,no\n2,yes\n", |_| {}).unwrap().digest);
        assert!(skip("nota").unwrap_err().to_string().contains("\"nota\""));
        assert!(skip("out").unwrap_err().to_string().contains("label"));
        check_invalid("who,at,out\na,soon,no\n", &["line 2", "\"at\"", "\"soon\""]);
        check_invalid("who,who,out\na,b,no\n", &["columns 1 and 2"]);
    }

    #[test]
    fn outcomes_and_true_probabilities_are_read() {
        let text = "age,then,p0,p1,out\n1,yes after 5m,0.25,0.75,yes\n2,,1,0,no\n";
        let named = |change: fn(&mut TableSettings)| {
            try_load(text, |table| {
                table.outcomes = "then".to_owned();
                table.truth = ["p0", "p1"].map(str::to_owned).into();
                change(table);
            })
        };
        let table = named(|_| {}).unwrap();
        let after = std::time::Duration::from_secs(300);
        let outcomes = vec![TimedOutcome { label: "yes".to_owned(), after }];
        assert_eq!(table.rows[0].outcomes, Some(outcomes));
        assert_eq!(table.rows[1].outcomes, Some(Vec::new()));
        assert_eq!(table.rows[0].truth, [0.25, 0.75]);
        assert_eq!(table.digest, try_load("age,out\n1,yes\n2,no\n", |_| {}).unwrap().digest);
        let check = |change: fn(&mut TableSettings), words: &[&str]| {
            let message = named(change).unwrap_err().to_string();
            for word in words {
                assert!(message.contains(word), "{word:?} is not in {message:?}");
            }
        };
        let wrong = "age,p0,p1,out\n1,1,0,no\n2,0.9,0.9,yes\n";
        let truth =
            |table: &mut TableSettings| table.truth = ["p0", "p1"].map(str::to_owned).into();
        let message = try_load(wrong, truth).unwrap_err().to_string();
        assert!(message.contains("line 3") && message.contains("the sum 1.800"), "{message}");
        check(|table| table.outcomes = "when".to_owned(), &["\"when\"", "`outcomes`", "age, then"]);
        check(|table| table.truth[1] = "p2".to_owned(), &["\"p2\"", "`truth`"]);
        check(|table| table.truth[1] = "p0".to_owned(), &["\"p0\"", "name it once"]);
        check(|table| table.skip.push("then".to_owned()), &["\"then\"", "name it once"]);
        check(
            |table| {
                table.outcomes = "age".to_owned();
                table.skip.push("then".to_owned());
            },
            &["line 2", "\"age\"", "after 12m"],
        );
        check(
            |table| {
                table.outcomes = String::new();
                table.skip.push("then".to_owned());
                table.truth = vec!["age".to_owned()];
                table.skip.extend(["p0", "p1"].map(str::to_owned));
            },
            &["line 3", "\"age\"", "\"2\"", "from 0 to 1"],
        );
    }

    #[test]
    fn a_row_without_its_respondent_is_invalid() {
        for blank in ["", " ", "?", " ? "] {
            let text = format!("who,age,out\na,1,no\n{blank},2,yes\n");
            check_invalid(&text, &["line 3", "\"who\"", "names no respondent", "`skip`"]);
            let skip = |table: &mut TableSettings| table.skip.push("who".to_owned());
            assert!(try_load(&text, skip).is_ok(), "{blank:?}");
        }
        assert!(try_load("age,out\n1,no\n", |_| {}).is_ok(), "no column has respondents");
    }

    #[test]
    fn questions_without_a_column_are_listed() {
        let table = try_load("age,trade,out\n1,a,no\n", |_| {}).unwrap();
        assert_eq!(table.unanswered, ["pay", "born"]);
    }

    #[test]
    fn the_digest_depends_on_the_values_of_the_rows() {
        let digest = |text| try_load(text, |_| {}).unwrap().digest;
        let first = digest("age,job,out\n1,a,no\n,b,yes\n");
        assert_eq!(first.len(), 64);
        assert_eq!(digest("age,job,out\r\n1.0, a ,no\r\n?,b,yes\r\n"), first);
        for other in [
            "age,job,out\n1,a,yes\n,b,no\n",
            "age,job,out\n,b,yes\n1,a,no\n",
            "age,job,out\n2,a,no\n,b,yes\n",
            "age,job,out\n1,a,no\n",
            "age,pay,out\n1,7,no\n,8,yes\n",
        ] {
            assert_ne!(digest(other), first, "{other}");
        }
    }
}

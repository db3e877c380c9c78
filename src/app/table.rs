//! A user's table of answers and labels: CSV, perhaps compressed, read row by row.

use std::{
    borrow::Cow,
    fs::File,
    io::{self, BufReader, Read},
    path::{Path, PathBuf},
};

use flate2::read::MultiGzDecoder;
use sha2::{Digest as _, Sha256};

use crate::{
    config::{Config, TableSettings},
    events::{
        label,
        questionnaire::{self, Answer, EntryError, QuestionnaireSchema},
    },
};
use foretell_streams::time::EventTime;

/// One respondent: the answers, in the order of the schema's questions, and what turned out to be true.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    pub answers: Vec<Option<Answer>>,
    pub label: String,
    /// Empty, if no column says it. As the other metadata it is for a play; models do not learn from it.
    pub respondent_id: String,
    /// Empty, if no column says it.
    pub event_id: String,
    /// None, if no column says it.
    pub event_time: Option<EventTime>,
}

/// A table with what it is: the same rows under the same names, typed alike, have the same digest.
#[derive(Clone, Debug)]
pub struct Table {
    /// In the order of the file.
    pub rows: Vec<Row>,
    /// 64 hexadecimal digits. Of the answers that are there, by the names of their columns, so that a question which is
    /// added to the schema, or renamed in it, makes no other table.
    pub digest: String,
    /// Questions that no column answers.
    pub unanswered: Vec<String>,
}

/// Why a table can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// It can't be opened.
    #[error("cannot open the data {path}", path = path.display())]
    Unopenable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Its columns do not fit the event schema.
    #[error("{path}: {problem}", path = path.display())]
    Columns {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to change.
        problem: String,
    },
    /// A row can't be read.
    #[error("{path}, line {line}: {problem}", path = path.display())]
    Row {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: u64,
        /// What is wrong with it.
        problem: String,
    },
}

/// What each column of the file is.
enum Place {
    Question(usize),
    Label,
    RespondentId,
    EventId,
    EventTime,
    Unused,
}

/// Reads the rows of a whole table.
///
/// # Errors
/// See [`load`].
pub fn read(table: &TableSettings, schema: &QuestionnaireSchema) -> Result<Vec<Row>, TableError> {
    Ok(load(table, schema, &[])?.rows)
}

/// Reads the table that `key` names in the configuration. Its labels must be among `labels`, unless those are none.
///
/// # Errors
/// See [`load`]; what is wrong with the file or its columns is told with the place in the configuration.
pub fn of_configuration(
    config: &Config,
    key: &str,
    table: &TableSettings,
    labels: &[String],
) -> anyhow::Result<Table> {
    load(table, &config.event_schema, labels).map_err(|error| match &error {
        TableError::Unopenable { .. } => {
            let place = config.sources.named(&format!("{key}.path"));
            anyhow::Error::new(error).context(place)
        }
        TableError::Columns { .. } => {
            let place = format!("{}: [{key}]", config.sources.of(key));
            anyhow::Error::new(error).context(place)
        }
        TableError::Row { .. } => error.into(),
    })
}

/// Reads a whole table. Its labels must be among `labels`, unless those are none.
///
/// # Errors
/// [`TableError`], at the first row that is wrong: better than a model of half the data.
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
    let wrong_row = |place: Option<&csv::Position>, problem: String| {
        let line = place.map_or(1, |place| line_at(&text, place.byte(), comment));
        TableError::Row { path: path.clone(), line, problem }
    };
    let unreadable = |error: csv::Error| wrong_row(error.position(), without_place(&error));
    let names: Vec<String> = if table.columns.is_empty() {
        reader.headers().map_err(unreadable)?.iter().map(str::to_owned).collect()
    } else {
        table.columns.clone()
    };
    let places = places_of(&names, table, schema)?;
    let mut digest = Sha256::new();
    let mut rows = Vec::new();
    let mut record = csv::StringRecord::new();
    while reader.read_record(&mut record).map_err(unreadable)? {
        let is_first = rows.is_empty() && !table.columns.is_empty();
        if is_first && is_header(&record, &names) {
            let problem =
                "it names the columns, and `columns` means that no line does: leave out `columns`";
            return Err(wrong_row(record.position(), problem.to_owned()));
        }
        let row = row_of(&record, &places, table, schema);
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
                "; if this line names the columns, leave out `columns`, which means that none does"
            } else {
                ""
            };
            wrong_row(record.position(), problem + hint)
        })?;
        add_row(&mut digest, &row, &places, &names);
        rows.push(row);
    }
    let is_answered = |index: usize| {
        places.iter().any(|place| matches!(place, Place::Question(q) if *q == index))
    };
    let questions = schema.questions().iter().enumerate();
    let unanswered = questions.filter(|(index, _)| !is_answered(*index));
    Ok(Table {
        rows,
        digest: hex::encode(digest.finalize()),
        unanswered: unanswered.map(|(_, question)| question.name.clone()).collect(),
    })
}

/// Whether each cell is the name of its column.
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

/// The line of the record that begins at `byte` or, as the reader counts, behind what it skips from there: the rest of a
/// CRLF, empty lines, comments.
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

/// What the reader says, without the place that it names itself.
#[expect(clippy::wildcard_enum_match_arm, reason = "it is csv's enum: all else names no place")]
fn without_place(error: &csv::Error) -> String {
    match error.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("{len} fields, expected {expected_len}")
        }
        csv::ErrorKind::Utf8 { err, .. } => format!("column {}: not UTF-8", err.field() + 1),
        _ => error.to_string(),
    }
}

fn places_of(
    names: &[String],
    table: &TableSettings,
    schema: &QuestionnaireSchema,
) -> Result<Vec<Place>, TableError> {
    let wrong = |problem| TableError::Columns { path: table.path.clone(), problem };
    if !names.contains(&table.label) {
        let header = if table.columns.is_empty() {
            format!(
                " (the first line names {}; if it is a row, name the columns in `columns`)",
                names.join(", ")
            )
        } else {
            String::new()
        };
        return Err(wrong(format!(
            "there is no column {:?}, which `label` names{header}",
            table.label
        )));
    }
    if let Some(name) = table.skip.iter().find(|name| !names.contains(name)) {
        let known = names.join(", ");
        return Err(wrong(format!("there is no column {name:?}, which `skip` names ({known})")));
    }
    if table.skip.contains(&table.label) {
        return Err(wrong(format!("column {:?} is the label, and `skip` names it", table.label)));
    }
    let questions = schema.questions();
    let metadata = schema.metadata();
    let place = |name: &String| {
        if *name == table.label {
            Ok(Place::Label)
        } else if name.is_empty() || table.skip.contains(name) {
            Ok(Place::Unused)
        } else if *name == metadata.respondent_id {
            Ok(Place::RespondentId)
        } else if *name == metadata.event_time {
            Ok(Place::EventTime)
        } else if metadata.event_id.as_ref() == Some(name) {
            Ok(Place::EventId)
        } else if metadata.completed.as_ref() == Some(name) {
            Ok(Place::Unused)
        } else if let Some(index) = questionnaire::place_of(name, questions) {
            Ok(Place::Question(index))
        } else {
            let known = questions.iter().map(|question| question.name.as_str());
            let known = known.collect::<Vec<_>>().join(", ");
            Err(wrong(format!(
                "column {name:?} is no answer of the event schema ({known}); \
                 if it is not used, name it in `skip`, or leave its name empty in `columns`"
            )))
        }
    };
    let places: Vec<Place> = names.iter().map(place).collect::<Result<_, _>>()?;
    for (later, place) in places.iter().enumerate() {
        let earlier = places[..later].iter().position(|other| place.is_also(other));
        if let Some(earlier) = earlier {
            let (first, second) = (earlier + 1, later + 1);
            return Err(wrong(format!(
                "columns {first} and {second}, {:?} and {:?}, are the same field: name one in `skip`, or leave its name empty in `columns`",
                names[earlier], names[later]
            )));
        }
    }
    Ok(places)
}

impl Place {
    fn is_also(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Question(one), Self::Question(other)) => one == other,
            (Self::Label, Self::Label)
            | (Self::RespondentId, Self::RespondentId)
            | (Self::EventId, Self::EventId)
            | (Self::EventTime, Self::EventTime) => true,
            (
                Self::Question(_)
                | Self::Label
                | Self::RespondentId
                | Self::EventId
                | Self::EventTime
                | Self::Unused,
                _,
            ) => false,
        }
    }
}

fn row_of(
    record: &csv::StringRecord,
    places: &[Place],
    table: &TableSettings,
    schema: &QuestionnaireSchema,
) -> Result<Row, String> {
    if record.len() != places.len() {
        return Err(format!("{} fields, expected {}", record.len(), places.len()));
    }
    let mut row = Row { answers: vec![None; schema.questions().len()], ..Row::default() };
    for (text, place) in record.iter().zip(places) {
        match place {
            Place::Unused => {}
            Place::Label => {
                let suffix = table.label_suffix.as_str();
                text.strip_suffix(suffix).unwrap_or(text).clone_into(&mut row.label);
            }
            Place::RespondentId => {
                row.respondent_id = respondent_of(text, table, schema)?;
            }
            Place::EventId if !table.is_missing(text) => {
                row.event_id = schema.parse_event_id(text).map_err(wrong_cell)?;
            }
            Place::EventId => {}
            Place::EventTime => {
                row.event_time = Some(schema.parse_event_time(text).map_err(wrong_cell)?);
            }
            Place::Question(index) => {
                if table.is_missing(text) {
                    continue;
                }
                let question = &schema.questions()[*index];
                row.answers[*index] = schema.parse_answer(question, text).map_err(wrong_cell)?;
            }
        }
    }
    Ok(row)
}

/// A row of nobody is no row: if one is made up for it, what happens to a respondent is not what the table says.
fn respondent_of(
    text: &str,
    table: &TableSettings,
    schema: &QuestionnaireSchema,
) -> Result<String, String> {
    let id = match table.is_missing(text) {
        true => Cow::Borrowed(""),
        false => schema.respondent_id(text).map_err(wrong_cell)?,
    };
    if id.is_empty() {
        let column = &schema.metadata().respondent_id;
        return Err(format!(
            "column {column:?} is {text:?}, so it names no respondent: fill it in, take the row out, or, if the table is not \
             to say who answered, name the column in `skip`"
        ));
    }
    Ok(id.into_owned())
}

fn wrong_cell(error: EntryError) -> String {
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
    /// Whether a cell says that there is nothing in it.
    fn is_missing(&self, text: &str) -> bool {
        self.missing.iter().any(|missing| missing.trim() == text)
    }
}

/// Each part with its length, so that no two rows have the same bytes.
fn add_row(digest: &mut Sha256, row: &Row, places: &[Place], names: &[String]) {
    let mut add = |kind: u8, bytes: &[u8]| {
        digest.update([kind]);
        digest.update(u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_be_bytes());
        digest.update(bytes);
    };
    add(b'l', row.label.as_bytes());
    for (place, name) in places.iter().zip(names) {
        let Place::Question(index) = place else { continue };
        let Some(answer) = &row.answers[*index] else { continue };
        add(b'c', name.as_bytes());
        // What is learned from: rounded.
        match answer.rounded() {
            Answer::Number(number) => add(b'n', &number.to_bits().to_be_bytes()),
            Answer::Text(text) => add(b't', text.as_bytes()),
            Answer::Whole(number) => add(b'l', &number.to_be_bytes()),
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
        };
        change(&mut table);
        load(&table, &schema(), &["no".to_owned(), "yes".to_owned()])
    }

    fn refuse(text: &str, words: &[&str]) {
        let message = try_load(text, |_| {}).expect_err(text).to_string();
        for word in words.iter().chain(&[".csv"]) {
            assert!(message.contains(word), "{message:?} says nothing of {word:?}");
        }
    }

    #[test]
    fn a_fault_has_its_file_line_column_and_value() {
        refuse("age,out\n1,no\nold,yes\n", &["line 3", "\"age\"", "\"old\"", "32 bits"]);
        refuse("age,out\r\n1,no\r\nold,yes\r\n", &["line 3", "\"old\""]);
        refuse("# a\r\nage,out\r\n\r\n# b\r\n\r\nold,yes\r\n", &["line 6"]);
        refuse("age,out\n1,no\n2,maybe\n", &["line 3", "\"out\"", "\"maybe\"", "no, yes"]);
        refuse("age,out\n1,no\n1,2,no\n", &["line 3", "3 fields"]);
        refuse("pay,out\n7.25,no\n\"7,25\",no\n", &["line 3", "\"pay\"", "\"7,25\"", "numeric"]);
        refuse("wage,out\n1,no\n", &["\"wage\"", "age, job"]);
        refuse("born,out\n17.5.1990,no\n", &["line 2", "1990-05-17"]);
    }

    #[test]
    fn columns_mean_that_there_is_no_header() {
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
                assert!(message.contains(word), "{message:?} says nothing of {word:?}");
            }
        };
        // All text, and a label that is no label anyway.
        check("job,out\ncook,no\n", &["job", "out"], &["line 1", "leave out `columns`"]);
        check(
            "years,result\n1,no\n",
            &["age", "out"],
            &["line 1", "if this line names the columns"],
        );
        refuse("cook,no\nnurse,yes\n", &["\"out\"", "cook, no", "name the columns in `columns`"]);
    }

    #[test]
    fn two_columns_of_one_answer_are_refused() {
        refuse("age,job,age,out\n1,a,2,no\n", &["columns 1 and 3", "\"age\""]);
        refuse("trade,job,out\n1,a,no\n", &["columns 1 and 2", "\"trade\"", "\"job\""]);
        refuse("age,out,out\n1,no,yes\n", &["columns 2 and 3", "\"out\""]);
        let named = |columns: &[&str]| {
            let columns = columns.iter().map(|name| (*name).to_owned()).collect();
            try_load("1,2,no\n", |table| table.columns = columns)
        };
        assert!(named(&["age", "age", "out"]).is_err());
        assert!(named(&["", "", "out"]).is_ok());
    }

    #[test]
    fn metadata_columns_are_for_a_play_and_others_are_skipped_by_name() {
        let text = "who,at,age,note,out\na,1970-01-01T00:00:01Z,1,x,no\nb,2500,2,y,yes\n";
        refuse(text, &["\"note\"", "`skip`"]);
        let skip = |name: &str| {
            let name = name.to_owned();
            try_load(text, move |table| table.skip.push(name))
        };
        let table = skip("note").unwrap();
        let of = |row: &Row| (row.respondent_id.clone(), row.event_time);
        assert_eq!(of(&table.rows[0]), ("a".to_owned(), Some(EventTime(1_000))));
        assert_eq!(of(&table.rows[1]), ("b".to_owned(), Some(EventTime(2_500))));
        // What they say makes no other training data.
        assert_eq!(table.digest, try_load("age,out\n1,no\n2,yes\n", |_| {}).unwrap().digest);
        assert!(skip("nota").unwrap_err().to_string().contains("\"nota\""));
        assert!(skip("out").unwrap_err().to_string().contains("label"));
        refuse("who,at,out\na,soon,no\n", &["line 2", "\"at\"", "\"soon\""]);
        refuse("who,who,out\na,b,no\n", &["columns 1 and 2"]);
    }

    #[test]
    fn a_row_without_its_respondent_is_refused() {
        for blank in ["", " ", "?", " ? "] {
            let text = format!("who,age,out\na,1,no\n{blank},2,yes\n");
            refuse(&text, &["line 3", "\"who\"", "names no respondent", "`skip`"]);
            let skip = |table: &mut TableSettings| table.skip.push("who".to_owned());
            assert!(try_load(&text, skip).is_ok(), "{blank:?}");
        }
        assert!(try_load("age,out\n1,no\n", |_| {}).is_ok(), "no column says who");
    }

    #[test]
    fn what_no_column_answers_is_known() {
        let table = try_load("age,trade,out\n1,a,no\n", |_| {}).unwrap();
        assert_eq!(table.unanswered, ["pay", "born"]);
    }

    #[test]
    fn the_digest_is_of_what_the_rows_mean() {
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

//! A user's table of answers and labels: CSV, perhaps compressed, read row by row.

use std::{
    fs::File,
    io::{self, BufReader, Read},
    path::{Path, PathBuf},
};

use flate2::read::MultiGzDecoder;

use crate::{
    config::RawTable,
    events::questionnaire::{self, Answer, QuestionnaireSchema},
};

/// One respondent: the answers, in the order of the schema's questions, and what turned out to be true.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub answers: Vec<Option<Answer>>,
    pub label: String,
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
    Unused,
}

/// Reads a whole table.
///
/// # Errors
/// [`TableError`], at the first row that is wrong: better than a model of half the data.
pub fn read(table: &RawTable, schema: &QuestionnaireSchema) -> Result<Vec<Row>, TableError> {
    let path = &table.path;
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(u8::try_from(table.delimiter).unwrap_or(b','))
        .comment(table.comment.and_then(|mark| u8::try_from(mark).ok()))
        .has_headers(table.columns.is_empty())
        .trim(csv::Trim::All)
        .from_reader(open(path)?);
    let names = if table.columns.is_empty() {
        let header = reader.headers().map_err(|error| wrong_row(path, &error))?;
        header.iter().map(str::to_owned).collect()
    } else {
        table.columns.clone()
    };
    let places = places_of(&names, table, schema)?;
    let mut rows = Vec::new();
    let mut record = csv::StringRecord::new();
    while reader.read_record(&mut record).map_err(|error| wrong_row(path, &error))? {
        let line = record.position().map_or(0, csv::Position::line);
        let row = row_of(&record, &places, table, schema);
        rows.push(row.map_err(|problem| TableError::Row { path: path.clone(), line, problem })?);
    }
    Ok(rows)
}

fn open(path: &Path) -> Result<Box<dyn Read>, TableError> {
    let unopenable = |source| TableError::Unopenable { path: path.to_owned(), source };
    let file = BufReader::new(File::open(path).map_err(unopenable)?);
    if path.extension().is_some_and(|extension| extension == "gz") {
        return Ok(Box::new(MultiGzDecoder::new(file)));
    }
    Ok(Box::new(file))
}

fn places_of(
    names: &[String],
    table: &RawTable,
    schema: &QuestionnaireSchema,
) -> Result<Vec<Place>, TableError> {
    let wrong = |problem| TableError::Columns { path: table.path.clone(), problem };
    if !names.contains(&table.label) {
        return Err(wrong(format!("there is no column {:?}, which `label` names", table.label)));
    }
    let questions = schema.questions();
    let place = |name: &String| {
        if *name == table.label {
            Ok(Place::Label)
        } else if name.is_empty() {
            Ok(Place::Unused)
        } else if let Some(index) = questionnaire::place_of(name, questions) {
            Ok(Place::Question(index))
        } else {
            let known = questions.iter().map(|question| question.name.as_str());
            let known = known.collect::<Vec<_>>().join(", ");
            Err(wrong(format!(
                "column {name:?} is no answer of the event schema ({known}); \
                 leave its name empty in `columns` if it is not used"
            )))
        }
    };
    names.iter().map(place).collect()
}

fn row_of(
    record: &csv::StringRecord,
    places: &[Place],
    table: &RawTable,
    schema: &QuestionnaireSchema,
) -> Result<Row, String> {
    if record.len() != places.len() {
        return Err(format!("{} fields, expected {}", record.len(), places.len()));
    }
    let mut row = Row { answers: vec![None; schema.questions().len()], label: String::new() };
    for (text, place) in record.iter().zip(places) {
        match place {
            Place::Unused => {}
            Place::Label => {
                let suffix = table.label_suffix.as_str();
                text.strip_suffix(suffix).unwrap_or(text).clone_into(&mut row.label);
            }
            Place::Question(index) => {
                if text.is_empty() || table.missing.iter().any(|missing| missing == text) {
                    continue;
                }
                let question = &schema.questions()[*index];
                let answer = schema.parse_answer(question, text);
                row.answers[*index] = Some(answer.map_err(|error| error.to_string())?);
            }
        }
    }
    Ok(row)
}

fn wrong_row(path: &Path, error: &csv::Error) -> TableError {
    let line = error.position().map_or(0, csv::Position::line);
    TableError::Row { path: path.to_owned(), line, problem: error.to_string() }
}

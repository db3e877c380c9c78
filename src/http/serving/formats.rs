//! The forms of the body and of the answer of `/invocations`, by their media types.
//!
//! | type | body | answer |
//! |---|---|---|
//! | `application/json` | one of the forms in `json_rows.rs` | an object with `predictions` |
//! | `application/jsonlines` | a line for each row | a line for each prediction |
//! | `text/csv` | a line for each row, perhaps after a header | a line for each row: the label, then the probability of each class |

use axum::http::{HeaderMap, StatusCode, header};
use serde_json::{Map, Value as Json, json};

use crate::{
    events::questionnaire::QuestionnaireSchema,
    http::{
        body,
        error::HttpError,
        json,
        serving::{
            Row, Scored, invalid,
            json_rows::{RowsAndReasons, distinct, names_of, row_of_json, rows_of_json},
        },
    },
};

pub(super) const CSV: &str = "text/csv";
pub(super) const JSON_LINES: &str = "application/jsonlines";
const JSON: &str = "application/json";

/// Every type, for messages.
const TYPES: &str = "application/json, application/jsonlines, text/csv";

/// The form of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyFormat {
    Json,
    JsonLines,
    /// Whether the first line names the columns; none if its content says so.
    Csv(Option<bool>),
}

impl BodyFormat {
    /// The form by `Content-Type`. Without one it is JSON.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, HttpError> {
        if body::is_of_type(headers, body::is_json) {
            return Ok(Self::Json);
        }
        if body::is_of_type(headers, |kind| body::essence(kind) == JSON_LINES) {
            return Ok(Self::JsonLines);
        }
        if body::is_of_type(headers, |kind| body::essence(kind) == CSV) {
            return Ok(Self::Csv(header_of(headers)?));
        }
        let message = format!("send the header `Content-Type` with one of {TYPES}");
        Err(HttpError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message)
            .with_header(header::ACCEPT, TYPES))
    }

    /// Reads the rows.
    pub(super) fn rows(
        self,
        bytes: &[u8],
        schema: &QuestionnaireSchema,
    ) -> Result<RowsAndReasons, HttpError> {
        match self {
            Self::Json => {
                let json = json::parse_with_nan(bytes).map_err(invalid)?;
                rows_of_json(json, schema)
            }
            Self::JsonLines => Ok((rows_of_lines(bytes, schema)?, None)),
            Self::Csv(header) => Ok((rows_of_csv(bytes, header, schema)?, None)),
        }
    }
}

/// The parameter `header` of `text/csv` (RFC 4180, 3).
fn header_of(headers: &HeaderMap) -> Result<Option<bool>, HttpError> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let parameters = kind.unwrap_or_default().split(';').skip(1);
    for parameter in parameters {
        let Some((name, value)) = parameter.split_once('=') else { continue };
        if !name.trim().eq_ignore_ascii_case("header") {
            continue;
        }
        return match value.trim().trim_matches('"').to_ascii_lowercase().as_str() {
            "present" => Ok(Some(true)),
            "absent" => Ok(Some(false)),
            other => Err(invalid(format!(
                "`Content-Type: text/csv; header={other}`: the header is present or absent"
            ))),
        };
    }
    Ok(None)
}

fn rows_of_lines(bytes: &[u8], schema: &QuestionnaireSchema) -> Result<Vec<Row>, HttpError> {
    let mut rows = Vec::new();
    for (number, line) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
        if line.trim_ascii().is_empty() {
            continue;
        }
        let json =
            json::parse_with_nan(line).map_err(|problem| invalid(in_line(number, &problem)))?;
        let row = row_of_json(json, schema).ok_or_else(|| {
            let wanted = "a row is an object with values by name, or a list of the values of all questions in the order of the event \
                          schema";
            invalid(in_line(number, wanted))
        })?;
        rows.push(row?);
    }
    Ok(rows)
}

fn in_line(number: usize, problem: &str) -> String {
    format!("line {number}: {problem}")
}

/// The rows of CSV. The first line is a header if the caller says so, or else if one of its cells is the name of a field; without a
/// header, a line has the answers to all questions in the order of the event schema.
fn rows_of_csv(
    bytes: &[u8],
    header: Option<bool>,
    schema: &QuestionnaireSchema,
) -> Result<Vec<Row>, HttpError> {
    let wrong = |error: csv::Error| invalid(format!("not CSV: {error}"));
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(bytes);
    let mut records = reader.records();
    let Some(first) = records.next().transpose().map_err(wrong)? else { return Ok(Vec::new()) };
    let has_header =
        header.unwrap_or_else(|| first.iter().any(|cell| schema.has_field(cell.trim())));
    let names: Vec<String> = if has_header {
        let names: Vec<&str> = first.iter().map(str::trim).collect();
        distinct(&names)?;
        names.into_iter().map(str::to_owned).collect()
    } else {
        names_of(schema).into_iter().map(str::to_owned).collect()
    };
    if first.len() != names.len() {
        return Err(invalid(format!(
            "the first line has no name of a field, and {} values for {} questions: begin with a header, or give each line all of {}",
            first.len(),
            names.len(),
            names.join(", ")
        )));
    }
    let data = (!has_header).then_some(Ok(first)).into_iter().chain(records);
    let rows = data.map(|record| {
        let cells = record.map_err(wrong)?;
        let cells = cells.iter().map(|cell| Json::String(cell.to_owned()));
        Ok(names.iter().cloned().zip(cells).collect())
    });
    rows.collect()
}

/// The form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AnswerFormat {
    Json,
    JsonLines,
    Csv,
}

impl AnswerFormat {
    const ALL: [Self; 3] = [Self::Json, Self::JsonLines, Self::Csv];

    /// The form with the highest weight in `Accept`, of equal ones the first; JSON without the header.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, HttpError> {
        let mut given = headers.get_all(header::ACCEPT).iter().peekable();
        if given.peek().is_none() {
            return Ok(Self::Json);
        }
        let ranges = given.filter_map(|value| value.to_str().ok()).flat_map(|it| it.split(','));
        let ranges = ranges.map(|range| (body::essence(range), weight_of(range)));
        let ranges: Vec<(String, f64)> = ranges.collect();
        // A form that is named has its own weight, not that of a range (RFC 9110, 12.5.1).
        let is_named = |form: Self| ranges.iter().any(|(range, _)| range == form.media_type());
        let form_in = |range: &str| {
            // An empty header is as none.
            let kind = if range.is_empty() { Some("*") } else { range.strip_suffix("/*") };
            let is_in = |form: Self| {
                let of_form = form.media_type();
                let is_kind = |kind| kind == "*" || of_form.split('/').next() == Some(kind);
                range == of_form || kind.is_some_and(is_kind) && !is_named(form)
            };
            Self::ALL.into_iter().find(|form| is_in(*form))
        };
        let mut best: Option<(Self, f64)> = None;
        for (range, weight) in &ranges {
            let Some(form) = form_in(range).filter(|_| *weight > 0.0) else { continue };
            if best.is_none_or(|(_, most)| *weight > most) {
                best = Some((form, *weight));
            }
        }
        best.map(|(form, _)| form).ok_or_else(|| {
            let message = format!("send the header `Accept` with one of {TYPES}");
            HttpError::new(StatusCode::NOT_ACCEPTABLE, message)
        })
    }

    pub(super) fn media_type(self) -> &'static str {
        match self {
            Self::Json => JSON,
            Self::JsonLines => JSON_LINES,
            Self::Csv => CSV,
        }
    }

    /// The body of the answer. Lines end with a line break, so that answers can be joined.
    pub(super) fn write(self, scored: Scored) -> Result<Vec<u8>, HttpError> {
        if self == Self::Csv {
            return csv_of(&scored);
        }
        let answer = json_of(scored);
        if self == Self::Json {
            return Ok(answer.to_string().into_bytes());
        }
        let predictions = answer["predictions"].as_array().into_iter().flatten();
        let lines = predictions.map(|prediction| format!("{prediction}\n"));
        Ok(lines.collect::<String>().into_bytes())
    }
}

/// The weight `q` of a range in `Accept`, from 0 to 1; 1 if it has none, or one that is not a number.
fn weight_of(range: &str) -> f64 {
    let parameters = range.split(';').skip(1).filter_map(|parameter| parameter.split_once('='));
    let mut weights = parameters.filter(|(name, _)| name.trim().eq_ignore_ascii_case("q"));
    let weight = weights.next().and_then(|(_, weight)| weight.trim().parse::<f64>().ok());
    weight.filter(|weight| weight.is_finite()).map_or(1.0, |weight| weight.clamp(0.0, 1.0))
}

fn json_of(Scored { scorer, scores, reasons }: Scored) -> Json {
    let classes = scorer.classes();
    let mut reasons = reasons.map(Vec::into_iter);
    let predictions = scores.into_iter().map(|score| {
        let probabilities = classes.iter().zip(score.probabilities());
        let probabilities =
            probabilities.map(|(class, probability)| (class.clone(), json!(probability)));
        let mut prediction = json!({
            "label": classes[score.class()],
            "probabilities": probabilities.collect::<Map<_, _>>(),
        });
        if let Some(reasons) = reasons.as_mut().and_then(Iterator::next) {
            prediction["reasons"] = reasons;
        }
        prediction
    });
    let predictions: Vec<Json> = predictions.collect();
    json!({ "predictions": predictions, "model_version": scorer.version() })
}

fn csv_of(Scored { scorer, scores, reasons }: &Scored) -> Result<Vec<u8>, HttpError> {
    if reasons.is_some() {
        return Err(invalid(
            "reasons cannot be written as CSV: accept application/json or application/jsonlines",
        ));
    }
    let mut writer = csv::Writer::from_writer(Vec::new());
    for score in scores {
        let label = scorer.classes()[score.class()].clone();
        let probabilities = score.probabilities().iter().map(f64::to_string);
        let line = [label].into_iter().chain(probabilities);
        writer.write_record(line).expect("a vector can be written to");
    }
    Ok(writer.into_inner().expect("a vector can be written to"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::questionnaire::MetadataFields;

    fn schema() -> QuestionnaireSchema {
        let avsc = r#"{"type": "record", "name": "E", "fields": [
            {"name": "who", "type": "string"}, {"name": "at", "type": "long"},
            {"name": "age", "type": ["null", "int"], "default": null},
            {"name": "job", "type": ["null", "string"], "default": null, "aliases": ["work"]}]}"#;
        let fields = MetadataFields {
            event_id: None,
            respondent_id: "who".to_owned(),
            event_time: "at".to_owned(),
            completed: None,
        };
        QuestionnaireSchema::new(avsc, &fields, &[]).unwrap()
    }

    fn headers(name: header::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, value.parse().unwrap())])
    }

    fn body(content_type: &str, body: &str) -> Result<Vec<Row>, String> {
        let form = BodyFormat::of(&headers(header::CONTENT_TYPE, content_type));
        let rows = form.and_then(|form| form.rows(body.as_bytes(), &schema()));
        rows.map(|(rows, _)| rows).map_err(|error| error.detail().to_owned())
    }

    fn expected(rows: &str) -> Result<Vec<Row>, String> {
        Ok(serde_json::from_str(rows).unwrap())
    }

    #[test]
    fn lines_have_names_or_the_order_of_the_schema() {
        let rows = r#"[{"age": "39", "job": "x"}, {"age": "", "job": "y"}]"#;
        for (kind, text) in [
            ("text/csv", "age,job\r\n39,x\n,\"y\"\n"),
            ("text/csv; charset=utf-8", "39,x\n,y"),
            ("text/csv; header=absent", "39,x\n,y\n"),
            ("Text/CSV; Header=\"present\"", " age , job \n39,x\n,y\n"),
        ] {
            assert_eq!(body(kind, text), expected(rows), "{kind} {text:?}");
        }
        let alias = expected(r#"[{"work": "x"}]"#);
        assert_eq!(body("text/csv", "work\nx\n"), alias, "an alias is a name");
        let absent = expected(r#"[{"age": "age", "job": "job"}]"#);
        assert_eq!(body("text/csv; header=absent", "age,job\n"), absent);
        assert_eq!(body("text/csv", ""), expected("[]"));
        let rows =
            expected(r#"[{"age": 39, "job": "x"}, {"age": null, "job": "y"}, {"job": "z"}]"#);
        let lines = "{\"age\": 39, \"job\": \"x\"}\r\n\n[null, \"y\"]\n{\"job\": \"z\"}\n";
        assert_eq!(body("application/jsonlines", lines), rows);
        let features = "{\"features\": [39, \"x\"]}";
        let rows = expected(r#"[{"age": 39, "job": "x"}]"#);
        assert_eq!(body("application/jsonlines", features), rows);
        let list = "{\"instances\": [{\"features\": [39, \"x\"]}]}";
        assert_eq!(body("application/json", list), rows);
    }

    #[test]
    fn a_bare_nan_is_a_missing_answer() {
        // As MLflow's client sends a data frame.
        let sent = r#"{"dataframe_split": {"columns": ["age", "job"], "data": [[39.0, "NaN"], [NaN, NaN]]}}"#;
        let rows = expected(r#"[{"age": 39.0, "job": "NaN"}, {"age": null, "job": null}]"#);
        assert_eq!(body("application/json", sent), rows);
        let lines = "{\"age\": 39.0, \"job\": \"NaN\"}\n[NaN, NaN]\n";
        assert_eq!(body("application/jsonlines", lines), rows);
        let infinite = body("application/jsonlines", "[39, \"x\"]\n[Infinity, NaN]").unwrap_err();
        assert!(infinite.contains("line 2: not JSON: Infinity is not a value"), "{infinite}");
    }

    #[test]
    fn malformed_lines_are_refused_with_the_reason() {
        let check = |kind: &str, text: &str, words: &str| {
            let error = body(kind, text).unwrap_err();
            assert!(error.contains(words), "{words:?} in {error:?}");
        };
        check("text/csv", "age,age\n1,2\n", "`age` is repeated");
        check("text/csv", "age,job\n1\n", "not CSV");
        check("text/csv", "39\n", "1 values for 2 questions");
        check("text/csv; header=maybe", "39,x\n", "present or absent");
        check("application/jsonlines", "[1, \"x\"]\n{", "line 2: ");
        check("application/jsonlines", "39", "line 1: a row is an object");
        check("application/jsonlines", "[39]", "1 values, and there are 2 questions: age, job");
        check("text/plain", "39,x", "application/jsonlines, text/csv");
    }

    #[test]
    fn accept_chooses_the_answer() {
        let check = |accept: &str, expected: Option<AnswerFormat>| {
            let found = AnswerFormat::of(&headers(header::ACCEPT, accept)).ok();
            assert_eq!(found, expected, "{accept}");
        };
        check("*/*", Some(AnswerFormat::Json));
        check("", Some(AnswerFormat::Json));
        check("text/csv", Some(AnswerFormat::Csv));
        check("Text/CSV; charset=utf-8", Some(AnswerFormat::Csv));
        check("text/html, application/jsonlines;q=0.9", Some(AnswerFormat::JsonLines));
        check("application/json;q=0, text/csv", Some(AnswerFormat::Csv));
        check("text/csv;q=0.5, application/jsonlines", Some(AnswerFormat::JsonLines));
        check("text/csv; Q=0.5, application/json; q = 0.9", Some(AnswerFormat::Json));
        check("text/csv;q=0.5, application/json;q=0.5", Some(AnswerFormat::Csv));
        check("text/csv;q=nonsense, application/json", Some(AnswerFormat::Csv));
        check("application/json;q=0, */*;q=0.1", Some(AnswerFormat::JsonLines));
        check("application/*, text/*;q=0.9", Some(AnswerFormat::Json));
        check("text/html, application/json;q=0.9, */*;q=0.8", Some(AnswerFormat::Json));
        check("text/html, */*;q=0", None);
        check("text/html", None);
        assert_eq!(AnswerFormat::of(&HeaderMap::new()).ok(), Some(AnswerFormat::Json));
    }
}

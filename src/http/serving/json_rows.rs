//! The rows of `/invocations` in JSON, which has one of four forms:
//!
//! | form | example |
//! |---|---|
//! | `dataframe_split` | `{"columns": ["age"], "data": [[39], [52]]}` |
//! | `dataframe_records` | `[{"age": 39}, {"age": 52}]` |
//! | `instances` | `[{"age": 39}, {"age": 52}]`, or lists of all values |
//! | `inputs` | `{"age": [39, 52]}`, or as `instances` |

use std::collections::BTreeSet;

use serde_json::{Map, Value as Json};

use crate::{
    events::questionnaire::QuestionnaireSchema,
    http::{
        error::HttpError,
        serving::{Row, columns, invalid},
    },
};

/// The rows of a body, and the number of reasons that it asks for.
pub(super) type RowsAndReasons = (Vec<Row>, Option<usize>);

const FORMS: [&str; 4] = ["dataframe_split", "dataframe_records", "instances", "inputs"];

/// Members that may be beside the rows. MLflow's clients may name a signature; there is one.
const BESIDE: [&str; 2] = ["params", "signature_name"];

/// The rows of the body, and the number of reasons that are asked for.
pub(super) fn rows_of_json(
    body: Json,
    schema: &QuestionnaireSchema,
) -> Result<RowsAndReasons, HttpError> {
    let forms = FORMS.join(", ");
    let Json::Object(mut fields) = body else {
        return Err(invalid(format!("the body is a JSON object with one of {forms}")));
    };
    let reasons = reasons_of(fields.remove(BESIDE[0]))?;
    fields.remove(BESIDE[1]);
    if let Some(unknown) = fields.keys().find(|name| !FORMS.contains(&name.as_str())) {
        return Err(invalid(format!(
            "there is no member `{unknown}`: the body has one of {forms}, and beside it perhaps {}",
            BESIDE.join(", ")
        )));
    }
    let mut fields = fields.into_iter();
    let (Some((form, rows)), None) = (fields.next(), fields.next()) else {
        return Err(invalid(format!("the body has exactly one of {forms}")));
    };
    let rows = match (form.as_str(), rows) {
        ("dataframe_split", split) => rows_of_split(split)?,
        ("inputs", Json::Object(columns)) => rows_by_column(columns)?,
        (_, rows) => rows_of_records(&form, rows, schema)?,
    };
    Ok((rows, reasons))
}

fn reasons_of(params: Option<Json>) -> Result<Option<usize>, HttpError> {
    let params = match params {
        None | Some(Json::Null) => return Ok(None),
        Some(Json::Object(params)) => params,
        Some(_) => return Err(invalid("`params` is a JSON object, such as {\"reasons\": 3}")),
    };
    if let Some(unknown) = params.keys().find(|name| *name != "reasons") {
        return Err(invalid(format!(
            "there is no parameter `{unknown}` in `params`; there is reasons"
        )));
    }
    let most = params.get("reasons").filter(|most| !most.is_null());
    most.map(|most| columns::reasons_of("`params.reasons`", most)).transpose()
}

fn rows_of_split(split: Json) -> Result<Vec<Row>, HttpError> {
    let wrong = || {
        invalid(
            "`dataframe_split` is {\"columns\": [names], \"data\": [[values of a row], …]}; `index` is not read",
        )
    };
    let Json::Object(mut split) = split else { return Err(wrong()) };
    split.remove("index");
    let (Some(Json::Array(columns)), Some(Json::Array(data)), true) =
        (split.remove("columns"), split.remove("data"), split.is_empty())
    else {
        return Err(wrong());
    };
    let names: Option<Vec<&str>> = columns.iter().map(Json::as_str).collect();
    let names = names.ok_or_else(wrong)?;
    distinct(&names)?;
    let rows = data.into_iter().enumerate().map(|(number, values)| {
        let Json::Array(values) = values else { return Err(wrong()) };
        if values.len() != names.len() {
            let message =
                format!("row {number} has {} values for {} columns", values.len(), names.len());
            return Err(invalid(message));
        }
        Ok(names.iter().map(|name| (*name).to_owned()).zip(values).collect())
    });
    rows.collect()
}

fn rows_of_records(
    form: &str,
    rows: Json,
    schema: &QuestionnaireSchema,
) -> Result<Vec<Row>, HttpError> {
    let wrong = || {
        invalid(format!(
            "`{form}` is a list of objects with values by name, such as [{{\"age\": 39}}], or of lists of all values"
        ))
    };
    let Json::Array(rows) = rows else { return Err(wrong()) };
    rows.into_iter().map(|row| row_of_json(row, schema).ok_or_else(wrong)?).collect()
}

/// Rows of columns of the same length. A value that is no list is a column of one.
fn rows_by_column(columns: Map<String, Json>) -> Result<Vec<Row>, HttpError> {
    let columns = columns.into_iter().map(|(name, values)| match values {
        Json::Array(values) => Ok((name, values)),
        one
        @ (Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) | Json::Object(_)) => {
            Ok((name, vec![one]))
        }
    });
    columns::rows_of_columns("column", columns)
}

/// Checks that no column is there twice.
pub(super) fn distinct(names: &[&str]) -> Result<(), HttpError> {
    let mut before = BTreeSet::new();
    match names.iter().find(|name| !before.insert(**name)) {
        None => Ok(()),
        Some(twice) => Err(invalid(format!("column `{twice}` is repeated"))),
    }
}

/// A row that is an object by name, a list of all values in the order of the questions, or SageMaker's `{"features": [values]}`.
/// None if it is neither.
pub(super) fn row_of_json(
    json: Json,
    schema: &QuestionnaireSchema,
) -> Option<Result<Row, HttpError>> {
    match json {
        Json::Array(values) => Some(row_in_order(values, schema)),
        Json::Object(mut row) => {
            let is_list = row.len() == 1 && row.get("features").is_some_and(Json::is_array);
            if is_list && !schema.has_field("features") {
                let values = row.remove("features");
                return row_of_json(values.unwrap_or_default(), schema);
            }
            Some(Ok(row))
        }
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => None,
    }
}

fn row_in_order(values: Vec<Json>, schema: &QuestionnaireSchema) -> Result<Row, HttpError> {
    let questions = schema.questions();
    if values.len() != questions.len() {
        return Err(invalid(format!(
            "a row without names has {} values, and there are {} questions: {}",
            values.len(),
            questions.len(),
            names_of(schema).join(", ")
        )));
    }
    let names = questions.iter().map(|question| question.name.clone());
    Ok(names.zip(values).collect())
}

pub(super) fn names_of(schema: &QuestionnaireSchema) -> Vec<&str> {
    schema.questions().iter().map(|question| question.name.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::questionnaire::MetadataFields;

    fn read(body: &str) -> Result<RowsAndReasons, HttpError> {
        let avsc = r#"{"type": "record", "name": "E", "fields": [{"name": "who", "type": "string"},
            {"name": "at", "type": "long"}, {"name": "age", "type": ["null", "int"]}]}"#;
        let fields = MetadataFields {
            event_id: None,
            respondent_id: "who".to_owned(),
            event_time: "at".to_owned(),
            completed: None,
        };
        let schema = QuestionnaireSchema::new(avsc, &fields, &[]).unwrap();
        rows_of_json(serde_json::from_str(body).unwrap(), &schema)
    }

    #[test]
    fn every_form_has_the_same_rows() {
        let expected: Vec<Row> =
            serde_json::from_str(r#"[{"age": 39, "job": "x"}, {"age": null, "job": "y"}]"#)
                .unwrap();
        for body in [
            r#"{"dataframe_split": {"columns": ["age", "job"], "data": [[39, "x"], [null, "y"]], "index": [0, 1]}}"#,
            r#"{"dataframe_records": [{"age": 39, "job": "x"}, {"age": null, "job": "y"}]}"#,
            r#"{"instances": [{"age": 39, "job": "x"}, {"age": null, "job": "y"}]}"#,
            r#"{"inputs": {"age": [39, null], "job": ["x", "y"]}, "signature_name": "serving_default"}"#,
            r#"{"inputs": [{"age": 39, "job": "x"}, {"age": null, "job": "y"}], "params": {"reasons": null}}"#,
        ] {
            let found = read(body).unwrap();
            assert_eq!(found, (expected.clone(), None), "{body}");
        }
    }

    #[test]
    fn a_malformed_body_is_refused_with_the_reason() {
        let check = |body: &str, words: &str| {
            let error = read(body).unwrap_err();
            let detail = error.detail();
            assert!(detail.contains(words), "{words:?} in {detail:?}");
        };
        check("[]", "one of dataframe_split");
        check("{}", "exactly one of");
        check(r#"{"instances": [], "inputs": []}"#, "exactly one of");
        check(r#"{"rows": []}"#, "no member `rows`: the body has one of dataframe_split");
        check(r#"{"instances": [], "param": {}}"#, "no member `param`");
        check(r#"{"instances": [], "param": {}}"#, "beside it perhaps params, signature_name");
        check(r#"{"instances": [39]}"#, "`instances` is a list of objects");
        check(r#"{"dataframe_split": {"data": []}}"#, "`dataframe_split` is");
        check(r#"{"dataframe_split": {"columns": ["a", "a"], "data": []}}"#, "`a` is repeated");
        check(r#"{"dataframe_split": {"columns": ["a"], "data": [[1], [1, 2]]}}"#, "row 1 has 2");
        check(r#"{"inputs": {"a": [1], "b": [1, 2]}}"#, "column `b` has 2");
        check(r#"{"inputs": {"a": 1}, "params": {"reasons": 0}}"#, "from 1 to 100");
        check(r#"{"inputs": {"a": 1}, "params": {"explain": 1}}"#, "no parameter `explain`");
    }
}

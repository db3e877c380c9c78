//! `POST /invocations`, the request of MLflow's scoring server and of SageMaker: JSON in one of five forms, or CSV.
//!
//! | form | example |
//! |---|---|
//! | `dataframe_split` | `{"columns": ["age"], "data": [[39], [52]]}` |
//! | `dataframe_records` | `[{"age": 39}, {"age": 52}]` |
//! | `instances` | `[{"age": 39}, {"age": 52}]` |
//! | `inputs` | `{"age": [39, 52]}`, or as `instances` |
//! | `text/csv` | a header and a line for each row |

use std::collections::BTreeSet;

use axum::{
    Json as JsonBody,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value as Json, json};

use crate::http::{
    HttpState, body,
    error::HttpError,
    json,
    parameters::Parameters,
    reasons::REASONS_MAX,
    serving::{Row, ScoreRequest, Scored, champion, headers, invalid},
};

/// Scores the rows of the body. `params.reasons` adds the reasons of each.
pub(in crate::http) async fn invocations(
    State(state): State<HttpState>,
    parameters: Parameters,
    request: Request,
) -> Result<Response, HttpError> {
    parameters.check(&[])?;
    let scorer = champion(&state)?;
    let is_csv = is_csv(request.headers())?;
    let bytes = body::bytes(request, state.read_timeout).await?;
    let (rows, reasons) = if is_csv {
        (rows_of_csv(&bytes)?, None)
    } else {
        let json = json::parse(&bytes).map_err(invalid)?;
        rows_of_json(json)?
    };
    let request = ScoreRequest { rows, scorer, reasons, protocol: "invocations" };
    let scored = request.answer(&state).await?;
    let version = headers(&scored.scorer);
    Ok((version, JsonBody(answer(scored))).into_response())
}

fn answer(Scored { scorer, scores, reasons }: Scored) -> Json {
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

fn is_csv(headers: &HeaderMap) -> Result<bool, HttpError> {
    let is_csv = |kind: &str| body::essence(kind) == "text/csv";
    if body::is_of_type(headers, body::is_json) {
        return Ok(false);
    }
    if body::is_of_type(headers, is_csv) {
        return Ok(true);
    }
    let message = "send the header `Content-Type: application/json`, or text/csv";
    Err(HttpError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message)
        .with_header(header::ACCEPT, "application/json, text/csv"))
}

const FORMS: [&str; 4] = ["dataframe_split", "dataframe_records", "instances", "inputs"];

/// The rows of the body, and the number of reasons that are asked for.
fn rows_of_json(body: Json) -> Result<(Vec<Row>, Option<usize>), HttpError> {
    let Json::Object(mut fields) = body else {
        return Err(invalid(format!("the body is a JSON object with one of {}", FORMS.join(", "))));
    };
    let reasons = reasons_of(fields.remove("params"))?;
    // MLflow's clients may name a signature; there is one.
    fields.remove("signature_name");
    let mut fields = fields.into_iter();
    let (Some((form, rows)), None) = (fields.next(), fields.next()) else {
        return Err(invalid(format!("the body has exactly one of {}", FORMS.join(", "))));
    };
    let rows = match form.as_str() {
        "dataframe_split" => rows_of_split(rows)?,
        "dataframe_records" | "instances" => rows_of_records(&form, rows)?,
        "inputs" => match rows {
            Json::Object(columns) => rows_of_columns(columns)?,
            rows @ (Json::Null
            | Json::Bool(_)
            | Json::Number(_)
            | Json::String(_)
            | Json::Array(_)) => rows_of_records(&form, rows)?,
        },
        other => {
            return Err(invalid(format!(
                "there is no form `{other}`; there are {}",
                FORMS.join(", ")
            )));
        }
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
    let Some(most) = params.get("reasons").filter(|most| !most.is_null()) else { return Ok(None) };
    let most = most.as_u64().filter(|most| (1..=REASONS_MAX).contains(most));
    let most = most.and_then(|most| usize::try_from(most).ok());
    match most {
        Some(most) => Ok(Some(most)),
        None => {
            Err(invalid(format!("`params.reasons` must be a whole number from 1 to {REASONS_MAX}")))
        }
    }
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

fn rows_of_records(form: &str, rows: Json) -> Result<Vec<Row>, HttpError> {
    let wrong = || {
        invalid(format!(
            "`{form}` is a list of objects with values by name, such as [{{\"age\": 39}}]"
        ))
    };
    let Json::Array(rows) = rows else { return Err(wrong()) };
    let rows = rows.into_iter().map(|row| match row {
        Json::Object(row) => Ok(row),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) | Json::Array(_) => {
            Err(wrong())
        }
    });
    rows.collect()
}

/// Rows of columns of the same length. A value that is no list is a column of one.
fn rows_of_columns(columns: Map<String, Json>) -> Result<Vec<Row>, HttpError> {
    let mut rows: Vec<Row> = Vec::new();
    for (number, (name, values)) in columns.into_iter().enumerate() {
        let values = match values {
            Json::Array(values) => values,
            one @ (Json::Null
            | Json::Bool(_)
            | Json::Number(_)
            | Json::String(_)
            | Json::Object(_)) => vec![one],
        };
        if number == 0 {
            rows.resize_with(values.len(), Row::new);
        } else if values.len() != rows.len() {
            let message = format!(
                "column `{name}` has {} values, and the columns before it have {}",
                values.len(),
                rows.len()
            );
            return Err(invalid(message));
        }
        for (row, value) in rows.iter_mut().zip(values) {
            row.insert(name.clone(), value);
        }
    }
    Ok(rows)
}

fn rows_of_csv(bytes: &[u8]) -> Result<Vec<Row>, HttpError> {
    let wrong = |error: csv::Error| invalid(format!("not CSV with a header: {error}"));
    let mut reader = csv::Reader::from_reader(bytes);
    let names = reader.headers().map_err(wrong)?.clone();
    let names: Vec<&str> = names.iter().map(str::trim).collect();
    distinct(&names)?;
    let rows = reader.records().map(|record| {
        let record = record.map_err(wrong)?;
        let names = names.iter().map(|name| (*name).to_owned());
        Ok(names.zip(record.iter().map(|cell| Json::String(cell.to_owned()))).collect())
    });
    rows.collect()
}

/// Checks that no column is there twice.
fn distinct(names: &[&str]) -> Result<(), HttpError> {
    let mut before = BTreeSet::new();
    match names.iter().find(|name| !before.insert(**name)) {
        None => Ok(()),
        Some(twice) => Err(invalid(format!("column `{twice}` is repeated"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            let found = rows_of_json(serde_json::from_str(body).unwrap()).unwrap();
            assert_eq!(found, (expected.clone(), None), "{body}");
        }
        let csv = rows_of_csv(b"age,job\r\n39,x\n,\"y\"\n").unwrap();
        assert_eq!(csv[1], serde_json::from_str(r#"{"age": "", "job": "y"}"#).unwrap());
    }

    #[test]
    fn a_malformed_body_is_refused_with_the_reason() {
        let check = |body: &str, words: &str| {
            let error = rows_of_json(serde_json::from_str(body).unwrap()).unwrap_err();
            let body = error.into_body();
            let detail = body["detail"].as_str().unwrap();
            assert!(detail.contains(words), "{words:?} in {detail:?}");
        };
        check("[]", "one of dataframe_split");
        check("{}", "exactly one of");
        check(r#"{"instances": [], "inputs": []}"#, "exactly one of");
        check(r#"{"rows": []}"#, "no form `rows`");
        check(r#"{"instances": [39]}"#, "`instances` is a list of objects");
        check(r#"{"dataframe_split": {"data": []}}"#, "`dataframe_split` is");
        check(r#"{"dataframe_split": {"columns": ["a", "a"], "data": []}}"#, "`a` is repeated");
        check(r#"{"dataframe_split": {"columns": ["a"], "data": [[1], [1, 2]]}}"#, "row 1 has 2");
        check(r#"{"inputs": {"a": [1], "b": [1, 2]}}"#, "column `b` has 2");
        check(r#"{"inputs": {"a": 1}, "params": {"reasons": 0}}"#, "from 1 to 100");
        check(r#"{"inputs": {"a": 1}, "params": {"explain": 1}}"#, "no parameter `explain`");
        assert!(rows_of_csv(b"a,a\n1,2\n").is_err());
        assert!(rows_of_csv(b"a,b\n1\n").is_err());
    }
}

//! Rows of a request that gives them column by column, and the number of reasons that it asks for.

use serde_json::Value as Json;

use crate::http::{
    error::HttpError,
    reasons::REASONS_MAX,
    serving::{Row, invalid},
};

/// The rows of columns of the same length. `kind` is what the protocol calls a column.
pub(super) fn rows_of_columns(
    kind: &str,
    columns: impl IntoIterator<Item = Result<(String, Vec<Json>), HttpError>>,
) -> Result<Vec<Row>, HttpError> {
    let mut rows: Vec<Row> = Vec::new();
    for (number, column) in columns.into_iter().enumerate() {
        let (name, values) = column?;
        if number == 0 {
            rows.resize_with(values.len(), Row::new);
        } else if values.len() != rows.len() {
            let message = format!(
                "{kind} `{name}` has {} rows, and the {kind}s before it have {}",
                values.len(),
                rows.len()
            );
            return Err(invalid(message));
        }
        for (row, value) in rows.iter_mut().zip(values) {
            if row.insert(name.clone(), value).is_some() {
                return Err(invalid(format!("{kind} `{name}` is repeated")));
            }
        }
    }
    Ok(rows)
}

/// The number of reasons that the value of a parameter asks for. `parameter` is what the protocol calls it.
pub(super) fn reasons_of(parameter: &str, value: &Json) -> Result<usize, HttpError> {
    let most = value.as_u64().filter(|most| (1..=REASONS_MAX).contains(most));
    let most = most.and_then(|most| usize::try_from(most).ok());
    most.ok_or_else(|| {
        invalid(format!("{parameter} must be a whole number from 1 to {REASONS_MAX}"))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_become_rows() {
        let check = |columns: &[(&str, &[i64])], expected: Result<Json, &str>| {
            let columns = columns.iter().map(|(name, values)| {
                Ok(((*name).to_owned(), values.iter().map(|value| json!(value)).collect()))
            });
            match (rows_of_columns("input", columns), expected) {
                (Ok(rows), Ok(expected)) => assert_eq!(json!(rows), expected),
                (Err(error), Err(expected)) => {
                    assert!(format!("{error:?}").contains(expected), "{error:?}");
                }
                (found, expected) => panic!("{:?} in place of {expected:?}", found.is_ok()),
            }
        };
        check(&[], Ok(json!([])));
        check(&[("a", &[1, 2]), ("b", &[3, 4])], Ok(json!([{"a": 1, "b": 3}, {"a": 2, "b": 4}])));
        check(
            &[("a", &[1, 2]), ("b", &[3])],
            Err("input `b` has 1 rows, and the inputs before it"),
        );
        check(&[("a", &[1]), ("a", &[2])], Err("input `a` is repeated"));
    }

    #[test]
    fn reasons_are_at_least_one() {
        assert_eq!(reasons_of("`n`", &json!(3)).unwrap(), 3);
        for value in [json!(0), json!(REASONS_MAX + 1), json!("3"), json!(1.5), json!(null)] {
            let error = format!("{:?}", reasons_of("`n`", &value).unwrap_err());
            assert!(error.contains("`n` must be a whole number from 1 to"), "{error}");
        }
    }
}

//! The outcomes of a row as a cell of a table: `liked after 12m; bought after 1h 5m`.

use std::time::Duration;

use crate::events::label;

/// An outcome, and the event time from the row's event to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimedOutcome {
    pub label: String,
    pub after: Duration,
}

/// A number that is an outcome's time at most, which keeps event times in range: about a century.
const AFTER_MAX: Duration = Duration::from_secs(100 * 366 * 24 * 60 * 60);

/// Reads the outcomes of a cell, in order of time. Labels must be among `classes`, unless `classes` is empty.
///
/// # Errors
/// The part of the cell that is invalid, and why.
pub(super) fn parse(cell: &str, classes: &[String]) -> Result<Vec<TimedOutcome>, String> {
    let parts = cell.split(';').map(str::trim).filter(|part| !part.is_empty());
    let mut outcomes = parts.map(|part| one(part, classes)).collect::<Result<Vec<_>, _>>()?;
    outcomes.sort_by_key(|outcome| outcome.after);
    Ok(outcomes)
}

fn one(part: &str, classes: &[String]) -> Result<TimedOutcome, String> {
    let parsed = part.split_once(" after ").and_then(|(label, after)| {
        let after = humantime_serde::re::humantime::parse_duration(after.trim()).ok()?;
        (after <= AFTER_MAX).then_some((label.trim(), after))
    });
    let Some((label, after)) = parsed else {
        return Err(format!("{part:?} is not a label with a time, such as \"liked after 12m\""));
    };
    let class = label::class_of(label, classes).map(String::as_str);
    let class = class.or_else(|| classes.is_empty().then_some(label)).ok_or_else(|| {
        format!("{label:?} is not one of [outcomes] labels: {}", classes.join(", "))
    })?;
    Ok(TimedOutcome { label: class.to_owned(), after })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLASSES: [&str; 3] = ["ignored", "liked", "bought"];

    fn parsed(cell: &str) -> Result<Vec<(String, u64)>, String> {
        let outcomes = parse(cell, &CLASSES.map(str::to_owned))?;
        Ok(outcomes.into_iter().map(|one| (one.label, one.after.as_secs())).collect())
    }

    #[test]
    fn outcomes_are_in_order_of_time() {
        let check = |cell: &str, expected: &[(&str, u64)]| {
            let expected = expected.iter().map(|(label, after)| ((*label).to_owned(), *after));
            assert_eq!(parsed(cell), Ok(expected.collect()), "{cell:?}");
        };
        check("", &[]);
        check(" ; ", &[]);
        check("liked after 12m", &[("liked", 720)]);
        check("bought after 1h 5m; liked after 0s;", &[("liked", 0), ("bought", 3_900)]);
        check(" bought  after  2s ", &[("bought", 2)]);
    }

    #[test]
    fn an_invalid_outcome_is_named() {
        let check = |cell: &str, words: &[&str]| {
            let error = parsed(cell).expect_err(cell);
            for word in words {
                assert!(error.contains(word), "{word:?} in {error:?}");
            }
        };
        check("liked after 1m; shared after 2m", &["\"shared\"", "ignored, liked, bought"]);
        for wrong in ["liked", "liked 5m", "liked after soon", "liked after -1s", "after 5m"] {
            check(wrong, &[wrong, "liked after 12m"]);
        }
        check("liked after 200years", &["liked after 200years"]);
        assert!(parse("anything after 1s", &[]).is_ok(), "the labels are not known");
    }
}

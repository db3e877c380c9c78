//! Checks of the training data: the table of the configuration, and the initial examples in the training log.

use std::ops::ControlFlow;

use crate::{
    app::{check_result::CheckResult, cluster::Cluster, initial::Prepared},
    config::Config,
    events::labelled_example::LabelledExample,
    processors::initial_data::{Incomplete, InitialData},
};

/// The warnings or the error that `foretell init` would give for the table of [data.initial]; `None` if there is none.
pub(super) fn table(prepared: &anyhow::Result<Prepared>) -> Option<CheckResult> {
    let (detail, fix) = match prepared {
        Ok(prepared) if prepared.warnings.is_empty() => return None,
        Ok(prepared) => {
            (prepared.warnings.join("; "), "add what is missing, if models are to learn from it")
        }
        Err(error) => (
            format!("{error:#}"),
            "correct it before the next `foretell init`; running instances do not need it",
        ),
    };
    Some(CheckResult::warning("initial data", detail, fix))
}

/// Counts the initial examples in the training log. It reads until at least `at_least` are found, the number that the
/// champion was trained with, and no more follow at once.
pub(super) fn count_initial_examples(
    config: &Config,
    cluster: &Cluster,
    at_least: u64,
) -> anyhow::Result<Result<usize, Incomplete>> {
    let mut data = InitialData::<()>::default();
    let mut has_grown = true;
    cluster.read_records(
        config,
        &config.topics.labelled_examples,
        |record, example: LabelledExample| {
            if data.take(record, &example, ()) {
                has_grown = true;
            } else if std::mem::take(&mut has_grown)
                && data.complete(at_least).is_ok_and(|rows| !rows.is_empty())
            {
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        },
    )?;
    Ok(data.complete(at_least).map(|rows| rows.len()))
}

/// Whether the training log still has all initial examples.
pub(super) fn training_log(count: &anyhow::Result<Result<usize, Incomplete>>) -> CheckResult {
    let name = "training log";
    match count {
        Err(error) => CheckResult::warning(
            name,
            format!("not checked: {error:#}"),
            "fix what is FAILED, and run `foretell doctor` again",
        ),
        Ok(Err(incomplete)) => CheckResult::failed(
            name,
            incomplete.to_string(),
            "run `foretell init`, and find out why records were deleted: labelled-examples must be kept forever",
        ),
        Ok(Ok(count)) => CheckResult::ok(name, format!("it has all {count} initial examples")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::check_result::Status;

    #[test]
    fn a_log_that_lost_initial_examples_fails() {
        let check = |count, status: Status, words: &str| {
            let result = training_log(&count);
            assert_eq!(result.status, status);
            assert!(result.detail.contains(words), "{}", result.detail);
        };
        check(Ok(Ok(300)), Status::Ok, "300");
        let incomplete = Incomplete { expected: 1_600, found: 150 };
        check(Ok(Err(incomplete)), Status::Failed, "150 of the 1600");
        check(Err(anyhow::anyhow!("no topic")), Status::Warning, "no topic");
    }
}

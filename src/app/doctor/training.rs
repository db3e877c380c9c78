//! Whether trainings have what they are to learn from: the table of the configuration, and the training log.

use std::ops::ControlFlow;

use crate::{
    app::{check_result::CheckResult, cluster::Cluster, initial::Prepared},
    config::Config,
    events::labelled_example::LabelledExample,
    processors::initial_data::{Incomplete, InitialData},
};

/// What `init` would warn of, or refuse.
pub(super) fn table(prepared: &anyhow::Result<Prepared>) -> Option<CheckResult> {
    let (detail, fix) = match prepared {
        Ok(prepared) if prepared.warnings.is_empty() => return None,
        Ok(prepared) => {
            (prepared.warnings.join("; "), "add what is missing, if it is meant to be learned from")
        }
        Err(error) => (
            format!("{error:#}"),
            "correct it before the next `foretell init`; what runs does not need it",
        ),
    };
    Some(CheckResult::warning("initial data", detail, fix))
}

/// The initial examples in the training log, of which the champion has seen so many. The log is read as far as it takes
/// to find all of them.
pub(super) fn look(
    config: &Config,
    cluster: &Cluster,
    at_least: u64,
) -> anyhow::Result<Result<usize, Incomplete>> {
    let mut data = InitialData::<()>::default();
    let mut is_news = true;
    cluster.read_records(
        &config.topics.labelled_examples,
        |record, example: LabelledExample| {
            if data.take(record, &example, ()) {
                is_news = true;
            } else if std::mem::take(&mut is_news)
                && data.complete(at_least).is_ok_and(|rows| !rows.is_empty())
            {
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        },
    )?;
    Ok(data.complete(at_least).map(|rows| rows.len()))
}

/// Judges it.
pub(super) fn log(seen: &anyhow::Result<Result<usize, Incomplete>>) -> CheckResult {
    let name = "training log";
    match seen {
        Err(error) => CheckResult::warning(
            name,
            format!("not checked: {error:#}"),
            "fix what is FAILED, and run `foretell doctor` again",
        ),
        Ok(Err(incomplete)) => CheckResult::failed(
            name,
            incomplete.to_string(),
            "run `foretell init`, and see why records were deleted: labelled-examples is to be kept for ever",
        ),
        Ok(Ok(examples)) => {
            CheckResult::ok(name, format!("all {examples} initial examples are there"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::check_result::Status;

    #[test]
    fn a_log_without_its_head_fails() {
        let check = |seen, status: Status, words: &str| {
            let finding = log(&seen);
            assert_eq!(finding.status, status);
            assert!(finding.detail.contains(words), "{}", finding.detail);
        };
        check(Ok(Ok(300)), Status::Ok, "300");
        let incomplete = Incomplete { expected: 1_600, found: 150 };
        check(Ok(Err(incomplete)), Status::Failed, "150 of the 1600");
        check(Err(anyhow::anyhow!("no topic")), Status::Warning, "no topic");
    }
}

//! The check of the MLflow server.

use crate::{app::check_result::CheckResult, config::MlflowSettings, tracking::Probed};

/// Whether the server would take what is sent to it. A server that does not is no failure, for scoring and learning need no MLflow;
/// settings that cannot be used are one.
pub(super) fn mlflow(settings: &MlflowSettings, probed: &Probed) -> CheckResult {
    let (uri, experiment) = (&settings.tracking_uri, &settings.experiment);
    let warning = |problem: String, fix: &str| {
        let detail = format!("{uri}: {problem}; what happens is sent later");
        CheckResult::warning("mlflow", detail, fix)
    };
    match probed {
        Probed::Experiment => {
            CheckResult::ok("mlflow", format!("{uri} has the experiment {experiment:?}"))
        }
        Probed::NoExperiment => CheckResult::ok(
            "mlflow",
            format!("{uri} answers; `foretell run` creates the experiment {experiment:?}"),
        ),
        Probed::Unavailable(reason) => warning(
            reason.clone(),
            "start an MLflow 3 server there, or correct [mlflow] tracking_uri and the credentials",
        ),
        Probed::Refused(reason) => warning(reason.clone(), "correct [mlflow]"),
        Probed::Invalid(reason) => CheckResult::failed(
            "mlflow",
            reason.clone(),
            "correct [mlflow]: `foretell run` does not start with it",
        ),
    }
}

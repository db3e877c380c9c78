//! The calls of MLflow's REST API that tracking needs, each of them one request.
//!
//! MLflow has no idempotency keys. The caller searches before it creates.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use crate::tracking::{
    client::{Client, TrackingError},
    mapping::{Content, Dataset, Metric, RunStatus},
};
use foretell_streams::time::WallTime;

const ARTIFACTS: &str = "api/2.0/mlflow-artifacts/artifacts";
/// Scheme of artifacts that the server itself stores.
const PROXIED: &str = "mlflow-artifacts:";
/// Maximum number of entities of a search. More than one of them is an exception.
const PAGE: u32 = 10;
/// Limits of one `log-batch`: at most 100 parameters, 100 tags, 1000 metrics, and 1000 of all together.
const PARAMETERS_MAX: usize = 100;
const TAGS_MAX: usize = 100;
const METRICS_MAX: usize = 1000 - PARAMETERS_MAX - TAGS_MAX;

const EXISTS: &str = "RESOURCE_ALREADY_EXISTS";
/// MLflow's code for an entity that does not exist.
pub(super) const MISSING: &str = "RESOURCE_DOES_NOT_EXIST";

/// A run, as a search returns it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Run {
    pub(super) id: String,
    pub(super) status: String,
    /// Milliseconds since the Unix epoch; none while it runs.
    pub(super) end: Option<i64>,
    pub(super) tags: BTreeMap<String, String>,
    /// Logged models that are its outputs.
    pub(super) models: Vec<String>,
    /// The last value of each metric.
    pub(super) metrics: BTreeMap<String, f64>,
    /// Number of parameters, metrics and tags.
    pub(super) entries: usize,
}

impl Run {
    pub(super) fn is_running(&self) -> bool {
        self.status == RunStatus::Running.name()
    }
}

/// A logged model, as a search returns it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LoggedModel {
    pub(super) id: String,
    pub(super) is_ready: bool,
    pub(super) artifact_uri: String,
}

/// A registered version, as a search returns it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RegisteredVersion {
    /// A number, from 1.
    pub(super) version: String,
}

/// Tags of a new entity: names and values.
pub(super) type Tags = [(String, String)];

impl Client {
    /// The id of an experiment; creates it if there is none.
    pub(super) fn experiment(&self, name: &str, tags: &Tags) -> Result<String, TrackingError> {
        match self.experiment_by_name(name) {
            Err(error) if error.is(MISSING) => {}
            found => return found,
        }
        let body = json!({ "name": name, "tags": pairs(tags) });
        match self.post("experiments/create", &body) {
            Ok(created) => text(&created, "/experiment_id"),
            // Another process has just created it.
            Err(error) if error.is(EXISTS) => self.experiment_by_name(name),
            Err(error) => Err(error),
        }
    }

    /// The id of an experiment.
    pub(super) fn experiment_by_name(&self, name: &str) -> Result<String, TrackingError> {
        let found = self.get("experiments/get-by-name", &[("experiment_name", name)])?;
        if found.pointer("/experiment/lifecycle_stage") == Some(&json!("deleted")) {
            return Err(TrackingError::unavailable(format!(
                "experiment {name:?} is deleted: restore it, or delete it permanently"
            )));
        }
        text(&found, "/experiment/experiment_id")
    }

    /// The newest runs of an experiment that a filter selects, at most [`PAGE`].
    pub(super) fn runs(&self, experiment: &str, filter: &str) -> Result<Vec<Run>, TrackingError> {
        let body = json!({
            "experiment_ids": [experiment],
            "filter": filter,
            "max_results": PAGE,
            "order_by": ["start_time DESC"],
            "run_view_type": "ACTIVE_ONLY",
        });
        let found = self.post("runs/search", &body)?;
        list(&found, "/runs").map(run_of).collect()
    }

    /// Creates a run and returns its id.
    pub(super) fn create_run(
        &self,
        experiment: &str,
        name: &str,
        start: WallTime,
        tags: &Tags,
    ) -> Result<String, TrackingError> {
        let body = json!({
            "experiment_id": experiment,
            "run_name": name,
            "start_time": start.0,
            "tags": pairs(tags),
        });
        text(&self.post("runs/create", &body)?, "/run/info/run_id")
    }

    /// Adds parameters, metrics and tags to a run, in as many requests as the limits need.
    pub(super) fn log(
        &self,
        run: &str,
        content: &Content,
        model: Option<&str>,
    ) -> Result<(), TrackingError> {
        let mut metrics = content.metrics.chunks(METRICS_MAX);
        let mut parameters = content.parameters.chunks(PARAMETERS_MAX);
        let mut tags = content.tags.chunks(TAGS_MAX);
        loop {
            let batch = (metrics.next(), parameters.next(), tags.next());
            if batch == (None, None, None) {
                return Ok(());
            }
            let (metrics, parameters, tags) = batch;
            let metrics = metrics.unwrap_or_default().iter();
            let body = json!({
                "run_id": run,
                "metrics": metrics.map(|metric| metric_json(metric, model)).collect::<Vec<_>>(),
                "params": pairs(parameters.unwrap_or_default()),
                "tags": pairs(tags.unwrap_or_default()),
            });
            self.post("runs/log-batch", &body)?;
        }
    }

    /// Adds the dataset of a training to a run.
    pub(super) fn log_dataset(&self, run: &str, dataset: &Dataset) -> Result<(), TrackingError> {
        let body = json!({
            "run_id": run,
            "datasets": [{
                "dataset": {
                    "name": dataset.name,
                    "digest": dataset.digest,
                    "source_type": "kafka",
                    "source": dataset.source.to_string(),
                    "profile": dataset.profile.to_string(),
                },
                "tags": [{ "key": "mlflow.data.context", "value": "training" }],
            }],
        });
        self.post("runs/log-inputs", &body).map(drop)
    }

    /// Ends a run.
    pub(super) fn end_run(
        &self,
        run: &str,
        status: RunStatus,
        end: WallTime,
    ) -> Result<(), TrackingError> {
        let body = json!({ "run_id": run, "status": status.name(), "end_time": end.0 });
        self.post("runs/update", &body).map(drop)
    }

    /// Moves a run to the deleted ones.
    pub(super) fn delete_run(&self, run: &str) -> Result<(), TrackingError> {
        self.post("runs/delete", &json!({ "run_id": run })).map(drop)
    }

    /// The logged models whose source is a run.
    pub(super) fn logged_models(
        &self,
        experiment: &str,
        run: &str,
    ) -> Result<Vec<LoggedModel>, TrackingError> {
        let body = json!({
            "experiment_ids": [experiment],
            "filter": format!("source_run_id = '{run}'"),
            "max_results": PAGE,
        });
        let found = self.post("logged-models/search", &body)?;
        list(&found, "/models").map(logged_model_of).collect()
    }

    /// Creates a logged model without artifacts.
    pub(super) fn create_logged_model(
        &self,
        experiment: &str,
        run: &str,
        name: &str,
        tags: &Tags,
    ) -> Result<LoggedModel, TrackingError> {
        let body = json!({
            "experiment_id": experiment,
            "name": name,
            "source_run_id": run,
            "model_type": "lightgbm",
            "tags": pairs(tags),
        });
        let created = self.post("logged-models", &body)?;
        logged_model_of(created.get("model").unwrap_or(&Json::Null))
    }

    /// Makes a logged model an output of a run, which must not have it yet.
    pub(super) fn add_output(&self, run: &str, model: &str) -> Result<(), TrackingError> {
        let body = json!({ "run_id": run, "models": [{ "model_id": model, "step": 0 }] });
        self.post("runs/outputs", &body).map(drop)
    }

    /// Marks a logged model as complete.
    pub(super) fn finish_logged_model(&self, model: &str) -> Result<(), TrackingError> {
        let body = json!({ "model_id": model, "status": "LOGGED_MODEL_READY" });
        self.patch(&format!("logged-models/{model}"), &body).map(drop)
    }

    /// Stores a file in the folder `artifact_uri`.
    pub(super) fn upload(
        &self,
        artifact_uri: &str,
        file: &str,
        content: Vec<u8>,
    ) -> Result<(), TrackingError> {
        let folder = proxied_folder(artifact_uri).ok_or_else(|| {
            let problem = format!(
                "artifacts are stored at {artifact_uri}, not by the server: start it with --serve-artifacts and \
                 without --default-artifact-root, and choose a new experiment"
            );
            TrackingError::refused("NO_ARTIFACT_STORE", problem)
        })?;
        self.put(&format!("{ARTIFACTS}/{folder}/{file}"), content).map(drop)
    }

    /// Creates a registered model, if there is none of this name.
    pub(super) fn register(&self, name: &str, tags: &Tags) -> Result<(), TrackingError> {
        let body = json!({ "name": name, "tags": pairs(tags) });
        match self.post("registered-models/create", &body) {
            Err(error) if error.is(EXISTS) => Ok(()),
            registered => registered.map(drop),
        }
    }

    /// The versions of a registered model that a filter selects, the lowest number first.
    pub(super) fn versions(
        &self,
        name: &str,
        filter: &str,
    ) -> Result<Vec<RegisteredVersion>, TrackingError> {
        let filter = format!("name = '{name}' AND {filter}");
        let page = PAGE.to_string();
        let found = self
            .get("model-versions/search", &[("filter", filter.as_str()), ("max_results", &page)])?;
        let versions = list(&found, "/model_versions").map(|version| {
            let number = text(version, "/version")?;
            Ok((number.parse::<u64>().unwrap_or(u64::MAX), RegisteredVersion { version: number }))
        });
        let mut versions = versions.collect::<Result<Vec<_>, TrackingError>>()?;
        versions.sort_by_key(|(number, _)| *number);
        Ok(versions.into_iter().map(|(_, version)| version).collect())
    }

    /// Creates a version of a registered model from a logged model.
    pub(super) fn create_version(
        &self,
        name: &str,
        model: &str,
        run: &str,
        tags: &Tags,
    ) -> Result<(), TrackingError> {
        let body = json!({
            "name": name,
            "source": format!("models:/{model}"),
            "model_id": model,
            "run_id": run,
            "tags": pairs(tags),
        });
        self.post("model-versions/create", &body).map(drop)
    }

    pub(super) fn delete_version(&self, name: &str, version: &str) -> Result<(), TrackingError> {
        let body = json!({ "name": name, "version": version });
        self.delete("model-versions/delete", &body).map(drop)
    }

    /// Makes an alias of a registered model point to a version.
    pub(super) fn set_alias(
        &self,
        name: &str,
        alias: &str,
        version: &str,
    ) -> Result<(), TrackingError> {
        let body = json!({ "name": name, "alias": alias, "version": version });
        self.post("registered-models/alias", &body).map(drop)
    }

    /// Removes an alias, if there is one.
    pub(super) fn delete_alias(&self, name: &str, alias: &str) -> Result<(), TrackingError> {
        let body = json!({ "name": name, "alias": alias });
        match self.delete("registered-models/alias", &body) {
            Err(error) if error.is(MISSING) => Ok(()),
            deleted => deleted.map(drop),
        }
    }
}

/// The folder of artifacts that the server stores, as a path of its API; none for artifacts that are stored elsewhere.
fn proxied_folder(artifact_uri: &str) -> Option<&str> {
    let path = artifact_uri.strip_prefix(PROXIED)?;
    let path = match path.strip_prefix("//") {
        Some(with_host) => with_host.split_once('/').map_or("", |(_, path)| path),
        None => path,
    };
    Some(path.trim_matches('/'))
}

fn pairs(tags: &Tags) -> Json {
    tags.iter().map(|(key, value)| json!({ "key": key, "value": value })).collect()
}

fn metric_json(metric: &Metric, model: Option<&str>) -> Json {
    // JSON has no such numbers.
    let value = match metric.value {
        value if value.is_finite() => json!(value),
        value if value.is_nan() => json!("NaN"),
        value if value > 0.0 => json!("Infinity"),
        _ => json!("-Infinity"),
    };
    let mut json = json!({
        "key": metric.name,
        "value": value,
        "timestamp": metric.time.0,
        "step": metric.step,
    });
    if let Some(model) = model {
        json["model_id"] = json!(model);
    }
    json
}

fn run_of(run: &Json) -> Result<Run, TrackingError> {
    let tags = list(run, "/data/tags")
        .filter_map(|tag| Some((tag.get("key")?.as_str()?, tag.get("value")?.as_str()?)));
    let tags: BTreeMap<_, _> =
        tags.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    let models = list(run, "/outputs/model_outputs");
    let models = models.filter_map(|model| Some(model.get("model_id")?.as_str()?.to_owned()));
    let metrics = list(run, "/data/metrics").filter_map(|metric| {
        Some((metric.get("key")?.as_str()?.to_owned(), metric.get("value")?.as_f64()?))
    });
    let metrics: BTreeMap<_, _> = metrics.collect();
    let logged = list(run, "/data/metrics").count() + list(run, "/data/params").count();
    Ok(Run {
        id: text(run, "/info/run_id")?,
        status: text(run, "/info/status")?,
        end: run.pointer("/info/end_time").and_then(Json::as_i64),
        models: models.collect(),
        metrics,
        entries: logged + tags.len(),
        tags,
    })
}

fn logged_model_of(model: &Json) -> Result<LoggedModel, TrackingError> {
    Ok(LoggedModel {
        id: text(model, "/info/model_id")?,
        is_ready: model.pointer("/info/status") == Some(&json!("LOGGED_MODEL_READY")),
        artifact_uri: text(model, "/info/artifact_uri")?,
    })
}

/// The elements of a list; a list that is left out is empty.
fn list<'j>(json: &'j Json, path: &str) -> impl Iterator<Item = &'j Json> + use<'j> {
    json.pointer(path).and_then(Json::as_array).into_iter().flatten()
}

fn text(json: &Json, path: &str) -> Result<String, TrackingError> {
    let found = json.pointer(path).and_then(Json::as_str);
    found.map(ToOwned::to_owned).ok_or_else(|| {
        TrackingError::unavailable(format!(
            "the response has no {path}: is tracking_uri the address of an MLflow 3 server?"
        ))
    })
}

//! The input of a training job, as SageMaker lays it out under `/opt/ml`:
//!
//! | path | content |
//! |---|---|
//! | `input/config/hyperparameters.json` | keys of the configuration, all values as text |
//! | `input/config/inputdataconfig.json` | the channels and how each is read |
//! | `input/config/resourceconfig.json` | the hosts of the job |
//! | `input/data/training/` (or `train/`) | tables of examples: every file but those of the configuration |
//! | `input/data/validation/` (or `test/`) | a table that the model is evaluated on |
//! | `input/data/config/` | `foretell.toml` and the event schema, if they are not in the training channel |
//! | `model/` | the result |
//! | `output/failure` | the reason of a failure |

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::Context;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value as Json;

use crate::{
    app::serve::MODEL_FOLDER,
    config::{Config, JobValue, TableSettings},
};

const CONFIGURATION: &str = "foretell.toml";
const CONFIG: &str = "config";
const TRAINING: [&str; 2] = ["training", "train"];
const VALIDATION: [&str; 2] = ["validation", "test"];
/// SageMaker shows this many characters of the reason of a failure.
const REASON_MAX: usize = 1024;

/// A training job.
#[derive(Debug)]
pub struct TrainingJob {
    pub(super) config: Config,
    /// The files with the examples.
    pub(super) tables: Vec<PathBuf>,
    /// The folder to write to.
    pub(super) model_folder: PathBuf,
    /// Problems that do not prevent training.
    pub(super) warnings: Vec<String>,
}

/// An input that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TrainingJobError {
    /// A file or folder cannot be read.
    #[error("cannot read {path}", path = path.display())]
    Unreadable {
        /// The path.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A file of SageMaker is not the JSON that is expected.
    #[error("cannot read {path}", path = path.display())]
    Json {
        /// The path.
        path: PathBuf,
        /// Line, column and reason.
        source: serde_json::Error,
    },
    /// There is no configuration.
    #[error(
        "there is no {CONFIGURATION} in the channel config or training of {root}: put it there with the event schema, or name \
         it with --config", root = root.display()
    )]
    NoConfiguration {
        /// The root of the job.
        root: PathBuf,
    },
    /// A channel has no data.
    #[error("channel {channel} has no file with data{}", unread(folders))]
    Empty {
        /// The name of the channel.
        channel: &'static str,
        /// The folders in it, which are not read.
        folders: Vec<String>,
    },
    /// There are channels, and none has examples.
    #[error(
        "there is no channel {}; there are {}: give the examples that name",
        TRAINING.join(" or "), channels.join(", ")
    )]
    NoTraining {
        /// The channels that there are.
        channels: Vec<String>,
    },
    /// A channel that is one table has several files.
    #[error("channel {channel} has {number} files: give it one")]
    Several {
        /// The name of the channel.
        channel: &'static str,
        /// The number of files.
        number: usize,
    },
    /// Two channels mean the same.
    #[error("there are the channels {0} and {1}, which mean the same: remove one")]
    Twice(&'static str, &'static str),
    /// The channel is a stream of bytes, which would be read only once.
    #[error("channel {channel} has the input mode {mode}: set it to File or FastFile")]
    Mode {
        /// The name of the channel.
        channel: String,
        /// The mode.
        mode: String,
    },
    /// Each host would train a model of its own.
    #[error("the job has {0} hosts: a training is in one process, so set the instance count to 1")]
    Hosts(usize),
}

#[derive(Default, Deserialize)]
struct ResourceConfig {
    #[serde(default)]
    hosts: Vec<String>,
}

#[derive(Deserialize)]
struct ChannelConfig {
    #[serde(default, rename = "TrainingInputMode")]
    mode: Option<String>,
}

impl TrainingJob {
    /// Reads the input under `root`. The configuration is `given`, or that of a channel. Without a channel with tables, those of
    /// the configuration are read.
    ///
    /// # Errors
    /// [`TrainingJobError`], or that of the configuration.
    pub fn read(root: &Path, given: Option<&Path>, sets: &[String]) -> anyhow::Result<Self> {
        let input = root.join("input");
        check_hosts(&input)?;
        check_modes(&input)?;
        let channels = folders_of(&input.join("data"))?;
        let is_known = |name: &String| {
            [CONFIG].iter().chain(&TRAINING).chain(&VALIDATION).any(|known| known == name)
        };
        let unknown: Vec<String> =
            channels.iter().filter(|name| !is_known(name)).cloned().collect();
        let training = channel(&input, TRAINING)?;
        if training.is_none() && !unknown.is_empty() {
            return Err(TrainingJobError::NoTraining { channels }.into());
        }
        let mut warnings: Vec<String> =
            unknown.iter().map(|name| format!("channel {name} is not read")).collect();
        let validation = channel(&input, VALIDATION)?;
        let path = match given {
            Some(path) => path.to_owned(),
            None => configuration(root, &input, training.as_ref())?,
        };
        let mut values = Vec::new();
        let mut tables = Vec::new();
        if let Some((name, folder)) = &training {
            tables = files_of(name, folder, &mut warnings)?;
            // A hyperparameter sets other keys of the table, so it may have no section in the file.
            values.push(JobValue {
                place: format!("channel {name}"),
                key: "data.initial.path".to_owned(),
                // A relative path would be one from the configuration's folder.
                value: std::path::absolute(&tables[0])?.display().to_string(),
            });
        }
        values.extend(hyperparameters(&input)?);
        let mut config = Config::load_job(&path, &values, sets)?;
        let initial = config.data.initial.clone().with_context(|| {
            let names = TRAINING.join(" or ");
            format!("there are no examples: neither a channel {names} nor [data.initial]")
        })?;
        if training.is_none() {
            if !channels.is_empty() && !initial.path.is_file() {
                return Err(TrainingJobError::NoTraining { channels }.into());
            }
            tables.push(initial.path.clone());
        } else if validation.is_none() {
            // Its file is where the configuration was written.
            config.data.play = None;
        }
        if let Some((name, folder)) = validation {
            let path = match files_of(name, &folder, &mut warnings)?.as_mut_slice() {
                [path] => std::mem::take(path),
                several => {
                    let number = several.len();
                    return Err(TrainingJobError::Several { channel: name, number }.into());
                }
            };
            let like = config.data.play.take().unwrap_or(initial);
            config.data.play = Some(TableSettings { path, ..like });
        }
        Ok(Self { config, tables, model_folder: root.join(MODEL_FOLDER), warnings })
    }

    /// Removes the reason of the failure of an earlier run.
    ///
    /// # Errors
    /// If there is one, and it cannot be removed.
    pub fn forget_failure(root: &Path) -> io::Result<()> {
        match fs::remove_file(root.join("output").join("failure")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Writes the reason of a failure to where SageMaker looks for it, if there is a root.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn fail(root: &Path, reason: &str) -> io::Result<()> {
        if !root.is_dir() {
            return Ok(());
        }
        let folder = root.join("output");
        fs::create_dir_all(&folder)?;
        let shown: String = reason.chars().take(REASON_MAX).collect();
        fs::write(folder.join("failure"), shown)
    }
}

/// The JSON of a file of SageMaker; none outside of SageMaker, where there is no such file.
fn json<T: DeserializeOwned>(input: &Path, name: &str) -> Result<Option<T>, TrainingJobError> {
    let path = input.join("config").join(name);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(TrainingJobError::Unreadable { path, source }),
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|source| TrainingJobError::Json { path, source })
}

fn check_hosts(input: &Path) -> Result<(), TrainingJobError> {
    let resources = json::<ResourceConfig>(input, "resourceconfig.json")?.unwrap_or_default();
    if resources.hosts.len() > 1 {
        return Err(TrainingJobError::Hosts(resources.hosts.len()));
    }
    Ok(())
}

fn check_modes(input: &Path) -> Result<(), TrainingJobError> {
    let channels = json::<BTreeMap<String, ChannelConfig>>(input, "inputdataconfig.json")?;
    for (channel, ChannelConfig { mode }) in channels.into_iter().flatten() {
        if let Some(mode) = mode.filter(|mode| mode == "Pipe") {
            return Err(TrainingJobError::Mode { channel, mode });
        }
    }
    Ok(())
}

/// The hyperparameters, ordered by key, without those of SageMaker itself.
fn hyperparameters(input: &Path) -> Result<Vec<JobValue>, TrainingJobError> {
    let given = json::<BTreeMap<String, Json>>(input, "hyperparameters.json")?;
    let given = given.into_iter().flatten();
    // `_tuning_objective_metric` of a tuning job, and `sagemaker_program` and others of the SDK.
    let own = given.filter(|(key, _)| !key.starts_with('_') && !key.starts_with("sagemaker_"));
    let values = own.map(|(key, value)| {
        let value = match value {
            Json::String(text) => text,
            other @ (Json::Null
            | Json::Bool(_)
            | Json::Number(_)
            | Json::Array(_)
            | Json::Object(_)) => other.to_string(),
        };
        JobValue { place: format!("hyperparameter {key}"), key, value }
    });
    Ok(values.collect())
}

/// The channel with one of these names, which mean the same.
fn channel(
    input: &Path,
    names: [&'static str; 2],
) -> Result<Option<(&'static str, PathBuf)>, TrainingJobError> {
    let channels = names.map(|name| (name, input.join("data").join(name)));
    match channels.map(|(name, folder)| folder.is_dir().then_some((name, folder))) {
        [Some((one, _)), Some((other, _))] => Err(TrainingJobError::Twice(one, other)),
        [one, other] => Ok(one.or(other)),
    }
}

fn configuration(
    root: &Path,
    input: &Path,
    training: Option<&(&'static str, PathBuf)>,
) -> Result<PathBuf, TrainingJobError> {
    let channels = [input.join("data").join(CONFIG)].into_iter();
    let folders = channels.chain(training.map(|(_, folder)| folder.clone()));
    let mut paths = folders.map(|folder| folder.join(CONFIGURATION));
    let found = paths.find(|path| path.is_file());
    found.ok_or_else(|| TrainingJobError::NoConfiguration { root: root.to_owned() })
}

/// The files with data in a channel, ordered by name; at least one. Folders beside them are a warning.
fn files_of(
    channel: &'static str,
    folder: &Path,
    warnings: &mut Vec<String>,
) -> Result<Vec<PathBuf>, TrainingJobError> {
    let mut files = entries_of(folder)?;
    files.retain(|path| {
        let name = name_of(path);
        name != CONFIGURATION && !name.ends_with(".avsc") && path.is_file()
    });
    let folders = folders_of(folder)?;
    if files.is_empty() {
        return Err(TrainingJobError::Empty { channel, folders });
    }
    if !folders.is_empty() {
        warnings.push(format!("channel {channel}{}", unread(&folders)));
    }
    Ok(files)
}

fn unread(folders: &[String]) -> String {
    if folders.is_empty() {
        return String::new();
    }
    format!(": its folders are not read ({})", folders.join(", "))
}

/// The names of the folders in `folder`, ordered; none if there is no such folder.
fn folders_of(folder: &Path) -> Result<Vec<String>, TrainingJobError> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let folders = entries_of(folder)?.into_iter().filter(|path| path.is_dir());
    Ok(folders.map(|path| name_of(&path)).collect())
}

/// The files and folders in `folder`, ordered by name, without hidden ones.
fn entries_of(folder: &Path) -> Result<Vec<PathBuf>, TrainingJobError> {
    let unreadable = |source| TrainingJobError::Unreadable { path: folder.to_owned(), source };
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if !name_of(&path).starts_with('.') {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

//! The folder of a training job, as SageMaker lays it out, on the worked example.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
};

use flate2::read::GzDecoder;
use serde_json::json;

use crate::process::{Process, SOON, example};

/// Rows of the training channel, in two files.
pub(crate) const ROWS: usize = 500;

/// A training job that was not run.
pub(crate) struct TrainingJob {
    pub(crate) root: PathBuf,
}

impl TrainingJob {
    /// With the worked example's configuration, whose study has one quick trial.
    pub(crate) fn new(folder: &Path) -> Self {
        let job = Self { root: folder.join("ml") };
        let text = fs::read_to_string(example()).unwrap();
        let schema = "../../schemas/questionnaire-event/v1.avsc";
        assert!(text.contains(schema));
        job.write("input/data/config/foretell.toml", &text.replace(schema, "event.avsc"));
        let avsc = fs::read_to_string(Path::new(example()).with_file_name(schema)).unwrap();
        job.write("input/data/config/event.avsc", &avsc);
        let rows = lines("adult.data.gz", ROWS);
        job.write("input/data/training/part-0.csv", &rows[..200].concat());
        job.write("input/data/training/part-1.csv", &rows[200..].concat());
        job.write("input/data/validation/test.csv", &lines("adult.test.gz", 300).concat());
        let channel = json!({"TrainingInputMode": "File", "S3DistributionType": "FullyReplicated"});
        let channels = json!({"config": channel, "training": channel, "validation": channel});
        job.write("input/config/inputdataconfig.json", &channels.to_string());
        let hosts = json!({"current_host": "algo-1", "hosts": ["algo-1"]});
        job.write("input/config/resourceconfig.json", &hosts.to_string());
        job.set(&[]);
        job
    }

    /// Writes the hyperparameters: those of a quick study, and `more`.
    pub(crate) fn set(&self, more: &[(&str, &str)]) {
        let mut all = json!({
            "tuning.trials": "1", "tuning.iterations_max": "20",
            "sagemaker_region": "eu-central-1", "_tuning_objective_metric": "validation:auc",
        });
        for (key, value) in more {
            all[*key] = json!(value);
        }
        self.write("input/config/hyperparameters.json", &all.to_string());
    }

    pub(crate) fn write(&self, path: &str, content: &str) {
        let path = self.root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub(crate) fn read(&self, path: &str) -> String {
        fs::read_to_string(self.root.join(path)).unwrap()
    }

    pub(crate) fn start(&self) -> Process {
        Process::start(&["train", "--root", self.root.to_str().unwrap()])
    }

    /// Runs it, and returns its output.
    pub(crate) fn train(&self) -> String {
        self.start().succeed(SOON)
    }

    /// Serves its model.
    pub(crate) fn serve(&self) -> Process {
        let root = self.root.to_str().unwrap();
        Process::start_after("export SAGEMAKER_BIND_TO_PORT=0", &["serve", "--root", root])
    }
}

/// The first lines of a table of the example.
pub(crate) fn lines(table: &str, number: usize) -> Vec<String> {
    let data = fs::File::open(Path::new(example()).with_file_name(table)).unwrap();
    let lines = BufReader::new(GzDecoder::new(data)).lines().take(number);
    lines.map(|line| line.unwrap() + "\n").collect()
}

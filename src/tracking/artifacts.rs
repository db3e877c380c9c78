//! The files of a logged model, which MLflow loads in two ways:
//!
//! - `mlflow.lightgbm.load_model`: the trees, which take features;
//! - `mlflow.pyfunc.load_model`: the whole model, which takes raw answers and returns the probability of each class.
//!
//! ```text
//!   MLmodel                    flavors, signature
//!   model.txt, pipeline.json, lineage.json                          as `foretell models export` writes them
//!   code/foretell_model.py, code/foretell_pyfunc.py                 the Python that predicts from these
//!   requirements.txt, python_env.yaml, conda.yaml
//!   input_example.json, serving_input_example.json
//! ```

use std::fmt::Write as _;

use chrono::DateTime;
use serde::Deserialize;
use serde_json::{Value as Json, json};

use crate::{events::model::Model, tracking::api::LoggedModel};
use foretell_ml::{ModelBundle, export};

/// A file of a logged model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ArtifactFile {
    /// Path in the folder of the model.
    pub(super) path: String,
    pub(super) content: Vec<u8>,
}

/// Version of Python in the environment that MLflow makes for the model. LightGBM and NumPy support it.
const PYTHON: &str = "3.11";
/// Version of MLflow whose format this is.
const MLFLOW: &str = "3.0.0";
const CODE: &str = "code";
const LOADER: &str = "foretell_pyfunc";
const REQUIREMENTS: [&str; 4] = ["mlflow>=3,<4", "lightgbm>=4,<5", "numpy>=1.24", "pandas>=2"];

/// The files. `MLmodel` is the last one.
///
/// # Errors
/// If the pipeline is not what an export writes.
pub(super) fn files(
    model: &Model,
    bundle: &ModelBundle,
    run: &str,
    logged: &LoggedModel,
) -> Result<Vec<ArtifactFile>, serde_json::Error> {
    let mut files = Vec::new();
    let mut add = |path: String, content: String| {
        files.push(ArtifactFile { path, content: content.into_bytes() });
    };
    let mut pipeline = None;
    for file in export::export(bundle) {
        if file.name == export::PIPELINE_FILE {
            pipeline = Some(serde_json::from_str::<Pipeline>(&file.content)?);
        }
        let path = match file.name {
            export::PYTHON_FILE => format!("{CODE}/{}", file.name),
            name => name.to_owned(),
        };
        add(path, file.content);
    }
    let pipeline = pipeline.unwrap_or_default();
    add(format!("{CODE}/{LOADER}.py"), include_str!("foretell_pyfunc.py").to_owned());
    add("requirements.txt".to_owned(), REQUIREMENTS.join("\n") + "\n");
    add("python_env.yaml".to_owned(), python_env());
    add("conda.yaml".to_owned(), conda());
    let example = pipeline.example();
    add("input_example.json".to_owned(), example.to_string());
    let serving = json!({ "dataframe_split": example });
    add("serving_input_example.json".to_owned(), serving.to_string());
    let size = files.iter().map(|file| file.content.len()).sum();
    let description = ml_model(model, bundle, &pipeline, (run, logged, size));
    files.push(ArtifactFile { path: "MLmodel".to_owned(), content: description.into_bytes() });
    Ok(files)
}

/// The part of `pipeline.json` that describes the inputs.
#[derive(Debug, Default, Deserialize)]
struct Pipeline {
    columns: Vec<InputColumn>,
}

#[derive(Debug, Deserialize)]
struct InputColumn {
    name: String,
    #[serde(flatten)]
    input: Input,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Input {
    Numeric { range: Option<(f64, f64)> },
    Categorical { categories: Vec<String> },
}

impl Pipeline {
    /// A made-up row: the middle of each range of the training, and the first category. It is nobody's answers.
    fn example(&self) -> Json {
        let names: Vec<&str> = self.columns.iter().map(|column| column.name.as_str()).collect();
        let values = self.columns.iter().map(|column| match &column.input {
            Input::Numeric { range: Some((low, high)) } => json!((low / 2.0 + high / 2.0).round()),
            Input::Numeric { range: None } => Json::Null,
            Input::Categorical { categories } => json!(categories.first()),
        });
        json!({ "columns": names, "data": [values.collect::<Json>()] })
    }

    /// The inputs of the signature. What pandas may have as a column of integers or flags is of the type `any`, because MLflow
    /// refuses such a column for `double` and `string`.
    fn inputs(&self) -> Json {
        let inputs = self.columns.iter().map(|column| {
            let of = match column.input {
                Input::Numeric { .. } => "any",
                Input::Categorical { ref categories }
                    if categories.iter().all(is_number_or_flag) =>
                {
                    "any"
                }
                Input::Categorical { .. } => "string",
            };
            json!({ "type": of, "name": column.name, "required": false })
        });
        inputs.collect()
    }
}

#[expect(clippy::ptr_arg, reason = "it is called for each of a list of texts")]
fn is_number_or_flag(category: &String) -> bool {
    category.parse::<f64>().is_ok() || ["true", "false"].contains(&category.as_str())
}

fn ml_model(
    model: &Model,
    bundle: &ModelBundle,
    pipeline: &Pipeline,
    (run, logged, size): (&str, &LoggedModel, usize),
) -> String {
    let outputs = bundle.classes.iter().map(|class| json!({ "type": "double", "name": class }));
    let outputs: Json = outputs.collect();
    let created = DateTime::from_timestamp_millis(model.created_at.0);
    let created = created.map_or(String::new(), |time| time.naive_utc().to_string());
    // YAML contains JSON, whose texts need no further quoting.
    let text = |text: &str| json!(text).to_string();
    let mut yaml = format!("artifact_path: {}\n", text(&logged.artifact_uri));
    yaml += &format!(
        "flavors:\n  lightgbm:\n    code: {CODE}\n    data: {}\n    lgb_version: {}\n    \
         model_class: lightgbm.basic.Booster\n",
        export::MODEL_FILE,
        text(&bundle.lineage.lightgbm),
    );
    yaml += &format!(
        "  python_function:\n    code: {CODE}\n    env:\n      conda: conda.yaml\n      \
         virtualenv: python_env.yaml\n    loader_module: {LOADER}\n    python_version: {PYTHON}.0\n"
    );
    for (key, value) in [
        ("mlflow_version", MLFLOW.to_owned()),
        ("model_id", text(&logged.id)),
        ("model_size_bytes", size.to_string()),
        ("model_uuid", text(&logged.id)),
        ("run_id", text(run)),
        ("utc_time_created", text(&created)),
        ("metadata", json!({ "foretell_model_version": model.version }).to_string()),
    ] {
        writeln!(yaml, "{key}: {value}").expect("a text can be written to");
    }
    yaml += "saved_input_example_info:\n  artifact_path: input_example.json\n  pandas_orient: split\n  \
             serving_input_path: serving_input_example.json\n  type: dataframe\n";
    let inputs = text(&pipeline.inputs().to_string());
    let outputs = text(&outputs.to_string());
    yaml + &format!("signature:\n  inputs: {inputs}\n  outputs: {outputs}\n  params: null\n")
}

fn python_env() -> String {
    format!(
        "python: \"{PYTHON}\"\nbuild_dependencies:\n- pip\ndependencies:\n- -r requirements.txt\n"
    )
}

fn conda() -> String {
    let requirements = REQUIREMENTS.map(|requirement| format!("  - \"{requirement}\"\n")).concat();
    format!(
        "channels:\n- conda-forge\ndependencies:\n- python={PYTHON}\n- pip\n- pip:\n{requirements}name: mlflow-env\n"
    )
}

//! Parity of exported models with Python: predictions, features, decisions and importance of the same rows, computed here and
//! by the exported files with Python's LightGBM; and of a model that Python trained, imported here. Prints a table of the
//! largest differences, writes `target/bench/parity.json`, and fails beyond 1e-9.
//!
//! `FORETELL_BENCH_PYTHON` is a Python with numpy and lightgbm.

#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark prints, and reads its environment"
)]

mod odd;

use std::{env, fs, ops::ControlFlow, path::Path, process::Command};

use anyhow::Context;
use foretell::{
    app::table,
    config::Config,
    processors::{convert, gather::GatherSettings},
};
use foretell_ml::{
    Calibration, Example, Metric, ModelBundle, Origin, Params, Recipe, Scorer, Scratch, Seed,
    Threshold, TrainingSet, Value, export, training::train, trees,
};
use serde::Deserialize;
use serde_json::json;

/// Largest accepted difference of probabilities, features and relative gains.
const DIFFERENCE_MAX: f64 = 1e-9;

/// A model, the rows to compare, and the iterations of a model that Python trains on them; 0: none.
struct Case {
    name: &'static str,
    bundle: ModelBundle,
    rows: Vec<Vec<Value>>,
    trained_by_python: u32,
}

/// What `check.py` prints.
#[derive(Deserialize)]
struct Differences {
    probability: f64,
    feature: f64,
    gain: f64,
    decisions: u64,
    splits: u64,
    /// The predictions for class 1 of the model that Python trained.
    trained: Vec<f64>,
}

fn main() -> anyhow::Result<()> {
    let python = env::var("FORETELL_BENCH_PYTHON").context("set FORETELL_BENCH_PYTHON")?;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench");
    let mut report = serde_json::Map::new();
    println!(
        "model                                  rows   probability   feature      gain   decisions  splits   imported"
    );
    for case in adult()?.into_iter().chain(odd_cases()?) {
        let folder = folder.join("parity").join(case.name);
        let found = check(&python, &folder, &case)?;
        let imported = imported(&folder, &case, &found.trained)?;
        let Differences { probability, feature, gain, decisions, splits, .. } = found;
        println!(
            "{:<36} {:>6} {probability:>13.1e} {feature:>9.1e} {gain:>9.1e} {decisions:>11} {splits:>7} {:>10}",
            case.name,
            case.rows.len(),
            imported.map_or_else(|| "-".to_owned(), |difference| format!("{difference:.1e}")),
        );
        let largest = [probability, feature, gain, imported.unwrap_or(0.0)];
        anyhow::ensure!(
            largest.iter().all(|difference| *difference <= DIFFERENCE_MAX)
                && decisions + splits == 0,
            "{} differs by more than {DIFFERENCE_MAX}",
            case.name
        );
        let row = json!({ "probability": probability, "feature": feature, "gain": gain, "imported": imported });
        report.insert(case.name.to_owned(), row);
    }
    fs::write(folder.join("parity.json"), serde_json::to_vec_pretty(&report)?)?;
    Ok(())
}

/// Writes the files of the model and the rows to a folder, and compares with Python.
fn check(python: &str, folder: &Path, case: &Case) -> anyhow::Result<Differences> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir_all(folder)?;
    for export::ExportedFile { name, content } in export::export(&case.bundle) {
        fs::write(folder.join(name), content)?;
    }
    let scorer = Scorer::new(&case.bundle)?;
    let (mut scratch, mut features) = (Scratch::default(), Vec::new());
    let mut rows = Vec::new();
    for values in &case.rows {
        let probabilities = scorer.score(values, &mut scratch);
        case.bundle.pipeline.transform(values, &mut features);
        rows.push(json!({
            "values": values.iter().map(json_of).collect::<Vec<_>>(),
            "features": features.iter().map(|feature| json_of(&Value::Number(*feature))).collect::<Vec<_>>(),
            "probabilities": probabilities.as_slice(),
            "label": scorer.decide(&probabilities).0,
        }));
    }
    let importance = trees::importance(&case.bundle.booster)?;
    let expected = json!({
        "columns": scorer.columns().iter().map(|column| &column.name).collect::<Vec<_>>(),
        "rows": rows,
        "gains": importance.iter().map(|of| of.gain).collect::<Vec<_>>(),
        "splits": importance.iter().map(|of| of.splits).collect::<Vec<_>>(),
        "categorical": case.bundle.pipeline.categorical_features(),
        "iterations": case.trained_by_python,
    });
    fs::write(folder.join("expected.json"), serde_json::to_vec(&expected)?)?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/parity/check.py");
    let output = Command::new(python).arg(script).arg(folder).output()?;
    let error = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "{python} failed for {}: {error}", case.name);
    serde_json::from_slice(&output.stdout).context("check.py prints JSON")
}

/// Imports the model that Python trained, and returns the largest difference of its predictions.
fn imported(folder: &Path, case: &Case, trained: &[f64]) -> anyhow::Result<Option<f64>> {
    if case.trained_by_python == 0 {
        return Ok(None);
    }
    let (model, pipeline) =
        (fs::read(folder.join("trained.txt"))?, fs::read(folder.join(export::PIPELINE_FILE))?);
    let bundle = export::import(|name| match name {
        export::MODEL_FILE => Some(model.as_slice()),
        export::PIPELINE_FILE => Some(pipeline.as_slice()),
        _ => None,
    })?;
    anyhow::ensure!(bundle.lineage.imported, "a model that Python trained is an imported one");
    anyhow::ensure!(bundle.lineage.params.iterations == case.trained_by_python, "its parameters");
    anyhow::ensure!(trained.len() == case.rows.len(), "a prediction a row");
    let (scorer, mut scratch) = (Scorer::new(&bundle)?, Scratch::default());
    let mut largest = 0.0_f64;
    for (values, expected) in case.rows.iter().zip(trained) {
        let found = scorer.score(values, &mut scratch).as_slice()[1];
        largest = largest.max((found - expected).abs());
    }
    Ok(Some(largest))
}

/// A number that JSON does not have is the text of it, in an object.
fn json_of(value: &Value) -> serde_json::Value {
    match value {
        Value::Missing => serde_json::Value::Null,
        Value::Number(number) if number.is_finite() => json!(number),
        Value::Number(number) => json!({ "float": number.to_string() }),
        Value::Text(text) => json!(text),
    }
}

fn fitted(
    recipe: &Recipe,
    examples: &[Example],
    threshold: Threshold,
    calibration: Calibration,
) -> anyhow::Result<ModelBundle> {
    let set = TrainingSet::of(recipe.spec.columns(), examples);
    let recipe = Recipe { threshold, calibration, ..recipe.clone() };
    Ok(train(&set.sample(), &recipe, &mut |_, _| ControlFlow::Continue(()))?)
}

/// Models of the worked example, and its test split.
fn adult() -> anyhow::Result<Vec<Case>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = Config::load(&root.join("deploy/adult/foretell.toml"), &[])?;
    let read = |table: Option<&foretell::config::TableSettings>| -> anyhow::Result<Vec<Example>> {
        let table = table.context("the worked example names its data")?;
        let GatherSettings { questions, layout, .. } = &config.gather;
        let example = |row: &table::Row| {
            let label = convert::label_of(&row.label, &config.classes).context("a known label")?;
            let columns = config.pipeline.columns();
            let values = convert::values_in_order(columns, questions, layout, &row.answers);
            Ok(Example { values, label })
        };
        table::read(table, &config.event_schema)?.iter().map(example).collect()
    };
    let learned = read(config.data.initial.as_ref())?;
    let rows: Vec<Vec<Value>> =
        read(config.data.play.as_ref())?.into_iter().map(|example| example.values).collect();
    let recipe = Recipe {
        spec: config.pipeline.clone(),
        classes: config.classes.clone(),
        threshold: Threshold::Fixed(0.5),
        calibration: Calibration::None,
        intervals: false,
        profile: false,
        params: Params { iterations: 100, ..Params::default() },
        seed: Seed(1),
        origin: Origin::default(),
    };
    let case = |name, threshold, calibration, trained_by_python| {
        let bundle = fitted(&recipe, &learned, threshold, calibration)?;
        Ok(Case { name, bundle, rows: rows.clone(), trained_by_python })
    };
    let (fixed, best) = (Threshold::Fixed(0.5), Threshold::Best(Metric::F1));
    [
        case("adult", fixed, Calibration::None, 77),
        case("adult, best threshold for F1, Platt", best, Calibration::Platt, 0),
        case("adult, best for F1, isotonic", best, Calibration::Isotonic, 0),
    ]
    .into_iter()
    .collect()
}

/// Models of columns with odd values, of two and of three classes.
fn odd_cases() -> anyhow::Result<Vec<Case>> {
    let case = |name, classes, calibration, trained_by_python| {
        let examples = odd::examples(3_000, classes, 1);
        let rows = odd::examples(2_000, classes, 2).into_iter().map(|example| example.values);
        let recipe = odd::recipe(classes)?;
        let bundle = fitted(&recipe, &examples, Threshold::Best(Metric::F1), calibration)?;
        let rows = rows.chain(odd::rows()).collect();
        Ok(Case { name, bundle, rows, trained_by_python })
    };
    [
        case("odd values", 2, Calibration::None, 33),
        case("odd values, Platt", 2, Calibration::Platt, 0),
        case("odd values, isotonic", 2, Calibration::Isotonic, 0),
        case("odd values, 3 classes", 3, Calibration::None, 0),
        case("odd values, 3 classes, Platt", 3, Calibration::Platt, 0),
        case("odd values, 3 classes, isotonic", 3, Calibration::Isotonic, 0),
    ]
    .into_iter()
    .collect()
}

//! A model as files that other tools can read, and back.
//!
//! | file | content |
//! |---|---|
//! | `model.txt` | the trees, as LightGBM's model text |
//! | `pipeline.json` | how values become features, the names of the classes, the threshold and the calibration |
//! | `lineage.json` | the version of the model, the inputs of its training, and its evaluation |
//! | `foretell_model.py` | a Python module that predicts from the first two files, with `lightgbm` and `numpy` |
//!
//! A model that was trained elsewhere is imported from the first two files. Nothing is known of its training, so its lineage
//! says that it was imported, and its evaluation is empty.

mod params;
mod pipeline;

use serde::{Deserialize, Serialize};

use self::pipeline::PipelineFile;
use crate::{
    Lineage, ModelBundle, ModelVersion, Origin, Scorer, Seed,
    bundle::{BUNDLE_BYTES_MAX, BundleError},
    drift::Profile,
    training::{Calibration, Evaluation},
    trees::{ParseError, Trees},
};

/// Name of the file with the trees.
pub const MODEL_FILE: &str = "model.txt";
/// Name of the file with the pipeline.
pub const PIPELINE_FILE: &str = "pipeline.json";
/// Name of the file with the lineage, the evaluation and the profile.
pub const LINEAGE_FILE: &str = "lineage.json";
/// Name of the Python module.
pub const PYTHON_FILE: &str = "foretell_model.py";

/// A file of an exported model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportedFile {
    /// Name of the file.
    pub name: &'static str,
    /// Its content.
    pub content: String,
}

/// Reasons why files are not a model that can serve.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// A required file is missing.
    #[error("there is no {file}")]
    Missing {
        /// Name of the file.
        file: &'static str,
    },
    /// A file is not UTF-8.
    #[error("{file} is not UTF-8")]
    NotText {
        /// Name of the file.
        file: &'static str,
    },
    /// A file is larger than [`BUNDLE_BYTES_MAX`].
    #[error("{file} is larger than {BUNDLE_BYTES_MAX} bytes")]
    TooLarge {
        /// Name of the file.
        file: &'static str,
    },
    /// A file is not the JSON that is expected there.
    #[error("cannot read {file}")]
    Json {
        /// Name of the file.
        file: &'static str,
        /// Line, column and reason.
        source: serde_json::Error,
    },
    /// The pipeline is in a format of another release.
    #[error(
        "pipeline.json is in format {found}, and this release reads format {}",
        pipeline::FORMAT
    )]
    Format {
        /// The format of the file.
        found: u32,
    },
    /// The trees are malformed or not supported.
    #[error("cannot read model.txt")]
    Trees(#[from] ParseError),
    /// The trees expect another number of features than the pipeline makes.
    #[error("the pipeline makes {pipeline} features, and model.txt has {trees}")]
    Features {
        /// Number of features of the pipeline.
        pipeline: usize,
        /// Number of features of the trees.
        trees: usize,
    },
    /// A feature of the trees is not the one that the pipeline makes in its place.
    #[error("feature {index} of the pipeline is {pipeline:?}, and that of model.txt is {trees:?}")]
    Feature {
        /// Index of the feature, from 0.
        index: usize,
        /// Name in the pipeline.
        pipeline: String,
        /// Name in the model text.
        trees: String,
    },
    /// The parts are valid, but do not make a model that can serve.
    #[error("the files do not make a model")]
    Bundle(#[from] BundleError),
}

#[derive(Debug, Serialize, Deserialize)]
struct LineageFile {
    version: ModelVersion,
    lineage: Lineage,
    evaluation: Evaluation,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    profile: Option<Profile>,
}

/// The files of a model.
#[must_use]
pub fn export(bundle: &ModelBundle) -> Vec<ExportedFile> {
    let lineage = LineageFile {
        version: bundle.version(),
        lineage: bundle.lineage.clone(),
        evaluation: bundle.evaluation.clone(),
        profile: bundle.profile.clone(),
    };
    let file = |name, content| ExportedFile { name, content };
    vec![
        file(MODEL_FILE, bundle.booster.clone()),
        file(PIPELINE_FILE, json(&PipelineFile::new(bundle))),
        file(LINEAGE_FILE, json(&lineage)),
        file(PYTHON_FILE, include_str!("foretell_model.py").to_owned()),
    ]
}

fn json(content: &impl Serialize) -> String {
    let mut text = serde_json::to_string_pretty(content).expect("it has text keys only");
    text.push('\n');
    text
}

/// Reads a model from its files, which `read` finds by name, and checks that it can serve. Whether the event schema has its
/// columns is for the caller to check.
///
/// If the files are those of [`export`], the model is the same, with the same version. If `lineage.json` is missing or does
/// not belong to the other files, the model is an imported one.
///
/// # Errors
/// [`ImportError`] if a file is missing or malformed, or the files do not match.
pub fn import<'f>(read: impl Fn(&str) -> Option<&'f [u8]>) -> Result<ModelBundle, ImportError> {
    let text = |file| {
        let Some(bytes) = read(file) else { return Ok(None) };
        if bytes.len() > BUNDLE_BYTES_MAX {
            return Err(ImportError::TooLarge { file });
        }
        std::str::from_utf8(bytes).map(Some).map_err(|_| ImportError::NotText { file })
    };
    let required = |file| text(file)?.ok_or(ImportError::Missing { file });
    let model = required(MODEL_FILE)?;
    let pipeline = PipelineFile::read(required(PIPELINE_FILE)?)?;
    let trees = Trees::parse(model)?;
    let (classes, threshold) = (pipeline.classes.clone(), pipeline.threshold);
    let (calibrator, pipeline) = (pipeline.calibration.clone(), pipeline.fitted()?);
    same_features(&pipeline.feature_names(), trees.feature_names())?;
    let imported = ModelBundle {
        pipeline,
        booster: model.to_owned(),
        classes,
        threshold,
        calibrator,
        lineage: lineage_of(model, &trees),
        evaluation: Evaluation::default(),
        profile: None,
    };
    if let Some(text) = text(LINEAGE_FILE)? {
        let file = LINEAGE_FILE;
        let LineageFile { version, lineage, evaluation, profile } =
            serde_json::from_str(text).map_err(|source| ImportError::Json { file, source })?;
        let original = ModelBundle { lineage, evaluation, profile, ..imported.clone() };
        if original.version() == version {
            Scorer::new(&original)?;
            return Ok(original);
        }
    }
    Scorer::new(&imported)?;
    Ok(imported)
}

fn same_features(pipeline: &[String], trees: &[String]) -> Result<(), ImportError> {
    if pipeline.len() != trees.len() {
        let (pipeline, trees) = (pipeline.len(), trees.len());
        return Err(ImportError::Features { pipeline, trees });
    }
    match pipeline.iter().zip(trees).position(|(pipeline, trees)| pipeline != trees) {
        Some(index) => {
            let (pipeline, trees) = (pipeline[index].clone(), trees[index].clone());
            Err(ImportError::Feature { index, pipeline, trees })
        }
        None => Ok(()),
    }
}

/// The lineage of a model that was trained elsewhere.
fn lineage_of(model: &str, trees: &Trees) -> Lineage {
    Lineage {
        origin: Origin::default(),
        params: params::of(model),
        iterations: u32::try_from(trees.iterations()).unwrap_or(u32::MAX),
        seed: Seed(0),
        lightgbm: "unknown".to_owned(),
        threshold_metric: None,
        calibration: Calibration::None,
        held_out: 0,
        imported: true,
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, ops::ControlFlow, sync::OnceLock};

    use proptest::prelude::*;

    use super::*;
    use crate::{
        CalendarFeature, CalendarPart, Column, ColumnKind, Metric, PipelineSpec, Recipe, Scaling,
        Scratch, Threshold, TimeUnit, TrainingSet, Value,
        training::{
            tests::{examples, recipe, small_bundle},
            train,
        },
    };

    type Files = BTreeMap<&'static str, String>;

    fn exported(bundle: &ModelBundle) -> Files {
        export(bundle).into_iter().map(|file| (file.name, file.content)).collect()
    }

    fn imported(files: &Files) -> Result<ModelBundle, ImportError> {
        import(|name| files.get(name).map(|content| content.as_bytes()))
    }

    /// A model with every kind of feature, an alias, a calibration and a chosen threshold.
    fn rich_bundle(classes: u32) -> ModelBundle {
        let mut columns = crate::training::tests::spec().columns().to_vec();
        columns[0].aliases = vec!["ex".to_owned()];
        columns.push(Column::new("size", ColumnKind::Categorical));
        columns.push(Column::new("day", ColumnKind::Numeric));
        let crosses = vec![("kind".to_owned(), "size".to_owned())];
        let spec = PipelineSpec::new(columns, Scaling::MinMax, crosses).unwrap();
        let part = |part| CalendarFeature {
            column: "day".to_owned(),
            part,
            unit: TimeUnit::PartsOfSecond(1_000),
        };
        let calendar = vec![part(CalendarPart::Weekday), part(CalendarPart::Hour)];
        let spec = spec.with_calendar(calendar).unwrap();
        let mut examples = examples(600, classes, 3);
        for (number, example) in (0_u32..).zip(&mut examples) {
            let day = Value::Number(f64::from(number) * 1e7);
            example.values.extend([Value::Text((number % 3).to_string()), day]);
        }
        let recipe = Recipe {
            spec: spec.clone(),
            threshold: Threshold::Best(Metric::F1),
            calibration: Calibration::Isotonic,
            intervals: true,
            profile: true,
            ..recipe(classes)
        };
        let set = TrainingSet::of(spec.columns(), &examples);
        train(&set.sample(), &recipe, &mut |_, _| ControlFlow::Continue(())).unwrap()
    }

    #[test]
    fn an_exported_model_is_imported_as_the_same_version() {
        for bundle in [small_bundle(), rich_bundle(2), rich_bundle(3)] {
            let files = exported(&bundle);
            assert_eq!(
                files.keys().copied().collect::<Vec<_>>(),
                [PYTHON_FILE, LINEAGE_FILE, MODEL_FILE, PIPELINE_FILE]
            );
            let back = imported(&files).unwrap();
            assert_eq!(back, bundle);
            assert_eq!(back.to_bytes().unwrap(), bundle.to_bytes().unwrap());
        }
    }

    #[test]
    fn a_model_without_its_lineage_is_an_imported_one_that_predicts_the_same() {
        let bundle = rich_bundle(2);
        let check = |change: &dyn Fn(&mut Files)| {
            let mut files = exported(&bundle);
            change(&mut files);
            let found = imported(&files).unwrap();
            assert!(found.lineage.imported);
            assert_eq!(found.lineage.origin, Origin::default());
            assert_eq!(found.evaluation, Evaluation::default());
            assert_eq!(found.lineage.params.num_leaves, bundle.lineage.params.num_leaves);
            assert_eq!(
                (found.pipeline, found.booster),
                (bundle.pipeline.clone(), bundle.booster.clone())
            );
            assert_eq!(found.calibrator, bundle.calibrator);
        };
        check(&|files| {
            files.remove(LINEAGE_FILE);
        });
        // It belongs to another model.
        check(&|files| {
            files.insert(LINEAGE_FILE, exported(&small_bundle())[LINEAGE_FILE].clone());
        });
        check(&|files| {
            let text = files[PIPELINE_FILE].replacen("\"threshold\": ", "\"threshold\": 0.1", 1);
            files.insert(PIPELINE_FILE, text.replace("0.10.", "0.1"));
        });
    }

    #[test]
    fn a_pipeline_may_be_written_by_hand() {
        let bundle = small_bundle();
        let mut files = exported(&bundle);
        files.insert(
            PIPELINE_FILE,
            r#"{"format": 1, "classes": ["no", "yes"], "columns": [
                {"name": "x", "kind": "numeric"},
                {"name": "kind", "kind": "categorical", "categories": ["a", "b"]},
                {"name": "noise", "kind": "numeric", "shift": 1, "span": 2, "fill": 3}
            ]}"#
            .to_owned(),
        );
        let found = imported(&files).unwrap();
        assert!(found.lineage.imported);
        let mut row = Vec::new();
        let values = [Value::Number(0.5), Value::Text("b".to_owned())];
        found.pipeline.transform(&values, &mut row);
        assert_eq!(row, [0.5, 1.0, 1.0]);
    }

    #[test]
    fn files_that_are_not_a_model_are_refused() {
        let bundle = rich_bundle(2);
        let check =
            |file: &'static str, change: &dyn Fn(String) -> Option<String>, expected: &str| {
                let mut files = exported(&bundle);
                let changed = change(files.remove(file).unwrap());
                files.extend(changed.map(|content| (file, content)));
                let error = imported(&files).unwrap_err();
                assert!(format!("{error:?}").starts_with(expected), "{error:?}, not {expected}");
            };
        let replaced = |from: &'static str, to: &'static str| {
            move |text: String| {
                assert!(text.contains(from), "{from} in {text}");
                Some(text.replacen(from, to, 1))
            }
        };
        check(MODEL_FILE, &|_| None, "Missing");
        check(PIPELINE_FILE, &|_| None, "Missing");
        check(MODEL_FILE, &|_| Some("tree".to_owned()), "Trees");
        check(MODEL_FILE, &|_| Some(" ".repeat(BUNDLE_BYTES_MAX + 1)), "TooLarge");
        check(MODEL_FILE, &replaced("feature_names=x ", "feature_names=y "), "Feature {");
        check(PIPELINE_FILE, &|_| Some("{}".to_owned()), "Json");
        check(PIPELINE_FILE, &replaced("\"format\": 1", "\"format\": 2"), "Format");
        check(PIPELINE_FILE, &replaced("\"name\": \"x\"", "\"name\": \"kind\""), "Json");
        check(PIPELINE_FILE, &replaced("\"span\": ", "\"span\": -"), "Json");
        check(PIPELINE_FILE, &replaced("\"part\": \"hour\"", "\"part\": \"second\""), "Json");
        check(PIPELINE_FILE, &replaced("\"class 0\",", ""), "Bundle(Classes");
        check(LINEAGE_FILE, &|_| Some("{}".to_owned()), "Json");
        let mut files = exported(&bundle);
        let mut of_small = exported(&small_bundle());
        files.insert(MODEL_FILE, of_small.remove(MODEL_FILE).unwrap());
        assert!(matches!(imported(&files), Err(ImportError::Features { pipeline: 8, trees: 3 })));
        let error = import(|_| Some(&[0xff])).unwrap_err();
        assert!(matches!(error, ImportError::NotText { file: MODEL_FILE }), "{error:?}");
    }

    /// A pipeline with every field.
    const FORMAT_1: &str = r#"{
  "format": 1,
  "classes": [
    "no",
    "yes"
  ],
  "threshold": 0.25,
  "calibration": [
    {
      "platt": {
        "slope": 0.5,
        "intercept": -1.0
      }
    }
  ],
  "scaling": "min_max",
  "columns": [
    {
      "name": "day",
      "aliases": [
        "date"
      ],
      "kind": "numeric",
      "shift": 0.5,
      "span": 2.0,
      "fill": 1.0,
      "range": [
        0.0,
        4.0
      ],
      "missing_share": 0.0
    },
    {
      "name": "job",
      "kind": "categorical",
      "categories": [
        "cook"
      ],
      "missing_share": 0.5
    }
  ],
  "crosses": [
    {
      "columns": [
        "job",
        "job"
      ],
      "pairs": [
        [
          0,
          2
        ]
      ]
    }
  ],
  "calendar": [
    {
      "column": "day",
      "part": "month",
      "unit": "days"
    },
    {
      "column": "day",
      "part": "hour",
      "unit": {
        "parts_of_second": 1000
      }
    }
  ]
}
"#;

    #[test]
    fn the_format_of_the_pipeline_must_not_change() {
        let file = PipelineFile::read(FORMAT_1).unwrap();
        assert_eq!(json(&file), FORMAT_1);
        let bundle = ModelBundle {
            pipeline: file.clone().fitted().unwrap(),
            classes: file.classes,
            threshold: file.threshold,
            calibrator: file.calibration,
            ..small_bundle()
        };
        assert_eq!(json(&PipelineFile::new(&bundle)), FORMAT_1);
    }

    proptest! {
        #[test]
        fn changed_files_are_refused_or_make_a_model_that_scores(
            in_model in any::<bool>(),
            at in any::<prop::sample::Index>(),
            with in prop_oneof!["[-0-9a-z\\[\\]{}\":,.]{0,4}", Just("1e308".to_owned())],
        ) {
            static FILES: OnceLock<Files> = OnceLock::new();
            let mut files = FILES.get_or_init(|| exported(&rich_bundle(2))).clone();
            let text = files.get_mut(if in_model { MODEL_FILE } else { PIPELINE_FILE }).unwrap();
            let at = at.index(text.len());
            prop_assume!(text.is_char_boundary(at) && text.is_char_boundary(at + 1));
            text.replace_range(at..=at, &with);
            if let Ok(bundle) = imported(&files) {
                let scorer = Scorer::new(&bundle).unwrap();
                let values = [Value::Number(0.5), Value::Text("b".to_owned()), Value::Missing];
                scorer.score(&values, &mut Scratch::default());
            }
        }
    }
}

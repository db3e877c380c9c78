//! The file `pipeline.json`: everything besides the trees that a prediction needs, in a format of its own, which does not
//! change with the bundle's.

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    Column, ColumnKind, FittedPipeline, ModelBundle,
    export::{ImportError, PIPELINE_FILE},
    features::{CalendarFeature, Scaling},
    training::Calibrator,
};

/// The format that this release writes and reads. A new optional field needs no new format.
pub(super) const FORMAT: u32 = 1;

/// The content of the file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct PipelineFile {
    format: u32,
    /// Names of the classes, in the order of their labels.
    pub(super) classes: Vec<String>,
    /// With two classes, class 1 is chosen if its probability is at least this.
    #[serde(default = "one_half")]
    pub(super) threshold: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) calibration: Option<Calibrator>,
    /// The scaling that was asked for; the numbers of each column are in `columns`.
    #[serde(default)]
    scaling: Scaling,
    /// Columns, which are the first features.
    columns: Vec<ColumnOfFile>,
    /// Pairs of categorical columns, which are the next features.
    #[serde(default)]
    crosses: Vec<CrossOfFile>,
    /// Parts of dates and times, which are the last features.
    #[serde(default)]
    calendar: Vec<CalendarFeature>,
}

fn one_half() -> f64 {
    0.5
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct ColumnOfFile {
    name: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    aliases: Vec<String>,
    #[serde(flatten)]
    encoding: Encoding,
    /// Share of the rows of the training in which it was missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    missing_share: Option<f64>,
}

/// How the values of a column become its feature.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Encoding {
    /// `(number - shift) / span`; a missing number is `fill`, or NaN without one. `range` has the smallest and the largest
    /// number of the training.
    Numeric {
        #[serde(default)]
        shift: f64,
        #[serde(default = "one")]
        span: f64,
        #[serde(default)]
        fill: Option<f64>,
        #[serde(default)]
        range: Option<(f64, f64)>,
    },
    /// The index in `categories`; n, their number, for any other, and n + 1 for a missing one.
    Categorical { categories: Vec<String> },
}

fn one() -> f64 {
    1.0
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct CrossOfFile {
    /// Names of the two columns.
    columns: (String, String),
    /// Pairs of their features. The feature is the index of the pair; their number for any other pair.
    pairs: Vec<(u32, u32)>,
}

/// A fitted pipeline as a bundle has it.
#[derive(Deserialize)]
struct Stored {
    encoders: Vec<StoredEncoder>,
    crosses: Vec<Vec<(u32, u32)>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum StoredEncoder {
    Number { shift: f64, span: f64, range: Option<(f64, f64)>, fill: Option<f64> },
    Category(Vec<String>),
}

impl PipelineFile {
    pub(super) fn new(bundle: &ModelBundle) -> Self {
        let pipeline = &bundle.pipeline;
        let stored = serde_json::to_value(pipeline).and_then(serde_json::from_value);
        let Stored { encoders, crosses } = stored.expect("it is the form of every pipeline");
        let columns = pipeline.columns().iter().zip(encoders).enumerate();
        let column = |(index, (column, encoder)): (usize, (&Column, StoredEncoder))| ColumnOfFile {
            name: column.name.clone(),
            aliases: column.aliases.clone(),
            encoding: match encoder {
                StoredEncoder::Number { shift, span, range, fill } => {
                    Encoding::Numeric { shift, span, fill, range }
                }
                StoredEncoder::Category(categories) => Encoding::Categorical { categories },
            },
            missing_share: pipeline.missing_share(index),
        };
        let crosses = pipeline.spec().crosses().iter().cloned().zip(crosses);
        Self {
            format: FORMAT,
            classes: bundle.classes.clone(),
            threshold: bundle.threshold,
            calibration: bundle.calibrator.clone(),
            scaling: pipeline.spec().scaling(),
            columns: columns.map(column).collect(),
            crosses: crosses.map(|(columns, pairs)| CrossOfFile { columns, pairs }).collect(),
            calendar: pipeline.spec().calendar().to_vec(),
        }
    }

    /// Parses a file.
    pub(super) fn read(text: &str) -> Result<Self, ImportError> {
        #[derive(Deserialize)]
        struct OnlyFormat {
            format: u32,
        }
        // The format first: a later one may have other fields.
        let OnlyFormat { format } = serde_json::from_str(text).map_err(error)?;
        if format != FORMAT {
            return Err(ImportError::Format { found: format });
        }
        serde_json::from_str(text).map_err(error)
    }

    /// The pipeline, checked.
    pub(super) fn fitted(self) -> Result<FittedPipeline, ImportError> {
        let missing_shares: Option<Vec<f64>> =
            self.columns.iter().map(|column| column.missing_share).collect();
        let (mut columns, mut encoders) = (Vec::new(), Vec::new());
        for ColumnOfFile { name, aliases, encoding, .. } in self.columns {
            let (kind, encoder) = match encoding {
                Encoding::Numeric { shift, span, fill, range } => (
                    ColumnKind::Numeric,
                    json!({"number": {"shift": shift, "span": span, "range": range, "fill": fill}}),
                ),
                Encoding::Categorical { categories } => {
                    (ColumnKind::Categorical, json!({ "category": categories }))
                }
            };
            columns.push(Column { name, kind, aliases });
            encoders.push(encoder);
        }
        let crosses: Vec<_> = self.crosses.iter().map(|cross| &cross.columns).collect();
        let pairs: Vec<_> = self.crosses.iter().map(|cross| &cross.pairs).collect();
        let spec = json!({
            "columns": columns,
            "scaling": self.scaling,
            "crosses": crosses,
            "calendar": self.calendar,
        });
        let stored = json!({
            "spec": spec,
            "encoders": encoders,
            "crosses": pairs,
            "missing_shares": missing_shares.unwrap_or_default(),
        });
        serde_json::from_value(stored).map_err(error)
    }
}

fn error(source: serde_json::Error) -> ImportError {
    ImportError::Json { file: PIPELINE_FILE, source }
}

//! Examples transformed into the dense matrix that LightGBM takes.

use crate::{
    Example, FittedPipeline, PipelineSpec,
    lightgbm::Matrix,
    training::{CLASSES_MAX, TrainingError},
};

/// Features and labels of transformed examples, in row-major order.
#[derive(Debug)]
pub(super) struct Table {
    rows: Vec<f64>,
    labels: Vec<f32>,
    feature_names: Vec<String>,
    categorical: Vec<usize>,
}

impl Table {
    /// Transforms examples with a fitted pipeline.
    pub(super) fn new<'a>(
        pipeline: &FittedPipeline,
        examples: impl Iterator<Item = &'a Example>,
    ) -> Self {
        let (mut rows, mut labels, mut row) = (Vec::new(), Vec::new(), Vec::new());
        for example in examples {
            pipeline.transform(&example.values, &mut row);
            rows.extend_from_slice(&row);
            labels.push(example.label.0 as f32); // Exact: there are at most CLASSES_MAX.
        }
        let (feature_names, categorical) =
            (pipeline.feature_names(), pipeline.categorical_features());
        Self { rows, labels, feature_names, categorical }
    }

    /// The table as LightGBM takes it.
    pub(super) fn matrix(&self) -> Matrix<'_> {
        let Self { rows, labels, feature_names, categorical } = self;
        Matrix { rows, labels, feature_names, categorical }
    }

    /// The features of each example.
    pub(super) fn rows(&self) -> impl Iterator<Item = &[f64]> {
        self.rows.chunks_exact(self.feature_names.len())
    }
}

/// Fits a pipeline to the values of examples.
pub(super) fn fit<'a>(
    spec: &PipelineSpec,
    examples: impl Iterator<Item = &'a Example> + Clone,
) -> FittedPipeline {
    spec.fit(examples.map(|example| example.values.as_slice()))
}

/// Checks labels and number of classes, and that there are examples of two classes. Returns the number of examples
/// that are not of the most frequent class, which is at least 1.
pub(super) fn check(examples: &[Example], classes: usize) -> Result<usize, TrainingError> {
    if !(2..=CLASSES_MAX).contains(&classes) {
        return Err(TrainingError::Classes { classes });
    }
    let mut counts = vec![0_usize; classes];
    for (example, label) in examples.iter().map(|example| example.label).enumerate() {
        match counts.get_mut(label.index()) {
            Some(count) => *count += 1,
            None => return Err(TrainingError::Label { example, label: label.0, classes }),
        }
    }
    let Some(first) = examples.first() else {
        return Err(TrainingError::NoExamples);
    };
    let most = counts.iter().copied().max().expect("there are at least two classes");
    match examples.len() - most {
        0 => Err(TrainingError::OneClass { class: first.label.0 }),
        minority => Ok(minority),
    }
}

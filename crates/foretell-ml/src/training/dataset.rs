//! Examples as LightGBM takes them: encoded and pushed row by row, so that no matrix of features is in memory.

use crate::{
    FittedPipeline, Sample,
    lightgbm::{Dataset, DatasetBuilder, DatasetDraft, LightGbmError},
    training::{CLASSES_MAX, TrainingError},
};

/// Bins the examples of a sample. The bins follow from a sample of their features that LightGBM draws.
pub(super) fn bin(
    pipeline: &FittedPipeline,
    sample: &Sample<'_>,
    parameters: &str,
) -> Result<Dataset, LightGbmError> {
    let (names, categorical) = (pipeline.feature_names(), pipeline.categorical_features());
    let mut draft = DatasetDraft::new(sample.len(), names, &categorical, parameters)?;
    let mut next = draft.draw()?.into_iter().peekable();
    let drawn = sample.subset(|index| next.next_if_eq(&index).is_some());
    pipeline.each_row(&drawn, |row| draft.learn(row))?;
    fill(draft.build()?, pipeline, sample)
}

/// Bins the examples of a sample with the bins of another.
pub(super) fn bin_like(
    other: &Dataset,
    pipeline: &FittedPipeline,
    sample: &Sample<'_>,
) -> Result<Dataset, LightGbmError> {
    fill(DatasetBuilder::aligned(other, sample.len(), &pipeline.feature_names())?, pipeline, sample)
}

fn fill(
    mut builder: DatasetBuilder,
    pipeline: &FittedPipeline,
    sample: &Sample<'_>,
) -> Result<Dataset, LightGbmError> {
    pipeline.each_row(sample, |row| builder.push(row))?;
    // Exact: there are at most CLASSES_MAX labels.
    let labels: Vec<f32> = sample.labels().map(|label| label.0 as f32).collect();
    builder.finish(&labels, &sample.weights())
}

/// Checks labels and number of classes, and that there are examples of two classes. Returns the number of examples
/// that are not of the most frequent class, which is at least 1.
pub(super) fn check(sample: &Sample<'_>, classes: usize) -> Result<usize, TrainingError> {
    if !(2..=CLASSES_MAX).contains(&classes) {
        return Err(TrainingError::Classes { classes });
    }
    let mut counts = vec![0_usize; classes];
    for (example, label) in sample.labels().enumerate() {
        match counts.get_mut(label.index()) {
            Some(count) => *count += 1,
            None => return Err(TrainingError::Label { example, label: label.0, classes }),
        }
    }
    let Some(first) = sample.labels().next() else {
        return Err(TrainingError::NoExamples);
    };
    let most = counts.iter().copied().max().expect("there are at least two classes");
    match sample.len() - most {
        0 => Err(TrainingError::OneClass { class: first.0 }),
        minority => Ok(minority),
    }
}

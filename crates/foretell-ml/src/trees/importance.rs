//! Importance of the features of a model, from its text.

use crate::trees::{
    ParseError, Trees,
    parse::{Fields, Section},
};

/// Importance of a feature, as LightGBM defines it.
#[derive(Clone, Debug, PartialEq)]
pub struct FeatureImportance {
    /// Name of the feature.
    pub feature: String,
    /// Sum of the gains of the splits on the feature: by how much they reduced the loss in training.
    pub gain: f64,
    /// Number of the splits on the feature.
    pub splits: u64,
}

/// The importance of each feature of a model, in the order of the features. Splits without a gain do not count.
///
/// # Errors
/// [`ParseError`] if the text is not a model that [`Trees`] supports.
pub fn importance(model: &str) -> Result<Vec<FeatureImportance>, ParseError> {
    let names = Trees::parse(model)?.feature_names;
    let unused = |feature| FeatureImportance { feature, gain: 0.0, splits: 0 };
    let mut features: Vec<FeatureImportance> = names.into_iter().map(unused).collect();
    let mut lines = model.lines().take_while(|line| *line != "end of trees");
    let mut tree = 0;
    while let Some(line) = lines.next() {
        if !line.starts_with("Tree=") {
            continue;
        }
        let fields = Fields::read(Section::Tree(tree), &mut lines);
        let splits = fields.number::<usize>("num_leaves")?.saturating_sub(1);
        if splits > 0 {
            let split_on = fields.list::<usize>("split_feature", splits)?;
            for (feature, gain) in split_on.into_iter().zip(fields.finite("split_gain", splits)?) {
                if gain > 0.0 {
                    // LightGBM keeps gains as 32-bit floats.
                    features[feature].gain += f64::from(gain as f32);
                    features[feature].splits += 1;
                }
            }
        }
        tree += 1;
    }
    Ok(features)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::training::tests::small_bundle;

    /// The numbers of splits that LightGBM writes at the end of a model's text.
    fn written(model: &str) -> Vec<(String, u64)> {
        let (_, end) = model.split_once("\nfeature_importances:\n").unwrap();
        let lines = end.lines().take_while(|line| !line.is_empty());
        let pair = |line: &str| {
            let (name, splits) = line.rsplit_once('=').unwrap();
            (name.to_owned(), splits.parse().unwrap())
        };
        let mut written: Vec<(String, u64)> = lines.map(pair).collect();
        written.sort();
        written
    }

    #[test]
    fn splits_are_counted_as_lightgbm_does() {
        let model = small_bundle().booster;
        let features = importance(&model).unwrap();
        assert_eq!(
            features.iter().map(|of| of.feature.as_str()).collect::<Vec<_>>(),
            ["x", "kind", "noise"]
        );
        let split_on = features.iter().filter(|of| of.splits > 0);
        let mut counted: Vec<(String, u64)> =
            split_on.map(|of| (of.feature.clone(), of.splits)).collect();
        counted.sort();
        assert_eq!(counted, written(&model));
        let [x, kind, noise] = [0, 1, 2].map(|index| features[index].gain);
        assert!(x > 5.0 * noise && kind > 5.0 * noise && noise >= 0.0, "{features:?}");
    }

    #[test]
    fn malformed_gains_are_an_error() {
        let model = small_bundle().booster;
        let check = |from: &str, to: &str| {
            assert!(model.contains(from));
            assert!(importance(&model.replacen(from, to, 1)).is_err(), "{to}");
        };
        check("split_gain=", "split_gain=nan ");
        check("split_gain=", "split_gains=");
        check("split_gain=", "split_gain=1 ");
        check("tree\n", "no tree\n");
        let with_another =
            format!("{model}\nTree=99\nnum_leaves=2\nsplit_feature=77\nsplit_gain=1\n\n");
        assert_eq!(importance(&with_another).unwrap(), importance(&model).unwrap());
    }
}

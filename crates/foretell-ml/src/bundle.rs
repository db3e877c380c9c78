//! The serialised form of a model: pipeline, trees, threshold, calibration, lineage and evaluation, versioned by a content hash.
//!
//! On the wire: one byte for the format, then a zstd frame of JSON. The version is a hash of the JSON, not of the frame,
//! so that it does not depend on the release of zstd.

use std::io::Read as _;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{
    DataPolicy, ModelVersion, Seed,
    drift::Profile,
    features::FittedPipeline,
    training::{Calibration, Calibrator, Evaluation, Metric, Params},
    trees::ParseError,
};

/// The format that this release writes and reads. A new field of the JSON needs no new format if it is left out where it
/// is empty.
const FORMAT: u8 = 1;
/// Maximum size of the decompressed JSON: 1000 iterations × 63 leaves take about 8 MiB of text per class.
pub const BUNDLE_BYTES_MAX: usize = 64 << 20;
/// Maximum window of 2^27 bytes (128 MiB), which bounds the decompressor's memory.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;
/// Compression level, of 22: a model is written once and read by every instance.
const ZSTD_LEVEL: i32 = 12;

/// A model with everything that scoring needs, its lineage and its evaluation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelBundle {
    /// Fitted pipeline that turns values into features.
    pub pipeline: FittedPipeline,
    /// Trees in LightGBM's model text, which any LightGBM 4 can load.
    pub booster: String,
    /// Names of the classes, in the order of their labels.
    pub classes: Vec<String>,
    /// Decision threshold with two classes, 0 to 1: class 1 is chosen if its probability is at least this.
    pub threshold: f64,
    /// Curves that correct the probabilities of the trees.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibrator: Option<Calibrator>,
    /// Inputs of the training.
    pub lineage: Lineage,
    /// Metrics on held-out examples, of a model that was trained without them (see [`crate::training::train`]).
    pub evaluation: Evaluation,
    /// Histograms of the training data, which live values and scores are compared with. Models of earlier releases have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<Profile>,
}

/// Inputs of a training: the same lineage and examples give the same bytes, if [`Self::imported`] is false.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lineage {
    /// Origin of the examples.
    #[serde(flatten)]
    pub origin: Origin,
    /// LightGBM's parameters.
    pub params: Params,
    /// Boosting iterations of the model; fewer than in `params` if no further split improved it.
    pub iterations: u32,
    /// Random seed.
    pub seed: Seed,
    /// Version of LightGBM.
    pub lightgbm: String,
    /// Metric that the threshold was chosen as the best for; `None` if it was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold_metric: Option<Metric>,
    /// Method of the calibration. The bundle has no curves if there were too few examples to fit them.
    #[serde(default, skip_serializing_if = "Calibration::is_none")]
    pub calibration: Calibration,
    /// Number of examples that were held out to judge the model, and that it was then trained on as well: the newest ones.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub held_out: u64,
    /// Whether the model was trained elsewhere: nothing but its trees and its features is known.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub imported: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Examples that a model was trained on, and the model that it succeeds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Number of the training; 0 for the first model.
    pub training: u64,
    /// Number of examples from the initial data.
    pub initial_examples: u64,
    /// Number of examples from the stream.
    pub stream_examples: u64,
    /// Offset in the training log up to which (exclusive) examples were considered.
    pub examples_through: i64,
    /// Champion at the time of the training.
    pub parent: Option<ModelVersion>,
    /// Which examples were used and how much they counted. Models of the default policy do not name it.
    #[serde(default, skip_serializing_if = "DataPolicy::is_default")]
    pub policy: DataPolicy,
}

/// Reasons why bytes are not a bundle, or a bundle cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The first byte is not [`FORMAT`]: the bundle is from another release, or the bytes are no bundle.
    #[error("the bundle is in format {found}, and this release reads format {FORMAT}")]
    Format {
        /// The first byte.
        found: u8,
    },
    /// There are no bytes.
    #[error("the bundle is empty")]
    Empty,
    /// The zstd frame is corrupted.
    #[error("cannot decompress the bundle")]
    Compression(#[source] std::io::Error),
    /// The JSON is larger than [`BUNDLE_BYTES_MAX`].
    #[error("the bundle is larger than {BUNDLE_BYTES_MAX} bytes")]
    TooLarge,
    /// The JSON is not that of a bundle.
    #[error("cannot read the bundle")]
    Content(#[from] serde_json::Error),
    /// The model text is malformed or not supported.
    #[error("cannot read the bundle's trees")]
    Trees(#[from] ParseError),
    /// The trees were not trained on the features of the pipeline.
    #[error(
        "the pipeline makes {pipeline} features, the trees have {trees}, or their names differ"
    )]
    Features {
        /// Number of features of the pipeline.
        pipeline: usize,
        /// Number of features of the trees.
        trees: usize,
    },
    /// The trees do not have as many classes as the bundle names.
    #[error("the bundle names {classes} classes, its trees have {trees}")]
    Classes {
        /// Number of names.
        classes: usize,
        /// Number of classes of the trees.
        trees: usize,
    },
    /// The threshold is not a probability.
    #[error("the threshold {threshold} is not a probability")]
    Threshold {
        /// Threshold of the bundle.
        threshold: f64,
    },
    /// The calibration does not have one curve for two classes, or one for each of more.
    #[error("the calibration is not for {classes} classes")]
    Calibration {
        /// Number of classes of the trees.
        classes: usize,
    },
}

impl ModelBundle {
    /// Serialises the bundle. The same bundle gives the same bytes.
    ///
    /// # Errors
    /// [`BundleError::TooLarge`] if its JSON is larger than [`BUNDLE_BYTES_MAX`]; [`BundleError::Compression`].
    pub fn to_bytes(&self) -> Result<Vec<u8>, BundleError> {
        let content = self.content();
        if content.len() > BUNDLE_BYTES_MAX {
            return Err(BundleError::TooLarge);
        }
        let mut bytes = vec![FORMAT];
        zstd::stream::copy_encode(content.as_slice(), &mut bytes, ZSTD_LEVEL)
            .map_err(BundleError::Compression)?;
        Ok(bytes)
    }

    /// Deserialises the bytes of [`Self::to_bytes`], in bounded memory.
    ///
    /// # Errors
    /// [`BundleError`] for any other bytes. Whether the bundle can serve is checked by [`Scorer::new`].
    ///
    /// [`Scorer::new`]: crate::Scorer::new
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BundleError> {
        Self::with_version(bytes).map(|(bundle, _)| bundle)
    }

    /// Deserialises a bundle together with the version of its bytes. That version can differ from [`Self::version`] of
    /// the result: this release ignores fields that a later one has added.
    ///
    /// # Errors
    /// As [`Self::from_bytes`].
    pub fn with_version(bytes: &[u8]) -> Result<(Self, ModelVersion), BundleError> {
        let frame = match bytes.split_first() {
            Some((&FORMAT, frame)) => frame,
            Some((&found, _)) => return Err(BundleError::Format { found }),
            None => return Err(BundleError::Empty),
        };
        let mut decoder = zstd::Decoder::with_buffer(frame).map_err(BundleError::Compression)?;
        decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(BundleError::Compression)?;
        let mut content = Vec::new();
        let limit = u64::try_from(BUNDLE_BYTES_MAX).expect("64 MiB fit") + 1;
        decoder.take(limit).read_to_end(&mut content).map_err(BundleError::Compression)?;
        if content.len() > BUNDLE_BYTES_MAX {
            return Err(BundleError::TooLarge);
        }
        Ok((serde_json::from_slice(&content)?, version_of(&content)))
    }

    /// Version of the model: the first 12 hexadecimal digits of the SHA-256 of its JSON.
    #[must_use]
    pub fn version(&self) -> ModelVersion {
        version_of(&self.content())
    }

    fn content(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a bundle has text keys only, and is written to memory")
    }
}

fn version_of(content: &[u8]) -> ModelVersion {
    let digest = Sha256::digest(content);
    ModelVersion::new(hex::encode(&digest[..6]))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{InitialPolicy, Retention, Scorer, TrainingSet, training::tests::small_bundle};

    #[test]
    fn a_bundle_survives_a_round_trip() {
        let bundle = small_bundle();
        let bytes = bundle.to_bytes().unwrap();
        let back = ModelBundle::from_bytes(&bytes).unwrap();
        assert_eq!(back, bundle);
        assert_eq!(back.to_bytes().unwrap(), bytes);
        assert_eq!(back.version(), bundle.version());
    }

    #[test]
    fn a_bundle_names_its_policy_unless_it_is_the_default() {
        let mut bundle = small_bundle();
        assert!(!String::from_utf8(bundle.content()).unwrap().contains("policy"));
        for retention in [Retention::Last(7), Retention::Within(7), Retention::Reservoir(7)] {
            let initial = InitialPolicy::Age;
            let policy = DataPolicy { retention, half_life: Some(86_400_000), initial };
            bundle.lineage.origin.policy = policy;
            let back = ModelBundle::from_bytes(&bundle.to_bytes().unwrap()).unwrap();
            assert_eq!(back.lineage.origin.policy, policy);
        }
    }

    #[test]
    fn a_bundle_has_a_profile_only_if_there_is_one() {
        let bundle = small_bundle();
        assert!(!String::from_utf8(bundle.content()).unwrap().contains("profile"));
        let columns = bundle.pipeline.columns();
        let profile = Profile::of(&TrainingSet::new(columns).sample());
        let profiled = ModelBundle { profile: Some(profile), ..bundle.clone() };
        let back = ModelBundle::from_bytes(&profiled.to_bytes().unwrap()).unwrap();
        assert_eq!(back, profiled);
        assert_eq!(Scorer::new(&back).unwrap().profile(), profiled.profile.as_ref());
        // One of other columns is not used.
        let other = Profile::of(&TrainingSet::new(&columns[1..]).sample());
        let other = ModelBundle { profile: Some(other), ..bundle };
        assert_eq!(Scorer::new(&other).unwrap().profile(), None);
    }

    #[test]
    fn the_version_follows_the_content() {
        let bundle = small_bundle();
        let version = bundle.version();
        assert_eq!(version.as_str().len(), 12);
        let changed = ModelBundle { threshold: 0.4, ..bundle };
        assert_ne!(changed.version(), version);
    }

    #[test]
    fn fields_of_a_later_release_are_ignored_and_the_version_is_kept() {
        let bundle = small_bundle();
        let mut content: serde_json::Value = serde_json::to_value(&bundle).unwrap();
        content["explanation"] = "of a later release".into();
        let content = serde_json::to_vec(&content).unwrap();
        let mut bytes = vec![FORMAT];
        zstd::stream::copy_encode(content.as_slice(), &mut bytes, 1).unwrap();
        let (read, version) = ModelBundle::with_version(&bytes).unwrap();
        assert_eq!(read, bundle);
        assert_eq!(version, version_of(&content));
        assert_ne!(version, bundle.version());
        assert_eq!(*Scorer::from_bytes(&bytes).unwrap().version(), version);
    }

    #[test]
    fn other_bytes_are_an_error() {
        let bytes = small_bundle().to_bytes().unwrap();
        let check = |bytes: &[u8], expected: &str| {
            let error = ModelBundle::from_bytes(bytes).unwrap_err();
            assert!(format!("{error:?}").starts_with(expected), "{error:?}, not {expected}");
        };
        check(&[], "Empty");
        check(&[9, 1, 2], "Format");
        check(&[FORMAT], "Compression");
        check(&[FORMAT, 1, 2, 3], "Compression");
        check(&bytes[..bytes.len() / 2], "Compression");
        let mut json = vec![FORMAT];
        zstd::stream::copy_encode(b"{}".as_slice(), &mut json, 1).unwrap();
        check(&json, "Content");
        let mut bomb = vec![FORMAT];
        let zeros = std::io::repeat(b' ').take(BUNDLE_BYTES_MAX as u64 + 1);
        zstd::stream::copy_encode(zeros, &mut bomb, 1).unwrap();
        assert!(bomb.len() < 100_000);
        check(&bomb, "TooLarge");
    }
}

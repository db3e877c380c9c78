//! A model as one content-hashed thing: pipeline, trees, threshold, where it comes from and how good it was.
//!
//! On the wire: one byte for the format, then a zstd frame of JSON. The version names the JSON, not the frame, so
//! that another zstd does not make another model of it.

use std::io::Read as _;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{
    ModelVersion, Seed,
    features::FittedPipeline,
    training::{Evaluation, Params},
    trees::ParseError,
};

/// The format written today. A field more in the JSON is none, if it is left out where it is empty.
const FORMAT: u8 = 1;
/// What a bundle may grow to when decompressed: 1000 iterations × 63 leaves are about 8 MiB of text a class.
pub const BUNDLE_BYTES_MAX: usize = 64 << 20;
/// A window of 2^27 bytes (128 MiB) bounds what the decompressor may allocate.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;
/// Models are written once and read by every instance: worth some time. It is far from zstd's slowest.
const ZSTD_LEVEL: i32 = 12;

/// Everything that scoring needs, and everything one would ask about a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelBundle {
    /// Turns answers into features.
    pub pipeline: FittedPipeline,
    /// The trees, as LightGBM's own text: any LightGBM can load it.
    pub booster: String,
    /// The names of the classes, in the order of their labels.
    pub classes: Vec<String>,
    /// With two classes: from this probability of class 1 on, class 1 is decided for.
    pub threshold: f64,
    /// What it was made from.
    pub lineage: Lineage,
    /// How good it was on examples it had not seen.
    pub evaluation: Evaluation,
}

/// What a model was made from: the same lineage and the same examples make the same bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lineage {
    /// The examples' origin.
    #[serde(flatten)]
    pub origin: Origin,
    /// LightGBM's parameters.
    pub params: Params,
    /// How often it grew: fewer times than the parameters say if no split was left to make.
    pub iterations: u32,
    /// Where chance came from.
    pub seed: Seed,
    /// The version of LightGBM.
    pub lightgbm: String,
}

/// Which examples a model was trained on, and which model it follows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The number of the training; 0 made the first model.
    pub training: u64,
    /// Examples of the initial data.
    pub initial_examples: u64,
    /// Examples of the training log.
    pub stream_examples: u64,
    /// The offset in the training log after the last example that was used, or could have been.
    pub examples_through: i64,
    /// The champion when this one was trained.
    pub parent: Option<ModelVersion>,
}

/// Bytes that are not a bundle, or a bundle that cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// Written by another release, or not a bundle at all.
    #[error("the bundle is in format {found}, and this release reads format {FORMAT}")]
    Format {
        /// Its first byte.
        found: u8,
    },
    /// There is not one byte.
    #[error("the bundle is empty")]
    Empty,
    /// The frame is broken.
    #[error("cannot decompress the bundle")]
    Compression(#[source] std::io::Error),
    /// Larger than a model may be.
    #[error("the bundle is larger than {BUNDLE_BYTES_MAX} bytes")]
    TooLarge,
    /// The content is not a bundle's.
    #[error("cannot read the bundle")]
    Content(#[from] serde_json::Error),
    /// The trees cannot be walked.
    #[error("cannot read the bundle's trees")]
    Trees(#[from] ParseError),
    /// The trees were trained on other features than the pipeline makes.
    #[error(
        "the pipeline makes {pipeline} features, the trees have {trees}, or their names differ"
    )]
    Features {
        /// Features of the pipeline.
        pipeline: usize,
        /// Features of the trees.
        trees: usize,
    },
    /// The trees tell other classes apart than the bundle names.
    #[error("the bundle names {classes} classes, its trees tell {trees} apart")]
    Classes {
        /// Names of classes.
        classes: usize,
        /// Classes of the trees.
        trees: usize,
    },
    /// The threshold is not a probability.
    #[error("the threshold {threshold} is not a probability")]
    Threshold {
        /// The threshold.
        threshold: f64,
    },
}

impl ModelBundle {
    /// The bundle as bytes; the same bundle gives the same bytes.
    ///
    /// # Errors
    /// If it is larger than [`BUNDLE_BYTES_MAX`], or cannot be compressed.
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

    /// Reads what [`Self::to_bytes`] wrote, in bounded memory.
    ///
    /// # Errors
    /// [`BundleError`] for any other bytes. Whether it can serve, [`Scorer::new`] finds out.
    ///
    /// [`Scorer::new`]: crate::Scorer::new
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BundleError> {
        Self::with_version(bytes).map(|(bundle, _)| bundle)
    }

    /// The same, and the version that the bytes have: a later release may have put in what this one passes over.
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

    /// The first 12 hexadecimal digits of the content's SHA-256.
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
    use crate::{Scorer, training::tests::small_bundle};

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
    fn the_version_names_the_content() {
        let bundle = small_bundle();
        let version = bundle.version();
        assert_eq!(version.as_str().len(), 12);
        let changed = ModelBundle { threshold: 0.4, ..bundle };
        assert_ne!(changed.version(), version);
    }

    #[test]
    fn what_a_later_release_adds_is_passed_over_and_keeps_its_version() {
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

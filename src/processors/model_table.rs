//! The `models` topic as every instance sees it: which model serves, and how it is swapped.
//!
//! ```text
//!   models ──▶ ModelTable ──champion moved──▶ Scorer made ready ──▶ Serving ◀── each worker looks,
//!              (its own thread)                                                   record by record
//! ```

use std::sync::Arc;

use arc_swap::ArcSwapOption;

use crate::{
    events::model::Model,
    ml::{BundleError, ModelVersion, Scorer},
    processors::metrics::ApplicationMetrics,
};

/// The alias of the model that serves.
pub const CHAMPION: &str = "champion";

/// The model that serves, shared by the workers of an instance. To look is one atomic load.
#[derive(Clone, Default)]
pub struct Serving(Arc<ArcSwapOption<Scorer>>);

impl Serving {
    /// The model of this moment; none before the first one has come.
    #[must_use]
    pub fn scorer(&self) -> Option<Arc<Scorer>> {
        self.0.load_full()
    }

    fn swap(&self, scorer: Scorer) {
        self.0.store(Some(Arc::new(scorer)));
    }
}

/// Follows the `models` topic.
pub struct ModelTable {
    serving: Serving,
    metrics: ApplicationMetrics,
    /// The newest bundles, oldest first: the champion's alias comes after its bundle.
    bundles: Vec<(String, Arc<[u8]>)>,
    /// What has served, oldest first.
    served: Vec<String>,
    /// Why the champion does not serve; none if it does.
    refused: Option<String>,
}

/// Bundles kept in memory: the champion's, and a few that an alias may be moved back to.
const BUNDLES_MAX: usize = 8;

/// What an announcement on `models` could not do.
#[derive(Debug, thiserror::Error)]
pub enum ModelTableError {
    /// The alias names a model that is not (or no longer) on the topic.
    #[error("{CHAMPION} points to {0}, whose bundle is not on the models topic")]
    NoBundle(String),
    /// The bundle can't be read.
    #[error("model {version} cannot be served")]
    Bundle {
        /// Which.
        version: String,
        /// Why.
        source: BundleError,
    },
    /// The content is not what its key says.
    #[error("the bundle announced as {announced} is {found}")]
    OtherVersion {
        /// The record's.
        announced: String,
        /// The content's.
        found: ModelVersion,
    },
}

impl ModelTableError {
    fn with_its_cause(&self) -> String {
        match self {
            Self::Bundle { source, .. } => format!("{self}: {source}"),
            Self::NoBundle(_) | Self::OtherVersion { .. } => self.to_string(),
        }
    }
}

impl ModelTable {
    /// An empty table that swaps in `serving`.
    #[must_use]
    pub fn new(serving: Serving, metrics: ApplicationMetrics) -> Self {
        Self { serving, metrics, bundles: Vec::new(), served: Vec::new(), refused: None }
    }

    /// Why the champion does not serve, if it does not.
    #[must_use]
    pub fn refused(&self) -> Option<&str> {
        self.refused.as_deref()
    }

    /// Takes the next record of the topic; true if another model serves from here on.
    ///
    /// # Errors
    /// [`ModelTableError`]; the model that served before goes on.
    pub fn apply(&mut self, model: &Model) -> Result<bool, ModelTableError> {
        if let Some(bytes) = &model.bundle {
            self.bundles.retain(|(version, _)| *version != model.version);
            self.bundles.push((model.version.clone(), Arc::from(bytes.as_slice())));
            if self.bundles.len() > BUNDLES_MAX {
                self.bundles.remove(0);
            }
        }
        if model.alias.as_deref() != Some(CHAMPION) {
            return Ok(false);
        }
        let serves = self.serving.scorer();
        if serves.is_some_and(|scorer| scorer.version().as_str() == model.version) {
            return Ok(false);
        }
        let promoted = self.promote(&model.version);
        self.refused = promoted.as_ref().err().map(ModelTableError::with_its_cause);
        promoted.map(|()| true)
    }

    fn promote(&mut self, version: &str) -> Result<(), ModelTableError> {
        let held = self.bundles.iter().find(|(held, _)| held == version);
        let Some((_, bytes)) = held else {
            return Err(ModelTableError::NoBundle(version.to_owned()));
        };
        let scorer = Scorer::from_bytes(bytes)
            .map_err(|source| ModelTableError::Bundle { version: version.to_owned(), source })?;
        if scorer.version().as_str() != version {
            let (announced, found) = (version.to_owned(), scorer.version().clone());
            return Err(ModelTableError::OtherVersion { announced, found });
        }
        self.serving.swap(scorer);
        self.served.push(version.to_owned());
        let retired = (self.served.len() > BUNDLES_MAX).then(|| self.served.remove(0));
        self.metrics.serving(version, retired.as_deref());
        Ok(())
    }
}

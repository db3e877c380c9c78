//! Reads the `models` topic from its beginning: the models of an application, their aliases and their bundles.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::{
    events::{model::Model, topics::TOPICS},
    processors::metrics::ApplicationMetrics,
};
use foretell_ml::{BundleError, ModelBundle};
use foretell_streams::{
    codec::{Codec, CodecError},
    record::{InputRecord, TopicPartition},
    runtime::broker::{Broker, BrokerError, ReadFrom, ReadTo},
};

/// The `models` topic.
#[derive(Clone)]
pub struct ModelArchive {
    /// The cluster.
    pub broker: Arc<dyn Broker>,
    /// The one partition of `models`.
    pub source: TopicPartition,
    /// The codec of its values.
    pub codec: Arc<dyn Codec<Model>>,
    /// The application's metrics.
    pub metrics: ApplicationMetrics,
}

/// The models of an application, without their bundles.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Catalogue {
    /// The newest [`CATALOGUE_MAX`] models, oldest first. Their `bundle` is empty.
    pub models: Vec<Model>,
    /// The record of each alias that points to a model.
    pub aliases: BTreeMap<String, Model>,
}

/// Maximum number of models in a catalogue.
pub const CATALOGUE_MAX: usize = 1_000;

/// A model cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The broker or the registry failed.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// There is no such model.
    #[error("there is no model {0} on the topic of models")]
    Unknown(String),
    /// The record of the model has no usable bundle.
    #[error("the bundle of model {version} cannot be used")]
    Bundle {
        /// The version of the record.
        version: String,
        /// The cause.
        source: BundleError,
    },
    /// The hash of the bundle is not its version.
    #[error("the bundle announced as {announced} is {found}")]
    OtherVersion {
        /// The version of the record.
        announced: String,
        /// The version of the content.
        found: String,
    },
}

/// The time that one read waits for records.
const WAIT: Duration = Duration::from_millis(200);

impl ModelArchive {
    /// Reads all models and aliases.
    ///
    /// # Errors
    /// [`BrokerError`], also if the schema registry does not answer.
    pub fn catalogue(&self) -> Result<Catalogue, BrokerError> {
        let mut catalogue = Catalogue::default();
        self.visit(|model| catalogue.apply(model))?;
        Ok(catalogue)
    }

    /// Reads the bundle of a version.
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub fn bundle(&self, version: &str) -> Result<ModelBundle, ArchiveError> {
        let record = self.record(version)?;
        let bytes = record
            .and_then(|model| model.bundle)
            .ok_or_else(|| ArchiveError::Unknown(version.to_owned()))?;
        let (bundle, found) = ModelBundle::with_version(&bytes)
            .map_err(|source| ArchiveError::Bundle { version: version.to_owned(), source })?;
        if found.as_str() != version {
            let (announced, found) = (version.to_owned(), found.as_str().to_owned());
            return Err(ArchiveError::OtherVersion { announced, found });
        }
        Ok(bundle)
    }

    /// Reads the record with the bundle of a version, whether or not the bundle can be used; none without one.
    ///
    /// # Errors
    /// [`BrokerError`], also if the schema registry does not answer.
    pub fn record(&self, version: &str) -> Result<Option<Model>, BrokerError> {
        let mut found = None;
        self.visit(|model| {
            if model.version == version && model.bundle.is_some() {
                found = Some(model);
            }
        })?;
        Ok(found)
    }

    /// Calls `visit` with each model of the topic, in order, up to its end. Records that cannot be decoded are skipped
    /// and counted.
    fn visit(&self, mut visit: impl FnMut(Model)) -> Result<(), BrokerError> {
        let mut reader = self.broker.read(&self.source, ReadFrom::Beginning)?;
        let mut records: Vec<InputRecord> = Vec::new();
        loop {
            records.clear();
            let read = reader.read(WAIT, &mut records)?;
            for record in &records {
                let Some(bytes) = &record.value else { continue };
                match self.codec.decode(bytes) {
                    Ok(model) => visit(model),
                    Err(CodecError::Unavailable { message }) => {
                        return Err(BrokerError::Retry(message));
                    }
                    Err(error) => {
                        self.metrics.unreadable(TOPICS.models.name);
                        tracing::error!(offset = %record.offset, %error,
                            "skipping a model record that cannot be decoded");
                    }
                }
            }
            if read != ReadTo::More {
                return Ok(());
            }
        }
    }
}

impl Catalogue {
    fn apply(&mut self, model: Model) {
        match model.alias.clone() {
            Some(alias) if model.version.is_empty() => {
                self.aliases.remove(&alias);
            }
            Some(alias) => {
                self.aliases.insert(alias, model);
            }
            None => {
                self.models.retain(|known| known.version != model.version);
                if self.models.len() >= CATALOGUE_MAX {
                    self.models.remove(0);
                }
                self.models.push(Model { bundle: None, ..model });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::processors::{learning::outputs::records_of, small_model::small_bundle};
    use foretell_streams::time::WallTime;

    #[test]
    fn a_catalogue_has_each_model_once_and_the_aliases_that_point_to_one() {
        let mut catalogue = Catalogue::default();
        let with = |threshold| ModelBundle { threshold, ..small_bundle() };
        let [first, champion] = records_of(&with(0.1), "test", WallTime(1)).unwrap();
        let [second, _] = records_of(&with(0.2), "test", WallTime(2)).unwrap();
        let challenger = Model { alias: Some("challenger".to_owned()), ..champion.clone() };
        for model in [&first, &champion, &second, &challenger, &first] {
            catalogue.apply(model.clone());
        }
        let versions: Vec<_> = catalogue.models.iter().map(|model| &model.version).collect();
        assert_eq!(versions, [&second.version, &first.version]);
        assert!(catalogue.models.iter().all(|model| model.bundle.is_none()));
        assert_eq!(catalogue.aliases["champion"].version, first.version);
        catalogue.apply(Model { version: String::new(), ..challenger });
        assert_eq!(catalogue.aliases.keys().collect::<Vec<_>>(), ["champion"]);
    }
}

//! Reads the `models` topic: the models of an application, their aliases and their bundles.

use std::{collections::BTreeMap, ops::ControlFlow, sync::Arc};

use crate::{
    events::{model::Model, topics::TOPICS},
    processors::{
        metrics::ApplicationMetrics,
        model_table::{CHALLENGER, CHAMPION, PREDECESSOR},
        topic_reader::TopicReader,
    },
};
use foretell_ml::{BundleError, ModelBundle};
use foretell_streams::{
    codec::Codec,
    record::{Offset, TopicPartition},
    runtime::broker::{Broker, BrokerError},
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
#[derive(Clone, Debug, PartialEq)]
pub struct Catalogue {
    /// The newest [`CATALOGUE_MAX`] models, oldest first. Their `bundle` is empty.
    pub models: Vec<Model>,
    /// The record of each alias that points to a model.
    pub aliases: BTreeMap<String, Model>,
    /// The bundle of each model.
    pub bundles: BTreeMap<String, StoredBundle>,
    /// Every record before this offset was read.
    next: Offset,
}

/// The location of a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredBundle {
    /// The offset of its record.
    pub offset: Offset,
    /// Its size.
    pub bytes: usize,
}

/// Maximum number of models in a catalogue, each of some hundred bytes.
pub const CATALOGUE_MAX: usize = 1_000;
/// Maximum number of versions that an error suggests.
const NEAR_MAX: usize = 5;
/// Maximum number of wrong characters of a version that is suggested.
const TYPOS_MAX: usize = 3;

/// No model, or more than one, is meant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnknownModel {
    /// No version or alias begins so.
    #[error("there is no model {named:?}; {}", suggestion(near))]
    None {
        /// The given version, prefix or alias.
        named: String,
        /// Similar versions, or else the newest ones.
        near: Vec<String>,
    },
    /// No model has this alias.
    #[error("there is no {alias} now: no model has this alias")]
    NoAlias {
        /// The given alias.
        alias: String,
    },
    /// Several versions begin so.
    #[error("several models begin with {named:?}: {}", near.join(", "))]
    Several {
        /// The given prefix.
        named: String,
        /// The first of those versions.
        near: Vec<String>,
    },
}

fn suggestion(near: &[String]) -> String {
    match near {
        [] => "there are no models yet".to_owned(),
        near => format!("there are {}", near.join(", ")),
    }
}

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

impl ModelArchive {
    /// Reads all models and aliases.
    ///
    /// # Errors
    /// [`BrokerError`], also if the schema registry does not answer.
    pub fn catalogue(&self) -> Result<Catalogue, BrokerError> {
        let mut catalogue = Catalogue::default();
        self.catch_up(&mut catalogue)?;
        Ok(catalogue)
    }

    /// Adds what was written since `catalogue` was read. After an error it has what was read before.
    ///
    /// # Errors
    /// As for [`Self::catalogue`].
    pub fn catch_up(&self, catalogue: &mut Catalogue) -> Result<(), BrokerError> {
        self.reader().visit_from(TOPICS.models.name, catalogue.next, |next, model| {
            catalogue.apply(next, model);
            ControlFlow::Continue(())
        })
    }

    /// Reads the bundle of a version.
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub fn bundle(&self, version: &str) -> Result<ModelBundle, ArchiveError> {
        check(version, self.record(version)?.and_then(|model| model.bundle))
    }

    /// Reads the record with the bundle of a version, whether or not the bundle can be used; none without one.
    ///
    /// # Errors
    /// [`BrokerError`], also if the schema registry does not answer.
    pub fn record(&self, version: &str) -> Result<Option<Model>, BrokerError> {
        let mut found = None;
        self.reader().visit(TOPICS.models.name, |model| {
            if model.version == version && model.bundle.is_some() {
                found = Some(model);
            }
        })?;
        Ok(found)
    }

    /// Reads the bundle of a model of the catalogue, and nothing else of the topic.
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub fn bundle_in(
        &self,
        catalogue: &Catalogue,
        version: &str,
    ) -> Result<ModelBundle, ArchiveError> {
        let Some(stored) = catalogue.bundles.get(version) else {
            return Err(ArchiveError::Unknown(version.to_owned()));
        };
        let mut found = None;
        self.reader().visit_from(TOPICS.models.name, stored.offset, |_, model| {
            if model.version != version || model.bundle.is_none() {
                return ControlFlow::Continue(());
            }
            found = model.bundle;
            ControlFlow::Break(())
        })?;
        check(version, found)
    }

    fn reader(&self) -> TopicReader<Model> {
        TopicReader {
            broker: Arc::clone(&self.broker),
            source: self.source.clone(),
            codec: Arc::clone(&self.codec),
            metrics: self.metrics.clone(),
        }
    }
}

/// Reads a bundle, and checks that it is the announced one.
fn check(version: &str, bytes: Option<Vec<u8>>) -> Result<ModelBundle, ArchiveError> {
    let bytes = bytes.ok_or_else(|| ArchiveError::Unknown(version.to_owned()))?;
    let (bundle, found) = ModelBundle::with_version(&bytes)
        .map_err(|source| ArchiveError::Bundle { version: version.to_owned(), source })?;
    if found.as_str() != version {
        let (announced, found) = (version.to_owned(), found.as_str().to_owned());
        return Err(ArchiveError::OtherVersion { announced, found });
    }
    Ok(bundle)
}

impl Default for Catalogue {
    fn default() -> Self {
        Self {
            models: Vec::new(),
            aliases: BTreeMap::new(),
            bundles: BTreeMap::new(),
            next: Offset(0),
        }
    }
}

impl Catalogue {
    /// The model with this version or alias, or the only one whose version begins so.
    ///
    /// # Errors
    /// [`UnknownModel`], with similar versions.
    pub fn find(&self, named: &str) -> Result<&Model, UnknownModel> {
        let version = self.aliases.get(named).map_or(named, |alias| alias.version.as_str());
        if let Some(model) = self.models.iter().find(|model| model.version == version) {
            return Ok(model);
        }
        let begins = |model: &&Model| !named.is_empty() && model.version.starts_with(named);
        let mut matching = self.models.iter().rev().filter(begins);
        let (first, second) = (matching.next(), matching.next());
        match (first, second) {
            (Some(model), None) => Ok(model),
            (Some(_), Some(_)) => {
                let near = self.models.iter().rev().filter(begins).take(NEAR_MAX);
                let near = near.map(|model| model.version.clone()).collect();
                Err(UnknownModel::Several { named: named.to_owned(), near })
            }
            (None, _) if [CHAMPION, CHALLENGER, PREDECESSOR].contains(&named) => {
                Err(UnknownModel::NoAlias { alias: named.to_owned() })
            }
            (None, _) => {
                Err(UnknownModel::None { named: named.to_owned(), near: self.near(named) })
            }
        }
    }

    /// The aliases that point to a version.
    pub fn aliases_of<'c>(&'c self, version: &'c str) -> impl Iterator<Item = &'c str> {
        let aliases = self.aliases.iter().filter(move |(_, model)| model.version == version);
        aliases.map(|(alias, _)| alias.as_str())
    }

    /// Versions that differ in few characters, or else the newest.
    fn near(&self, named: &str) -> Vec<String> {
        let is_similar = |version: &str| {
            let typos = version.chars().zip(named.chars()).filter(|(a, b)| a != b).count();
            version.len().abs_diff(named.len()) + typos <= TYPOS_MAX
        };
        let versions = || self.models.iter().rev().map(|model| model.version.as_str());
        let similar: Vec<&str> = versions().filter(|version| is_similar(version)).collect();
        let near = if similar.is_empty() { versions().collect() } else { similar };
        near.into_iter().take(NEAR_MAX).map(ToOwned::to_owned).collect()
    }

    /// Applies a record; `next` is the offset after it.
    fn apply(&mut self, next: Offset, mut model: Model) {
        self.next = next;
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
                    self.remove_oldest();
                }
                let bytes = model.bundle.take().map_or(0, |bundle| bundle.len());
                let stored = StoredBundle { offset: Offset(next.0 - 1), bytes };
                self.bundles.insert(model.version.clone(), stored);
                self.models.push(model);
            }
        }
    }

    /// Removes the oldest model that no alias points to.
    fn remove_oldest(&mut self) {
        let is_free = |model: &Model| self.aliases_of(&model.version).next().is_none();
        let oldest = self.models.iter().position(is_free).unwrap_or(0);
        let removed = self.models.remove(oldest);
        self.bundles.remove(&removed.version);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::processors::{learning::outputs::records_of, small_model::small_bundle};
    use foretell_streams::time::WallTime;

    fn records(threshold: f64) -> [Model; 2] {
        let bundle = ModelBundle { threshold, ..small_bundle() };
        records_of(&bundle, "test", WallTime(1)).unwrap()
    }

    fn catalogue_of<'m>(models: impl IntoIterator<Item = &'m Model>) -> Catalogue {
        let mut catalogue = Catalogue::default();
        for (next, model) in (1..).zip(models) {
            catalogue.apply(Offset(next), model.clone());
        }
        catalogue
    }

    #[test]
    fn a_catalogue_has_each_model_once_and_the_aliases_that_point_to_one() {
        let ([first, champion], [second, _]) = (records(0.1), records(0.2));
        let challenger = Model { alias: Some("challenger".to_owned()), ..champion.clone() };
        let mut catalogue = catalogue_of([&first, &champion, &second, &challenger, &first]);
        let versions: Vec<_> = catalogue.models.iter().map(|model| &model.version).collect();
        assert_eq!(versions, [&second.version, &first.version]);
        assert!(catalogue.models.iter().all(|model| model.bundle.is_none()));
        assert_eq!(catalogue.aliases["champion"].version, first.version);
        let stored = catalogue.bundles[&first.version];
        assert_eq!((stored.offset, stored.bytes), (Offset(4), first.bundle.unwrap().len()));
        let aliases: Vec<&str> = catalogue.aliases_of(&first.version).collect();
        assert_eq!(aliases, ["challenger", "champion"]);
        catalogue.apply(Offset(6), Model { version: String::new(), ..challenger });
        assert_eq!(catalogue.aliases.keys().collect::<Vec<_>>(), ["champion"]);
    }

    #[test]
    fn a_model_is_found_by_version_unique_prefix_and_alias() {
        let [model, champion] = records(0.1);
        let named = |version: &str| Model { version: version.to_owned(), ..model.clone() };
        let alias = Model { version: "ab12cd34ef56".to_owned(), ..champion };
        let all = [named("ab12cd34ef56"), named("ab99cd34ef56"), named("0123456789ab"), alias];
        let catalogue = catalogue_of(&all);
        let check = |text: &str, expected: &str| {
            assert_eq!(catalogue.find(text).unwrap().version, expected, "{text}");
        };
        check("ab12cd34ef56", "ab12cd34ef56");
        check("ab1", "ab12cd34ef56");
        check("0", "0123456789ab");
        check("champion", "ab12cd34ef56");
        let refuse = |text: &str, expected: &str| {
            assert_eq!(catalogue.find(text).unwrap_err().to_string(), expected);
        };
        refuse("ab", "several models begin with \"ab\": ab99cd34ef56, ab12cd34ef56");
        refuse("0123456789ac", "there is no model \"0123456789ac\"; there are 0123456789ab");
        refuse(
            "challenge",
            "there is no model \"challenge\"; there are 0123456789ab, ab99cd34ef56, ab12cd34ef56",
        );
        refuse("challenger", "there is no challenger now: no model has this alias");
        refuse("predecessor", "there is no predecessor now: no model has this alias");
        let none = Catalogue::default().find("").unwrap_err().to_string();
        assert_eq!(none, "there is no model \"\"; there are no models yet");
    }

    #[test]
    fn the_oldest_model_without_an_alias_is_left_out_of_a_full_catalogue() {
        let [model, champion] = records(0.1);
        let named = |number: usize| Model { version: format!("v{number}"), ..model.clone() };
        let alias = Model { version: "v0".to_owned(), ..champion };
        let models: Vec<Model> =
            [named(0), alias].into_iter().chain((1..=CATALOGUE_MAX).map(named)).collect();
        let catalogue = catalogue_of(&models);
        assert_eq!(catalogue.models.len(), CATALOGUE_MAX);
        assert_eq!(catalogue.bundles.len(), CATALOGUE_MAX);
        assert!(catalogue.find("champion").is_ok() && !catalogue.bundles.contains_key("v1"));
    }
}

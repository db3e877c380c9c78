//! The state of the `models` topic on an instance: the model that serves, and its swap.
//!
//! ```text
//!   models ──▶ ModelTable ──champion moved──▶ Scorer prepared ──▶ Serving ◀── loaded by each worker
//!              (on a thread)                                                for each record
//! ```

use std::sync::Arc;

use arc_swap::ArcSwapOption;

use crate::{events::model::Model, processors::metrics::ApplicationMetrics};
use foretell_ml::{BundleError, ModelVersion, Scorer};

/// The alias of the model that serves.
pub const CHAMPION: &str = "champion";
/// The alias of the model that is scored on live traffic beside the champion.
pub const CHALLENGER: &str = "challenger";
/// The alias of the champion before this one.
pub const PREDECESSOR: &str = "predecessor";

/// The model that serves, shared by the workers of an instance. Reading it is one atomic load.
#[derive(Clone, Default)]
pub struct Serving(Arc<ArcSwapOption<Scorer>>);

impl Serving {
    /// The current model; none before the first.
    #[must_use]
    pub fn scorer(&self) -> Option<Arc<Scorer>> {
        self.0.load_full()
    }

    fn swap(&self, scorer: Scorer) {
        self.0.store(Some(Arc::new(scorer)));
    }
}

/// Applies the records of the `models` topic.
pub struct ModelTable {
    serving: Serving,
    metrics: ApplicationMetrics,
    /// The newest bundles, oldest first. An alias is written after its bundle.
    bundles: Vec<(String, Arc<[u8]>)>,
    /// The versions that have served, each once, the most recent last.
    served: Vec<String>,
    /// The reason that the champion does not serve; none if it serves.
    refused: Option<String>,
}

/// Maximum number of bundles in memory: the champion's, and some for a rollback of the alias.
const BUNDLES_MAX: usize = 8;

/// A record of `models` that cannot be applied.
#[derive(Debug, thiserror::Error)]
pub enum ModelTableError {
    /// The alias points to a model whose bundle is not in memory.
    #[error("{CHAMPION} points to {0}, whose bundle is not on the models topic")]
    NoBundle(String),
    /// The bundle cannot be used.
    #[error("model {version} cannot be served")]
    Bundle {
        /// The model version.
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
        found: ModelVersion,
    },
}

impl ModelTableError {
    fn with_cause(&self) -> String {
        match self {
            Self::Bundle { source, .. } => format!("{self}: {source}"),
            Self::NoBundle(_) | Self::OtherVersion { .. } => self.to_string(),
        }
    }
}

impl ModelTable {
    /// An empty table that swaps the model of `serving`.
    #[must_use]
    pub fn new(serving: Serving, metrics: ApplicationMetrics) -> Self {
        Self { serving, metrics, bundles: Vec::new(), served: Vec::new(), refused: None }
    }

    /// The reason that the champion does not serve; none if it serves.
    #[must_use]
    pub fn refused(&self) -> Option<&str> {
        self.refused.as_deref()
    }

    /// Applies the next record of the topic. Returns true if a new model serves.
    ///
    /// # Errors
    /// [`ModelTableError`]; the previous model continues to serve.
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
        self.refused = promoted.as_ref().err().map(ModelTableError::with_cause);
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
        self.served.retain(|served| served != version);
        self.served.push(version.to_owned());
        let retired = (self.served.len() > BUNDLES_MAX).then(|| self.served.remove(0));
        self.metrics.serving(version, retired.as_deref());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::processors::{
        learning::outputs::records_of, metrics::tests::TestMetrics, small_model::small_bundle,
    };
    use foretell_ml::ModelBundle;
    use foretell_streams::time::WallTime;

    struct Fixture {
        table: ModelTable,
        serving: Serving,
        metrics: TestMetrics,
    }

    /// A different model for each number.
    fn model(number: u32) -> ModelBundle {
        ModelBundle { threshold: 0.1 + f64::from(number) / 100.0, ..small_bundle() }
    }

    fn name_of(number: u32) -> String {
        model(number).version().as_str().to_owned()
    }

    /// The records of the bundle and of the alias.
    fn records(number: u32) -> [Model; 2] {
        records_of(&model(number), "test", WallTime(0)).unwrap()
    }

    impl Fixture {
        fn new() -> Self {
            let (serving, metrics) = (Serving::default(), TestMetrics::new());
            let table = ModelTable::new(serving.clone(), metrics.metrics.clone());
            Self { table, serving, metrics }
        }

        fn announce(&mut self, number: u32) -> bool {
            let [bundle, alias] = records(number);
            assert!(!self.table.apply(&bundle).unwrap(), "a bundle alone does not serve");
            self.table.apply(&alias).unwrap()
        }

        /// Moves the alias, as a rollback does.
        fn point_to(&mut self, number: u32) -> Result<bool, ModelTableError> {
            let [_, alias] = records(number);
            self.table.apply(&alias)
        }

        #[track_caller]
        fn expect_serving(&self, number: u32) {
            let scorer = self.serving.scorer().unwrap();
            assert_eq!(scorer.version().as_str(), name_of(number));
            let infos = self.metrics.series("foretell_model_info");
            assert_eq!(infos, [name_of(number)], "one model serves");
        }
    }

    #[test]
    fn a_model_serves_when_its_alias_is_applied() {
        let mut fixture = Fixture::new();
        let [bundle, alias] = records(1);
        assert!(!fixture.table.apply(&bundle).unwrap());
        assert!(fixture.serving.scorer().is_none());
        let other = Model { alias: Some("challenger".to_owned()), ..alias.clone() };
        assert!(!fixture.table.apply(&other).unwrap(), "another alias has no effect");
        assert!(fixture.serving.scorer().is_none());
        assert!(fixture.table.apply(&alias).unwrap());
        fixture.expect_serving(1);
        let before = fixture.serving.scorer().unwrap();
        assert!(!fixture.table.apply(&alias).unwrap(), "it serves already");
        assert!(Arc::ptr_eq(&before, &fixture.serving.scorer().unwrap()));
    }

    #[test]
    fn an_alias_moves_back_to_a_bundle_in_memory() {
        let mut fixture = Fixture::new();
        for number in 1..=8 {
            assert!(fixture.announce(number));
            fixture.expect_serving(number);
        }
        assert!(fixture.point_to(1).unwrap());
        fixture.expect_serving(1);
        assert!(fixture.point_to(8).unwrap());
        // The ninth evicts the oldest.
        assert!(fixture.announce(9));
        let error = fixture.point_to(1).unwrap_err();
        assert!(
            matches!(&error, ModelTableError::NoBundle(name) if *name == name_of(1)),
            "{error}"
        );
        fixture.expect_serving(9);
        assert!(fixture.point_to(2).unwrap());
        fixture.expect_serving(2);
    }

    #[test]
    fn a_repeated_bundle_takes_no_second_slot() {
        let mut fixture = Fixture::new();
        fixture.announce(1);
        fixture.announce(2);
        for _ in 0..10 {
            fixture.table.apply(&records(2)[0]).unwrap();
        }
        assert!(fixture.point_to(1).unwrap());
        // A corrupted bundle, published again.
        let [bundle, alias] = records(3);
        let corrupted = Model { bundle: Some(b"corrupted".to_vec()), ..bundle.clone() };
        fixture.table.apply(&corrupted).unwrap();
        fixture.table.apply(&alias).unwrap_err();
        fixture.table.apply(&bundle).unwrap();
        assert!(fixture.table.apply(&alias).unwrap());
        fixture.expect_serving(3);
    }

    #[test]
    fn the_reason_that_the_champion_does_not_serve_is_reported_until_one_serves() {
        let mut fixture = Fixture::new();
        fixture.announce(1);
        assert_eq!(fixture.table.refused(), None);
        let [bundle, alias] = records(2);
        fixture.table.apply(&alias).unwrap_err();
        assert!(
            fixture.table.refused().unwrap().contains(&name_of(2)),
            "{:?}",
            fixture.table.refused()
        );
        fixture.expect_serving(1);
        // The content of another model.
        let swapped = Model { bundle: records(3)[0].bundle.clone(), ..bundle.clone() };
        fixture.table.apply(&swapped).unwrap();
        let error = fixture.table.apply(&alias).unwrap_err();
        assert!(matches!(error, ModelTableError::OtherVersion { .. }), "{error}");
        assert!(fixture.table.refused().unwrap().contains(&name_of(3)));
        fixture.expect_serving(1);
        fixture.table.apply(&bundle).unwrap();
        assert!(fixture.table.apply(&alias).unwrap());
        assert_eq!(fixture.table.refused(), None);
        fixture.expect_serving(2);
    }

    #[test]
    fn the_series_of_retired_models_are_removed_and_those_of_a_model_that_serves_again_are_kept() {
        let mut fixture = Fixture::new();
        let counted = |fixture: &mut Fixture, number: u32| {
            fixture.announce(number);
            fixture.metrics.metrics.predictions(&name_of(number)).add(1);
            fixture.metrics.series("foretell_predictions_total")
        };
        for number in 1..=8 {
            counted(&mut fixture, number);
        }
        // The first serves again, so the second is retired next.
        assert!(counted(&mut fixture, 1).contains(&name_of(2)));
        let series = counted(&mut fixture, 9);
        assert_eq!(series.len(), 8);
        assert!(!series.contains(&name_of(2)) && series.contains(&name_of(1)), "{series:?}");
        // Repeated moves keep the series of both.
        for _ in 0..10 {
            fixture.point_to(1).unwrap();
            fixture.point_to(9).unwrap();
        }
        let series = fixture.metrics.series("foretell_predictions_total");
        assert!(series.contains(&name_of(1)) && series.contains(&name_of(9)), "{series:?}");
    }
}

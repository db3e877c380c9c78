//! The `models` topic as every instance sees it: which model serves, and how it is swapped.
//!
//! ```text
//!   models ──▶ ModelTable ──champion moved──▶ Scorer made ready ──▶ Serving ◀── each worker looks,
//!              (its own thread)                                                   record by record
//! ```

use std::sync::Arc;

use arc_swap::ArcSwapOption;

use crate::{events::model::Model, processors::metrics::ApplicationMetrics};
use foretell_ml::{BundleError, ModelVersion, Scorer};

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
    /// What has served, each once, the last to begin last.
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
        metrics::tests::TestMetrics, retrain_trigger::records_of, small_model::small_bundle,
    };
    use foretell_ml::ModelBundle;
    use foretell_streams::time::WallTime;

    struct Scene {
        table: ModelTable,
        serving: Serving,
        metrics: TestMetrics,
    }

    /// Each number makes another model.
    fn model(number: u32) -> ModelBundle {
        ModelBundle { threshold: 0.1 + f64::from(number) / 100.0, ..small_bundle() }
    }

    fn name_of(number: u32) -> String {
        model(number).version().as_str().to_owned()
    }

    /// The record of the bundle, and the one that points to it.
    fn records(number: u32) -> [Model; 2] {
        records_of(&model(number), "test", WallTime(0)).unwrap()
    }

    impl Scene {
        fn new() -> Self {
            let (serving, metrics) = (Serving::default(), TestMetrics::new());
            let table = ModelTable::new(serving.clone(), metrics.metrics.clone());
            Self { table, serving, metrics }
        }

        fn announce(&mut self, number: u32) -> bool {
            let [bundle, alias] = records(number);
            assert!(!self.table.apply(&bundle).unwrap(), "a bundle alone moves nothing");
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
            assert_eq!(infos, [name_of(number)], "one serves, and no other");
        }
    }

    #[test]
    fn a_model_serves_from_its_alias_on() {
        let mut scene = Scene::new();
        let [bundle, alias] = records(1);
        assert!(!scene.table.apply(&bundle).unwrap());
        assert!(scene.serving.scorer().is_none());
        let other = Model { alias: Some("challenger".to_owned()), ..alias.clone() };
        assert!(!scene.table.apply(&other).unwrap(), "another alias is nothing to us");
        assert!(scene.serving.scorer().is_none());
        assert!(scene.table.apply(&alias).unwrap());
        scene.expect_serving(1);
        let before = scene.serving.scorer().unwrap();
        assert!(!scene.table.apply(&alias).unwrap(), "it serves already");
        assert!(Arc::ptr_eq(&before, &scene.serving.scorer().unwrap()));
    }

    #[test]
    fn an_alias_goes_back_to_a_bundle_that_is_held() {
        let mut scene = Scene::new();
        for number in 1..=8 {
            assert!(scene.announce(number));
            scene.expect_serving(number);
        }
        assert!(scene.point_to(1).unwrap());
        scene.expect_serving(1);
        assert!(scene.point_to(8).unwrap());
        // The ninth takes the place of the oldest.
        assert!(scene.announce(9));
        let error = scene.point_to(1).unwrap_err();
        assert!(
            matches!(&error, ModelTableError::NoBundle(name) if *name == name_of(1)),
            "{error}"
        );
        scene.expect_serving(9);
        assert!(scene.point_to(2).unwrap());
        scene.expect_serving(2);
    }

    #[test]
    fn a_bundle_that_is_announced_again_takes_no_second_place() {
        let mut scene = Scene::new();
        scene.announce(1);
        scene.announce(2);
        for _ in 0..10 {
            scene.table.apply(&records(2)[0]).unwrap();
        }
        assert!(scene.point_to(1).unwrap());
        // One that was damaged on its way, and announced again.
        let [bundle, alias] = records(3);
        let damaged = Model { bundle: Some(b"damaged".to_vec()), ..bundle.clone() };
        scene.table.apply(&damaged).unwrap();
        scene.table.apply(&alias).unwrap_err();
        scene.table.apply(&bundle).unwrap();
        assert!(scene.table.apply(&alias).unwrap());
        scene.expect_serving(3);
    }

    #[test]
    fn why_the_champion_does_not_serve_is_reported_until_one_does() {
        let mut scene = Scene::new();
        scene.announce(1);
        assert_eq!(scene.table.refused(), None);
        let [bundle, alias] = records(2);
        scene.table.apply(&alias).unwrap_err();
        assert!(
            scene.table.refused().unwrap().contains(&name_of(2)),
            "{:?}",
            scene.table.refused()
        );
        scene.expect_serving(1);
        // The content is another model's.
        let swapped = Model { bundle: records(3)[0].bundle.clone(), ..bundle.clone() };
        scene.table.apply(&swapped).unwrap();
        let error = scene.table.apply(&alias).unwrap_err();
        assert!(matches!(error, ModelTableError::OtherVersion { .. }), "{error}");
        assert!(scene.table.refused().unwrap().contains(&name_of(3)));
        scene.expect_serving(1);
        scene.table.apply(&bundle).unwrap();
        assert!(scene.table.apply(&alias).unwrap());
        assert_eq!(scene.table.refused(), None);
        scene.expect_serving(2);
    }

    #[test]
    fn a_model_long_gone_takes_its_series_with_it_and_one_that_is_back_keeps_them() {
        let mut scene = Scene::new();
        let counted = |scene: &mut Scene, number: u32| {
            scene.announce(number);
            scene.metrics.metrics.predictions(&name_of(number)).add(1);
            scene.metrics.series("foretell_predictions_total")
        };
        for number in 1..=8 {
            counted(&mut scene, number);
        }
        // The first serves once more, so the second is the one that is longest gone.
        assert!(counted(&mut scene, 1).contains(&name_of(2)));
        let series = counted(&mut scene, 9);
        assert_eq!(series.len(), 8);
        assert!(!series.contains(&name_of(2)) && series.contains(&name_of(1)), "{series:?}");
        // Forth and back, often: both are there.
        for _ in 0..10 {
            scene.point_to(1).unwrap();
            scene.point_to(9).unwrap();
        }
        let series = scene.metrics.series("foretell_predictions_total");
        assert!(series.contains(&name_of(1)) && series.contains(&name_of(9)), "{series:?}");
    }
}

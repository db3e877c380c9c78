//! The state of the `models` topic on an instance: the champion, the challenger, and their swaps.
//!
//! ```text
//!   models ──▶ ModelTable ──an alias moved──▶ Scorer prepared ──▶ Serving ◀── loaded by each worker
//!              (on a thread)                                                  for each record
//! ```
//!
//! The champion and the challenger follow from the newest record of each alias alone, so an instance has the same models
//! after a restart as before it, whatever the order in which the aliases moved.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::{events::model::Model, processors::metrics::ApplicationMetrics};
use foretell_ml::{BundleError, ModelVersion, Scorer};

/// The alias of the model that serves.
pub const CHAMPION: &str = "champion";
/// The alias of the model whose scores are recorded beside the champion's, to compare the two on live traffic.
pub const CHALLENGER: &str = "challenger";
/// The alias of the champion before this one, which a rollback returns to.
pub const PREDECESSOR: &str = "predecessor";

/// The models of an instance, shared by its workers. Reading them is one atomic load.
#[derive(Clone, Default)]
pub struct Serving(Arc<ArcSwap<ServedModels>>);

/// The models of an instance at one time.
#[derive(Clone, Default)]
pub struct ServedModels {
    /// The model that serves; none before the first.
    pub champion: Option<Arc<Scorer>>,
    /// The model that is compared with the champion: another version with the same classes.
    pub challenger: Option<Arc<Scorer>>,
}

impl Serving {
    /// A champion that is never replaced.
    #[must_use]
    pub fn only(champion: Scorer) -> Self {
        let models = ServedModels { champion: Some(Arc::new(champion)), challenger: None };
        Self(Arc::new(ArcSwap::from_pointee(models)))
    }

    /// The current models.
    #[must_use]
    pub fn models(&self) -> Arc<ServedModels> {
        self.0.load_full()
    }

    /// The current champion; none before the first.
    #[must_use]
    pub fn scorer(&self) -> Option<Arc<Scorer>> {
        self.0.load().champion.clone()
    }

    /// The current challenger, if there is one.
    #[must_use]
    pub fn challenger(&self) -> Option<Arc<Scorer>> {
        self.0.load().challenger.clone()
    }
}

impl ServedModels {
    /// The model with this version, if it is one of these.
    #[must_use]
    pub fn scorer(&self, version: &str) -> Option<&Arc<Scorer>> {
        let mut models = self.champion.iter().chain(&self.challenger);
        models.find(|scorer| scorer.version().as_str() == version)
    }
}

/// Applies the records of the `models` topic.
pub struct ModelTable {
    serving: Serving,
    metrics: ApplicationMetrics,
    aliases: Aliases,
    /// Bundles, oldest first: the newest, and those of the aliases. An alias is written after its bundle.
    bundles: Vec<(String, Arc<[u8]>)>,
    /// The versions that have served, each once, the most recent last.
    served: Vec<String>,
    /// The reason that the champion does not serve; none if it serves.
    refused: Option<String>,
}

/// The version that each alias points to.
#[derive(Default)]
struct Aliases {
    champion: Option<String>,
    challenger: Option<String>,
    predecessor: Option<String>,
}

/// Maximum number of bundles in memory: those of the three aliases, and some for a move of an alias.
const BUNDLES_MAX: usize = 8;

/// A record of `models` that cannot be applied.
#[derive(Debug, thiserror::Error)]
pub enum ModelTableError {
    /// The alias points to a model whose bundle is not in memory.
    #[error("{alias} points to {version}, whose bundle is not on the models topic")]
    NoBundle {
        /// The alias.
        alias: &'static str,
        /// The version that it points to.
        version: String,
    },
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
    /// The challenger cannot be compared with the champion.
    #[error("{CHALLENGER} {version} has the classes {found:?}, but {CHAMPION} has {expected:?}")]
    OtherClasses {
        /// The version of the challenger.
        version: String,
        /// Its classes.
        found: Vec<String>,
        /// The classes of the champion.
        expected: Vec<String>,
    },
    /// A record would clear the alias of the model that serves.
    #[error("{CHAMPION} cannot be cleared: a model must serve")]
    ChampionCleared,
}

impl ModelTableError {
    fn with_cause(&self) -> String {
        match self {
            Self::Bundle { source, .. } => format!("{self}: {source}"),
            Self::NoBundle { .. }
            | Self::OtherVersion { .. }
            | Self::OtherClasses { .. }
            | Self::ChampionCleared => self.to_string(),
        }
    }
}

impl Aliases {
    fn names(&self, version: &str) -> bool {
        let targets = [&self.champion, &self.challenger, &self.predecessor];
        targets.into_iter().flatten().any(|target| target == version)
    }
}

impl ModelTable {
    /// An empty table that swaps the models of `serving`.
    #[must_use]
    pub fn new(serving: Serving, metrics: ApplicationMetrics) -> Self {
        Self {
            serving,
            metrics,
            aliases: Aliases::default(),
            bundles: Vec::new(),
            served: Vec::new(),
            refused: None,
        }
    }

    /// The reason that the champion does not serve; none if it serves.
    #[must_use]
    pub fn refused(&self) -> Option<&str> {
        self.refused.as_deref()
    }

    /// Whether `model` points an alias to a version whose bundle is on the topic at most, and not in memory. The bundle must
    /// be applied before it.
    #[must_use]
    pub fn lacks_bundle_of(&self, model: &Model) -> bool {
        model.alias.as_deref().is_some_and(|alias| [CHAMPION, CHALLENGER].contains(&alias))
            && !model.version.is_empty()
            && self.serving.models().scorer(&model.version).is_none()
            && self.bundle(&model.version).is_none()
    }

    /// Applies the next record of the topic. Returns true if the champion or the challenger is another model now, or the
    /// challenger is cleared.
    ///
    /// # Errors
    /// [`ModelTableError`], also counted. The previous champion continues to serve; a challenger that is refused is none.
    pub fn apply(&mut self, model: &Model) -> Result<bool, ModelTableError> {
        if let Some(bytes) = &model.bundle {
            self.keep(&model.version, bytes);
        }
        let target = Some(model.version.clone()).filter(|version| !version.is_empty());
        let (alias, applied) = match (model.alias.as_deref(), target) {
            (Some(CHAMPION), Some(version)) => (CHAMPION, self.move_champion(version)),
            (Some(CHAMPION), None) => (CHAMPION, Err(ModelTableError::ChampionCleared)),
            (Some(CHALLENGER), target) => (CHALLENGER, self.move_challenger(target)),
            (Some(PREDECESSOR), target) => {
                self.aliases.predecessor = target;
                return Ok(false);
            }
            (Some(_) | None, _) => return Ok(false),
        };
        applied.inspect_err(|_| self.metrics.refused(alias))
    }

    /// Keeps a bundle, in place of the oldest that no alias points to.
    fn keep(&mut self, version: &str, bytes: &[u8]) {
        self.bundles.retain(|(kept, _)| kept != version);
        self.bundles.push((version.to_owned(), Arc::from(bytes)));
        if self.bundles.len() > BUNDLES_MAX {
            let oldest = self.bundles.iter().position(|(kept, _)| !self.aliases.names(kept));
            self.bundles.remove(oldest.unwrap_or_default());
        }
    }

    fn bundle(&self, version: &str) -> Option<&Arc<[u8]>> {
        self.bundles.iter().find(|(kept, _)| kept == version).map(|(_, bytes)| bytes)
    }

    fn move_champion(&mut self, version: String) -> Result<bool, ModelTableError> {
        let loaded = self.load(CHAMPION, &version);
        self.aliases.champion = Some(version);
        self.refused = loaded.as_ref().err().map(ModelTableError::with_cause);
        let champion = loaded?;
        let before = self.serving.scorer();
        if before.is_some_and(|before| before.version() == champion.version()) {
            return Ok(false);
        }
        let version = champion.version().clone();
        let swapped = self.swap(Some(champion));
        self.count_served(version.as_str());
        if let Err(error) = swapped {
            self.metrics.refused(CHALLENGER);
            let error = error.with_cause();
            tracing::error!(error, "the challenger cannot be compared with the new champion");
        }
        Ok(true)
    }

    fn move_challenger(&mut self, target: Option<String>) -> Result<bool, ModelTableError> {
        self.aliases.challenger = target;
        let before = self.serving.models();
        self.swap(before.champion.clone())?;
        let version = |scorer: Option<Arc<Scorer>>| Some(scorer?.version().clone());
        Ok(version(self.serving.challenger()) != version(before.challenger.clone()))
    }

    /// Swaps to `champion` and the challenger that goes with it; none if that is refused.
    fn swap(&mut self, champion: Option<Arc<Scorer>>) -> Result<(), ModelTableError> {
        let (challenger, result) = match self.challenger_of(champion.as_deref()) {
            Ok(challenger) => (challenger, Ok(())),
            Err(error) => (None, Err(error)),
        };
        self.metrics.challenger(challenger.as_ref().map(|scorer| scorer.version().as_str()));
        self.serving.0.store(Arc::new(ServedModels { champion, challenger }));
        result
    }

    /// The model that the alias points to, unless it is the champion.
    fn challenger_of(
        &self,
        champion: Option<&Scorer>,
    ) -> Result<Option<Arc<Scorer>>, ModelTableError> {
        let Some(version) = &self.aliases.challenger else { return Ok(None) };
        if champion.is_some_and(|champion| champion.version().as_str() == version) {
            return Ok(None);
        }
        let challenger = self.load(CHALLENGER, version)?;
        let other_classes = champion.filter(|champion| champion.classes() != challenger.classes());
        match other_classes {
            None => Ok(Some(challenger)),
            Some(champion) => Err(ModelTableError::OtherClasses {
                version: version.clone(),
                found: challenger.classes().to_vec(),
                expected: champion.classes().to_vec(),
            }),
        }
    }

    /// The scorer of a version: the one that is in use, or one of its bundle.
    fn load(&self, alias: &'static str, version: &str) -> Result<Arc<Scorer>, ModelTableError> {
        if let Some(scorer) = self.serving.models().scorer(version) {
            return Ok(Arc::clone(scorer));
        }
        let version = version.to_owned();
        let Some(bytes) = self.bundle(&version) else {
            return Err(ModelTableError::NoBundle { alias, version });
        };
        let scorer = match Scorer::from_bytes(bytes) {
            Ok(scorer) => scorer,
            Err(source) => return Err(ModelTableError::Bundle { version, source }),
        };
        if scorer.version().as_str() != version {
            let found = scorer.version().clone();
            return Err(ModelTableError::OtherVersion { announced: version, found });
        }
        Ok(Arc::new(scorer))
    }

    /// Shows that `version` serves, and removes the metrics of the version that served longest ago.
    fn count_served(&mut self, version: &str) {
        self.served.retain(|served| served != version);
        self.served.push(version.to_owned());
        let retired = (self.served.len() > BUNDLES_MAX).then(|| self.served.remove(0));
        self.metrics.serving(version, retired.as_deref());
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

    /// The record that moves an alias, or clears it.
    fn alias_record(alias: &str, to: Option<u32>) -> Model {
        let [_, record] = records(to.unwrap_or_default());
        let version = to.map_or_else(String::new, name_of);
        Model { alias: Some(alias.to_owned()), version, ..record }
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
            self.point(CHAMPION, Some(number))
        }

        /// Moves an alias, or clears it.
        fn point(&mut self, alias: &str, to: Option<u32>) -> Result<bool, ModelTableError> {
            self.table.apply(&alias_record(alias, to))
        }

        fn publish(&mut self, number: u32) {
            assert!(!self.table.apply(&records(number)[0]).unwrap());
        }

        #[track_caller]
        fn expect_challenger(&self, number: Option<u32>) {
            let version = number.map(name_of);
            let challenger = self.serving.challenger();
            let found = challenger.as_ref().map(|scorer| scorer.version().as_str());
            assert_eq!(found, version.as_deref());
            assert_eq!(self.metrics.series("foretell_challenger_info"), Vec::from_iter(version));
        }

        fn refused(&self, alias: &str) -> f64 {
            self.metrics.value("foretell_models_refused_total", alias)
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
        for other in [PREDECESSOR, "nightly"] {
            assert!(!fixture.point(other, Some(1)).unwrap(), "another alias has no effect");
        }
        assert!(fixture.serving.scorer().is_none() && fixture.serving.challenger().is_none());
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
            matches!(&error, ModelTableError::NoBundle { version, .. } if *version == name_of(1)),
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

    #[test]
    fn a_challenger_is_announced_swapped_and_cleared_while_the_champion_stays() {
        let mut fixture = Fixture::new();
        fixture.announce(1);
        let champion = fixture.serving.scorer().unwrap();
        for number in [2, 3] {
            fixture.publish(number);
            fixture.expect_challenger((number > 2).then_some(2));
            assert!(fixture.point(CHALLENGER, Some(number)).unwrap());
            fixture.expect_challenger(Some(number));
        }
        let before = fixture.serving.challenger().unwrap();
        assert!(!fixture.point(CHALLENGER, Some(3)).unwrap(), "it is the challenger already");
        assert!(Arc::ptr_eq(&before, &fixture.serving.challenger().unwrap()));
        assert!(fixture.point(CHALLENGER, None).unwrap());
        fixture.expect_challenger(None);
        assert!(!fixture.point(CHALLENGER, None).unwrap(), "it is cleared already");
        assert!(Arc::ptr_eq(&champion, &fixture.serving.scorer().unwrap()));
        fixture.expect_serving(1);
    }

    #[test]
    fn the_models_follow_from_the_last_record_of_each_alias_in_any_order() {
        // The challenger is promoted, and its alias cleared; or promoted only; or it is another one at the same time.
        for (champion, challenger, expected) in
            [(2, None, None), (2, Some(2), None), (1, Some(2), Some(2)), (2, Some(1), Some(1))]
        {
            for is_champion_first in [true, false] {
                let mut fixture = Fixture::new();
                fixture.announce(1);
                fixture.publish(2);
                fixture.point(CHALLENGER, Some(2)).unwrap();
                if is_champion_first {
                    fixture.point(CHAMPION, Some(champion)).unwrap();
                }
                fixture.point(CHALLENGER, challenger).unwrap();
                if !is_champion_first {
                    fixture.point(CHAMPION, Some(champion)).unwrap();
                }
                fixture.expect_serving(champion);
                fixture.expect_challenger(expected);
            }
        }
    }

    #[test]
    fn a_challenger_becomes_the_champion_without_being_loaded_again() {
        let mut fixture = Fixture::new();
        fixture.announce(1);
        fixture.publish(2);
        fixture.point(CHALLENGER, Some(2)).unwrap();
        let challenger = fixture.serving.challenger().unwrap();
        assert!(fixture.point_to(2).unwrap());
        assert!(Arc::ptr_eq(&challenger, &fixture.serving.scorer().unwrap()));
        fixture.expect_challenger(None);
        // A rollback, before the alias of the challenger was cleared.
        assert!(fixture.point_to(1).unwrap());
        fixture.expect_challenger(Some(2));
    }

    #[test]
    fn a_challenger_waits_for_the_first_champion() {
        let mut fixture = Fixture::new();
        fixture.publish(2);
        assert!(fixture.point(CHALLENGER, Some(2)).unwrap());
        assert!(fixture.serving.scorer().is_none());
        fixture.announce(1);
        fixture.expect_challenger(Some(2));
        fixture.expect_serving(1);
    }

    #[test]
    fn a_challenger_that_cannot_be_used_is_none_and_counted() {
        let corrupted = |record: &mut Model| record.bundle = Some(b"corrupted".to_vec());
        let other_content = |record: &mut Model| record.bundle = records(5)[0].bundle.clone();
        let other_classes = |record: &mut Model| {
            let classes = vec!["yes".to_owned(), "no".to_owned()];
            let bundle = ModelBundle { classes, ..small_bundle() };
            *record = records_of(&bundle, "test", WallTime(0)).unwrap()[0].clone();
        };
        let missing = |record: &mut Model| record.bundle = None;
        let changes: [&dyn Fn(&mut Model); 4] =
            [&corrupted, &other_content, &other_classes, &missing];
        for change in changes {
            let mut fixture = Fixture::new();
            fixture.announce(1);
            fixture.publish(2);
            fixture.point(CHALLENGER, Some(2)).unwrap();
            let mut bundle = records(3)[0].clone();
            change(&mut bundle);
            fixture.table.apply(&bundle).unwrap();
            let alias = Model { version: bundle.version, ..alias_record(CHALLENGER, Some(3)) };
            let error = fixture.table.apply(&alias).unwrap_err();
            fixture.expect_challenger(None);
            fixture.expect_serving(1);
            assert_eq!(fixture.table.refused(), None, "{error}: the champion serves");
            assert_eq!((fixture.refused(CHALLENGER), fixture.refused(CHAMPION)), (1.0, 0.0));
        }
    }

    #[test]
    fn a_champion_with_other_classes_ends_the_comparison() {
        let mut fixture = Fixture::new();
        fixture.announce(1);
        fixture.publish(2);
        fixture.point(CHALLENGER, Some(2)).unwrap();
        let classes = vec!["no".to_owned(), "maybe".to_owned()];
        let other = ModelBundle { classes, ..small_bundle() };
        for record in records_of(&other, "test", WallTime(0)).unwrap() {
            fixture.table.apply(&record).unwrap();
        }
        assert_eq!(fixture.serving.scorer().unwrap().version(), &other.version());
        fixture.expect_challenger(None);
        assert_eq!((fixture.refused(CHALLENGER), fixture.refused(CHAMPION)), (1.0, 0.0));
        assert_eq!(fixture.table.refused(), None);
    }

    #[test]
    fn the_champion_is_never_cleared() {
        let mut fixture = Fixture::new();
        fixture.announce(1);
        let error = fixture.point(CHAMPION, None).unwrap_err();
        assert!(matches!(error, ModelTableError::ChampionCleared), "{error}");
        fixture.expect_serving(1);
        assert_eq!((fixture.table.refused(), fixture.refused(CHAMPION)), (None, 1.0));
    }

    #[test]
    fn the_bundles_of_aliases_are_kept() {
        let mut fixture = Fixture::new();
        fixture.announce(1);
        fixture.point(PREDECESSOR, Some(1)).unwrap();
        fixture.announce(2);
        fixture.publish(3);
        fixture.point(CHALLENGER, Some(3)).unwrap();
        for number in 4..40 {
            fixture.publish(number);
        }
        assert_eq!(fixture.table.bundles.len(), BUNDLES_MAX);
        // A rollback, and a challenger that is none for a while.
        fixture.point(CHALLENGER, Some(39)).unwrap();
        assert!(fixture.point_to(1).unwrap());
        fixture.expect_serving(1);
        assert!(!fixture.table.lacks_bundle_of(&alias_record(CHALLENGER, Some(3))));
        fixture.point(CHALLENGER, Some(3)).unwrap();
        fixture.expect_challenger(Some(3));
    }

    #[test]
    fn a_move_to_a_bundle_that_is_not_kept_is_announced() {
        let mut fixture = Fixture::new();
        for number in 1..=9 {
            fixture.announce(number);
        }
        fixture.point(PREDECESSOR, Some(9)).unwrap();
        for alias in [CHAMPION, CHALLENGER] {
            let record = alias_record(alias, Some(1));
            assert!(fixture.table.lacks_bundle_of(&record));
            fixture.publish(1);
            assert!(!fixture.table.lacks_bundle_of(&record));
            assert!(fixture.table.apply(&record).unwrap());
            // Evicted again, but in use.
            (10..30).for_each(|number| fixture.publish(number));
            assert!(!fixture.table.lacks_bundle_of(&record));
            fixture.point_to(9).unwrap();
            (10..30).for_each(|number| fixture.publish(number));
        }
        assert!(!fixture.table.lacks_bundle_of(&alias_record(CHALLENGER, None)));
        assert!(!fixture.table.lacks_bundle_of(&records(77)[0]), "a bundle needs no other");
    }
}

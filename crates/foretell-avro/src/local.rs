//! An in-process registry for the demo and tests. It behaves like Confluent's: by default, a new version must be able to
//! read records of the latest version (BACKWARD).

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use apache_avro::Schema;

use crate::{
    evolution::Level,
    registry::{Compatibility, RegistryError, SchemaRegistry, may_follow},
};

/// A registry in memory. The same calls in the same order give the same ids.
#[derive(Debug, Default)]
pub struct LocalRegistry {
    contents: Mutex<Contents>,
}

#[derive(Debug, Default)]
struct Contents {
    /// All schemas; the id of the first is 1, and so on.
    schemas: Vec<StoredSchema>,
    /// Ids of the versions of each subject, oldest first.
    subjects: BTreeMap<String, Vec<u32>>,
    /// Compatibility levels of subjects that have one of their own.
    levels: BTreeMap<String, Level>,
}

#[derive(Debug)]
struct StoredSchema {
    /// The schema as it was registered.
    text: String,
    /// The schema as JSON without white space, by which schemas are compared.
    normalised: String,
}

impl LocalRegistry {
    /// An empty registry.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Locks the contents. A poisoned lock is harmless, because no code under it can leave the contents half-changed.
    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SchemaRegistry for LocalRegistry {
    fn schema(&self, id: u32) -> Result<String, RegistryError> {
        match self.contents().get(id) {
            Some(stored) => Ok(stored.text.clone()),
            None => Err(RegistryError::NotFound(format!("schema {id}"))),
        }
    }

    fn register(&self, subject: &str, schema: &str) -> Result<u32, RegistryError> {
        let normalised = normalise(schema)?;
        let mut contents = self.contents();
        if let Some(id) = contents.id_under(subject, &normalised) {
            return Ok(id);
        }
        if let Compatibility::Incompatible { reasons } = contents.compatible(subject, schema)? {
            let reasons = reasons.join("; ");
            return Err(RegistryError::Incompatible(format!("subject {subject}: {reasons}")));
        }
        let id = contents.id_for(schema, normalised);
        contents.subjects.entry(subject.to_owned()).or_default().push(id);
        Ok(id)
    }

    fn id_of(&self, subject: &str, schema: &str) -> Result<Option<u32>, RegistryError> {
        let normalised = normalise(schema)?;
        Ok(self.contents().id_under(subject, &normalised))
    }

    fn latest(&self, subject: &str) -> Result<Option<(u32, String)>, RegistryError> {
        let contents = self.contents();
        Ok(contents.latest(subject).map(|(id, stored)| (id, stored.text.clone())))
    }

    fn versions(&self, subject: &str) -> Result<Vec<(u32, String)>, RegistryError> {
        let contents = self.contents();
        let versions = contents.versions(subject);
        Ok(versions.map(|(id, stored)| (id, stored.text.clone())).collect())
    }

    fn compatible(&self, subject: &str, schema: &str) -> Result<Compatibility, RegistryError> {
        normalise(schema)?;
        self.contents().compatible(subject, schema)
    }

    fn set_level(&self, subject: &str, level: Level) -> Result<bool, RegistryError> {
        self.contents().levels.insert(subject.to_owned(), level);
        Ok(true)
    }
}

impl Contents {
    fn get(&self, id: u32) -> Option<&StoredSchema> {
        let index = usize::try_from(id.checked_sub(1)?).ok()?;
        self.schemas.get(index)
    }

    fn id_under(&self, subject: &str, normalised: &str) -> Option<u32> {
        let versions = self.subjects.get(subject)?;
        let same = |id: &u32| self.get(*id).is_some_and(|stored| stored.normalised == normalised);
        versions.iter().copied().find(same)
    }

    /// Oldest first.
    fn versions(&self, subject: &str) -> impl DoubleEndedIterator<Item = (u32, &StoredSchema)> {
        let ids = self.subjects.get(subject).into_iter().flatten();
        ids.filter_map(|id| Some((*id, self.get(*id)?)))
    }

    fn latest(&self, subject: &str) -> Option<(u32, &StoredSchema)> {
        self.versions(subject).next_back()
    }

    fn compatible(&self, subject: &str, schema: &str) -> Result<Compatibility, RegistryError> {
        let level = self.levels.get(subject).copied().unwrap_or_default();
        let texts = self.versions(subject).map(|(_, stored)| stored.text.as_str());
        may_follow(level, &texts.collect::<Vec<_>>(), schema)
    }

    /// The id of a schema, which is the same for all subjects. Adds the schema if it is new.
    fn id_for(&mut self, schema: &str, normalised: String) -> u32 {
        let known = self.schemas.iter().position(|stored| stored.normalised == normalised);
        let index = known.unwrap_or(self.schemas.len());
        if known.is_none() {
            self.schemas.push(StoredSchema { text: schema.to_owned(), normalised });
        }
        u32::try_from(index + 1).expect("fewer schemas than there are ids")
    }
}

/// The schema as JSON without white space. Documentation and defaults count: a change of one makes a new version, as in
/// Confluent's registry.
fn normalise(schema: &str) -> Result<String, RegistryError> {
    let refused = |reason: String| RegistryError::Refused(format!("not an Avro schema: {reason}"));
    Schema::parse_str(schema).map_err(|error| refused(error.to_string()))?;
    let json: serde_json::Value =
        serde_json::from_str(schema).map_err(|error| refused(error.to_string()))?;
    Ok(json.to_string())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

    /// A registry that can be made unavailable, and that counts the requests for schemas by id.
    #[derive(Default)]
    pub(crate) struct FlakyRegistry {
        registry: LocalRegistry,
        requests: AtomicU32,
        is_unavailable: AtomicBool,
    }

    impl FlakyRegistry {
        pub(crate) fn set_available(&self, is_available: bool) {
            self.is_unavailable.store(!is_available, Ordering::SeqCst);
        }

        pub(crate) fn requests(&self) -> u32 {
            self.requests.load(Ordering::SeqCst)
        }

        fn reach(&self) -> Result<&LocalRegistry, RegistryError> {
            match self.is_unavailable.load(Ordering::SeqCst) {
                true => Err(RegistryError::Unavailable("test".to_owned())),
                false => Ok(&self.registry),
            }
        }
    }

    impl SchemaRegistry for FlakyRegistry {
        fn schema(&self, id: u32) -> Result<String, RegistryError> {
            self.requests.fetch_add(1, Ordering::SeqCst);
            self.reach()?.schema(id)
        }
        fn register(&self, subject: &str, schema: &str) -> Result<u32, RegistryError> {
            self.reach()?.register(subject, schema)
        }
        fn id_of(&self, subject: &str, schema: &str) -> Result<Option<u32>, RegistryError> {
            self.reach()?.id_of(subject, schema)
        }
        fn latest(&self, subject: &str) -> Result<Option<(u32, String)>, RegistryError> {
            self.reach()?.latest(subject)
        }
        fn versions(&self, subject: &str) -> Result<Vec<(u32, String)>, RegistryError> {
            self.reach()?.versions(subject)
        }
        fn compatible(&self, subject: &str, schema: &str) -> Result<Compatibility, RegistryError> {
            self.reach()?.compatible(subject, schema)
        }
        fn set_level(&self, subject: &str, level: Level) -> Result<bool, RegistryError> {
            self.reach()?.set_level(subject, level)
        }
    }

    const ONE: &str = r#"{"type":"record","name":"R","fields":[{"name":"a","type":"int"}]}"#;
    const SPACED: &str = r#"{"type": "record", "name": "R",
        "fields": [{"name": "a", "type": "int"}]}"#;
    const TWO: &str = r#"{"type":"record","name":"R","fields":[{"name":"a","type":"long"}]}"#;

    #[test]
    fn the_same_schema_has_one_id() {
        let registry = LocalRegistry::new();
        assert_eq!(registry.register("s", ONE), Ok(1));
        assert_eq!(registry.register("s", SPACED), Ok(1));
        assert_eq!(registry.register("other", ONE), Ok(1));
        assert_eq!(registry.register("s", TWO), Ok(2));
        assert_eq!(registry.register("s", ONE), Ok(1), "an old version keeps its id");
        assert_eq!(registry.latest("s"), Ok(Some((2, TWO.to_owned()))));
        assert_eq!(registry.latest("none"), Ok(None));
        let versions = vec![(1, ONE.to_owned()), (2, TWO.to_owned())];
        assert_eq!(registry.versions("s"), Ok(versions));
        assert_eq!(registry.versions("none"), Ok(Vec::new()));
    }

    #[test]
    fn ids_and_schemas_are_looked_up() {
        let registry = LocalRegistry::new();
        assert_eq!(registry.id_of("s", ONE), Ok(None));
        registry.register("s", ONE).unwrap();
        assert_eq!(registry.id_of("s", SPACED), Ok(Some(1)));
        assert_eq!(registry.id_of("other", ONE), Ok(None));
        assert_eq!(registry.schema(1), Ok(ONE.to_owned()));
        for id in [0, 2, u32::MAX] {
            let missing = registry.schema(id);
            assert!(matches!(missing, Err(RegistryError::NotFound(_))), "{missing:?}");
        }
    }

    #[test]
    fn a_schema_that_cannot_read_the_latest_version_is_refused() {
        let registry = LocalRegistry::new();
        registry.register("s", TWO).unwrap();
        let verdict = registry.compatible("s", ONE).unwrap();
        assert!(matches!(verdict, Compatibility::Incompatible { .. }), "{verdict:?}");
        let refused = registry.register("s", ONE);
        assert!(matches!(refused, Err(RegistryError::Incompatible(_))), "{refused:?}");
        assert_eq!(registry.compatible("s", TWO), Ok(Compatibility::Compatible));
        assert_eq!(registry.compatible("fresh", ONE), Ok(Compatibility::Compatible));
        let refused = registry.register("s", "no schema");
        assert!(matches!(refused, Err(RegistryError::Refused(_))), "{refused:?}");
    }
}

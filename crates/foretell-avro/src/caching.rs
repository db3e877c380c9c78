//! A cache of a registry's schemas on disk, with which known schemas remain readable while the registry is unavailable,
//! also after a restart.
//!
//! The registry is asked first, and the disk is read only if it does not respond. In one registry an id never changes its
//! meaning, but one that was replaced assigns the same ids to other schemas.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use sha2::{Digest as _, Sha256};

use crate::{
    evolution::Level,
    registry::{Compatibility, RegistryError, SchemaRegistry, found},
};
use foretell_streams::time::Clock;

/// Time after a failed request during which no other request is made, so that callers do not wait for each time-out.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Maximum number of files in the folder; each is a few kilobytes. A subject has a few dozen versions in its lifetime.
const FILES_MAX: usize = 2_000;

/// A registry whose schemas are cached on disk.
pub struct CachingRegistry {
    registry: Arc<dyn SchemaRegistry>,
    folder: Option<PathBuf>,
    clock: Arc<dyn Clock>,
    outage: Mutex<Option<Outage>>,
}

/// The time of the last failed request, and its error.
struct Outage {
    since: Duration,
    reason: String,
}

impl CachingRegistry {
    /// Caches the schemas of `registry`, whose address is `url`, in a subfolder of `folder`, which is created. Without a
    /// folder, or if it cannot be created, only failed requests are rate-limited.
    #[must_use]
    pub fn open(
        registry: Arc<dyn SchemaRegistry>,
        url: &str,
        folder: Option<&Path>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        // The ids of another registry mean other schemas.
        let folder = folder.map(|folder| folder.join(&digest(&[url])[..12]));
        let folder = folder.filter(|folder| match fs::create_dir_all(folder) {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(folder = %folder.display(), %error,
                    "cannot create the folder of cached schemas, so none are available while the registry is not: \
                     set [schema_registry] cache_dir");
                false
            }
        });
        Self { registry, folder, clock, outage: Mutex::default() }
    }

    /// Number of cached responses on disk.
    #[must_use]
    pub fn cached_files(&self) -> usize {
        let files = self.folder.as_ref().and_then(|folder| fs::read_dir(folder).ok());
        files.map_or(0, Iterator::count)
    }

    /// Makes a request, unless one has just failed.
    fn ask<T>(
        &self,
        request: impl FnOnce(&dyn SchemaRegistry) -> Result<T, RegistryError>,
    ) -> Result<T, RegistryError> {
        let now = self.clock.elapsed();
        if let Some(outage) = &*self.outage.lock().unwrap_or_else(PoisonError::into_inner)
            && now.saturating_sub(outage.since) < RETRY_INTERVAL
        {
            return Err(RegistryError::Unavailable(outage.reason.clone()));
        }
        let answer = request(self.registry.as_ref());
        let mut outage = None;
        if let Err(RegistryError::Unavailable(reason)) = &answer {
            outage = Some(Outage { since: self.clock.elapsed(), reason: reason.clone() });
        }
        *self.outage.lock().unwrap_or_else(PoisonError::into_inner) = outage;
        answer
    }

    /// The response of the registry, which is stored as `file`; if it does not respond, the content of that file.
    fn ask_or_load(
        &self,
        file: &str,
        request: impl FnOnce(&dyn SchemaRegistry) -> Result<String, RegistryError>,
    ) -> Result<String, RegistryError> {
        let path = self.folder.as_ref().map(|folder| folder.join(file));
        match (self.ask(request), path) {
            (Ok(answer), Some(path)) => {
                self.store(&path, &answer);
                Ok(answer)
            }
            // Earlier responses remain valid also when the credentials are refused.
            (
                Err(error @ (RegistryError::Unavailable(_) | RegistryError::Denied(_))),
                Some(path),
            ) => load(&path).ok_or(error),
            (answer, _) => answer,
        }
    }

    /// Stores a response. A failure is logged only: the response can be used nevertheless.
    fn store(&self, path: &Path, answer: &str) {
        if load(path).as_deref() == Some(answer) {
            return;
        }
        if self.cached_files() >= FILES_MAX {
            tracing::warn!(path = %path.display(), "the folder of cached schemas is full: this one is not stored");
            return;
        }
        let written = write_atomically(path, answer);
        if let Err(error) = written {
            tracing::warn!(path = %path.display(), %error, "cannot write a schema to the folder of cached schemas");
        }
    }
}

impl SchemaRegistry for CachingRegistry {
    fn schema(&self, id: u32) -> Result<String, RegistryError> {
        self.ask_or_load(&format!("id-{id}"), |registry| registry.schema(id))
    }

    fn register(&self, subject: &str, schema: &str) -> Result<u32, RegistryError> {
        self.ask(|registry| registry.register(subject, schema))
    }

    fn id_of(&self, subject: &str, schema: &str) -> Result<Option<u32>, RegistryError> {
        let file = format!("of-{}", digest(&[subject, schema]));
        let id = self.ask_or_load(&file, |registry| match registry.id_of(subject, schema)? {
            Some(id) => Ok(id.to_string()),
            None => Err(RegistryError::NotFound(subject.to_owned())),
        });
        Ok(found(id)?.and_then(|id| id.parse().ok()))
    }

    fn latest(&self, subject: &str) -> Result<Option<(u32, String)>, RegistryError> {
        self.ask(|registry| registry.latest(subject))
    }

    fn versions(&self, subject: &str) -> Result<Vec<(u32, String)>, RegistryError> {
        self.ask(|registry| registry.versions(subject))
    }

    fn compatible(&self, subject: &str, schema: &str) -> Result<Compatibility, RegistryError> {
        self.ask(|registry| registry.compatible(subject, schema))
    }

    fn set_level(&self, subject: &str, level: Level) -> Result<bool, RegistryError> {
        self.ask(|registry| registry.set_level(subject, level))
    }
}

/// Reads a stored response. It begins with a digest of the rest, so that a corrupted file is detected; it is ignored.
fn load(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let (sum, answer) = text.split_once('\n')?;
    (sum == digest(&[answer])).then(|| answer.to_owned())
}

fn write_atomically(path: &Path, answer: &str) -> io::Result<()> {
    let draft = path.with_extension(format!("draft-{}", std::process::id()));
    fs::write(&draft, format!("{}\n{answer}", digest(&[answer])))?;
    fs::rename(&draft, path)
}

/// SHA-256 of the parts, each prefixed with its length, in hexadecimal digits.
fn digest(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
        hash.update(part);
    }
    hex::encode(hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::tests::FlakyRegistry;
    use foretell_streams::time::{ManualClock, WallTime};

    const INT: &str = r#""int""#;
    const LONG: &str = r#""long""#;

    fn open(
        registry: &Arc<FlakyRegistry>,
        folder: Option<&Path>,
        clock: &Arc<ManualClock>,
    ) -> CachingRegistry {
        let registry: Arc<dyn SchemaRegistry> = Arc::<FlakyRegistry>::clone(registry);
        let clock: Arc<dyn Clock> = Arc::<ManualClock>::clone(clock);
        CachingRegistry::open(registry, "http://r", folder, clock)
    }

    fn is_unavailable<T>(answer: &Result<T, RegistryError>) -> bool {
        matches!(answer, Err(RegistryError::Unavailable(_)))
    }

    #[test]
    fn cached_schemas_are_available_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let registry = Arc::new(FlakyRegistry::default());
        let clock = Arc::new(ManualClock::at(WallTime(0)));
        let first = open(&registry, Some(folder.path()), &clock);
        assert_eq!(first.register("s", INT), Ok(1));
        assert_eq!(first.id_of("s", INT), Ok(Some(1)));
        assert_eq!(first.id_of("s", LONG), Ok(None));
        assert_eq!(first.schema(1), Ok(INT.to_owned()));
        registry.set_available(false);
        let again = open(&registry, Some(folder.path()), &clock);
        assert_eq!(again.cached_files(), 2);
        assert_eq!(again.schema(1), Ok(INT.to_owned()));
        assert_eq!(again.id_of("s", INT), Ok(Some(1)));
        assert!(is_unavailable(&again.schema(2)));
        assert!(is_unavailable(&again.id_of("s", LONG)), "a schema may have been added since");
        let elsewhere: Arc<dyn SchemaRegistry> = registry;
        let elsewhere =
            CachingRegistry::open(elsewhere, "http://other", Some(folder.path()), clock);
        assert!(is_unavailable(&elsewhere.schema(1)), "another registry has other ids");
    }

    #[test]
    fn an_unavailable_registry_is_asked_once_per_interval() {
        let registry = Arc::new(FlakyRegistry::default());
        let clock = Arc::new(ManualClock::at(WallTime(0)));
        let caching = open(&registry, None, &clock);
        registry.set_available(false);
        for _ in 0..100 {
            assert!(is_unavailable(&caching.schema(1)));
        }
        assert_eq!(registry.requests(), 1);
        clock.advance(RETRY_INTERVAL);
        registry.set_available(true);
        registry.register("s", INT).unwrap();
        assert_eq!(caching.schema(1), Ok(INT.to_owned()));
    }

    #[test]
    fn the_responses_of_a_replaced_registry_replace_cached_ones() {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(WallTime(0)));
        let old = Arc::new(FlakyRegistry::default());
        old.register("s", INT).unwrap();
        assert_eq!(open(&old, Some(folder.path()), &clock).schema(1), Ok(INT.to_owned()));
        let new = Arc::new(FlakyRegistry::default());
        new.register("s", LONG).unwrap();
        assert_eq!(open(&new, Some(folder.path()), &clock).schema(1), Ok(LONG.to_owned()));
        new.set_available(false);
        assert_eq!(open(&new, Some(folder.path()), &clock).schema(1), Ok(LONG.to_owned()));
    }

    #[test]
    fn a_corrupted_file_is_ignored() {
        let folder = tempfile::tempdir().unwrap();
        let registry = Arc::new(FlakyRegistry::default());
        let clock = Arc::new(ManualClock::at(WallTime(0)));
        registry.register("s", INT).unwrap();
        let caching = open(&registry, Some(folder.path()), &clock);
        caching.schema(1).unwrap();
        let path = caching.folder.as_ref().unwrap().join("id-1");
        let text = fs::read_to_string(&path).unwrap();
        registry.set_available(false);
        for corrupted in ["", &text[..text.len() - 1], &text.replace("int", "itn")] {
            fs::write(&path, corrupted).unwrap();
            assert!(is_unavailable(&caching.schema(1)), "{corrupted}");
        }
    }

    #[test]
    fn without_a_folder_requests_still_work() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let registry = Arc::new(FlakyRegistry::default());
        let clock = Arc::new(ManualClock::at(WallTime(0)));
        let caching = open(&registry, Some(&file.path().join("schemas")), &clock);
        assert_eq!(caching.register("s", INT), Ok(1));
        assert_eq!((caching.schema(1), caching.cached_files()), (Ok(INT.to_owned()), 0));
    }
}

//! A registry that is away now and then: what it has said is kept, on disk too, so that whatever was known goes on,
//! also after a restart.
//!
//! It is asked first, and the disk only where it does not answer: an id never changes its meaning, but a registry that
//! was replaced gives the same ids to other schemas.

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

/// For so long after it has not answered nobody is kept waiting for it again.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Files in the folder; each is a few kilobytes. A subject sees a few dozen schemas in its life.
const FILES_MAX: usize = 2_000;

/// Another registry's answers, kept.
pub struct CachingRegistry {
    registry: Arc<dyn SchemaRegistry>,
    folder: Option<PathBuf>,
    clock: Arc<dyn Clock>,
    away: Mutex<Option<Away>>,
}

/// Since when it does not answer, and with which words.
struct Away {
    since: Duration,
    reason: String,
}

impl CachingRegistry {
    /// Keeps what `registry`, whose address is `url`, says in `folder`, which is made. Without one, or where that can't be
    /// made, it only notes that the registry is away.
    #[must_use]
    pub fn open(
        registry: Arc<dyn SchemaRegistry>,
        url: &str,
        folder: Option<&Path>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        // Another registry's ids mean something else.
        let folder = folder.map(|folder| folder.join(&digest(&[url])[..12]));
        let folder = folder.filter(|folder| match fs::create_dir_all(folder) {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(folder = %folder.display(), %error,
                    "schemas are not kept for when the registry is away: set [schema_registry] cache_dir");
                false
            }
        });
        Self { registry, folder, clock, away: Mutex::default() }
    }

    /// How many answers are on disk.
    #[must_use]
    pub fn kept(&self) -> usize {
        let files = self.folder.as_ref().and_then(|folder| fs::read_dir(folder).ok());
        files.map_or(0, Iterator::count)
    }

    /// Asks, unless it was away a moment ago.
    fn ask<T>(
        &self,
        question: impl FnOnce(&dyn SchemaRegistry) -> Result<T, RegistryError>,
    ) -> Result<T, RegistryError> {
        let now = self.clock.elapsed();
        if let Some(away) = &*self.away.lock().unwrap_or_else(PoisonError::into_inner)
            && now.saturating_sub(away.since) < ASK_AGAIN_AFTER
        {
            return Err(RegistryError::Unavailable(away.reason.clone()));
        }
        let answer = question(self.registry.as_ref());
        let mut away = None;
        if let Err(RegistryError::Unavailable(reason)) = &answer {
            away = Some(Away { since: self.clock.elapsed(), reason: reason.clone() });
        }
        *self.away.lock().unwrap_or_else(PoisonError::into_inner) = away;
        answer
    }

    /// The answer of the registry, which is kept as `file`; or what is kept there, if it does not answer.
    fn ask_or_recall(
        &self,
        file: &str,
        question: impl FnOnce(&dyn SchemaRegistry) -> Result<String, RegistryError>,
    ) -> Result<String, RegistryError> {
        let path = self.folder.as_ref().map(|folder| folder.join(file));
        match (self.ask(question), path) {
            (Ok(answer), Some(path)) => {
                self.keep(&path, &answer);
                Ok(answer)
            }
            // Where it does not let us in any more, what it said before holds as well.
            (
                Err(error @ (RegistryError::Unavailable(_) | RegistryError::Denied(_))),
                Some(path),
            ) => recall(&path).ok_or(error),
            (answer, _) => answer,
        }
    }

    /// That it can't be kept is no reason not to use it.
    fn keep(&self, path: &Path, answer: &str) {
        if recall(path).as_deref() == Some(answer) {
            return;
        }
        if self.kept() >= FILES_MAX {
            tracing::warn!(path = %path.display(), "the folder of schemas is full: this one is not kept");
            return;
        }
        let written = write_whole(path, answer);
        if let Err(error) = written {
            tracing::warn!(path = %path.display(), %error, "cannot keep a schema for when the registry is away");
        }
    }
}

impl SchemaRegistry for CachingRegistry {
    fn schema(&self, id: u32) -> Result<String, RegistryError> {
        self.ask_or_recall(&format!("id-{id}"), |registry| registry.schema(id))
    }

    fn register(&self, subject: &str, schema: &str) -> Result<u32, RegistryError> {
        self.ask(|registry| registry.register(subject, schema))
    }

    fn id_of(&self, subject: &str, schema: &str) -> Result<Option<u32>, RegistryError> {
        let file = format!("of-{}", digest(&[subject, schema]));
        let id = self.ask_or_recall(&file, |registry| match registry.id_of(subject, schema)? {
            Some(id) => Ok(id.to_string()),
            None => Err(RegistryError::NotFound(subject.to_owned())),
        });
        Ok(found(id)?.and_then(|id| id.parse().ok()))
    }

    fn latest(&self, subject: &str) -> Result<Option<(u32, String)>, RegistryError> {
        self.ask(|registry| registry.latest(subject))
    }

    fn compatible(&self, subject: &str, schema: &str) -> Result<Compatibility, RegistryError> {
        self.ask(|registry| registry.compatible(subject, schema))
    }

    fn set_level(&self, subject: &str, level: Level) -> Result<bool, RegistryError> {
        self.ask(|registry| registry.set_level(subject, level))
    }
}

/// A digest of the answer stands before it: a file cut off by a power failure is none.
fn recall(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let (sum, answer) = text.split_once('\n')?;
    (sum == digest(&[answer])).then(|| answer.to_owned())
}

fn write_whole(path: &Path, answer: &str) -> io::Result<()> {
    let draft = path.with_extension(format!("draft-{}", std::process::id()));
    fs::write(&draft, format!("{}\n{answer}", digest(&[answer])))?;
    fs::rename(&draft, path)
}

/// SHA-256 in hexadecimal digits; each part counts with its length.
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
    use crate::local::tests::Unsteady;
    use foretell_streams::time::{ManualClock, WallTime};

    const INT: &str = r#""int""#;
    const LONG: &str = r#""long""#;

    fn open(
        registry: &Arc<Unsteady>,
        folder: Option<&Path>,
        clock: &Arc<ManualClock>,
    ) -> CachingRegistry {
        let registry: Arc<dyn SchemaRegistry> = Arc::<Unsteady>::clone(registry);
        let clock: Arc<dyn Clock> = Arc::<ManualClock>::clone(clock);
        CachingRegistry::open(registry, "http://r", folder, clock)
    }

    fn is_unavailable<T>(answer: &Result<T, RegistryError>) -> bool {
        matches!(answer, Err(RegistryError::Unavailable(_)))
    }

    #[test]
    fn what_was_known_goes_on_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let registry = Arc::new(Unsteady::default());
        let clock = Arc::new(ManualClock::at(WallTime(0)));
        let first = open(&registry, Some(folder.path()), &clock);
        assert_eq!(first.register("s", INT), Ok(1));
        assert_eq!(first.id_of("s", INT), Ok(Some(1)));
        assert_eq!(first.id_of("s", LONG), Ok(None));
        assert_eq!(first.schema(1), Ok(INT.to_owned()));
        registry.go_away();
        let again = open(&registry, Some(folder.path()), &clock);
        assert_eq!(again.kept(), 2);
        assert_eq!(again.schema(1), Ok(INT.to_owned()));
        assert_eq!(again.id_of("s", INT), Ok(Some(1)));
        assert!(is_unavailable(&again.schema(2)));
        assert!(is_unavailable(&again.id_of("s", LONG)), "that it lacked it is no news of today");
        let elsewhere: Arc<dyn SchemaRegistry> = registry;
        let elsewhere =
            CachingRegistry::open(elsewhere, "http://other", Some(folder.path()), clock);
        assert!(is_unavailable(&elsewhere.schema(1)), "another registry's ids");
    }

    #[test]
    fn while_it_is_away_it_is_asked_once_a_second() {
        let registry = Arc::new(Unsteady::default());
        let clock = Arc::new(ManualClock::at(WallTime(0)));
        let cached = open(&registry, None, &clock);
        registry.go_away();
        for _ in 0..100 {
            assert!(is_unavailable(&cached.schema(1)));
        }
        assert_eq!(registry.questions(), 1);
        clock.advance(ASK_AGAIN_AFTER);
        registry.come_back();
        registry.register("s", INT).unwrap();
        assert_eq!(cached.schema(1), Ok(INT.to_owned()));
    }

    #[test]
    fn a_registry_replaced_is_believed() {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(WallTime(0)));
        let old = Arc::new(Unsteady::default());
        old.register("s", INT).unwrap();
        assert_eq!(open(&old, Some(folder.path()), &clock).schema(1), Ok(INT.to_owned()));
        let new = Arc::new(Unsteady::default());
        new.register("s", LONG).unwrap();
        assert_eq!(open(&new, Some(folder.path()), &clock).schema(1), Ok(LONG.to_owned()));
        new.go_away();
        assert_eq!(open(&new, Some(folder.path()), &clock).schema(1), Ok(LONG.to_owned()));
    }

    #[test]
    fn a_damaged_file_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let registry = Arc::new(Unsteady::default());
        let clock = Arc::new(ManualClock::at(WallTime(0)));
        registry.register("s", INT).unwrap();
        let cached = open(&registry, Some(folder.path()), &clock);
        cached.schema(1).unwrap();
        let path = cached.folder.as_ref().unwrap().join("id-1");
        let text = fs::read_to_string(&path).unwrap();
        registry.go_away();
        for damaged in ["", &text[..text.len() - 1], &text.replace("int", "itn")] {
            fs::write(&path, damaged).unwrap();
            assert!(is_unavailable(&cached.schema(1)), "{damaged}");
        }
    }

    #[test]
    fn a_folder_that_can_not_be_made_is_no_obstacle() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let registry = Arc::new(Unsteady::default());
        let clock = Arc::new(ManualClock::at(WallTime(0)));
        let cached = open(&registry, Some(&file.path().join("schemas")), &clock);
        assert_eq!(cached.register("s", INT), Ok(1));
        assert_eq!((cached.schema(1), cached.kept()), (Ok(INT.to_owned()), 0));
    }
}

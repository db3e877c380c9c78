//! The database of a process: opened whole or not at all, called in one way, begun again where it is damaged.
//!
//! ```text
//!   folder  ──damaged──▶  folder/1  ──damaged──▶  folder/2      what is left of those before is removed, at the
//! ```                                                           latest by the next process
//! A new folder each time: threads of the engine that has failed may still write to the old one.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use fjall::{Database, KeyspaceCreateOptions};

use crate::state::{
    StateError,
    disk::guard::{Guarded, guarded},
};

/// For all stores together: blocks read from disk.
const CACHE_BYTES: u64 = 64 << 20;
/// A store, before it is flushed to a file.
const MEMTABLE_BYTES: u64 = 8 << 20;
/// For all stores together: what a start may have to read again.
const JOURNAL_BYTES: u64 = 128 << 20;

/// A file in the folder: the engine has given up in the middle of something, so that all is read once before it is used
/// again. What only the engine's own thread comes across would else end each process again.
pub(super) const SUSPECT: &str = "suspect";

/// An open database, and the one way to call it.
#[derive(Clone)]
pub(super) struct Engine {
    pub(super) database: Guarded<Database>,
    /// Of the instance.
    folder: PathBuf,
    /// The first database is in that folder, each later one in one of its own there.
    number: u64,
}

impl Engine {
    /// The newest database in `folder`, or a new one where that is damaged: the changelogs have it all.
    pub(super) fn open(folder: &Path) -> Result<Self, StateError> {
        let unusable = |error: io::Error| unusable(folder, &error);
        fs::create_dir_all(folder).map_err(unusable)?;
        let number = newest(folder).map_err(unusable)?;
        let engine = match open_whole(&path_of(folder, number)) {
            Ok(database) => Self { database, folder: folder.to_owned(), number },
            Err(Unopened::Locked) => {
                let folder = folder.display();
                return Err(StateError::Disk(format!(
                    "another process has its stores in {folder}: give each instance its own [application] instance or [streams] state_dir"
                )));
            }
            Err(Unopened::Unusable(error)) => return Err(unusable(error)),
            Err(Unopened::Useless(why)) => Self::begin(folder, number + 1, &why)?,
        };
        engine.remove_others();
        Ok(engine)
    }

    /// An empty one, since this one is damaged.
    pub(super) fn begin_new_database(&self, why: &str) -> Result<Self, StateError> {
        let engine = Self::begin(&self.folder, self.number + 1, &format!("damaged ({why})"))?;
        engine.remove_others();
        Ok(engine)
    }

    fn begin(folder: &Path, number: u64, why: &str) -> Result<Self, StateError> {
        tracing::error!(folder = %folder.display(), "the stores are {why}: rebuilding all of them from their changelogs");
        let database = open_whole(&path_of(folder, number));
        let database = database.map_err(|error| match error {
            Unopened::Unusable(error) => unusable(folder, &error),
            Unopened::Locked => unusable(folder, &io::Error::other("another process has them")),
            Unopened::Useless(why) => unusable(folder, &io::Error::other(why)),
        })?;
        Ok(Self { database, folder: folder.to_owned(), number })
    }

    /// What earlier ones have left.
    fn remove_others(&self) {
        if self.number == 0 {
            return;
        }
        let ours = path_of(&self.folder, self.number);
        let entries = fs::read_dir(&self.folder).into_iter().flatten().filter_map(Result::ok);
        for path in entries.map(|entry| entry.path()).filter(|path| *path != ours) {
            let removed = match path.is_dir() {
                true => fs::remove_dir_all(&path),
                false => fs::remove_file(&path),
            };
            if let Err(error) = removed {
                tracing::warn!(path = %path.display(), %error, "what is left of old stores could not be removed");
            }
        }
    }

    /// What `work` makes of the database.
    pub(super) fn call<T>(
        &self,
        work: impl FnOnce() -> Result<T, fjall::Error>,
    ) -> Result<T, StateError> {
        let (error, has_given_up) = match guarded(work) {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(error)) => (failed(&error), matches!(error, fjall::Error::Poisoned)),
            Err(panic) => (StateError::Damaged(panic), true),
        };
        if has_given_up
            && let Err(error) = fs::write(path_of(&self.folder, self.number).join(SUSPECT), [])
        {
            tracing::warn!(%error, "it could not be noted that the stores are to be checked");
        }
        Err(error)
    }
}

fn unusable(folder: &Path, error: &io::Error) -> StateError {
    let folder = folder.display();
    StateError::Disk(format!(
        "cannot keep stores in {folder}: {error}. Set [streams] state_dir to a folder that this user may write to"
    ))
}

fn path_of(folder: &Path, number: u64) -> PathBuf {
    if number == 0 { folder.to_owned() } else { folder.join(number.to_string()) }
}

/// The number of the newest database in `folder`.
fn newest(folder: &Path) -> io::Result<u64> {
    let mut newest = 0;
    for entry in fs::read_dir(folder)? {
        let number = entry?.file_name().to_str().and_then(|name| name.parse().ok());
        newest = newest.max(number.unwrap_or(0));
    }
    Ok(newest)
}

/// Why a database is not open.
enum Unopened {
    Locked,
    Unusable(io::Error),
    /// Damaged, or another release's.
    Useless(String),
}

/// Opens what is in `folder`; if that was given up in the middle of something, it is read once.
fn open_whole(folder: &Path) -> Result<Guarded<Database>, Unopened> {
    let damaged = |why: String| Unopened::Useless(format!("damaged ({why})"));
    let database = match guarded(|| open_database(folder)).map_err(damaged)? {
        Ok(database) => Guarded::new(database),
        Err(fjall::Error::Locked) => return Err(Unopened::Locked),
        Err(fjall::Error::Io(error)) if !is_damage(&error) => {
            return Err(Unopened::Unusable(error));
        }
        Err(error) => {
            let what = if is_other_format(&error) { "in another format" } else { "damaged" };
            return Err(Unopened::Useless(format!("{what} ({error})")));
        }
    };
    let suspect = folder.join(SUSPECT);
    if suspect.exists() {
        tracing::warn!(folder = %folder.display(), "the stores were given up in the middle of something: reading them once");
        match guarded(|| read_all(&database)).map_err(damaged)? {
            Ok(()) => fs::remove_file(&suspect).map_err(Unopened::Unusable)?,
            Err(error) => return Err(damaged(error.to_string())),
        }
    }
    Ok(database)
}

fn open_database(folder: &Path) -> Result<Database, fjall::Error> {
    Database::builder(folder)
        .cache_size(CACHE_BYTES)
        .max_journaling_size(JOURNAL_BYTES)
        .worker_threads(1)
        .open()
}

/// Every block is read, and its checksum with it.
fn read_all(database: &Database) -> Result<(), fjall::Error> {
    for name in database.list_keyspace_names() {
        let tree = database.keyspace(&name, options)?;
        tree.iter().try_for_each(|entry| entry.into_inner().map(drop))?;
    }
    Ok(())
}

pub(super) fn options() -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES)
}

/// Whether another release has written it, with another version of the engine.
fn is_other_format(error: &fjall::Error) -> bool {
    use fjall::{Error::InvalidVersion, Error::Storage, LsmError};
    matches!(error, InvalidVersion(_) | Storage(LsmError::InvalidVersion(_)))
}

/// Whether bytes are missing or wrong, rather than the disk full or out of reach.
fn is_damage(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidData, NotFound, UnexpectedEof};
    matches!(error.kind(), InvalidData | NotFound | UnexpectedEof)
}

fn failed(error: &fjall::Error) -> StateError {
    if let fjall::Error::Io(io) | fjall::Error::Storage(fjall::LsmError::Io(io)) = error
        && !is_damage(io)
    {
        return StateError::Disk(format!(
            "cannot use the stores on disk: {io}. Make room, or set [streams] state_dir to another disk; nothing is lost"
        ));
    }
    if matches!(error, fjall::Error::Poisoned) {
        return StateError::Disk(
            "cannot use the stores on disk: an earlier write failed; the reason is in the log. Nothing is lost"
                .to_owned(),
        );
    }
    StateError::Damaged(error.to_string())
}

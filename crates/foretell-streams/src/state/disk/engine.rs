//! The database of a process: how it is opened, called, and replaced when it is corrupted.
//!
//! ```text
//!   folder  ──corrupted──▶  folder/1  ──corrupted──▶  folder/2
//! ```
//! Each new database has a new folder, because threads of the failed engine may still write to the old one. Old folders are
//! removed, at the latest when the next process starts.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use fjall::{Database, KeyspaceCreateOptions};

use crate::state::{
    StateError,
    disk::guard::{Guarded, guarded},
};

/// Size of the block cache for all stores together.
const CACHE_BYTES: u64 = 64 << 20;
/// Maximum size of a store's memtable before it is flushed to a file.
const MEMTABLE_BYTES: u64 = 8 << 20;
/// Maximum size of the journals of all stores together, which a start may have to replay.
const JOURNAL_BYTES: u64 = 128 << 20;

/// Name of a file which marks that the engine has failed in the middle of an operation. The next start then reads the whole
/// database once. Otherwise a corruption that only the engine's own thread reads would end every process again.
pub(super) const SUSPECT: &str = "suspect";

/// An open database. All calls to it go through [`Engine::call`].
#[derive(Clone)]
pub(super) struct Engine {
    pub(super) database: Guarded<Database>,
    /// The folder of the instance.
    folder: PathBuf,
    /// Number of the database. Database 0 is in the folder itself, later ones are in subfolders.
    number: u64,
}

impl Engine {
    /// Opens the newest database in `folder`, or creates a new one if that is corrupted. The changelogs have its contents.
    pub(super) fn open(folder: &Path) -> Result<Self, StateError> {
        let unusable = |error: io::Error| unusable(folder, &error);
        fs::create_dir_all(folder).map_err(unusable)?;
        let number = newest(folder).map_err(unusable)?;
        let engine = match open_checked(&path_of(folder, number)) {
            Ok(database) => Self { database, folder: folder.to_owned(), number },
            Err(OpenError::Locked) => {
                let folder = folder.display();
                return Err(StateError::Disk(format!(
                    "another process has its stores in {folder}: give each instance its own [application] instance or [streams] state_dir"
                )));
            }
            Err(OpenError::Unusable(error)) => return Err(unusable(error)),
            Err(OpenError::MustRebuild(reason)) => Self::begin(folder, number + 1, &reason)?,
        };
        engine.remove_others();
        Ok(engine)
    }

    /// Creates an empty database in place of this one, which is corrupted.
    pub(super) fn begin_new_database(&self, reason: &str) -> Result<Self, StateError> {
        let reason = format!("corrupted ({reason})");
        let engine = Self::begin(&self.folder, self.number + 1, &reason)?;
        engine.remove_others();
        Ok(engine)
    }

    fn begin(folder: &Path, number: u64, reason: &str) -> Result<Self, StateError> {
        tracing::error!(folder = %folder.display(), "the stores are {reason}: rebuilding all of them from their changelogs");
        let database = open_checked(&path_of(folder, number));
        let database = database.map_err(|error| match error {
            OpenError::Unusable(error) => unusable(folder, &error),
            OpenError::Locked => unusable(folder, &io::Error::other("another process uses them")),
            OpenError::MustRebuild(reason) => unusable(folder, &io::Error::other(reason)),
        })?;
        Ok(Self { database, folder: folder.to_owned(), number })
    }

    /// Removes the files of earlier databases.
    fn remove_others(&self) {
        if self.number == 0 {
            return;
        }
        let present = path_of(&self.folder, self.number);
        let entries = fs::read_dir(&self.folder).into_iter().flatten().filter_map(Result::ok);
        for path in entries.map(|entry| entry.path()).filter(|path| *path != present) {
            let removed = match path.is_dir() {
                true => fs::remove_dir_all(&path),
                false => fs::remove_file(&path),
            };
            if let Err(error) = removed {
                tracing::warn!(path = %path.display(), %error, "cannot remove files of old stores: delete them by hand");
            }
        }
    }

    /// Runs `work` on the database, and turns errors and panics of the engine into [`StateError`].
    pub(super) fn call<T>(
        &self,
        work: impl FnOnce() -> Result<T, fjall::Error>,
    ) -> Result<T, StateError> {
        let (error, has_failed_midway) = match guarded(work) {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => (state_error(&error), matches!(error, fjall::Error::Poisoned)),
            Err(panic) => (StateError::DiskCorrupted(panic), true),
        };
        if has_failed_midway
            && let Err(error) = fs::write(path_of(&self.folder, self.number).join(SUSPECT), [])
        {
            tracing::warn!(%error, "cannot write the file that makes the next start check the stores");
        }
        Err(error)
    }
}

fn unusable(folder: &Path, error: &io::Error) -> StateError {
    let folder = folder.display();
    StateError::Disk(format!(
        "cannot keep stores in {folder}: {error}; set [streams] state_dir to a folder that this user may write to"
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

/// The reason why a database could not be opened, named for the recovery.
enum OpenError {
    Locked,
    Unusable(io::Error),
    /// Corrupted, or written in another format.
    MustRebuild(String),
}

/// Opens the database in `folder`. Reads all of it once if an earlier process failed in the middle of an operation.
fn open_checked(folder: &Path) -> Result<Guarded<Database>, OpenError> {
    let corrupted = |reason: String| OpenError::MustRebuild(format!("corrupted ({reason})"));
    let database = match guarded(|| open_database(folder)).map_err(corrupted)? {
        Ok(database) => Guarded::new(database),
        Err(fjall::Error::Locked) => return Err(OpenError::Locked),
        Err(fjall::Error::Io(error)) if !is_corruption(&error) => {
            return Err(OpenError::Unusable(error));
        }
        Err(error) => {
            let problem = if is_other_format(&error) { "in another format" } else { "corrupted" };
            return Err(OpenError::MustRebuild(format!("{problem} ({error})")));
        }
    };
    let suspect = folder.join(SUSPECT);
    if suspect.exists() {
        tracing::warn!(folder = %folder.display(), "an earlier process failed while it used the stores: checking all of them");
        match guarded(|| read_all(&database)).map_err(corrupted)? {
            Ok(()) => fs::remove_file(&suspect).map_err(OpenError::Unusable)?,
            Err(error) => return Err(corrupted(error.to_string())),
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

/// Reads every block, which checks its checksum.
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

/// Whether a release with another version of the engine has written the database.
fn is_other_format(error: &fjall::Error) -> bool {
    use fjall::{Error::InvalidVersion, Error::Storage, LsmError};
    matches!(error, InvalidVersion(_) | Storage(LsmError::InvalidVersion(_)))
}

/// Whether the error means missing or wrong bytes, rather than a full or unreachable disk.
fn is_corruption(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidData, NotFound, UnexpectedEof};
    matches!(error.kind(), InvalidData | NotFound | UnexpectedEof)
}

fn state_error(error: &fjall::Error) -> StateError {
    if let fjall::Error::Io(io) | fjall::Error::Storage(fjall::LsmError::Io(io)) = error
        && !is_corruption(io)
    {
        return StateError::Disk(format!(
            "cannot use the stores on disk: {io}; free space, or set [streams] state_dir to another disk (no data is lost)"
        ));
    }
    if matches!(error, fjall::Error::Poisoned) {
        return StateError::Disk(
            "cannot use the stores on disk: an earlier write failed; see the log (no data is lost)"
                .to_owned(),
        );
    }
    StateError::DiskCorrupted(error.to_string())
}

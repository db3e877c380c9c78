//! The file of the copy on disk: the lock of its folder, and its replacement as a whole.
//!
//! ```text
//!   folder/lock         locked by one process
//!          copy         format byte, blocks with checksums
//!          copy.new     while it is written; becomes `copy` when it is on the disk
//! ```

use std::{
    fs::{self, File, TryLockError},
    io::{self, BufReader, Read, Write},
    path::{Path, PathBuf},
};

use crate::processors::learning::training_log::blocks::{BlockReader, BlockWriter, GoesOn};

/// The version of everything in the file.
const FORMAT: u8 = 1;

/// Offsets since the last copy, or a tenth of the examples if that is more, after which it is replaced. So a start reads
/// at most so many offsets again, and what is written in all is at most some ten times what is read.
const OFFSETS_MIN: i64 = 4_096;

/// A copy of the training set on the disk of this instance, from which a restart continues to read the log.
pub struct DiskCopy {
    folder: PathBuf,
    /// Locked until it is dropped.
    _lock: File,
    /// See [`OFFSETS_MIN`].
    pub(super) offsets_min: i64,
}

impl DiskCopy {
    /// Opens the copy in `folder`, which is created if it does not exist. None, and a warning, if another process uses it or
    /// it cannot be used: the log has everything.
    #[must_use]
    pub fn open(folder: &Path) -> Option<Self> {
        match Self::open_locked(folder) {
            Ok(copy) => Some(copy),
            Err(error) => {
                let folder = folder.display();
                tracing::warn!(%folder, %error, "no copy of the training set is kept on disk: a restart reads all of the log");
                None
            }
        }
    }

    fn open_locked(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let lock = File::create(folder.join("lock"))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => io::Error::other("another process uses it"),
            TryLockError::Error(error) => error,
        })?;
        let copy = Self { folder: folder.to_owned(), _lock: lock, offsets_min: OFFSETS_MIN };
        // Left by a process that died while it wrote.
        copy.remove_file(&copy.unfinished());
        Ok(copy)
    }

    /// The same copy, replaced after this many offsets or a tenth of the examples.
    #[must_use]
    pub fn replaced_after(self, offsets_min: i64) -> Self {
        Self { offsets_min, ..self }
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.folder.join("copy")
    }

    fn unfinished(&self) -> PathBuf {
        self.folder.join("copy.new")
    }

    /// Its size in bytes; 0 if there is none.
    pub(super) fn bytes(&self) -> u64 {
        fs::metadata(self.path()).map_or(0, |file| file.len())
    }

    /// Opens the content; none if there is none.
    pub(super) fn content<'a>(
        &self,
        goes_on: GoesOn<'a>,
    ) -> io::Result<Option<BlockReader<'a, impl Read + use<>>>> {
        let file = match File::open(self.path()) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut file = BufReader::new(file);
        let mut format = [0];
        file.read_exact(&mut format)?;
        if format != [FORMAT] {
            let problem = format!("format {} is not {FORMAT}", format[0]);
            return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
        }
        Ok(Some(BlockReader::new(file, goes_on)))
    }

    /// Replaces the copy by what `write` writes. If it fails at any point, or the process dies, the copy before is there.
    pub(super) fn replace(
        &self,
        goes_on: GoesOn<'_>,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<()> {
        let unfinished = self.unfinished();
        let replaced = self.write_unfinished(goes_on, write).and_then(|()| {
            fs::rename(&unfinished, self.path())?;
            File::open(&self.folder)?.sync_all()
        });
        if replaced.is_err() {
            self.remove_file(&unfinished);
        }
        replaced
    }

    fn write_unfinished(
        &self,
        goes_on: GoesOn<'_>,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<()> {
        // It may have been deleted.
        fs::create_dir_all(&self.folder)?;
        let mut file = File::create(self.unfinished())?;
        file.write_all(&[FORMAT])?;
        let mut blocks = BlockWriter::new(file, goes_on);
        write(&mut blocks)?;
        blocks.finish()?.sync_all()
    }

    /// Removes the copy.
    pub(super) fn remove(&self) {
        self.remove_file(&self.path());
    }

    fn remove_file(&self, path: &Path) {
        match fs::remove_file(path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "cannot remove a file: delete it by hand");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::processors::learning::training_log::blocks::is_stopped;

    fn replace(copy: &DiskCopy, content: &[u8]) {
        copy.replace(&|| true, |to| to.write_all(content)).unwrap();
    }

    fn content(copy: &DiskCopy) -> Option<Vec<u8>> {
        let mut content = copy.content(&|| true).unwrap()?;
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes).unwrap();
        content.finish().unwrap();
        Some(bytes)
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string();
        let mut names: Vec<String> = entries.map(|entry| name(entry).unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn the_copy_is_replaced_as_a_whole() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("a/b");
        let copy = DiskCopy::open(&folder).unwrap();
        assert_eq!((content(&copy), copy.bytes()), (None, 0));
        replace(&copy, b"first");
        replace(&copy, b"second");
        assert_eq!(content(&copy), Some(b"second".to_vec()));
        assert_eq!(copy.bytes(), 1 + 12 + 6 + 12);
        assert_eq!(names(&folder), ["copy", "lock"]);
        // A failure after a part was written, an end of the process in the middle, and a full disk.
        let failed = copy.replace(&|| true, |to| {
            to.write_all(b"third")?;
            Err(io::Error::other("the disk is full"))
        });
        assert_eq!(failed.unwrap_err().to_string(), "the disk is full");
        let stopped = copy.replace(&|| false, |to| to.write_all(b"third"));
        assert!(is_stopped(&stopped.unwrap_err()));
        assert_eq!(content(&copy), Some(b"second".to_vec()));
        assert_eq!(names(&folder), ["copy", "lock"]);
        copy.remove();
        assert_eq!(content(&copy), None);
        // The folder is gone.
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(content(&copy), None);
        replace(&copy, b"third");
        assert_eq!(content(&copy), Some(b"third".to_vec()));
    }

    #[test]
    fn what_a_process_left_that_died_while_it_wrote_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let copy = DiskCopy::open(folder.path()).unwrap();
        replace(&copy, b"whole");
        drop(copy);
        fs::write(folder.path().join("copy.new"), b"a part").unwrap();
        let copy = DiskCopy::open(folder.path()).unwrap();
        assert_eq!(content(&copy), Some(b"whole".to_vec()));
        assert_eq!(names(folder.path()), ["copy", "lock"]);
    }

    #[test]
    fn one_process_has_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let copy = DiskCopy::open(folder.path());
        assert!(copy.is_some());
        assert!(DiskCopy::open(folder.path()).is_none());
        drop(copy);
        assert!(DiskCopy::open(folder.path()).is_some());
    }

    #[test]
    fn a_folder_that_cannot_be_used_is_no_failure() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, b"").unwrap();
        assert!(DiskCopy::open(&file).is_none());
    }

    #[test]
    fn a_file_in_another_format_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let copy = DiskCopy::open(folder.path()).unwrap();
        for (bytes, words) in [(&[9_u8][..], "format 9 is not 1"), (&[], "fill")] {
            fs::write(copy.path(), bytes).unwrap();
            let error = copy.content(&|| true).map(drop).unwrap_err();
            assert!(error.to_string().contains(words), "{error}");
        }
    }
}

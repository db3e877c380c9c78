//! The copy of the training set on disk: whether it is of this log and these settings, and when it is replaced.
//!
//! ```text
//!   hash of the settings and the release   32 bytes
//!   offset before which all was read       i64
//!   first and last record that were read   offset i64, hash 32 bytes
//!   records that were skipped              u64
//!   the examples                           see `examples.rs`
//! ```
//! A copy is used only if it gives the same examples as the log. So it must have been made by this release with the settings
//! that decide what is read of a record and what is kept, and the log must still begin with the same record and have the same
//! record where the copy ends: a log that was created again, or truncated at either end, has not.

use std::io::{self, Read, Write};

use sha2::{Digest as _, Sha256};

use crate::processors::learning::{
    job::JobFailure,
    trainer::{Phase, Progress},
    training_log::{
        EMPTY_READS_MAX, READ_WAIT, ReadLog, TrainingLog,
        blocks::{GoesOn, is_stopped},
        disk_copy::DiskCopy,
        examples::{Examples, read_bytes, read_number, write_number},
        record_mark::RecordMark,
        retry, stopping,
    },
};
use foretell_streams::{
    record::{InputRecord, Offset},
    runtime::broker::{BrokerError, Isolation, ReadFrom, ReadTo, Reader},
};

/// Share of the examples that are read again after a start, at most: a tenth.
const SHARE: i64 = 10;

/// What a copy was made of.
struct CopyHeader {
    settings: [u8; 32],
    through: i64,
    first: RecordMark,
    last: RecordMark,
    skipped: u64,
}

/// The reason that a copy was not read.
enum CopyError {
    /// It does not give the examples of the log.
    Unusable(String),
    /// It cannot be known yet.
    Failed(JobFailure),
}

impl From<io::Error> for CopyError {
    fn from(error: io::Error) -> Self {
        if is_stopped(&error) {
            Self::Failed(stopping())
        } else if error.kind() == io::ErrorKind::UnexpectedEof {
            Self::Unusable("it is incomplete".to_owned())
        } else {
            Self::Unusable(error.to_string())
        }
    }
}

impl TrainingLog {
    /// What the copy has of the log before an offset; nothing if there is none that can be used. One that cannot be used at
    /// all is removed.
    pub(super) fn restore(
        &self,
        through: i64,
        progress: Progress<'_>,
    ) -> Result<ReadLog, JobFailure> {
        let Some(disk) = &self.disk else { return Ok(ReadLog::default()) };
        let (path, source) = (disk.path(), &self.source);
        match self.read_copy(disk, through, progress) {
            Ok(read) => {
                self.metrics.training_set_on_disk(disk.bytes());
                Ok(read)
            }
            Err(CopyError::Failed(failure)) => Err(failure),
            Err(CopyError::Unusable(reason)) => {
                tracing::warn!(path = %path.display(), %source, reason,
                    "removing the copy of the training set on disk: reading the log from its beginning");
                disk.remove();
                self.metrics.training_set_copy("removed");
                self.metrics.training_set_on_disk(0);
                Ok(ReadLog::default())
            }
        }
    }

    fn read_copy(
        &self,
        disk: &DiskCopy,
        through: i64,
        progress: Progress<'_>,
    ) -> Result<ReadLog, CopyError> {
        let goes_on = || progress(Phase::Reading, 0, 1);
        let Some(mut content) = disk.content(&goes_on)? else { return Ok(ReadLog::default()) };
        let header = CopyHeader::read(&mut content)?;
        if header.settings != self.settings() {
            let reason = "it was made with other settings, another event schema or another release";
            return Err(CopyError::Unusable(reason.to_owned()));
        }
        let (reader, ahead) = self.continue_after(&header, progress)?;
        let copied_through = header.through;
        if copied_through > through {
            // An earlier job again, after an abort: later examples must not be used.
            return Ok(ReadLog { copied_through, ..ReadLog::default() });
        }
        let columns = self.spec.columns();
        let examples = Examples::read(columns, self.policy, self.seed, &mut content)?;
        content.finish()?;
        tracing::info!(examples = examples.len(), through = copied_through, path = %disk.path().display(),
            "read the training set from its copy on disk");
        self.metrics.training_set_copy("read");
        Ok(ReadLog {
            reader: Some(reader),
            ahead,
            examples: Some(examples),
            skipped: header.skipped,
            first: Some(header.first),
            last: Some(header.last),
            through: copied_through,
            copied_through,
            has_unknown_schema: false,
        })
    }

    /// Checks that the log has the records that a copy was made of. Returns a reader that has read the last of them, and the
    /// records after it that it has read, too.
    fn continue_after(
        &self,
        header: &CopyHeader,
        progress: Progress<'_>,
    ) -> Result<(Box<dyn Reader>, Vec<InputRecord>), CopyError> {
        let end = self.broker.end(&self.source, Isolation::ReadUncommitted);
        let end = end.map_err(|error| CopyError::Failed(retry(error)))?;
        let unusable = |reason: String| Err(CopyError::Unusable(reason));
        if end < Offset(header.through) {
            return unusable(format!("the log ends at {end}, before the {}", header.through));
        }
        let (_, records) = self.open(ReadFrom::Beginning, progress)?;
        if records.first().map(RecordMark::of) != Some(header.first) {
            return unusable("the log begins with another record".to_owned());
        }
        let last = header.last.offset;
        let (reader, mut ahead) = self.open(ReadFrom::Offset(last), progress)?;
        if ahead.first().map(RecordMark::of) != Some(header.last) {
            return unusable(format!("the log has another record at {last}"));
        }
        ahead.remove(0);
        if ahead.first().is_some_and(|next| next.offset < Offset(header.through)) {
            return unusable(format!("the log has other records after {last}"));
        }
        Ok((reader, ahead))
    }

    /// Opens a reader, and reads its first records; none if there are none.
    fn open(
        &self,
        from: ReadFrom,
        progress: Progress<'_>,
    ) -> Result<(Box<dyn Reader>, Vec<InputRecord>), CopyError> {
        let failed = |error: BrokerError| {
            if matches!(error, BrokerError::OutOfRange(_)) {
                CopyError::Unusable("the log does not have its last record".to_owned())
            } else {
                CopyError::Failed(retry(error))
            }
        };
        let mut reader = self.broker.read(&self.source, from).map_err(failed)?;
        let mut records = Vec::new();
        for _ in 0..EMPTY_READS_MAX {
            if !progress(Phase::Reading, 0, 1) {
                return Err(CopyError::Failed(stopping()));
            }
            let read_to = reader.read(READ_WAIT, &mut records).map_err(failed)?;
            if !records.is_empty() || read_to == ReadTo::End {
                return Ok((reader, records));
            }
        }
        let reason = format!("{} returns no records", self.source);
        Err(CopyError::Failed(JobFailure::Retry(reason)))
    }

    /// Replaces the copy on disk if enough was read since it was made. If that fails, it is tried again after as many records.
    pub fn save(&mut self, goes_on: GoesOn<'_>) {
        let Some(disk) = &self.disk else { return };
        let ReadLog { first: Some(first), last: Some(last), examples: Some(examples), .. } =
            &self.read
        else {
            return;
        };
        let through = self.read.through;
        let kept = i64::try_from(examples.len()).unwrap_or(i64::MAX);
        let is_due = through - self.read.copied_through >= disk.offsets_min.max(kept / SHARE);
        // An id that the registry did not have may be there when the log is read again.
        if !is_due || self.read.has_unknown_schema {
            return;
        }
        let (settings, skipped) = (self.settings(), self.read.skipped);
        let header = CopyHeader { settings, through, first: *first, last: *last, skipped };
        let replaced = disk.replace(goes_on, |to| {
            header.write(to)?;
            examples.write(to)
        });
        match replaced {
            Ok(()) => {
                let bytes = disk.bytes();
                tracing::info!(examples = kept, through, bytes, "copied the training set to disk");
                self.metrics.training_set_copy("written");
                self.metrics.training_set_on_disk(bytes);
            }
            Err(error) if is_stopped(&error) => return,
            Err(error) => {
                tracing::warn!(path = %disk.path().display(), %error,
                    "cannot copy the training set to disk: a restart reads more of the log");
                self.metrics.training_set_copy("failed");
            }
        }
        self.read.copied_through = through;
    }

    /// A hash of the release and the settings that decide what is read of a record, and what is kept.
    fn settings(&self) -> [u8; 32] {
        let columns = self.spec.columns();
        let read = (&self.source, &self.events, columns, &self.classes);
        let kept = (self.policy, self.seed);
        Sha256::digest(format!("{:?}", (env!("CARGO_PKG_VERSION"), read, kept))).into()
    }
}

impl CopyHeader {
    fn write(&self, to: &mut dyn Write) -> io::Result<()> {
        to.write_all(&self.settings)?;
        to.write_all(&self.through.to_le_bytes())?;
        self.first.write(to)?;
        self.last.write(to)?;
        write_number(to, self.skipped)
    }

    fn read(from: &mut dyn Read) -> io::Result<Self> {
        Ok(Self {
            settings: read_bytes(from)?,
            through: i64::from_le_bytes(read_bytes(from)?),
            first: RecordMark::read(from)?,
            last: RecordMark::read(from)?,
            skipped: read_number(from)?,
        })
    }
}

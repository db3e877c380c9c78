//! State stores: maps of bytes with typed views, each backed by a changelog topic.
//!
//! A processor gets a [`KeyValueHandle`] or a [`WindowHandle`] from the builder, and opens it with its context.
//!
//! ```text
//!   processor ──put──▶ dirty ──commit──▶ StateStore         the last value of each key,
//!                        │  │            (memory or disk)   in one batch with the checkpoint
//!                        │  └──flush───▶ changelog topic    in the commit's transaction
//!                        └──discard────▶ dropped            after an abort
//!
//!   a new task: existing StateStore ── changelog from its checkpoint on ──▶ state of the last commit
//! ```

mod backend;
mod dirty;
mod disk;
mod expiry;
mod incarnation;
mod key_value;
mod memory;
mod name_index;
mod packed;
mod store;
mod time_index;
mod time_order;
mod window;
mod window_key;
mod window_table;

#[cfg(test)]
pub(crate) use backend::shorten;
pub use backend::{Access, Change, Checkpoint, Entry, StateStore, StoreSupplier};
pub use disk::DiskStores;
pub use incarnation::Incarnation;
pub(crate) use incarnation::{MARK_KEY, is_mark};
pub use key_value::{KeyValueHandle, KeyValueStore};
pub use memory::{MemoryStore, MemoryStores};
pub(crate) use store::Store;
pub use window::{WindowHandle, WindowStore, Windowed};
pub use window_key::Position;

use crate::{
    codec::CodecError,
    record::{Topic, TopicPartition},
};

/// The identity of a store within its topology.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StoreId(pub(crate) usize);

/// A failed access to a store; each variant is named for the recovery.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// An entry cannot be decoded. The worker rebuilds the store from its changelog.
    #[error("store entry cannot be read: {0}")]
    Corrupted(CodecError),
    /// An entry was written by a release with another format. The changelog has it in that format too, so a rebuild
    /// would not help: the worker ends.
    #[error(
        "{changelog} holds values in format {found}, and this release reads format {known}: start the release that wrote \
         them, or delete that topic and all contents of its store, and start again"
    )]
    OtherFormat {
        /// The changelog of the store.
        changelog: Topic,
        /// The format of the entry.
        found: u8,
        /// The format that the codec reads.
        known: u8,
    },
    /// The files on disk are corrupted, such as after a wrong checksum or a missing file. The worker rebuilds the store
    /// from its changelog.
    #[error("the store is corrupted on disk: {0}")]
    DiskCorrupted(String),
    /// The codec cannot encode a value. The record goes to the dead-letter topic.
    #[error("value cannot be stored: {0}")]
    Unstorable(CodecError),
    /// Another task of this process has opened the store since. This task is a zombie, and its worker rejoins the group.
    #[error("the store of {0} was taken over")]
    TakenOver(TopicPartition),
    /// The disk cannot be used, for example because it is full. The worker ends, and an operator must act.
    #[error("{0}")]
    Disk(String),
}

impl StateError {
    /// Maps an error of decoding an entry to its recovery.
    fn unreadable(changelog: &Topic) -> impl Fn(CodecError) -> Self {
        move |error| match error {
            CodecError::OtherFormat { found, known } => {
                Self::OtherFormat { changelog: changelog.clone(), found, known }
            }
            CodecError::Unreadable { .. } | CodecError::Unavailable { .. } => {
                Self::Corrupted(error)
            }
        }
    }
}

//! State stores: maps of bytes with typed views, each backed by a changelog topic.
//!
//! A processor gets a [`KeyValueHandle`] or a [`WindowHandle`] from the builder, and opens it with its context.
//!
//! ```text
//!   processor ──put──▶ dirty ──commit──▶ StateStore         one entry a key, whatever was written,
//!                        │  │            (memory or disk)   in one batch with its checkpoint
//!                        │  └──────────▶ changelog topic    in the commit's transaction
//!                        └──discard────▶ gone               after an abort
//!
//!   a new task: StateStore as it was left ── changelog from the checkpoint on ──▶ as last committed
//! ```

mod backend;
mod dirty;
mod disk;
mod incarnation;
mod key_value;
mod memory;
mod packed;
mod store;
mod window;

pub use backend::{Access, Checkpoint, Entry, StateStore, StoreSupplier};
pub use disk::DiskStores;
pub use incarnation::Incarnation;
pub(crate) use incarnation::{MARK_KEY, is_mark};
pub use key_value::{KeyValueHandle, KeyValueStore};
pub use memory::{MemoryStore, MemoryStores};
pub use store::{Change, Store};
pub use window::{WindowHandle, WindowStore, Windowed};
pub(crate) use window::{index_of, is_logged};

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
    /// An entry can't be read: the store must be rebuilt from its changelog.
    #[error("store entry cannot be read: {0}")]
    Corrupted(CodecError),
    /// An entry was written by another release; so it is in the changelog.
    #[error(
        "{changelog} holds values in format {found}, and this release reads format {known}: start the release that wrote \
         them, or delete that topic, with what its store remembers, and start again"
    )]
    OtherFormat {
        /// Where it came from.
        changelog: Topic,
        /// Its format.
        found: u8,
        /// Ours.
        known: u8,
    },
    /// What is on the disk is not what was written (a checksum, a file that is gone): rebuild it.
    #[error("the store is damaged on disk: {0}")]
    Damaged(String),
    /// A value can't be written in the store's format.
    #[error("value cannot be stored: {0}")]
    Unstorable(CodecError),
    /// Another task of this process has opened the store meanwhile: this one is a zombie.
    #[error("the store of {0} was taken over")]
    TakenOver(TopicPartition),
    /// The disk can't be used; somebody must see to it.
    #[error("{0}")]
    Disk(String),
}

impl StateError {
    /// What it means that an entry of a store can't be read.
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

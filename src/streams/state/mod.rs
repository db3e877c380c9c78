//! What a task remembers: ordered maps of bytes with typed views, each backed by a changelog topic.
//!
//! ```text
//!   processor ──put──▶ dirty ──commit──▶ committed          one entry a key, whatever was written
//!                        │  └──────────▶ changelog topic    in the commit's transaction
//!                        └──discard────▶ gone               after an abort
//! ```

mod key_value;
mod store;
mod window;

pub use key_value::{KeyValueHandle, KeyValueStore};
pub use store::{Change, Store};
pub use window::{WindowHandle, WindowStore, Windowed};
pub(crate) use window::{index_of, is_logged};

use crate::streams::codec::CodecError;

/// A store's place in its topology.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StoreId(pub(crate) usize);

/// What can go wrong with a store.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// An entry can't be read: the store must be rebuilt from its changelog, or its format is newer
    /// than this program.
    #[error("store entry cannot be read: {0}")]
    Corrupted(CodecError),
    /// A value can't be written in the store's format.
    #[error("value cannot be stored: {0}")]
    Unstorable(CodecError),
}

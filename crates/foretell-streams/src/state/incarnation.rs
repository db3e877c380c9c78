//! Which log a changelog is. A topic that is deleted and made again has the name and the offsets of the old one, and what a
//! store has of that is no beginning for this. So each changelog partition has a mark: one record under a key that no
//! store has, which compaction keeps, and which a checkpoint names.

use serde::{Deserialize, Serialize};

use crate::record::{InputRecord, Offset};

/// The mark of a changelog partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incarnation {
    /// No other mark of any changelog has it.
    pub id: u128,
    /// The mark is the first record from here on.
    pub offset: Offset,
}

/// No UTF-8, and no layout of a window store: no store has such a key.
pub(crate) const MARK_KEY: &[u8] = b"\xffincarnation";

impl Incarnation {
    /// A mark that `member` writes at a time of day, the first record from `offset` on.
    #[must_use]
    pub(crate) fn new(member: &str, now_ms: i64, offset: Offset) -> Self {
        // FNV-1a: the same member does not mark two logs of one name in one millisecond.
        let hash = member.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let time = u128::from(now_ms.cast_unsigned());
        Self { id: (time << 64) | u128::from(hash), offset }
    }

    /// The mark that `record` is, if it is one.
    pub(crate) fn of(record: &InputRecord) -> Option<Self> {
        if record.key.as_deref() != Some(MARK_KEY) {
            return None;
        }
        let id = u128::from_be_bytes(record.value.as_deref()?.try_into().ok()?);
        Some(Self { id, offset: record.offset })
    }
}

/// Whether a record of a changelog is a mark, also one that can't be read.
pub(crate) fn is_mark(record: &InputRecord) -> bool {
    record.key.as_deref() == Some(MARK_KEY)
}

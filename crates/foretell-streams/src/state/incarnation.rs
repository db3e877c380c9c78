//! The incarnation of a changelog. A topic that is deleted and recreated has the name and the offsets of the old one, but a
//! store of the old one must not be continued from it. So each changelog partition has a mark: one record with a key that
//! no store has, which compaction keeps. A checkpoint names the mark of its changelog.

use serde::{Deserialize, Serialize};

use crate::record::{InputRecord, Offset};

/// The mark of a changelog partition, which identifies its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incarnation {
    /// A unique number.
    pub id: u128,
    /// The mark is the first record at this offset or after it.
    pub offset: Offset,
}

/// The key of marks. No store has it: it is not UTF-8, and does not begin with the layout of a window store.
pub(crate) const MARK_KEY: &[u8] = b"\xffincarnation";

impl Incarnation {
    /// The mark that `member` writes at the time `now_ms`, as the first record at `offset` or after it.
    #[must_use]
    pub(crate) fn new(member: &str, now_ms: i64, offset: Offset) -> Self {
        // FNV-1a. A member does not mark two logs with the same name within one millisecond, so time and member suffice.
        let hash = member.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let time = u128::from(now_ms.cast_unsigned());
        Self { id: (time << 64) | u128::from(hash), offset }
    }

    /// Parses a mark, or returns `None` if `record` is not a valid one.
    pub(crate) fn of(record: &InputRecord) -> Option<Self> {
        if record.key.as_deref() != Some(MARK_KEY) {
            return None;
        }
        let id = u128::from_be_bytes(record.value.as_deref()?.try_into().ok()?);
        Some(Self { id, offset: record.offset })
    }
}

/// Whether a record of a changelog has the key of marks, even if its value is invalid.
pub(crate) fn is_mark(record: &InputRecord) -> bool {
    record.key.as_deref() == Some(MARK_KEY)
}

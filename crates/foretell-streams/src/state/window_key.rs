//! The layout of keys of a window store, in the changelog, on disk and in memory.
//!
//! ```text
//!   1 ‖ length(key) ‖ key ‖ time ‖ sequence  →  value       in the changelog
//!   0 ‖ time ‖ sequence ‖ key                →  empty       the index of engines without their own: not in the changelog
//! ```
//! Times are big-endian with the sign bit inverted, so that the order of bytes is the order of times.

use crate::time::EventTime;

const BY_TIME: u8 = 0;
const BY_KEY: u8 = 1;
/// The size of time and sequence in a key.
const POSITION_BYTES: usize = 8 + 4;

/// The position of an entry among those with its key in a window store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The event time.
    pub time: EventTime,
    /// The number of the entry among those with the same key and time, from 0.
    pub sequence: u32,
}

impl Position {
    /// The first position at `time`.
    #[must_use]
    pub fn first_at(time: EventTime) -> Self {
        Self { time, sequence: 0 }
    }

    /// The last position at `time`.
    #[must_use]
    pub fn last_at(time: EventTime) -> Self {
        Self { time, sequence: u32::MAX }
    }

    fn parse(bytes: &[u8; POSITION_BYTES]) -> Self {
        let [a, b, c, d, e, f, g, h, sequence @ ..] = *bytes;
        let time = u64::from_be_bytes([a, b, c, d, e, f, g, h]) ^ (1 << 63);
        Self { time: EventTime(time.cast_signed()), sequence: u32::from_be_bytes(sequence) }
    }

    fn append_to(self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&(self.time.0.cast_unsigned() ^ (1 << 63)).to_be_bytes());
        bytes.extend_from_slice(&self.sequence.to_be_bytes());
    }
}

/// The key of an entry in a window store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WindowKey<'k> {
    pub(super) name: &'k [u8],
    pub(super) position: Position,
}

impl<'k> WindowKey<'k> {
    /// Parses a key of the changelog; `None` if it has another layout.
    pub(super) fn parse(bytes: &'k [u8]) -> Option<Self> {
        let (key, rest) = Self::parse_prefix(bytes)?;
        rest.is_empty().then_some(key)
    }

    /// Parses a key of the changelog and returns the bytes that follow it.
    pub(super) fn parse_prefix(bytes: &'k [u8]) -> Option<(Self, &'k [u8])> {
        let rest = bytes.strip_prefix(&[BY_KEY])?;
        let (length, rest) = rest.split_first_chunk()?;
        let (name, rest) =
            rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
        let (position, rest) = rest.split_first_chunk()?;
        Some((Self { name, position: Position::parse(position) }, rest))
    }

    /// Parses a key of the index by time; `None` if it has another layout.
    pub(super) fn parse_by_time(bytes: &'k [u8]) -> Option<Self> {
        let (position, name) = bytes.strip_prefix(&[BY_TIME])?.split_first_chunk()?;
        Some(Self { name, position: Position::parse(position) })
    }

    /// Appends the key of the changelog.
    pub(super) fn append_to(self, bytes: &mut Vec<u8>) {
        let length = u32::try_from(self.name.len()).expect("a key is shorter than 4 GiB");
        bytes.reserve(1 + size_of::<u32>() + self.name.len() + POSITION_BYTES);
        bytes.push(BY_KEY);
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(self.name);
        self.position.append_to(bytes);
    }

    /// Appends the key of the index by time.
    pub(super) fn append_by_time_to(self, bytes: &mut Vec<u8>) {
        bytes.push(BY_TIME);
        self.position.append_to(bytes);
        bytes.extend_from_slice(self.name);
    }

    /// The key of the changelog.
    pub(super) fn to_bytes(self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.append_to(&mut bytes);
        bytes
    }

    /// The place of the entry in the order of expiry: by time, sequence and name.
    pub(super) fn expiry_order(&self) -> (Position, &'k [u8]) {
        (self.position, self.name)
    }
}

/// The least key of the index by time, before all of its entries.
pub(super) const BY_TIME_START: &[u8] = &[BY_TIME];
/// The first key after the index by time.
pub(super) const BY_TIME_END: &[u8] = &[BY_TIME + 1];

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &[u8], time: i64, sequence: u32) -> WindowKey<'_> {
        WindowKey { name, position: Position { time: EventTime(time), sequence } }
    }

    fn by_time(key: WindowKey<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        key.append_by_time_to(&mut bytes);
        bytes
    }

    #[test]
    fn the_order_of_bytes_is_the_order_of_times() {
        let times = [i64::MIN, -1_000, -1, 0, 1, 255, 256, i64::MAX];
        for pair in times.windows(2) {
            assert!(by_time(key(b"", pair[0], 0)) < by_time(key(b"", pair[1], 0)), "{pair:?}");
        }
        for time in times {
            let key = key(b"name", time, 7);
            assert_eq!(WindowKey::parse_by_time(&by_time(key)), Some(key));
            assert_eq!(WindowKey::parse(&key.to_bytes()), Some(key));
            assert!((BY_TIME_START..BY_TIME_END).contains(&&*by_time(key)));
        }
    }

    /// Existing changelogs have this layout. Another layout must begin with another byte than [`BY_KEY`].
    #[test]
    fn the_layout_of_keys_does_not_change() {
        let length: &[u8] = &[0, 0, 0, 3];
        let time: &[u8] = &[0x80, 0, 0x01, 0xa3, 0x18, 0x5c, 0x50, 0];
        let key = key(b"ann", 1_800_000_000_000, 2);
        assert_eq!(key.to_bytes(), [&[1], length, b"ann", time, &[0, 0, 0, 2]].concat());
        assert_eq!(by_time(key), [&[0], time, &[0, 0, 0, 2], b"ann"].concat());
    }

    #[test]
    fn keys_with_another_layout_are_not_parsed() {
        let good = key(b"key", 5, 0).to_bytes();
        let longer = [&good[..], &[0]].concat();
        for bad in [&[][..], &[BY_TIME, 1], &[BY_KEY, 0, 0], &good[..good.len() - 1], &longer] {
            assert_eq!(WindowKey::parse(bad), None, "{bad:?}");
        }
        assert_eq!(WindowKey::parse_by_time(&[BY_TIME, 1]), None);
    }
}

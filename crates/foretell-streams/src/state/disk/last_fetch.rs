//! The entries that were fetched last from a window store on disk. A processor often fetches the entries of a key and then
//! adds or replaces one, which would read the same range of the tree again: a search in each of its files, because their
//! filters know whole keys only.

use fjall::UserValue;

use crate::state::Position;

/// The maximum number of entries that are kept.
const ROWS_MAX: usize = 16;

/// The committed entries of one name with positions in one range, until the next write.
#[derive(Default)]
pub(super) struct LastFetch {
    name: Vec<u8>,
    /// The first and the last position. All entries between them are in `rows`.
    range: Option<(Position, Position)>,
    rows: Vec<(Position, UserValue)>,
    is_full: bool,
}

impl LastFetch {
    /// Forgets all entries, before they change.
    pub(super) fn clear(&mut self) {
        self.range = None;
        self.rows.clear();
    }

    /// The entries of `name` with positions in `from..=to`, if all of them are known.
    pub(super) fn get(
        &self,
        name: &[u8],
        from: Position,
        to: Position,
    ) -> Option<&[(Position, UserValue)]> {
        let (first, last) = self.range?;
        if from < first || to > last || self.name != name {
            return None;
        }
        let start = self.rows.partition_point(|(position, _)| *position < from);
        let end = self.rows.partition_point(|(position, _)| *position <= to);
        Some(&self.rows[start..end.max(start)])
    }

    /// Begins with another name.
    pub(super) fn begin(&mut self, name: &[u8]) {
        self.clear();
        self.name.clear();
        self.name.extend_from_slice(name);
        self.is_full = false;
    }

    /// Adds the next entry of a fetch from `from` on. Further ones than the first few are not kept.
    pub(super) fn add(&mut self, from: Position, position: Position, value: &UserValue) {
        self.is_full |= self.rows.len() == ROWS_MAX;
        if !self.is_full {
            self.rows.push((position, value.clone()));
            self.range = Some((from, position));
        }
    }

    /// Notes that a fetch has found all entries with positions in `from..=to`.
    pub(super) fn finish(&mut self, from: Position, to: Position) {
        if !self.is_full {
            self.range = Some((from, to));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::EventTime;

    fn at(time: i64) -> Position {
        Position::first_at(EventTime(time))
    }

    fn fetched(times: impl Iterator<Item = i64>) -> LastFetch {
        let mut last = LastFetch::default();
        last.begin(b"ann");
        for time in times {
            last.add(at(0), at(time), &UserValue::from([1]));
        }
        last
    }

    fn times(last: &LastFetch, name: &[u8], from: i64, to: i64) -> Option<Vec<i64>> {
        let rows = last.get(name, at(from), at(to))?;
        Some(rows.iter().map(|(position, _)| position.time.0).collect())
    }

    #[test]
    fn a_part_of_the_fetched_range_is_known() {
        let mut last = fetched([3, 5].into_iter());
        assert_eq!(times(&last, b"ann", 0, 5), Some(vec![3, 5]), "the fetch may have ended there");
        assert_eq!(times(&last, b"ann", 0, 6), None);
        last.finish(at(0), at(9));
        assert_eq!(times(&last, b"ann", 0, 9), Some(vec![3, 5]));
        assert_eq!(times(&last, b"ann", 4, 4), Some(vec![]));
        assert_eq!(times(&last, b"ann", 5, 2), Some(vec![]), "an empty range");
        assert_eq!(times(&last, b"ann", -1, 9), None);
        assert_eq!(times(&last, b"bob", 3, 3), None);
        last.clear();
        assert_eq!(times(&last, b"ann", 3, 3), None);
    }

    #[test]
    fn only_the_first_entries_of_a_long_range_are_known() {
        let mut last = fetched(1..100);
        last.finish(at(0), at(200));
        assert_eq!(times(&last, b"ann", 0, 16), Some((1..=16).collect()));
        assert_eq!(times(&last, b"ann", 0, 17), None);
    }
}

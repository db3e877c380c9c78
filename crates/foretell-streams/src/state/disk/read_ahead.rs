//! The next rows of the index by time of a window store on disk. Entries expire one by one, and each search of the tree for
//! the next one costs more than reading a hundred rows that follow it.

use fjall::UserKey;

/// The number of rows that are read at once.
pub(super) const ROWS: usize = 128;

/// All rows of the index from `from` to the last of `rows`, including later changes; or to the end of the index.
#[derive(Default)]
pub(super) struct ReadAhead {
    from: Vec<u8>,
    /// The keys, in order; at most twice [`ROWS`].
    rows: Vec<UserKey>,
    is_end: bool,
}

impl ReadAhead {
    /// Forgets all rows.
    pub(super) fn clear(&mut self) {
        self.rows.clear();
        self.is_end = false;
    }

    /// Begins again with the rows from `from` on.
    pub(super) fn begin(&mut self, from: Vec<u8>) {
        self.clear();
        self.from = from;
    }

    /// Adds the next row; returns whether there is room for more.
    pub(super) fn add(&mut self, key: &UserKey) -> bool {
        self.rows.push(key.clone());
        self.rows.len() < ROWS
    }

    /// Notes that there are no rows after the last.
    pub(super) fn finish(&mut self) {
        self.is_end = true;
    }

    /// The known rows from `from` on; `None` if the first of them is not known.
    pub(super) fn rows_from(&self, from: &[u8]) -> Option<&[UserKey]> {
        let start = self.rows.partition_point(|key| &key[..] < from);
        self.has(from).then(|| &self.rows[start..])
    }

    /// The least key after the known rows, if there may be rows from it on.
    pub(super) fn next_from(&self) -> Option<Vec<u8>> {
        if self.is_end {
            return None;
        }
        // The successor of a key is the key with a zero at its end.
        self.rows.last().map(|last| [&last[..], &[0]].concat())
    }

    /// Sets or removes a row, as a write of the tree does.
    pub(super) fn change(&mut self, key: &[u8], is_set: bool) {
        if !self.has(key) {
            return;
        }
        match (self.rows.binary_search_by(|row| row[..].cmp(key)), is_set) {
            (Ok(index), false) => drop(self.rows.remove(index)),
            (Err(index), true) => {
                self.rows.insert(index, UserKey::from(key));
                if self.rows.len() > 2 * ROWS {
                    self.rows.truncate(ROWS);
                    self.is_end = false;
                }
            }
            (Ok(_), true) | (Err(_), false) => {}
        }
    }

    /// Whether it is known if there is a row with this key.
    fn has(&self, key: &[u8]) -> bool {
        let is_before_end = self.is_end || self.rows.last().is_some_and(|last| key <= &last[..]);
        key >= &self.from[..] && is_before_end
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn keys(rows: &[UserKey]) -> Vec<u8> {
        rows.iter().map(|row| row[0]).collect()
    }

    fn read(from: u8, rows: &[u8], is_end: bool) -> ReadAhead {
        let mut ahead = ReadAhead::default();
        ahead.begin(vec![from]);
        rows.iter().for_each(|row| assert!(ahead.add(&UserKey::from([*row]))));
        if is_end {
            ahead.finish();
        }
        ahead
    }

    #[test]
    fn rows_are_known_up_to_the_last_one_that_was_read() {
        let ahead = read(2, &[3, 5], false);
        assert_eq!(ahead.rows_from(&[2]).map(keys), Some(vec![3, 5]));
        assert_eq!(ahead.rows_from(&[4]).map(keys), Some(vec![5]));
        assert_eq!((ahead.rows_from(&[1]), ahead.rows_from(&[6])), (None, None));
        assert_eq!(ahead.next_from(), Some(vec![5, 0]));
        let ahead = read(2, &[3, 5], true);
        assert_eq!(ahead.rows_from(&[6]).map(keys), Some(vec![]));
        assert_eq!(ahead.next_from(), None);
        assert_eq!(ReadAhead::default().rows_from(&[1]), None, "nothing was read");
    }

    #[test]
    fn the_number_of_rows_is_bounded() {
        let mut ahead = read(0, &[], true);
        let key = |number: usize| u16::try_from(number).unwrap().to_be_bytes();
        (0..=2 * ROWS).for_each(|number| ahead.change(&key(number), true));
        assert_eq!(ahead.rows_from(&key(0)).unwrap().len(), ROWS);
        assert_eq!(ahead.rows_from(&key(ROWS)), None, "they must be read again");
    }

    proptest! {
        /// A known row is one that a map has, whatever changes after the rows were read.
        #[test]
        fn changes_are_known(
            before in proptest::collection::btree_set(0..40_u8, 0..20),
            (from, count, is_end) in (0..40_u8, 0..10_usize, any::<bool>()),
            changes in proptest::collection::vec((0..40_u8, any::<bool>()), 0..30),
        ) {
            let rows: Vec<u8> = before.range(from..).copied().collect();
            let is_end = is_end || count >= rows.len();
            let mut ahead = read(from, if is_end { &rows } else { &rows[..count] }, is_end);
            let mut present = before;
            for (row, is_set) in changes {
                ahead.change(&[row], is_set);
                if is_set { present.insert(row); } else { present.remove(&row); }
            }
            for start in 0..40 {
                let Some(known) = ahead.rows_from(&[start]).map(keys) else { continue };
                let all: Vec<u8> = present.range(start..).copied().collect();
                prop_assert!(all.starts_with(&known));
                prop_assert!(known.len() == all.len() || ahead.next_from().is_some());
            }
        }
    }
}

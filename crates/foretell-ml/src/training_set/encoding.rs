//! The encoding of a training set: its columns as they are in memory, in little-endian numbers, one after the other.
//!
//! ```text
//!   TrainingSet   rows u64, columns u32, each column, labels u32 × rows
//!     numeric     0, then by chunk of 16,384 rows: 4 or 8, and the numbers with as many bytes
//!     categorical 1, texts u64, end of each text u64, bytes of all texts, codes u32 × rows
//! ```
//! Elements are written and read in pieces, so that no second copy of a set is in memory. A reader checks everything that a
//! later use relies on, and allocates no more than it reads. Damage to numbers is not detected: that is up to what stores the
//! bytes.

use std::io::{self, Read, Write};

use crate::{
    Column, ColumnKind,
    training_set::{
        EXAMPLES_MAX, TrainingSet,
        column::{Chunked, ColumnValues},
    },
};

/// Elements that are converted at once: at most 64 KiB.
const PIECE: usize = 1 << 12;

impl TrainingSet {
    /// Writes the set. With the same columns, [`Self::read`] makes an equal one.
    ///
    /// # Errors
    /// Those of `to`.
    pub fn write(&self, to: &mut dyn Write) -> io::Result<()> {
        write_count(to, self.length)?;
        write_elements(to, &[number_of(self.columns.len())], u32::to_le_bytes)?;
        for column in &self.columns {
            column.write(to)?;
        }
        self.labels.write(to, u32::to_le_bytes)
    }

    /// Reads a set with these columns that [`Self::write`] has written.
    ///
    /// # Errors
    /// Those of `from`; [`io::ErrorKind::InvalidData`] or [`io::ErrorKind::UnexpectedEof`] if the bytes are not such a set.
    pub fn read(columns: &[Column], from: &mut dyn Read) -> io::Result<Self> {
        let length = read_count(from)?;
        if length > EXAMPLES_MAX {
            return Err(invalid("too many rows"));
        }
        let [count] = read_array(from, u32::from_le_bytes)?;
        if count != number_of(columns.len()) {
            return Err(invalid("another number of columns"));
        }
        let read = |column: &Column| ColumnValues::read(column.kind, length, from);
        let columns = columns.iter().map(read).collect::<io::Result<_>>()?;
        let labels = Chunked::read(from, length, u32::from_le_bytes)?;
        Ok(Self { columns, labels, length })
    }
}

/// The byte of a kind of column.
pub(super) fn kind_byte(kind: ColumnKind) -> u8 {
    match kind {
        ColumnKind::Numeric => 0,
        ColumnKind::Categorical => 1,
    }
}

pub(super) fn invalid(problem: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

fn number_of(columns: usize) -> u32 {
    u32::try_from(columns).expect("a pipeline has fewer columns")
}

pub(super) fn write_count(to: &mut dyn Write, count: usize) -> io::Result<()> {
    to.write_all(&(count as u64).to_le_bytes())
}

pub(super) fn read_count(from: &mut dyn Read) -> io::Result<usize> {
    let [count] = read_array(from, u64::from_le_bytes)?;
    usize::try_from(count).map_err(|_| invalid("a count beyond memory"))
}

/// Writes elements with `N` bytes each.
pub(super) fn write_elements<T: Copy, const N: usize>(
    to: &mut dyn Write,
    elements: &[T],
    bytes_of: impl Fn(T) -> [u8; N],
) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(N * PIECE.min(elements.len()));
    for piece in elements.chunks(PIECE) {
        bytes.clear();
        bytes.extend(piece.iter().flat_map(|element| bytes_of(*element)));
        to.write_all(&bytes)?;
    }
    Ok(())
}

/// Appends `count` elements with `N` bytes each to `elements`.
pub(super) fn read_elements<T, const N: usize>(
    from: &mut dyn Read,
    count: usize,
    of_bytes: impl Fn([u8; N]) -> T,
    elements: &mut Vec<T>,
) -> io::Result<()> {
    let mut bytes = vec![0; N * PIECE.min(count)];
    let mut left = count;
    while left > 0 {
        let now = left.min(PIECE);
        let piece = &mut bytes[..N * now];
        from.read_exact(piece)?;
        let (whole, _) = piece.as_chunks();
        elements.extend(whole.iter().map(|bytes| of_bytes(*bytes)));
        left -= now;
    }
    Ok(())
}

/// Reads `M` elements with `N` bytes each.
pub(super) fn read_array<T, const N: usize, const M: usize>(
    from: &mut dyn Read,
    of_bytes: impl Fn([u8; N]) -> T,
) -> io::Result<[T; M]> {
    let mut bytes = [[0; N]; M];
    from.read_exact(bytes.as_flattened_mut())?;
    Ok(bytes.map(of_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Label, Value, ValueRef};

    fn columns() -> [Column; 3] {
        [
            Column::new("x", ColumnKind::Numeric),
            Column::new("kind", ColumnKind::Categorical),
            Column::new("y", ColumnKind::Numeric),
        ]
    }

    fn written(set: &TrainingSet) -> Vec<u8> {
        let mut bytes = Vec::new();
        set.write(&mut bytes).unwrap();
        bytes
    }

    fn read(bytes: &[u8]) -> io::Result<TrainingSet> {
        let mut rest = bytes;
        let set = TrainingSet::read(&columns(), &mut rest)?;
        assert!(rest.is_empty(), "{} bytes are left", rest.len());
        Ok(set)
    }

    fn set(rows: u32) -> TrainingSet {
        let mut set = TrainingSet::new(&columns());
        for row in 0..rows {
            let kind = format!("kind {} ü", row % 5);
            let kind = if row % 7 == 0 { ValueRef::Missing } else { ValueRef::Text(&kind) };
            let y = if row % 3 == 0 { Value::Missing } else { Value::Number(f64::from(row) * 0.1) };
            set.push([ValueRef::Number(row.into()), kind, (&y).into()], Label(row % 2));
        }
        set
    }

    #[test]
    fn a_set_has_these_bytes() {
        let mut set = TrainingSet::new(&columns());
        set.push([ValueRef::Number(1.5), ValueRef::Text("é"), ValueRef::Number(0.1)], Label(1));
        set.push([ValueRef::Missing; 3], Label(0));
        let expected = [
            "0200000000000000 03000000",
            // Two 32-bit numbers.
            "00 04 0000c03f 0000c07f",
            // One text, its end, its bytes, and the codes.
            "01 0100000000000000 0200000000000000 c3a9 00000000 ffffffff",
            // Two 64-bit numbers.
            "00 08 9a9999999999b93f 000000000000f87f",
            // Labels.
            "01000000 00000000",
        ];
        assert_eq!(hex::encode(written(&set)), expected.join("").replace(' ', ""));
    }

    #[test]
    fn what_is_read_is_what_was_written() {
        for rows in [0, 1, 5, 16_383, 16_384, 16_385, 40_000] {
            let set = set(rows);
            let bytes = written(&set);
            let again = read(&bytes).unwrap();
            assert_eq!(written(&again), bytes, "{rows} rows");
            for row in 0..rows {
                assert!(again.values(row).eq(set.values(row)), "row {row}");
                assert_eq!(again.label(row), set.label(row));
            }
            assert!(again.bytes() <= set.bytes(), "it takes no more memory");
        }
    }

    #[test]
    fn a_set_that_was_read_grows_like_one_that_was_not() {
        let mut set = set(100);
        let mut again = read(&written(&set)).unwrap();
        for one in [&mut set, &mut again] {
            for row in 0..20_000_u32 {
                let kind = format!("kind {}", row % 9);
                let values = [ValueRef::Number(0.1), ValueRef::Text(&kind), ValueRef::Missing];
                one.push(values, Label(1));
            }
            one.retain(&(50..20_000).collect::<Vec<_>>());
        }
        assert_eq!(written(&again), written(&set));
    }

    #[test]
    fn bytes_that_are_no_set_are_an_error() {
        let bytes = written(&set(30));
        for end in 0..bytes.len() {
            let kind = read(&bytes[..end]).unwrap_err().kind();
            assert_eq!(kind, io::ErrorKind::UnexpectedEof, "the first {end} bytes");
        }
        // Whatever is changed, nothing panics, and what can be read can be used.
        for position in 0..bytes.len() {
            for flipped in [0x01, 0x80, 0xff] {
                let mut changed = bytes.clone();
                changed[position] ^= flipped;
                let mut rest = changed.as_slice();
                if let Ok(set) = TrainingSet::read(&columns(), &mut rest) {
                    let rows = 0..u32::try_from(set.len()).unwrap();
                    assert!(rows.map(|row| set.values(row).count()).all(|values| values == 3));
                }
            }
        }
        let other = [Column::new("x", ColumnKind::Numeric), Column::new("z", ColumnKind::Numeric)];
        for columns in [&other[..], &[other[0].clone(), other[1].clone(), other[0].clone()][..]] {
            let error = TrainingSet::read(columns, &mut bytes.as_slice()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
    }
}

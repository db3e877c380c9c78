//! Avro's binary encoding of single values, decoded from untrusted bytes
//! (<https://avro.apache.org/docs/1.12.0/specification/#binary-encoding>).

/// Maximum nesting depth of values: far more than schemas have, and far from overflowing the stack.
pub(crate) const DEPTH_MAX: usize = 64;

/// Maximum number of items in a record that take no bytes (nulls). Without a bound, a block count of ten bytes could cause
/// an endless loop.
const EMPTY_ITEMS_MAX: usize = 65_536;

/// Maximum size of a rewritten record: the reader schema's defaults can turn an item of one byte into one of a kilobyte.
pub(crate) const REWRITTEN_BYTES_MAX: usize = 64 << 20;

/// Reasons why bytes are not a record of their schema.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The datum is too short.
    #[error("it ends in the middle of a value")]
    Truncated,
    /// The datum is too long.
    #[error("{0} bytes too many")]
    Trailing(usize),
    /// An int of more than 32 bits, or a long of more than 64.
    #[error("a number that is too large for its type")]
    Overflow,
    /// A negative length.
    #[error("a length of {0}")]
    Length(i64),
    /// A boolean that is neither 0 nor 1.
    #[error("{0} is neither true nor false")]
    Boolean(u8),
    /// A string that is not UTF-8.
    #[error("text that is not UTF-8")]
    Text,
    /// An index of a branch or a symbol that does not exist.
    #[error("choice {index} of {count}")]
    Choice {
        /// The index.
        index: i64,
        /// The number of branches or symbols.
        count: usize,
    },
    /// Values are nested too deeply.
    #[error("nested deeper than {DEPTH_MAX} levels")]
    Depth,
    /// Too many items without bytes.
    #[error("more than {EMPTY_ITEMS_MAX} empty items")]
    EmptyItems,
    /// The rewritten record is too large.
    #[error("more than {REWRITTEN_BYTES_MAX} bytes when it is read with the reader schema")]
    TooLarge,
    /// A well-formed value that the reader schema cannot represent.
    #[error("{0}")]
    Unresolvable(String),
}

/// A position in a datum that is being decoded.
#[derive(Debug)]
pub struct Cursor<'a> {
    rest: &'a [u8],
    empty_items: usize,
}

impl<'a> Cursor<'a> {
    /// The start of a datum.
    #[inline]
    #[must_use]
    pub fn new(datum: &'a [u8]) -> Self {
        Self { rest: datum, empty_items: 0 }
    }

    /// The bytes not yet read.
    #[inline]
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Checks that no bytes remain.
    ///
    /// # Errors
    /// [`Malformed::Trailing`] if there are some.
    pub fn finish(&self) -> Result<(), Malformed> {
        match self.rest.len() {
            0 => Ok(()),
            left => Err(Malformed::Trailing(left)),
        }
    }

    /// Reads so many bytes.
    ///
    /// # Errors
    /// [`Malformed::Truncated`] if there are fewer.
    #[inline]
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(Malformed::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(Malformed::Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }

    /// Reads a boolean.
    ///
    /// # Errors
    /// [`Malformed`] if the next byte is neither 0 nor 1.
    #[inline]
    pub fn boolean(&mut self) -> Result<bool, Malformed> {
        match self.array::<1>()? {
            [0] => Ok(false),
            [1] => Ok(true),
            [other] => Err(Malformed::Boolean(other)),
        }
    }

    /// Reads an int or a long.
    ///
    /// # Errors
    /// [`Malformed`] if it has more than 64 bits or the datum ends in it.
    #[inline]
    pub fn long(&mut self) -> Result<i64, Malformed> {
        match self.rest.split_first() {
            // Most are small: lengths, branches and counts.
            Some((byte, rest)) if *byte < 0x80 => {
                self.rest = rest;
                Ok(i64::from(byte >> 1) ^ -i64::from(byte & 1))
            }
            Some(_) | None => self.long_of_several_bytes(),
        }
    }

    fn long_of_several_bytes(&mut self) -> Result<i64, Malformed> {
        let mut value = 0_u64;
        for (index, byte) in self.rest.iter().enumerate() {
            let bits = u64::from(byte & 0x7f);
            // The tenth byte has room for the 64th bit only.
            if index == 9 && *byte > 1 {
                return Err(Malformed::Overflow);
            }
            value |= bits << (7 * index);
            if byte & 0x80 == 0 {
                self.rest = &self.rest[index + 1..];
                return Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed());
            }
        }
        Err(Malformed::Truncated)
    }

    pub(crate) fn int(&mut self) -> Result<i32, Malformed> {
        i32::try_from(self.long()?).map_err(|_| Malformed::Overflow)
    }

    pub(crate) fn float(&mut self) -> Result<f32, Malformed> {
        Ok(f32::from_le_bytes(self.array()?))
    }

    /// Reads a double.
    ///
    /// # Errors
    /// [`Malformed`] if the datum ends in it.
    #[inline]
    pub fn double(&mut self) -> Result<f64, Malformed> {
        Ok(f64::from_le_bytes(self.array()?))
    }

    /// Reads bytes or a string.
    ///
    /// # Errors
    /// [`Malformed`] if the datum ends in it.
    #[inline]
    pub fn blob(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.long()?;
        self.take(usize::try_from(length).map_err(|_| Malformed::Length(length))?)
    }

    /// Reads a string.
    ///
    /// # Errors
    /// [`Malformed`] if the datum ends in it or it is not UTF-8.
    #[inline]
    pub fn text(&mut self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.blob()?).map_err(|_| Malformed::Text)
    }

    /// Reads the index of a union's branch or of an enum's symbol, one of `count`.
    ///
    /// # Errors
    /// [`Malformed`] if it is not below `count`.
    #[inline]
    pub fn choice(&mut self, count: usize) -> Result<usize, Malformed> {
        let index = self.long()?;
        match usize::try_from(index) {
            Ok(index) if index < count => Ok(index),
            _ => Err(Malformed::Choice { index, count }),
        }
    }

    /// Reads the blocks of an array or a map; calls `item` to read each item, and returns their number.
    ///
    /// # Errors
    /// [`Malformed`] if the datum ends in it or it has too many empty items, or the error of `item`.
    pub fn items(
        &mut self,
        mut item: impl FnMut(&mut Self) -> Result<(), Malformed>,
    ) -> Result<u64, Malformed> {
        let mut items = 0_u64;
        loop {
            let count = self.long()?;
            if count == 0 {
                return Ok(items);
            }
            if count < 0 {
                // The block's size in bytes, for readers that skip it.
                self.long()?;
            }
            for _ in 0..count.unsigned_abs() {
                let left = self.rest.len();
                item(self)?;
                items += 1;
                if self.rest.len() == left {
                    self.empty_items += 1;
                }
                if self.empty_items > EMPTY_ITEMS_MAX {
                    return Err(Malformed::EmptyItems);
                }
            }
        }
    }
}

/// Appends an int or a long: zigzag encoding, then seven bits per byte, the lowest first.
pub fn write_long(value: i64, out: &mut Vec<u8>) {
    let mut zigzag = ((value << 1) ^ (value >> 63)).cast_unsigned();
    while zigzag > 0x7f {
        out.push((zigzag & 0x7f) as u8 | 0x80);
        zigzag >>= 7;
    }
    out.push(zigzag as u8);
}

/// Appends the index of a branch or a symbol, or a length.
pub fn write_count(count: usize, out: &mut Vec<u8>) {
    write_long(i64::try_from(count).expect("no slice is longer than isize::MAX"), out);
}

/// Appends bytes or a string.
pub fn write_blob(blob: &[u8], out: &mut Vec<u8>) {
    write_count(blob.len(), out);
    out.extend_from_slice(blob);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn longs_are_encoded_as_in_the_specification() {
        let cases: [(i64, &[u8]); 7] = [
            (0, &[0]),
            (-1, &[1]),
            (1, &[2]),
            (-64, &[0x7f]),
            (64, &[0x80, 1]),
            (i64::MAX, &[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]),
            (i64::MIN, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]),
        ];
        for (value, bytes) in cases {
            let mut written = Vec::new();
            write_long(value, &mut written);
            assert_eq!(written, bytes);
            assert_eq!(Cursor::new(bytes).long(), Ok(value));
        }
    }

    #[test]
    fn malformed_values_are_refused() {
        assert_eq!(Cursor::new(&[0x80]).long(), Err(Malformed::Truncated));
        assert_eq!(Cursor::new(&[0xff; 11]).long(), Err(Malformed::Overflow));
        assert_eq!(Cursor::new(&[0x80, 0x80, 0x80, 0x80, 0x20]).int(), Err(Malformed::Overflow));
        assert_eq!(Cursor::new(&[2]).boolean(), Err(Malformed::Boolean(2)));
        assert_eq!(Cursor::new(&[1]).blob(), Err(Malformed::Length(-1)));
        assert_eq!(Cursor::new(&[4, 0]).blob(), Err(Malformed::Truncated));
        assert_eq!(Cursor::new(&[2, 0xff]).text(), Err(Malformed::Text));
        assert_eq!(Cursor::new(&[4]).choice(2), Err(Malformed::Choice { index: 2, count: 2 }));
        assert_eq!(Cursor::new(&[1]).choice(2), Err(Malformed::Choice { index: -1, count: 2 }));
    }

    #[test]
    fn items_that_take_no_bytes_are_bounded() {
        let mut billions = Vec::new();
        write_long(1 << 40, &mut billions);
        assert_eq!(Cursor::new(&billions).items(|_| Ok(())), Err(Malformed::EmptyItems));
        assert_eq!(Cursor::new(&[4, 3, 9]).items(|_| Ok(())), Err(Malformed::Truncated));
        assert_eq!(Cursor::new(&[4, 1, 0, 0]).items(|_| Ok(())), Ok(3));
    }

    proptest! {
        #[test]
        fn longs_survive_a_round_trip(value: i64) {
            let mut written = Vec::new();
            write_long(value, &mut written);
            prop_assert_eq!(Cursor::new(&written).long(), Ok(value));
        }
    }
}

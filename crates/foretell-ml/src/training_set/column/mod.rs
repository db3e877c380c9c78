//! The values of one column, in chunks: a column grows without copying what is there, and a chunk is as narrow as its
//! values permit.

mod encoding;

use std::hash::BuildHasher as _;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use crate::{
    ColumnKind, ValueRef,
    features::{number_of, with_text},
};

/// Rows of a chunk, 16,384: the unused rest of the last one is at most 128 KiB a column.
pub(super) const CHUNK_ROWS: usize = 1 << 14;

/// The code of a missing category.
const MISSING: u32 = u32::MAX;

/// Elements in chunks of [`CHUNK_ROWS`].
#[derive(Clone, Debug)]
pub(super) struct Chunked<T> {
    chunks: Vec<Vec<T>>,
}

impl<T> Default for Chunked<T> {
    fn default() -> Self {
        Self { chunks: Vec::new() }
    }
}

impl<T: Copy> Chunked<T> {
    pub(super) fn push(&mut self, element: T) {
        match self.chunks.last_mut() {
            Some(chunk) if chunk.len() < CHUNK_ROWS => chunk.push(element),
            Some(_) | None => self.chunks.push(vec![element]),
        }
    }

    pub(super) fn get(&self, row: usize) -> T {
        self.chunks[row / CHUNK_ROWS][row % CHUNK_ROWS]
    }

    pub(super) fn set(&mut self, row: usize, element: T) {
        self.chunks[row / CHUNK_ROWS][row % CHUNK_ROWS] = element;
    }

    /// Keeps these rows, which ascend.
    pub(super) fn retain(&mut self, rows: &[u32]) {
        for (to, from) in rows.iter().enumerate() {
            self.set(to, self.get(index(*from)));
        }
        self.chunks.truncate(rows.len().div_ceil(CHUNK_ROWS));
        if let Some(last) = self.chunks.last_mut() {
            last.truncate(rest_of(rows.len()));
        }
    }

    /// Allocated bytes.
    pub(super) fn bytes(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.capacity() * size_of::<T>()).sum()
    }
}

/// The number of rows in the last chunk of `rows`, which are not 0.
fn rest_of(rows: usize) -> usize {
    (rows - 1) % CHUNK_ROWS + 1
}

/// A row as an index.
pub(super) fn index(row: u32) -> usize {
    usize::try_from(row).expect("32 bits fit into an index")
}

/// A chunk of numbers; NaN is missing.
#[derive(Clone, Debug)]
enum Numbers {
    /// Every number is the same as a 32-bit float.
    Short(Vec<f32>),
    Long(Vec<f64>),
}

/// Whether a number is the same, to the bit, as a 32-bit float.
fn is_short(number: f64) -> bool {
    let short = number as f32;
    number.is_nan() || f64::from(short).to_bits() == number.to_bits()
}

impl Numbers {
    fn len(&self) -> usize {
        match self {
            Self::Short(numbers) => numbers.len(),
            Self::Long(numbers) => numbers.len(),
        }
    }

    fn get(&self, row: usize) -> f64 {
        match self {
            Self::Short(numbers) => numbers[row].into(),
            Self::Long(numbers) => numbers[row],
        }
    }

    /// Overwrites the number of a row, or appends it if `row` is the length.
    fn put(&mut self, row: usize, number: f64) {
        if let Self::Short(numbers) = self
            && !is_short(number)
        {
            *self = Self::Long(numbers.iter().map(|number| f64::from(*number)).collect());
        }
        match self {
            Self::Short(numbers) if row == numbers.len() => numbers.push(number as f32),
            Self::Short(numbers) => numbers[row] = number as f32,
            Self::Long(numbers) if row == numbers.len() => numbers.push(number),
            Self::Long(numbers) => numbers[row] = number,
        }
    }

    /// Allocated bytes.
    fn bytes(&self) -> usize {
        match self {
            Self::Short(numbers) => numbers.capacity() * size_of::<f32>(),
            Self::Long(numbers) => numbers.capacity() * size_of::<f64>(),
        }
    }

    /// Bytes of the numbers alone.
    fn raw_bytes(&self) -> usize {
        match self {
            Self::Short(numbers) => numbers.len() * size_of::<f32>(),
            Self::Long(numbers) => numbers.len() * size_of::<f64>(),
        }
    }
}

/// The texts of a categorical column, in the order of their first appearance.
#[derive(Clone, Debug, Default)]
pub(super) struct Dictionary {
    /// All texts, one after the other.
    texts: String,
    /// The end of each text.
    ends: Vec<usize>,
    codes: HashTable<u32>,
    hasher: RandomState,
}

impl Dictionary {
    /// The code of a text, which is added if it is new.
    fn code(&mut self, text: &str) -> u32 {
        let hash = self.hasher.hash_one(text);
        let Self { texts, ends, codes, hasher } = self;
        let of = |ends: &[usize], code: u32| range_of(ends, index(code));
        if let Some(code) = codes.find(hash, |code| texts[of(ends, *code)] == *text) {
            return *code;
        }
        let code = u32::try_from(ends.len()).ok().filter(|code| *code < MISSING);
        let code = code.expect("there are fewer categories than rows, and rows have 31 bits");
        texts.push_str(text);
        ends.push(texts.len());
        codes.insert_unique(hash, code, |code| hasher.hash_one(&texts[of(ends, *code)]));
        code
    }

    /// The text of a code.
    fn text(&self, code: u32) -> &str {
        &self.texts[range_of(&self.ends, index(code))]
    }

    fn bytes(&self) -> usize {
        let ends = self.ends.capacity() * size_of::<usize>();
        self.texts.capacity() + ends + self.codes.allocation_size()
    }
}

fn range_of(ends: &[usize], code: usize) -> std::ops::Range<usize> {
    let start = code.checked_sub(1).map_or(0, |before| ends[before]);
    start..ends[code]
}

/// The values of a column.
#[derive(Clone, Debug)]
pub(crate) enum ColumnValues {
    /// Finite numbers, or missing.
    Numeric(NumericValues),
    /// Codes of categories, or missing.
    Categorical(CategoricalValues),
}

/// The values of a numeric column.
#[derive(Clone, Debug, Default)]
pub(crate) struct NumericValues {
    chunks: Vec<Numbers>,
}

/// The values of a categorical column.
#[derive(Clone, Debug, Default)]
pub(crate) struct CategoricalValues {
    codes: Chunked<u32>,
    dictionary: Dictionary,
}

impl NumericValues {
    /// The number of a row; NaN if it is missing.
    pub(crate) fn get(&self, row: u32) -> f64 {
        let row = index(row);
        self.chunks[row / CHUNK_ROWS].get(row % CHUNK_ROWS)
    }

    fn put(&mut self, row: usize, number: f64) {
        if row / CHUNK_ROWS == self.chunks.len() {
            self.chunks.push(Numbers::Short(Vec::new()));
        }
        self.chunks[row / CHUNK_ROWS].put(row % CHUNK_ROWS, number);
    }

    fn retain(&mut self, rows: &[u32]) {
        for (to, from) in rows.iter().enumerate() {
            self.put(to, self.get(*from));
        }
        self.chunks.truncate(rows.len().div_ceil(CHUNK_ROWS));
        match self.chunks.last_mut() {
            Some(Numbers::Short(numbers)) => numbers.truncate(rest_of(rows.len())),
            Some(Numbers::Long(numbers)) => numbers.truncate(rest_of(rows.len())),
            None => {}
        }
        // Without the numbers that needed 64 bits a chunk is short again.
        for chunk in &mut self.chunks {
            if (0..chunk.len()).all(|row| is_short(chunk.get(row))) {
                *chunk =
                    Numbers::Short((0..chunk.len()).map(|row| chunk.get(row) as f32).collect());
            }
        }
    }
}

impl CategoricalValues {
    /// The code of a row's category; `None` if it is missing.
    pub(crate) fn code(&self, row: u32) -> Option<u32> {
        Some(self.codes.get(index(row))).filter(|code| *code != MISSING)
    }

    /// The categories, in the order of their codes. After a correction or an eviction, some may have no row.
    pub(crate) fn categories(&self) -> impl ExactSizeIterator<Item = &str> {
        let texts = &self.dictionary;
        (0..texts.ends.len()).map(|code| &texts.texts[range_of(&texts.ends, code)])
    }

    /// Keeps these rows, and of the dictionary the texts that they have.
    fn retain(&mut self, rows: &[u32]) {
        self.codes.retain(rows);
        let all = std::mem::take(&mut self.dictionary);
        for row in 0..rows.len() {
            let code = self.codes.get(row);
            if code != MISSING {
                self.codes.set(row, self.dictionary.code(all.text(code)));
            }
        }
    }
}

impl ColumnValues {
    pub(super) fn new(kind: ColumnKind) -> Self {
        match kind {
            ColumnKind::Numeric => Self::Numeric(NumericValues::default()),
            ColumnKind::Categorical => Self::Categorical(CategoricalValues::default()),
        }
    }

    /// Overwrites the value of a row, or appends it if `row` is the length.
    pub(super) fn put(&mut self, row: usize, length: usize, value: ValueRef<'_>) {
        match self {
            Self::Numeric(numbers) => numbers.put(row, number_of(value).unwrap_or(f64::NAN)),
            Self::Categorical(CategoricalValues { codes, dictionary }) => {
                let code = with_text(value, |text| dictionary.code(text)).unwrap_or(MISSING);
                if row == length { codes.push(code) } else { codes.set(row, code) }
            }
        }
    }

    /// The value of a row, as a model takes it.
    pub(crate) fn value(&self, row: u32) -> ValueRef<'_> {
        match self {
            Self::Numeric(numbers) => match numbers.get(row) {
                number if number.is_nan() => ValueRef::Missing,
                number => ValueRef::Number(number),
            },
            Self::Categorical(values) => match values.code(row) {
                Some(code) => ValueRef::Text(values.dictionary.text(code)),
                None => ValueRef::Missing,
            },
        }
    }

    /// Keeps these rows, which ascend.
    pub(super) fn retain(&mut self, rows: &[u32]) {
        match self {
            Self::Numeric(numbers) => numbers.retain(rows),
            Self::Categorical(codes) => codes.retain(rows),
        }
    }

    /// Allocated bytes.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Numeric(numbers) => numbers.chunks.iter().map(Numbers::bytes).sum(),
            Self::Categorical(values) => values.codes.bytes() + values.dictionary.bytes(),
        }
    }

    /// Bytes of the values alone: 4 a number that is a 32-bit float, 8 another, 4 a category and its text once.
    pub(super) fn raw_bytes(&self, rows: usize) -> usize {
        match self {
            Self::Numeric(numbers) => numbers.chunks.iter().map(Numbers::raw_bytes).sum(),
            Self::Categorical(values) => rows * size_of::<u32>() + values.dictionary.texts.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(values: &[f64]) -> ColumnValues {
        let mut column = ColumnValues::new(ColumnKind::Numeric);
        for (row, value) in values.iter().enumerate() {
            column.put(row, row, ValueRef::Number(*value));
        }
        column
    }

    fn categories(texts: &[&str]) -> ColumnValues {
        let mut column = ColumnValues::new(ColumnKind::Categorical);
        for (row, text) in texts.iter().enumerate() {
            let value = if text.is_empty() { ValueRef::Missing } else { ValueRef::Text(text) };
            column.put(row, row, value);
        }
        column
    }

    #[test]
    fn a_number_is_kept_to_the_bit_in_the_fewest_bytes() {
        let check = |values: &[f64], bytes_each: usize| {
            let column = numbers(values);
            for (row, value) in (0..).zip(values) {
                let ValueRef::Number(found) = column.value(row) else { panic!("{value} is lost") };
                assert_eq!(found.to_bits(), value.to_bits());
            }
            assert_eq!(column.raw_bytes(values.len()), values.len() * bytes_each);
        };
        check(&[0.0, -0.0, 1.5, 16_777_216.0, f64::from(f32::MAX), 1e-45_f32.into()], 4);
        check(&[1.0, 0.1], 8);
        check(&[16_777_217.0], 8);
        check(&[1e300, 1.0], 8);
        check(&[5e-324], 8);
        // The second chunk is as narrow as its own numbers.
        let values: Vec<f64> =
            (0..2 * CHUNK_ROWS).map(|n| if n == 3 { 0.1 } else { 1.0 }).collect();
        check(&values, 6);
    }

    #[test]
    fn values_that_are_no_numbers_are_missing() {
        let mut column = numbers(&[f64::NAN, f64::INFINITY]);
        column.put(2, 2, ValueRef::Text("many"));
        column.put(3, 3, ValueRef::Text(" 2.5 "));
        assert_eq!([0, 1, 2].map(|row| column.value(row)), [ValueRef::Missing; 3]);
        assert_eq!(column.value(3), ValueRef::Number(2.5));
    }

    #[test]
    fn categories_have_codes_in_the_order_of_their_first_appearance() {
        let mut column = categories(&["b", "", "a", "b"]);
        column.put(4, 4, ValueRef::Number(7.0));
        column.put(5, 5, ValueRef::Id(i64::MAX));
        let ColumnValues::Categorical(values) = &column else { panic!("it is categorical") };
        let codes: Vec<_> = (0..6).map(|row| values.code(row)).collect();
        assert_eq!(codes, [Some(0), None, Some(1), Some(0), Some(2), Some(3)]);
        let texts: Vec<&str> = values.categories().collect();
        assert_eq!(texts, ["b", "a", "7", "9223372036854775807"]);
    }

    #[test]
    fn rows_that_are_not_retained_leave_neither_width_nor_texts() {
        let rows = u32::try_from(CHUNK_ROWS).unwrap() + 5;
        let mut wide = numbers(&(0..rows).map(|n| f64::from(n) * 0.1).collect::<Vec<_>>());
        let kept: Vec<u32> = vec![0, 10, rows - 5];
        wide.retain(&kept);
        let expected = kept.iter().map(|n| ValueRef::Number(f64::from(*n) * 0.1));
        assert_eq!(
            (0..3).map(|row| wide.value(row)).collect::<Vec<_>>(),
            expected.collect::<Vec<_>>()
        );
        wide.retain(&[0]);
        assert_eq!(wide.raw_bytes(1), 4);
        let mut texts = categories(&["gone", "a", "", "b", "a"]);
        texts.retain(&[2, 3, 4]);
        assert_eq!(
            (0..3).map(|row| texts.value(row)).collect::<Vec<_>>(),
            [ValueRef::Missing, ValueRef::Text("b"), ValueRef::Text("a")]
        );
        assert_eq!(texts.raw_bytes(3), 3 * 4 + 2);
        texts.retain(&[]);
        assert_eq!(texts.raw_bytes(0), 0);
    }
}

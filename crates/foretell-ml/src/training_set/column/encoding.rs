//! The bytes of a column: see `training_set/encoding.rs`.

use std::io::{self, Read, Write};

use crate::{
    ColumnKind,
    training_set::{
        column::{
            CHUNK_ROWS, CategoricalValues, Chunked, ColumnValues, Dictionary, MISSING, Numbers,
            NumericValues, index,
        },
        encoding::{
            invalid, kind_byte, read_array, read_count, read_elements, write_count, write_elements,
        },
    },
};

/// Bytes of text that are read at once, before more memory is allocated.
const TEXT_PIECE: usize = 1 << 16;

impl<T: Copy> Chunked<T> {
    pub(in crate::training_set) fn write<const N: usize>(
        &self,
        to: &mut dyn Write,
        bytes_of: impl Fn(T) -> [u8; N],
    ) -> io::Result<()> {
        self.chunks.iter().try_for_each(|chunk| write_elements(to, chunk, &bytes_of))
    }

    pub(in crate::training_set) fn read<const N: usize>(
        from: &mut dyn Read,
        length: usize,
        of_bytes: impl Fn([u8; N]) -> T,
    ) -> io::Result<Self> {
        let chunk = |rows| read_chunk(from, rows, &of_bytes);
        Ok(Self { chunks: chunk_rows(length).map(chunk).collect::<io::Result<_>>()? })
    }

    /// The elements, in order.
    pub(in crate::training_set) fn iter(&self) -> impl Iterator<Item = T> {
        self.chunks.iter().flatten().copied()
    }
}

/// The number of rows of each chunk of a column.
fn chunk_rows(length: usize) -> impl Iterator<Item = usize> {
    (0..length).step_by(CHUNK_ROWS).map(move |start| CHUNK_ROWS.min(length - start))
}

fn read_chunk<T, const N: usize>(
    from: &mut dyn Read,
    rows: usize,
    of_bytes: impl Fn([u8; N]) -> T,
) -> io::Result<Vec<T>> {
    // A chunk that grows doubles its memory, up to that of a full one.
    let mut chunk = Vec::with_capacity(rows.next_power_of_two());
    read_elements(from, rows, of_bytes, &mut chunk)?;
    Ok(chunk)
}

impl Numbers {
    fn write(&self, to: &mut dyn Write) -> io::Result<()> {
        match self {
            Self::Short(numbers) => {
                to.write_all(&[4])?;
                write_elements(to, numbers, f32::to_le_bytes)
            }
            Self::Long(numbers) => {
                to.write_all(&[8])?;
                write_elements(to, numbers, f64::to_le_bytes)
            }
        }
    }

    fn read(from: &mut dyn Read, rows: usize) -> io::Result<Self> {
        match read_array(from, u8::from_le_bytes)? {
            [4] => read_chunk(from, rows, f32::from_le_bytes).map(Self::Short),
            [8] => read_chunk(from, rows, f64::from_le_bytes).map(Self::Long),
            [_] => Err(invalid("another width of numbers")),
        }
    }
}

impl Dictionary {
    fn write(&self, to: &mut dyn Write) -> io::Result<()> {
        write_count(to, self.ends.len())?;
        write_elements(to, &self.ends, |end| (end as u64).to_le_bytes())?;
        to.write_all(self.texts.as_bytes())
    }

    fn read(from: &mut dyn Read) -> io::Result<Self> {
        let (count, mut ends) = (read_count(from)?, Vec::new());
        read_elements(from, count, u64::from_le_bytes, &mut ends)?;
        let all = read_text(from, ends.last().copied().unwrap_or(0))?;
        let mut dictionary = Self::default();
        let mut start = 0;
        for (code, end) in ends.into_iter().enumerate() {
            let end = usize::try_from(end).map_err(|_| invalid("a text beyond memory"))?;
            let text = all.get(start..end).ok_or_else(|| invalid("texts that overlap"))?;
            if dictionary.code(text) as usize != code {
                return Err(invalid("a text that is there twice"));
            }
            start = end;
        }
        Ok(dictionary)
    }
}

fn read_text(from: &mut dyn Read, bytes: u64) -> io::Result<String> {
    let mut left = usize::try_from(bytes).map_err(|_| invalid("texts beyond memory"))?;
    let mut text = Vec::with_capacity(left.min(TEXT_PIECE));
    while left > 0 {
        let (start, now) = (text.len(), left.min(TEXT_PIECE));
        text.resize(start + now, 0);
        from.read_exact(&mut text[start..])?;
        left -= now;
    }
    String::from_utf8(text).map_err(|_| invalid("texts that are not UTF-8"))
}

impl ColumnValues {
    pub(in crate::training_set) fn write(&self, to: &mut dyn Write) -> io::Result<()> {
        match self {
            Self::Numeric(numbers) => {
                to.write_all(&[kind_byte(ColumnKind::Numeric)])?;
                numbers.chunks.iter().try_for_each(|chunk| chunk.write(to))
            }
            Self::Categorical(values) => {
                to.write_all(&[kind_byte(ColumnKind::Categorical)])?;
                values.dictionary.write(to)?;
                values.codes.write(to, u32::to_le_bytes)
            }
        }
    }

    pub(in crate::training_set) fn read(
        kind: ColumnKind,
        length: usize,
        from: &mut dyn Read,
    ) -> io::Result<Self> {
        if read_array(from, u8::from_le_bytes)? != [kind_byte(kind)] {
            return Err(invalid("another kind of column"));
        }
        match kind {
            ColumnKind::Numeric => {
                let chunks = chunk_rows(length).map(|rows| Numbers::read(from, rows));
                let chunks = chunks.collect::<io::Result<_>>()?;
                Ok(Self::Numeric(NumericValues { chunks }))
            }
            ColumnKind::Categorical => {
                let dictionary = Dictionary::read(from)?;
                let codes = Chunked::read(from, length, u32::from_le_bytes)?;
                let is_known = |code| code == MISSING || index(code) < dictionary.ends.len();
                if !codes.iter().all(is_known) {
                    return Err(invalid("a code without a text"));
                }
                Ok(Self::Categorical(CategoricalValues { codes, dictionary }))
            }
        }
    }
}

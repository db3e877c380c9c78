//! Rewrites an encoded record of the writer schema as a record of the reader schema, in one pass over its bytes.

use std::ops::Range;

use crate::{
    resolution::{
        Conversion, ConversionId, ReaderField, Resolution, WriterField, unknown_symbol,
        unresolvable,
    },
    wire::{
        Cursor, DEPTH_MAX, Malformed, REWRITTEN_BYTES_MAX, write_blob, write_count, write_long,
    },
};

impl Resolution {
    /// Appends `datum`, a record of the writer schema, to `out` as a record of the reader schema.
    ///
    /// # Errors
    /// [`Malformed`] if it is not a complete record, or has a value that the reader schema cannot represent.
    pub(crate) fn rewrite(&self, datum: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
        let mut cursor = Cursor::new(datum);
        self.convert(self.root, &mut cursor, out, 0)?;
        cursor.finish()
    }

    fn convert(
        &self,
        id: ConversionId,
        cursor: &mut Cursor<'_>,
        out: &mut Vec<u8>,
        depth: usize,
    ) -> Result<(), Malformed> {
        if depth > DEPTH_MAX {
            return Err(Malformed::Depth);
        }
        match self.conversion(id) {
            Conversion::Unchanged(node) => {
                let value = cursor.rest();
                self.layout().skip(*node, cursor, depth)?;
                out.extend_from_slice(&value[..value.len() - cursor.rest().len()]);
            }
            Conversion::IntToLong => write_long(i64::from(cursor.int()?), out),
            Conversion::IntToFloat => out.extend_from_slice(&(cursor.int()? as f32).to_le_bytes()),
            Conversion::IntToDouble => {
                out.extend_from_slice(&f64::from(cursor.int()?).to_le_bytes())
            }
            Conversion::LongToFloat => {
                out.extend_from_slice(&(cursor.long()? as f32).to_le_bytes())
            }
            Conversion::LongToDouble => {
                out.extend_from_slice(&(cursor.long()? as f64).to_le_bytes())
            }
            Conversion::FloatToDouble => {
                out.extend_from_slice(&f64::from(cursor.float()?).to_le_bytes());
            }
            Conversion::Symbols(indexes) => match indexes[cursor.choice(indexes.len())?] {
                Some(index) => write_count(index, out),
                None => return Err(unknown_symbol()),
            },
            Conversion::FromUnion(branches) => match &branches[cursor.choice(branches.len())?] {
                Ok(value) => self.convert(*value, cursor, out, depth + 1)?,
                Err(reason) => return Err(unresolvable(reason)),
            },
            Conversion::IntoUnion { branch, value } => {
                write_count(*branch, out);
                self.convert(*value, cursor, out, depth + 1)?;
            }
            Conversion::Array(item) => {
                self.block(cursor, out, |cursor, items| {
                    self.convert(*item, cursor, items, depth + 1)
                })?;
            }
            Conversion::Map(value) => self.block(cursor, out, |cursor, items| {
                write_blob(cursor.blob()?, items);
                self.convert(*value, cursor, items, depth + 1)
            })?,
            Conversion::Record { writer, reader } => {
                self.record(writer, reader, cursor, out, depth)?;
            }
        }
        Ok(())
    }

    /// Writes all items as one block, regardless of the blocks that they are read from.
    fn block(
        &self,
        cursor: &mut Cursor<'_>,
        out: &mut Vec<u8>,
        mut item: impl FnMut(&mut Cursor<'_>, &mut Vec<u8>) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        let mut items = Vec::new();
        let count = cursor.items(|cursor| {
            item(cursor, &mut items)?;
            if items.len() > REWRITTEN_BYTES_MAX { Err(Malformed::TooLarge) } else { Ok(()) }
        })?;
        if count > 0 {
            write_count(usize::try_from(count).expect("each is counted one by one"), out);
            out.append(&mut items);
        }
        out.push(0);
        Ok(())
    }

    fn record(
        &self,
        writer: &[WriterField],
        reader: &[ReaderField],
        cursor: &mut Cursor<'_>,
        out: &mut Vec<u8>,
        depth: usize,
    ) -> Result<(), Malformed> {
        let mut values = Vec::with_capacity(cursor.rest().len().min(1024));
        let mut ranges: Vec<Range<usize>> = Vec::with_capacity(writer.len());
        for field in writer {
            let start = values.len();
            match field.conversion {
                None => self.layout().skip(field.node, cursor, depth + 1)?,
                Some(conversion) => self.convert(conversion, cursor, &mut values, depth + 1)?,
            }
            ranges.push(start..values.len());
        }
        for field in reader {
            match field {
                ReaderField::FromWriter(number) => {
                    out.extend_from_slice(&values[ranges[*number].clone()])
                }
                ReaderField::Default(bytes) => out.extend_from_slice(bytes),
            }
        }
        Ok(())
    }
}

//! Records of another schema, rewritten as records of ours: one pass over their bytes, step by step.

use std::ops::Range;

use crate::{
    resolution::{
        ReaderField, Resolution, Step, StepId, WriterField, unknown_symbol, unresolvable,
    },
    wire::{
        Cursor, DEPTH_MAX, Malformed, REWRITTEN_BYTES_MAX, write_blob, write_count, write_long,
    },
};

impl Resolution {
    /// Appends `datum`, a record of theirs, to `out` as a record of ours.
    ///
    /// # Errors
    /// [`Malformed`] if it is not a whole record of theirs, or has a value that ours can't hold.
    pub(crate) fn rewrite(&self, datum: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
        let mut cursor = Cursor::new(datum);
        self.run(self.root, &mut cursor, out, 0)?;
        cursor.finish()
    }

    fn run(
        &self,
        id: StepId,
        cursor: &mut Cursor<'_>,
        out: &mut Vec<u8>,
        depth: usize,
    ) -> Result<(), Malformed> {
        if depth > DEPTH_MAX {
            return Err(Malformed::Depth);
        }
        match self.step(id) {
            Step::Copy(node) => {
                let value = cursor.rest();
                self.layout().skip(*node, cursor, depth)?;
                out.extend_from_slice(&value[..value.len() - cursor.rest().len()]);
            }
            Step::IntToLong => write_long(i64::from(cursor.int()?), out),
            Step::IntToFloat => out.extend_from_slice(&(cursor.int()? as f32).to_le_bytes()),
            Step::IntToDouble => out.extend_from_slice(&f64::from(cursor.int()?).to_le_bytes()),
            Step::LongToFloat => out.extend_from_slice(&(cursor.long()? as f32).to_le_bytes()),
            Step::LongToDouble => out.extend_from_slice(&(cursor.long()? as f64).to_le_bytes()),
            Step::FloatToDouble => {
                out.extend_from_slice(&f64::from(cursor.float()?).to_le_bytes());
            }
            Step::Symbols(places) => match places[cursor.choice(places.len())?] {
                Some(place) => write_count(place, out),
                None => return Err(unknown_symbol()),
            },
            Step::FromUnion(branches) => match &branches[cursor.choice(branches.len())?] {
                Ok(value) => self.run(*value, cursor, out, depth + 1)?,
                Err(reason) => return Err(unresolvable(reason)),
            },
            Step::IntoUnion { branch, value } => {
                write_count(*branch, out);
                self.run(*value, cursor, out, depth + 1)?;
            }
            Step::Array(item) => {
                self.block(cursor, out, |cursor, items| self.run(*item, cursor, items, depth + 1))?;
            }
            Step::Map(value) => self.block(cursor, out, |cursor, items| {
                write_blob(cursor.blob()?, items);
                self.run(*value, cursor, items, depth + 1)
            })?,
            Step::Record { writer, reader } => self.record((writer, reader), cursor, out, depth)?,
        }
        Ok(())
    }

    /// All the items in one block, whatever blocks they came in.
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
        (writer, reader): (&[WriterField], &[ReaderField]),
        cursor: &mut Cursor<'_>,
        out: &mut Vec<u8>,
        depth: usize,
    ) -> Result<(), Malformed> {
        let mut values = Vec::with_capacity(cursor.rest().len().min(1024));
        let mut places: Vec<Range<usize>> = Vec::with_capacity(writer.len());
        for field in writer {
            let start = values.len();
            match field.step {
                None => self.layout().skip(field.form, cursor, depth + 1)?,
                Some(step) => self.run(step, cursor, &mut values, depth + 1)?,
            }
            places.push(start..values.len());
        }
        for field in reader {
            match field {
                ReaderField::Theirs(number) => {
                    out.extend_from_slice(&values[places[*number].clone()])
                }
                ReaderField::Default(bytes) => out.extend_from_slice(bytes),
            }
        }
        Ok(())
    }
}

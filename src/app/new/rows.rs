//! Reads rows of text, each with its line, and finds what the CSV reader accepts: rows of other lengths, quotes that are not closed.

use std::{
    cell::Cell,
    io::{self, Read},
    rc::Rc,
};

use anyhow::Context;

use crate::app::new::{
    dialect::Dialect,
    progress::Steps,
    source::{Source, Text},
};

/// Maximum size of a row. A longer one probably has a quote that is not closed.
pub(super) const ROW_BYTES_MAX: usize = 1 << 20;
/// Maximum number of rows of a file: at 25 bytes for each, they take 250 MB.
pub(super) const ROWS_MAX: u64 = 10_000_000;
/// A row after the last one. If the reader does not return it, a quote is still open.
const END: &str = "\u{1}end of the table\u{1}";

/// The rows of a file with its dialect.
pub(super) struct Rows {
    reader: csv::Reader<Limited<Text>>,
    since_row: Rc<Cell<usize>>,
    record: csv::StringRecord,
    columns: usize,
    /// The line of the row that was read last, from 1.
    line: u64,
    number: u64,
    done: Rc<Cell<u64>>,
    of: u64,
    path: String,
}

impl Rows {
    /// # Errors
    /// If the file cannot be opened.
    pub(super) fn open(source: &Source, dialect: &Dialect, path: String) -> anyhow::Result<Self> {
        let text = source.text()?;
        let (done, of) = (Rc::clone(&text.done), text.of);
        let since_row = Rc::new(Cell::new(0));
        let limited = Limited {
            text,
            end: format!("\n{END}\n").into_bytes(),
            since_row: Rc::clone(&since_row),
        };
        let mut rows = Self {
            reader: dialect.reader(limited),
            since_row,
            record: csv::StringRecord::new(),
            columns: dialect.names.len(),
            line: 0,
            number: 0,
            done,
            of,
            path,
        };
        for _ in 0..dialect.skipped_rows() {
            rows.read()?;
        }
        Ok(rows)
    }

    /// The next row that is not blank, with as many cells as there are columns; none at the end.
    ///
    /// # Errors
    /// If it cannot be read or has another number of cells; the message names its line.
    pub(super) fn next(
        &mut self,
        pass: &'static str,
        steps: &mut Steps<'_>,
    ) -> anyhow::Result<Option<&csv::StringRecord>> {
        loop {
            steps.show(pass, self.done.get(), self.of)?;
            if !self.read()? {
                return Ok(None);
            }
            if self.record.iter().all(|cell| cell.trim().is_empty()) {
                continue;
            }
            self.number += 1;
            anyhow::ensure!(
                self.number <= ROWS_MAX,
                "{}: more than {ROWS_MAX} rows: take a sample, such as with `head -n {ROWS_MAX}`",
                self.path
            );
            // A spreadsheet may write delimiters after the last column.
            let has_only_blanks_after =
                || self.record.iter().skip(self.columns).all(|cell| cell.trim().is_empty());
            if self.record.len() > self.columns && has_only_blanks_after() {
                self.record.truncate(self.columns);
            }
            anyhow::ensure!(
                self.record.len() == self.columns,
                "{}, line {}: {} cells, where {} were expected: quote cells that have the delimiter, or fix or remove the row",
                self.path,
                self.line,
                self.record.len(),
                self.columns
            );
            return Ok(Some(&self.record));
        }
    }

    fn read(&mut self) -> anyhow::Result<bool> {
        let before = self.line_after();
        self.since_row.set(0);
        let is_there = self
            .reader
            .read_record(&mut self.record)
            .with_context(|| format!("{}, from line {before}", self.path))?;
        let inner: usize = self.record.iter().map(|cell| cell.matches('\n').count()).sum();
        self.line = self.line_after().saturating_sub(1 + u64::try_from(inner).unwrap_or(0));
        if is_there && self.record.len() == 1 && self.record.get(0) == Some(END) {
            return Ok(false);
        }
        let is_open = !is_there || self.record.iter().any(|cell| cell.contains(END));
        anyhow::ensure!(
            !is_open,
            "{}, line {}: a quote is opened and not closed: close it, or double the quotes inside of cells",
            self.path,
            before
        );
        Ok(true)
    }

    /// The line after the row that was read last.
    fn line_after(&self) -> u64 {
        self.reader.position().line()
    }
}

/// A text that is followed by [`END`], and whose rows have a limit.
struct Limited<R> {
    text: R,
    end: Vec<u8>,
    /// Bytes that were read since the last row, with what the reader has in its buffer.
    since_row: Rc<Cell<usize>>,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.since_row.get() > ROW_BYTES_MAX {
            return Err(io::Error::other(format!(
                "a row of more than {ROW_BYTES_MAX} bytes: is there a quote that is not closed?"
            )));
        }
        let mut read = self.text.read(buffer)?;
        if read == 0 {
            read = self.end.len().min(buffer.len());
            buffer[..read].copy_from_slice(&self.end[..read]);
            self.end.drain(..read);
        }
        self.since_row.set(self.since_row.get() + read);
        Ok(read)
    }
}

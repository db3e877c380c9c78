//! A stream of bytes in blocks with checksums, so that a reader gets no byte that was not written.
//!
//! ```text
//!   length u32 │ XXH3-64 of the payload, with the number of the block as its seed u64 │ payload
//! ```
//! The last block has no payload, and nothing comes after it. Numbers are little-endian. Both ends keep one block in memory.

use std::io::{self, Read, Write};

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Payload of a block; the last one with a payload may have less. 1 MiB.
const BLOCK_BYTES: usize = 1 << 20;

/// Returns false to end the work early.
pub(super) type GoesOn<'a> = &'a dyn Fn() -> bool;

/// The work was ended early.
#[derive(Debug, thiserror::Error)]
#[error("the process is stopping")]
struct Stopped;

/// Whether an error means that the work was ended early.
pub(super) fn is_stopped(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|error| error.is::<Stopped>())
}

fn check(goes_on: GoesOn<'_>) -> io::Result<()> {
    if goes_on() { Ok(()) } else { Err(io::Error::other(Stopped)) }
}

/// Writes blocks.
pub(super) struct BlockWriter<'a, W> {
    to: W,
    goes_on: GoesOn<'a>,
    payload: Vec<u8>,
    number: u64,
}

impl<'a, W: Write> BlockWriter<'a, W> {
    pub(super) fn new(to: W, goes_on: GoesOn<'a>) -> Self {
        Self { to, goes_on, payload: Vec::with_capacity(BLOCK_BYTES), number: 0 }
    }

    /// Writes what is left and the last block, and returns what the blocks were written to.
    pub(super) fn finish(mut self) -> io::Result<W> {
        if !self.payload.is_empty() {
            self.end_block()?;
        }
        self.end_block()?;
        Ok(self.to)
    }

    fn end_block(&mut self) -> io::Result<()> {
        check(self.goes_on)?;
        let length = u32::try_from(self.payload.len()).expect("a block has at most 1 MiB");
        self.to.write_all(&length.to_le_bytes())?;
        self.to.write_all(&xxh3_64_with_seed(&self.payload, self.number).to_le_bytes())?;
        self.to.write_all(&self.payload)?;
        self.payload.clear();
        self.number += 1;
        Ok(())
    }
}

impl<W: Write> Write for BlockWriter<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(BLOCK_BYTES - self.payload.len());
        self.payload.extend_from_slice(&bytes[..taken]);
        if self.payload.len() == BLOCK_BYTES {
            self.end_block()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads blocks. Its bytes end before the last block.
pub(super) struct BlockReader<'a, R> {
    from: R,
    goes_on: GoesOn<'a>,
    payload: Vec<u8>,
    /// Bytes of the payload that were read.
    read: usize,
    number: u64,
    is_last: bool,
}

impl<'a, R: Read> BlockReader<'a, R> {
    pub(super) fn new(from: R, goes_on: GoesOn<'a>) -> Self {
        Self { from, goes_on, payload: Vec::new(), read: 0, number: 0, is_last: false }
    }

    /// Checks that everything was read.
    pub(super) fn finish(mut self) -> io::Result<()> {
        let mut byte = [0];
        match self.read(&mut byte)? + self.from.read(&mut byte)? {
            0 => Ok(()),
            _ => Err(invalid("it is longer than its content")),
        }
    }

    fn next_block(&mut self) -> io::Result<()> {
        check(self.goes_on)?;
        let (mut length, mut checksum) = ([0; 4], [0; 8]);
        self.from.read_exact(&mut length)?;
        self.from.read_exact(&mut checksum)?;
        let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
        if length > BLOCK_BYTES {
            return Err(invalid("a block is too long"));
        }
        self.payload.resize(length, 0);
        self.from.read_exact(&mut self.payload)?;
        if xxh3_64_with_seed(&self.payload, self.number) != u64::from_le_bytes(checksum) {
            return Err(invalid("a checksum does not match"));
        }
        self.read = 0;
        self.number += 1;
        self.is_last = length == 0;
        Ok(())
    }
}

impl<R: Read> Read for BlockReader<'_, R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if self.read == self.payload.len() && !self.is_last {
            self.next_block()?;
        }
        let given = bytes.len().min(self.payload.len() - self.read);
        bytes[..given].copy_from_slice(&self.payload[self.read..self.read + given]);
        self.read += given;
        Ok(given)
    }
}

fn invalid(problem: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn written(content: &[u8]) -> Vec<u8> {
        let mut blocks = BlockWriter::new(Vec::new(), &|| true);
        for piece in content.chunks(100_003) {
            blocks.write_all(piece).unwrap();
        }
        blocks.finish().unwrap()
    }

    /// Reads `length` bytes, which must be all of them.
    fn read(bytes: &[u8], length: usize) -> io::Result<Vec<u8>> {
        let mut blocks = BlockReader::new(bytes, &|| true);
        let mut content = vec![0; length];
        for piece in content.chunks_mut(77_777) {
            blocks.read_exact(piece)?;
        }
        blocks.finish()?;
        Ok(content)
    }

    fn content(length: usize) -> Vec<u8> {
        (0..length).map(|n| u8::try_from(n * 7 % 251).unwrap()).collect()
    }

    #[test]
    fn blocks_have_these_bytes() {
        let expected = [
            // "abc" and its checksum, then the last block with the checksum of nothing.
            "03000000 50392f89945faf78 616263",
            "00000000 03676f82ccb0c54d",
        ];
        assert_eq!(hex::encode(written(b"abc")), expected.join("").replace(' ', ""));
    }

    #[test]
    fn what_is_read_is_what_was_written() {
        for length in [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 3 * BLOCK_BYTES] {
            let content = content(length);
            assert!(read(&written(&content), length).unwrap() == content, "{length} bytes");
        }
    }

    #[test]
    fn bytes_that_were_changed_cut_or_added_are_an_error() {
        let content = content(2 * BLOCK_BYTES + 50);
        let bytes = written(&content);
        let check = |changed: &[u8], what: &str| {
            let error = read(changed, content.len()).expect_err(what);
            assert!(!is_stopped(&error), "{what}: {error}");
        };
        let block = BLOCK_BYTES + 12;
        // Around the boundaries of all blocks, and in each of them.
        let near = [0, block, 2 * block, 2 * block + 62].into_iter();
        let near = near.flat_map(|at| at.saturating_sub(14)..at + 14);
        for position in near.chain([1_000, block + 500_000]).filter(|at| *at < bytes.len()) {
            for bit in [1, 0x80] {
                let mut changed = bytes.clone();
                changed[position] ^= bit;
                check(&changed, &format!("a changed bit of byte {position}"));
            }
            check(&bytes[..position], &format!("the first {position} bytes"));
        }
        check(&[bytes.as_slice(), &[0]].concat(), "one byte more");
        let exchanged = [&bytes[block..2 * block], &bytes[..block], &bytes[2 * block..]].concat();
        check(&exchanged, "exchanged blocks");
        check(&bytes[block..], "a missing block");
        let error = read(&bytes, content.len() - 1).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "less is read than there is");
    }

    #[test]
    fn the_work_can_be_ended_between_two_blocks() {
        let content = content(3 * BLOCK_BYTES);
        let bytes = written(&content);
        let blocks_left = Cell::new(2);
        let goes_on = || blocks_left.replace(blocks_left.get() - 1) > 0;
        let mut writer = BlockWriter::new(Vec::new(), &goes_on);
        assert!(is_stopped(&writer.write_all(&content).unwrap_err()));
        blocks_left.set(2);
        let mut reader = BlockReader::new(bytes.as_slice(), &goes_on);
        assert!(is_stopped(&reader.read_exact(&mut vec![0; content.len()]).unwrap_err()));
    }
}

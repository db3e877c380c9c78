//! Opens the file as text: decompresses it, finds its character encoding, and reads it as UTF-8 with `\n` at the end of lines.

use std::{
    cell::Cell,
    collections::VecDeque,
    fs::File,
    io::{self, BufReader, Read},
    path::{Path, PathBuf},
    rc::Rc,
};

use anyhow::Context;
use chardetng::{EncodingDetector, Iso2022JpDetection, Utf8Detection};
use encoding_rs::{Decoder, DecoderResult, Encoding, UTF_8, UTF_16BE, UTF_16LE};
use flate2::read::MultiGzDecoder;

use crate::app::new::progress::Steps;

/// Bytes that are read at a time.
const CHUNK: usize = 64 << 10;
/// Bytes with letters other than ASCII that the encoding is guessed from.
const GUESSED_BYTES_MAX: usize = 4 << 20;

/// First bytes of files that are no text, with what to do.
const OTHER_FORMATS: &[(&[u8], &str)] = &[
    (b"PK\x03\x04", "it is a ZIP archive or an Excel workbook: save the sheet as CSV"),
    (b"\xd0\xcf\x11\xe0", "it is an Excel workbook: save the sheet as CSV"),
    (
        b"PAR1",
        "it is a Parquet file: convert it, such as with pandas: pd.read_parquet(…).to_csv(…)",
    ),
    (
        b"ARROW1",
        "it is an Arrow file: convert it, such as with pandas: pd.read_feather(…).to_csv(…)",
    ),
    (b"\x28\xb5\x2f\xfd", "it is compressed with zstd: decompress it, or compress it with gzip"),
    (b"BZh", "it is compressed with bzip2: decompress it, or compress it with gzip"),
    (b"\xfd7zXZ\x00", "it is compressed with xz: decompress it, or compress it with gzip"),
    (b"SQLite format 3", "it is an SQLite database: export the table as CSV"),
    (b"%PDF", "it is a PDF"),
];

/// A file that can be read as text, repeatedly.
pub(super) struct Source {
    path: PathBuf,
    pub(super) is_compressed: bool,
    pub(super) encoding: &'static Encoding,
    /// Why this encoding.
    pub(super) encoding_reason: String,
    /// Bytes of the file, as it is on disk.
    bytes: u64,
}

impl Source {
    /// Opens the file, and reads all of it to find its encoding, unless `encoding` names it.
    ///
    /// # Errors
    /// If it cannot be read, is empty, or is no text.
    pub(super) fn open(
        path: &Path,
        encoding: Option<&str>,
        steps: &mut Steps<'_>,
    ) -> anyhow::Result<Self> {
        let cannot_open = || format!("cannot open {}", path.display());
        let file = File::open(path).with_context(cannot_open)?;
        let metadata = file.metadata().with_context(cannot_open)?;
        anyhow::ensure!(!metadata.is_dir(), "{} is a folder, not a CSV file", path.display());
        let mut start = Vec::new();
        file.take(512).read_to_end(&mut start).with_context(cannot_open)?;
        anyhow::ensure!(!start.is_empty(), "{} is empty", path.display());
        for (magic, what) in OTHER_FORMATS {
            anyhow::ensure!(!start.starts_with(magic), "{}: {what}", path.display());
        }
        let mut source = Self {
            path: path.to_owned(),
            is_compressed: start.starts_with(b"\x1f\x8b"),
            encoding: UTF_8,
            encoding_reason: String::new(),
            bytes: metadata.len(),
        };
        match encoding {
            Some(name) => {
                source.encoding = Encoding::for_label(name.as_bytes()).with_context(|| {
                    format!(
                        "--encoding {name:?} is not known; names are those of web pages, such as utf-8, utf-16le, windows-1252"
                    )
                })?;
                "--encoding".clone_into(&mut source.encoding_reason);
            }
            None => source.find_encoding(steps)?,
        }
        Ok(source)
    }

    fn find_encoding(&mut self, steps: &mut Steps<'_>) -> anyhow::Result<()> {
        let (mut raw, done) = self.raw()?;
        let mut guess = EncodingGuess::default();
        let mut chunk = vec![0; CHUNK];
        loop {
            let read = raw.read(&mut chunk).with_context(|| self.unreadable())?;
            if read == 0 {
                break;
            }
            guess.add(&chunk[..read]);
            steps.show("encoding", done.get(), self.bytes)?;
        }
        let (encoding, reason) = guess.finish();
        (self.encoding, self.encoding_reason) = (encoding, reason.to_owned());
        Ok(())
    }

    fn unreadable(&self) -> String {
        let gzip = if self.is_compressed { " (as gzip)" } else { "" };
        format!("cannot read {}{gzip}", self.path.display())
    }

    /// The decompressed bytes, and the number of bytes that were read from the disk.
    fn raw(&self) -> anyhow::Result<CountedBytes> {
        let file = File::open(&self.path)
            .with_context(|| format!("cannot open {}", self.path.display()))?;
        let done = Rc::new(Cell::new(0));
        let counted = Counted { file, done: Rc::clone(&done) };
        let raw: Box<dyn Read> = if self.is_compressed {
            Box::new(MultiGzDecoder::new(BufReader::with_capacity(CHUNK, counted)))
        } else {
            Box::new(counted)
        };
        Ok((raw, done))
    }

    /// The text, from the start.
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub(super) fn text(&self) -> anyhow::Result<Text> {
        let (raw, done) = self.raw()?;
        Ok(Text {
            raw,
            decoder: self.encoding.new_decoder_with_bom_removal(),
            encoding: self.encoding.name(),
            input: Vec::new(),
            output: VecDeque::new(),
            decoded: 0,
            after_return: false,
            is_at_end: false,
            done,
            of: self.bytes,
        })
    }
}

/// Bytes, and the number of bytes that were read from the disk for them.
type CountedBytes = (Box<dyn Read>, Rc<Cell<u64>>);

struct Counted {
    file: File,
    done: Rc<Cell<u64>>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.done.set(self.done.get() + u64::try_from(read).unwrap_or(0));
        Ok(read)
    }
}

/// Guesses the encoding of bytes that come in pieces.
struct EncodingGuess {
    /// Bytes at the start: byte order mark, or UTF-16 without one.
    start: Vec<u8>,
    detector: EncodingDetector,
    guessed: usize,
    /// The end of a piece that may be the start of a character.
    tail: Vec<u8>,
    is_utf8: bool,
    is_ascii: bool,
}

impl Default for EncodingGuess {
    fn default() -> Self {
        Self {
            start: Vec::new(),
            detector: EncodingDetector::new(Iso2022JpDetection::Deny),
            guessed: 0,
            tail: Vec::new(),
            is_utf8: true,
            is_ascii: true,
        }
    }
}

impl EncodingGuess {
    /// Bytes that tell UTF-16.
    const START: usize = 4096;

    fn add(&mut self, piece: &[u8]) {
        let wanted = Self::START.saturating_sub(self.start.len()).min(piece.len());
        self.start.extend_from_slice(&piece[..wanted]);
        if !piece.is_ascii() {
            self.is_ascii = false;
            if self.guessed < GUESSED_BYTES_MAX {
                self.guessed += piece.len();
                self.detector.feed(piece, false);
            }
        }
        if self.is_utf8 {
            self.tail.extend_from_slice(piece);
            match std::str::from_utf8(&self.tail) {
                Ok(_) => self.tail.clear(),
                Err(error) if error.error_len().is_none() => {
                    self.tail.drain(..error.valid_up_to());
                }
                Err(_) => self.is_utf8 = false,
            }
        }
    }

    fn finish(mut self) -> (&'static Encoding, &'static str) {
        if let Some((encoding, _)) = Encoding::for_bom(&self.start) {
            return (encoding, "its byte order mark");
        }
        let zeros =
            |odd: usize| self.start.iter().skip(odd).step_by(2).filter(|byte| **byte == 0).count();
        let (even, odd, half) = (zeros(0), zeros(1), self.start.len() / 2);
        if half > 1 && odd * 2 > half && even * 10 < half {
            return (UTF_16LE, "every second byte is 0");
        }
        if half > 1 && even * 2 > half && odd * 10 < half {
            return (UTF_16BE, "every second byte is 0");
        }
        if self.is_ascii {
            return (UTF_8, "all characters are ASCII");
        }
        if self.is_utf8 && self.tail.is_empty() {
            return (UTF_8, "it is valid UTF-8");
        }
        self.detector.feed(b"", true);
        (
            self.detector.guess(None, Utf8Detection::Deny),
            "guessed from its letters, because it is not UTF-8",
        )
    }
}

/// Text in UTF-8. `\r\n` and `\r` are `\n`.
pub(super) struct Text {
    raw: Box<dyn Read>,
    decoder: Decoder,
    encoding: &'static str,
    /// Bytes that are not decoded yet.
    input: Vec<u8>,
    output: VecDeque<u8>,
    /// Number of bytes that were decoded.
    decoded: u64,
    /// Whether the last character was `\r`.
    after_return: bool,
    is_at_end: bool,
    /// Bytes read from the disk, of `of`.
    pub(super) done: Rc<Cell<u64>>,
    pub(super) of: u64,
}

impl Text {
    fn fill(&mut self) -> io::Result<()> {
        let mut chunk = vec![0; CHUNK];
        let read = self.raw.read(&mut chunk)?;
        self.is_at_end = read == 0;
        self.input.extend_from_slice(&chunk[..read]);
        let capacity = self.decoder.max_utf8_buffer_length_without_replacement(self.input.len());
        let mut decoded = vec![0; capacity.unwrap_or(CHUNK * 4)];
        let (result, used, written) = self.decoder.decode_to_utf8_without_replacement(
            &self.input,
            &mut decoded,
            self.is_at_end,
        );
        if let DecoderResult::Malformed(..) = result {
            let at = self.decoded + u64::try_from(used).unwrap_or(0);
            return Err(io::Error::other(format!(
                "byte {at} is not valid {}: name the encoding of the file with --encoding",
                self.encoding
            )));
        }
        self.decoded += u64::try_from(used).unwrap_or(0);
        self.input.drain(..used);
        for &byte in &decoded[..written] {
            match byte {
                0 => {
                    return Err(io::Error::other(
                        "it has characters with the code 0, so it is not a text: export it as CSV, or name its encoding with \
                         --encoding",
                    ));
                }
                b'\r' => self.output.push_back(b'\n'),
                b'\n' if self.after_return => {}
                _ => self.output.push_back(byte),
            }
            self.after_return = byte == b'\r';
        }
        Ok(())
    }
}

impl Read for Text {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.output.is_empty() && !self.is_at_end {
            self.fill()?;
        }
        self.output.read(buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guess(bytes: &[u8]) -> &'static str {
        // In pieces, so that characters are cut.
        let mut guess = EncodingGuess::default();
        for piece in bytes.chunks(3) {
            guess.add(piece);
        }
        guess.finish().0.name()
    }

    #[test]
    fn encodings_are_found() {
        let text = "größe;straße\n1,5;Café Zoë\n2,5;Weiß\n";
        assert_eq!(guess(text.as_bytes()), "UTF-8");
        assert_eq!(guess(b"a,b\n1,2\n"), "UTF-8");
        assert_eq!(guess(format!("\u{feff}{text}").as_bytes()), "UTF-8");
        assert_eq!(guess(&encoding_rs::WINDOWS_1252.encode(text).0), "windows-1252");
        let utf16 = |to_bytes: fn(u16) -> [u8; 2]| -> Vec<u8> {
            text.encode_utf16().flat_map(to_bytes).collect()
        };
        assert_eq!(guess(&utf16(u16::to_le_bytes)), "UTF-16LE");
        assert_eq!(guess(&utf16(u16::to_be_bytes)), "UTF-16BE");
        let russian = "имя;возраст\nИван;34\nМария;29\nДмитрий;41\n";
        assert_eq!(guess(&encoding_rs::WINDOWS_1251.encode(russian).0), "windows-1251");
    }

    fn text_of(bytes: &[u8], encoding: Option<&str>) -> anyhow::Result<String> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("rows.csv");
        std::fs::write(&path, bytes)?;
        let source = Source::open(&path, encoding, &mut Steps::new(&mut |_, _, _| Ok(())))?;
        let mut text = String::new();
        source.text()?.read_to_string(&mut text)?;
        Ok(text)
    }

    #[test]
    fn a_text_is_utf8_with_one_kind_of_line_end() {
        let check = |bytes: &[u8], expected: &str| {
            assert_eq!(text_of(bytes, None).unwrap(), expected);
        };
        check(b"a,b\r\n1,2\r\n", "a,b\n1,2\n");
        check(b"a,b\r1,2\r", "a,b\n1,2\n");
        check("\u{feff}a,ö\n".as_bytes(), "a,ö\n");
        let long = "größe\r\n".repeat(40_000);
        check(long.as_bytes(), &"größe\n".repeat(40_000));
    }

    #[test]
    fn what_is_no_text_is_refused() {
        let check = |bytes: &[u8], encoding: Option<&str>, words: &str| {
            let error = format!("{:#}", text_of(bytes, encoding).unwrap_err());
            assert!(error.contains(words), "{words:?} in {error}");
        };
        check(b"", None, "is empty");
        check(b"PK\x03\x04....", None, "Excel");
        check(b"PAR1....", None, "Parquet");
        check(b"a,b\n1,\x00\n", None, "code 0");
        check(b"\x1f\x8bnot gzip", None, "as gzip");
        check(b"a,\xff\n", Some("utf-8"), "byte 3 is not valid UTF-8");
        check(b"a,b\n", Some("klingon"), "windows-1252");
    }
}

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
use encoding_rs::{Decoder, DecoderResult, Encoding, UTF_8};
use flate2::read::MultiGzDecoder;

use crate::app::new::{
    encoding::{self, EncodingGuess},
    progress::Steps,
};

/// Bytes that are read at a time.
const CHUNK: usize = 64 << 10;

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
    /// Whether bytes that are not UTF-8 are read as those of another encoding.
    is_mixed: bool,
    /// What the user should look at, if the encoding is not certain.
    pub(super) warning: Option<String>,
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
            is_mixed: false,
            warning: None,
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
        let found = guess.finish();
        self.encoding = found.encoding;
        found.reason.clone_into(&mut self.encoding_reason);
        (self.is_mixed, self.warning) = (found.is_mixed, found.warning);
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
            decoder: match self.is_mixed {
                true => TextDecoder::Mixed,
                false => TextDecoder::One(self.encoding.new_decoder_with_bom_removal()),
            },
            encoding: self.encoding.name(),
            input: Vec::new(),
            output: VecDeque::new(),
            decoded: 0,
            line: 1,
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

/// How bytes become text.
enum TextDecoder {
    One(Decoder),
    /// UTF-8, and other bytes as [`encoding::OTHER`].
    Mixed,
}

/// Text in UTF-8. `\r\n` and `\r` are `\n`.
pub(super) struct Text {
    raw: Box<dyn Read>,
    decoder: TextDecoder,
    encoding: &'static str,
    /// Bytes that are not decoded yet.
    input: Vec<u8>,
    output: VecDeque<u8>,
    /// Number of bytes that were decoded.
    decoded: u64,
    /// The line that is decoded, from 1.
    line: u64,
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
        let (text, used, is_malformed) = self.decode();
        self.decoded += u64::try_from(used).unwrap_or(0);
        self.input.drain(..used);
        for byte in text {
            match byte {
                0 => {
                    return Err(io::Error::other(
                        "it has characters with the code 0, so it is not a text: export it as CSV, or name its encoding with \
                         --encoding",
                    ));
                }
                b'\n' if self.after_return => {}
                b'\n' | b'\r' => {
                    self.line += 1;
                    self.output.push_back(b'\n');
                }
                _ => self.output.push_back(byte),
            }
            self.after_return = byte == b'\r';
        }
        if is_malformed {
            return Err(io::Error::other(format!(
                "line {}, byte {} of the file: it is not valid {}: mend it, or name the encoding of the file with --encoding; \
                 without --encoding it is found",
                self.line, self.decoded, self.encoding
            )));
        }
        Ok(())
    }

    /// The text of the input, the number of bytes that were used, and whether they end with malformed ones.
    fn decode(&mut self) -> (Vec<u8>, usize, bool) {
        let decoder = match &mut self.decoder {
            TextDecoder::One(decoder) => decoder,
            TextDecoder::Mixed => {
                let mut text = String::with_capacity(self.input.len());
                let used = encoding::split(&self.input, self.is_at_end, &mut |valid, others| {
                    text.push_str(valid);
                    text.push_str(&encoding::other_text(others));
                });
                let start = if self.decoded == 0 { text.strip_prefix('\u{feff}') } else { None };
                return (start.unwrap_or(&text).as_bytes().to_vec(), used, false);
            }
        };
        let capacity = decoder.max_utf8_buffer_length_without_replacement(self.input.len());
        let mut text = vec![0; capacity.unwrap_or(CHUNK * 4)];
        let (result, used, written) =
            decoder.decode_to_utf8_without_replacement(&self.input, &mut text, self.is_at_end);
        text.truncate(written);
        (text, used, matches!(result, DecoderResult::Malformed(..)))
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
    fn bytes_that_are_not_utf8_in_a_text_that_is_are_read_and_reported() {
        let mut text = "größe;straße\r\n".repeat(20_000).into_bytes();
        text.extend_from_slice(b"K\xf6ln;\xe9");
        let read = text_of(&text, None).unwrap();
        assert_eq!(read, "größe;straße\n".repeat(20_000) + "Köln;é");
        let text = [b"\xef\xbb\xbfgr\xc3\xb6\xc3\x9fe\n".as_slice(), b"K\xf6ln\n"].concat();
        assert_eq!(text_of(&text, None).unwrap(), "größe\nKöln\n");
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
        check(
            b"a,b\r\nc,\xff\n",
            Some("utf-8"),
            "line 2, byte 8 of the file: it is not valid UTF-8",
        );
        check(b"a,b\n", Some("klingon"), "windows-1252");
    }
}

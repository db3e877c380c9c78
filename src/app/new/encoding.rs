//! Guesses the character encoding of a file, and says where it is not certain.

use std::borrow::Cow;

use chardetng::{EncodingDetector, Iso2022JpDetection, Utf8Detection};
use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE, WINDOWS_1252};

/// Bytes with letters other than ASCII that the encoding is guessed from.
const GUESSED_BYTES_MAX: usize = 4 << 20;
/// Bytes that are not UTF-8, below which an alphabet cannot be guessed.
const OTHERS_FEW: u64 = 4;
/// The encoding of bytes that are not UTF-8, if they are few: that of most files which are not UTF-8.
pub(super) const OTHER: &Encoding = WINDOWS_1252;

/// The encoding of a file.
pub(super) struct FoundEncoding {
    pub(super) encoding: &'static Encoding,
    /// Why this one.
    pub(super) reason: &'static str,
    /// Whether it is UTF-8 with bytes of [`OTHER`].
    pub(super) is_mixed: bool,
    /// What the user should look at, if it is not certain.
    pub(super) warning: Option<String>,
}

/// Guesses the encoding of bytes that come in pieces.
pub(super) struct EncodingGuess {
    /// Bytes at the start: byte order mark, or UTF-16 without one.
    start: Vec<u8>,
    detector: EncodingDetector,
    guessed: usize,
    /// The end of a piece that may be the start of a character.
    tail: Vec<u8>,
    is_ascii: bool,
    /// Characters other than ASCII, if the text is UTF-8.
    characters: u64,
    others: OtherBytes,
    newlines: u64,
    returns: u64,
}

/// The bytes that are not UTF-8.
#[derive(Default)]
struct OtherBytes {
    count: u64,
    /// The line of the first one, and the bytes around it.
    line: u64,
    around: Vec<u8>,
}

impl Default for EncodingGuess {
    fn default() -> Self {
        Self {
            start: Vec::new(),
            detector: EncodingDetector::new(Iso2022JpDetection::Deny),
            guessed: 0,
            tail: Vec::new(),
            is_ascii: true,
            characters: 0,
            others: OtherBytes::default(),
            newlines: 0,
            returns: 0,
        }
    }
}

impl EncodingGuess {
    /// Bytes that tell UTF-16.
    const START: usize = 4096;

    pub(super) fn add(&mut self, piece: &[u8]) {
        let wanted = Self::START.saturating_sub(self.start.len()).min(piece.len());
        self.start.extend_from_slice(&piece[..wanted]);
        if !piece.is_ascii() {
            self.is_ascii = false;
            if self.guessed < GUESSED_BYTES_MAX {
                self.guessed += piece.len();
                self.detector.feed(piece, false);
            }
        }
        self.tail.extend_from_slice(piece);
        self.count(false);
    }

    /// Counts what is UTF-8 and what is not.
    fn count(&mut self, is_end: bool) {
        let bytes = std::mem::take(&mut self.tail);
        let mut at = 0;
        let used = split(&bytes, is_end, &mut |valid, others| {
            if !valid.is_ascii() {
                let characters = valid.chars().filter(|character| !character.is_ascii()).count();
                self.characters += u64::try_from(characters).unwrap_or(0);
            }
            let ends = |end: u8| valid.bytes().filter(|byte| *byte == end).count();
            self.newlines += u64::try_from(ends(b'\n')).unwrap_or(0);
            self.returns += u64::try_from(ends(b'\r')).unwrap_or(0);
            at += valid.len();
            if !others.is_empty() && self.others.count == 0 {
                self.others.line = self.newlines.max(self.returns) + 1;
                self.others.around = around(&bytes, at, at + others.len()).to_vec();
            }
            at += others.len();
            self.others.count += u64::try_from(others.len()).unwrap_or(0);
        });
        self.tail = bytes[used..].to_vec();
    }

    pub(super) fn finish(mut self) -> FoundEncoding {
        self.count(true);
        let certain =
            |encoding, reason| FoundEncoding { encoding, reason, is_mixed: false, warning: None };
        let marked = Encoding::for_bom(&self.start).map(|(encoding, _)| encoding);
        if let Some(encoding) = marked.filter(|encoding| *encoding != UTF_8) {
            return certain(encoding, "its byte order mark");
        }
        let zeros =
            |odd: usize| self.start.iter().skip(odd).step_by(2).filter(|byte| **byte == 0).count();
        let (even, odd, half) = (zeros(0), zeros(1), self.start.len() / 2);
        if half > 1 && odd * 2 > half && even * 10 < half {
            return certain(UTF_16LE, "every second byte is 0");
        }
        if half > 1 && even * 2 > half && odd * 10 < half {
            return certain(UTF_16BE, "every second byte is 0");
        }
        let utf8_reason = match (marked, self.is_ascii) {
            (Some(_), _) => "its byte order mark",
            (None, true) => "all characters are ASCII",
            (None, false) => "it is valid UTF-8",
        };
        if self.others.count == 0 {
            return certain(UTF_8, utf8_reason);
        }
        // Other encodings rarely make characters of UTF-8 by chance.
        if marked.is_some() || self.characters >= self.others.count {
            return FoundEncoding {
                encoding: UTF_8,
                reason: "it is UTF-8, besides some bytes",
                is_mixed: true,
                warning: Some(self.others.mixed()),
            };
        }
        if self.others.count < OTHERS_FEW {
            let reason = "it is not UTF-8, and has too few letters to guess another alphabet";
            return self.others.guessed(OTHER, reason);
        }
        self.detector.feed(b"", true);
        let encoding = self.detector.guess(None, Utf8Detection::Deny);
        self.others.guessed(encoding, "guessed from its letters, because it is not UTF-8")
    }
}

impl OtherBytes {
    fn mixed(&self) -> String {
        let mut shown = String::new();
        split(&self.around, true, &mut |valid, others| {
            shown.push_str(valid);
            shown.push_str(&other_text(others));
        });
        let bytes = match self.count {
            1 => "1 byte is not".to_owned(),
            count => format!("{count} bytes are not"),
        };
        format!(
            "{bytes} UTF-8 in a text that otherwise is; the first, in line {}, is read as {}, as in {shown:?}: if this is wrong, mend the \
             file, or name its encoding with --encoding",
            self.line,
            OTHER.name(),
        )
    }

    fn guessed(&self, encoding: &'static Encoding, reason: &'static str) -> FoundEncoding {
        let (shown, _) = encoding.decode_without_bom_handling(&self.around);
        let warning = format!(
            "the encoding {} is a guess, because line {} is not UTF-8; there it reads {shown:?}: if this is wrong, name the encoding with \
             --encoding",
            encoding.name(),
            self.line,
        );
        FoundEncoding { encoding, reason, is_mixed: false, warning: Some(warning) }
    }
}

/// The cell with the bytes from `start` to `end`, or a part of it.
fn around(bytes: &[u8], start: usize, end: usize) -> &[u8] {
    const BYTES_MAX: usize = 20;
    let is_edge = |byte: &u8| b",;\t|\"\r\n".contains(byte);
    let before = bytes[..start].iter().rev().take(BYTES_MAX).take_while(|byte| !is_edge(byte));
    let after = bytes[end..].iter().take(BYTES_MAX).take_while(|byte| !is_edge(byte));
    &bytes[start - before.count()..end + after.count()]
}

/// Passes each run of UTF-8 with the malformed bytes after it to `each`. Returns the number of bytes that were used: at the end
/// there may be a part of a character.
pub(super) fn split(bytes: &[u8], is_end: bool, each: &mut dyn FnMut(&str, &[u8])) -> usize {
    let mut used = 0;
    for chunk in bytes.utf8_chunks() {
        let (valid, others) = (chunk.valid(), chunk.invalid());
        used += valid.len();
        let is_last = used + others.len() == bytes.len();
        let is_cut = std::str::from_utf8(others).is_err_and(|error| error.error_len().is_none());
        if is_last && is_cut && !is_end {
            each(valid, &[]);
            return used;
        }
        each(valid, others);
        used += others.len();
    }
    used
}

/// The text of bytes that are not UTF-8.
pub(super) fn other_text(bytes: &[u8]) -> Cow<'_, str> {
    OTHER.decode_without_bom_handling(bytes).0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(bytes: &[u8], piece: usize) -> FoundEncoding {
        let mut guess = EncodingGuess::default();
        for piece in bytes.chunks(piece) {
            guess.add(piece);
        }
        guess.finish()
    }

    fn guess(bytes: &[u8]) -> &'static str {
        // In pieces, so that characters are cut.
        let found = find(bytes, 3);
        assert!(!found.is_mixed);
        found.encoding.name()
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

    #[test]
    fn few_bytes_that_are_not_utf8_do_not_change_the_alphabet_of_all() {
        let utf8 = "größe;straße\n1,5;Café Zoë\n2,5;Weiß\n".as_bytes();
        let check = |bytes: &[u8], expected: &str, is_mixed: bool, words: &[&str]| {
            for piece in [1, 3, 1_000] {
                let found = find(bytes, piece);
                assert_eq!((found.encoding.name(), found.is_mixed), (expected, is_mixed));
                let warning = found.warning.unwrap();
                for word in words.iter().filter(|word| piece == 1_000 || word.contains("line")) {
                    assert!(warning.contains(word), "{word:?} in {warning}");
                }
            }
        };
        let mixed = [utf8, b"3;K\xf6ln\n"].concat();
        check(&mixed, "UTF-8", true, &["1 byte", "line 4", "windows-1252", "\"Köln\""]);
        let marked = [b"\xef\xbb\xbfa;b\r\n3;K\xf6ln\r\n".as_slice(), b"\xe4;\xe4"].concat();
        check(&marked, "UTF-8", true, &["3 bytes", "line 2", "\"Köln\""]);
        // In ASCII only.
        let ascii = b"a;b\r1;x\r3;K\xf6ln\r";
        check(ascii, "windows-1252", false, &["a guess", "line 3", "\"Köln\""]);
        // The end of the file cuts a character.
        check(&[utf8, b"\xc3"].concat(), "UTF-8", true, &["1 byte", "line 4"]);
        let russian = encoding_rs::WINDOWS_1251.encode("имя;возраст\nИван;34\nМария;29\n").0;
        check(&russian, "windows-1251", false, &["a guess", "line 1", "\"имя\""]);
        assert!(find(utf8, 3).warning.is_none());
    }
}

//! Numbers and strings as they are written in CEL.

use crate::error::Refusal;

/// A number without its sign.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Number {
    /// An int; its sign decides whether it fits.
    Int(u64),
    Uint(u64),
    Double(f64),
}

/// The number at `text[start..]`, and its length.
pub(crate) fn number(text: &str, start: usize) -> Result<(Number, usize), Refusal> {
    let rest = &text[start..];
    let digits = |from: usize| span(&rest[from..], |c| c.is_ascii_digit());
    let is_hexadecimal = rest.starts_with("0x");
    let (mut end, mut is_double) = (digits(0), false);
    if is_hexadecimal {
        end = 2 + span(&rest[2..], |c| c.is_ascii_hexdigit());
    } else {
        if rest[end..].starts_with('.') && digits(end + 1) > 0 {
            is_double = true;
            end += 1 + digits(end + 1);
        }
        if rest[end..].starts_with(['e', 'E']) {
            let sign = usize::from(rest[end + 1..].starts_with(['+', '-']));
            let exponent = digits(end + 1 + sign);
            if exponent > 0 {
                is_double = true;
                end += 1 + sign + exponent;
            }
        }
    }
    let is_unsigned = !is_double && rest[end..].starts_with(['u', 'U']);
    let length = end + usize::from(is_unsigned);
    let written = &rest[..length + span(&rest[length..], |c| c.is_alphanumeric() || c == '_')];
    if written.len() > length || (is_hexadecimal && end == 2) {
        return Err(Refusal::new(start, format!("{written} is not a number")));
    }
    let too_large = || Refusal::new(start, format!("{written} is too large"));
    if is_double {
        let double: f64 = rest[..end].parse().map_err(|_| too_large())?;
        return if double.is_finite() {
            Ok((Number::Double(double), length))
        } else {
            Err(too_large())
        };
    }
    let (base, digits) = if is_hexadecimal { (16, &rest[2..end]) } else { (10, &rest[..end]) };
    let value = u64::from_str_radix(digits, base).map_err(|_| too_large())?;
    Ok((if is_unsigned { Number::Uint(value) } else { Number::Int(value) }, length))
}

/// The prefix of the string that `text` begins with, such as `r`; none if it does not begin with a string.
pub(crate) fn text_prefix(text: &str) -> Option<&str> {
    let prefix = &text[..span(text, |c| matches!(c, 'r' | 'R' | 'b' | 'B'))];
    let is_string = text[prefix.len()..].starts_with(['"', '\'']) && prefix.len() <= 2;
    is_string.then_some(prefix)
}

/// The string with this prefix at `text[start..]`, and its length.
pub(crate) fn text(text: &str, start: usize, prefix: &str) -> Result<(String, usize), Refusal> {
    if prefix.contains(['b', 'B']) {
        return Err(Refusal::new(start, "bytes are not supported in a condition; write a string"));
    }
    let quoted = &text[start + prefix.len()..];
    let quote = &quoted[..1];
    let triple = quote.repeat(3);
    let (delimiter, is_long) =
        if quoted.starts_with(&triple) { (triple.as_str(), true) } else { (quote, false) };
    let body_start = start + prefix.len() + delimiter.len();
    let is_raw = !prefix.is_empty();

    let (mut value, mut at) = (String::new(), body_start);
    loop {
        let rest = &text[at..];
        if rest.starts_with(delimiter) {
            return Ok((value, at + delimiter.len() - start));
        }
        match rest.chars().next() {
            None => break,
            Some('\n' | '\r') if !is_long => break,
            Some('\\') if !is_raw => {
                let (character, length) = escape(&rest[1..]).ok_or_else(|| {
                    let shown: String = rest.chars().take(2).collect();
                    Refusal::new(
                        at,
                        format!("{shown} is not an escape sequence; write \\\\ for \\"),
                    )
                })?;
                value.push(character);
                at += 1 + length;
            }
            Some(character) => {
                value.push(character);
                at += character.len_utf8();
            }
        }
    }
    Err(Refusal::new(start, format!("the string is not closed with {delimiter}")))
}

/// The character that an escape sequence stands for, and the length of the sequence, both without the backslash.
fn escape(rest: &str) -> Option<(char, usize)> {
    let code = |from: usize, length: usize, base: u32| {
        let digits = rest.get(from..from + length)?;
        let is_code = digits.bytes().all(|digit| char::from(digit).is_digit(base));
        let value = u32::from_str_radix(digits, base).ok().filter(|_| is_code)?;
        Some((char::from_u32(value)?, from + length))
    };
    let character = match rest.chars().next()? {
        'a' => '\x07',
        'b' => '\x08',
        'f' => '\x0c',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\x0b',
        mark @ ('\\' | '?' | '"' | '\'' | '`') => mark,
        'x' | 'X' => return code(1, 2, 16),
        'u' => return code(1, 4, 16),
        'U' => return code(1, 8, 16),
        '0'..='3' => return code(0, 3, 8),
        _ => return None,
    };
    Some((character, 1))
}

/// The length of the part of `text` at its beginning whose characters are all `of`.
fn span(text: &str, of: impl Fn(char) -> bool) -> usize {
    text.find(|c: char| !of(c)).unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_number(written: &str, expected: Number) {
        assert_eq!(number(written, 0), Ok((expected, written.len())), "{written}");
    }

    fn check_text(written: &str, expected: &str) {
        let prefix = text_prefix(written).unwrap();
        assert_eq!(text(written, 0, prefix), Ok((expected.to_owned(), written.len())), "{written}");
    }

    fn check_refused(written: &str, at: usize, message: &str) {
        let found = match text_prefix(written) {
            Some(prefix) => text(written, 0, prefix).err(),
            None => number(written, 0).err(),
        };
        assert_eq!(found, Some(Refusal::new(at, message)), "{written}");
    }

    #[test]
    fn numbers_are_ints_uints_and_doubles() {
        check_number("0", Number::Int(0));
        check_number("007", Number::Int(7));
        check_number("9223372036854775808", Number::Int(1 << 63));
        check_number("0xFf", Number::Int(255));
        check_number("0x10u", Number::Uint(16));
        check_number("18446744073709551615U", Number::Uint(u64::MAX));
        check_number("1.5", Number::Double(1.5));
        check_number(".5", Number::Double(0.5));
        check_number("1e3", Number::Double(1000.0));
        check_number("1.5E-3", Number::Double(0.0015));
        check_number("1e+2", Number::Double(100.0));
    }

    #[test]
    fn what_is_not_a_number_is_refused() {
        check_refused("25k", 0, "25k is not a number");
        check_refused("1e", 0, "1e is not a number");
        check_refused("0x", 0, "0x is not a number");
        check_refused("1_000", 0, "1_000 is not a number");
        check_refused("1.5u", 0, "1.5u is not a number");
        check_refused("18446744073709551616", 0, "18446744073709551616 is too large");
        check_refused("1e999", 0, "1e999 is too large");
    }

    #[test]
    fn escapes_of_strings_are_resolved() {
        check_text(r#""""#, "");
        check_text(r"'it\'s'", "it's");
        check_text(r#"'"' "#.trim(), "\"");
        check_text(r"'\a\b\f\n\r\t\v\\\?\`'", "\x07\x08\x0c\n\r\t\x0b\\?`");
        check_text(r"'\x41\X42\u00e9\U0001F600\101\377'", "AB\u{e9}\u{1f600}A\u{ff}");
        check_text(
            r#""""two "quoted"
lines""""#,
            "two \"quoted\"\nlines",
        );
        check_text("'''x''x'''", "x''x");
        check_text("'é>50K'", "é>50K");
    }

    #[test]
    fn raw_strings_keep_their_backslashes() {
        check_text(r#"r"\d+\n""#, r"\d+\n");
        check_text(r"R'\'", r"\");
        check_text("r'''\\\n'''", "\\\n");
    }

    #[test]
    fn what_is_not_a_string_is_refused() {
        check_refused("'abc", 0, "the string is not closed with '");
        check_refused("\"abc\n\"", 0, "the string is not closed with \"");
        check_refused("'''abc''", 0, "the string is not closed with '''");
        check_refused(r"'a\d'", 2, r"\d is not an escape sequence; write \\ for \");
        check_refused(r"'\ud83d'", 1, r"\u is not an escape sequence; write \\ for \");
        check_refused(r"'\x4'", 1, r"\x is not an escape sequence; write \\ for \");
        check_refused(r"'\400'", 1, r"\4 is not an escape sequence; write \\ for \");
        check_refused("'\\", 1, r"\ is not an escape sequence; write \\ for \");
        check_refused("b'a'", 0, "bytes are not supported in a condition; write a string");
        check_refused("br'a'", 0, "bytes are not supported in a condition; write a string");
    }
}

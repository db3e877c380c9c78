//! Tokens of CEL, with their positions.

use crate::{
    error::Refusal,
    literals::{self, Number},
};

/// A token.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Token {
    /// A name, a keyword or a reserved word.
    Name,
    /// A number without its sign.
    Number(Number),
    /// A string, with its escapes resolved.
    Text(String),
    /// An operator or a punctuation mark.
    Symbol(&'static str),
    /// The end of the text.
    End,
}

/// A token at bytes `start..end` of the text.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Located {
    pub(crate) token: Token,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// Longer ones before their prefixes.
const SYMBOLS: [&str; 24] = [
    "==", "!=", "<=", ">=", "&&", "||", "<", ">", "!", "+", "-", "*", "/", "%", "?", ":", "(", ")",
    "[", "]", "{", "}", ".", ",",
];
/// Symbols of other languages, with what CEL has instead.
const OTHERS: [(&str, &str); 6] =
    [("===", "=="), ("!==", "!="), ("<>", "!="), ("=", "=="), ("&", "&&"), ("|", "||")];

/// The tokens of `text`; the last is [`Token::End`].
pub(crate) fn tokenize(text: &str) -> Result<Vec<Located>, Refusal> {
    let mut tokens = Vec::new();
    let mut at = 0;
    loop {
        at += blank(&text[at..]);
        let start = at;
        let rest = &text[start..];
        let Some(first) = rest.chars().next() else {
            tokens.push(Located { token: Token::End, start, end: start });
            return Ok(tokens);
        };
        let starts_fraction = first == '.' && rest[1..].starts_with(|c: char| c.is_ascii_digit());
        let (token, length) = if first.is_ascii_digit() || starts_fraction {
            let (number, length) = literals::number(text, start)?;
            (Token::Number(number), length)
        } else if let Some(prefix) = literals::text_prefix(rest) {
            let (value, length) = literals::text(text, start, prefix)?;
            (Token::Text(value), length)
        } else if first.is_ascii_alphabetic() || first == '_' {
            (Token::Name, name_length(rest))
        } else {
            let symbol = symbol(rest).map_err(|message| Refusal::new(start, message))?;
            (Token::Symbol(symbol), symbol.len())
        };
        at += length;
        tokens.push(Located { token, start, end: at });
    }
}

fn symbol(rest: &str) -> Result<&'static str, String> {
    let symbol = SYMBOLS.into_iter().find(|symbol| rest.starts_with(symbol));
    let other = OTHERS.into_iter().find(|(other, _)| rest.starts_with(other));
    match (symbol, other) {
        // `=` is also the beginning of `==`; `<>` begins with a symbol.
        (Some(symbol), Some((other, _))) if symbol.len() >= other.len() => Ok(symbol),
        (_, Some((other, right))) => {
            Err(format!("{other} is not an operator of conditions; did you mean {right}?"))
        }
        (Some(symbol), None) => Ok(symbol),
        (None, None) => {
            let character = rest.chars().next().unwrap_or(' ');
            Err(match character {
                '“' | '”' | '„' | '‘' | '’' => {
                    format!("{character} does not begin a string; use \" or '")
                }
                _ => format!("unexpected character {character:?}"),
            })
        }
    }
}

/// The length of the white space and the comments at the beginning of `text`.
fn blank(text: &str) -> usize {
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches(['\t', '\n', '\x0c', '\r', ' ']);
        if !rest.starts_with("//") {
            return text.len() - rest.len();
        }
        rest = rest.find('\n').map_or("", |newline| &rest[newline..]);
    }
}

/// The length of the name at the beginning of `text`.
fn name_length(text: &str) -> usize {
    text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[&str]) {
        let tokens = tokenize(text).unwrap();
        let (last, tokens) = tokens.split_last().unwrap();
        assert_eq!((&last.token, last.start), (&Token::End, text.len()));
        let found: Vec<_> = tokens.iter().map(|token| &text[token.start..token.end]).collect();
        assert_eq!(found, expected);
    }

    fn check_refused(text: &str, at: usize, message: &str) {
        assert_eq!(tokenize(text), Err(Refusal::new(at, message)), "{text}");
    }

    #[test]
    fn a_text_is_split_at_the_longest_tokens() {
        check("a<=b&&!c", &["a", "<=", "b", "&&", "!", "c"]);
        check("1.5e3.x .5 1.x", &["1.5e3", ".", "x", ".5", "1", ".", "x"]);
        check("x[\">50K\"]//end", &["x", "[", "\">50K\"", "]"]);
        check("a // one\n + // two\r\n b //", &["a", "+", "b"]);
        check("r'\\' + R\"x\" + rx", &["r'\\'", "+", "R\"x\"", "+", "rx"]);
        check("'''a'b\n'''", &["'''a'b\n'''"]);
        check(" \t\r\n", &[]);
    }

    #[test]
    fn operators_of_other_languages_are_refused_with_the_right_one() {
        check_refused("a = 1", 2, "= is not an operator of conditions; did you mean ==?");
        check_refused("a === 1", 2, "=== is not an operator of conditions; did you mean ==?");
        check_refused("a <> 1", 2, "<> is not an operator of conditions; did you mean !=?");
        check_refused("a & b", 2, "& is not an operator of conditions; did you mean &&?");
        check_refused("a ~ b", 2, "unexpected character '~'");
        check_refused("ä", 0, "unexpected character 'ä'");
        check_refused("“a”", 0, "“ does not begin a string; use \" or '");
    }
}

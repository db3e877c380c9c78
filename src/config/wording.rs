//! Rewrites messages of serde and the TOML parser for users: without the names of Rust types.

use std::borrow::Cow;

/// The expected value: serde's words, and those for users.
const EXPECTED: &[(&str, &str)] = &[
    ("u8", "a whole number from 0 to 255"),
    ("u16", "a whole number from 0 to 65535"),
    ("u32", "a whole number from 0 to 4294967295"),
    ("u64", "a whole number, 0 or more"),
    ("usize", "a whole number, 0 or more"),
    ("i64", "a whole number"),
    ("f64", "a number"),
    ("a boolean", "true or false"),
    ("a character", "one character in quotes, such as \",\""),
    ("a string", "a text in quotes"),
    ("path string", "a path in quotes"),
    ("a sequence", "a list, such as [\"a\", \"b\"]"),
    ("a map", "a table, such as { a = 1 }"),
    ("a tuple of size 2", "a list of two"),
    ("a duration", "a duration, such as \"100ms\", \"10s\" or \"1 day\""),
];

/// The value that was found: serde's words, and those for users.
const FOUND: &[(&str, &str)] = &[
    ("invalid type: floating point ", "invalid type: number "),
    ("invalid value: floating point ", "invalid value: number "),
    ("invalid type: sequence", "invalid type: a list"),
    ("invalid type: map", "invalid type: a table"),
    ("unknown variant ", "unknown value "),
];

/// Messages of the parser about a text without quotes. The text itself may be a secret, and is not in them.
const UNQUOTED: &[&str] = &[
    "invalid boolean",
    "invalid float",
    "unexpected leading zero",
    "string values must be quoted",
];

pub(super) fn plain(message: &str) -> String {
    if message.contains("expected newtype variant") {
        return "it needs a value of its own, such as { answers = 5 } or { label = \"no\" }"
            .to_owned();
    }
    if message.contains("expected unit variant") {
        return "it takes no value of its own: write its name alone, in quotes".to_owned();
    }
    let mut plain = Cow::Borrowed(message);
    if let Some((found, expected)) = message.rsplit_once(", expected ")
        && let Some((_, words)) = EXPECTED.iter().find(|(serde, _)| *serde == expected)
    {
        plain = Cow::Owned(format!("{found}, expected {words}"));
    }
    for (serde, words) in FOUND {
        if let Some(rest) = plain.strip_prefix(serde) {
            plain = Cow::Owned(format!("{words}{rest}"));
        }
    }
    if UNQUOTED.iter().any(|part| message.contains(part)) {
        return format!(
            "{plain}: write a text in quotes, and booleans as true and false in small letters"
        );
    }
    plain.into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_do_not_name_rust_types() {
        let check = |message: &str, expected: &str| assert_eq!(plain(message), expected);
        check(
            "invalid value: integer `-1`, expected usize",
            "invalid value: integer `-1`, expected a whole number, 0 or more",
        );
        check(
            "invalid type: floating point `1.5`, expected u32",
            "invalid type: number `1.5`, expected a whole number from 0 to 4294967295",
        );
        check(
            "invalid type: sequence, expected a string",
            "invalid type: a list, expected a text in quotes",
        );
        check("missing field `label`", "missing field `label`");
        assert!(plain("invalid boolean, expected `false`").ends_with("in small letters"));
    }
}

//! Removes secrets from addresses before they are shown in messages, in logs or in the errors of libraries. An address may
//! contain a user, a password or a key, even if it does not parse.

use std::borrow::Cow;

/// The replacement for hidden parts.
const HIDDEN: &str = "[hidden]";

/// One or more addresses, separated by commas, with everything hidden that may be a secret: the part before an `@`, the
/// query and the fragment. An address need not be valid. If it can be parsed in two ways, the result is the one that shows
/// less.
#[must_use]
pub fn shown(address: &str) -> String {
    let pieces = address.split(',').map(|piece| {
        let (scheme, rest) = match piece.split_once("://") {
            Some((scheme, rest)) if is_scheme(scheme) => (scheme, rest),
            Some(_) | None => ("", piece),
        };
        let colon = if scheme.is_empty() { "" } else { "://" };
        format!("{scheme}{colon}{}", without_secrets(rest))
    });
    // Splitting at commas would split a password with a comma, and show its first half.
    match address.rsplit_once('@') {
        Some((before, after)) if before.contains(',') => {
            format!("{HIDDEN}@{}", without_secrets(after))
        }
        Some(_) | None => pieces.collect::<Vec<_>>().join(","),
    }
}

/// A text with all addresses in it shown as by [`shown`], for messages of libraries.
#[must_use]
pub fn hide_in(text: &str) -> Cow<'_, str> {
    if !text.contains("://") {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(separator) = rest.find("://") {
        let after = separator + "://".len();
        let ends = |c: char| c.is_whitespace() || "\"'`<>()[]{}\\".contains(c);
        let end = rest[after..].find(ends).map_or(rest.len(), |length| after + length);
        safe.push_str(&rest[..after]);
        safe.push_str(&without_secrets(&rest[after..end]));
        rest = &rest[end..];
    }
    safe.push_str(rest);
    Cow::Owned(safe)
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "+-._".contains(c))
}

/// Hides the secrets in an address without its scheme. A password that is not percent-encoded may contain any character,
/// including `/`.
fn without_secrets(rest: &str) -> String {
    let (hidden, rest) = match rest.rsplit_once('@') {
        Some((_, rest)) => (format!("{HIDDEN}@"), rest),
        None => (String::new(), rest),
    };
    match rest.find(['?', '#']) {
        Some(end) if end + 1 < rest.len() => format!("{hidden}{}{HIDDEN}", &rest[..=end]),
        Some(_) | None => format!("{hidden}{rest}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn possible_secrets_are_hidden() {
        let check = |address: &str, expected: &str| assert_eq!(shown(address), expected);
        check("http://localhost:8081/x", "http://localhost:8081/x");
        check("kafka-1:9092,kafka-2:9092", "kafka-1:9092,kafka-2:9092");
        check("https://u:p@a:1/x", "https://[hidden]@a:1/x");
        check("http://u:p/w@a", "http://[hidden]@a");
        check("http://u:p@w@a", "http://[hidden]@a");
        check("http://u:p?w@a", "http://[hidden]@a");
        check("u:p@a:9092", "[hidden]@a:9092");
        check("http:/u:p@a", "[hidden]@a");
        check("http://u:p,w@a", "[hidden]@a");
        check("a:1,SASL_SSL://u:p@b:1", "[hidden]@b:1");
        check("https://a/x?key=p", "https://a/x?[hidden]");
        check("https://a?", "https://a?");
        check("https://a#p", "https://a#[hidden]");
        check("", "");
    }

    #[test]
    fn possible_secrets_in_the_addresses_of_a_text_are_hidden() {
        let check = |text: &str, expected: &str| assert_eq!(hide_in(text), expected);
        check("topic a/0@12: no", "topic a/0@12: no");
        check(
            "error for url (http://u:p@a/b?key=p): no (see \"ssl://a:1/bootstrap\")",
            "error for url (http://[hidden]@a/b?[hidden]): no (see \"ssl://a:1/bootstrap\")",
        );
        check("a://b@c d://e?f", "a://[hidden]@c d://e?[hidden]");
        check("://", "://");
    }
}

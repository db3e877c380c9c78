//! Addresses as they may be shown. A user, a password or a key may stand in one, also in one that does not
//! parse, and an address is in messages, in logs and in the errors of libraries.

use std::borrow::Cow;

/// What stands in place of what is not shown.
const HIDDEN: &str = "[hidden]";

/// An address, or several separated by commas, without what may be a secret: what precedes an `@`, the query and
/// the fragment. It need not be a valid one: of two readings, the one that shows less is taken.
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
    // A password with a comma would be cut in two, and only the second half has the `@`.
    match address.rsplit_once('@') {
        Some((before, after)) if before.contains(',') => {
            format!("{HIDDEN}@{}", without_secrets(after))
        }
        Some(_) | None => pieces.collect::<Vec<_>>().join(","),
    }
}

/// A text with every address in it as [`shown`] shows it: the last net for what libraries say.
#[must_use]
pub fn hide_in(text: &str) -> Cow<'_, str> {
    if !text.contains("://") {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(place) = rest.find("://") {
        let after = place + "://".len();
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

/// What follows a scheme. A password may hold any character, a `/` too, where nobody has encoded it.
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
    fn what_may_be_a_secret_is_not_shown() {
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
    fn texts_are_shown_without_the_secrets_in_their_addresses() {
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

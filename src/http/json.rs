//! JSON in which an object has each key once. Of a repeated key, serde_json keeps the last value, so the caller would not learn
//! that the others are ignored.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value as Json, error::Category};

/// Parses a text.
///
/// # Errors
/// A message for the caller if the text is not JSON, or a key is repeated.
pub(super) fn parse(text: &[u8]) -> Result<Json, String> {
    let parsed: Result<Unique, serde_json::Error> = serde_json::from_slice(text);
    parsed.map(|unique| unique.0).map_err(|error| match error.classify() {
        Category::Data => error.to_string(),
        Category::Io | Category::Syntax | Category::Eof => format!("not JSON: {error}"),
    })
}

/// Parses a text in which a bare `NaN` is null. Python's JSON has it for a missing number, so MLflow's client sends it. A text
/// without it is parsed once, any other at most twice.
///
/// # Errors
/// As [`parse`]. The message for a bare `Infinity` says that it is not a value.
pub(super) fn parse_with_nan(text: &[u8]) -> Result<Json, String> {
    let problem = match parse(text) {
        Ok(value) => return Ok(value),
        Err(problem) => problem,
    };
    let (mut changed, mut from) = (Vec::new(), 0);
    for (start, word) in bare_words(text) {
        match word {
            b"NaN" => {
                changed.extend_from_slice(&text[from..start]);
                changed.extend_from_slice(b"null");
                from = start + word.len();
            }
            b"Infinity" => {
                return Err(
                    "not JSON: Infinity is not a value: send a finite number, or null for a missing answer"
                        .to_owned(),
                );
            }
            _ => {}
        }
    }
    if from == 0 {
        return Err(problem);
    }
    changed.extend_from_slice(&text[from..]);
    // Its columns are not those of the text.
    parse(&changed).map_err(|problem| format!("{problem}, with each NaN read as null"))
}

/// The words outside of strings, with their positions: letters, digits and what else is beside them without a separator, but for
/// a sign.
fn bare_words(text: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut at = 0;
    std::iter::from_fn(move || {
        while at < text.len() {
            let start = at;
            if text[at] == b'"' {
                at = end_of_string(text, at);
                continue;
            }
            let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || b"_.".contains(byte);
            let length = text[at..].iter().take_while(|byte| is_word(byte)).count();
            at += length.max(1);
            if length > 0 {
                return Some((start, &text[start..at]));
            }
        }
        None
    })
}

/// The position after the string that begins at `start`.
fn end_of_string(text: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < text.len() && text[at] != b'"' {
        at += if text[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(text.len())
}

/// A value whose objects have each key once.
struct Unique(Json);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(UniqueVisitor).map(Self)
    }
}

struct UniqueVisitor;

impl<'de> Visitor<'de> for UniqueVisitor {
    type Value = Json;

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Json, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Json, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Json, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Json, E> {
        Ok(value.into())
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Json, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Json, A::Error> {
        let mut values = Vec::new();
        while let Some(Unique(value)) = from.next_element()? {
            values.push(value);
        }
        Ok(Json::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Json, A::Error> {
        let mut fields = Map::new();
        while let Some((key, Unique(value))) = from.next_entry::<String, Unique>()? {
            if fields.contains_key(&key) {
                return Err(A::Error::custom(format!("key {key:?} is repeated")));
            }
            fields.insert(key, value);
        }
        Ok(Json::Object(fields))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_json() -> impl Strategy<Value = Json> {
        let number = prop_oneof![
            any::<i64>().prop_map(Json::from),
            any::<u64>().prop_map(Json::from),
            any::<f64>().prop_map(Json::from),
        ];
        let leaf = prop_oneof![
            Just(Json::Null),
            any::<bool>().prop_map(Json::from),
            number,
            ".*".prop_map(Json::from)
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Json::from),
                prop::collection::btree_map(".*", inner, 0..5)
                    .prop_map(|fields| Json::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_value_without_repeated_keys_is_what_serde_json_reads(json in any_json()) {
            let text = json.to_string();
            let expected: Json = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(parse(text.as_bytes()), Ok(expected));
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_as_without_nan_if_it_is_json(text in r#"([\[\]{},:"\\ a1-]|NaN|null)*"#) {
            if let Ok(value) = parse(text.as_bytes()) {
                prop_assert_eq!(parse_with_nan(text.as_bytes()), Ok(value));
            } else {
                drop(parse_with_nan(text.as_bytes()));
            }
        }

        #[test]
        fn a_bare_nan_is_null_wherever_a_value_may_be(json in any_json()) {
            let list = serde_json::json!({ "a\"NaN": [json, null, "\\\"NaN, NaN"], "b": null });
            let bare = list.to_string().replace(",null,\"\\\\", ",NaN,\"\\\\").replace(":null}", ":NaN}");
            let expected: Json = serde_json::from_str(&list.to_string()).unwrap();
            prop_assert_eq!(parse_with_nan(bare.as_bytes()), Ok(expected));
        }
    }

    #[test]
    fn what_is_neither_json_nor_nan_is_refused_with_the_reason() {
        let check = |text: &str, words: &str| {
            let problem = parse_with_nan(text.as_bytes()).unwrap_err();
            assert!(problem.contains(words), "{words:?} in {problem:?}");
        };
        check("[1, Infinity]", "Infinity is not a value: send a finite number, or null");
        check("[NaN, -Infinity]", "Infinity is not a value");
        check("[\"Infinity\", x]", "not JSON: expected value");
        check("[-NaN]", "not JSON: invalid number");
        check("[NaNs]", "not JSON: expected value at line 1 column 2");
        check("[NaN, {\"a\": 1, \"a\": 2}]", "key \"a\" is repeated");
        check("[NaN, NaN", "with each NaN read as null");
        check("[\"NaN", "not JSON: EOF");
        check("\"\\", "not JSON: EOF");
        assert!(parse(b"[NaN]").is_err(), "only where it is asked for");
    }

    #[test]
    fn a_repeated_key_is_refused_at_any_depth() {
        let check = |text: &str, expected: &str| {
            assert_eq!(parse(text.as_bytes()), Err(expected.to_owned()))
        };
        check(r#"{"a":1,"a":1}"#, "key \"a\" is repeated at line 1 column 13");
        check(r#"[{"b":{"c":1,"d":2,"\u0063":3}}]"#, "key \"c\" is repeated at line 1 column 30");
        check(r#"{"a":1"#, "not JSON: EOF while parsing an object at line 1 column 6");
        check("{} {}", "not JSON: trailing characters at line 1 column 4");
        assert!(parse(r#"{"a":{"a":1},"b":{"a":2}}"#.as_bytes()).is_ok());
        let deep = "[".repeat(10_000);
        assert!(parse(deep.as_bytes()).unwrap_err().contains("recursion limit"));
    }
}

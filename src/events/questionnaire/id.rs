//! Ids of respondents and events, converted to one canonical form for every input. Events and outcomes are joined by the
//! respondent id, so two spellings of one id would be two respondents.
//!
//! | in the schema | canonical form | also valid |
//! |---|---|---|
//! | `string` | the text, trimmed | |
//! | `uuid` over `string`, `bytes` or `fixed` | `8-4-4-4-12` lower-case hexadecimal digits | upper-case digits |
//! | `int`, `long` | the number in digits | `0042`, `+42`, `42.0`; in JSON also as text |

use std::borrow::Cow;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::events::questionnaire::{answer, spelling, uuid};
use foretell_avro::dynamic::Cell;
use foretell_streams::time::WallTime;

/// The type of ids in the schema. In an event they are always text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IdKind {
    Text,
    Int,
    Long,
    /// A string of logical type `uuid`.
    UuidText,
    /// A UUID of 16 bytes.
    UuidBytes,
}

impl IdKind {
    /// The canonical form of an id in a text; empty if it is blank.
    ///
    /// # Errors
    /// A description of the valid values.
    pub(super) fn of_text(self, text: &str) -> Result<Cow<'_, str>, &'static str> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(Cow::Borrowed(text));
        }
        let id = match self {
            Self::Text => return Ok(Cow::Borrowed(text)),
            Self::Int | Self::Long => {
                spelling::whole_in(text).and_then(|number| self.number(number))
            }
            Self::UuidText | Self::UuidBytes => {
                uuid::parse(text).and_then(|bytes| uuid::shown(&bytes))
            }
        };
        id.map(Cow::Owned).ok_or_else(|| self.wanted())
    }

    /// The canonical form of an id in JSON; empty if it is null or blank.
    ///
    /// # Errors
    /// A description of the valid values.
    pub(super) fn of_json(self, value: &Value) -> Result<String, &'static str> {
        match (self, value) {
            (_, Value::Null) => Ok(String::new()),
            (_, Value::String(text)) => self.of_text(text).map(Cow::into_owned),
            (Self::Int | Self::Long, Value::Number(number)) => answer::whole_number(number)
                .and_then(|number| self.number(number))
                .ok_or_else(|| self.wanted()),
            (_, Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
                Err(self.wanted())
            }
        }
    }

    /// The canonical form of an id in an event; empty if there is none.
    ///
    /// # Errors
    /// A description of the valid values.
    pub(super) fn of_cell(self, cell: Cell<'_>) -> Result<String, &'static str> {
        match cell {
            Cell::Text(text) => self.of_text(text).map(Cow::into_owned),
            Cell::Long(number) => Ok(number.to_string()),
            Cell::Bytes([]) => Ok(String::new()),
            Cell::Bytes(bytes) => uuid::shown(bytes).ok_or(uuid::WANTED),
            Cell::Null | Cell::Boolean(_) | Cell::Double(_) | Cell::Other => Ok(String::new()),
        }
    }

    /// The Avro cell of an id in canonical form. An id that is not a number or a UUID stays text; encoding then fails and names
    /// the field.
    pub(super) fn cell<'e>(self, id: &'e str, blob: &'e mut Option<Vec<u8>>) -> Cell<'e> {
        match self {
            Self::Text => Cell::Text(id),
            Self::UuidText | Self::Int | Self::Long | Self::UuidBytes if id.is_empty() => {
                Cell::Null
            }
            Self::UuidText => Cell::Text(id),
            Self::Int | Self::Long => id.parse().map_or(Cell::Text(id), Cell::Long),
            Self::UuidBytes => {
                *blob = uuid::parse(id).map(|bytes| bytes.to_vec());
                blob.as_deref().map_or(Cell::Text(id), Cell::Bytes)
            }
        }
    }

    /// The id for a client's `name` of a request: the name itself if it is valid, else an id that is always derived from it in the
    /// same way.
    pub(super) fn of_name(self, name: &str) -> String {
        match (self, self.of_text(name)) {
            // `7`, `07` and `7.0` are three different names.
            (Self::Int | Self::Long, Ok(id)) if id != name => self.hashed(name),
            (_, Ok(id)) if !id.is_empty() => id.into_owned(),
            (Self::Text, _) => name.to_owned(),
            (Self::UuidText | Self::UuidBytes, _) => uuid::of_name(name),
            (Self::Int | Self::Long, _) => self.hashed(name),
        }
    }

    /// A new id, from the time and a unique `name`.
    pub(super) fn new_id(self, name: &str, now: WallTime) -> String {
        match self {
            Self::Text => name.to_owned(),
            Self::UuidText | Self::UuidBytes => uuid::of_time(now.0, name),
            Self::Int | Self::Long => self.hashed(name),
        }
    }

    /// A non-negative number from the hash of a name. It has to distinguish the events of one respondent.
    fn hashed(self, name: &str) -> String {
        let digest = Sha256::digest(name.as_bytes());
        let bytes = *digest.first_chunk().expect("a hash has 32 bytes");
        let bits = if self == Self::Int { 31 } else { 63 };
        (u64::from_be_bytes(bytes) >> (64 - bits)).to_string()
    }

    fn number(self, number: i64) -> Option<String> {
        let fits = self != Self::Int || i32::try_from(number).is_ok();
        fits.then(|| number.to_string())
    }

    /// The type, in messages.
    pub(super) fn type_name(self) -> &'static str {
        match self {
            Self::Text => "a string",
            Self::Int => "an int",
            Self::Long => "a long",
            Self::UuidText => "a uuid in a string",
            Self::UuidBytes => "a uuid of 16 bytes",
        }
    }

    pub(super) fn wanted(self) -> &'static str {
        match self {
            Self::Text => "a string",
            Self::Int => "a whole number of 32 bits",
            Self::Long => answer::LONG_WANTED,
            Self::UuidText | Self::UuidBytes => uuid::WANTED,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const UUID: &str = "0123abcd-4567-89ef-0123-456789abcdef";

    #[test]
    fn every_spelling_of_an_id_has_one_canonical_form() {
        let check = |kind: IdKind, spellings: &[&str], form: &str| {
            for spelling in spellings {
                assert_eq!(kind.of_text(spelling).as_deref(), Ok(form), "{kind:?} {spelling:?}");
            }
        };
        check(IdKind::Text, &["a b", " a b", "a b\t"], "a b");
        check(IdKind::Text, &["0042"], "0042");
        check(IdKind::Long, &["42", "0042", "+42", " 42 ", "42.0", "4.2e1"], "42");
        check(IdKind::Long, &["9007199254740993", "9007199254740993.0"], "9007199254740993");
        check(IdKind::Long, &["9223372036854775807"], "9223372036854775807");
        check(IdKind::Int, &["-2147483648"], "-2147483648");
        for kind in [IdKind::UuidText, IdKind::UuidBytes] {
            check(kind, &[UUID, &UUID.to_uppercase(), &format!(" {UUID}\n")], UUID);
        }
        for kind in [IdKind::Text, IdKind::Int, IdKind::Long, IdKind::UuidText, IdKind::UuidBytes] {
            check(kind, &["", "  "], "");
        }
    }

    #[test]
    fn invalid_ids_are_rejected() {
        for (kind, texts) in [
            (IdKind::Int, ["2147483648", "x", "1.5"]),
            (IdKind::Long, ["9223372036854775808", "0x10", "4 2"]),
            (IdKind::UuidText, ["x", "0123abcd456789ef0123456789abcdef", "42"]),
        ] {
            for text in texts {
                assert_eq!(kind.of_text(text), Err(kind.wanted()), "{kind:?} {text:?}");
            }
        }
        assert_eq!(IdKind::UuidBytes.of_cell(Cell::Bytes(&[1, 2])), Err(uuid::WANTED));
        assert_eq!(IdKind::UuidBytes.of_cell(Cell::Bytes(&[])).as_deref(), Ok(""), "there is none");
        assert!(IdKind::Text.of_json(&Value::from(42)).is_err(), "42 is not 0042");
        assert_eq!(IdKind::Long.of_json(&Value::from(42.0)).as_deref(), Ok("42"));
        assert!(IdKind::Long.of_json(&Value::from(1e17)).is_err(), "it may be rounded");
    }

    #[test]
    fn new_ids_have_the_type_of_the_schema() {
        let now = WallTime(1_790_000_000_000);
        for kind in [IdKind::Text, IdKind::Int, IdKind::Long, IdKind::UuidText, IdKind::UuidBytes] {
            let (made, named) = (kind.new_id("api-1", now), kind.of_name("order 7"));
            assert_eq!(kind.of_text(&made).as_deref(), Ok(made.as_str()), "{kind:?}");
            assert_eq!(kind.of_text(&named).as_deref(), Ok(named.as_str()), "{kind:?}");
            assert_eq!(kind.of_name("order 7"), named, "each time the same");
            assert_ne!(kind.of_name("order 8"), named);
            assert_ne!(kind.new_id("api-2", now), made);
        }
        assert_eq!(IdKind::UuidText.of_name(&UUID.to_uppercase()), UUID);
        assert_eq!(IdKind::UuidText.of_name("order 7").as_bytes()[14], b'5');
        assert_eq!(IdKind::UuidText.new_id("api-1", now).as_bytes()[14], b'7');
        let numbers = ["7", "07", "7.0", "70e-1"].map(|name| IdKind::Long.of_name(name));
        assert_eq!(numbers[0], "7");
        assert_eq!(BTreeSet::from(numbers.clone()).len(), 4, "requests of four names: {numbers:?}");
    }
}

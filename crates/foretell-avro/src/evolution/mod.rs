//! Schema evolution: checks the versions of a subject against a compatibility level, and describes the difference of two
//! schemas.
//!
//! The levels are Confluent's
//! (<https://docs.confluent.io/platform/current/schema-registry/fundamentals/schema-evolution.html>). Two checks must
//! agree that a schema can read another: apache-avro's, and this crate's resolution, by which records are decoded.

mod aliases;
mod changes;

pub use changes::{Change, ChangeKind, changes};

pub use apache_avro::Schema;

use apache_avro::schema_compatibility::SchemaCompatibility;
use serde::{Deserialize, Serialize};

use crate::resolution::Resolution;

/// Compatibility level: the versions that must be able to read each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Level {
    /// No requirement.
    None,
    /// The new version reads records of the previous one: upgrade readers first.
    #[default]
    Backward,
    /// The new version reads records of all earlier ones.
    BackwardTransitive,
    /// The previous version reads records of the new one: upgrade writers first.
    Forward,
    /// All earlier versions read records of the new one.
    ForwardTransitive,
    /// `Backward` and `Forward`: upgrade in any order.
    Full,
    /// `BackwardTransitive` and `ForwardTransitive`.
    FullTransitive,
}

impl Level {
    /// All levels.
    pub const ALL: [Self; 7] = [
        Self::None,
        Self::Backward,
        Self::BackwardTransitive,
        Self::Forward,
        Self::ForwardTransitive,
        Self::Full,
        Self::FullTransitive,
    ];

    /// Name of the level in registries' APIs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::Backward => "BACKWARD",
            Self::BackwardTransitive => "BACKWARD_TRANSITIVE",
            Self::Forward => "FORWARD",
            Self::ForwardTransitive => "FORWARD_TRANSITIVE",
            Self::Full => "FULL",
            Self::FullTransitive => "FULL_TRANSITIVE",
        }
    }

    /// Whether the level applies to all versions, not only to the last two.
    #[must_use]
    pub fn is_transitive(self) -> bool {
        matches!(self, Self::BackwardTransitive | Self::ForwardTransitive | Self::FullTransitive)
    }

    /// Whether new schemas must read old records.
    #[must_use]
    pub fn is_backward(self) -> bool {
        match self {
            Self::Backward | Self::BackwardTransitive | Self::Full | Self::FullTransitive => true,
            Self::None | Self::Forward | Self::ForwardTransitive => false,
        }
    }

    /// Whether old schemas must read new records.
    #[must_use]
    pub fn is_forward(self) -> bool {
        match self {
            Self::Forward | Self::ForwardTransitive | Self::Full | Self::FullTransitive => true,
            Self::None | Self::Backward | Self::BackwardTransitive => false,
        }
    }
}

/// Parses a schema, which must not refer to other schemas.
///
/// # Errors
/// apache-avro's message.
pub fn parse(text: &str) -> Result<Schema, String> {
    Schema::parse_str(text).map_err(|error| error.to_string())
}

/// A pair of versions that breaks a compatibility level.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breach {
    /// Number of the writer's version, from 1.
    pub written: usize,
    /// Number of the reader's version, from 1, which cannot read records of the other.
    pub reading: usize,
    /// The reason why it cannot.
    pub reason: String,
}

/// Checks the `versions` of a subject, oldest first, against `level`; returns all pairs that break it.
#[must_use]
pub fn breaches(level: Level, versions: &[Schema]) -> Vec<Breach> {
    let mut found = Vec::new();
    let mut check = |written: usize, reading: usize| {
        if let Err(reason) = can_read(&versions[written], &versions[reading]) {
            found.push(Breach { written: written + 1, reading: reading + 1, reason });
        }
    };
    for newer in 1..versions.len() {
        let first = if level.is_transitive() { 0 } else { newer - 1 };
        for older in first..newer {
            if level.is_backward() {
                check(older, newer);
            }
            if level.is_forward() {
                check(newer, older);
            }
        }
    }
    found
}

/// Checks that all records of `written` can be read with `reading`. (Where only some can, those are decoded nevertheless.)
///
/// # Errors
/// The first reason of this crate's resolution or of apache-avro why a record cannot be read.
pub fn can_read(written: &Schema, reading: &Schema) -> Result<(), String> {
    if let Some(gap) = Resolution::compile(written, reading)?.gap(written) {
        return Err(gap);
    }
    let check = |written: &Schema| SchemaCompatibility::can_read(written, reading).map(drop);
    let result = check(written).or_else(|error| {
        aliases::with_names_of(reading, written).map_or(Err(error), |renamed| check(&renamed))
    });
    result.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn versions(fields: &[&str]) -> Vec<Schema> {
        let schema = |fields: &&str| {
            let text = format!(r#"{{"type":"record","name":"R","fields":[{fields}]}}"#);
            Schema::parse_str(&text).expect(fields)
        };
        fields.iter().map(schema).collect()
    }

    fn check(level: Level, fields: &[&str], expected: &[(usize, usize)]) {
        let found = breaches(level, &versions(fields));
        let pairs: Vec<_> = found.iter().map(|breach| (breach.written, breach.reading)).collect();
        assert_eq!(pairs, expected, "{level:?}: {found:?}");
    }

    #[test]
    fn each_level_checks_its_pairs_of_versions() {
        let int = r#"{"name":"a","type":"int"}"#;
        let long = r#"{"name":"a","type":"long"}"#;
        check(Level::None, &[long, int], &[]);
        check(Level::Backward, &[int, long], &[]);
        check(Level::Forward, &[int, long], &[(2, 1)]);
        check(Level::Full, &[int, long], &[(2, 1)]);
        check(Level::Backward, &[long, int], &[(1, 2)]);
        check(Level::Forward, &[long, int], &[]);
        // Each version is compatible with the previous one, but the third cannot read records of the first.
        let more = r#"{"name":"a","type":"int"},{"name":"b","type":"int","default":0}"#;
        let must = r#"{"name":"a","type":"int"},{"name":"b","type":"int"}"#;
        check(Level::Backward, &[int, more, must], &[]);
        check(Level::BackwardTransitive, &[int, more, must], &[(1, 3)]);
        check(Level::FullTransitive, &[int, more, must], &[(1, 3)]);
        check(Level::FullTransitive, &[int, more, more], &[]);
    }

    #[test]
    fn a_renamed_type_is_read_by_its_alias() {
        fn check(old: &str, new: &str, expected: &[(usize, usize)]) {
            let schemas = [old, new].map(|text| Schema::parse_str(text).expect(text));
            let found = breaches(Level::Full, &schemas);
            let pairs: Vec<_> = found.iter().map(|one| (one.written, one.reading)).collect();
            assert_eq!(pairs, expected, "{old} {new}: {found:?}");
        }
        let record =
            |name: &str, fields: &str| format!(r#"{{"type":"record",{name},"fields":[{fields}]}}"#);
        let field =
            |kind: &str| record(r#""name":"Outer""#, &format!(r#"{{"name":"a","type":{kind}}}"#));
        // The old schema has no alias for the new name.
        let forward = [(2, 1)];
        let renamed = [r#""name":"R""#, r#""name":"S","aliases":["R"]"#, r#""name":"S""#];
        let records = renamed.map(|name| record(name, r#"{"name":"a","type":"int"}"#));
        check(&records[0], &records[1], &forward);
        check(&records[0], &records[2], &[(1, 2), (2, 1)]);
        for (kind, rest) in [
            ("enum", r#""symbols":["A","B"]"#),
            ("fixed", r#""size":4"#),
            ("record", r#""fields":[{"name":"x","type":"int"}]"#),
        ] {
            let types = renamed.map(|name| format!(r#"{{"type":"{kind}",{name},{rest}}}"#));
            let [old, new, _] = types.each_ref().map(|kind| field(kind));
            check(&old, &new, &forward);
            let around: [fn(&str) -> String; 3] = [
                |kind| format!(r#"["null",{kind}]"#),
                |kind| format!(r#"{{"type":"array","items":{kind}}}"#),
                |kind| format!(r#"{{"type":"map","values":["null",{kind}]}}"#),
            ];
            // In a union with another branch, a fixed of the same size is read under any name.
            for around in around.into_iter().filter(|_| kind != "fixed") {
                let [old, new, _] = types.each_ref().map(|kind| field(&around(kind)));
                check(&old, &new, &forward);
            }
            // Without an alias.
            let [old, _, other] = types.each_ref().map(|kind| field(kind));
            check(&old, &other, &[(1, 2), (2, 1)]);
        }
        // A recursive type.
        let tree = |name: &str, link: &str| {
            record(name, &format!(r#"{{"name":"next","type":["null","{link}"],"default":null}}"#))
        };
        check(&tree(renamed[0], "R"), &tree(renamed[1], "S"), &forward);
        // Also in another namespace.
        let moved =
            record(r#""name":"S","namespace":"n","aliases":["R"]"#, r#"{"name":"a","type":"int"}"#);
        check(&records[0], &moved, &forward);
    }

    #[test]
    fn names_are_the_serialised_forms() {
        for level in Level::ALL {
            assert_eq!(serde_json::to_value(level).unwrap(), level.name());
        }
    }
}

//! The names of all keys, derived from the types in `raw.rs`.
//!
//! The types are deserialized from a probe, which returns a valid value for every type that serde requests and records the
//! names of the fields.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize,
    de::{
        self, DeserializeSeed, Deserializer, EnumAccess, MapAccess, VariantAccess, Visitor,
        value::{MapDeserializer, SeqDeserializer},
    },
    forward_to_deserialize_any,
};

use crate::{
    config::raw::RawConfig,
    events::similar_name::{nearest, nearest_of},
};

/// The kind of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A section with known keys.
    Section,
    /// A section with any keys: librdkafka's properties.
    Open,
    /// A number, or true or false.
    Scalar,
    /// Another value.
    Value,
}

/// The keys (`section.key`), each with its kind.
#[derive(Clone, Debug, Default)]
pub(super) struct Keys(BTreeMap<String, Kind>);

impl Keys {
    /// The keys of a whole configuration.
    pub(super) fn of_configuration() -> Self {
        let mut keys = Self::default();
        let probe = Probe { path: String::new(), keys: &mut keys };
        let read = RawConfig::deserialize(probe);
        read.expect("the probe has a valid value for every type, which a test shows");
        keys
    }

    pub(super) fn kind(&self, key: &str) -> Option<Kind> {
        self.0.get(key).copied()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, Kind)> {
        self.0.iter().map(|(key, kind)| (key.as_str(), *kind))
    }

    /// The keys without those for which `is_left_out`.
    pub(super) fn without(&self, is_left_out: impl Fn(&str) -> bool) -> Self {
        let kept = self.0.iter().filter(|(key, _)| !is_left_out(key));
        Self(kept.map(|(key, kind)| (key.clone(), *kind)).collect())
    }

    /// The names of the keys in a section, or of the sections for `""`.
    pub(super) fn names_in(&self, section: &str) -> Vec<&str> {
        let keys = self.0.keys().map(|key| split(key));
        keys.filter(|(above, _)| *above == section).map(|(_, name)| name).collect()
    }

    /// The key most similar to `key`: in the same section, or with the same name in another section, or any.
    pub(super) fn nearest(&self, key: &str) -> Option<&str> {
        let (section, name) = split(key);
        let all = || self.0.keys().map(String::as_str);
        let beside = all().filter(|other| split(other).0 == section);
        nearest_of(name, beside.map(|other| (split(other).1, other)))
            .or_else(|| all().find(|other| split(other).1 == name))
            .or_else(|| nearest(key, all()))
    }
}

/// The section of a key, and the name in it.
fn split(key: &str) -> (&str, &str) {
    key.rsplit_once('.').unwrap_or(("", key))
}

/// Deserializes any type from valid values, and records the fields.
struct Probe<'k> {
    path: String,
    keys: &'k mut Keys,
}

/// A valid text for each type that is written as one: a duration, a path, a name.
const TEXT: &str = "1s";

impl Probe<'_> {
    fn record(&mut self, kind: Kind) {
        if !self.path.is_empty() {
            self.keys.0.insert(self.path.clone(), kind);
        }
    }
}

impl<'de> Deserializer<'de> for Probe<'_> {
    type Error = ProbeError;

    fn deserialize_any<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, ProbeError> {
        self.record(Kind::Value);
        visitor.visit_str(TEXT)
    }

    fn deserialize_bool<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, ProbeError> {
        self.record(Kind::Scalar);
        visitor.visit_bool(true)
    }

    fn deserialize_i64<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, ProbeError> {
        self.record(Kind::Scalar);
        visitor.visit_i64(1)
    }

    fn deserialize_u32<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, ProbeError> {
        self.record(Kind::Scalar);
        visitor.visit_u32(1)
    }

    fn deserialize_u64<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, ProbeError> {
        self.record(Kind::Scalar);
        visitor.visit_u64(1)
    }

    fn deserialize_f64<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, ProbeError> {
        self.record(Kind::Scalar);
        visitor.visit_f64(1.0)
    }

    fn deserialize_char<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, ProbeError> {
        self.record(Kind::Value);
        visitor.visit_char(',')
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ProbeError> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, ProbeError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, ProbeError> {
        self.record(Kind::Value);
        visitor.visit_seq(SeqDeserializer::new(std::iter::empty::<&str>()))
    }

    fn deserialize_map<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, ProbeError> {
        self.record(Kind::Open);
        visitor.visit_map(MapDeserializer::new(std::iter::empty::<(&str, &str)>()))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        mut self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ProbeError> {
        self.record(Kind::Section);
        visitor.visit_map(Fields {
            path: self.path,
            keys: self.keys,
            fields: fields.iter(),
            field: "",
        })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        mut self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ProbeError> {
        self.record(Kind::Value);
        visitor.visit_enum(FirstVariant { variants, probe: self })
    }

    forward_to_deserialize_any! {
        i8 i16 i32 u8 u16 f32 str string bytes byte_buf unit unit_struct tuple tuple_struct
        identifier ignored_any
    }
}

struct Fields<'k> {
    path: String,
    keys: &'k mut Keys,
    fields: std::slice::Iter<'static, &'static str>,
    field: &'static str,
}

impl<'de> MapAccess<'de> for Fields<'_> {
    type Error = ProbeError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, ProbeError> {
        let Some(field) = self.fields.next() else { return Ok(None) };
        self.field = field;
        seed.deserialize(de::value::StrDeserializer::new(field)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(
        &mut self,
        seed: V,
    ) -> Result<V::Value, ProbeError> {
        let dot = if self.path.is_empty() { "" } else { "." };
        let path = format!("{}{dot}{}", self.path, self.field);
        seed.deserialize(Probe { path, keys: self.keys })
    }
}

struct FirstVariant<'k> {
    variants: &'static [&'static str],
    probe: Probe<'k>,
}

impl<'de, 'k> EnumAccess<'de> for FirstVariant<'k> {
    type Error = ProbeError;
    type Variant = Content<'k>;

    fn variant_seed<V: DeserializeSeed<'de>>(
        self,
        seed: V,
    ) -> Result<(V::Value, Self::Variant), ProbeError> {
        let first = self.variants.first().copied().unwrap_or_default();
        let variant = seed.deserialize(de::value::StrDeserializer::new(first))?;
        Ok((variant, Content(self.probe)))
    }
}

/// The content of a variant. Its keys are not recorded; serde's own error names an unknown one.
struct Content<'k>(Probe<'k>);

impl<'de> VariantAccess<'de> for Content<'_> {
    type Error = ProbeError;

    fn unit_variant(self) -> Result<(), ProbeError> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(
        self,
        seed: T,
    ) -> Result<T::Value, ProbeError> {
        seed.deserialize(self.0)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, ProbeError> {
        self.0.deserialize_any(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ProbeError> {
        self.0.deserialize_any(visitor)
    }
}

/// A type for which the probe has no valid value.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct ProbeError(String);

impl de::Error for ProbeError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_found() {
        let keys = Keys::of_configuration();
        let check =
            |key: &str, expected: Option<Kind>| assert_eq!(keys.kind(key), expected, "{key}");
        check("application", Some(Kind::Section));
        check("application.id", Some(Kind::Value));
        check("application.instance", Some(Kind::Value));
        check("broker.session_timeout", Some(Kind::Value));
        check("broker.properties", Some(Kind::Open));
        check("schema_registry.password", Some(Kind::Value));
        check("streams.processing_guarantee", Some(Kind::Value));
        check("features.contract", Some(Kind::Section));
        check("features.contract.policy", Some(Kind::Value));
        check("outcomes.unlabelled", Some(Kind::Value));
        check("tuning.trials", Some(Kind::Scalar));
        check("serving.journal", Some(Kind::Scalar));
        check("tuning.space", Some(Kind::Section));
        check("tuning.space.num_leaves", Some(Kind::Value));
        check("tuning.space.max_depth", Some(Kind::Value));
        check("tuning.space.objective", None);
        check("learning.tuning.every", Some(Kind::Scalar));
        check("learning.tuning.space.boosting", Some(Kind::Value));
        check("data.initial.label_suffix", Some(Kind::Value));
        check("data.play.delimiter", Some(Kind::Value));
        check("http.bearer_token", Some(Kind::Value));
        check("http.port", None);
        check("lerning", None);
    }

    #[test]
    fn the_nearest_key_is_named() {
        let keys = Keys::of_configuration();
        let check = |key: &str, expected: Option<&str>| {
            assert_eq!(keys.nearest(key), expected, "{key}");
        };
        check("lerning", Some("learning"));
        check("learning.retrain_after2", Some("learning.retrain_after"));
        check("features.contract.policy2", Some("features.contract.policy"));
        check("broker.retrain_after", Some("learning.retrain_after"));
        check("http.prot", None);
        check("nonsense", None);
    }
}
